"""Networks that say of a picture what it shows: scores by category, for policies to judge.

| class in `config.json` | is |
| --- | --- |
| `StableDiffusionSafetyChecker` | the checker of diffusers' pipelines: CLIP, and distances to concepts |
| any `…ForImageClassification` | a classifier of transformers |
| none: there is a `classifier.json` | a graph of ONNX (`onnx_classifiers.py`) |

What a classifier calls its labels is one thing, and the categories of policies another: `categories.json` beside the
configuration says of each label which category it means, or null for none. A label that is a category needs no word.
A score is one or nothing: whatever is wrong with a classifier ends the check, and nothing passes for it.
"""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch

from darkroom import faults, onnx_classifiers
from darkroom.errors import DarkroomError
from darkroom.preparation import Preparation, read_json
from darkroom.tools import inside

# So many are kept on the device, the one used last the longest: a policy names no more.
KEPT = 4
# One label of the safety checker, which its `categories.json` may give another category.
CHECKER_LABEL = "nsfw"
CHECKER_CATEGORIES = {CHECKER_LABEL: "sexual"}
# How far beyond its own limit a cosine of the safety checker lies, for a score of 1 / (1 + 1/e): cosines differ by
# hundredths.
CHECKER_SCALE = 0.01
# What diffusers adds to concepts when a concept of special care is met (safety_checker.py, `adjustment`).
SPECIAL_CARE = 0.01

# Path and body hash, and the states of its files.
Key = tuple[str, str, tuple[tuple[str, int, int], ...]]


@dataclass(frozen=True)
class Classifier:
    """One resident classifier. `labels`: a picture's pixels, [1, 3, rows, columns] fp32 on the device, to the score of
    each label; `prepare`: RGB8, [rows, columns, 3], to these; `categories`: which category a label means."""

    name: str
    prepare: Callable[[numpy.ndarray], torch.Tensor]
    labels: Callable[[torch.Tensor], Mapping[str, float]]
    categories: Mapping[str, str | None]

    def scores(self, picture: numpy.ndarray) -> dict[str, float]:
        """By category the highest score of its labels, 0 to 1. Raises `safety.classifier_broken` for one that is no
        number, and for a network that does not take the picture."""
        made: dict[str, float] = {}
        try:
            with torch.inference_mode():
                found = self.labels(self.prepare(picture))
        except Exception as error:
            if faults.is_out_of_memory(error) or faults.is_device_lost(error):
                raise
            raise broken(self.name, f"it cannot look at a picture: {type(error).__name__}: {error}") from error
        for label, score in found.items():
            category = self.categories[label]
            if not math.isfinite(score):
                raise broken(self.name, f"its score of {label} is {score}")
            if category is not None:
                made[category] = max(made.get(category, 0.0), min(1.0, max(0.0, score)))
        return made


class Classifiers:
    """The classifiers of one child. `roots`: folders that models may lie in."""

    def __init__(self, roots: Sequence[str], device: torch.device):
        self._roots, self._device = list(roots), device
        self._kept: OrderedDict[Key, Classifier] = OrderedDict()

    def clear(self) -> None:
        """Lets go of all of them."""
        self._kept.clear()

    def get(self, reference: Mapping[str, Any]) -> Classifier:
        """`reference`: {id, path, body_hash}. Raises `worker.path_refused`, `model.missing`, and
        `safety.classifier_broken` for a folder that is no classifier or lacks a part of one."""
        key = self._key(reference)
        if key not in self._kept:
            # Of a folder that has changed nothing older is of use.
            for old in [each for each in self._kept if each[0] == key[0]]:
                del self._kept[old]
            while len(self._kept) >= KEPT:
                self._kept.popitem(last=False)
            self._kept[key] = self._load(reference["id"], key[0])
        self._kept.move_to_end(key)
        return self._kept[key]

    def _key(self, reference: Mapping[str, Any]) -> Key:
        path = inside(reference["path"], self._roots)
        if path is None:
            raise DarkroomError("worker.path_refused", f"{reference['path']} is in no model folder", field="input.classifiers")
        if not os.path.isdir(path):
            raise DarkroomError("model.missing", f"{path} is no folder now", field="input.classifiers")
        states = []
        for name in sorted(os.listdir(path)):
            if name.startswith("."):
                continue
            if inside(os.path.join(path, name), self._roots) is None:
                raise DarkroomError("worker.path_refused", f"{path}/{name} leads out of the model folders", field="input.classifiers")
            state = os.stat(os.path.join(path, name))
            states.append((name, state.st_size, state.st_mtime_ns))
        return path, reference["body_hash"], tuple(states)

    def _load(self, name: str, path: str) -> Classifier:
        try:
            prepare = Preparation(read_json(path, "preprocessor_config.json"), self._device)
            own = read_json(path, "categories.json") if os.path.exists(os.path.join(path, "categories.json")) else {}
            made, labels, usual = self._network(path)
            return Classifier(name, prepare, made, categories_of(name, labels, usual | own))
        except Exception as error:
            if isinstance(error, DarkroomError) or faults.is_out_of_memory(error) or faults.is_device_lost(error):
                raise
            # Whatever a broken folder makes the libraries throw.
            raise broken(name, f"{path}: {type(error).__name__}: {error}") from error


    def _network(self, path: str) -> Loaded:
        if os.path.exists(os.path.join(path, onnx_classifiers.MANIFEST)):
            return onnx_classifiers.load(path, read_json(path, onnx_classifiers.MANIFEST))
        config = read_json(path, "config.json")
        kind = (config.get("architectures") or [config.get("_class_name")])[0]
        return (checker if kind == "StableDiffusionSafetyChecker" else classification)(path, self._device)


def broken(name: str, problem: str) -> DarkroomError:
    """The error of a classifier that cannot be used."""
    return DarkroomError("safety.classifier_broken", f"classifier {name}: {problem}", field="input.classifiers")


def categories_of(name: str, labels: Sequence[str], told: Mapping[str, Any]) -> dict[str, str | None]:
    """Which category each label means. Raises `safety.classifier_broken` for a label that nobody has told of."""
    unknown = [label for label in told if label not in labels]
    if unknown:
        raise broken(name, f"its categories.json speaks of {unknown[0]}, which is none of its labels: {', '.join(labels)}")
    found: dict[str, str | None] = {}
    for label in labels:
        category = told.get(label, label if "/" in label else "")
        if category == "" or not (category is None or isinstance(category, str)):
            raise broken(name, f"which category is its label {label}? Say it in categories.json, or null for none")
        found[label] = category
    if all(category is None for category in found.values()):
        raise broken(name, "none of its labels is a category: it has nothing to say")
    return found


Loaded = tuple[Callable[[torch.Tensor], Mapping[str, float]], list[str], dict[str, str]]
"""(pixels → score of each label, the labels, which categories they mean unless it is said otherwise)."""


def classification(path: str, device: torch.device) -> Loaded:
    """A classifier of transformers: independent labels by the sigmoid, exclusive ones by softmax."""
    from transformers import AutoModelForImageClassification

    network = _whole(AutoModelForImageClassification, path).to(device)
    labels = [network.config.id2label[index] for index in range(network.config.num_labels)]
    is_independent = network.config.problem_type == "multi_label_classification" or len(labels) == 1

    def scores(pixels: torch.Tensor) -> Mapping[str, float]:
        logits = network(pixel_values=pixels).logits[0].float()
        return dict(zip(labels, (logits.sigmoid() if is_independent else logits.softmax(0)).tolist(), strict=True))

    return scores, labels, {}


def checker(path: str, device: torch.device) -> Loaded:
    """Diffusers' safety checker (pipelines/stable_diffusion/safety_checker.py), which blackens a picture when a cosine
    is above the limit of its concept: that is a score of 1/2 here, and the margin beyond it gives the rest."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker, cosine_distance

    network = _whole(StableDiffusionSafetyChecker, path).to(device)

    def scores(pixels: torch.Tensor) -> Mapping[str, float]:
        seen = network.visual_projection(network.vision_model(pixels)[1])
        special = cosine_distance(seen, network.special_care_embeds)[0] - network.special_care_embeds_weights
        concepts = cosine_distance(seen, network.concept_embeds)[0] - network.concept_embeds_weights
        margin = float(concepts.max()) + (SPECIAL_CARE if float(special.max()) > 0 else 0.0)
        return {CHECKER_LABEL: 1 / (1 + math.exp(-min(40.0, max(-40.0, margin / CHECKER_SCALE)))) if math.isfinite(margin) else math.nan}

    return scores, [CHECKER_LABEL], CHECKER_CATEGORIES


def _whole(kind: Any, path: str) -> Any:
    """A network from safetensors, all of it or an error: transformers draws what is missing by chance."""
    network, report = kind.from_pretrained(path, local_files_only=True, use_safetensors=True, output_loading_info=True)
    lacking = [*report["missing_keys"], *report["mismatched_keys"]]
    if lacking:
        raise ValueError(f"its weights have no {lacking[0]}, and {len(lacking) - 1} tensors more are not there")
    return network.eval().requires_grad_(False)
