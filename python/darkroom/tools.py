"""What an operation gets from the child that runs it: progress, checkpoints, the stop check, its folder, its files."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

from darkroom.errors import Cancelled, DarkroomError, Paused
from darkroom.profiles import AUTO, PROFILES, Profile
from darkroom.runtime import Runtime

PROGRESS_S = 0.2
MIB = 1 << 20
HASHING = ThreadPoolExecutor(1, "hash")

# Id and body hash of a model.
ModelKey = tuple[str, str]


def inside(path: str | os.PathLike[str], roots: Iterable[str | os.PathLike[str]]) -> str | None:
    """The real path, when it lies inside one of the roots (real paths too); None otherwise."""
    real = os.path.realpath(path)
    for root in roots:
        if real.startswith(os.path.realpath(root) + os.sep):
            return real
    return None


class Tools:
    """One request's tools. Its device thread calls them; only `stop` and `is_alone` are set from outside.

    Raises `worker.path_refused` when the request's folder is not inside the attempt folder.
    """

    def __init__(
        self,
        request_id: str,
        action: str,
        data: dict[str, Any],
        runtime: Runtime,
        send: Callable[[dict[str, Any]], None],
        log: logging.Logger,
    ):
        self.request_id = request_id
        self.action = action
        self.data = data
        self.runtime = runtime
        self.log = log
        # What was asked for, if anything.
        self.stop: Literal["pause", "cancel"] | None = None
        # Whether no other request has run beside it.
        self.is_alone = True
        # Denoise calls, or tiles, that are done, once there were any.
        self.call: int | None = None
        self.advanced_at = time.monotonic()
        # The most that the session held while the request ran, by what `hold` was told.
        self.held_bytes = 0
        self._send = send
        self._stage: str | None = None
        # Of the weights that the load under way has read, bytes.
        self._loaded = 0
        self._told_at = 0.0
        self._saved_at = time.monotonic()
        self._previewed_at = self._saved_at
        self._previewing: Future[None] | None = None
        self._writer: ThreadPoolExecutor | None = None
        self._writing: Future[dict[str, Any]] | None = None
        self._last_checkpoint: dict[str, Any] | None = None
        # Work without a folder writes no files.
        self._folder = self._inside_attempts(data["dir"], "dir") if "dir" in data else ""

    @property
    def input(self) -> dict[str, Any]:
        """What the operation is asked, by the schema of its action."""
        return self.data["input"]

    @property
    def session(self) -> str | None:
        """The session that a step is of; None of a command."""
        return self.data.get("session_id")

    @property
    def model_keys(self) -> set[ModelKey]:
        """The models that the request uses."""
        asked = self.data.get("input", {})
        found = [self.data.get("model"), asked.get("model"), asked.get("upscaler"), *(each["model"] for each in asked.get("control", ()))]
        found += [(each.get("preprocessor") or {}).get("model") for each in (asked, *asked.get("control", ()))]
        # An upscaler may be the name of a filter.
        return {(reference["id"], reference["body_hash"]) for reference in found if isinstance(reference, dict)}

    @property
    def profile(self) -> Profile:
        """The memory profile that the request asks for."""
        return PROFILES[self.profile_name]

    @property
    def profile_name(self) -> str:
        """As the request names it."""
        return self.data.get("input", self.data).get("memory_profile", AUTO)

    # --- how it goes ---

    def advance(self, call: int | None = None) -> None:
        """Tells the watchdog that the device thread got on."""
        self.advanced_at = time.monotonic()
        if call is not None:
            self.call = call

    def progress(self, stage: str, **figures: float) -> None:
        """At most five frames a second; a new stage and the last call at once. `figures`: call, calls, rate, eta_s."""
        call, calls = figures.get("call"), figures.get("calls")
        self.advance(None if call is None or stage == "load" else int(call))
        is_last = call is not None and call == calls
        if stage == self._stage and not is_last and self.advanced_at - self._told_at < PROGRESS_S:
            return
        self._stage, self._told_at = stage, self.advanced_at
        self._send({"type": "progress", "stage": stage, **figures})

    def begin_load(self) -> None:
        """A model that the request needs begins to load."""
        self._loaded = 0
        self.progress("load")

    def loaded(self, count: int) -> None:
        """So many bytes more of its weights are read. Told in MiB where the node has said how many there are; the last
        one with the end of the load."""
        self.advance()
        self._loaded += count
        total = self.data.get("weight_bytes", 0)
        if total > 0:
            calls = -(-total // MIB)
            self.progress("load", call=min(self._loaded // MIB, calls - 1), calls=calls)

    def note(self, text: str) -> None:
        """A sentence for the session's history."""
        self._send({"type": "note", "text": text})

    def hold(self, tensors: Iterable[Any]) -> None:
        """These tensors are the session's: the child reports them for as long as they live."""
        self.runtime.live.add(self.data["session_id"], tensors)
        self.held_bytes = max(self.held_bytes, self.runtime.live.bytes_of(self.data["session_id"]))

    def settle(self) -> None:
        """Waits until the device has done what the request asked of it; meanwhile others have the turn."""
        self.runtime.turn.settle(self.runtime.device)

    def check_stop(self, can_pause: bool = False) -> None:
        """Between two pieces of work. Raises Cancelled, or Paused where the caller has nothing to lose."""
        if self.stop == "cancel":
            raise Cancelled
        if self.stop == "pause" and can_pause:
            raise Paused

    # --- files ---

    def read(self, name: str) -> tuple[bytes, None] | tuple[None, str]:
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

    def read_checkpoint(self) -> tuple[bytes, dict[str, Any]] | None:
        """(bytes, {sha256, call}) of the checkpoint to go on from; None without one.

        Raises OSError and `worker.path_refused`.
        """
        given = self.data["checkpoint"]
        if given is None:
            return None
        with open(self._inside_attempts(given["path"], "checkpoint.path"), "rb") as file:
            return file.read(), given

    def write(self, name: str, content: bytes | memoryview) -> dict[str, Any]:
        """Writes a file into the attempt's folder, visible only when it is whole; returns {path, sha256, bytes}.

        Raises OSError; then nothing of it is left.
        """
        path = os.path.join(self._folder, name)
        # Both let other threads run.
        hashing = HASHING.submit(hashlib.sha256, content)
        try:
            with open(path + ".part", "wb") as file:
                file.write(content)
            os.rename(path + ".part", path)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                os.remove(path + ".part")
            raise
        return {"path": path, "sha256": hashing.result().hexdigest(), "bytes": len(content)}

    def _inside_attempts(self, path: str, field: str) -> str:
        real = inside(path, [self.runtime.roots["attempts"]])
        if real is None:
            raise DarkroomError("worker.path_refused", f"{path} is not inside {self.runtime.roots['attempts']}", field=field)
        return real

    # --- previews ---

    def preview_due(self) -> bool:
        """When the interval has passed, and the last one is on disk. Work that is over before makes none."""
        every = self.runtime.preview_s
        if every == 0 or (self._previewing is not None and not self._previewing.done()):
            return False
        return time.monotonic() - self._previewed_at >= every

    def save_preview(self, call: int, width: int, height: int, content: Callable[[], bytes]) -> None:
        """Writes `content()`, RGB8 row by row, off the device thread, then tells the node."""
        self._previewed_at = time.monotonic()
        self._previewing = self._beside().submit(self._write_preview, call, width, height, content)

    def _write_preview(self, call: int, width: int, height: int, content: Callable[[], bytes]) -> None:
        try:
            made = self.write(f"preview-{call}.rgb", content())
        except Exception as error:
            # It is worth less than what it shows.
            self.log.warning("a preview could not be written: %s", error, extra={"request_id": self.request_id})
            return
        self._send({"type": "preview", **made, "call": call, "width": width, "height": height})

    # --- checkpoints ---

    def _beside(self) -> ThreadPoolExecutor:
        """Writes what the device thread does not wait for, one file at a time."""
        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, "writer")
        return self._writer

    def checkpoint_due(self, call: int) -> bool:
        """Every `calls` calls where that is set, else when the interval has passed and the last one is on disk."""
        policy = self.runtime.checkpoint
        if policy["calls"] is not None:
            return call % policy["calls"] == 0
        if self._writing is not None and not self._writing.done():
            return False
        return time.monotonic() - self._saved_at >= policy["interval_s"]

    def save_checkpoint(self, call: int, serialize: Callable[[], bytes]) -> None:
        """Writes `serialize()` off the device thread, then tells the node; a call that has its checkpoint keeps that.

        One at a time: a slow disk holds the loop, not the memory.
        """
        last = self.finish_checkpoints()
        # The node may be reading it: a name is written once.
        if last is not None and last["call"] == call:
            return
        self._saved_at = time.monotonic()
        self._writing = self._beside().submit(self._write_checkpoint, call, serialize)

    def finish_checkpoints(self) -> dict[str, Any] | None:
        """Waits for the one that is being written; returns the last good one, or None.

        One that fails costs the run nothing but itself. Raises `inference.diverged` when what it was to hold is past
        mending.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            try:
                self._last_checkpoint = writing.result()
            except DarkroomError:
                raise
            except Exception as error:
                self.log.warning("a checkpoint could not be written: %s", error, extra={"request_id": self.request_id})
        return self._last_checkpoint

    def close(self) -> None:
        """After this no further frame of the request comes from here."""
        if self._writer is not None:
            with contextlib.suppress(DarkroomError):
                self.finish_checkpoints()
            self._writer.shutdown()

    def _write_checkpoint(self, call: int, serialize: Callable[[], bytes]) -> dict[str, Any]:
        made = {**self.write(f"checkpoint-{call}.safetensors", serialize()), "call": call}
        self._send({"type": "checkpoint", **made})
        return made
