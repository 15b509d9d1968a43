"""What an operation gets from the child that runs it: progress, checkpoints, the stop check, its folder, its
files.
"""

import hashlib
import os
import time
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


class Tools:
    """One request's tools. The device thread calls them; only `stop` is set from outside.

    `place`: what every request shares — `device`, `models`, `identity` (the exactness fingerprint), `roots`,
    `checkpoint` (interval).
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
        self.held_bytes = 0
        self.session_id = data.get("session_id")
        self._send = send
        self._stage = None
        self._told_at = 0.0
        self._saved_at = time.monotonic()
        self._writer = None
        self._writing = None
        self._last_checkpoint = None
        if "dir" in data:
            self._inside_attempts(data["dir"], "dir")

    @property
    def input(self):
        return self.data["input"]

    # --- how it goes ---

    def advance(self, call=None):
        """Tells the watchdog that the device thread got on."""
        self.advanced_at = time.monotonic()
        if call is not None:
            self.call = call

    def progress(self, stage, **figures):
        """At most five frames a second, a new stage at once. `figures`: call, calls, rate, eta_s."""
        self.advance(figures.get("call"))
        now = self.advanced_at
        if stage == self._stage and now - self._told_at < PROGRESS_S:
            return
        self._stage, self._told_at = stage, now
        self._send({"type": "progress", "stage": stage, **figures})

    def hold(self, count):
        """Bytes of the tensors that the request holds from now on."""
        self.held_bytes = count

    def check_stop(self, can_pause=False):
        """Between two pieces of work. Raises Cancelled, or Paused where the caller has nothing to lose."""
        if self.stop == "cancel":
            raise Cancelled
        if self.stop == "pause" and can_pause:
            raise Paused

    # --- files ---

    def read(self, name):
        """Bytes of an input file and None, or None and why there are none."""
        given = self.data["files"].get(name)
        if given is None:
            return None, "it was not given"
        path = self._inside_attempts(given["path"], f"files.{name}.path")
        return self._read(path, given["sha256"])

    def read_checkpoint(self):
        """(bytes, SHA-256 it should have) of the checkpoint to go on from; (None, None) without one.

        Raises OSError.
        """
        given = self.data["checkpoint"]
        if given is None:
            return None, None
        with open(self._inside_attempts(given["path"], "checkpoint.path"), "rb") as file:
            return file.read(), given["sha256"]

    def write(self, name, content):
        """Writes a file into the attempt's folder, visible only when it is whole; returns {path, sha256,
        bytes}.
        """
        path = os.path.join(self.data["dir"], name)
        with open(path + ".part", "wb") as file:
            file.write(content)
        os.rename(path + ".part", path)
        return {"path": path, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}

    def _read(self, path, sha256):
        try:
            with open(path, "rb") as file:
                content = file.read()
        except OSError as error:
            return None, f"it cannot be read: {error.strerror}"
        if hashlib.sha256(content).hexdigest() != sha256:
            return None, "it does not match its SHA-256"
        return content, None

    def _inside_attempts(self, path, field):
        real = inside(path, [self.place.roots["attempts"]])
        if real is None or not os.path.isabs(path):
            raise DarkroomError(
                "worker.path_refused", f"{path} is not inside {self.place.roots['attempts']}", field=field
            )
        return real

    # --- checkpoints ---

    def checkpoint_due(self, call):
        """Every `calls` calls where that is set, else when the interval has passed and the last one is on
        disk.
        """
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
        if self._writing is not None:
            try:
                self._last_checkpoint = self._writing.result()
            except OSError as error:
                self.log.warning(
                    "a checkpoint could not be written: %s", error, extra={"request_id": self.request_id}
                )
            self._writing = None
        return self._last_checkpoint

    def close(self):
        """After this no further frame of the request comes from here."""
        if self._writer is not None:
            self.finish_checkpoints()
            self._writer.shutdown()
        self.held_bytes = 0

    def _write_checkpoint(self, call, serialize):
        made = {**self.write(f"checkpoint-{call}.safetensors", serialize()), "call": call}
        self._send({"type": "checkpoint", **made})
        return made
