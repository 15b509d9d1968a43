"""How latents look without a decoder: colours as a sum of channels, one matrix for each space of latents.

The factors are published figures of ComfyUI (github.com/comfyanonymous/ComfyUI, `comfy/latent_formats.py`); those of
darkroom-tiny are what `python -m darkroom.families.fit_latent_rgb models/darkroom-tiny` prints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class LatentRgb:
    """`factors`: red, green and blue of each channel, where -1 to 1 is dark to light; `bias`: of no latents. `square`:
    cells of a side that lie as channels of their own, four for each one of 2 × 2 cells."""

    factors: tuple[Colour, ...]
    bias: Colour = (0.0, 0.0, 0.0)
    square: int = 1

    def of(self, channels: int) -> LatentRgb | None:
        """Itself, for latents of as many channels as it has colours for; else None: there are no previews."""
        return self if channels == len(self.factors) else None

    def pixels(self, latents: torch.Tensor) -> torch.Tensor:
        """[1, channels, rows, columns] fp32 as RGB8, [rows · square, columns · square, 3], on their device. Nothing
        waits for it."""
        factors, bias = _on(self, latents.device)
        side = self.square
        channels, rows, columns = len(self.factors), latents.shape[2], latents.shape[3]
        cells = latents.reshape(channels, side, side, rows, columns).permute(0, 3, 1, 4, 2)
        cells = cells.reshape(channels, rows * side, columns * side)
        # Sums, and no matrix product: a library for those takes memory of the device for itself.
        colours = (cells[..., None] * factors).sum(0) + bias
        return (colours / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)


@lru_cache(16)
def _on(space: LatentRgb, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors, [channels, 1, 1, 3], and bias, [3]. Kept: each copy to a device would make the host wait for it."""
    return torch.tensor(space.factors, device=device)[:, None, None], torch.tensor(space.bias, device=device)


TINY = LatentRgb(
    ((-0.1702, -0.2127, 0.1501), (-0.4254, -0.1395, -0.4357), (0.2045, -0.1019, -0.4278), (-0.0607, -0.4274, -0.158)),
    (0.1345, -0.054, -0.1263),
)

SD1 = LatentRgb(((0.3512, 0.2297, 0.3227), (0.3250, 0.4974, 0.2350), (-0.2829, 0.1762, 0.2721), (-0.2120, -0.2616, -0.7177)))

SDXL = LatentRgb(
    ((0.3651, 0.4232, 0.4341), (-0.2533, -0.0042, 0.1068), (0.1076, 0.1111, -0.0362), (-0.3165, -0.2492, -0.2188)),
    (0.1084, -0.0175, -0.0011),
)

SD3 = LatentRgb(
    (
        *((-0.0922, -0.0175, 0.0749), (0.0311, 0.0633, 0.0954), (0.1994, 0.0927, 0.0458), (0.0856, 0.0339, 0.0902)),
        *((0.0587, 0.0272, -0.0496), (-0.0006, 0.1104, 0.0309), (0.0978, 0.0306, 0.0427), (-0.0042, 0.1038, 0.1358)),
        *((-0.0194, 0.0020, 0.0669), (-0.0488, 0.0130, -0.0268), (0.0922, 0.0988, 0.0951), (-0.0278, 0.0524, -0.0542)),
        *((0.0332, 0.0456, 0.0895), (-0.0069, -0.0030, -0.0810), (-0.0596, -0.0465, -0.0293), (-0.1448, -0.1463, -0.1189)),
    ),
    (0.2394, 0.2135, 0.1925),
)

FLUX1 = LatentRgb(
    (
        *((-0.0346, 0.0244, 0.0681), (0.0034, 0.0210, 0.0687), (0.0275, -0.0668, -0.0433), (-0.0174, 0.0160, 0.0617)),
        *((0.0859, 0.0721, 0.0329), (0.0004, 0.0383, 0.0115), (0.0405, 0.0861, 0.0915), (-0.0236, -0.0185, -0.0259)),
        *((-0.0245, 0.0250, 0.1180), (0.1008, 0.0755, -0.0421), (-0.0515, 0.0201, 0.0011), (0.0428, -0.0012, -0.0036)),
        *((0.0817, 0.0765, 0.0749), (-0.1264, -0.0522, -0.1103), (-0.0280, -0.0881, -0.0499), (-0.1262, -0.0982, -0.0778)),
    ),
    (-0.0329, -0.0718, -0.0851),
)

FLUX2 = LatentRgb(
    (
        *((0.0058, 0.0113, 0.0073), (0.0495, 0.0443, 0.0836), (-0.0099, 0.0096, 0.0644), (0.2144, 0.3009, 0.3652)),
        *((0.0166, -0.0039, -0.0054), (0.0157, 0.0103, -0.0160), (-0.0398, 0.0902, -0.0235), (-0.0052, 0.0095, 0.0109)),
        *((-0.3527, -0.2712, -0.1666), (-0.0301, -0.0356, -0.0180), (-0.0107, 0.0078, 0.0013), (0.0746, 0.0090, -0.0941)),
        *((0.0156, 0.0169, 0.0070), (-0.0034, -0.0040, -0.0114), (0.0032, 0.0181, 0.0080), (-0.0939, -0.0008, 0.0186)),
        *((0.0018, 0.0043, 0.0104), (0.0284, 0.0056, -0.0127), (-0.0024, -0.0022, -0.0030), (0.1207, -0.0026, 0.0065)),
        *((0.0128, 0.0101, 0.0142), (0.0137, -0.0072, -0.0007), (0.0095, 0.0092, -0.0059), (0.0000, -0.0077, -0.0049)),
        *((-0.0465, -0.0204, -0.0312), (0.0095, 0.0012, -0.0066), (0.0290, -0.0034, 0.0025), (0.0220, 0.0169, -0.0048)),
        *((-0.0332, -0.0457, -0.0468), (-0.0085, 0.0389, 0.0609), (-0.0076, 0.0003, -0.0043), (-0.0111, -0.0460, -0.0614)),
    ),
    (-0.0329, -0.0718, -0.0851),
    square=2,
)

# Of Wan 2.1, whose autoencoder Qwen-Image has.
QWEN = LatentRgb(
    (
        *((-0.1299, -0.1692, 0.2932), (0.0671, 0.0406, 0.0442), (0.3568, 0.2548, 0.1747), (0.0372, 0.2344, 0.1420)),
        *((0.0313, 0.0189, -0.0328), (0.0296, -0.0956, -0.0665), (-0.3477, -0.4059, -0.2925), (0.0166, 0.1902, 0.1975)),
        *((-0.0412, 0.0267, -0.1364), (-0.1293, 0.0740, 0.1636), (0.0680, 0.3019, 0.1128), (0.0032, 0.0581, 0.0639)),
        *((-0.1251, 0.0927, 0.1699), (0.0060, -0.0633, 0.0005), (0.3477, 0.2275, 0.2950), (0.1984, 0.0913, 0.1861)),
    ),
    (-0.1835, -0.0868, -0.3360),
)

# KL autoencoders by what tells one space from another: channels, and the factor that its latents are scaled by.
SPACES: dict[tuple[int, float], LatentRgb] = {
    (4, 0.438469): TINY,
    (4, 0.18215): SD1,
    (4, 0.13025): SDXL,
    (16, 1.5305): SD3,
    (16, 0.3611): FLUX1,
}


def of_autoencoder(config: Mapping[str, Any]) -> LatentRgb | None:
    """Of a KL autoencoder by its configuration; None for a space that nobody has fitted."""
    return SPACES.get((config["latent_channels"], config["scaling_factor"]))
