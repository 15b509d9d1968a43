"""Tensor files: safetensors as bytes, with the metadata that says what they belong to."""

import json


class Unreadable(Exception):
    """The bytes are no tensor file; the text says why."""


def save(tensors, metadata):
    """Bytes of a file. `tensors`: name → tensor on any device; `metadata`: text → text."""
    import safetensors.torch

    return safetensors.torch.save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, metadata)


def load(content):
    """(name → tensor on the CPU, metadata). Raises Unreadable."""
    import safetensors.torch

    try:
        # Memory of their own: inside a file's bytes a tensor may start anywhere, and kernels may differ by that.
        tensors = {name: tensor.clone() for name, tensor in safetensors.torch.load(content).items()}
        length = int.from_bytes(content[:8], "little")
        return tensors, json.loads(content[8 : 8 + length]).get("__metadata__", {})
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise Unreadable(str(error)) from error
