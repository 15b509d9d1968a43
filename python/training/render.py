"""Pictures of scenes, rendered in batches by signed distance functions, and the edges a ControlNet is hinted
with.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from .world import PALETTE, SHAPES, SIDE, signed_distance

RIM = (0.0, 0.0, 0.0)
"""Colour of an outline, RGB 0 to 1."""
CHUNK = 1024


def palette(device: torch.device | str = "cpu") -> torch.Tensor:
    """The world's colours, float32 [8, 3], 0 to 1."""
    return torch.as_tensor(PALETTE / 255.0, device=device)


def pastel(colours: torch.Tensor, strength: float = 0.55) -> torch.Tensor:
    """Colours mixed with white by `strength` 0 to 1."""
    return colours * (1 - strength) + strength


def render(
    packed: torch.Tensor,
    width: int = SIDE,
    height: int = SIDE,
    *,
    colours: torch.Tensor | None = None,
    rim: torch.Tensor | float = 0.0,
    scale: int = 1,
) -> torch.Tensor:
    """Render scenes packed by `world.pack`, float32 [N, 12], as float32 [N, 3, height · scale, width ·
    scale], 0 to 1.

    `colours` is a palette [8, 3] or one for each scene [N, 8, 3]. `rim` is the width in pixels of a dark
    outline, one number or [N]. Edges are antialiased by the distance to the outline: coverage = clamp(0.5 -
    distance in output pixels).
    """
    picture, _ = _draw(packed, width, height, colours, rim, scale)
    return picture


def labels_of(packed: torch.Tensor, width: int = SIDE, height: int = SIDE) -> torch.Tensor:
    """Which thing covers each pixel: uint8 [N, height, width], 0 for the background."""
    _, labels = _draw(packed, width, height, None, 0.0, 1)
    return labels


def _draw(packed, width, height, colours, rim, scale):
    device, count = packed.device, len(packed)
    colours = palette(device) if colours is None else colours
    colours = colours.expand(count, -1, -1)
    rims = torch.as_tensor(rim, dtype=torch.float32, device=device).expand(count)
    dark = torch.tensor(RIM, device=device).view(1, 3, 1, 1)
    width, height = width * scale, height * scale
    everyone = torch.arange(count, device=device)
    picture = colours[everyone, packed[:, 0].long()][:, :, None, None].expand(-1, -1, height, width).clone()
    labels = torch.zeros(count, height, width, dtype=torch.uint8, device=device)
    across = torch.arange(width, device=device) + 0.5
    down = torch.arange(height, device=device) + 0.5
    for number in range(2):
        start = 2 + 5 * number
        for kind, shape in enumerate(SHAPES):
            rows = torch.nonzero((packed[:, 1] > number) & (packed[:, start + 1] == kind)).flatten()
            if not len(rows):
                continue
            colour, _, x, y, radius = packed[rows, start : start + 5].unbind(1)
            x, y, radius = (value[:, None, None] * scale for value in (x, y, radius))
            grid_x = ((across[None, None, :] - x) / radius).expand(-1, height, width)
            grid_y = ((down[None, :, None] - y) / radius).expand(-1, height, width)
            distance = signed_distance(shape, grid_x, grid_y, torch) * radius
            half = (rims[rows] * scale / 2)[:, None, None]
            outer = (0.5 - (distance - half)).clamp(0, 1)[:, None]
            inner = torch.where(half > 0, (0.5 - (distance + half)).clamp(0, 1), (0.5 - distance).clamp(0, 1))[:, None]
            fill = colours[rows, colour.long()][:, :, None, None]
            picture[rows] = picture[rows] * (1 - outer) + dark * (outer - inner) + fill * inner
            labels[rows] = torch.where(distance < 0, number + 1, labels[rows].int()).to(torch.uint8)
    return picture, labels


def to_bytes(picture: torch.Tensor) -> torch.Tensor:
    """Float 0 to 1 -> uint8, rounded."""
    return (picture.clamp(0, 1) * 255).round().byte()


def render_bytes(packed: torch.Tensor, width: int = SIDE, height: int = SIDE, **options) -> torch.Tensor:
    """As `render`, uint8, in chunks that fit a small device."""
    return torch.cat([to_bytes(render(chunk, width, height, **options)) for chunk in packed.split(CHUNK)])


def to_numpy(pictures: torch.Tensor) -> np.ndarray:
    """uint8 [N, 3, H, W] on any device -> numpy uint8 [N, H, W, 3]."""
    return pictures.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def edges(packed: torch.Tensor, width: int = SIDE, height: int = SIDE) -> tuple[torch.Tensor, torch.Tensor]:
    """Boundaries between things and background, one and two pixels wide: bool [N, height, width] each."""
    thin, thick = [], []
    for chunk in packed.split(CHUNK):
        labels = labels_of(chunk, width, height).float()[:, None]
        padded = F.pad(labels, (0, 1, 0, 1), mode="replicate")
        edge = F.max_pool2d(padded, 2, 1) != -F.max_pool2d(-padded, 2, 1)
        thin.append(edge[:, 0])
        thick.append(F.max_pool2d(edge.float(), 2, 1, padding=1)[:, 0, :height, :width] > 0)
    return torch.cat(thin), torch.cat(thick)
