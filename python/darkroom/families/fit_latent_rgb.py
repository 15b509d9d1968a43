"""Fits the matrix that shows an autoencoder's latents without its decoder, and prints it for `latent_rgb.py`:

    python -m darkroom.families.fit_latent_rgb models/darkroom-tiny
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from diffusers import AutoencoderKL

from darkroom.families import autoencoder
from darkroom.families.latent_rgb import Colour, LatentRgb

PICTURES, SIDE = 96, 128


def picture(generator: torch.Generator) -> torch.Tensor:
    """Three discs on a ground, each of one colour by chance: [3, SIDE, SIDE] in -1 to 1."""
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    drawn = torch.rand(3, 1, 1, generator=generator).expand(3, SIDE, SIDE)
    for _ in range(3):
        row, column, radius = (torch.rand(3, generator=generator) * torch.tensor([SIDE, SIDE, SIDE / 3])).tolist()
        inside = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
        drawn = torch.where(inside, torch.rand(3, 1, 1, generator=generator), drawn)
    return drawn * 2 - 1


def fit(vae: Any) -> LatentRgb:
    """Least squares between the latents of pictures and the mean colours of their cells."""
    generator = torch.Generator().manual_seed(0)
    seen: list[torch.Tensor] = []
    shown: list[torch.Tensor] = []
    with torch.inference_mode():
        for _ in range(PICTURES):
            pixels = picture(generator)
            latents = autoencoder.to_latents(vae, pixels)
            cells = torch.nn.functional.adaptive_avg_pool2d(pixels, (latents.shape[2], latents.shape[3]))
            seen.append(latents[0].flatten(1).T.double())
            shown.append(cells.flatten(1).T.double())
    given = torch.cat(seen)
    solved = torch.linalg.lstsq(torch.cat([given, torch.ones(len(given), 1, dtype=torch.float64)], 1), torch.cat(shown)).solution
    *factors, bias = [_colour(row) for row in solved]
    return LatentRgb(tuple(factors), bias)


def _colour(row: torch.Tensor) -> Colour:
    red, green, blue = (round(value, 4) for value in row.tolist())
    return red, green, blue


if __name__ == "__main__":
    vae: Any = AutoencoderKL.from_pretrained(sys.argv[1], subfolder="vae")
    fitted = fit(vae.eval())
    print(f"LatentRgb({fitted.factors}, {fitted.bias})")
