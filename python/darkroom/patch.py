"""Weights of a network changed in place, and given back to the byte.

W' = cast(W + Σ sᵢ·Δᵢ), summed in fp32 in the request's order, from the original bytes each time: what was in force
before leaves no trace. Each weight stays where it is, so a recorded CUDA graph reads the changed one. The originals of
weights that were ever changed are kept in RAM, pinned beside a GPU, until the network's weights go.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from darkroom.errors import DarkroomError

Change = Callable[[torch.Tensor, torch.Tensor], None]
"""Adds to the first tensor, fp32, what it changes of the second, fp32, which it leaves as it is."""

COMPUTED = (torch.float32, torch.float16, torch.bfloat16)
# Pinned memory is handed out in powers of two.
SLAB = 256 << 20


@dataclass(frozen=True)
class Patch:
    """`key`: what it is made of, the same for the same bytes; `changes`: by the names of a network's weights, in the
    order in which they are summed; `adapters`: name and weight of each that it is made of, for who asks."""

    key: tuple[Any, ...] = ()
    changes: Mapping[str, Sequence[Change]] = field(default_factory=dict)
    adapters: tuple[tuple[str, float], ...] = ()


class Patched:
    """`weights`: those of a network by name, wherever they wait; `device`: computes the sums, so that these are the
    same bits. No patch is in force at first."""

    def __init__(self, weights: Mapping[str, torch.Tensor], device: torch.device):
        self._weights, self._device = weights, device
        self._originals: dict[str, torch.Tensor] = {}
        self._slab: tuple[torch.Tensor, int] = (torch.empty(0, dtype=torch.uint8), 0)
        self._in_force = Patch()

    @property
    def key(self) -> tuple[Any, ...]:
        """Of the patch in force."""
        return self._in_force.key

    def apply(self, patch: Patch) -> None:
        """Puts this patch in place of the one in force. Raises `inference.adapter_unfit` for weights that are kept in
        other than whole, half or brain floats, and what a change raises; then the originals are back."""
        if patch.key == self.key:
            return
        with torch.inference_mode(False), torch.no_grad():
            before, self._in_force = self._in_force, Patch()
            try:
                for name, changes in patch.changes.items():
                    self._change(name, changes)
            except BaseException:
                self._restore([*before.changes, *patch.changes])
                raise
            self._restore([name for name in before.changes if name not in patch.changes])
        if self._device.type == "cuda":
            # Requests that share the device read them next by streams of their own.
            torch.cuda.current_stream(self._device).synchronize()
        self._in_force = patch

    def _change(self, name: str, changes: Sequence[Change]) -> None:
        weight = self._weights[name]
        if weight.dtype not in COMPUTED:
            kept = str(weight.dtype).removeprefix("torch.")
            problem = f"{name} is kept as {kept}, which no adapter can be added to: name a model in fp16, bf16 or fp32"
            raise DarkroomError("inference.adapter_unfit", problem, field="input.adapters")
        base = self._original(name).to(self._device, non_blocking=True).float()
        total = base.clone()
        for change in changes:
            change(total, base)
        weight.data.copy_(total)

    def _restore(self, names: Sequence[str]) -> None:
        for name in names:
            if name in self._originals:
                self._weights[name].data.copy_(self._originals[name], non_blocking=True)

    def _original(self, name: str) -> torch.Tensor:
        kept = self._originals.get(name)
        if kept is None:
            kept = self._room(self._weights[name])
            kept.copy_(self._weights[name])
            self._originals[name] = kept
        return kept

    def _room(self, weight: torch.Tensor) -> torch.Tensor:
        if weight.device.type != "cuda":
            return torch.empty_like(weight)
        size = weight.numel() * weight.element_size()
        slab, used = self._slab
        if used + size > slab.numel():
            slab, used = torch.empty(max(SLAB, size), dtype=torch.uint8, pin_memory=True), 0
        # Each begins where any type may.
        self._slab = (slab, used + math.ceil(size / 256) * 256)
        return slab[used : used + size].view(weight.dtype).view(weight.shape)
