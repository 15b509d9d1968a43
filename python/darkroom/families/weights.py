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
import tempfile
from collections.abc import Generator
from contextlib import contextmanager

import safetensors

from darkroom.errors import DarkroomError

VARIANTS = ("", ".fp16")


@contextmanager
def as_one_variant(folder: str, stem: str) -> Generator[str]:
    """A folder in which the libraries find these weights by their plain names: `folder` itself where they are one plain
    file, else one of links to them, with an index made of what they hold.

    Raises `model.corrupt`, which names the file that is missing, broken or double.
    """
    names = os.listdir(folder)
    files = _files_of(folder, names, stem)
    holder: dict[str, str] = {}
    for file in files:
        for tensor in _tensors_of(os.path.join(folder, file)):
            if tensor in holder:
                raise _corrupt(f"{folder}: {holder[tensor]} and {file} both hold {tensor}")
            holder[tensor] = file
    if files == [f"{stem}.safetensors"] and not any(index in names for index in _index_names(stem, "")):
        yield folder
        return
    # In the child's own folder, which goes with its worker: a process that dies here leaves nothing behind.
    with tempfile.TemporaryDirectory(prefix="weights-", dir=os.path.expanduser("~")) as place:
        plain = {
            file: f"{stem}.safetensors" if len(files) == 1 else f"{stem}-{number:05d}-of-{len(files):05d}.safetensors"
            for number, file in enumerate(files, 1)
        }
        for file, link in {"config.json": "config.json", **plain}.items():
            os.symlink(os.path.realpath(os.path.join(folder, file)), os.path.join(place, link))
        if len(files) > 1:
            weight_map = {tensor: plain[file] for tensor, file in holder.items()}
            with open(os.path.join(place, f"{stem}.safetensors.index.json"), "w", encoding="utf-8") as index:
                json.dump({"metadata": {}, "weight_map": weight_map}, index)
        yield place


def _files_of(folder: str, names: list[str], stem: str) -> list[str]:
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


def _tensors_of(path: str) -> list[str]:
    """Names of its tensors, read off its header."""
    if not os.path.isfile(path):
        raise _corrupt(f"{path} is no regular file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        with open(path, "rb") as file:
            is_pointer = file.read(23) == b"version https://git-lfs"
        why = "it is a git-lfs pointer: run `git lfs pull`" if is_pointer else f"{error}"
        raise _corrupt(f"{path} ({os.path.getsize(path)} bytes) is no whole safetensors file: {why}") from error


def _corrupt(message: str) -> DarkroomError:
    return DarkroomError("model.corrupt", message, field="model.path")
