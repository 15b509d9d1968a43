"""The child process between its pipes: reads requests, answers the node's own verbs, tells how it is, and ends with a
code that says why.

| thread | does |
| --- | --- |
| reader (main) | parses requests; answers ping, pause and cancel at once |
| device | imports, loads, computes: everything that touches a tensor; one thread for each slot, by turns |
| writer | owns the pipe to the node |
| heartbeat | sends its figures every 2 s |

Exit codes: 0 clean (shutdown, or the node closed the pipe), 64 handshake refused, 69 device lost, 70 internal, 75
recycle me.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from darkroom import frames, memory, schema
from darkroom.device_loop import Backend, DeviceLoop
from darkroom.errors import DarkroomError
from darkroom.requests import Requests
from darkroom.runtime import Runtime
from darkroom.tools import Tools
from darkroom.writer import Writer

EXIT_HANDSHAKE, EXIT_INTERNAL = 64, 70
# How long a thread that computes in Python may keep the device thread from launching, seconds; 5 ms by default, as long
# as a call of a small picture.
SWITCH_S = 0.0005


class Child:
    """One child. `descriptor`: where the node's lines come from; `backend`: what computes."""

    def __init__(self, descriptor: int, writer: Writer, backend: Backend, log: logging.Logger, heartbeat_s: float = schema.HEARTBEAT_S):
        self._descriptor = descriptor
        self._writer = writer
        self._backend = backend
        self._log = log
        self._heartbeat_s = heartbeat_s
        self._born = time.monotonic()
        self._requests = Requests(writer, log)
        self._hello_id: str | None = None
        self._shutdown_id: str | None = None
        # Set when the device may be opened: a spare waits for the node to take it into use.
        self._in_use = threading.Event()
        # None until the handshake is done.
        self._runtime: Runtime | None = None

    def run(self) -> NoReturn:
        """Greets the node, then reads until the process ends."""
        sys.setswitchinterval(SWITCH_S)
        self._guard(self._read)
        os._exit(0)

    # --- reader ---

    def _read(self) -> None:
        self._writer.send("0", "worker.hello", {"protocol": schema.VERSION, "pid": os.getpid(), "schema": schema.SHA256})
        pending = bytearray()
        while chunk := os.read(self._descriptor, 65_536):
            pending += chunk
            while (end := pending.find(b"\n")) >= 0:
                line = bytes(pending[:end])
                del pending[: end + 1]
                if len(line) >= schema.LINE_CAP:
                    self._die("the node sent a line over the cap")
                self._take(line)
            if len(pending) >= schema.LINE_CAP:
                self._die("the node sent a line over the cap")

    def _take(self, line: bytes) -> None:
        try:
            request_id, action, data = frames.decode(line)
        except frames.ProtocolError as error:
            # The answer would name no request, and one that is never answered would wait for ever.
            self._die(f"the node sent a line that is no frame: {error}")
        if request_id == "0":
            self._die("the node sent a request under request id 0, which is for frames that answer none")
        try:
            if action not in frames.REQUESTS:
                raise DarkroomError("worker.action_unknown", f"there is no action {action!r}", field="action")
            try:
                frames.check_request(action, data)
            except frames.ProtocolError as error:
                raise DarkroomError("worker.protocol", f"{action} {error}", field=error.path) from None
            self._handle(request_id, action, data)
        except DarkroomError as error:
            self._refuse(request_id, action, error)

    def _refuse(self, request_id: str, action: str, error: DarkroomError) -> None:
        """The terminal frame of a request that never began."""
        self._writer.send(request_id, action, error.to_wire())
        if action == "worker.hello" and self._hello_id is None:
            self._exit(EXIT_HANDSHAKE)

    def _handle(self, request_id: str, action: str, data: dict[str, Any]) -> None:
        if action == "worker.hello":
            self._greet(request_id, data)
        elif action == "worker.shutdown":
            self._shut_down(request_id)
        elif action == "worker.open":
            self._open(request_id)
        elif self._runtime is None:
            raise DarkroomError("worker.protocol", f"{action} came before the handshake was done")
        elif action == "worker.ping":
            self._writer.send(request_id, action, frames.result(self._heartbeat(self._runtime)))
        elif action == "worker.pause" or action == "worker.cancel":
            # Whoever reads the answer may rely on it.
            self._requests.stop(data["target"], "pause" if action == "worker.pause" else "cancel")
            self._writer.send(request_id, action, frames.result())
        else:
            self._accept(request_id, action, data, self._runtime)

    def _greet(self, request_id: str, hello: dict[str, Any]) -> None:
        low, high = hello["protocol"]["min"], hello["protocol"]["max"]
        if self._hello_id is not None:
            raise DarkroomError("worker.protocol", "the handshake came twice")
        if not low <= schema.VERSION <= high:
            raise DarkroomError(
                "worker.start_failed",
                f"protocol {low} to {high} asked for, this child speaks {schema.VERSION}",
                field="protocol",
            )
        if hello["schema"] != schema.SHA256:
            raise DarkroomError(
                "worker.start_failed",
                f"the node has protocol schema {hello['schema'][:8]}, this Python package has {schema.SHA256[:8]}: install one version of "
                "both, or write it anew with npm run format",
                field="schema",
            )
        self._hello_id = request_id
        if not hello["spare"]:
            self._in_use.set()
        threading.Thread(target=self._guard, args=(self._serve, request_id, hello), name="device", daemon=True).start()

    def _open(self, request_id: str) -> None:
        """Takes a spare into use. The answer comes before its imports are done: it says that the process lives."""
        if self._hello_id is None or self._in_use.is_set():
            raise DarkroomError("worker.protocol", "worker.open is for a spare that is not in use yet")
        self._writer.send(request_id, "worker.open", frames.result())
        self._in_use.set()

    def _shut_down(self, request_id: str) -> None:
        """What runs stops where it can, what waits goes back; then the device thread answers and ends the process."""
        if self._hello_id is None:
            self._writer.send(request_id, "worker.shutdown", frames.result())
            self._exit(0)
        if self._shutdown_id is not None:
            raise DarkroomError("worker.protocol", "the shutdown came twice")
        self._shutdown_id = request_id
        self._requests.close()
        self._in_use.set()

    def _accept(self, request_id: str, action: str, data: dict[str, Any], runtime: Runtime) -> None:
        def send(frame: dict[str, Any]) -> None:
            self._writer.send(request_id, action, frame)

        tools = Tools(request_id, action, data, runtime, send, self._log)
        try:
            self._requests.accept(tools)
        except ValueError as error:
            self._die(str(error))

    # --- device ---

    def _serve(self, hello_id: str, hello: dict[str, Any]) -> None:
        def progress(done: int, imports: int) -> None:
            frame = {"type": "progress", "stage": "import", "call": done, "calls": imports}
            self._writer.send(hello_id, "worker.hello", frame)

        try:
            self._backend.load(hello, progress)
            self._in_use.wait()
            if hello["spare"] and self._shutdown_id is not None:
                self._writer.send(self._shutdown_id, "worker.shutdown", frames.result())
                self._exit(0)
            prepared = self._backend.open(hello, self._requests.wanted_models)
            ready = {"protocol": schema.VERSION, "pid": os.getpid(), **prepared.described}
            self._runtime = prepared.runtime
            self._writer.send(hello_id, "worker.hello", frames.result(ready))
        except Exception as error:
            self._log.exception("the child cannot start")
            message = f"{type(error).__name__}: {error}"
            self._writer.send(hello_id, "worker.hello", DarkroomError("worker.start_failed", message).to_wire())
            self._exit(EXIT_HANDSHAKE)
        threading.Thread(target=self._guard, args=(self._beat, prepared.runtime), name="heartbeat", daemon=True).start()
        loop = DeviceLoop(self._backend, prepared.runtime, self._requests, self._log)
        for number in range(1, hello["slots"]):
            threading.Thread(target=self._guard, args=(self._draw_too, loop, number), name=f"device {number}", daemon=True).start()
        code = loop.run()
        if code == 0 and self._shutdown_id is not None:
            self._writer.send(self._shutdown_id, "worker.shutdown", frames.result())
        self._exit(code)

    def _draw_too(self, loop: DeviceLoop, number: int) -> None:
        """Another device thread. The first one ends the process when none has anything left to do."""
        code = loop.run(number)
        if code != 0:
            self._exit(code)

    # --- heartbeat ---

    def _beat(self, runtime: Runtime) -> None:
        while True:
            self._writer.send("0", "worker.heartbeat", self._heartbeat(runtime))
            time.sleep(self._heartbeat_s)

    def _heartbeat(self, runtime: Runtime) -> dict[str, Any]:
        now, running, busy = time.monotonic(), self._running(runtime), None
        if running is not None:
            busy = {
                "request_id": running.request_id,
                "action": running.action,
                "call": running.call,
                "advanced_s": round(max(0.0, now - running.advanced_at), 3),
            }
        return {
            "uptime_s": round(now - self._born, 3),
            "rss_bytes": _resident_bytes(),
            "device_bytes": memory.reserved_bytes(runtime.device),
            "allocated_bytes": memory.allocated_bytes(runtime.device),
            "busy": busy,
            "sessions": runtime.live.bytes(),
            "models": runtime.models.describe(self._requests.wanted_models()),
        }

    def _running(self, runtime: Runtime) -> Tools | None:
        """The request that has the turn; where none has, the one that has not got on for longest."""
        running = self._requests.running
        return next((each for each in running if each is runtime.turn.holder), None) or min(
            running, key=lambda each: each.advanced_at, default=None
        )

    # --- ends ---

    def _guard(self, body: Callable[..., None], *arguments: Any) -> None:
        """A thread that dies would leave a child that looks alive."""
        try:
            body(*arguments)
        except BaseException:
            self._log.exception("an internal error ends the child")
            self._exit(EXIT_INTERNAL)

    def _die(self, reason: str) -> NoReturn:
        self._log.error(reason)
        self._exit(EXIT_INTERNAL)

    def _exit(self, code: int) -> NoReturn:
        self._writer.flush(5)
        sys.stderr.flush()
        os._exit(code)


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
