"""Models on the device: which are resident, which go, and how one comes. What a model is made of is its family's
business."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from darkroom import faults, frames
from darkroom.errors import DarkroomError
from darkroom.families import Family
from darkroom.tools import ModelKey, Tools, inside

if TYPE_CHECKING:
    import torch

# Resident at a time; the one used longest ago goes first.
MAX_RESIDENT = 2


class Models:
    """Resident models by id and body hash, in order of use.

    `roots`: folders that models may lie in. `families`: what loads them, by the name in a reference.
    """

    def __init__(self, device: torch.device, roots: Iterable[str], families: Mapping[str, type[Family]]):
        self._device = device
        self._roots = list(roots)
        self._families = families
        self._resident: dict[ModelKey, Family] = {}
        self._used_at: dict[ModelKey, float] = {}

    def describe(self, wanted: Collection[ModelKey]) -> list[dict[str, Any]]:
        """The resident models as a heartbeat tells them, the one used longest ago first.

        `wanted`: those that requests use or wait for.
        """
        now = time.monotonic()
        return [
            {
                "id": key[0],
                "bytes": model.bytes,
                "is_idle": key not in wanted,
                "used_s": round(max(0.0, now - self._used_at.get(key, now)), 3),
            }
            for key, model in list(self._resident.items())
        ]

    def drop(self, at_most: int, keep: Collection[ModelKey]) -> list[str]:
        """Lets go of so many models but those in `keep`, the one used longest ago first; returns their ids."""
        gone = [key for key in self._resident if key not in keep][:at_most]
        for key in gone:
            self._forget(key)
        return [model_id for model_id, _ in gone]

    def clear(self) -> None:
        """Lets go of all of them."""
        self._resident.clear()
        self._used_at.clear()

    def get(self, reference: Mapping[str, Any], tools: Tools) -> tuple[Family, float]:
        """The model, and the seconds that its load took: 0 when it was resident. `reference`: {id, path, body_hash,
        family}.

        Raises `worker.path_refused`, `model.corrupt` and `model.load_failed`; whatever is the device's fault comes as
        it is.
        """
        key = (reference["id"], reference["body_hash"])
        if key in self._resident:
            self._resident[key] = self._resident.pop(key)
            self._used_at[key] = time.monotonic()
            return self._resident[key], 0.0
        started = time.monotonic()
        tools.progress("load")
        folder = inside(reference["path"], self._roots)
        if folder is None:
            raise DarkroomError("worker.path_refused", f"{reference['path']} is in no model folder", field="model.path")
        while len(self._resident) >= MAX_RESIDENT:
            self._forget(next(iter(self._resident)))
        family = self._families[reference["family"]]
        try:
            self._check_files(folder, family)
            model = family.load(folder, self._device, tools)
        except DarkroomError:
            raise
        # Whatever a broken folder makes the libraries throw.
        except Exception as error:
            if faults.is_out_of_memory(error) or faults.is_device_lost(error):
                raise
            raise DarkroomError("model.load_failed", f"{folder}: {type(error).__name__}: {error}", field="model.path") from error
        self._resident[key], self._used_at[key] = model, time.monotonic()
        return model, self._used_at[key] - started

    def _forget(self, key: ModelKey) -> None:
        self._resident.pop(key)
        self._used_at.pop(key, None)

    def _check_files(self, folder: str, family: type[Family]) -> None:
        """Nothing that the load would read may lie outside the roots."""
        for part in family.parts:
            if not os.path.isdir(os.path.join(folder, part)):
                raise DarkroomError("model.corrupt", f"{folder} has no {part}/", field="model.path")
            for name in os.listdir(os.path.join(folder, part)):
                # What file managers and tools leave is never read.
                if name.startswith("."):
                    continue
                file = os.path.join(folder, part, name)
                if inside(file, self._roots) is None:
                    raise DarkroomError("worker.path_refused", f"{file} leads out of the model folders", field="model.path")


def ensure(tools: Tools) -> dict[str, Any]:
    """model.ensure: makes a model resident ahead of the work; `bytes` of its weights, `seconds` that the load took.

    Raises as `Models.get`.
    """
    reference = tools.data["model"]
    model, seconds = tools.runtime.models.get(reference, tools)
    return frames.result({"id": reference["id"], "resident": seconds == 0, "bytes": model.bytes, "seconds": seconds})


def load(tools: Tools) -> dict[str, Any]:
    """model.load: as `ensure`, for a session that asks for it; `bytes` of its weights on the device. Raises as
    `Models.get`."""
    model, _ = tools.runtime.models.get(tools.input["model"], tools)
    return frames.result({"id": tools.input["model"]["id"], "bytes": model.bytes})
