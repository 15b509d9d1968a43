"""What spandrel loads, where it is installed: our loaders beside its own on random weights, and what it knows alone."""

import pytest
import test_upscaling
import torch
from safetensors.torch import load_file
from test_upscaling import LAYOUTS, compact_weights, loaded, rrdb_weights, written

from darkroom import other_upscalers, upscalers

try:
    import spandrel
# RuntimeError: a torchvision that does not fit torch.
except (ImportError, RuntimeError) as error:
    pytest.skip(f"spandrel cannot be imported: {error}", allow_module_level=True)

CPU = torch.device("cpu")


def beside(path, x):
    """The picture by our network and by spandrel's, of the same file."""
    theirs = spandrel.ModelLoader(CPU).load_from_state_dict(load_file(path)).to(CPU).eval()
    ours = loaded(path)
    with torch.inference_mode():
        return ours, theirs, ours._network(x, upscalers.plain), theirs.model(x)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_esrgan_is_what_spandrel_makes_of_it(tmp_path, monkeypatch, layout):
    # spandrel takes every network for one that grows by 32.
    monkeypatch.setattr(test_upscaling, "GROWTH", 32)
    names, scale = LAYOUTS[layout]
    x = torch.rand(1, 3, 24, 16, generator=torch.Generator().manual_seed(1))
    ours, theirs, mine, other = beside(written(tmp_path, rrdb_weights(names)), x)
    assert ours.scale == theirs.scale == scale and torch.allclose(mine, other, atol=1e-5)


@pytest.mark.parametrize(("inner", "scale"), [(3, 2), (2, 4)])
def test_a_compact_network_is_what_spandrel_makes_of_it(tmp_path, inner, scale):
    x = torch.rand(1, 3, 9, 14, generator=torch.Generator().manual_seed(1))
    ours, theirs, mine, other = beside(written(tmp_path, compact_weights(6, inner, scale)), x)
    assert ours.scale == theirs.scale == scale and torch.allclose(mine, other, atol=1e-5)


def test_what_spandrel_knows_alone_enlarges_by_its_network(tmp_path):
    from spandrel.architectures.SPAN import SPAN

    torch.manual_seed(3)
    network = SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=2).eval()
    path = written(tmp_path, {name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    upscaler = loaded(path)
    assert upscaler.scale == 2 and upscaler.reach is None and "spandrel" in upscaler.name
    made = upscaler.enlarge((torch.rand(64, 64, 3) * 255).to(torch.uint8).numpy(), False)
    assert made.shape == (128, 128, 3)


def test_what_spandrel_does_not_know_is_unfit(tmp_path):
    path = written(tmp_path, {"nothing.weight": torch.zeros(3, 3)})

    class Parts:
        where = str(path)

        def tensors_of_file(self):
            return load_file(path)

    with pytest.raises(other_upscalers.DarkroomError) as caught:
        other_upscalers.load(Parts(), CPU)
    assert caught.value.code == "postprocessing.upscaler_unfit"
