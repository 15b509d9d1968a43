"""What a module brings along: the process can be imported in milliseconds, and starts nothing."""

import os
import subprocess
import sys

import pytest
from conftest import PYTHON

LIGHT = (
    "adapter_keys", "backend", "child", "compiling", "device_loop", "errors", "exactness", "families", "fast", "faults", "frames",
    "gguf", "graphs", "logs", "memory", "model", "model_files", "process", "profiles", "prompts", "read_ahead", "registry",
    "requests", "runtime", "samplers", "sandbox", "schema", "sharing", "together",
    "tools", "writer", "__main__",
)  # fmt: skip


@pytest.mark.parametrize("module", LIGHT)
def test_a_module_of_the_process_starts_no_thread_and_brings_no_torch(module):
    program = f"import sys, threading, darkroom.{module}; print('torch' in sys.modules, threading.active_count())"
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(PYTHON)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "1"]


def test_every_other_module_computes_with_tensors():
    files = {path.stem for path in (PYTHON / "darkroom").glob("*.py")} | {"families"}
    assert files - set(LIGHT) - {"__init__"} == {
        *("adapters", "checkpoint", "classifiers", "control", "convert", "differences", "drawing", "enlarging", "faces", "flow_schedule"),
        *("ggml_blocks", "guidance", "inference", "kernels", "measure", "noise", "onnx_classifiers", "onnx_graphs", "other_upscalers"),
        *("pace", "patch", "pictures", "postprocessing", "preparation", "preprocess", "preprocessors", "previews", "references"),
        *("schedule", "sigmas", "solvers", "step_cache", "tensors", "textual_inversion", "training", "upload", "upscalers"),
        *("upscaling", "weight_files"),
    }
