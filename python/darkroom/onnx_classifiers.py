"""Classifiers as graphs of ONNX, with a manifest that says what no graph does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy
import torch

from darkroom import onnx_graphs

MANIFEST = "classifier.json"
# Element types of an input, as onnxruntime names them.
TYPES = {"tensor(float)": numpy.float32, "tensor(float16)": numpy.float16}


def load(
    path: str, manifest: Mapping[str, Any]
) -> tuple[Callable[[torch.Tensor], Mapping[str, float]], list[str], dict[str, str]]:
    """As `classifiers.classification`: pixels, [1, 3, rows, columns] fp32, to the score of each label, and the labels.

    `manifest`: `labels`, in the order of the outputs; `scores`: `softmax` or `sigmoid` of the outputs, or `none` where
    they are scores; `layout`: `nchw`, or `nhwc` for a graph that has the channels last; `input` and `output`: names in
    the graph, where it has several.

    Raises `safety.needs_onnxruntime`; ValueError for a graph that does not take a picture or has not as many outputs as
    labels, and whatever onnxruntime throws for one that is none.
    """
    labels = [str(label) for label in manifest["labels"]]
    become = {"softmax": _softmax, "sigmoid": _sigmoid, "none": numpy.asarray}[manifest["scores"]]
    is_last = {"nchw": False, "nhwc": True}[manifest.get("layout", "nchw")]
    session = onnx_graphs.session(path, "input.classifiers", "safety.needs_onnxruntime")
    given = _one(session.get_inputs(), manifest.get("input"), "input")
    if given.type not in TYPES:
        raise ValueError(f"its input {given.name} is a {given.type}, and a picture is one of {', '.join(TYPES)}")
    made = _one(session.get_outputs(), manifest.get("output"), "output").name

    def scores(pixels: torch.Tensor) -> Mapping[str, float]:
        picture = pixels.cpu().numpy()
        picture = numpy.ascontiguousarray(picture.transpose(0, 2, 3, 1) if is_last else picture, TYPES[given.type])
        values = numpy.asarray(session.run([made], {given.name: picture})[0], numpy.float64).reshape(-1)
        if len(values) != len(labels):
            raise ValueError(f"its output {made} has {len(values)} numbers, and its manifest {len(labels)} labels")
        return dict(zip(labels, become(values).tolist(), strict=True))

    return scores, labels, {}


def _one(all: Any, name: str | None, what: str) -> Any:
    """The input or output of that name; without a name the only one. Raises ValueError."""
    found = [each for each in all if name is None or each.name == name]
    if len(found) != 1:
        names = ", ".join(each.name for each in all)
        raise ValueError(f"which {what} is it? Its graph has {names}: say one as `{what}` in {MANIFEST}")
    return found[0]


def _softmax(values: numpy.ndarray) -> numpy.ndarray:
    shifted = numpy.exp(values - values.max())
    return shifted / shifted.sum()


def _sigmoid(values: numpy.ndarray) -> numpy.ndarray:
    # Beyond 700 the exponential of a double has no end.
    return 1 / (1 + numpy.exp(-values.clip(-700, 700)))
