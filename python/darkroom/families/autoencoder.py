"""Pixels to latents and back, as the KL autoencoders of latent diffusion do both (Rombach and others 2022, arXiv
2112.10752): latents are shifted and scaled to about unit variance. Whole or in pieces, as `tiles` has it."""

from __future__ import annotations

from typing import Any

import torch

from darkroom import exactness
from darkroom.families import tiles
from darkroom.families.suited import suit


def to_latents(vae: Any, pixels: torch.Tensor, is_shifted: bool = True) -> torch.Tensor:
    """[3, height, width] or the same in a row of one, fp32, RGB in -1 to 1, as [1, channels, rows, columns] fp32. The
    mean of what the encoder says: no random number is drawn. `is_shifted`: as the networks that draw take them."""

    def encode(given: torch.Tensor) -> torch.Tensor:
        return vae.encode(given).latent_dist.mode().float()

    scale = 2 ** (len(vae.config.block_out_channels) - 1)
    suit(vae, pixels.device)
    with exactness.in_tf32():
        mean = tiles.now().run(encode, (pixels if pixels.ndim == 4 else pixels[None]).to(vae.dtype), scale)
    return (mean - ((vae.config.shift_factor or 0.0) if is_shifted else 0.0)) * vae.config.scaling_factor


def to_pixels(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """The way back: [3, height, width], RGB in -1 to 1, not clamped."""
    scaled = latents.to(vae.dtype) / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
    return decoded(vae, scaled)[0]


def decoded(vae: Any, scaled: torch.Tensor) -> torch.Tensor:
    """What the decoder makes of latents that are scaled as it wants them, [1, channels, …, rows, columns]: its own
    shape, [1, 3, …, height, width]."""

    def decode(given: torch.Tensor) -> torch.Tensor:
        return vae.decode(given, return_dict=False)[0]

    suit(vae, scaled.device)
    with exactness.in_tf32():
        return tiles.now().run(decode, scaled, 1)
