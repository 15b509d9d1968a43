"""What a denoise loop needs to go on where it was, as one safetensors file.

| entry | holds |
| --- | --- |
| `latents` | at their raw dtype |
| `rng` | state of the request's generator |
| `state.<n>` | tensors and arrays of the scheduler |
| metadata `state` | every plain-data attribute of the scheduler, as JSON that names those tensors |
| metadata `call` | how many calls are done |
| metadata `request`, `model`, `scheduler`, `fingerprint` | what it belongs to |

A scheduler's attributes are taken as they are, whatever its class: multistep solvers keep their history in them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy
import torch

from darkroom import tensors as files

FORMAT = "darkroom checkpoint 1"


class CheckpointRefused(Exception):
    """The file is not what this request can go on from; the text says why."""


def canonical(value: Any) -> str:
    """The same text for the same data."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def digest(value: Any) -> str:
    """SHA-256 of plain data, 64 hex digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def describe_scheduler(scheduler: Any) -> str:
    """Class and digest of the configuration: equal for schedulers that take the same steps."""
    config = {key: value for key, value in scheduler.config.items() if not key.startswith("_")}
    return f"{type(scheduler).__name__} {digest(json.loads(json.dumps(config, default=str)))}"


def snapshot(
    latents: torch.Tensor, generator: torch.Generator, scheduler: Any, call: int, identity: Mapping[str, Any]
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """(tensors on the CPU, metadata), independent of everything that goes on changing; the same for the same state.

    `identity`: {model, request, fingerprint}, plain data.
    """
    tensors = {"latents": _copy(latents), "rng": generator.get_state().clone()}
    state = {}
    # Attributes come to be in one order in a run, and in another in one that went on from a checkpoint.
    for name, value in sorted(vars(scheduler).items()):
        packed = None if name == "_internal_dict" else _pack(value, tensors)
        if packed is not None:
            state[name] = packed
    metadata = {
        "format": FORMAT,
        "call": str(call),
        "scheduler": describe_scheduler(scheduler),
        "state": canonical(state),
        **{key: canonical(value) for key, value in identity.items()},
    }
    return tensors, metadata


def restore(
    content: bytes,
    given: Mapping[str, Any],
    scheduler: Any,
    generator: torch.Generator,
    identity: Mapping[str, Any],
    device: torch.device,
) -> torch.Tensor:
    """Puts scheduler and generator back where they were and returns the latents, on `device`.

    `given`: {sha256, call} as the node recorded them. Raises CheckpointRefused; scheduler and generator are then as
    before.
    """
    if hashlib.sha256(content).hexdigest() != given["sha256"]:
        raise CheckpointRefused("the file does not match its SHA-256")
    try:
        tensors, metadata = files.load(content)
    except files.Unreadable as error:
        raise CheckpointRefused(f"the file is broken: {error}") from error
    expected = {
        "format": FORMAT,
        **{key: canonical(value) for key, value in identity.items()},
        "scheduler": describe_scheduler(scheduler),
        "call": str(given["call"]),
    }
    for key, value in expected.items():
        if metadata.get(key) != value:
            raise CheckpointRefused(_difference(key, metadata.get(key), value))
    try:
        state = {name: _unpack(value, tensors, device) for name, value in json.loads(metadata["state"]).items()}
        latents = tensors["latents"].to(device)
        generator.set_state(tensors["rng"])
    except (KeyError, IndexError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointRefused(f"the file is incomplete: {error}") from error
    vars(scheduler).update(state)
    return latents


def tensors_of(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor in plain data, such as the attributes of a scheduler."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_of(item)
    elif isinstance(value, dict):
        yield from tensors_of(list(value.values()))


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def _pack(value: Any, tensors: dict[str, torch.Tensor]) -> list[Any] | None:
    """`[kind, …]` for plain data, with tensors put aside into `tensors`; None for anything else."""
    if value is None or type(value) in (bool, int, float, str):
        return ["plain", value]
    if isinstance(value, torch.Tensor):
        name = f"state.{len(tensors)}"
        tensors[name] = _copy(value)
        # Which device it is may differ when it is read again; whether it is the host does not.
        return ["tensor", name, value.device.type == "cpu"]
    if isinstance(value, (numpy.ndarray, numpy.generic)):
        if value.dtype.kind not in "biuf":
            return None
        name = f"state.{len(tensors)}"
        tensors[name] = torch.from_numpy(numpy.array(value, copy=True, order="C"))
        return ["array" if isinstance(value, numpy.ndarray) else "scalar", name]
    if type(value) in (list, tuple):
        items = [_pack(item, tensors) for item in value]
        return None if None in items else [type(value).__name__, items]
    if type(value) is dict and all(isinstance(key, str) for key in value):
        items = {key: _pack(item, tensors) for key, item in value.items()}
        return None if None in items.values() else ["dict", items]
    return None


def _unpack(packed: list[Any], tensors: Mapping[str, torch.Tensor], device: torch.device) -> Any:
    kind, value = packed[0], packed[1]
    if kind == "plain":
        return value
    if kind == "tensor":
        return tensors[value] if packed[2] else tensors[value].to(device)
    if kind == "array":
        return tensors[value].numpy()
    if kind == "scalar":
        return tensors[value].numpy()[()]
    if kind == "dict":
        return {key: _unpack(item, tensors, device) for key, item in value.items()}
    items = [_unpack(item, tensors, device) for item in value]
    return tuple(items) if kind == "tuple" else items


def _difference(key: str, theirs: Any, ours: Any) -> str:
    """`fingerprint.build.torch was 2.12, is 2.13`: the first leaf that differs."""
    try:
        theirs, ours = json.loads(theirs), json.loads(ours)
    except (TypeError, ValueError):
        return f"{key} was {theirs}, is {ours}"
    path = [key]
    while isinstance(theirs, dict) and isinstance(ours, dict):
        name = next(name for name in {**ours, **theirs} if theirs.get(name) != ours.get(name))
        path.append(name)
        theirs, ours = theirs.get(name), ours.get(name)
    return f"{'.'.join(path)} was {theirs}, is {ours}"
