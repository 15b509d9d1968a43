"""Noise, that a picture begins with and that samplers add on their way: drawn on the CPU, so that a seed means the
same on every device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch


def first(shape: Sequence[int], generator: torch.Generator, variation: Mapping[str, Any] | None = None) -> torch.Tensor:
    """The noise that a picture begins with, fp32 on the CPU. `variation`: {seed, strength}, how far it lies towards
    the noise of another seed; `generator` draws as many numbers with it as without."""
    drawn = torch.randn(tuple(shape), generator=generator, dtype=torch.float32)
    if variation is None:
        return drawn
    other = torch.randn(tuple(shape), generator=torch.Generator("cpu").manual_seed(variation["seed"]), dtype=torch.float32)
    return between(drawn, other, variation["strength"])


def between(low: torch.Tensor, high: torch.Tensor, share: float) -> torch.Tensor:
    """From `low`, at 0, to `high`, at 1, on the arc between them: [1, channels, rows, columns] fp32, each column of a
    channel by itself, as `slerp` of AUTOMATIC1111's web UI (`modules/rng.py`) has it; after Shoemake 1985, "Animating
    rotation with quaternion curves". In double precision, so that hosts that sum in another order round alike.
    """
    low64, high64 = low.double(), high.double()
    cosine = torch.nn.functional.cosine_similarity(low64, high64, dim=2).unsqueeze(2)
    # Two noises of one direction have no arc between them.
    if float(cosine.mean()) > 0.9995:
        return (low64 + share * (high64 - low64)).float()
    angle = torch.acos(cosine.clamp(-1, 1))
    return ((torch.sin((1 - share) * angle) * low64 + torch.sin(share * angle) * high64) / torch.sin(angle)).float()


def draw(shape: Sequence[int], generator: torch.Generator, device: torch.device) -> torch.Tensor:
    """Standard normal numbers in fp32 on `device`. On a GPU from pinned memory, so that the host goes on at once: a
    copy from other memory waits until the device has done all that it was asked before."""
    if device.type != "cuda":
        return torch.randn(tuple(shape), generator=generator, dtype=torch.float32).to(device)
    pinned = torch.empty(tuple(shape), dtype=torch.float32, pin_memory=True)
    return pinned.normal_(generator=generator).to(device, non_blocking=True)


def as_diffusers_draws(
    shape: Sequence[int],
    generator: Any = None,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
) -> torch.Tensor:
    """`diffusers.utils.torch_utils.randn_tensor` as its schedulers call it, for one generator on the CPU."""
    if not isinstance(generator, torch.Generator) or dtype is not torch.float32 or layout not in (None, torch.strided):
        raise TypeError(f"noise is drawn by one generator of the CPU in fp32, not {dtype}")
    return draw(shape, generator, torch.device(device or "cpu"))
