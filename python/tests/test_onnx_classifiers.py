"""Classifiers as graphs of ONNX: what the manifest says, what is refused, and a graph that onnxruntime computes where
it is there."""

import json
import sys
from types import ModuleType, SimpleNamespace

import numpy
import pytest
import torch

from darkroom.classifiers import Classifiers
from darkroom.errors import DarkroomError
from darkroom.schema import ERRORS

GREY = numpy.full((8, 8, 3), 127, numpy.uint8)
RED = numpy.zeros((8, 8, 3), numpy.uint8)
RED[..., 0] = 255


def field(number, content):
    """One field of a protobuf message: a number, a text, bytes, or messages."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    data = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value):
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    return bytes([*made, value])


def value_info(name, shape):
    """ValueInfoProto of fp32 (onnx/onnx.proto)."""
    dims = b"".join(field(1, field(1, size)) for size in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))


def node(kind, given, made):
    return b"".join(field(1, name) for name in given) + field(2, made) + field(4, kind)


def graph(size=4, outputs=3):
    """[1, 3, size, size] to the mean of each channel, [1, 3, 1, 1], flattened to [1, 3]."""
    nodes = [node("GlobalAveragePool", ["x"], "mean"), node("Flatten", ["mean"], "y")]
    inner = b"".join(field(1, each) for each in nodes) + field(2, "means")
    inner += field(11, value_info("x", [1, 3, size, size])) + field(12, value_info("y", [1, outputs]))
    return field(1, 8) + field(7, inner) + field(8, field(2, 13))


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "means"
    made.mkdir()
    preparation = {"size": {"height": 4, "width": 4}, "image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    (made / "preprocessor_config.json").write_text(json.dumps(preparation))
    (made / "model.onnx").write_bytes(graph())
    told(made)
    (made / "categories.json").write_text(json.dumps({"red": "custom/red", "green": None, "blue": "custom/blue"}))
    return made


def told(folder, **manifest):
    (folder / "classifier.json").write_text(json.dumps({"labels": ["red", "green", "blue"], "scores": "none"} | manifest))


def scores(folder, picture=RED):
    reference = {"id": folder.name, "path": str(folder), "body_hash": "a" * 64}
    return Classifiers([str(folder.parent)], torch.device("cpu")).get(reference).scores(picture)


def fault(folder):
    with pytest.raises(DarkroomError) as caught:
        scores(folder)
    return caught.value


class Session:
    """As onnxruntime's, of a graph that gives the mean of each channel of what is said to be its layout."""

    def __init__(self, content, options, providers):
        assert providers == ["CPUExecutionProvider"] and options.intra_op_num_threads > 0
        if content[:3] != graph()[:3]:
            raise RuntimeError("no graph")

    def get_inputs(self):
        return [SimpleNamespace(name="x", type="tensor(float)")]

    def get_outputs(self):
        return [SimpleNamespace(name="y"), SimpleNamespace(name="z")][: self.outputs]

    outputs = 1

    def run(self, names, given):
        assert names == ["y"]
        picture = given["x"]
        return [picture.mean((0, 2, 3) if picture.shape[1] == 3 else (0, 1, 2))[None]]


@pytest.fixture
def runtime(monkeypatch):
    module = ModuleType("onnxruntime")
    module.InferenceSession, module.SessionOptions = Session, SimpleNamespace
    monkeypatch.setitem(sys.modules, "onnxruntime", module)


def test_without_onnxruntime_nothing_is_scored_and_it_is_said_how_to_have_it(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    error = fault(folder)
    assert error.code == "safety.needs_onnxruntime" and "means is a graph of ONNX" in error.message
    assert "Install the package onnxruntime" in ERRORS[error.code]["remedy"]


@pytest.mark.parametrize(
    ("how", "red", "blue"),
    [("none", 1.0, 0.0), ("sigmoid", 1 / (1 + numpy.exp(-1)), 0.5), ("softmax", numpy.e / (numpy.e + 2), 1 / (numpy.e + 2))],
)
def test_scores_are_what_the_manifest_makes_of_the_outputs(folder, runtime, how, red, blue):
    told(folder, scores=how)
    assert scores(folder) == pytest.approx({"custom/red": red, "custom/blue": blue})


def test_channels_may_come_last(folder, runtime):
    told(folder, layout="nhwc")
    assert scores(folder) == pytest.approx({"custom/red": 1.0, "custom/blue": 0.0})


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        ({"labels": ["red", "green"]}, "speaks of blue"),
        ({"labels": ["red", "green", "blue", "black"]}, "which category is its label black"),
        ({"scores": "maximum"}, "KeyError"),
        ({"layout": "chwn"}, "KeyError"),
        ({"output": "w"}, "which output is it"),
        ({"input": "w"}, "which input is it"),
    ],
)
def test_a_manifest_that_does_not_fit_makes_it_unusable(folder, runtime, manifest, says):
    told(folder, **manifest)
    error = fault(folder)
    assert error.code == "safety.classifier_broken" and says in error.message


def test_more_outputs_than_labels_give_no_score(folder, runtime):
    told(folder, labels=["red", "blue"])
    (folder / "categories.json").write_text(json.dumps({"red": "custom/red", "blue": None}))
    error = fault(folder)
    assert error.code == "safety.classifier_broken" and "has 3 numbers, and its manifest 2 labels" in error.message


def test_a_file_that_is_no_graph_gives_no_score(folder, runtime):
    (folder / "model.onnx").write_bytes(b"none")
    assert fault(folder).code == "safety.classifier_broken"
    (folder / "model.onnx").unlink()
    assert fault(folder).code == "safety.classifier_broken"


def test_onnxruntime_computes_it_where_it_is_there(folder):
    pytest.importorskip("onnxruntime")
    assert scores(folder) == pytest.approx({"custom/red": 1.0, "custom/blue": 0.0})
    assert scores(folder, GREY) == pytest.approx({"custom/red": 127 / 255, "custom/blue": 127 / 255})
    (folder / "model.onnx").write_bytes(graph()[:-20])
    assert fault(folder).code == "safety.classifier_broken"
