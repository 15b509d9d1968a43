"""What a denoise loop needs to go on where it was, as one safetensors file.

| entry | holds |
| --- | --- |
| `latents` | at their raw dtype |
| `rng` | state of the request's generator |
| `state.<n>` | tensors and arrays of the scheduler |
| metadata `state` | every plain-data attribute of the scheduler, as JSON that names those tensors |
| metadata `call`, `request`, `model`, `scheduler`, `fingerprint` | what it belongs to |

A scheduler's attributes are taken as they are, whatever its class: multistep solvers keep their history in
them.
"""

import hashlib
import json

FORMAT = "darkroom checkpoint 1"


class CheckpointRefused(Exception):
    """The file is not what this request can go on from; the text says why."""


def canonical(value):
    """The same text for the same data."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def digest(value):
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def describe_scheduler(scheduler):
    config = {key: value for key, value in scheduler.config.items() if not key.startswith("_")}
    return f"{type(scheduler).__name__} {digest(json.loads(json.dumps(config, default=str)))}"


def snapshot(latents, generator, scheduler, call, identity):
    """Tensors on the CPU and metadata, independent of everything that goes on changing.

    `identity`: request, model, fingerprint.
    """
    tensors = {"latents": latents.detach().cpu().clone(), "rng": generator.get_state().clone()}
    state = {}
    for name, value in vars(scheduler).items():
        if name == "_internal_dict":
            continue
        plain = _pack(value, tensors)
        if plain is not None:
            state[name] = plain
    metadata = {
        "format": FORMAT,
        "call": str(call),
        "scheduler": describe_scheduler(scheduler),
        "state": json.dumps(state),
        **{key: canonical(value) for key, value in identity.items()},
    }
    return tensors, metadata


def serialize(tensors, metadata):
    from safetensors.torch import save

    return save(tensors, metadata)


def restore(content, sha256, scheduler, generator, identity):
    """Puts scheduler and generator back where they were and returns (latents, call).

    Raises CheckpointRefused.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    if hashlib.sha256(content).hexdigest() != sha256:
        raise CheckpointRefused("the file does not match its SHA-256")
    try:
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length])["__metadata__"]
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointRefused(f"the file is broken: {error}") from error
    expected = {
        "format": FORMAT,
        "scheduler": describe_scheduler(scheduler),
        **{key: canonical(value) for key, value in identity.items()},
    }
    for key, value in expected.items():
        if metadata.get(key) != value:
            raise CheckpointRefused(_difference(key, metadata.get(key), value))
    try:
        state = {name: _unpack(value, tensors) for name, value in json.loads(metadata["state"]).items()}
        latents, call = tensors["latents"], int(metadata["call"])
        generator.set_state(tensors["rng"])
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointRefused(f"the file is incomplete: {error}") from error
    vars(scheduler).update(state)
    return latents, call


def scheduler_bytes(scheduler):
    """Bytes of the tensors a scheduler holds."""
    tensors = {}
    for name, value in vars(scheduler).items():
        if name != "_internal_dict":
            _pack(value, tensors, copy=False)
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _pack(value, tensors, copy=True):
    """`[kind, …]` for plain data, with tensors put aside into `tensors`; None for anything else."""
    import numpy
    import torch

    if value is None or (isinstance(value, (bool, int, float, str)) and type(value).__module__ == "builtins"):
        return ["plain", value]
    if isinstance(value, torch.Tensor):
        name = f"state.{len(tensors)}"
        tensors[name] = value.detach().cpu().clone().contiguous() if copy else value
        return ["tensor", name, str(value.device)]
    if isinstance(value, (numpy.ndarray, numpy.generic)):
        if value.dtype.kind not in "biuf":
            return None
        name = f"state.{len(tensors)}"
        tensors[name] = torch.from_numpy(numpy.array(value, copy=True, order="C"))
        return ["array" if isinstance(value, numpy.ndarray) else "scalar", name]
    if type(value) in (list, tuple):
        items = [_pack(item, tensors, copy) for item in value]
        return None if None in items else [type(value).__name__, items]
    if type(value) is dict and all(isinstance(key, str) for key in value):
        items = {key: _pack(item, tensors, copy) for key, item in value.items()}
        return None if None in items.values() else ["dict", items]
    return None


def _unpack(packed, tensors):
    kind, value = packed[0], packed[1]
    if kind == "plain":
        return value
    if kind == "tensor":
        return tensors[value].to(packed[2])
    if kind == "array":
        return tensors[value].numpy()
    if kind == "scalar":
        return tensors[value].numpy()[()]
    if kind == "dict":
        return {key: _unpack(item, tensors) for key, item in value.items()}
    items = [_unpack(item, tensors) for item in value]
    return tuple(items) if kind == "tuple" else items


def _difference(key, theirs, ours):
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
