"""Weights of safetensors files that are no numbers by themselves: what they are multiplied with lies beside them.

| packing | beside `x.weight` | saved by |
| --- | --- | --- |
| eight bits, scaled | `x.scale_weight` or `x.weight_scale`, one number or one a row | ComfyUI |
| four bits | `x.weight.absmax`, `x.weight.quant_map`, `x.weight.quant_state.bitsandbytes__nf4` … | bitsandbytes |

Four bits are places in a table of 16 levels, which lies in the file, two to a byte with the first in the upper half;
each block of them has its own largest value (Dettmers and others 2023, "QLoRA", arXiv 2305.14314, section 3). These may
be packed too, in eight bits of a table of 256. The layout is that of `QuantState.as_dict` in bitsandbytes.
"""

from __future__ import annotations

import json
import math
from typing import Any

import torch

from darkroom.errors import DarkroomError

Tensors = dict[str, torch.Tensor]

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
SCALES = (".scale_weight", ".weight_scale")
FOUR_BITS = (".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4")
BESIDE = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", *FOUR_BITS)
# Weights that are unpacked at a time.
AT_ONCE = 1 << 24


def unpacked(tensors: Tensors, where: str, dtype: torch.dtype | None = None) -> Tensors:
    """The weights as numbers, reckoned in fp32; those that were packed in `dtype`, or in fp32. `tensors` are let go of
    on the way. Raises `model.corrupt`, which names the tensor; `where`: the file."""
    return _four_bits(_eight_bits(tensors, dtype), where, dtype)


def _eight_bits(tensors: Tensors, dtype: torch.dtype | None) -> Tensors:
    scales = {name.removesuffix(end) + ".weight": name for end in SCALES for name in tensors if name.endswith(end)}
    made: Tensors = {}
    for name in list(tensors):
        if name in scales.values():
            continue
        tensor = tensors[name]
        if tensor.dtype in FLOAT8:
            tensor = tensor.float()
            if name in scales:
                scale = tensors[scales[name]].float()
                tensor *= scale.reshape(-1, 1) if scale.numel() > 1 else scale
            tensor = tensor.to(dtype or torch.float32)
        made[name] = tensor
    return made


def _four_bits(tensors: Tensors, where: str, dtype: torch.dtype | None) -> Tensors:
    for mark in [name for name in tensors if name.endswith(FOUR_BITS)]:
        name = mark[: mark.rindex(".quant_state.")]
        try:
            made = _levels(tensors, name, json.loads(bytes(tensors[mark].cpu().tolist())), dtype or torch.float32)
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            problem = f"{where}: the packing of {name} cannot be read: {type(error).__name__}: {error}"
            raise DarkroomError("model.corrupt", problem, field="model.path") from error
        for end in BESIDE:
            tensors.pop(name + end, None)
        tensors[name] = made
    return tensors


def _levels(tensors: Tensors, name: str, state: dict[str, Any], dtype: torch.dtype) -> torch.Tensor:
    """Raises ValueError, KeyError, TypeError and RuntimeError."""
    packed, largest, table = tensors[name].view(-1), tensors[name + ".absmax"], tensors[name + ".quant_map"].float()
    size, shape = int(state["blocksize"]), [int(side) for side in state["shape"]]
    count = math.prod(shape)
    if packed.dtype != torch.uint8 or table.numel() != 16 or size < 1 or size % 2 != 0 or min(shape, default=0) < 1:
        raise ValueError(f"{packed.dtype} of {table.numel()} levels in blocks of {size}, as {shape}")
    blocks = -(-count // size)
    if largest.dtype == torch.uint8:
        largest = _nested(tensors, name, state, largest)
    if packed.numel() != -(-count // 2) or largest.numel() != blocks:
        raise ValueError(f"{shape} in blocks of {size} is not {packed.numel()} bytes and {largest.numel()} largest values")
    made = torch.empty(count, dtype=dtype, device=packed.device)
    step = AT_ONCE // size * size
    for at in range(0, count, max(step, size)):
        end = min(at + max(step, size), count)
        pairs = packed[at // 2 : -(-end // 2)]
        levels = table[torch.stack([pairs >> 4, pairs & 15], dim=-1).view(-1).long()[: end - at]]
        scales = largest[at // size : -(-end // size)].float()
        made[at:end] = levels * scales.repeat_interleave(size)[: end - at]
    return made.view(shape)


def _nested(tensors: Tensors, name: str, state: dict[str, Any], packed: torch.Tensor) -> torch.Tensor:
    """The largest values of blocks, which are packed themselves."""
    size, offset = int(state["nested_blocksize"]), float(state["nested_offset"])
    table, largest = tensors[name + ".nested_quant_map"].float(), tensors[name + ".nested_absmax"].float()
    if size < 1 or table.numel() != 256 or largest.numel() != -(-packed.numel() // size):
        raise ValueError(f"{table.numel()} levels, {largest.numel()} largest values for {packed.numel()} in blocks of {size}")
    return table[packed.view(-1).long()] * largest.repeat_interleave(size)[: packed.numel()] + offset
