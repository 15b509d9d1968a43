"""The header of a GGUF file: which tensors it holds, of which types and shapes, and where their bytes are.

`docs/gguf.md` of the ggml project (MIT). Whoever offers a file has looked at its header before (`src/models/gguf.ts`);
here it is read again, since it decides what is read, and nothing in it is believed that the file does not bear out.
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass

MAGIC = b"GGUF"
TYPES = {
    **{0: "F32", 1: "F16", 30: "BF16", 28: "F64", 24: "I8", 25: "I16", 26: "I32", 27: "I64"},
    **{2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1"},
    **{10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K"},
    **{16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS"},
    **{29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4"},
}
# Bytes of a value of the metadata by the number of its type; texts and lists have lengths of their own.
WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
UINT32, INT32, TEXT, LIST, UINT64 = 4, 5, 8, 9, 10
ORIGINAL_SHAPE = "comfy.gguf.orig_shape."
FIRST_BYTES, MOST_BYTES = 1 << 20, 1 << 26
MOST_TENSORS, MOST_ENTRIES, MOST_LISTED, MOST_DIMENSIONS = 65_536, 65_536, 1_000_000, 8


@dataclass(frozen=True)
class Row:
    """A tensor: `type` by ggml's name, `shape` as torch has it, `begin` in bytes from where all tensors begin."""

    name: str
    type: str
    shape: tuple[int, ...]
    begin: int


class _Short(Exception):
    """The bytes at hand end before the header does."""


def read(descriptor: int) -> tuple[list[Row], int]:
    """(tensors, where their bytes begin). Raises ValueError at what is no such header."""
    size = os.fstat(descriptor).st_size
    length = FIRST_BYTES
    while True:
        try:
            return _parse(os.pread(descriptor, length, 0))
        except _Short:
            if length >= size:
                raise ValueError("it ends in its header") from None
            if length >= MOST_BYTES:
                raise ValueError(f"its header has more than {MOST_BYTES} bytes") from None
            length *= 4


def _parse(content: bytes) -> tuple[list[Row], int]:
    cursor = _Cursor(content)
    if cursor.take(4) != MAGIC:
        raise ValueError("it does not begin as one")
    version = cursor.number(4)
    if version not in (2, 3):
        raise ValueError(f"it is of version {version}; 2 and 3 are read")
    tensors, entries = cursor.count(MOST_TENSORS), cursor.count(MOST_ENTRIES)
    alignment = 32
    originals: dict[str, tuple[int, ...]] = {}
    for _ in range(entries):
        name, kind = cursor.text(), cursor.number(4)
        value = cursor.value(kind)
        if name == "general.alignment":
            alignment = value if kind in (UINT32, UINT64) and isinstance(value, int) else 0
        elif name.startswith(ORIGINAL_SHAPE) and isinstance(value, tuple):
            originals[name.removeprefix(ORIGINAL_SHAPE)] = value
    if alignment < 8 or alignment > 65_536 or alignment % 8 != 0:
        raise ValueError("its alignment is no multiple of 8 up to 65536")
    rows: dict[str, Row] = {}
    for _ in range(tensors):
        row = _row(cursor, originals)
        if row.name in rows:
            raise ValueError(f"two of its tensors are named {row.name!r}")
        rows[row.name] = row
    return list(rows.values()), -(-cursor.at // alignment) * alignment


def _row(cursor: _Cursor, originals: dict[str, tuple[int, ...]]) -> Row:
    name, rank = cursor.text(), cursor.number(4)
    if rank > MOST_DIMENSIONS:
        raise ValueError(f"tensor {name!r} claims {rank} dimensions")
    # The one that moves fastest comes first in this format.
    shape = tuple(reversed([cursor.number(8) for _ in range(rank)]))
    number, begin = cursor.number(4), cursor.number(8)
    if number not in TYPES:
        raise ValueError(f"tensor {name!r} has the unknown type {number}")
    if math.prod(shape) >= 1 << 53 or begin >= 1 << 53:
        raise ValueError(f"tensor {name!r} claims more than there can be")
    original = originals.get(name, shape)
    # Tensors of more dimensions than the format has are kept flat, with their shape in the metadata.
    return Row(name, TYPES[number], original if math.prod(original) == math.prod(shape) and min(original, default=1) > 0 else shape, begin)


class _Cursor:
    """Values one behind the other, the lowest byte first."""

    def __init__(self, content: bytes):
        self._content = content
        self.at = 0

    def take(self, length: int) -> bytes:
        if length > len(self._content) - self.at:
            raise _Short
        self.at += length
        return self._content[self.at - length : self.at]

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def count(self, most: int) -> int:
        count = self.number(8)
        if count > most:
            raise ValueError(f"it claims {count} entries; at most {most} are read")
        return count

    def text(self) -> str:
        length = self.number(8)
        if length > MOST_BYTES:
            raise ValueError(f"it claims a text of {length} bytes")
        return self.take(length).decode("utf-8", "replace")

    def value(self, kind: int) -> int | tuple[int, ...] | None:
        """A whole number, or a short list of such; None for anything else, which is passed over."""
        if kind == TEXT:
            self.text()
            return None
        if kind == LIST:
            return self._list(self.number(4), self.number(8))
        if kind not in WIDTHS:
            raise ValueError(f"an entry of its metadata has the unknown type {kind}")
        number = self.number(WIDTHS[kind])
        return number if kind in (UINT32, UINT64) else None

    def _list(self, kind: int, count: int) -> tuple[int, ...] | None:
        if kind == TEXT:
            if count > MOST_LISTED:
                raise ValueError(f"a list of its metadata claims {count} texts")
            for _ in range(count):
                self.text()
            return None
        if kind not in WIDTHS or count > MOST_BYTES:
            raise ValueError(f"a list of its metadata has the unknown type {kind} or {count} entries")
        content = self.take(count * WIDTHS[kind])
        return struct.unpack(f"<{count}i", content) if kind == INT32 and count <= MOST_DIMENSIONS else None
