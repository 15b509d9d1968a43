"""Pictures that an edit is shown beside its text: what of them a network sees follows from its family.

They are brought to a size by whole numbers on the CPU, as `pictures` does, with the filter of diffusers' pipelines.
"""

from __future__ import annotations

import math
from typing import Any

import numpy
import torch
from PIL import Image

from darkroom import memory, pictures
from darkroom.errors import DarkroomError
from darkroom.families import Family, tiles
from darkroom.tools import Tools

# Pixels that models for edits are shown of a picture: what they were trained with.
AREA = 1024 * 1024


def given(tools: Tools) -> list[numpy.ndarray]:
    """The request's `references` in their order, the files `reference<n>`, on white: [rows, columns, 3] each. Raises
    `inference.picture_unreadable`."""
    return [pictures.opaque(tools, f"reference{number}", pin) for number, pin in enumerate(tools.input.get("references") or ())]


def of_request(model: Family, tools: Tools) -> dict[str, torch.Tensor]:
    """What every call is shown of them, by the names that the family's `predict` knows; nothing where there are none.

    Raises `inference.request_unfit` for more than the model takes, and `inference.picture_unreadable`.
    """
    found = given(tools)
    check_count(model.sees, len(found))
    if not found:
        return {}
    with tiles.tiling(memory.in_tiles(tools), tools.advance):
        shown = dict(model.see(found))
    tools.hold(shown.values())
    return shown


def check_count(sees: int, count: int) -> None:
    """Raises `inference.request_unfit` for more pictures than a model takes."""
    if count > sees:
        takes = "no reference pictures" if sees == 0 else f"at most {sees} reference pictures"
        raise DarkroomError("inference.request_unfit", f"this model takes {takes}, not {count}", field="input.references")


def scaled(picture: numpy.ndarray, size: tuple[int, int]) -> numpy.ndarray:
    """`picture`, [rows, columns, 3] of uint8, at `size` (width, height) by Lanczos' filter."""
    return numpy.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def signed(picture: numpy.ndarray, device: torch.device) -> torch.Tensor:
    """RGB8, [rows, columns, 3], as [1, 3, rows, columns] fp32 in -1 to 1 on the device, reckoned as diffusers'
    `VaeImageProcessor` does, to the last bit. Channels lie last in memory, as there: it decides which kernel runs.
    """
    return 2.0 * (torch.tensor(picture, dtype=torch.float32)[None].permute(0, 3, 1, 2) / 255.0).to(device) - 1.0


def size_of_area(picture: Any, area: int, multiple: int) -> tuple[int, int]:
    """(width, height) of about `area` pixels in the proportions of the picture, both a multiple of `multiple`: as
    `calculate_dimensions` of diffusers' pipelines for Qwen-Image-Edit."""
    ratio = picture.shape[1] / picture.shape[0]
    width = math.sqrt(area * ratio)
    return round(width / multiple) * multiple, round(width / ratio / multiple) * multiple
