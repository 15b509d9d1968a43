"""Calls of several pictures as rows of one forward: co-batching, a way of the class `fast`. Rows of a batch are not
bit-equal to the same picture alone, so `exact` knows none of it.

Each picture is drawn by a device thread of its own. Where it would compute its call it waits for the others', and the
last one computes them all.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from darkroom import faults
from darkroom.sharing import Turn

if TYPE_CHECKING:
    import torch

    from darkroom.families import Conditioning


@dataclass(frozen=True)
class Call:
    """What a forward computes of one picture: as `Family.predict` takes it."""

    latents: torch.Tensor
    t: torch.Tensor
    conditioning: Conditioning


class Model(Protocol):
    """A `Family` that `shares`."""

    def predict(self, latents: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """As `Family.predict`."""
        ...

    def predict_together(self, calls: Sequence[Call]) -> list[torch.Tensor]:
        """What `predict` gives of each, computed in one forward."""
        ...

    def may_go_together(self, one: Call, other: Call) -> bool:
        """Whether two calls can be rows of one forward."""
        ...


class Member:
    """One picture. What it offers of a family is `predict`."""

    def __init__(self, together: Together):
        self._together = together
        self.most = 1
        """Pictures that one forward computed, at most."""
        self.calls = 0
        """Its calls that were computed together with others'."""
        self.is_in = False
        self.asked: Call | None = None
        self.made: torch.Tensor | None = None
        self.failure: BaseException | None = None
        self.stream: Any = None
        """That its thread's work goes by; None on a CPU."""

    def predict(self, latents: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """As `Family.predict`; near to what that gives, not to the bit. Raises what the forward raised."""
        return self._together.predict(self, Call(latents, t, conditioning))


class Together:
    """The pictures of one model, size and class that are under way. `turn`: who calls has it."""

    def __init__(self, model: Model, turn: Turn):
        self._model, self._turn = model, turn
        self._members: list[Member] = []
        # Told when a call is made, and when there are fewer members to wait for.
        self._changed = threading.Condition()
        # Cleared, until all of them have ended, where a forward of several has no memory.
        self._may = True

    @contextlib.contextmanager
    def joining(self) -> Generator[Member]:
        """One more picture; the others wait for its calls from its first one on."""
        member = Member(self)
        try:
            yield member
        finally:
            with self._changed:
                if member.is_in:
                    self._members.remove(member)
                self._changed.notify_all()

    def predict(self, member: Member, call: Call) -> torch.Tensor:
        """As `Member.predict`."""
        if not member.is_in:
            member.is_in = True
            self._members.append(member)
        member.asked, member.stream = call, _stream(call)
        while member.asked is not None and any(each.asked is None for each in self._members):
            with self._turn.given_away(), self._changed:
                # Looked at again each time: who has the turn may have computed it meanwhile.
                self._changed.wait_for(lambda: member.asked is None or all(each.asked is not None for each in self._members), 1.0)
        if member.asked is not None:
            self._compute(member)
        made, failure, member.made, member.failure = member.made, member.failure, None, None
        if failure is not None:
            raise failure
        assert made is not None
        return made

    def _compute(self, last: Member) -> None:
        """The calls of all, on the stream of the last one."""
        waiting = list(self._members)
        for member in waiting:
            if member.stream is not None and member is not last:
                last.stream.wait_stream(member.stream)
        while waiting:
            first = waiting[0]
            along = [each for each in waiting if each is first or (self._may and self._go(first, each))]
            waiting = [each for each in waiting if each not in along]
            try:
                self._answer(along, last)
            except Exception as error:
                if len(along) > 1 and faults.is_out_of_memory(error):
                    self._may = False
                    waiting = [*along, *waiting]
                    continue
                for member in along:
                    member.failure = error
        with self._changed:
            for member in self._members:
                member.asked = None
            self._changed.notify_all()

    def _go(self, one: Member, other: Member) -> bool:
        return one.asked is not None and other.asked is not None and self._model.may_go_together(one.asked, other.asked)

    def _answer(self, along: Sequence[Member], last: Member) -> None:
        calls = [member.asked for member in along if member.asked is not None]
        if len(calls) == 1:
            predictions = [self._model.predict(calls[0].latents, calls[0].t, calls[0].conditioning)]
        else:
            predictions = self._model.predict_together(calls)
        for member, made in zip(along, predictions, strict=True):
            member.made = made
            if len(along) > 1:
                member.calls += 1
                member.most = max(member.most, len(along))
            if member.stream is not None and member is not last:
                # Its own stream reads it, which the allocator is told.
                made.record_stream(member.stream)
                member.stream.wait_stream(last.stream)


def _stream(call: Call) -> Any:
    if call.latents.device.type != "cuda":
        return None
    import torch

    return torch.cuda.current_stream(call.latents.device)
