"""A device that several requests share: each has a device thread and a stream of its own, and one at a time has the
turn to touch tensors. What waits for the device gives the turn away meanwhile, so that one request's texts are encoded
and its calls launched while the device computes another's.

Every request does what it would do alone, with kernels and graphs of its own, so its bits are the same.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from darkroom.tools import Tools

# Actions that leave the model as they found it wherever they give the turn away.
DRAWING = ("inference.encode", "inference.denoise", "inference.decode")
# What two requests of one model must have in common besides it: it is worn, or decides where the networks are.
IN_COMMON = ("model", "adapters", "memory_profile")


def may_share(one: Tools, other: Tools) -> bool:
    """Whether two requests may be under way at a time: both draw with one model, as it is and in one class, or see that
    it is there; and the model's family gains by it."""
    asked, wanted = _asked(one), _asked(other)
    if asked is None or wanted is None or len(one.model_keys | other.model_keys) > 1:
        return False
    if any(asked[name] != wanted[name] for name in asked.keys() & wanted.keys()):
        return False
    return one.runtime.models.may_be_shared(asked["model"])


def _asked(tools: Tools) -> dict[str, Any] | None:
    """What two requests must have in common as far as both name it; None of one that goes along with nobody."""
    # Words of one's own are in tokenizer and text encoder while a text is encoded.
    if tools.action in DRAWING and not tools.input.get("embeddings"):
        asked = {name: tools.input.get(name) for name in IN_COMMON}
        asked["class"] = tools.input.get("class", "exact")
        if tools.action == "inference.denoise" and asked["class"] != "exact":
            # The network computes with what was made for pictures of one shape.
            asked["shape"] = (tools.input["width"], tools.input["height"], tools.input["guidance"] > 1)
        return asked
    if tools.action == "model.ensure":
        return {"model": tools.data["model"], "memory_profile": tools.data.get("memory_profile")}
    return None


class Turn:
    """Which device thread may touch tensors: one at a time, in the order in which they asked."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._asked = 0
        self._served = 0
        self.holder: object | None = None
        """Who has it."""

    @contextlib.contextmanager
    def of(self, holder: object) -> Generator[None]:
        """Waits for the turn, and has it within."""
        self._take(holder)
        try:
            yield
        finally:
            self._give()

    @contextlib.contextmanager
    def given_away(self) -> Generator[None]:
        """Within it whoever waits has the turn. For the thread that has it; where nobody has it none is given."""
        holder = self.holder
        if holder is None:
            yield
            return
        self._give()
        try:
            yield
        finally:
            self._take(holder)

    def settle(self, device: torch.device) -> None:
        """Waits until the device has done what this thread asked of it; meanwhile others have the turn."""
        if device.type != "cuda":
            return
        import torch

        event = torch.cuda.Event()
        event.record()
        with self.given_away():
            event.synchronize()

    def _take(self, holder: object | None) -> None:
        with self._changed:
            mine = self._asked
            self._asked += 1
            self._changed.wait_for(lambda: self._served == mine)
            self.holder = holder

    def _give(self) -> None:
        with self._changed:
            self.holder = None
            self._served += 1
            self._changed.notify_all()


@contextlib.contextmanager
def own_stream(device: torch.device, number: int) -> Generator[Any]:
    """Within it this thread's work goes by a stream of its own; that of thread 0 by torch's usual one."""
    if device.type != "cuda" or number == 0:
        yield None
        return
    import torch

    torch.cuda.set_device(device)
    with torch.cuda.stream(torch.cuda.Stream(device)) as stream:
        yield stream
