"""What an operation gets from the child that runs it: progress, checkpoints, the stop check, its folder, its files."""

import hashlib
import os
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

from darkroom.errors import Cancelled, DarkroomError, Paused

PROGRESS_S = 0.2


def inside(path, roots):
    """The real path, when it lies inside one of the roots (real paths too); None otherwise."""
    real = os.path.realpath(path)
    for root in roots:
        if real.startswith(os.path.realpath(root) + os.sep):
            return real
    return None


class Held:
    """The tensors of each session, by weak reference: it counts what is alive, not what somebody meant to free."""

    def __init__(self):
        self._lock = threading.Lock()
        self._sessions = {}

    def add(self, session_id, tensors):
        with self._lock:
            self._sessions.setdefault(session_id, {}).update((id(tensor), weakref.ref(tensor)) for tensor in tensors)

    def bytes(self):
        """Session id → bytes, of sessions that hold any."""
        with self._lock:
            alive = {
                session_id: {key: ref for key, ref in refs.items() if ref() is not None} for session_id, refs in self._sessions.items()
            }
            self._sessions = {session_id: refs for session_id, refs in alive.items() if refs}
            tensors = {session_id: [ref() for ref in refs.values()] for session_id, refs in self._sessions.items()}
        return {session_id: sum(tensor.nbytes for tensor in its if tensor is not None) for session_id, its in tensors.items()}


class Tools:
    """One request's tools. The device thread calls them; only `stop` is set from outside.

    `place`: what every request shares: `device`, `models`, `wanted` (which models requests use or wait for), `held`, `identity` (the
    exactness fingerprint), `roots`, `checkpoint` (interval). Raises `worker.path_refused` when the request's folder is not inside the
    attempt folder.
    """

    def __init__(self, request_id, action, data, place, send, log):
        self.request_id = request_id
        self.action = action
        self.data = data
        self.place = place
        self.log = log
        # "pause" or "cancel" once asked for.
        self.stop = None
        self.call = None
        self.advanced_at = time.monotonic()
        self._send = send
        self._stage = None
        self._told_at = 0.0
        self._saved_at = time.monotonic()
        self._writer = None
        self._writing = None
        self._last_checkpoint = None
        self._folder = self._inside_attempts(data["dir"], "dir") if "dir" in data else None

    @property
    def input(self):
        return self.data["input"]

    @property
    def model_key(self):
        """(id, body hash) of the model that the request uses; None when it uses none."""
        reference = self.data.get("model") or self.data.get("input", {}).get("model")
        return reference and (reference["id"], reference["body_hash"])

    # --- how it goes ---

    def advance(self, call=None):
        """Tells the watchdog that the device thread got on."""
        self.advanced_at = time.monotonic()
        if call is not None:
            self.call = call

    def progress(self, stage, **figures):
        """At most five frames a second; a new stage and the last call at once. `figures`: call, calls, rate, eta_s."""
        call, calls = figures.get("call"), figures.get("calls")
        self.advance(call)
        is_last = call is not None and call == calls
        if stage == self._stage and not is_last and self.advanced_at - self._told_at < PROGRESS_S:
            return
        self._stage, self._told_at = stage, self.advanced_at
        self._send({"type": "progress", "stage": stage, **figures})

    def hold(self, tensors):
        """These tensors are the session's: the child reports them for as long as they live."""
        self.place.held.add(self.data["session_id"], tensors)

    def check_stop(self, can_pause=False):
        """Between two pieces of work. Raises Cancelled, or Paused where the caller has nothing to lose."""
        if self.stop == "cancel":
            raise Cancelled
        if self.stop == "pause" and can_pause:
            raise Paused

    # --- files ---

    def read(self, name):
        """Bytes of an input file and None, or None and why there are none. Raises `worker.path_refused`."""
        given = self.data["files"].get(name)
        if given is None:
            return None, "it was not given"
        try:
            with open(self._inside_attempts(given["path"], f"files.{name}.path"), "rb") as file:
                content = file.read()
        except OSError as error:
            return None, f"it cannot be read: {error.strerror}"
        if hashlib.sha256(content).hexdigest() != given["sha256"]:
            return None, "it does not match its SHA-256"
        return content, None

    def read_checkpoint(self):
        """(bytes, {sha256, call}) of the checkpoint to go on from; None without one.

        Raises OSError and `worker.path_refused`.
        """
        given = self.data["checkpoint"]
        if given is None:
            return None
        with open(self._inside_attempts(given["path"], "checkpoint.path"), "rb") as file:
            return file.read(), given

    def write(self, name, content):
        """Writes a file into the attempt's folder, visible only when it is whole; returns {path, sha256, bytes}."""
        path = os.path.join(self._folder, name)
        with open(path + ".part", "wb") as file:
            file.write(content)
        os.rename(path + ".part", path)
        return {"path": path, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}

    def _inside_attempts(self, path, field):
        real = inside(path, [self.place.roots["attempts"]])
        if real is None:
            raise DarkroomError("worker.path_refused", f"{path} is not inside {self.place.roots['attempts']}", field=field)
        return real

    # --- checkpoints ---

    def checkpoint_due(self, call):
        """Every `calls` calls where that is set, else when the interval has passed and the last one is on disk."""
        policy = self.place.checkpoint
        if policy["calls"] is not None:
            return call % policy["calls"] == 0
        if self._writing is not None and not self._writing.done():
            return False
        return time.monotonic() - self._saved_at >= policy["interval_s"]

    def save_checkpoint(self, call, serialize):
        """Writes `serialize()` off the device thread, then tells the node.

        One at a time: a slow disk holds the loop, not the memory.
        """
        self.finish_checkpoints()
        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._saved_at = time.monotonic()
        self._writing = self._writer.submit(self._write_checkpoint, call, serialize)

    def finish_checkpoints(self):
        """Waits for the one that is being written; returns the last good one, or None.

        One that fails costs the run nothing but itself.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            try:
                self._last_checkpoint = writing.result()
            except Exception as error:
                self.log.warning("a checkpoint could not be written: %s", error, extra={"request_id": self.request_id})
        return self._last_checkpoint

    def close(self):
        """After this no further frame of the request comes from here."""
        if self._writer is not None:
            self.finish_checkpoints()
            self._writer.shutdown()

    def _write_checkpoint(self, call, serialize):
        made = {**self.write(f"checkpoint-{call}.safetensors", serialize()), "call": call}
        self._send({"type": "checkpoint", **made})
        return made
