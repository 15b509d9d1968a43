"""What UNets and autoencoders are given to compute by on a GPU: the same mathematics as torch's own."""

import copy

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.activations import GEGLU
from diffusers.models.transformers.transformer_2d import Transformer2DModel

from darkroom import kernels
from darkroom.families import suited

TOLERANCE = {"rtol": 1e-4, "atol": 2e-5}
# Whatever the device of a test is: torch's own kernels run where there is no GPU.
GPU = torch.device("cuda", 0)
# Half precision keeps 11 digits of two, bfloat16 8: one rounding of the result, and numbers up to 8.
ROUNDING = {torch.float32: 1e-4, torch.float16: 8 * 2**-11, torch.bfloat16: 8 * 2**-8}


def test_an_autoencoder_makes_what_it_made_whatever_is_computed_at_a_time(monkeypatch):
    torch.manual_seed(2)
    blocks = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1}
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    own = AutoencoderKL(**blocks, **kinds, latent_channels=4).eval()
    suited_one = copy.deepcopy(own)
    suited.suit(suited_one, GPU)
    suited.suit(suited_one, GPU)
    latents = torch.randn(1, 4, 6, 10)
    with torch.inference_mode():
        expected = own.decode(latents).sample
        assert torch.allclose(suited_one.decode(latents).sample, expected, **TOLERANCE)
        assert torch.allclose(suited_one.encode(expected).latent_dist.mode(), own.encode(expected).latent_dist.mode(), **TOLERANCE)
        monkeypatch.setattr(suited, "SCORES", 60 * 7)
        assert torch.allclose(suited_one.decode(latents).sample, expected, **TOLERANCE)


UNETS = {
    "as SD1.5 has it": {"attention_head_dim": 2},
    "of one head": {"attention_head_dim": 1},
    "as SDXL has it": {"attention_head_dim": 2, "use_linear_projection": True},
    "that takes the time twice": {"attention_head_dim": 2, "resnet_time_scale_shift": "scale_shift"},
    "whose time stays as it is": {"attention_head_dim": 2, "resnet_skip_time_act": True},
}


@pytest.mark.parametrize("kind", UNETS)
def test_a_unet_predicts_what_it_predicted(kind, device):
    torch.manual_seed(3)
    shape = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1, "cross_attention_dim": 12}
    types = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
    own = UNet2DConditionModel(**shape, **types, **UNETS[kind]).eval().to(device)
    suited_one = copy.deepcopy(own)
    suited.suit(suited_one, GPU)
    # What it puts in the place of diffusers' own is there.
    assert all(hasattr(each, "_get_output_for_continuous_inputs") for each in own.modules() if isinstance(each, Transformer2DModel))
    latents, rows = torch.randn(2, 4, 8, 10, device=device), torch.randn(2, 5, 12, device=device)
    names = list(suited_one.state_dict())
    assert names == list(own.state_dict())
    if device != "cpu":
        # TF32 keeps fewer digits than the tolerance asks for.
        torch.backends.cudnn.conv.fp32_precision = "ieee"
    with torch.inference_mode():
        expected = own(latents, 7, encoder_hidden_states=rows, return_dict=False)[0]
        for layout in (torch.contiguous_format, torch.channels_last):
            given = latents.contiguous(memory_format=layout)
            assert torch.allclose(suited_one(given, 7, encoder_hidden_states=rows, return_dict=False)[0], expected, **TOLERANCE)


def test_a_network_on_a_cpu_stays_as_it_is():
    network = torch.nn.Sequential(torch.nn.GroupNorm(2, 4))
    suited.suit(network, torch.device("cpu"))
    assert "forward" not in vars(network[0])


@pytest.fixture
def on_gpu(device):
    if not device.startswith("cuda"):
        pytest.skip("needs a GPU: --device cuda")


SHAPES = [(2, 320, 128, 128), (2, 640, 64, 64), (1, 12, 7, 9), (2, 1280, 16, 16), (1, 128, 700, 501), (3, 8, 30), (1, 8, 1, 1)]


@pytest.mark.usefixtures("on_gpu")
class TestOnAGpu:
    @pytest.mark.parametrize("dtype", ROUNDING, ids=str)
    @pytest.mark.parametrize("beside", [False, True], ids=["planes", "channels_last"])
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    @pytest.mark.parametrize("is_silu", [False, True])
    def test_a_group_norm_is_the_sum_worked_out_in_fp64(self, device, shape, beside, dtype, is_silu):
        torch.manual_seed(1)
        groups = 4 if shape[1] < 32 else 32
        # Channels that lie far apart: a variance from their squares alone would lose its digits.
        far = (100 if dtype is torch.float32 else 2) * torch.randn(shape[:2]).view(*shape[:2], *(1,) * (len(shape) - 2))
        given = (torch.randn(shape) + far).to(device, dtype)
        if beside and len(shape) == 4:
            given = given.contiguous(memory_format=torch.channels_last)
        weight, bias = torch.randn(2, shape[1]).to(device, dtype)
        made = kernels.group_norm(given, groups, weight, bias, 1e-5, is_silu)
        exact = torch.nn.functional.group_norm(given.double(), groups, weight.double(), bias.double(), 1e-5)
        exact = torch.nn.functional.silu(exact) if is_silu else exact
        assert made.dtype == dtype
        assert made.stride() == given.stride()
        assert (made.double() - exact).abs().max() <= ROUNDING[dtype] * max(1.0, exact.abs().max() / 8)
        assert torch.equal(made, kernels.group_norm(given, groups, weight, bias, 1e-5, is_silu))

    def test_a_group_norm_without_weights(self, device):
        given = torch.randn(2, 8, 6, 10, device=device)
        made = kernels.group_norm(given, 4, None, None, 1e-6)
        assert torch.allclose(made, torch.nn.functional.group_norm(given, 4, eps=1e-6), **TOLERANCE)

    @pytest.mark.parametrize("dtype", ROUNDING, ids=str)
    @pytest.mark.parametrize("width", [2560, 21])
    def test_a_gated_unit_is_the_product_worked_out_in_fp64(self, device, width, dtype):
        torch.manual_seed(2)
        given = torch.randn(2, 77, 2 * width).to(device, dtype)
        number, gate = given.double().chunk(2, dim=-1)
        exact = number * torch.nn.functional.gelu(gate)
        assert (kernels.gated(given).double() - exact).abs().max() <= ROUNDING[dtype] * max(1.0, exact.abs().max() / 8)

    def test_a_graph_records_them(self, device):
        given = torch.randn(2, 8, 16, 16, device=device)
        norm = torch.nn.GroupNorm(4, 8).to(device)
        unit = GEGLU(16, 16).to(device)
        for forward in (lambda: suited.group_norm_silu(norm, given), lambda: suited.gated(unit, given)):
            with torch.inference_mode():
                expected = forward()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    made = forward()
                made.zero_()
                graph.replay()
                assert torch.equal(made, expected)

    def test_what_learns_has_its_gradient(self, device):
        given = torch.randn(2, 8, 6, 10, device=device, requires_grad=True)
        norm = torch.nn.GroupNorm(4, 8).to(device)
        suited.group_norm_silu(norm, given).sum().backward()
        assert given.grad is not None
