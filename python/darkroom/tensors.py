"""Tensor files: safetensors as bytes, with the metadata that says what they belong to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache

import safetensors
import safetensors.torch
import torch

# Of more than this, bytes, the copy to the host is not pinned: torch keeps pinned memory for the next copy.
MOST_PINNED = 32 << 20


class Unreadable(Exception):
    """The bytes are no tensor file; the text says why."""


def save(tensors: Mapping[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    """Bytes of a file, the same for the same tensors and metadata. `tensors` may lie on any device."""
    content = safetensors.torch.save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, metadata)
    # The library writes the metadata in an order of its own, another one each time.
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    # The tensors begin at a multiple of 8 bytes, as they do in its own files.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


def leaving(tensors: Mapping[str, torch.Tensor], device: torch.device) -> Callable[[], dict[str, torch.Tensor]]:
    """Copies them to the CPU as they are now; what is returned waits for that, on any thread and at any time later.
    Nobody may write to them meanwhile. Of a GPU by a stream of its own, so that whatever goes on there goes on beside
    it."""
    if device.type != "cuda":
        return lambda: {name: tensor.to("cpu") for name, tensor in tensors.items()}
    if sum(tensor.nbytes for tensor in tensors.values()) > MOST_PINNED:
        return _leaving_later(tensors, device)
    side = _side(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        # Into memory that the driver knows. A copy to other memory holds the driver until the device has come so far,
        # and with it the thread that would launch the next call meanwhile.
        on_host = {
            name: torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
            for name, tensor in tensors.items()
        }
        arrived = torch.cuda.Event(blocking=True)
        arrived.record()
    sources = list(tensors.values())

    def copied() -> dict[str, torch.Tensor]:
        arrived.synchronize()
        # Until now their memory was not to be given to others.
        sources.clear()
        return on_host

    return copied


@cache
def _side(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _leaving_later(tensors: Mapping[str, torch.Tensor], device: torch.device) -> Callable[[], dict[str, torch.Tensor]]:
    """As `leaving`, of more than shall be pinned: copied by whoever wants it."""
    made = torch.cuda.Event()
    made.record()

    def copied() -> dict[str, torch.Tensor]:
        side = _side(device)
        with torch.cuda.stream(side):
            side.wait_event(made)
            on_host = {name: tensor.to("cpu") for name, tensor in tensors.items()}
        side.synchronize()
        return on_host

    return copied


def load(content: bytes) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """(name → tensor on the CPU, metadata). Raises Unreadable."""
    try:
        # Memory of their own: inside a file's bytes a tensor may start anywhere, and kernels may differ by that.
        tensors = {name: tensor.clone() for name, tensor in safetensors.torch.load(content).items()}
        length = int.from_bytes(content[:8], "little")
        return tensors, json.loads(content[8 : 8 + length]).get("__metadata__", {})
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise Unreadable(str(error)) from error
