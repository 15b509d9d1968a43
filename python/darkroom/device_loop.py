"""The device threads: one prepares what computes, then each runs one request after another. All that touches a tensor
happens here, by turns."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol

from darkroom import faults, memory, sharing
from darkroom.errors import Cancelled, DarkroomError, Paused
from darkroom.requests import Requests, cancelled
from darkroom.runtime import Runtime
from darkroom.tools import ModelKey, Tools

EXIT_DEVICE_LOST, EXIT_RECYCLE = 69, 75
MAX_MEMORY_ERRORS = 3

Operation = Callable[[Tools], dict[str, Any]]


@dataclass(frozen=True)
class Prepared:
    """The shared runtime, and the node's answer to its handshake: `build`, `hardware`, `settings`, `facts`."""

    runtime: Runtime
    described: dict[str, Any]


class Backend(Protocol):
    """What computes: torch, or a test's stand-in for it."""

    def load(self, hello: dict[str, Any], progress: Callable[[int, int], None]) -> None:
        """Imports, and nothing of the device. `hello`: the node's handshake; `progress`: how many imports of how many
        are done.

        Whatever it raises ends the child: it cannot start.
        """
        ...

    def open(self, hello: dict[str, Any], wanted: Callable[[], Collection[ModelKey]]) -> Prepared:
        """Settings and device. Whatever it raises ends the child: it cannot start."""
        ...

    def operation(self, action: str) -> Operation:
        """The function of an action: (tools) → result frame. Raises `worker.action_unknown`."""
        ...


class DeviceLoop:
    """Runs until the requests are closed, or one has spoiled the process."""

    def __init__(self, backend: Backend, runtime: Runtime, requests: Requests, log: logging.Logger):
        self._backend = backend
        self._runtime = runtime
        self._requests = requests
        self._log = log
        self._memory_errors = 0

    def run(self, number: int = 0) -> int:
        """What device thread `number` does. The exit code: 0 when the child shuts down, 69 when the device is lost, 75
        when a fresh process would do better."""
        turn = self._runtime.turn
        with sharing.own_stream(self._runtime.device, number):
            while (tools := self._requests.take()) is not None:
                frame, code = self.answer(tools)
                tools.close()
                # After a result the pool stays for the next request. A device that is lost cannot be asked to do
                # anything.
                if frame["type"] != "result" and code == 0:
                    with turn.of(tools):
                        memory.empty_caches(self._runtime.device)
                # What would be taken now would end with the process.
                if code != 0:
                    self._requests.close()
                self._requests.finish(tools, frame)
                if code != 0:
                    return code
        return 0

    def answer(self, tools: Tools) -> tuple[dict[str, Any], int]:
        """Does what a request asks; one that runs out of memory begins again alone, and then after each rung of
        `memory.ladder`. (terminal frame, exit code that it asks for)."""
        turn, ladder = self._runtime.turn, memory.ladder(self._runtime, tools)
        with turn.of(tools):
            tools.advance()
            while (answer := self._try(tools)) is None:
                # What has failed is let go of by now, with all that it computed; the request begins again.
                with turn.given_away():
                    has_waited = self._requests.leave_alone(tools)
                rung = "it waited for what ran beside it" if has_waited else next(ladder, None)
                if rung is None:
                    self._runtime.models.clear()
                    self._memory_errors += 1
                    message = f"{tools.action} of request {tools.request_id}: out of memory, and nothing is left to let go of"
                    recycle = self._memory_errors >= MAX_MEMORY_ERRORS
                    return DarkroomError("memory.exhausted", message).to_wire(), EXIT_RECYCLE if recycle else 0
                tools.note(f"out of memory: {rung}")
            return answer

    def _try(self, tools: Tools) -> tuple[dict[str, Any], int] | None:
        """As `answer`; None when memory ran out."""
        try:
            self._runtime.peaks.begin()
            frame = self._backend.operation(tools.action)(tools)
            # Of one that drew with a model that was there: weights that came meanwhile are none of a picture's memory.
            if frame["type"] == "result" and "load_s" in frame["stats"]:
                frame["stats"]["memory"] = memory.used(tools)
            # Beside another one nobody knows whose the memory was.
            if frame["type"] == "result" and frame["stats"].get("load_s") == 0 and tools.is_alone:
                frame["stats"]["peak_bytes"] = self._runtime.peaks.end(tools.held_bytes)
            return frame, 0
        except Cancelled:
            return cancelled(tools), 0
        except Paused as paused:
            return {"type": "released", "checkpoint": paused.checkpoint}, 0
        except DarkroomError as error:
            return error.to_wire(), 0
        except Exception as error:
            message = f"{tools.action} of request {tools.request_id}: {type(error).__name__}: {error}"
            if faults.is_out_of_memory(error):
                self._log.warning(message)
                return None
            if faults.is_disk_full(error):
                return DarkroomError("disk.full", message).to_wire(), 0
            if faults.is_device_lost(error):
                return DarkroomError("device.lost", message).to_wire(), EXIT_DEVICE_LOST
            self._log.exception("a request failed", extra={"request_id": tools.request_id})
            return DarkroomError("worker.failed", message).to_wire(), 0
