"""Uploads of one GPU: from RAM that is registered with the driver, else through pinned slabs that threads fill."""

from __future__ import annotations

import ctypes
import math
import mmap
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy
import torch

if TYPE_CHECKING:
    from darkroom.weight_files import File, Stored

CHUNK_BYTES = 32 << 20
# Pinned, of a chunk each; as many threads fill them.
SLABS = 8
# Chunks start at a multiple of this of their file's body, so that what was aligned there is aligned here.
ALIGNMENT = 16
# CUDA driver API, cuMemHostRegister: for every context, and the device only reads.
REGISTER_PORTABLE, REGISTER_READ_ONLY = 0x01, 0x08


class Piece(NamedTuple):
    """Elements of a flat tensor, and where their bytes are in a chunk."""

    target: torch.Tensor
    dtype: torch.dtype
    at: int
    end: int


@dataclass
class Chunk:
    begin: int
    end: int
    pieces: list[Piece]


def chunks_of(wanted: Iterable[Stored], target: Callable[[Stored], torch.Tensor]) -> Iterator[Chunk]:
    """Neighbours together, up to `CHUNK_BYTES`; what is larger is cut between elements. `target`: makes the flat tensor
    that a stored one is brought into."""
    chunk: Chunk | None = None
    for stored in wanted:
        size, flat, begin, last = stored.dtype.itemsize, target(stored), stored.begin, stored.end
        while begin < last:
            if chunk is not None and (begin - chunk.begin + size > CHUNK_BYTES or begin - chunk.end > ALIGNMENT):
                yield chunk
                chunk = None
            if chunk is None:
                chunk = Chunk(begin - begin % ALIGNMENT, begin, [])
            end = begin + min(last - begin, (CHUNK_BYTES - (begin - chunk.begin)) // size * size)
            is_whole = end - begin == last - stored.begin
            part = flat if is_whole else flat[(begin - stored.begin) // size : (end - stored.begin) // size]
            chunk.pieces.append(Piece(part, stored.dtype, begin - chunk.begin, end - chunk.begin))
            chunk.end = begin = end
    if chunk is not None:
        yield chunk


def spread(landed: torch.Tensor, chunk: Chunk) -> None:
    """The bytes of a chunk to the tensors that they are of, in these tensors' types."""
    torch._foreach_copy_([piece.target for piece in chunk.pieces], _elements(landed, chunk.pieces))


def _elements(landed: torch.Tensor, pieces: list[Piece]) -> list[torch.Tensor]:
    """The pieces of a chunk on the device, each in the type it is stored in."""
    first, last = pieces[0], pieces[-1]
    size = first.dtype.itemsize
    lengths = [(piece.end - piece.at) // size for piece in pieces]
    # As nearly all files are written: of one type, aligned, one after the other. A model has a thousand tensors, and
    # the copies are no faster than whoever asks for them.
    is_even = first.at % size == 0 and first.at + sum(lengths) * size == last.end
    if is_even and all(piece.dtype == first.dtype for piece in pieces):
        return list(landed[first.at : last.end].view(first.dtype).split(lengths))
    return [_element(landed, piece) for piece in pieces]


def _element(landed: torch.Tensor, piece: Piece) -> torch.Tensor:
    raw = landed[piece.at : piece.end]
    # Few writers align nothing.
    return (raw if piece.at % piece.dtype.itemsize == 0 else raw.clone()).view(piece.dtype)


class Uploader:
    """Uploads of one GPU: a stream for the copies, two chunks on the device, pinned slabs where the source is none."""

    def __init__(self, device: torch.device):
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._threads = ThreadPoolExecutor(SLABS, "weights")
        self._slabs: list[torch.Tensor | None] = [None] * SLABS
        # Recorded when the main stream has read a chunk for the last time.
        self._emptied: list[torch.cuda.Event | None] = [None, None]

    def upload(
        self, file: File, wanted: list[Stored], dtype: torch.dtype | None, advance: Callable[[int], None]
    ) -> dict[str, torch.Tensor]:
        """As `WeightFiles.read`. Waits until all is there."""
        made: dict[str, torch.Tensor] = {}

        def target(stored: Stored) -> torch.Tensor:
            flat = torch.empty(math.prod(stored.shape), dtype=stored.dtype_in(dtype), device=self._device)
            made[stored.name] = flat.view(stored.shape)
            return flat

        main, emptied = torch.cuda.current_stream(self._device), self._emptied
        # Memory of this stream, which nothing but uploads has used. So a copy waits for the last upload, and not for
        # what the main stream does with what came by it.
        with torch.cuda.stream(self._stream):
            landing = [torch.empty(CHUNK_BYTES, dtype=torch.uint8, device=self._device) for _ in emptied]
            for event in emptied:
                if event is not None:
                    self._stream.wait_event(event)
        for number, (chunk, source, sent) in enumerate(self._sources(file, chunks_of(wanted, target))):
            landed = landing[number % 2]
            with torch.cuda.stream(self._stream):
                if (event := emptied[number % 2]) is not None:
                    self._stream.wait_event(event)
                landed[: chunk.end - chunk.begin].copy_(source, non_blocking=True)
                sent.record(self._stream)
            main.wait_event(sent)
            spread(landed, chunk)
            emptied[number % 2] = spread_out = torch.cuda.Event()
            spread_out.record(main)
            advance(chunk.end - chunk.begin)
        return made

    def _sources(self, file: File, made: Iterable[Chunk]) -> Iterator[tuple[Chunk, torch.Tensor, torch.cuda.Event]]:
        """Each chunk with its bytes in RAM, and the event to record once they are copied."""
        if file.registered is not None:
            for chunk in made:
                yield chunk, file.registered[file.body + chunk.begin : file.body + chunk.end], torch.cuda.Event()
            return
        chunks = list(made)
        events = [torch.cuda.Event() for _ in chunks]
        reads: dict[int, Future[torch.Tensor]] = {}
        try:
            for number, chunk in enumerate(chunks):
                for ahead in range(number, min(number + SLABS, len(chunks))):
                    if ahead not in reads:
                        # The slab is free once the chunk that it held before is copied.
                        before = events[ahead - SLABS] if ahead >= SLABS else None
                        reads[ahead] = self._threads.submit(self._read, file, chunks[ahead], ahead % SLABS, before)
                yield chunk, reads[number].result(), events[number]
        finally:
            # The file is closed when this ends, and the next one is read into the same slabs.
            for read in reads.values():
                if not read.cancel():
                    read.exception()
            self._stream.synchronize()

    def _read(self, file: File, chunk: Chunk, slab: int, before: torch.cuda.Event | None) -> torch.Tensor:
        if before is not None:
            before.synchronize()
        memory = self._slabs[slab]
        if memory is None:
            memory = self._slabs[slab] = torch.empty(CHUNK_BYTES, dtype=torch.uint8, pin_memory=True)
        filled = memory[: chunk.end - chunk.begin]
        file.read_into(filled, chunk.begin)
        return filled


class Mapped:
    """A file of the cache in this process's memory, never written; registered with the driver where that allows it."""

    def __init__(self, descriptor: int, size: int, device: torch.device):
        self.header: tuple[list[Stored], int] | None = None
        # Unmapped when the last array of it is gone.
        array = numpy.frombuffer(mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ), dtype=numpy.uint8)
        self._address = array.ctypes.data
        with _unwarned():
            whole = torch.from_numpy(array)
        self._driver = ctypes.CDLL("libcuda.so.1")
        with torch.cuda.device(device):
            # The driver needs a context, which the first work on a device makes.
            torch.cuda.synchronize()
            flags = REGISTER_PORTABLE | REGISTER_READ_ONLY
            refused = self._driver.cuMemHostRegister_v2(ctypes.c_void_p(self._address), ctypes.c_size_t(size), flags)
        self._is_registered = refused == 0
        # None: the driver refused, and the slabs do it.
        self.tensor = whole if self._is_registered else None

    def close(self) -> None:
        """Unmaps it; no copy may be under way."""
        if self._is_registered:
            self._driver.cuMemHostUnregister(ctypes.c_void_p(self._address))
        self.tensor = None


@contextmanager
def _unwarned() -> Generator[None]:
    """Torch warns of memory that must not be written; nothing writes to it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
