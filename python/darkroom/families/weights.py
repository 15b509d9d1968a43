"""Which files of a folder hold a network's weights, whoever named them, and whether all of them are there.

| written as | files | index |
| --- | --- | --- |
| one file | `model.safetensors`, `model.fp16.safetensors` | |
| shards | `model-00001-of-00002.safetensors` | `model.safetensors.index.json` |
| half precision, today | `model.fp16-00001-of-00002.safetensors` | `model.safetensors.index.fp16.json` |
| half precision, before | `model-00001-of-00002.fp16.safetensors` | `model.fp16.safetensors.index.json` |

Files in full precision come first, one file before shards. An index says which files there are; shards without one are
counted by their names.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable

from darkroom.errors import DarkroomError

VARIANTS = ("", ".fp16")


def files_of(folder: str, stem: str, tensors_of: Callable[[str], list[str]]) -> list[str]:
    """Paths of the files that hold these weights. `stem`: the name of such a file without `.safetensors`;
    `tensors_of`: the names of a file's tensors.

    Raises `model.corrupt`, which names the file that is missing, broken or double.
    """
    files = _chosen(folder, os.listdir(folder), stem)
    holder: dict[str, str] = {}
    for file in files:
        for tensor in tensors_of(os.path.join(folder, file)):
            if tensor in holder:
                raise _corrupt(f"{folder}: {holder[tensor]} and {file} both hold {tensor}")
            holder[tensor] = file
    return [os.path.join(folder, file) for file in files]


def _chosen(folder: str, names: list[str], stem: str) -> list[str]:
    absent = None
    for variant in VARIANTS:
        if (single := f"{stem}{variant}.safetensors") in names:
            return [single]
        shards = _shards_of(folder, names, stem, variant)
        missing = [name for name in shards if name not in names]
        if shards and not missing:
            return shards
        # Who fetches one variant of a repository gets the indexes of all: one without any shard says nothing.
        if len(missing) < len(shards):
            raise _corrupt(f"{folder} lacks {', '.join(missing[:3])}, of {len(shards)} files of weights")
        absent = absent or (missing[0] if missing else None)
    pickled = sorted(name for name in names if name.endswith((".bin", ".ckpt", ".pt", ".pth")))
    more = f"; {pickled[0]} is pickled, and such files are not opened" if pickled else ""
    raise _corrupt(f"{folder} has no {absent or f'{stem}.safetensors'}, nor its shards or its fp16 variant in safetensors{more}")


def _shards_of(folder: str, names: list[str], stem: str, variant: str) -> list[str]:
    """The names of all shards, whether they are there or not; none when nothing speaks of any."""
    for index in _index_names(stem, variant):
        if index in names:
            return _listed(os.path.join(folder, index))
    numbered = re.compile(rf"{re.escape(stem)}({re.escape(variant)})?-(\d+)-of-(\d+)((?(1)|{re.escape(variant)}))\.safetensors")
    found = {name: match for name in names if (match := numbered.fullmatch(name)) and (match[1] or match[4] or "") == variant}
    totals = {match[3] for match in found.values()}
    if len(totals) > 1:
        raise _corrupt(f"{folder} holds shards of several sets: {', '.join(sorted(found)[:3])}")
    if not found:
        return []
    [total], first = totals, next(iter(found.values()))
    return [
        f"{stem}{first[1] or ''}-{str(number).zfill(len(first[2]))}-of-{total}{first[4] or ''}.safetensors"
        for number in range(1, min(int(total), 10_000) + 1)
    ]


def _index_names(stem: str, variant: str) -> list[str]:
    return list(dict.fromkeys([f"{stem}.safetensors.index{variant}.json", f"{stem}{variant}.safetensors.index.json"]))


def _listed(index: str) -> list[str]:
    """Names of the files that an index speaks of."""
    try:
        with open(index, encoding="utf-8") as file:
            names = sorted(set(json.load(file)["weight_map"].values()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _corrupt(f"{index} is no index of weights: {type(error).__name__}: {error}") from error
    if not names or not all(isinstance(name, str) and name == os.path.basename(name) and name.endswith(".safetensors") for name in names):
        raise _corrupt(f"{index} must name safetensors files beside it, not {names[:3]}")
    return names


def _corrupt(message: str) -> DarkroomError:
    return DarkroomError("model.corrupt", message, field="model.path")
