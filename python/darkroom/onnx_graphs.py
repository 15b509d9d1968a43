"""Graphs of ONNX, by the package `onnxruntime`, on the CPU; it is nobody's duty to have it."""

from __future__ import annotations

import os
from typing import Any

import torch

from darkroom.errors import DarkroomError

GRAPH = "model.onnx"


def session(path: str, field: str, lacking: str) -> Any:
    """An `InferenceSession` of the graph in a folder. `lacking`: the code of the error where there is no onnxruntime.

    Raises that, OSError, and whatever onnxruntime throws for a file that is no graph.
    """
    try:
        import onnxruntime  # pyrefly: ignore[missing-import]
    # RuntimeError, OSError: one that does not fit this system.
    except (ImportError, RuntimeError, OSError) as error:
        raise DarkroomError(lacking, f"{path} is a graph of ONNX, and that needs onnxruntime: {error}", field=field) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    # As bytes: a graph cannot name other files of this machine.
    with open(os.path.join(path, GRAPH), "rb") as file:
        return onnxruntime.InferenceSession(file.read(), options, providers=["CPUExecutionProvider"])
