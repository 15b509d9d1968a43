"""Adapters of a request: LoRA and its kin, read from their files, fitted to a model's networks, in force for a step.

What a file says is `adapter_keys`, what its tensors make of a weight is `differences`, how the weights change and come
back is `patch`. Here: the files, which are read once and kept for a while, and what of them belongs to which network.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch

from darkroom import differences, tensors
from darkroom.adapter_keys import DENOISER, TEXT_ENCODERS, Key, key_of
from darkroom.errors import DarkroomError
from darkroom.patch import Change, Patch
from darkroom.tools import Tools, inside

if TYPE_CHECKING:
    from darkroom.families.shell import Shell

DENOISERS = ("unet", "transformer")
# Of files that are kept read, on the device.
KEPT_BYTES = 1 << 30
# Names that a message gives of more.
NAMED = 3


# Path and body hash, size and time of the last change: names and metadata are no part of a body, and count too.
FileKey = tuple[str, str, int, int]


@dataclass
class Adapter:
    """One file, read.

    `key`: which one, in which state; `modules`: by part and module the tensors; `names`: likewise those of the file;
    `others`: those that are no part of an adapter; `factors`: α/r by part, where the metadata alone say it.
    """

    id: str
    key: FileKey
    modules: dict[tuple[str, str], dict[str, torch.Tensor]]
    names: dict[tuple[str, str], list[str]]
    others: list[str]
    factors: Mapping[str, float]
    bytes: int
    fits: WeakKeyDictionary[Shell, Fit] = field(default_factory=WeakKeyDictionary)


@dataclass(frozen=True)
class Fit:
    """What an adapter changes of one network: by weight the module and its tensors' words."""

    changes: Mapping[str, tuple[str, Mapping[str, torch.Tensor]]]
    used: frozenset[tuple[str, str]]


class Adapters:
    """The files of one child's adapters. `roots`: folders that models may lie in."""

    def __init__(self, roots: Sequence[str], device: torch.device):
        self._roots, self._device = list(roots), device
        self._kept: OrderedDict[FileKey, Adapter] = OrderedDict()

    def clear(self) -> None:
        """Lets go of what was read; what is in force stays."""
        self._kept.clear()

    def get(self, reference: Mapping[str, Any]) -> Adapter:
        """`reference`: {id, path, body_hash}. Raises `worker.path_refused`, `model.corrupt`, `model.missing`, and
        `model.changed` for a file that is not the one of that hash."""
        key = self._key(reference)
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = self._read(reference, key)
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and sum(each.bytes for each in self._kept.values()) > KEPT_BYTES:
            self._kept.popitem(last=False)
        return found

    def _key(self, reference: Mapping[str, Any]) -> FileKey:
        path = placed(reference, self._roots)
        state = os.stat(path)
        return path, reference["body_hash"], state.st_size, state.st_mtime_ns

    def _read(self, reference: Mapping[str, Any], file: FileKey) -> Adapter:
        found, metadata = read_pinned(reference, self._roots)
        modules: dict[tuple[str, str], dict[str, torch.Tensor]] = {}
        names: dict[tuple[str, str], list[str]] = {}
        others: list[str] = []
        for name, tensor in sorted(found.items()):
            key: Key | None = key_of(name)
            if key is None:
                others.append(name)
                continue
            owner = (key.part, key.module)
            # A number is read on the host once, and not waited for with each weight.
            modules.setdefault(owner, {})[key.word] = tensor if key.word == "alpha" else tensor.to(self._device)
            names.setdefault(owner, []).append(name)
        size = sum(tensor.nbytes for tensor in found.values())
        return Adapter(reference["id"], file, modules, names, others, _factors(metadata), size)


def placed(reference: Mapping[str, Any], roots: Sequence[str]) -> str:
    """The real path of a file that a request names. Raises `worker.path_refused` and `model.missing`."""
    real = inside(reference["path"], roots)
    if real is None:
        raise DarkroomError("worker.path_refused", f"{reference['path']} is in no model folder", field="input.adapters")
    if not os.path.isfile(real):
        raise DarkroomError("model.missing", f"{reference['path']} is no regular file now", field="input.adapters")
    return real


def read_pinned(reference: Mapping[str, Any], roots: Sequence[str]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """(tensors on the CPU, metadata) of a safetensors file whose body has the hash that the request is pinned to.
    Raises as `Adapters.get`."""
    path = reference["path"]
    with open(placed(reference, roots), "rb") as file:
        content = file.read()
    body = memoryview(content)[8 + int.from_bytes(content[:8], "little") :]
    if hashlib.sha256(body).hexdigest() != reference["body_hash"]:
        problem = f"{path} is not the file with body {reference['body_hash'][:10]} any more"
        raise DarkroomError("model.changed", problem, field="input.adapters")
    try:
        return tensors.load(content)
    except tensors.Unreadable as error:
        raise DarkroomError("model.corrupt", f"{path} is no whole safetensors file: {error}", field="input.adapters") from error


def pinned(request: Mapping[str, Any]) -> dict[str, Any]:
    """`adapters` and `embeddings` of a request, where it has any, by what its pixels follow from: no name and no place
    of a file."""
    return {
        field: [{**each, "model": each["model"]["body_hash"]} for each in request[field]]
        for field in ("adapters", "embeddings")
        if field in request
    }


def wear(tools: Tools, parts: Collection[str] | None = None) -> list[str]:
    """Has the networks of the model that computes (those of `parts`, or all) changed by the request's adapters and by
    nothing else. Returns sentences for the receipt: what of the files was not used.

    Raises as `Adapters.get`; `inference.adapter_unfit`, which names the adapter, for one that changes nothing of this
    model, and for tensors whose shapes do not fit.
    """
    wanted, runtime = tools.input.get("adapters", ()), tools.runtime
    with torch.inference_mode(False):
        read = [(runtime.adapters.get(each["model"]), each) for each in wanted]
        shells = [shell for shell in runtime.models.networks() if _part(shell) is not None]
        fits = [(adapter, [(shell, _fit(adapter, shell)) for shell in shells]) for adapter, _ in read]
        notes = [note for adapter, fitted in fits for note in _check(adapter, [fit for _, fit in fitted])]
        for shell in shells:
            if parts is None or shell.part in parts:
                shell.patch(_patch(read, shell))
                tools.advance()
    return notes


def _part(shell: Shell) -> str | None:
    """As keys name it; None for a network that no adapter changes."""
    return DENOISER if shell.part in DENOISERS else shell.part if shell.part in TEXT_ENCODERS else None


def _fit(adapter: Adapter, shell: Shell) -> Fit:
    if shell in adapter.fits:
        return adapter.fits[shell]
    part, known, weights = _part(shell), shell.modules, shell.shapes
    changes: dict[str, tuple[str, Mapping[str, torch.Tensor]]] = {}
    used: set[tuple[str, str]] = set()
    for owner, held in adapter.modules.items():
        module = known.get(owner[1]) if owner[0] == part else None
        if module is None:
            continue
        if differences.is_whole(held) and f"{module}.weight" in weights:
            changes[f"{module}.weight"] = (module, held)
            used.add(owner)
        bias = held.get("diff_b", held.get("up_bias"))
        if bias is not None and f"{module}.bias" in weights:
            changes[f"{module}.bias"] = (module, {"diff": bias})
            used.add(owner)
    adapter.fits[shell] = Fit(changes, frozenset(used))
    return adapter.fits[shell]


def _check(adapter: Adapter, fits: Sequence[Fit]) -> list[str]:
    used = frozenset().union(*(fit.used for fit in fits))
    unused = [*adapter.others, *(name for owner, names in adapter.names.items() if owner not in used for name in names)]
    total = len(adapter.others) + sum(map(len, adapter.names.values()))
    listed = f"{', '.join(sorted(unused)[:NAMED])}{' …' if len(unused) > NAMED else ''}"
    if not used:
        problem = f"adapter {adapter.id} changes nothing of this model: none of its {total} tensors has a place in it ({listed})"
        raise DarkroomError("inference.adapter_unfit", problem, field="input.adapters")
    return [f"of adapter {adapter.id} {len(unused)} of {total} tensors were not used: {listed}"] if unused else []


def _patch(read: Sequence[tuple[Adapter, Mapping[str, Any]]], shell: Shell) -> Patch:
    key: list[tuple[FileKey, float]] = []
    worn: list[tuple[str, float]] = []
    changes: dict[str, list[Change]] = {}
    for adapter, reference in read:
        fit = _fit(adapter, shell)
        weight = reference["weight"]
        if shell.part in TEXT_ENCODERS:
            weight = reference.get("text_weight", weight)
        # A weight of nothing is nothing, to the byte.
        if weight == 0 or not fit.changes:
            continue
        key.append((adapter.key, weight))
        worn.append((reference["model"]["id"], weight))
        factor = adapter.factors.get(_part(shell) or "", adapter.factors.get(""))
        for name, (_, held) in fit.changes.items():
            changes.setdefault(name, []).append(partial(_add, adapter.id, name, held, weight, factor))
    return Patch(tuple(key), changes, tuple(worn))


def _add(
    adapter: str, name: str, held: Mapping[str, torch.Tensor], weight: float, factor: float | None, total: torch.Tensor, base: torch.Tensor
) -> None:
    try:
        differences.add(total, base, held, weight, factor)
    except differences.Unfit as error:
        problem = f"adapter {adapter} does not fit {name} of this model: {error}"
        raise DarkroomError("inference.adapter_unfit", problem, field="input.adapters") from error


def _factors(metadata: Mapping[str, str]) -> dict[str, float]:
    """α/r by part as diffusers writes them beside peft's tensors, which have no α of their own; of one that says a rank
    or an α for each module there is none."""
    try:
        said = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except ValueError:
        return {}
    found: dict[str, float] = {}
    for name, alpha in said.items() if isinstance(said, dict) else ():
        prefix, _, leaf = name.rpartition(".")
        rank = said.get(f"{prefix}.r" if prefix else "r")
        if leaf == "lora_alpha" and isinstance(alpha, (int, float)) and isinstance(rank, int) and rank > 0:
            part = DENOISER if prefix in DENOISERS else prefix
            rooted = said.get(f"{prefix}.use_rslora" if prefix else "use_rslora")
            found[part] = alpha / (rank**0.5 if rooted else rank)
    return found
