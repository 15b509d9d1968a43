"""The kernels that a GPU's autoencoder is given, on the CPU: the same mathematics as torch's own."""

import copy

import pytest
import torch
from diffusers import AutoencoderKL

from darkroom.families import autoencoder_kernels

TOLERANCE = {"rtol": 1e-4, "atol": 2e-5}


@pytest.mark.parametrize("is_affine", [True, False])
@pytest.mark.parametrize("shape", [(2, 8, 6, 10), (1, 12, 30)])
def test_a_group_norm_is_torchs_own_to_the_last_digits(shape, is_affine):
    torch.manual_seed(1)
    norm = torch.nn.GroupNorm(4, shape[1], eps=1e-6, affine=is_affine)
    for parameter in norm.parameters():
        parameter.data.normal_()
    # Channels that lie far apart: a variance from their squares alone would lose its digits.
    given = torch.randn(shape) + 100 * torch.randn(shape[:2]).view(*shape[:2], *(1,) * (len(shape) - 2))
    assert torch.allclose(autoencoder_kernels.group_norm(norm, given), norm(given), **TOLERANCE)
    assert autoencoder_kernels.group_norm(norm, given.half()).dtype == torch.float16


def test_an_autoencoder_makes_what_it_made_whatever_is_computed_at_a_time(monkeypatch):
    torch.manual_seed(2)
    blocks = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1}
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    own = AutoencoderKL(**blocks, **kinds, latent_channels=4).eval()
    suited = copy.deepcopy(own)
    autoencoder_kernels.suit(suited)
    autoencoder_kernels.suit(suited)
    latents = torch.randn(1, 4, 6, 10)
    with torch.inference_mode():
        expected = own.decode(latents).sample
        assert torch.allclose(suited.decode(latents).sample, expected, **TOLERANCE)
        assert torch.allclose(suited.encode(expected).latent_dist.mode(), own.encode(expected).latent_dist.mode(), **TOLERANCE)
        monkeypatch.setattr(autoencoder_kernels, "SCORES", 60 * 7)
        assert torch.allclose(suited.decode(latents).sample, expected, **TOLERANCE)
