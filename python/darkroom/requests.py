"""The requests that are open: those that run, and those that wait for a device thread. Each ends in exactly one
terminal frame."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from typing import Any, Literal

from darkroom import frames
from darkroom.errors import DarkroomError
from darkroom.sharing import may_share
from darkroom.tools import ModelKey, Tools
from darkroom.writer import Writer

MAX_QUEUED = 64
# Sessions whose order is remembered: more than there are under way at a time.
MAX_SESSIONS = 256


class Requests:
    """Shared by the reader, which accepts and stops, and the device threads, which take and finish."""

    def __init__(self, writer: Writer, log: logging.Logger):
        self._writer = writer
        self._log = log
        # Guards all below; the device threads wait on it for work.
        self._changed = threading.Condition()
        self._queued: deque[Tools] = deque()
        self._running: list[Tools] = []
        # Of those that run the ones that want the device to themselves, the first one first.
        self._alone: list[Tools] = []
        self._open: dict[str, Tools] = {}
        # Ids of sessions, the one that came first first.
        self._sessions: OrderedDict[str, int] = OrderedDict()
        self._seen = 0
        self._is_closing = False

    @property
    def running(self) -> list[Tools]:
        """Those that device threads have taken, but for the ones that wait until another has ended."""
        with self._changed:
            others = [each for each in self._running if each not in self._alone]
            return others or self._alone[:1]

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
            if tools.session is not None and tools.session not in self._sessions:
                self._seen += 1
                self._sessions[tools.session] = self._seen
                if len(self._sessions) > MAX_SESSIONS:
                    self._sessions.popitem(last=False)
            self._changed.notify_all()

    def stop(self, request_id: str, how: Literal["pause", "cancel"]) -> None:
        """Asks one that runs to stop between two calls; one that still waits ends here and now. Cancel wins over
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
        """Accepts no more; those that run are paused, those that wait go back to the node."""
        with self._changed:
            self._is_closing = True
            open_now = list(self._open)
            self._changed.notify_all()
        for request_id in open_now:
            self.stop(request_id, "pause")

    def take(self) -> Tools | None:
        """Waits for the next request, which may run beside those that do; None once there will be none and every other
        one is answered."""
        with self._changed:
            while True:
                tools = self._next()
                if tools is not None:
                    self._queued.remove(tools)
                    self._running.append(tools)
                    if len(self._running) > 1:
                        for each in self._running:
                            each.is_alone = False
                    return tools
                if self._is_closing and not self._open:
                    return None
                self._changed.wait()

    def _next(self) -> Tools | None:
        """The first one; but a step of a session that came before others' goes before their steps with another model,
        so that none is loaded between two of its own."""
        if not self._queued or self._alone:
            return None
        first = self._queued[0]
        for tools in self._queued:
            if tools.session is None or first.session is None:
                break
            came_before = self._sessions.get(tools.session, 0) < self._sessions.get(first.session, 0)
            if came_before and tools.model_keys != first.model_keys:
                first = tools
        return first if all(may_share(first, each) for each in self._running) else None

    def leave_alone(self, tools: Tools) -> bool:
        """Waits until no other request computes beside this one; till it has ended none will. False when none did.

        The caller must hold nothing that another one waits for.
        """
        with self._changed:
            if len(self._running) <= 1 or tools in self._alone:
                return False
            self._alone.append(tools)
            self._changed.notify_all()
            # Those that wait for the same compute nothing.
            self._changed.wait_for(lambda: self._alone[0] is tools and all(each in self._alone for each in self._running))
            return True

    def finish(self, tools: Tools, frame: dict[str, Any]) -> None:
        """Sends the one terminal frame of a request."""
        # Sent before the lock goes: the process ends when no request is open.
        with self._changed:
            del self._open[tools.request_id]
            for those in (self._running, self._alone):
                if tools in those:
                    those.remove(tools)
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
