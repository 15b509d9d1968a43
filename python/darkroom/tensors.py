"""Tensor files: safetensors as bytes, with the metadata that says what they belong to."""

from __future__ import annotations

import json
from collections.abc import Mapping

import safetensors
import safetensors.torch
import torch


class Unreadable(Exception):
    """The bytes are no tensor file; the text says why."""


def save(tensors: Mapping[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    """Bytes of a file. `tensors` may lie on any device."""
    return safetensors.torch.save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, metadata)


def load(content: bytes) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """(name → tensor on the CPU, metadata). Raises Unreadable."""
    try:
        # Memory of their own: inside a file's bytes a tensor may start anywhere, and kernels may differ by that.
        tensors = {name: tensor.clone() for name, tensor in safetensors.torch.load(content).items()}
        length = int.from_bytes(content[:8], "little")
        return tensors, json.loads(content[8 : 8 + length]).get("__metadata__", {})
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise Unreadable(str(error)) from error
