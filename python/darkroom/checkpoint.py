"""What a denoise loop needs to go on where it was, as one safetensors file.

| entry | holds |
| --- | --- |
| `latents` | at their raw dtype |
| `rng` | state of the request's generator |
| `draft` | how it looks, RGB8, [rows, columns, 3]; absent where previews are off, or nobody knows |
| `state.<n>` | tensors and arrays of the scheduler that its steps have changed |
| metadata `state` | its other plain-data attributes too, as JSON that names those tensors |
| metadata `call` | how many calls are done |
| metadata `request`, `model`, `scheduler`, `fingerprint` | what it belongs to |

A scheduler's attributes are taken as they are, whatever its class: multistep solvers keep their history in them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy
import torch

from darkroom import tensors as files
from darkroom.errors import DarkroomError

# Another number refuses what was begun with another meaning of the same request: 1 cut long prompts off.
FORMAT = "darkroom checkpoint 2"


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


class Recorder:
    """Takes the checkpoints of one denoise loop, before whose first call it is made.

    `identity`: {model, request, fingerprint}, plain data.
    """

    def __init__(self, scheduler: Any, generator: torch.Generator, identity: Mapping[str, Any]):
        self._scheduler, self._generator = scheduler, generator
        self._fixed = {
            "format": FORMAT,
            "scheduler": describe_scheduler(scheduler),
            **{key: canonical(value) for key, value in identity.items()},
        }
        # Tables that a request's steps decide are made again by whoever goes on.
        self._tables = {name: _table(value) for name, value in vars(scheduler).items() if _is_table(value)}

    def take(self, latents: torch.Tensor, call: int, draft: torch.Tensor | None = None) -> Callable[[], bytes]:
        """The state after `call` calls, with how it looks. Nothing waits for the device here; what is returned gives
        the file's bytes, the same for the same state, on any thread and at any time later.

        That raises `inference.diverged` rather than keep what no call can mend.
        """
        tensors = {"latents": latents.detach().clone(), "rng": self._generator.get_state().clone()}
        if draft is not None:
            tensors["draft"] = draft
        state = {}
        # Attributes come to be in one order in a run, and in another in one that went on from a checkpoint.
        for name, value in sorted(vars(self._scheduler).items()):
            if name == "_internal_dict" or (name in self._tables and _is_table(value) and _equal(_table(value), self._tables[name])):
                continue
            packed = _pack(value, tensors)
            if packed is not None:
                state[name] = packed
        copied = files.leaving(tensors, latents.device)

        def content() -> bytes:
            on_host = copied()
            if not bool(on_host["latents"].isfinite().all()):
                raise DarkroomError("inference.diverged", f"the latents after call {call} hold a number that is not finite")
            return files.save(on_host, {**self._fixed, "call": str(call), "state": canonical(state)})

        return content


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


def _is_table(value: Any) -> bool:
    """Numbers on the host, which can be looked at without waiting for a device."""
    return isinstance(value, numpy.ndarray) or (isinstance(value, torch.Tensor) and value.device.type == "cpu")


def _table(value: Any) -> torch.Tensor | numpy.ndarray:
    return value.clone() if isinstance(value, torch.Tensor) else value.copy()


def _equal(one: Any, other: Any) -> bool:
    if type(one) is not type(other) or one.dtype != other.dtype:
        return False
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else numpy.array_equal(one, other)


def _pack(value: Any, tensors: dict[str, torch.Tensor]) -> list[Any] | None:
    """`[kind, …]` for plain data, with tensors put aside into `tensors`; None for anything else."""
    if value is None or type(value) in (bool, int, float, str):
        return ["plain", value]
    if isinstance(value, torch.Tensor):
        name = f"state.{len(tensors)}"
        tensors[name] = value.detach().clone()
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
