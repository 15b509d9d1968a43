"""Pickles: a process that has closed itself off, what it makes of tables of tensors, and what it never does."""

import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import PYTHON
from safetensors.torch import load_file

from darkroom import convert

WEIGHTS = {"a.weight": torch.arange(6, dtype=torch.float16).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}


class Marking:
    """Its pickle makes a file when its code runs."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.system, (f"touch '{self.mark}'",)


def run(source, target):
    """(its exit status, the last line that it says)."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PYTHON), "HOME": str(target.parent)}
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "darkroom.convert", str(source), str(target)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = ended.stdout.splitlines()
    return ended.returncode, json.loads(lines[-1]) if lines else ended.stderr


def test_a_table_becomes_safetensors(tmp_path):
    shared = torch.zeros(4)
    torch.save({"state_dict": {**WEIGHTS, "c": shared, "d": shared[1:3], "step": 3}, "optimizer": {}}, tmp_path / "in.ckpt")
    status, told = run(tmp_path / "in.ckpt", tmp_path / "out.safetensors")
    made = load_file(tmp_path / "out.safetensors")
    assert (status, told["tensors"], told["skipped"]) == (0, 4, ["step"])
    assert all(torch.equal(made[name], tensor) for name, tensor in WEIGHTS.items())
    assert made["d"].shape == (2,)


def test_code_in_a_pickle_never_runs(tmp_path):
    mark = tmp_path / "mark"
    with open(tmp_path / "bare.ckpt", "wb") as file:
        pickle.dump({"state_dict": Marking(mark)}, file, protocol=2)
    torch.save({"state_dict": {"a": torch.ones(1)}, "extra": Marking(mark)}, tmp_path / "zipped.pt")
    for name in ("bare.ckpt", "zipped.pt"):
        status, told = run(tmp_path / name, tmp_path / "out.safetensors")
        assert (status, told["code"]) == (1, "not_converted")
    assert not mark.exists()
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.long
def test_a_bomb_ends_at_its_limits(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "small.pt")
    # The same archive, with a tensor that unpacks to 2 GiB of zeros.
    bomb_path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(tmp_path / "small.pt") as small, zipfile.ZipFile(bomb_path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bomb:
        for entry in small.infolist():
            if not entry.filename.endswith("/data/0"):
                bomb.writestr(entry.filename, small.read(entry))
                continue
            with bomb.open(entry.filename, "w", force_zip64=True) as tensor:
                for _ in range(2 * 1024):
                    tensor.write(bytes(1 << 20))
    status, _ = run(bomb_path, tmp_path / "out.safetensors")
    assert status != 0
    assert not (tmp_path / "out.safetensors").exists()


def test_the_process_is_closed_off(tmp_path):
    acts = {
        "a socket": "socket.socket()",
        "two": "socket.socketpair()",
        "a process": "os.fork()",
        "a program": "subprocess.run(['true'])",
        "another way": "os.posix_spawn('/bin/true', ['true'], {})",
        "a signal": "os.kill(os.getppid(), 0)",
        "another program": "os.execv('/bin/true', ['true'])",
    }
    tries = [f"try: {act}; print({name!r})\nexcept PermissionError: print('refused')" for name, act in acts.items()]
    threads = ["thread = threading.Thread(target=print, args=('thread',))", "thread.start()", "thread.join()"]
    begins = ["import os, socket, subprocess, threading", "from darkroom import sandbox", "sandbox.close_off()"]
    script = "\n".join([*begins, *tries, *threads])
    environment = {"PYTHONPATH": str(PYTHON)}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.split() == ["refused"] * len(acts) + ["thread"]


@pytest.mark.parametrize(
    ("saved", "names"),
    [
        (WEIGHTS, ["a.weight", "b"]),
        ({"params_ema": WEIGHTS, "params": {"x": torch.ones(1)}}, ["a.weight", "b"]),
        ({"model": {"state_dict": WEIGHTS}}, ["a.weight", "b"]),
        ({"string_to_param": {"*": torch.ones(2, 8)}, "name": "cat"}, ["emb_params"]),
        (torch.ones(2, 8), ["emb_params"]),
    ],
)
def test_where_tools_keep_their_tables(saved, names):
    tensors, _ = convert.tensors_of(convert.table_of(saved))
    assert list(tensors) == names


@pytest.mark.parametrize("saved", [{}, [], {"a": 1}, None, {"state_dict": {"state_dict": {"state_dict": {"a": torch.ones(1)}}}}])
def test_what_holds_no_table_is_refused(saved, capsys):
    with pytest.raises(SystemExit):
        convert.table_of(saved)
    assert json.loads(capsys.readouterr().out)["code"] == "not_converted"


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 1025, 3, "\x1b[31m"])
def test_names_that_are_none_are_refused(name, capsys):
    with pytest.raises(SystemExit):
        convert.tensors_of({name: torch.ones(1)})
    assert json.loads(capsys.readouterr().out)["code"] == "not_converted"


def test_the_source_names_no_other_reader():
    """`torch.load` stands once in the package, and `pickle` nowhere."""
    texts = {path.name: path.read_text() for path in (Path(PYTHON) / "darkroom").rglob("*.py")}
    assert [name for name, text in texts.items() if re.search(r"(?<!safetensors\.)torch\.load\(", text)] == ["convert.py"]
    assert not [name for name, text in texts.items() if "import pickle" in text]
