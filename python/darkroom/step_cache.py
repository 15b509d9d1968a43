"""A step cache: what most blocks of a transformer add is taken from an earlier call while the first block's part hardly
changes.

First Block Cache, as ParaAttention (github.com/chengzeyi/ParaAttention) and diffusers' `FirstBlockCacheConfig` have it,
after TeaCache (Liu et al. 2024, arXiv 2411.19108): the first block runs in every call. Where what it adds differs from
what it added when all blocks ran last by less than `threshold`, as a share of the mean of absolute values, the others
are left out, and what they added then is added again.

It is written here because diffusers' hooks take two of our five families in 0.40 (FLUX.1 and Qwen-Image; those of SD3
fail at its last block, Z-Image's argument has another name, FLUX.2's blocks are not registered), add a ControlNet's
part twice, and tell no numbers.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Forward = Callable[..., Any]


@dataclass
class Pass:
    """One of the passes of a call through the network: each text may have its own."""

    change: torch.Tensor | None = None
    """What the first block added when all blocks ran last."""
    rest: torch.Tensor | None = None
    """What all others added then."""


class StepCache:
    """The cache of one picture. `blocks`: those of the network in the order in which they run, at least two; each takes
    `hidden_states`, and gives them, or those of the text and them. `threshold`: 0 leaves nothing out."""

    def __init__(self, blocks: Sequence[torch.nn.Module], threshold: float):
        self.threshold = threshold
        self.computed = 0
        """Passes in which all blocks ran."""
        self.reused = 0
        """Passes in which the first one did."""
        self._blocks = list(blocks)
        self._passes: list[Pass] = []
        # Which pass of its call the next one is, and the one under way.
        self._next = 0
        self._pass = Pass()
        self._is_reusing = False
        # Of the pass under way: what the first block gave, (text or None, picture).
        self._first: tuple[torch.Tensor | None, torch.Tensor] | None = None
        # Which blocks give the text too.
        self._gives_text: dict[int, bool] = {}

    def begin_call(self) -> None:
        """The next pass is the first one of a call."""
        self._next = 0

    def tensors(self) -> list[torch.Tensor]:
        """All that it holds on the device."""
        return [tensor for each in self._passes for tensor in (each.change, each.rest) if tensor is not None]

    @contextlib.contextmanager
    def within(self) -> Generator[None]:
        """Within it the blocks run, or are left out."""
        first, *others = self._blocks
        was = {index: vars(block).get("forward") for index, block in enumerate(self._blocks)}
        try:
            first.forward = functools.partial(self._run_first, first.forward)
            for index, block in enumerate(others, 1):
                block.forward = functools.partial(self._run_other, index, block.forward)
            yield
        finally:
            for index, block in enumerate(self._blocks):
                del block.forward
                # Of one that is compiled, its other `forward`.
                if (before := was[index]) is not None:
                    block.forward = before

    def _run_first(self, forward: Forward, *given: Any, **named: Any) -> Any:
        before, _ = _streams(given, named)
        made = forward(*given, **named)
        text, drawn = made if isinstance(made, tuple) else (None, made)
        if self._next == len(self._passes):
            self._passes.append(Pass())
        self._pass = self._passes[self._next]
        self._next += 1
        change = drawn - before
        self._is_reusing = self._is_near(change)
        if self._is_reusing:
            self.reused += 1
        else:
            self.computed += 1
            self._pass.change, self._pass.rest, self._first = change, None, (text, drawn)
        return made

    def _run_other(self, index: int, forward: Forward, *given: Any, **named: Any) -> Any:
        is_last = index == len(self._blocks) - 1
        if not self._is_reusing:
            made = forward(*given, **named)
            self._gives_text[index] = isinstance(made, tuple)
            if is_last and self._first is not None:
                drawn = made[1] if isinstance(made, tuple) else made
                self._pass.rest = drawn - _joined(*self._first, drawn)
                self._first = None
            return made
        drawn, text = _streams(given, named)
        if is_last and self._pass.rest is not None:
            drawn = drawn + self._pass.rest
        return (text, drawn) if self._gives_text[index] else drawn

    def _is_near(self, change: torch.Tensor) -> bool:
        before = self._pass.change
        if self.threshold == 0 or before is None or self._pass.rest is None or before.shape != change.shape:
            return False
        # The host waits for the device here: which kernels run next follows from it.
        return float((change - before).abs().mean() / before.abs().mean()) < self.threshold


def _streams(given: tuple[Any, ...], named: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(picture, text) of what a block is called with."""
    return (given[0] if given else named["hidden_states"]), named.get("encoder_hidden_states")


def _joined(text: torch.Tensor | None, drawn: torch.Tensor, as_in: torch.Tensor) -> torch.Tensor:
    """What the last block would take if all between were left out: where both streams have become one, the text lies
    before the picture."""
    return drawn if text is None or drawn.shape == as_in.shape else torch.cat([text, drawn], dim=1)
