"""Upscalers that the package `spandrel` knows and Darkroom does not. It needs torchvision, so it is nobody's duty to
have it."""

from __future__ import annotations

from typing import Any

import torch

from darkroom.errors import DarkroomError
from darkroom.families.parts import Parts

# Sides of tiles are multiples of this.
STEP = 64


class Other:
    """A network of spandrel's, as `upscalers.Network`."""

    fold = 1

    def __init__(self, descriptor: Any):
        self.scale: int = descriptor.scale
        self.module: torch.nn.Module = descriptor.model
        self._descriptor = descriptor

    def __call__(self, picture: torch.Tensor, convolve: Any) -> torch.Tensor:
        """[1, 3, rows, columns], 0 to 1, to [1, 3, scale · rows, scale · columns]."""
        return self._descriptor(picture)


def load(parts: Parts, device: torch.device) -> tuple[Other, str]:
    """(network on the device, its name and the library's).

    Raises `postprocessing.needs_spandrel` where that cannot be imported, and `postprocessing.upscaler_unfit` for what
    it does not know, for what takes no pictures of three channels, and for what cannot be computed in tiles.
    """
    try:
        import spandrel  # pyrefly: ignore[missing-import]
    # RuntimeError: a torchvision that does not fit torch.
    except (ImportError, RuntimeError) as error:
        problem = f"{parts.where} is neither an ESRGAN nor a Compact network, and others need spandrel: {error}"
        raise DarkroomError("postprocessing.needs_spandrel", problem, field="input.upscaler") from error
    try:
        descriptor = spandrel.ModelLoader(device).load_from_state_dict(parts.tensors_of_file())
    except spandrel.UnsupportedModelError as error:
        raise _unfit(f"spandrel {spandrel.__version__} does not know {parts.where}: {error}") from error
    name = f"{descriptor.architecture.name}, spandrel {spandrel.__version__}"
    if not isinstance(descriptor, spandrel.ImageModelDescriptor) or (descriptor.input_channels, descriptor.output_channels) != (3, 3):
        raise _unfit(f"{parts.where} ({name}) does not make a picture of three channels from one")
    needs = descriptor.size_requirements
    if descriptor.tiling is not spandrel.ModelTiling.SUPPORTED or STEP % (needs.multiple_of or 1):
        raise _unfit(f"{parts.where} ({name}) cannot be computed in tiles, so what it takes of memory has no bound")
    descriptor.to(device).eval()
    return Other(descriptor), name


def _unfit(problem: str) -> DarkroomError:
    return DarkroomError("postprocessing.upscaler_unfit", problem, field="input.upscaler")
