"""Weights that are packed in blocks, as ggml has them, as numbers.

The layouts of blocks are those of `ggml-common.h`, the formulas those of `dequantize_row_*` in `ggml-quants.c` of the
ggml project (MIT, github.com/ggml-org/ggml), in the order of operations of their restatement in numpy
(`gguf-py/gguf/quants.py` of llama.cpp): so the numbers are equal to the last bit, on a CPU and on a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

Unpack = Callable[[torch.Tensor], torch.Tensor]
"""[blocks, bytes of one] uint8 → [blocks, weights of one] fp32."""

# Blocks that are unpacked at a time: what they take beside the result stays small.
AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Packing:
    """One type of block: how many weights it has, in how many bytes."""

    weights: int
    bytes: int
    unpack: Unpack


def unpacked(raw: torch.Tensor, name: str, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """`raw`, uint8, as the weights that it stands for, reckoned in fp32 and given in `dtype`. `name`: one of
    `PACKINGS`; `shape`: of the weights, as many as `raw` has."""
    packing = PACKINGS[name]
    blocks = raw.view(-1, packing.bytes)
    made = torch.empty(len(blocks), packing.weights, dtype=dtype, device=raw.device)
    for at in range(0, len(blocks), AT_ONCE):
        made[at : at + AT_ONCE] = packing.unpack(blocks[at : at + AT_ONCE])
    return made.view(*shape)


def packed_bytes(name: str, shape: Sequence[int]) -> int:
    """How many bytes so many weights take. Raises ValueError where a row does not divide into blocks."""
    packing = PACKINGS[name]
    if not shape or shape[-1] % packing.weights != 0:
        raise ValueError(f"{list(shape)} does not divide into blocks of {packing.weights}, as {name} has them")
    return math.prod(shape) // packing.weights * packing.bytes


def _half(blocks: torch.Tensor, at: int) -> torch.Tensor:
    """The fp16 number there, [blocks, 1]."""
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


def _signed(part: torch.Tensor) -> torch.Tensor:
    return part.contiguous().view(torch.int8).float()


def _split(part: torch.Tensor, width: int, bits: int) -> torch.Tensor:
    """Numbers of so many bits, `width` bytes after one another of which the lower bits come first: [blocks, groups,
    8 / bits, width]."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=part.device).view(1, 1, -1, 1)
    return (part.reshape(len(part), -1, 1, width) >> shifts) & ((1 << bits) - 1)


def _fifth(part: torch.Tensor) -> torch.Tensor:
    """32 bits, [blocks, 32], the lowest of the first byte first."""
    shifts = torch.arange(8, dtype=torch.uint8, device=part.device)
    return ((part[:, :, None] >> shifts) & 1).reshape(len(part), 32)


def _q4_0(blocks: torch.Tensor) -> torch.Tensor:
    return _half(blocks, 0) * (_split(blocks[:, 2:], 16, 4).reshape(len(blocks), 32).float() - 8)


def _q4_1(blocks: torch.Tensor) -> torch.Tensor:
    return _half(blocks, 0) * _split(blocks[:, 4:], 16, 4).reshape(len(blocks), 32).float() + _half(blocks, 2)


def _q5(blocks: torch.Tensor, at: int) -> torch.Tensor:
    low = _split(blocks[:, at + 4 :], 16, 4).reshape(len(blocks), 32)
    return (low | (_fifth(blocks[:, at : at + 4]) << 4)).float()


def _q5_0(blocks: torch.Tensor) -> torch.Tensor:
    return _half(blocks, 0) * (_q5(blocks, 2) - 16)


def _q5_1(blocks: torch.Tensor) -> torch.Tensor:
    return _half(blocks, 0) * _q5(blocks, 4) + _half(blocks, 2)


def _q8_0(blocks: torch.Tensor) -> torch.Tensor:
    return _signed(blocks[:, 2:]) * _half(blocks, 0)


def _q2_k(blocks: torch.Tensor) -> torch.Tensor:
    count = len(blocks)
    scales = blocks[:, :16]
    step = (_half(blocks, 80) * (scales & 15).float()).view(count, 16, 1)
    least = (_half(blocks, 82) * (scales >> 4).float()).view(count, 16, 1)
    numbers = _split(blocks[:, 16:80], 32, 2).reshape(count, 16, 16).float()
    return (step * numbers - least).reshape(count, 256)


def _q3_k(blocks: torch.Tensor) -> torch.Tensor:
    count = len(blocks)
    low = _split(blocks[:, 96:104], 8, 4).reshape(count, 16)
    high = _split(blocks[:, 104:108], 4, 2).reshape(count, 16)
    scales = (low | (high << 4)).float() - 32
    step = (_half(blocks, 108) * scales).view(count, 16, 1)
    bits = _split(blocks[:, 32:96], 32, 2).reshape(count, 16, 16).float()
    # Four less where the bit of the mask is not set.
    mask = _split(blocks[:, :32], 32, 1).reshape(count, 16, 16).float()
    return (step * (bits - 4 * (1 - mask))).reshape(count, 256)


def _scales_k(part: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eight scales and eight least values of six bits each, out of 12 bytes."""
    scale, least, both = part.reshape(len(part), 3, 4).unbind(1)
    scales = torch.cat([scale & 63, (both & 15) | ((scale >> 2) & 48)], dim=-1)
    leasts = torch.cat([least & 63, (both >> 4) | ((least >> 2) & 48)], dim=-1)
    return scales.float(), leasts.float()


def _k(blocks: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    count = len(blocks)
    scales, leasts = _scales_k(blocks[:, 4:16])
    step = (_half(blocks, 0) * scales).view(count, 8, 1)
    least = (_half(blocks, 2) * leasts).view(count, 8, 1)
    return (step * numbers.float() - least).reshape(count, 256)


def _q4_k(blocks: torch.Tensor) -> torch.Tensor:
    return _k(blocks, _split(blocks[:, 16:], 32, 4).reshape(len(blocks), 8, 32))


def _q5_k(blocks: torch.Tensor) -> torch.Tensor:
    low = _split(blocks[:, 48:], 32, 4).reshape(len(blocks), 8, 32)
    high = _split(blocks[:, 16:48], 32, 1).reshape(len(blocks), 8, 32)
    return _k(blocks, low | (high << 4))


def _q6_k(blocks: torch.Tensor) -> torch.Tensor:
    count = len(blocks)
    low = _split(blocks[:, :128], 64, 4).reshape(count, 8, 32)
    high = _split(blocks[:, 128:192], 32, 2).reshape(count, 8, 32)
    step = (_half(blocks, 208) * _signed(blocks[:, 192:208])).view(count, 16, 1)
    numbers = (low | (high << 4)).float() - 32
    return (step * numbers.reshape(count, 16, 16)).reshape(count, 256)


# `kvalues_iq4nl` of ggml-common.h.
LEVELS = (-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0)


def _levels(numbers: torch.Tensor) -> torch.Tensor:
    return torch.tensor(LEVELS, device=numbers.device)[numbers.long()]


def _iq4_nl(blocks: torch.Tensor) -> torch.Tensor:
    return _half(blocks, 0) * _levels(_split(blocks[:, 2:], 16, 4).reshape(len(blocks), 32))


def _iq4_xs(blocks: torch.Tensor) -> torch.Tensor:
    count = len(blocks)
    low = _split(blocks[:, 4:8], 1, 4).reshape(count, 8)
    high = _split(blocks[:, 2:4], 1, 2).reshape(count, 8)
    step = (_half(blocks, 0) * ((low | (high << 4)).float() - 32)).view(count, 8, 1)
    return (step * _levels(_split(blocks[:, 8:], 16, 4).reshape(count, 8, 32))).reshape(count, 256)


PACKINGS: dict[str, Packing] = {
    "Q4_0": Packing(32, 18, _q4_0),
    "Q4_1": Packing(32, 20, _q4_1),
    "Q5_0": Packing(32, 22, _q5_0),
    "Q5_1": Packing(32, 24, _q5_1),
    "Q8_0": Packing(32, 34, _q8_0),
    "Q2_K": Packing(256, 84, _q2_k),
    "Q3_K": Packing(256, 110, _q3_k),
    "Q4_K": Packing(256, 144, _q4_k),
    "Q5_K": Packing(256, 176, _q5_k),
    "Q6_K": Packing(256, 210, _q6_k),
    "IQ4_NL": Packing(32, 18, _iq4_nl),
    "IQ4_XS": Packing(256, 136, _iq4_xs),
}
"""By ggml's names. Those whose weights are found in tables of hundreds of entries (IQ1 to IQ3) are not here."""
