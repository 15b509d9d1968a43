"""Files of weights: where their bytes are, and how they come onto the device.

The bytes are on disk, or in the worker's cache in RAM, which the node offers with each model. They come onto a GPU in
chunks on a stream of their own: straight from the cache, whose mapping is registered with the driver, else through a
ring of pinned slabs that threads fill. On a CPU they are read into memory of their own. From a disk they are read ahead
while the network is made that they are for.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import safetensors
import torch

from darkroom import ggml_blocks, gguf
from darkroom.errors import DarkroomError
from darkroom.read_ahead import ReadAhead, Span
from darkroom.upload import Mapped, Uploader

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Stored:
    """A tensor as a file holds it: bytes `begin` to `end` of its body."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int
    # By ggml's name how its bytes are packed, and the shape of what they stand for; None for what is none of these.
    packing: tuple[str, tuple[int, ...]] | None = None

    def dtype_in(self, wanted: torch.dtype | None) -> torch.dtype:
        """The type to bring it in: numbers that are not whole in the `wanted` one, if any."""
        return wanted if wanted is not None and self.dtype.is_floating_point else self.dtype


@dataclass
class Figures:
    """What was read since the last `WeightFiles.measure`, bytes."""

    ram: int = 0
    disk: int = 0
    # Of the former, straight from memory that is registered with the driver.
    registered: int = 0
    # Before they were needed.
    ahead: int = 0


@dataclass(frozen=True)
class Offer:
    """A file in the worker's cache. `place`: a path that opens it; `inode`: what is to be found there."""

    place: str
    bytes: int
    inode: int


class WeightFiles:
    """The weight files of one child's models."""

    def __init__(self, device: torch.device):
        self._device = device
        self._offers: dict[str, Offer] = {}
        self._mappings: dict[int, Mapped] = {}
        self._cuda: Uploader | None = None
        self._ahead = ReadAhead()
        self.figures = Figures()
        # Called as the reading gets on, with how many bytes were read.
        self.advance: Callable[[int], None] = lambda _: None

    def offer(self, files: Iterable[Mapping[str, Any]]) -> None:
        """What the cache holds of a model now: `path` without links, `mapping`, `bytes`, `inode`. Stands until the next
        offer or `withdraw`."""
        self._offers = {file["path"]: Offer(file["mapping"], file["bytes"], file["inode"]) for file in files}

    def withdraw(self, inodes: Iterable[int]) -> None:
        """The cache lets go of these: no mapping of this process may hold them in RAM any longer."""
        self.wait()
        gone = set(inodes)
        self._offers = {path: offer for path, offer in self._offers.items() if offer.inode not in gone}
        for inode in gone & self._mappings.keys():
            self._mappings.pop(inode).close()

    def names(self, path: str) -> list[str]:
        """Names of the tensors of a file. Raises `model.corrupt` for one that is no whole file of weights."""
        with self._open(path) as file:
            return [stored.name for stored in file.tensors]

    @contextmanager
    def reading_ahead(self, paths: Iterable[str], wants: Callable[[str], bool] = lambda _: True) -> Generator[None]:
        """Meanwhile the disk reads the tensors of these files that it `wants`; what the worker's cache has is there
        already. Raises as `read`, of headers."""
        spans = []
        for path in paths:
            with self._open(path) as file:
                wanted = [each for each in file.tensors if wants(each.name)]
                if wanted and not file.is_cached:
                    begin, end = min(each.begin for each in wanted), max(each.end for each in wanted)
                    spans.append(Span(os.path.realpath(path), file.body + begin, file.body + end))
        with self._ahead.reading(spans) as done:
            yield
        self.figures.ahead += sum(done)

    def read(
        self,
        path: str,
        dtype: torch.dtype | None = None,
        wants: Callable[[str], bool] = lambda _: True,
        device: torch.device | None = None,
        unpacked: torch.dtype | None = None,
    ) -> dict[str, torch.Tensor]:
        """The tensors of a file that it `wants` by name, in memory of their own on the device, or on `device`, this one
        or the CPU; floating ones in `dtype`, or as they are stored; what GGUF has packed as `unpacked`, or as fp32.

        Raises `model.corrupt` for a file that is no whole safetensors or GGUF file, holds tensors of a type that is not
        computed with, or ends while it is read.
        """
        with self._open(path) as file:
            wanted = sorted((each for each in file.tensors if wants(each.name)), key=lambda each: each.begin)
            if (device or self._device).type == "cuda":
                self._cuda = self._cuda or Uploader(self._device)
                made = self._cuda.upload(file, wanted, dtype, self.advance)
            else:
                made = _read_all(file, wanted, dtype, self.advance)
            for stored in wanted:
                if stored.packing is not None:
                    name, shape = stored.packing
                    made[stored.name] = ggml_blocks.unpacked(made[stored.name], name, shape, unpacked or dtype or torch.float32)
                    self.advance(0)
            size = sum(each.end - each.begin for each in wanted)
            self.figures.ram += size if file.is_cached else 0
            self.figures.disk += 0 if file.is_cached else size
            self.figures.registered += size if file.registered is not None else 0
        return made

    def wait(self) -> None:
        """Until all that was read is on the device."""
        if self._cuda is not None:
            torch.cuda.synchronize(self._device)

    def measure(self) -> Figures:
        """What was read since the last call."""
        figures, self.figures = self.figures, Figures()
        return figures

    @contextmanager
    def _open(self, path: str) -> Generator[File]:
        real = os.path.realpath(path)
        offer = self._offers.get(real)
        descriptor, is_cached = (_open_offer(offer), True) if offer else (None, False)
        if descriptor is None:
            if not os.path.isfile(real):
                raise _corrupt(f"{path} is no regular file")
            # A cache that has let go of it meanwhile: the bytes are the same on disk.
            descriptor, is_cached = os.open(real, os.O_RDONLY), False
        try:
            tensors, body = self._header(path, offer if is_cached else None, real, descriptor)
            registered = self._registered(offer, descriptor) if offer and is_cached else None
            yield File(path, descriptor, body, tensors, is_cached, registered)
        finally:
            os.close(descriptor)

    def _header(self, path: str, offer: Offer | None, real: str, descriptor: int) -> tuple[list[Stored], int]:
        """As `_parse`; of what is mapped it is known."""
        if offer is None:
            return _parse(path, real, descriptor)
        mapping = self._mappings.get(offer.inode)
        if mapping is None:
            return _parse(path, offer.place, descriptor)
        if mapping.header is None:
            mapping.header = _parse(path, offer.place, descriptor)
        return mapping.header

    def _registered(self, offer: Offer, descriptor: int) -> torch.Tensor | None:
        if self._device.type != "cuda":
            return None
        if offer.inode not in self._mappings:
            self._mappings[offer.inode] = Mapped(descriptor, offer.bytes, self._device)
        return self._mappings[offer.inode].tensor


@dataclass(frozen=True)
class File:
    path: str
    descriptor: int
    # Where the tensors begin, bytes.
    body: int
    tensors: list[Stored]
    is_cached: bool
    # All of the file, when the device can copy from it by itself.
    registered: torch.Tensor | None

    def read_into(self, target: torch.Tensor, begin: int) -> None:
        """Fills `target`, bytes in RAM, from this place of the body on."""
        array: Any = target.numpy()
        view, done = memoryview(array), 0
        while done < len(view):
            got = os.preadv(self.descriptor, [view[done:]], self.body + begin + done)
            if got == 0:
                raise _corrupt(f"{self.path} ended while it was read")
            done += got


def _open_offer(offer: Offer) -> int | None:
    """A descriptor of what was offered; None when something else is there, or nothing."""
    try:
        descriptor = os.open(offer.place, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    found = os.fstat(descriptor)
    if (found.st_ino, found.st_size) == (offer.inode, offer.bytes):
        return descriptor
    os.close(descriptor)
    return None


def _parse(path: str, place: str, descriptor: int) -> tuple[list[Stored], int]:
    """The tensors of a file, and where its body begins. The library checks the header; it does not tell the offsets.

    `place`: what is open as `descriptor`.
    """
    if os.pread(descriptor, 4, 0) == gguf.MAGIC:
        return _parse_gguf(path, descriptor)
    try:
        with safetensors.safe_open(place, framework="pt"):
            pass
        length = int.from_bytes(os.pread(descriptor, 8, 0), "little")
        header = json.loads(os.pread(descriptor, length, 8))
        stored = [
            Stored(name, DTYPES[one["dtype"]], tuple(one["shape"]), *one["data_offsets"])
            for name, one in header.items()
            if name != "__metadata__"
        ]
    except KeyError as error:
        raise _corrupt(f"{path} holds tensors of type {error}, which are not computed with") from error
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        is_pointer = os.pread(descriptor, 23, 0) == b"version https://git-lfs"
        why = "it is a git-lfs pointer: run `git lfs pull`" if is_pointer else f"{error}"
        raise _corrupt(f"{path} ({os.fstat(descriptor).st_size} bytes) is no whole safetensors file: {why}") from error
    return stored, 8 + length


def _parse_gguf(path: str, descriptor: int) -> tuple[list[Stored], int]:
    """As `_parse`."""
    size = os.fstat(descriptor).st_size
    try:
        rows, body = gguf.read(descriptor)
        stored = [_stored(row) for row in rows]
        for each in stored:
            if body + each.end > size:
                raise ValueError(f"tensor {each.name!r} ends at {body + each.end}, and the file at {size}")
    except KeyError as error:
        raise _corrupt(f"{path} holds tensors packed as {error}, which are not unpacked") from error
    except ValueError as error:
        raise _corrupt(f"{path} is no whole GGUF file: {error}") from error
    return stored, body


def _stored(row: gguf.Row) -> Stored:
    """Raises KeyError for a type that is not known here, ValueError for a shape that its blocks do not fill."""
    if row.type in DTYPES:
        dtype = DTYPES[row.type]
        return Stored(row.name, dtype, row.shape, row.begin, row.begin + math.prod(row.shape) * dtype.itemsize)
    size = ggml_blocks.packed_bytes(row.type, row.shape)
    return Stored(row.name, torch.uint8, (size,), row.begin, row.begin + size, (row.type, row.shape))


def _read_all(file: File, wanted: list[Stored], dtype: torch.dtype | None, advance: Callable[[int], None]) -> dict[str, torch.Tensor]:
    made = {}
    for stored in wanted:
        tensor = torch.empty(stored.shape, dtype=stored.dtype)
        if tensor.numel() > 0:
            file.read_into(tensor.view(-1).view(torch.uint8), stored.begin)
        made[stored.name] = tensor.to(stored.dtype_in(dtype))
        advance(stored.end - stored.begin)
    return made


def _corrupt(message: str) -> DarkroomError:
    return DarkroomError("model.corrupt", message, field="model.path")
