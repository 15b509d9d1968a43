"""What a module brings along: the process can be imported in milliseconds, and starts nothing."""

import os
import subprocess
import sys

import pytest
from conftest import PYTHON

LIGHT = (
    "backend", "child", "device_loop", "errors", "exactness", "families", "faults", "frames", "logs", "memory", "model", "process",
    "registry", "requests", "runtime", "samplers", "schema", "tools", "writer", "__main__",
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
    assert files - set(LIGHT) - {"__init__"} == {"checkpoint", "inference", "schedule", "tensors"}
