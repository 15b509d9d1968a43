"""What the child holds of its device, and how it lets go of what can be had again."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from darkroom import frames
from darkroom.tools import Tools

if TYPE_CHECKING:
    import torch


def trim(tools: Tools) -> dict[str, Any]:
    """memory.trim: empties the caches of torch's allocator, and lets go of up to `idle_models` models, the one used
    longest ago first.

    Models that a request in the child uses or waits for stay. `freed_bytes` is what went back to the device; None where
    there is no device but the CPU, whose memory torch does not pool.
    """
    runtime = tools.runtime
    before = reserved_bytes(runtime.device)
    gone = runtime.models.drop(tools.data["idle_models"], keep=runtime.wanted())
    empty_caches(runtime.device)
    after = reserved_bytes(runtime.device)
    freed = None if before is None or after is None else max(0, before - after)
    return frames.result({"freed_bytes": freed, "models": gone})


def empty_caches(device: torch.device) -> None:
    """Gives back what no tensor needs."""
    gc.collect()
    if device.type == "cuda":
        import torch

        torch.cuda.empty_cache()


def allocated_bytes(device: torch.device) -> int | None:
    """In tensors. None where there is no device but the CPU."""
    if device.type != "cuda":
        return None
    import torch

    return torch.cuda.memory_allocated(device)


def reserved_bytes(device: torch.device) -> int | None:
    """Taken from the device: tensors, and what the allocator keeps. None where there is no device but the CPU."""
    if device.type != "cuda":
        return None
    import torch

    return torch.cuda.memory_reserved(device)
