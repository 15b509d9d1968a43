"""The child process: `python -m darkroom`, spawned by a worker node.

| thread | does |
| --- | --- |
| reader (main) | parses requests; answers ping, pause and cancel at once |
| device | imports, loads, computes: everything that touches a tensor |
| writer | owns the pipe to the node |
| heartbeat | sends the vitals every 2 s |

Exit codes: 0 clean (shutdown, or the node closed the pipe), 64 handshake refused, 69 device lost,
70 internal, 75 recycle me.
"""

import os
import sys

# Before any import that could print: the pipes are ours alone, standard input is empty, standard output is stderr. Duplicated
# descriptors are not inherited, so no grandchild can hold the pipe open.
FRAMES_IN, FRAMES_OUT = os.dup(0), os.dup(1)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
os.dup2(2, 1)
sys.stdout = sys.stderr
os.umask(0o077)

import ctypes
import gc
import importlib
import signal
import threading
import time
from collections import deque
from functools import partial
from types import SimpleNamespace

from darkroom import exactness, logs, memory, protocol, registry, samplers
from darkroom.errors import Cancelled, DarkroomError, Paused
from darkroom.tools import Held, Tools

EXIT_HANDSHAKE, EXIT_DEVICE_LOST, EXIT_INTERNAL, EXIT_RECYCLE = 64, 69, 70, 75
MOST_QUEUED = 64
MEMORY_ERRORS_BEFORE_RECYCLING = 3


class Writer:
    """Sends frames in order. Nothing is dropped but progress that a newer one of the same request has overtaken in the queue."""

    def __init__(self, descriptor):
        self._descriptor = descriptor
        self._frames = deque()
        self._changed = threading.Condition()
        self._is_writing = False
        threading.Thread(target=self._run, name="writer", daemon=True).start()

    def send(self, request_id, action, data):
        """Raises ProtocolError when it is no frame of the protocol, ValueError when it holds NaN."""
        protocol.check_reply(request_id, action, data)
        line = protocol.encode(request_id, action, data)
        latest_only = request_id if data.get("type") == "progress" else None
        with self._changed:
            if latest_only:
                self._frames = deque(frame for frame in self._frames if frame[0] != latest_only)
            self._frames.append((latest_only, line))
            self._changed.notify_all()

    def flush(self, timeout_s):
        with self._changed:
            self._changed.wait_for(lambda: not self._frames and not self._is_writing, timeout_s)

    def _run(self):
        while True:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._frames)
                _, line = self._frames.popleft()
                self._is_writing = True
            view = memoryview(line)
            try:
                while view:
                    view = view[os.write(self._descriptor, view) :]
            except OSError:
                os._exit(0)


class Child:
    def __init__(self, log):
        self.log = log
        self.born = time.monotonic()
        self.writer = Writer(FRAMES_OUT)
        self.hello_id = None
        self.place = None
        # Guards the four below; the device thread waits on it for work.
        self.changed = threading.Condition()
        self.queued = deque()
        self.open = {}
        self.running = None
        self.shutdown_id = None
        self.memory_errors = 0

    # --- reader ---

    def read(self):
        pending = bytearray()
        while chunk := os.read(FRAMES_IN, 65_536):
            pending += chunk
            while (end := pending.find(b"\n")) >= 0:
                line = bytes(pending[:end])
                del pending[: end + 1]
                if len(line) >= protocol.LINE_CAP:
                    self.die(EXIT_INTERNAL, "the node sent a line over the cap")
                self.take(line)
            if len(pending) >= protocol.LINE_CAP:
                self.die(EXIT_INTERNAL, "the node sent a line over the cap")
        os._exit(0)

    def take(self, line):
        try:
            request_id, action, data = protocol.decode(line)
        except protocol.ProtocolError as error:
            # Nobody can be told which request this was, and one that is never answered would wait for ever.
            self.die(EXIT_INTERNAL, f"the node sent a line that is no frame: {error}")
        if request_id == "0":
            self.die(EXIT_INTERNAL, "the node sent a request under request id 0, which is for frames that nobody asked for")
        try:
            if action not in protocol.REQUESTS:
                raise DarkroomError("worker.action_unknown", f"there is no action {action!r}", field="action")
            try:
                protocol.check_request(action, data)
            except protocol.ProtocolError as error:
                raise DarkroomError("worker.protocol", f"{action} {error}", field=error.path) from None
            self.handle(request_id, action, data)
        except DarkroomError as error:
            self.refuse(request_id, action, error)

    def refuse(self, request_id, action, error):
        """The terminal frame of a request that never began."""
        self.writer.send(request_id, action, error.to_wire())
        if action == "worker.hello" and self.hello_id is None:
            self.exit(EXIT_HANDSHAKE)

    def handle(self, request_id, action, data):
        if action == "worker.hello":
            self.greet(request_id, data)
        elif action == "worker.shutdown":
            self.shut_down(request_id)
        elif self.place is None:
            raise DarkroomError("worker.protocol", f"{action} came before the handshake was done")
        elif action == "worker.ping":
            self.writer.send(request_id, action, protocol.result(self.vitals()))
        elif action in ("worker.pause", "worker.cancel"):
            self.writer.send(request_id, action, protocol.result())
            self.stop(data["target"], action.removeprefix("worker."))
        else:
            self.accept(request_id, action, data)

    def greet(self, request_id, data):
        low, high = data["protocol"]["min"], data["protocol"]["max"]
        if self.hello_id is not None:
            raise DarkroomError("worker.protocol", "the handshake came twice")
        if not low <= protocol.VERSION <= high:
            raise DarkroomError(
                "worker.start_failed",
                f"protocol {low} to {high} asked for, this child speaks {protocol.VERSION}",
                field="protocol",
            )
        self.hello_id = request_id
        threading.Thread(target=self.guard, args=(self.device, data), name="device", daemon=True).start()

    def shut_down(self, request_id):
        """What runs stops where it can, what waits goes back; then the device thread answers and ends the process."""
        if self.hello_id is None:
            self.writer.send(request_id, "worker.shutdown", protocol.result())
            self.exit(0)
        with self.changed:
            if self.shutdown_id is not None:
                raise DarkroomError("worker.protocol", "the shutdown came twice")
            self.shutdown_id = request_id
            targets = list(self.open)
            self.changed.notify_all()
        for target in targets:
            self.stop(target, "pause")

    def accept(self, request_id, action, data):
        tools = Tools(request_id, action, data, self.place, lambda frame: self.writer.send(request_id, action, frame), self.log)
        with self.changed:
            if request_id in self.open:
                self.die(EXIT_INTERNAL, f"the node used request id {request_id} twice")
            if self.shutdown_id is not None:
                raise DarkroomError("worker.busy", "this child is about to end")
            if len(self.queued) >= MOST_QUEUED:
                raise DarkroomError("worker.busy", f"{len(self.queued)} requests wait already")
            self.writer.send(request_id, action, {"type": "accepted"})
            self.open[request_id] = tools
            self.queued.append(tools)
            self.changed.notify_all()

    def stop(self, target, how):
        """Asks what runs to stop between two calls; what still waits ends here and now."""
        with self.changed:
            tools = self.open.get(target)
            if tools is None:
                return
            if tools.stop != "cancel":
                tools.stop = how
            if tools not in self.queued:
                return
            self.queued.remove(tools)
        self.finish(tools, self.cancelled(tools) if how == "cancel" else {"type": "released", "checkpoint": None})

    # --- device ---

    def device(self, hello):
        try:
            self.prepare(hello)
        except Exception as error:
            self.log.exception("the child cannot start")
            message = f"{type(error).__name__}: {error}"
            self.writer.send(self.hello_id, "worker.hello", DarkroomError("worker.start_failed", message).to_wire())
            self.exit(EXIT_HANDSHAKE)
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.queued or self.shutdown_id is not None)
                tools = self.queued.popleft() if self.queued else None
                self.running = tools
            if tools is None:
                self.writer.send(self.shutdown_id, "worker.shutdown", protocol.result())
                self.exit(0)
            tools.advance()
            frame, code = self.run(tools)
            tools.close()
            # After a result the pool stays for the next request. A device that is lost cannot be asked to do anything.
            if frame["type"] != "result" and code is None:
                memory.empty_caches(self.place.device)
            self.running = None
            self.finish(tools, frame)
            if code is not None:
                self.leave(code)

    def prepare(self, hello):
        """The heavy imports, with progress, then everything that requests share."""
        exactness.prepare_environment(hello["threads"])
        modules = ("torch", "transformers.models.clip", "diffusers.models.unets.unet_2d_condition", "diffusers.models.autoencoders")
        loads = [*(partial(importlib.import_module, name) for name in modules), samplers.load_classes]
        for done, load in enumerate(loads):
            progress = {"type": "progress", "stage": "import", "call": done, "calls": len(loads)}
            self.writer.send(self.hello_id, "worker.hello", progress)
            load()
        logs.quiet_libraries()
        # What the imports made lives for ever: the collector need not look at it again, half a second each time.
        gc.collect()
        gc.freeze()

        from darkroom.model import Models

        exactness.configure(hello["threads"])
        device = exactness.device(hello["device"])
        hardware = exactness.hardware(device, hello["threads"])
        build, settings = exactness.build(), exactness.settings(device)
        self.place = SimpleNamespace(
            device=device,
            roots=hello["roots"],
            checkpoint=hello["checkpoint"],
            models=Models(device, hello["roots"]["models"]),
            wanted=self.wanted,
            held=Held(),
            identity=exactness.fingerprint(hardware, build, settings),
        )
        ready = {
            "protocol": protocol.VERSION,
            "pid": os.getpid(),
            "build": build,
            "hardware": hardware,
            "settings": settings,
            "actions": list(registry.OPERATIONS),
            "samplers": list(samplers.SAMPLERS),
        }
        self.writer.send(self.hello_id, "worker.hello", protocol.result(ready))
        threading.Thread(target=self.guard, args=(self.beat,), name="heartbeat", daemon=True).start()

    def run(self, tools):
        """(terminal frame, exit code or None)."""
        from darkroom.model import is_device_lost, is_out_of_memory

        try:
            return registry.operation(tools.action)(tools), None
        except Cancelled:
            return self.cancelled(tools), None
        except Paused as paused:
            return {"type": "released", "checkpoint": paused.checkpoint}, None
        except DarkroomError as error:
            return error.to_wire(), None
        except Exception as error:
            message = f"{tools.action} of request {tools.request_id}: {type(error).__name__}: {error}"
            if is_out_of_memory(error):
                self.place.models.clear()
                self.memory_errors += 1
                recycle = self.memory_errors >= MEMORY_ERRORS_BEFORE_RECYCLING
                return DarkroomError("memory.exhausted", message).to_wire(), EXIT_RECYCLE if recycle else None
            if is_device_lost(error):
                return DarkroomError("device.lost", message).to_wire(), EXIT_DEVICE_LOST
            self.log.exception("a request failed", extra={"request_id": tools.request_id})
            return DarkroomError("worker.failed", message).to_wire(), None

    def cancelled(self, tools):
        return DarkroomError("session.cancelled", f"request {tools.request_id} was cancelled").to_wire()

    def finish(self, tools, frame):
        """The one terminal frame of a request."""
        with self.changed:
            del self.open[tools.request_id]
        try:
            self.writer.send(tools.request_id, tools.action, frame)
        except (protocol.ProtocolError, ValueError) as error:
            self.log.error("an answer was no frame: %s", error, extra={"request_id": tools.request_id})
            failure = DarkroomError("worker.failed", f"the answer to {tools.action} was no frame: {error}")
            self.writer.send(tools.request_id, tools.action, failure.to_wire())

    def wanted(self):
        """(id, body hash) of the models that a request uses or waits for."""
        with self.changed:
            return {tools.model_key for tools in self.open.values()} - {None}

    def leave(self, code):
        """Ends after a request that spoiled the process: what waits goes back to the node."""
        with self.changed:
            waiting = list(self.queued)
            self.queued.clear()
            self.shutdown_id = self.shutdown_id or self.hello_id
        for tools in waiting:
            self.finish(tools, {"type": "released", "checkpoint": None})
        self.exit(code)

    # --- heartbeat ---

    def beat(self):
        while True:
            self.writer.send("0", "worker.heartbeat", self.vitals())
            time.sleep(protocol.HEARTBEAT_S)

    def vitals(self):
        now, running, busy = time.monotonic(), self.running, None
        if running is not None:
            busy = {
                "request_id": running.request_id,
                "action": running.action,
                "call": running.call,
                "advanced_s": round(now - running.advanced_at, 3),
            }
        return {
            "uptime_s": round(now - self.born, 3),
            "rss_bytes": resident_bytes(),
            "device_bytes": memory.reserved_bytes(self.place.device),
            "allocated_bytes": memory.allocated_bytes(self.place.device),
            "busy": busy,
            "sessions": self.place.held.bytes(),
            "models": self.place.models.describe(self.wanted()),
        }

    # --- ends ---

    def guard(self, body, *arguments):
        """A thread that dies would leave a child that looks alive."""
        try:
            body(*arguments)
        except Exception:
            self.log.exception("an internal error ends the child")
            self.exit(EXIT_INTERNAL)

    def die(self, code, reason):
        self.log.error(reason)
        self.exit(code)

    def exit(self, code):
        self.writer.flush(5)
        sys.stderr.flush()
        os._exit(code)


def resident_bytes():
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def die_with_parent():
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def main():
    die_with_parent()
    # Ctrl-C reaches the whole foreground group; the node decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = Child(logs.start())
    child.writer.send("0", "worker.hello", {"protocol": protocol.VERSION, "pid": os.getpid()})
    child.guard(child.read)


main()
