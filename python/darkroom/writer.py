"""The pipe to the node: frames in the order they were sent, written by a thread of its own where the pipe is full."""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from typing import Any

from darkroom import frames

# So many bytes a pipe takes whole that takes any (POSIX, `PIPE_BUF`), and so does a socket.
AT_ONCE_BYTES = 4096


class Writer:
    """Sends frames in order. None is dropped but a progress frame that a newer one of the same request and stage has
    overtaken in the queue.

    The process ends with exit code 0 when the node has closed the pipe.
    """

    def __init__(self, descriptor: int):
        self._descriptor = descriptor
        # (Request and stage of a progress frame, else None; the line.)
        self._queued: deque[tuple[str | None, bytes]] = deque()
        self._changed = threading.Condition()
        self._is_writing = False
        self._room = select.poll() if hasattr(select, "poll") else None
        if self._room is not None:
            self._room.register(descriptor, select.POLLOUT)
        threading.Thread(target=self._run, name="writer", daemon=True).start()

    def send(self, request_id: str, action: str, data: dict[str, Any]) -> None:
        """Raises ProtocolError when it is no frame of the protocol, ValueError when it holds NaN."""
        frames.check_reply(request_id, action, data)
        progress = f"{request_id} {data.get('stage')}" if data.get("type") == "progress" else None
        self.put(frames.encode(request_id, action, data), progress)

    def put(self, line: bytes, progress: str | None = None) -> None:
        """Sends a line as it is; never waits for the node.

        `progress`: which progress it tells; it replaces queued lines of the same.
        """
        with self._changed:
            if not self._queued and not self._is_writing and self._takes(line):
                self._write(line)
                return
            if progress is not None:
                self._queued = deque(queued for queued in self._queued if queued[0] != progress)
            self._queued.append((progress, line))
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> None:
        """Returns when all is written, or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: not self._queued and not self._is_writing, timeout_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._queued)
                _, line = self._queued.popleft()
                self._is_writing = True
            self._write(line)

    def _takes(self, line: bytes) -> bool:
        """Whether the pipe would take it now."""
        return self._room is not None and len(line) <= AT_ONCE_BYTES and bool(self._room.poll(0))

    def _write(self, line: bytes) -> None:
        view = memoryview(line)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError:
            os._exit(0)
