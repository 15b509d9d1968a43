"""How a network of transformers wants to see a picture, by its `preprocessor_config.json`: as transformers' own
processors make it, which want torchvision for some classes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy
import torch
from PIL import Image


class Preparation:
    """RGB8, [rows, columns, 3], to [1, 3, rows, columns] fp32 on the device. Raises ValueError for a configuration
    without a size."""

    def __init__(self, config: Mapping[str, Any], device: torch.device):
        self._config, self._device = config, device
        self._size, self._crop = config.get("size", 224), config.get("crop_size", 224)
        self._mean, self._deviation = (numpy.float32(config.get(name, 0.5)) for name in ("image_mean", "image_std"))

    def __call__(self, picture: numpy.ndarray) -> torch.Tensor:
        image = Image.fromarray(picture)
        if self._config.get("do_resize", True):
            image = image.resize(self._sides(image.size), Image.Resampling(self._config.get("resample", 2)))
        if self._config.get("do_center_crop", False):
            width, height = _sides(self._crop, (1, 1))
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))
        made = numpy.asarray(image, numpy.float32)
        if self._config.get("do_rescale", True):
            made = (made.astype(numpy.float64) * self._config.get("rescale_factor", 1 / 255)).astype(numpy.float32)
        if self._config.get("do_normalize", True):
            made = (made - self._mean) / self._deviation
        if self._config.get("do_pad", False) and self._config.get("size_divisor"):
            made = _padded(made, self._config["size_divisor"])
        return torch.from_numpy(numpy.ascontiguousarray(made.transpose(2, 0, 1)))[None].to(self._device)

    def _sides(self, of: tuple[int, int]) -> tuple[int, int]:
        """Of a picture of that size, with what transformers' processor of DPT adds: the proportions kept, scaled as
        little as one side asks for, and whole multiples."""
        sides = _sides(self._size, of)
        scales = [side / own for side, own in zip(sides, of, strict=True)]
        if self._config.get("keep_aspect_ratio", False):
            nearest = min(scales[::-1], key=lambda scale: abs(1 - scale))
            scales = [nearest, nearest]
        elif "ensure_multiple_of" not in self._config:
            return sides
        multiple = self._config.get("ensure_multiple_of", 1)
        width, height = (round(scale * own / multiple) * multiple for scale, own in zip(scales, of, strict=True))
        return max(width, multiple), max(height, multiple)


def read_json(path: str, name: str) -> dict[str, Any]:
    """An object of a folder's file. Raises OSError, and ValueError for one that is none."""
    with open(os.path.join(path, name), "rb") as file:
        found = json.load(file)
    if not isinstance(found, dict):
        raise ValueError(f"{name} is no JSON object")
    return found


def _sides(size: Any, of: tuple[int, int]) -> tuple[int, int]:
    """(width, height) as a configuration says them; `of`: of the picture, whose proportions a shortest edge keeps."""
    if isinstance(size, int):
        return size, size
    if "shortest_edge" in size:
        scale = size["shortest_edge"] / min(of)
        return round(of[0] * scale), round(of[1] * scale)
    return size["width"], size["height"]


def _padded(made: numpy.ndarray, divisor: int) -> numpy.ndarray:
    """[rows, columns, 3] with zeros around it, to multiples of `divisor`."""
    around = []
    for length in made.shape[:2]:
        lacking = math.ceil(length / divisor) * divisor - length
        around.append((lacking // 2, lacking - lacking // 2))
    return numpy.pad(made, (*around, (0, 0)))
