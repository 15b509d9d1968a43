"""How fast a loop on the device goes, and that the host does not run ahead of it."""

from __future__ import annotations

import time
from collections import deque

import torch

from darkroom.sharing import Turn

# Calls that rate and time left are reckoned from.
RECENT = 8


class Pace:
    """How fast it goes. Keeps the host at most one call ahead of the device, so that pause, progress and the watchdog
    speak of what has happened; while it waits, `turn` is given away.
    """

    def __init__(self, device: torch.device, turn: Turn):
        self._device = device
        self._turn = turn
        self._last: torch.cuda.Event | None = None
        self._ends = deque([time.monotonic()], RECENT + 1)

    def wait(self) -> None:
        """After a call."""
        last, self._last = self._last, None
        if self._device.type == "cuda":
            self._last = torch.cuda.Event()
            self._last.record()
        with self._turn.given_away():
            if last is not None:
                last.synchronize()
        self._ends.append(time.monotonic())

    def figures(self, left: int) -> dict[str, float]:
        """{rate, eta_s}: calls a second, and seconds that the `left` calls take, from the latest calls and what came
        between them."""
        rate = (len(self._ends) - 1) / max(self._ends[-1] - self._ends[0], 1e-6)
        return {"rate": round(rate, 3), "eta_s": round(left / rate, 3)}
