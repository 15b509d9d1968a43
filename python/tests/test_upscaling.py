"""Pictures made larger: networks as they were published, tiles of any size, checkpoints between them, transparency."""

import hashlib
import os
import struct
import time
from pathlib import Path

import numpy
import pytest
import torch
from conftest import ROOT, Stall
from PIL import Image
from safetensors.torch import load_file, save_file
from test_pictures import saved
from torch.nn import functional as F

from darkroom import upscalers, upscaling
from darkroom.upscalers import Upscaler

# Threads that spin while they wait hold one another up on a busy machine.
torch.set_num_threads(1)

TINY = ROOT / "models" / "darkroom-tiny" / "upscaler" / "x2-compact.safetensors"


def named(path, body="b"):
    """As the node tells of an upscaler."""
    return {"id": Path(path).stem, "path": str(path), "body_hash": body * 64, "family": "upscaler"}


def noise(width, height, channels=3, seed=0):
    """A picture with edges, slopes and grain."""
    random = numpy.random.default_rng(seed)
    small = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, channels), numpy.uint8)
    smooth = numpy.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return (smooth + random.integers(-9, 10, smooth.shape)).clip(0, 255).astype(numpy.uint8)


# --- the published formulas, by the names of each layout ---


def convolved(weights, name, x):
    return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)


def rrdb(weights, x, *, first, block, body, ups, hr, last, fold):
    """ESRGAN's generator: `block(b, d, c)` names convolution c of dense block d of block b."""

    def dense(x, b, d):
        seen = [x]
        for c in range(1, 5):
            seen.append(F.leaky_relu(convolved(weights, block(b, d, c), torch.cat(seen, 1)), 0.2))
        return convolved(weights, block(b, d, 5), torch.cat(seen, 1)) * 0.2 + x

    feature = convolved(weights, first, F.pixel_unshuffle(x, fold))
    out = feature
    for b in range(BLOCKS):
        inner = out
        for d in (1, 2, 3):
            inner = dense(inner, b, d)
        out = inner * 0.2 + out
    out = feature + convolved(weights, body, out)
    for up in ups:
        out = F.leaky_relu(convolved(weights, up, F.interpolate(out, scale_factor=2, mode="nearest")), 0.2)
    return convolved(weights, last, F.leaky_relu(convolved(weights, hr, out), 0.2))


BLOCKS, FEATURES, GROWTH = 2, 8, 4
BASIC = {
    "first": "conv_first",
    "block": "body.{}.rdb{}.conv{}".format,
    "body": "conv_body",
    "ups": ["conv_up1", "conv_up2"],
    "hr": "conv_hr",
    "last": "conv_last",
}
SECOND = {
    "first": "conv_first",
    "block": "RRDB_trunk.{}.RDB{}.conv{}".format,
    "body": "trunk_conv",
    "ups": ["upconv1", "upconv2"],
    "hr": "HRconv",
    "last": "conv_last",
}


def numbered(doublings):
    """ESRGAN's first names: a doubling, its convolution and its activation take three numbers of the sequence."""
    at = 2 + 3 * doublings
    return {
        "first": "model.0",
        "block": "model.1.sub.{}.RDB{}.conv{}.0".format,
        "body": f"model.1.sub.{BLOCKS}",
        "ups": [f"model.{3 + 3 * n}" for n in range(doublings)],
        "hr": f"model.{at}",
        "last": f"model.{at + 2}",
    }


LAYOUTS = {
    "new x1": ({**BASIC, "fold": 4}, 1),
    "new x2": ({**BASIC, "fold": 2}, 2),
    "new x4": ({**BASIC, "fold": 1}, 4),
    "second x4": ({**SECOND, "fold": 1}, 4),
    "old x1": ({**numbered(0), "fold": 1}, 1),
    "old x2": ({**numbered(1), "fold": 1}, 2),
    "old x4": ({**numbered(2), "fold": 1}, 4),
}


def rrdb_weights(names, seed=0, blocks=BLOCKS):
    generator = torch.Generator().manual_seed(seed)
    shapes = {names["first"]: (FEATURES, 3 * names["fold"] ** 2)}
    for b in range(blocks):
        for d in (1, 2, 3):
            for c in range(1, 6):
                shapes[names["block"](b, d, c)] = (GROWTH if c < 5 else FEATURES, FEATURES + (c - 1) * GROWTH)
    shapes |= {name: (FEATURES, FEATURES) for name in (names["body"], *names["ups"], names["hr"])}
    shapes[names["last"]] = (3, FEATURES)
    made = {}
    for name, (out, given) in shapes.items():
        made[f"{name}.weight"] = torch.randn(out, given, 3, 3, generator=generator) / (3 * given**0.5)
        made[f"{name}.bias"] = torch.randn(out, generator=generator) / 10
    return made


def compact_weights(features, inner, scale, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for index, (out, given) in enumerate([(features, 3), *[(features, features)] * inner, (3 * scale**2, features)]):
        made[f"body.{2 * index}.weight"] = torch.randn(out, given, 3, 3, generator=generator) / (3 * given**0.5)
        made[f"body.{2 * index}.bias"] = torch.randn(out, generator=generator) / 20
        if index <= inner:
            made[f"body.{2 * index + 1}.weight"] = torch.rand(out, generator=generator) / 2
    return made


def compact(weights, x, inner, scale):
    """Real-ESRGAN's SRVGGNetCompact."""
    out = convolved(weights, "body.0", x)
    for index in range(inner + 1):
        out = convolved(weights, f"body.{2 * index + 2}", F.prelu(out, weights[f"body.{2 * index + 1}.weight"]))
    return F.pixel_shuffle(out, scale) + F.interpolate(x, scale_factor=scale, mode="nearest")


class Parts:
    """A file's parts, with weights at once."""

    def __init__(self, path):
        self.where = str(path)

    def network_of_file(self, kind, dtype):
        plan = kind.load_config(self.where)
        network = kind.from_config(plan)
        tensors = load_file(self.where)
        network.load_state_dict({ours: tensors[theirs].to(dtype) for ours, theirs in plan.names.items()})
        return network

    def tensors_of_file(self):
        return load_file(self.where)


def loaded(path):
    return Upscaler.load(Parts(path), torch.device("cpu"))


def written(folder, weights, prefix="", name="network"):
    path = folder / f"{name}.safetensors"
    save_file({prefix + key: tensor for key, tensor in weights.items()}, path)
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("prefix", ["", "params_ema."])
def test_an_esrgan_computes_as_it_was_published(tmp_path, layout, prefix):
    names, scale = LAYOUTS[layout]
    weights = rrdb_weights(names)
    upscaler = loaded(written(tmp_path, weights, prefix))
    assert (upscaler.scale, upscaler.fold, upscaler.name) == (scale, names["fold"], "Rrdb")
    x = torch.rand(1, 3, 24, 16, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = rrdb(weights, x, **names)
        assert torch.allclose(upscaler._network(x, upscalers.plain), expected, atol=1e-6)
        exact = upscaler._network(x.double(), upscalers.on_grid)
    assert expected.shape == (1, 3, 24 * scale, 16 * scale)
    # What is rounded is a fiftieth of a level of 8 bits.
    assert (exact - expected).abs().max() < 0.02 / 255


@pytest.mark.parametrize(("inner", "scale"), [(0, 1), (3, 2), (2, 4)])
def test_a_compact_network_computes_as_it_was_published(tmp_path, inner, scale):
    weights = compact_weights(6, inner, scale)
    upscaler = loaded(written(tmp_path, weights, "params."))
    assert (upscaler.scale, upscaler.reach, upscaler.name) == (scale, inner + 2, "Compact")
    x = torch.rand(1, 3, 9, 14, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = compact(weights, x, inner, scale)
        assert torch.allclose(upscaler._network(x, upscalers.plain), expected, atol=1e-6)
        assert (upscaler._network(x.double(), upscalers.on_grid) - expected).abs().max() < 0.02 / 255


def test_no_network_comes_block_by_block():
    """Layers are used without being called, so nothing would bring a block's weights."""
    from darkroom.families.blocks import modules_of

    for network in (upscalers.Rrdb(4, 2, 3, 2, 1), upscalers.Compact(4, 3, 2)):
        assert modules_of(network) == []


def test_averaged_weights_come_before_others(tmp_path):
    both = {"params." + name: tensor for name, tensor in compact_weights(4, 1, 2, seed=1).items()}
    averaged = compact_weights(4, 1, 2, seed=2)
    path = written(tmp_path, both | {"params_ema." + name: tensor for name, tensor in averaged.items()})
    plan = upscalers.plan_of(upscalers.shapes_in(str(path)))
    assert set(plan.names.values()) == {"params_ema." + name for name in averaged}


@pytest.mark.parametrize("blocks", [1, 3])
def test_what_a_network_sees_is_no_further_than_its_reach(blocks):
    """Where the gradient of one pixel ends, along a row."""
    torch.manual_seed(0)
    for network in (upscalers.Rrdb(4, 2, blocks, 2, 1), upscalers.Rrdb(4, 2, blocks, 2, 2), upscalers.Compact(4, blocks, 2)):
        side = 2 * network.reach + 16
        x = torch.rand(1, 3, 16, side, dtype=torch.float64, requires_grad=True)
        network.double()(x, upscalers.plain)[0, :, 8 * network.scale, side // 2 * network.scale].sum().backward()
        columns = x.grad.abs().sum((0, 1, 2)).nonzero().flatten()
        assert side // 2 - columns.min() <= network.reach
        assert columns.max() - side // 2 <= network.reach


# --- what a file may be ---


FIRST_OF_OLD = {"model.0.weight": torch.zeros(1), "model.1.sub.0.RDB1.conv1.0.weight": torch.zeros(1)}
FIRST_OF_NEW = {"conv_first.weight": torch.zeros(4, 3, 3, 3), "body.0.rdb1.conv1.weight": torch.zeros(2, 4, 3, 3)}


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: weights.pop("body.4.bias"),
        lambda weights: weights.update({"body.9.weight": torch.zeros(3)}),
        lambda weights: weights.update({"extra": torch.zeros(3)}),
        lambda weights: weights.update({"body.2.weight": torch.zeros(6, 7, 3, 3)}),
        lambda weights: weights.update({"body.4.weight": torch.zeros(10, 6, 3, 3)}),
        lambda weights: weights.update({"body.0.weight": torch.zeros(6, 1, 3, 3)}),
        lambda weights: weights.clear() or weights.update({"a": torch.zeros(1)}),
        lambda weights: weights.clear() or weights.update(FIRST_OF_OLD),
        lambda weights: weights.clear() or weights.update(FIRST_OF_NEW),
    ],
)
def test_a_file_with_a_tensor_too_many_too_few_or_of_another_shape_is_no_network_of_ours(change):
    weights = compact_weights(6, 1, 2)
    change(weights)
    assert upscalers.plan_of({name: tuple(tensor.shape) for name, tensor in weights.items()}) is None


def test_what_is_no_network_of_ours_asks_for_spandrel_by_name(shared, micro_folder):
    path = written(micro_folder, {"layers.0.weight": torch.zeros(3, 3)}, name="other")
    answer = asked(shared, noise(16, 16), named(path))
    try:
        import spandrel  # noqa: F401
    except ImportError:
        assert (answer["code"], answer["field"]) == ("postprocessing.needs_spandrel", "input.upscaler")
        assert "pip" not in answer["remedy"] and "spandrel and torchvision" in answer["remedy"]
    else:
        assert answer["code"] == "postprocessing.upscaler_unfit"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "model.corrupt"),
        (b"PK\x03\x04 no safetensors", "model.corrupt"),
        (struct.pack("<Q", 1 << 62) + b"{}", "model.corrupt"),
        (TINY.read_bytes()[:-10], "model.corrupt"),
    ],
)
def test_a_broken_file_is_refused_by_its_name(shared, micro_folder, content, code):
    path = micro_folder / "broken.safetensors"
    path.write_bytes(content)
    answer = asked(shared, noise(16, 16), named(path, hashlib.sha256(content).hexdigest()[0]))
    assert answer["code"] == code
    assert "broken.safetensors" in answer["message"]
    path.unlink()


def test_a_network_that_makes_no_number_says_so(shared, micro_folder):
    weights = compact_weights(4, 0, 2)
    weights["body.2.bias"][0] = float("nan")
    answer = asked(shared, noise(16, 16), named(written(micro_folder, weights, name="nan"), "d"))
    assert (answer["code"], answer["class"]) == ("postprocessing.diverged", "permanent")


def test_a_result_without_bound_is_refused_before_anything_is_computed(shared):
    answer = asked(shared, noise(4200, 8), named(TINY), width=4200 * 1024, height=8 * 1024)
    assert (answer["code"], answer["field"]) == ("postprocessing.too_large", "input.upscaler")


# --- tiles ---


def enlarged(upscaler, picture, side, passes=1):
    work = upscaling.Enlargement(picture, upscaler, passes, upscaling.tiling_of(upscaler, side), "")
    while work.call < work.calls:
        work.advance()
    return work.made


@pytest.mark.parametrize("size", [(150, 91), (64, 64), (1, 1), (3, 200)])
def test_a_tile_of_any_size_that_holds_what_the_network_sees_makes_the_same_bytes(size):
    upscaler = loaded(TINY)
    picture = noise(*size)
    made = [enlarged(upscaler, picture, side) for side in (64, 128, 192, 320)]
    assert made[0].shape == (size[1] * 2, size[0] * 2, 3)
    assert all(numpy.array_equal(made[0], each) for each in made[1:])


def test_a_folded_network_too(tmp_path):
    names, _ = LAYOUTS["new x2"]
    upscaler = loaded(written(tmp_path, rrdb_weights(names, blocks=1)))
    picture = noise(101, 77)
    assert upscaling.tiling_of(upscaler, 192).is_exact
    assert numpy.array_equal(enlarged(upscaler, picture, 192), enlarged(upscaler, picture, 256))


def test_tiles_are_what_the_whole_picture_makes():
    """The whole: the picture with its edges drawn on, so far as the network sees."""
    upscaler = loaded(TINY)
    picture = noise(100, 70)
    wide = numpy.pad(picture, ((8, 8), (8, 8), (0, 0)), mode="edge")
    whole = upscaler.enlarge(wide, True)[16:-16, 16:-16]
    assert numpy.array_equal(enlarged(upscaler, picture, 64), whole)


@pytest.mark.parametrize("threads", [2, 3])
def test_bytes_follow_from_no_number_of_threads(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        made = enlarged(loaded(TINY), noise(90, 60, seed=4), 64)
    finally:
        torch.set_num_threads(before)
    assert numpy.array_equal(made, enlarged(loaded(TINY), noise(90, 60, seed=4), 128))


def test_tiles_of_a_network_that_sees_further_go_over_into_one_another(tmp_path):
    """No edge of a tile is steeper than the picture is elsewhere: the whole picture's values are met within a level or
    two, on both sides of it."""
    names, scale = LAYOUTS["new x4"]
    upscaler = loaded(written(tmp_path, rrdb_weights(names, seed=3)))
    tiling = upscaling.tiling_of(upscaler, 64)
    assert not tiling.is_exact
    picture = noise(75, 60)
    wide = numpy.pad(picture, ((40, 40), (40, 40), (0, 0)), mode="edge")
    whole = upscaler.enlarge(wide, False)[40 * scale : -40 * scale, 40 * scale : -40 * scale]
    difference = numpy.abs(enlarged(upscaler, picture, 64).astype(int) - whole)
    assert difference.max() <= 3


@pytest.mark.parametrize("is_exact", [True, False])
def test_a_tile_says_that_it_gets_on(is_exact):
    said = []
    loaded(TINY).enlarge(noise(64, 64), is_exact, lambda: said.append(1))
    assert len(said) >= 8


def test_a_ramp_meets_both_of_its_ends():
    old, new = numpy.full((4, 12, 3), 10, numpy.uint8), numpy.full((4, 8, 3), 250, numpy.uint8)
    upscaling._lay(old, new, 4, 4, 1)
    assert old[0, :, 0].tolist() == [10] * 4 + [40, 100, 160, 220] + [250] * 4


# --- as a step ---


def asked(child, picture, upscaler, *, files=None, checkpoint=None, session="s1", **more):
    return child.until(sent(child, picture, upscaler, files=files, checkpoint=checkpoint, session=session, **more))


def sent(child, picture, upscaler, *, checkpoint=None, session="s1", files=None, **more):
    file, pin = saved(child, picture)
    folder = child.attempts / f"attempt-{child.process.pid}-{child.last}"
    folder.mkdir(exist_ok=True)
    request = {"picture": pin, "upscaler": upscaler, "width": 2 * pin["width"], "height": 2 * pin["height"], **more}
    files = {"picture": child.given(file)} if files is None else files
    checkpoint = checkpoint and child.given(checkpoint)
    data = {"session_id": session, "dir": str(folder), "input": request, "files": files, "checkpoint": checkpoint}
    return child.send("postprocessing.upscale", data)


def pixels_of(answer, width, height):
    assert answer["type"] == "result", answer
    channels = 4 if answer["output"]["has_alpha"] else 3
    return numpy.frombuffer(Path(answer["files"]["pixels"]["path"]).read_bytes(), numpy.uint8).reshape(height, width, channels)


def test_the_upscaler_of_darkroom_tiny_is_resident_and_goes_again(shared):
    picture = noise(40, 30)
    answer = asked(shared, picture, named(TINY))
    assert answer["output"] == {"has_alpha": False, "network": "Compact", "tile": None}
    assert numpy.array_equal(pixels_of(answer, 80, 60), enlarged(loaded(TINY), picture, 64))
    assert TINY.stem in shared.models()
    gone = shared.until(shared.send("model.drop", {"id": TINY.stem, "families": None}))["output"]["models"]
    assert gone == [{"id": TINY.stem, "bytes": 4 * sum(tensor.numel() for tensor in load_file(TINY).values())}]
    again = asked(shared, picture, named(TINY))
    assert again["files"]["pixels"]["sha256"] == answer["files"]["pixels"]["sha256"]


@pytest.mark.parametrize("by", ["lanczos", "bicubic", "nearest"])
def test_a_filter_needs_no_network(shared, by):
    picture = noise(40, 30, 4)
    made = pixels_of(asked(shared, picture, by, width=60, height=45), 60, 45)
    expected = Image.fromarray(picture).resize((60, 45), Image.Resampling[by.upper()])
    assert numpy.array_equal(made, numpy.asarray(expected))


def test_transparency_is_kept_and_colours_go_through_the_network(shared):
    picture = noise(40, 30, 4)
    made = pixels_of(asked(shared, picture, named(TINY)), 80, 60)
    alone = pixels_of(asked(shared, picture[..., :3].copy(), named(TINY)), 80, 60)
    assert numpy.array_equal(made[..., :3], alone)
    alpha = Image.fromarray(picture[..., 3]).resize((80, 60), Image.Resampling.LANCZOS)
    assert numpy.array_equal(made[..., 3], numpy.asarray(alpha))


@pytest.mark.parametrize(("width", "height"), [(60, 45), (160, 120), (100, 75)])
def test_another_factor_is_the_networks_and_a_reduction(shared, width, height):
    picture = noise(40, 30)
    made = pixels_of(asked(shared, picture, named(TINY), width=width, height=height), width, height)
    larger = enlarged(loaded(TINY), picture, 64, passes=1 if width <= 80 else 2)
    assert numpy.array_equal(made, numpy.asarray(Image.fromarray(larger).resize((width, height), Image.Resampling.LANCZOS)))


def test_a_picture_goes_on_from_any_tile_to_the_same_bytes(shared, fresh, micro_folder):
    """Two passes, tiles that lie side by side and tiles that go over into one another."""
    names, _ = LAYOUTS["old x2"]
    blurring = named(written(micro_folder, rrdb_weights(names), name="blurring"), "e")
    for upscaler, tile in ((named(TINY), 64), (blurring, 64)):
        picture = noise(70, 50, 4, seed=7)
        request = {"width": 280, "height": 200, "tile": tile}
        answer = asked(shared, picture, upscaler, **request)
        checkpoints = shared.of(str(shared.last), "checkpoint")
        calls = answer["stats"]["calls"]
        assert [file["call"] for file in checkpoints] == list(range(1, calls))
        assert answer["output"]["tile"] == (None if upscaler["id"] == TINY.stem else 64)
        for made in checkpoints[:: max(1, calls // 6)]:
            again = asked(fresh, picture, upscaler, checkpoint=made, **request)
            assert (again["stats"]["resumed_from"], again["stats"]["checkpoint_refused"]) == (made["call"], None)
            assert again["files"]["pixels"]["sha256"] == answer["files"]["pixels"]["sha256"]


def test_a_checkpoint_of_another_picture_or_a_broken_one_begins_anew(shared, fresh):
    picture = noise(90, 60)
    answer = asked(shared, picture, named(TINY), tile=64)
    made = shared.of(str(shared.last), "checkpoint")[0]
    other = asked(fresh, noise(90, 60, seed=1), named(TINY), tile=64, checkpoint=made)
    assert "identity" in other["stats"]["checkpoint_refused"]
    content = Path(made["path"]).read_bytes()
    for cut in (content[:-5], content + b"x", content[:7], b"\xff" * 100, content[:20] + b"\x00" + content[21:]):
        path = shared.attempts / "cut"
        path.write_bytes(cut)
        broken = {"path": str(path), "sha256": hashlib.sha256(cut).hexdigest(), "bytes": len(cut), "call": made["call"]}
        again = asked(fresh, picture, named(TINY), tile=64, checkpoint=broken)
        assert again["stats"]["checkpoint_refused"] and again["stats"]["resumed_from"] == 0
        assert again["files"]["pixels"]["sha256"] == answer["files"]["pixels"]["sha256"]


def stalled(child, picture, call):
    """As `Child.stall`: the step waits for the checkpoint at `call`, whose file is a pipe, with a tile more done."""
    folder = child.attempts / f"attempt-{child.process.pid}-{child.last}"
    folder.mkdir(exist_ok=True)
    pipe = folder / f"checkpoint-{call}.safetensors.part"
    os.mkfifo(pipe)
    stall = Stall(sent(child, picture, named(TINY), tile=64), pipe)
    while (child.vitals()["busy"] or {}).get("call") != call + 1:
        time.sleep(0.01)
    return stall


@pytest.mark.parametrize("verb", ["pause", "cancel"])
def test_pause_and_cancel_end_it_between_two_tiles(shared, fresh, verb):
    picture = noise(150, 120)
    whole = asked(fresh, picture, named(TINY), tile=64)
    stall = stalled(shared, picture, 3)
    shared.until(shared.send(f"worker.{verb}", {"target": stall.request_id}))
    stall.end()
    answer = shared.until(stall.request_id)
    if verb == "cancel":
        assert answer["code"] == "session.cancelled"
        return
    assert answer["type"] == "released"
    assert answer["checkpoint"]["call"] == 4
    again = asked(fresh, picture, named(TINY), tile=64, checkpoint=answer["checkpoint"])
    assert again["files"]["pixels"]["sha256"] == whole["files"]["pixels"]["sha256"]


# --- when memory is short ---


class Short:
    """Runs out of memory for tiles above a side."""

    def __init__(self, inner, side):
        self.inner, self.side, self.tried = inner, side, []

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def enlarge(self, tile, is_exact, alive):
        self.tried.append(tile.shape[0])
        if tile.shape[0] > self.side:
            raise torch.OutOfMemoryError("no memory")
        return self.inner.enlarge(tile, is_exact, alive)


def test_tiles_become_smaller_until_there_is_memory_for_them():
    from darkroom.memory import Peaks

    peaks, upscaler = Peaks(torch.device("cpu")), {"id": "a", "body_hash": "b"}
    assert peaks.largest_tile(upscaler) is None
    assert [peaks.shorten_tiles(upscaler, None) for _ in range(3)] == [128, 64, None]
    assert peaks.largest_tile(upscaler) == 64
    assert [peaks.shorten_tiles({"id": "c", "body_hash": "b"}, 320) for _ in range(3)] == [128, 64, None]


def test_a_step_that_runs_out_of_memory_begins_again_with_smaller_tiles(tmp_path, monkeypatch):
    """The device loop of one process, with an upscaler that a large tile is too much for."""
    import logging

    from darkroom.device_loop import DeviceLoop
    from darkroom.memory import Peaks
    from darkroom.requests import Requests
    from darkroom.runtime import LiveTensors, Runtime
    from darkroom.tools import Tools

    class Models:
        offload = type("Offload", (), {"word": "none"})

        def get(self, reference, tools):
            return short, 0.0

        def relieve(self):
            return iter(())

        cut = relieve

    short = Short(loaded(TINY), 64)
    device = torch.device("cpu")
    adapters = type("Adapters", (), {"clear": lambda self: None})()
    runtime = Runtime(
        device=device, roots={"attempts": str(tmp_path)}, checkpoint={"calls": None, "interval_s": 60}, preview_s=0, models=Models(),
        adapters=adapters, classifiers=adapters, faces=adapters, live=LiveTensors(), peaks=Peaks(device), facts={}, wanted=lambda: (),
    )  # fmt: skip
    picture = noise(230, 230)
    path, folder = tmp_path / "picture", tmp_path / "attempt"
    folder.mkdir()
    Image.fromarray(picture).save(path, "PNG")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    request = {"picture": {"sha256": sha256, "width": 230, "height": 230}, "upscaler": named(TINY), "width": 460, "height": 460}
    files = {"picture": {"path": str(path), "sha256": sha256}}
    data = {"session_id": "s", "dir": str(folder), "input": request, "files": files, "checkpoint": None}
    said = []
    tools = Tools("1", "postprocessing.upscale", data, runtime, said.append, logging.getLogger("test"))
    backend = type("Backend", (), {"operation": lambda self, action: upscaling.upscale})()
    frame, code = DeviceLoop(backend, runtime, Requests(None, logging.getLogger("test")), logging.getLogger("test")).answer(tools)
    assert (frame["type"], code) == ("result", 0)
    # Of those that are left the one with least to compute.
    assert sorted(set(short.tried), reverse=True) == [256, 64]
    notes = [each["text"] for each in said if each["type"] == "note"]
    assert notes == ["out of memory: the picture is enlarged in tiles of 128 pixels at most"]
    made = numpy.frombuffer(Path(frame["files"]["pixels"]["path"]).read_bytes(), numpy.uint8).reshape(460, 460, 3)
    assert numpy.array_equal(made, enlarged(short.inner, picture, 128))


@pytest.mark.long
def test_the_largest_picture_takes_less_than_a_gibibyte(fork, micro_folder, tmp_path):
    """4096² pixels to 8192², 64 Mi pixels, with checkpoints on the way: of the process, beside what it has idle."""
    child = fork(models=[micro_folder], checkpoint={"interval_s": 2, "calls": None})
    child.ready()
    small = named(written(micro_folder, compact_weights(8, 0, 2), name="small"), "c")
    asked(child, noise(300, 300), small)
    before = resident(child.process.pid, "VmRSS")
    picture = noise(1024, 1024).repeat(4, 0).repeat(4, 1)
    answer = child.until(sent(child, picture, small), timeout_s=900)
    assert answer["files"]["pixels"]["bytes"] == 3 * 8192**2
    assert len(child.of(str(child.last), "checkpoint")) > 0
    assert resident(child.process.pid, "VmHWM") - before < 1 << 30


def resident(pid, name):
    """Bytes that a process has in RAM, now (VmRSS) or at most so far (VmHWM)."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024
