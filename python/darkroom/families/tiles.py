"""An autoencoder piece by piece: what it takes of memory then follows from a piece, not from the picture.

All pieces of a picture have one shape, overlap by a quarter, and are laid over one another with weights that fall
towards their edges. Each is normalised by itself, so the picture is near to one in a piece, and not the same: the
caller says so. Order and places follow from the size alone, so the bytes do too.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

import torch

# Latent cells of a piece's side, and over how many its neighbours lie.
SIDE, OVERLAP = 64, 16


class Tiling:
    """How the autoencoders of this thread compute; `count` is how many pieces they computed."""

    def __init__(self, is_on: bool, between: Callable[[], None]):
        self.is_on = is_on
        self.count = 0
        self._between = between

    def run(self, compute: Callable[[torch.Tensor], torch.Tensor], given: torch.Tensor, scale: int) -> torch.Tensor:
        """`compute` of `given`, [..., rows, columns], in pieces where it is on and larger than one. `scale`: pixels of
        `given` to a latent cell's side, so 1 for latents."""
        rows, columns = given.shape[-2] // scale, given.shape[-1] // scale
        if not self.is_on or (rows <= SIDE and columns <= SIDE):
            return compute(given)
        high, wide = min(SIDE, rows), min(SIDE, columns)
        total = weights = None
        for top in _starts(rows, high):
            for left in _starts(columns, wide):
                piece = given[..., top * scale : (top + high) * scale, left * scale : (left + wide) * scale].contiguous()
                made = compute(piece).float()
                # Of what is made to a cell's side.
                unit = made.shape[-1] // wide
                if total is None or weights is None:
                    total = torch.zeros(*made.shape[:-2], rows * unit, columns * unit, device=made.device)
                    weights = torch.zeros(rows * unit, columns * unit, device=made.device)
                ramp = _ramp(high * unit, unit, made.device)[:, None] * _ramp(wide * unit, unit, made.device)
                place = (..., slice(top * unit, (top + high) * unit), slice(left * unit, (left + wide) * unit))
                total[place] += made * ramp
                weights[place] += ramp
                self.count += 1
                self._between()
        return compute(given) if total is None or weights is None else total / weights


def _starts(length: int, side: int) -> list[int]:
    """Where pieces begin that cover `length` cells, evenly spread, the last one at the end."""
    if length <= side:
        return [0]
    count = -(-(length - OVERLAP) // (side - OVERLAP))
    return [index * (length - side) // (count - 1) for index in range(count)]


def _ramp(length: int, unit: int, device: torch.device) -> torch.Tensor:
    """Weights along a side, [length]: 1, and towards both ends less over what lies over a neighbour."""
    places = torch.arange(length, dtype=torch.float32, device=device) + 0.5
    return (torch.minimum(places, length - places) / (OVERLAP * unit)).clamp(max=1)


_whole = Tiling(False, lambda: None)
_now = _whole


def now() -> Tiling:
    """That which holds: outside of `tiling` nothing is cut."""
    return _now


@contextmanager
def tiling(is_on: bool, between: Callable[[], None]) -> Generator[Tiling]:
    """Within it autoencoders compute in pieces, or whole; one thread computes. `between`: called after each piece."""
    global _now
    _now = made = Tiling(is_on, between)
    try:
        yield made
    finally:
        _now = _whole
