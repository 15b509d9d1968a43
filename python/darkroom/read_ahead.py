"""Reads files before anybody needs their bytes, so that the disk works while a network is made.

What is read goes nowhere but into the system's own cache of files, from which it is copied when it is needed. Several
threads that read pieces are as fast as most disks are; `posix_fadvise` would ask for some hundred KiB a call.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass

READERS = 8
PIECE_BYTES = 8 << 20


@dataclass(frozen=True)
class Span:
    """Bytes `begin` to `end` of a file."""

    path: str
    begin: int
    end: int


class ReadAhead:
    """Threads that read ahead."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(READERS, "ahead")

    @contextmanager
    def reading(self, spans: Iterable[Span]) -> Generator[list[int]]:
        """These are read, the first one first, until all is read or the work within is done. Yields the bytes of each
        piece that was read so far. What cannot be read is left to whoever needs it."""
        cut = ((span.path, at, min(at + PIECE_BYTES, span.end)) for span in spans for at in range(span.begin, span.end, PIECE_BYTES))
        pieces, stop = iter([Span(*each) for each in cut]), threading.Event()
        done: list[int] = []
        readers = [self._threads.submit(_read, pieces, done, stop) for _ in range(READERS)]
        try:
            yield done
        finally:
            # Each ends with its piece, beside whoever reads the file by then.
            stop.set()
            for reader in readers:
                reader.cancel()


def _read(pieces: Iterator[Span], done: list[int], stop: threading.Event) -> None:
    buffer = memoryview(bytearray(PIECE_BYTES))
    for piece in pieces:
        if stop.is_set():
            return
        with suppress(OSError):
            done.append(_read_piece(piece, buffer))


def _read_piece(piece: Span, buffer: memoryview) -> int:
    descriptor = os.open(piece.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.preadv(descriptor, [buffer[: piece.end - piece.begin]], piece.begin)
    finally:
        os.close(descriptor)
