"""A CLIP text encoder's forward, replayed where a GPU can: run kernel by kernel it waits for the host, which takes four
times as long to launch them as they take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from darkroom import exactness
from darkroom.graphs import Replayed
from darkroom.tools import Tools

Heard = tuple[torch.Tensor, torch.Tensor]
"""States, [1, window, width], and the vector of the whole text, [1, width]."""
Forward = Callable[[Any, torch.Tensor, int], Heard]
"""Encoder, tokens, layer to what is heard of that layer."""


class Hearing:
    """Of one encoder."""

    def __init__(self, encoder: Any, forward: Forward, device: torch.device):
        self._encoder, self._forward, self._device = encoder, forward, device
        # The layer is a number inside the forward, and no tensor: each has recordings of its own.
        self._replayed: dict[int, Replayed[tuple[torch.Tensor, ...]]] = {}

    def __call__(self, tokens: torch.Tensor, layer: int) -> Heard:
        """`tokens`: [1, window] on the device; `layer`: by its `clip_skip`."""
        if layer not in self._replayed:
            self._replayed[layer] = Replayed(self._encoder, _at(self._forward, self._encoder, layer), self._device)
        with exactness.in_tf32():
            states, vector = self._replayed[layer](tokens)
        return states, vector


def on_host(states: Mapping[str, torch.Tensor], tools: Tools) -> dict[str, torch.Tensor]:
    """Copies of them on the CPU, when the device has made them."""
    tools.settle()
    made = {name: each.cpu() for name, each in states.items()}
    tools.hold([*states.values(), *made.values()])
    return made


def _at(forward: Forward, encoder: Any, layer: int) -> Callable[[torch.Tensor], tuple[torch.Tensor, ...]]:
    """It holds no family: one that is let go of takes its weights along at once."""
    return lambda tokens: forward(encoder, tokens, layer)
