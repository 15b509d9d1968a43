"""torch behind the device thread: its imports, its settings, its device, and the operations that compute with it."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from darkroom import compiling, exactness, families, logs, memory, registry, samplers
from darkroom.device_loop import Operation, Prepared
from darkroom.model import Models
from darkroom.runtime import LiveTensors, Runtime
from darkroom.tools import ModelKey


class TorchBackend:
    """A `Backend`."""

    # Why what it compiles is not kept for the next process; None where it is.
    _uncached: str | None = None

    def load(self, hello: dict[str, Any], progress: Callable[[int, int], None]) -> None:
        """As `Backend.load`."""
        exactness.prepare_environment(hello["threads"])
        self._uncached = compiling.prepare_environment(hello["roots"].get("compiled"), hello["device"])
        loads = [partial(importlib.import_module, "torch"), families.families, samplers.load_classes]
        for done, load in enumerate(loads):
            progress(done, len(loads))
            load()
        progress(len(loads), len(loads))
        logs.quiet_libraries()
        # What the imports made lives for ever: the collector need not look at it again, half a second each time.
        gc.collect()
        gc.freeze()

    def open(self, hello: dict[str, Any], wanted: Callable[[], Collection[ModelKey]]) -> Prepared:
        """As `Backend.open`. Raises RuntimeError for a device that is not there."""
        from darkroom.adapters import Adapters
        from darkroom.classifiers import Classifiers
        from darkroom.control import ControlNet
        from darkroom.faces import Faces
        from darkroom.families.parts import ModelParts
        from darkroom.preprocessors import Preprocessor
        from darkroom.upscalers import Upscaler
        from darkroom.weight_files import WeightFiles

        exactness.configure(hello["threads"])
        device = exactness.device(hello["device"])
        described = {
            "build": exactness.build(),
            "hardware": exactness.hardware(device, hello["threads"]),
            "settings": exactness.settings(device),
        }
        facts = exactness.facts(**described)
        described["facts"] = facts
        described["fast"] = {"why": compiling.obstacle(device.type), "uncached": self._uncached}
        weights, peaks = WeightFiles(device), memory.Peaks(device)
        models = Models(
            device,
            hello["roots"]["models"],
            {**families.families(), "controlnet": ControlNet, "upscaler": Upscaler, "preprocessor": Preprocessor},
            lambda reference, fill, tools: ModelParts(reference, device, weights, fill, tools.advance),
            weights,
            partial(memory.room, device, peaks, hello["model_bytes"]),
        )
        runtime = Runtime(
            device=device,
            roots=hello["roots"],
            checkpoint=hello["checkpoint"],
            preview_s=hello["preview_s"],
            models=models,
            adapters=Adapters(hello["roots"]["models"], device),
            classifiers=Classifiers(hello["roots"]["models"], device),
            faces=Faces(hello["roots"]["models"], device),
            live=LiveTensors(),
            peaks=peaks,
            facts=facts,
            wanted=wanted,
        )
        return Prepared(runtime, described)

    def operation(self, action: str) -> Operation:
        """As `Backend.operation`."""
        return registry.operation(action)
