"""Where the files of a model may lie."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from darkroom import tools
from darkroom.errors import DarkroomError


def inside(path: str, roots: Sequence[str]) -> str:
    """Where a path leads to, links followed. Raises `worker.path_refused` when that is in none of the roots."""
    real = tools.inside(path, roots)
    if real is None:
        raise DarkroomError("worker.path_refused", f"{path} is in no model folder", field="model.path")
    return real


def check(path: str, parts: Iterable[Mapping[str, Any]], family: type[Any], roots: Sequence[str]) -> None:
    """Nothing that the load of a model would read may lie outside the roots. Raises `worker.path_refused`, and
    `model.corrupt` when a part is not there."""
    sources = {part["name"]: part for part in parts}
    for part in family.parts:
        source = sources.get(part)
        folder = source["folder"] if source else os.path.join(path, part)
        if not os.path.isdir(folder):
            raise DarkroomError("model.corrupt", f"{path} has no {part}/", field="model.path")
        if source and source["weights"]:
            inside(source["weights"]["path"], roots)
        for name in os.listdir(folder):
            # What file managers and tools leave is never read.
            if not name.startswith("."):
                _check_file(os.path.join(folder, name), roots)
    # What lies beside the parts: a pipeline's own configuration.
    index = os.path.join(sources[""]["folder"] if "" in sources else path, "model_index.json")
    if os.path.lexists(index):
        _check_file(index, roots)


def _check_file(file: str, roots: Sequence[str]) -> None:
    if tools.inside(file, roots) is None:
        raise DarkroomError("worker.path_refused", f"{file} leads out of the model folders", field="model.path")
