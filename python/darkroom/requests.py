"""The requests that are open: the one that runs, and those that wait for the device thread. Each ends in exactly one
terminal frame."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Any, Literal

from darkroom import frames
from darkroom.errors import DarkroomError
from darkroom.tools import ModelKey, Tools
from darkroom.writer import Writer

MAX_QUEUED = 64


class Requests:
    """Shared by the reader, which accepts and stops, and the device thread, which takes and finishes."""

    def __init__(self, writer: Writer, log: logging.Logger):
        self.running: Tools | None = None
        self._writer = writer
        self._log = log
        # Guards the three below; the device thread waits on it for work.
        self._changed = threading.Condition()
        self._queued: deque[Tools] = deque()
        self._open: dict[str, Tools] = {}
        self._is_closing = False

    def accept(self, tools: Tools) -> None:
        """Queues a request and says so. Raises `worker.busy`, and ValueError for a request id that is open already."""
        with self._changed:
            if tools.request_id in self._open:
                raise ValueError(f"the node used request id {tools.request_id} twice")
            if self._is_closing:
                raise DarkroomError("worker.busy", "this child is about to end")
            if len(self._queued) >= MAX_QUEUED:
                raise DarkroomError("worker.busy", f"{len(self._queued)} requests wait already")
            self._writer.send(tools.request_id, tools.action, {"type": "accepted"})
            self._open[tools.request_id] = tools
            self._queued.append(tools)
            self._changed.notify_all()

    def stop(self, request_id: str, how: Literal["pause", "cancel"]) -> None:
        """Asks the one that runs to stop between two calls; one that still waits ends here and now. Cancel wins over
        pause."""
        with self._changed:
            tools = self._open.get(request_id)
            if tools is None:
                return
            if tools.stop != "cancel":
                tools.stop = how
            if tools not in self._queued:
                return
            self._queued.remove(tools)
        self.finish(tools, cancelled(tools) if how == "cancel" else {"type": "released", "checkpoint": None})

    def close(self) -> None:
        """Accepts no more; the one that runs is paused, those that wait go back to the node."""
        with self._changed:
            self._is_closing = True
            open_now = list(self._open)
            self._changed.notify_all()
        for request_id in open_now:
            self.stop(request_id, "pause")

    def take(self) -> Tools | None:
        """Waits for the next request; None once there will be none and every other one is answered."""
        with self._changed:
            self._changed.wait_for(lambda: self._queued or (self._is_closing and not self._open))
            self.running = self._queued.popleft() if self._queued else None
            return self.running

    def finish(self, tools: Tools, frame: dict[str, Any]) -> None:
        """Sends the one terminal frame of a request."""
        # Sent before the lock goes: the process ends when no request is open.
        with self._changed:
            del self._open[tools.request_id]
            if self.running is tools:
                self.running = None
            try:
                self._writer.send(tools.request_id, tools.action, frame)
            except (frames.ProtocolError, ValueError) as error:
                self._log.error("an answer was no frame: %s", error, extra={"request_id": tools.request_id})
                failure = DarkroomError("worker.failed", f"the answer to {tools.action} was no frame: {error}")
                self._writer.send(tools.request_id, tools.action, failure.to_wire())
            self._changed.notify_all()

    def wanted_models(self) -> set[ModelKey]:
        """The models that a request uses or waits for."""
        with self._changed:
            return {key for tools in self._open.values() for key in tools.model_keys}


def cancelled(tools: Tools) -> dict[str, Any]:
    """The terminal frame of a request that was cancelled."""
    return DarkroomError("session.cancelled", f"request {tools.request_id} was cancelled").to_wire()
