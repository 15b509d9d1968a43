"""The process: its handshake, its pipes, its ends, and what it refuses to read."""

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from conftest import PYTHON

from darkroom import exactness, schema
from darkroom.tools import inside

# --- handshake ---


def test_the_child_says_what_decides_the_bits(fresh, device):
    ready = fresh.of(fresh.hello, "result")[0]["output"]
    assert ready["build"]["numerics"] == exactness.NUMERICS
    assert ready["hardware"]["kind"] == device.partition(":")[0]
    assert ready["hardware"]["threads"] == 1
    assert ready["hardware"]["math"] != "unknown"
    assert ready["settings"] == {
        "dtype": "float32" if device == "cpu" else "float16",
        "attention": "sdpa",
        "deterministic": True,
        "tf32": False,
        "tiling": False,
        "offload": "none",
    }
    if device != "cpu":
        named = ("uuid", "capability", "driver", "total_bytes")
        assert all(ready["hardware"][name] for name in named)
    calls = [frame["call"] for frame in fresh.of(fresh.hello, "progress")]
    # One that the next one overtakes is not sent.
    assert (calls[0], calls[-1]) == (0, 3)
    assert calls == sorted(set(calls))


@pytest.mark.long
def test_a_spare_imports_and_opens_its_device_only_when_it_is_taken_into_use(spawn, fork, shared, device):
    # A device that is not there shows when it is opened.
    spare, other = spawn(spare=True), fork(spare=True, device="cuda:99")
    for child in (spare, other):
        while child.until(child.hello, "progress", "result", "error") != {"type": "progress", "stage": "import", "call": 3, "calls": 3}:
            pass
    assert spare.until(spare.send("worker.ping", {}))["code"] == "worker.protocol"
    assert other.of(other.hello, "error") == []
    imports = spare.of(spare.hello, "progress")
    assert spare.until(spare.send("worker.open", {})) == {"type": "result", "output": {}, "files": {}, "stats": {}}
    assert spare.ready()["hardware"] == shared.of(shared.hello, "result")[0]["output"]["hardware"]
    # It has imported all there is, and does so once.
    assert [frame for frame in spare.of(spare.hello, "progress") if frame["stage"] == "import"] == imports
    assert spare.run("denoise")["files"]["latents"]["sha256"] == shared.run("denoise")["files"]["latents"]["sha256"]
    assert spare.until(spare.send("worker.open", {}))["code"] == "worker.protocol"
    other.send("worker.open", {})
    assert other.until(other.hello)["code"] == "worker.start_failed"
    assert other.ends() == 64


@pytest.mark.parametrize("how", ["end of the pipe", "shutdown", "open and shutdown"])
def test_a_spare_that_is_not_wanted_ends(spawn, fork, how):
    # Shut down within its imports, or when they are done.
    child = (fork if how.startswith("open") else spawn)(spare=True)
    child.until(child.hello, "progress")
    if how == "end of the pipe":
        child.process.stdin.close()
        # Within its imports too.
        assert child.ends(5) == 0
        return
    if how.startswith("open"):
        child.send("worker.open", {})
        child.ready()
    assert child.until(child.send("worker.shutdown", {}))["type"] == "result"
    assert child.ends() == 0


def test_a_child_of_another_version_refuses_and_ends(spawn):
    child = spawn(protocol=(2, 3))
    answer = child.until(child.hello)
    assert (answer["code"], answer["field"]) == ("worker.start_failed", "protocol")
    assert child.ends() == 64


def test_a_node_with_another_schema_is_refused_and_told_what_to_do(spawn):
    child = spawn(schema="0" * 64)
    answer = child.until(child.hello)
    assert (answer["code"], answer["field"]) == ("worker.start_failed", "schema")
    assert "install one version of both" in answer["message"]
    assert child.ends() == 64


def test_a_handshake_that_is_none_is_refused_and_ends_the_child(spawn):
    child = spawn(threads=0)
    answer = child.until(child.hello)
    assert (answer["code"], answer["field"]) == ("worker.protocol", "threads")
    assert child.ends() == 64


@pytest.mark.long
def test_a_device_that_is_not_there_ends_the_child_with_the_reason(fork):
    child = fork(device="mps")
    answer = child.until(child.hello)
    assert answer["code"] == "worker.start_failed"
    assert "device 'mps' is not supported; use cpu or cuda:N" in answer["message"]
    assert child.ends() == 64


def test_a_gpu_that_is_not_there_is_named():
    with pytest.raises(RuntimeError, match=r"device 'cuda:99' is not there: "):
        exactness.device("cuda:99")


def test_work_before_the_handshake_is_refused(spawn):
    child = spawn(greeted=False)
    answer = child.until(child.send("worker.ping", {}))
    assert answer["code"] == "worker.protocol"
    assert "before the handshake" in answer["message"]


def test_a_second_handshake_is_refused(fresh):
    answer = fresh.until(fresh.send("worker.hello", fresh.greeting))
    assert (answer["code"], answer["message"]) == ("worker.protocol", "the handshake came twice")
    assert fresh.vitals()["busy"] is None


# --- ends ---


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"garbage\n", "is not JSON"),
        (b'{"request_id":"1","action":"worker.ping"}\n', "data: is missing"),
        (b'{"request_id":"0","action":"worker.ping","data":{}}\n', "request id 0"),
        (b'{"request_id":"1","action":"worker.ping","data":{"x":NaN}}\n', "NaN is no JSON"),
        (b"[" * 100_000 + b"\n", "is not JSON"),
        (b'{"request_id":"1","action":"worker.ping","data":{"x":' + b"9" * 5000 + b"}}\n", "is not JSON"),
        (b"x" * schema.LINE_CAP, "over the cap"),
        (b"x" * (schema.LINE_CAP - 1) + b"\n\n", "is not JSON"),
    ],
    ids=["garbage", "no data", "id 0", "NaN", "deep", "a long number", "over the cap", "at the cap"],
)
def test_a_line_that_is_no_frame_ends_the_child(spawn, line, words):
    """Nobody can be told which request it was, and one that is never answered would wait for ever."""
    child = spawn(greeted=False)
    child.raw(line)
    assert child.ends() == 70
    assert words in child.log()[-1]["msg"]


@pytest.mark.parametrize("greeted", [True, False])
@pytest.mark.parametrize("rest", [b"", b'{"request_id":"1","act'])
def test_the_end_of_the_pipe_is_the_end_of_the_child(spawn, greeted, rest):
    child = spawn(greeted)
    child.raw(rest)
    child.process.stdin.close()
    assert child.ends() == 0


def test_a_shutdown_before_the_handshake_is_answered(spawn):
    child = spawn(greeted=False)
    assert child.until(child.send("worker.shutdown", {}))["type"] == "result"
    assert child.ends() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_the_child_dies_with_its_parent_even_while_the_pipe_is_open(tmp_path):
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent("""
                import subprocess, sys, time
                child = subprocess.Popen([sys.executable, "-m", "darkroom"], stdin=sys.stdin, stdout=sys.stdout)
                print(child.pid, file=sys.stderr, flush=True)
                time.sleep(600)
            """),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(PYTHON)},
    )
    child = int(parent.stderr.readline())
    assert json.loads(parent.stdout.readline())["data"] == {"protocol": 1, "pid": child, "schema": schema.SHA256}
    parent.kill()
    parent.wait()
    # Our end of its standard input is still open. Orphans are reaped by init, or stay as a corpse.
    end = time.monotonic() + 30
    while is_running(child):
        assert time.monotonic() < end, "the child outlived its parent"
        time.sleep(0.02)
    for pipe in (parent.stdin, parent.stdout, parent.stderr):
        pipe.close()


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_an_interrupt_from_the_terminal_is_the_nodes_business(fresh):
    fresh.process.send_signal(signal.SIGINT)
    assert fresh.run("denoise", steps=1)["type"] == "result"


# --- pipes ---


@pytest.mark.long
def test_what_libraries_print_never_reaches_the_pipe(spawn, device):
    """oneDNN and MKL print to standard output from C when they are told to. `until` reads every line of the pipe as a
    frame."""
    child = spawn(environment={"ONEDNN_VERBOSE": "1", "MKL_VERBOSE": "1"})
    child.ready()
    assert child.run("denoise", steps=1)["type"] == "result"
    child.send("worker.shutdown", {})
    assert child.ends() == 0
    if device == "cpu":
        assert "onednn_verbose" in child.said()


def test_its_log_is_json_and_it_opens_no_connection(fresh, device):
    fresh.run("encode")
    for entry in fresh.log():
        assert {"ts", "level", "logger", "msg"} <= set(entry)
        assert entry["logger"] == "darkroom", entry
    # The driver of a GPU has a socket of its own, inside the machine.
    if sys.platform == "linux" and device == "cpu":
        opened = [os.readlink(link) for link in Path(f"/proc/{fresh.process.pid}/fd").iterdir()]
        assert [target for target in opened if target.startswith("socket:")] == []


# --- requests ---


def changed(path, value):
    def change(data):
        *above, last = path.split(".")
        for name in above:
            data = data[name]
        if value is ...:
            del data[last]
        else:
            data[last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("session_id", ..., "is missing"),
        ("session_id", 7, "must be string"),
        ("surprise", 1, "there is no such field"),
        ("dir", "attempt", "must match pattern"),
        ("dir", "/tmp/\0", "must match pattern"),
        ("dir", "/tmp/\ud800", "must be text of whole characters"),
        ("files", [], "must be object"),
        ("files", {"conditioning": {"path": "/x"}}, "is missing"),
        ("files.latents", {"path": "/x", "sha256": "0" * 64}, "there is no such field"),
        ("checkpoint", {"path": "/x", "sha256": "0" * 64}, ""),
        ("input.surprise", 1, "there is no such field"),
        ("input.prompt", "half \ud83d a pair", "must be text of whole characters"),
        ("input.prompt", None, "must be string"),
        ("input.width", 60, "must be multiple of 8"),
        ("input.width", 0, "must be bigger than or equal to 8"),
        ("input.height", 64.5, "must be integer"),
        ("input.steps", 0, "must be bigger than or equal to 1"),
        ("input.steps", True, "must be integer"),
        ("input.guidance", "3", "must be number"),
        ("input.guidance", 10**400, "must be a number"),
        ("input.seed", -1, "must be bigger than or equal to 0"),
        ("input.seed", 2**64, "must be smaller than or equal to"),
        ("input.model.body_hash", "abc", "must match pattern"),
        ("input.model.path", "models/x", "must match pattern"),
        ("input.model.family", "sd99", "must be one of"),
        ("input.sampler", "DPM adaptive", "must be one of"),
    ],
)
def test_a_bad_field_is_refused_by_name(fresh, path, value, words):
    data = fresh.data("denoise")
    changed(path, value)(data)
    answer = fresh.until(fresh.send("inference.denoise", data))
    assert (answer["code"], answer["type"]) == ("worker.protocol", "error")
    assert answer["field"].startswith(path)
    assert words in answer["message"]
    assert fresh.vitals()["busy"] is None


def test_a_number_too_large_for_a_number_is_refused(fresh):
    """JSON reads 1e999 as infinity."""
    frame = json.dumps({"request_id": "large", "action": "inference.denoise", "data": fresh.data("denoise", guidance=12345)})
    fresh.raw(frame.replace("12345", "1e999").encode() + b"\n")
    assert fresh.until("large")["field"] == "input.guidance"


@pytest.mark.parametrize("action", ["inference.paint", "darkroom.model", "__main__.main", "model.is_out_of_memory", ""])
def test_an_unknown_action_is_refused(fresh, action):
    answer = fresh.until(fresh.send(action, {}))
    assert (answer["code"], answer["field"]) == ("worker.action_unknown", "action")


def test_files_outside_the_attempt_folder_are_refused(fresh, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"secret")
    link, linked_file = fresh.attempts / "link", fresh.attempts / "linked-file"
    link.symlink_to(outside)
    linked_file.symlink_to(outside / "file")

    def refused(field, verb="denoise", **changes):
        data = {**fresh.data(verb), **changes}
        answer = fresh.until(fresh.send(f"inference.{verb}", data))
        assert (answer["type"], answer.get("code"), answer.get("field")) == ("error", "worker.path_refused", field), answer

    for folder in (outside, link, link / "below", fresh.attempts, fresh.attempts / ".." / "outside", Path("/")):
        refused("dir", dir=str(folder))
    for path in (outside / "file", linked_file, link / "file", fresh.attempts / "x" / ".." / ".." / "y", Path("/dev/stdin")):
        given = {"path": str(path), "sha256": "0" * 64}
        refused("files.conditioning.path", files={"conditioning": given})
        refused("files.latents.path", verb="decode", files={"latents": given})
        refused("checkpoint.path", checkpoint={**given, "call": 1})
    assert sorted(path.name for path in outside.iterdir()) == ["file"]
    for path in (link, linked_file):
        path.unlink()


def test_a_root_may_itself_be_reached_through_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert inside(tmp_path / "link" / "file", [tmp_path / "link"]) == str(tmp_path / "real" / "file")
    assert inside(tmp_path / "real" / "file", [tmp_path / "link"]) == str(tmp_path / "real" / "file")
    assert inside(tmp_path / "really", [tmp_path / "real"]) is None
    assert inside(tmp_path / "real", [tmp_path / "real"]) is None


def test_a_thread_that_dies_of_what_is_no_exception_ends_the_child():
    """Rust's panics come as such: a child that went on would look alive and answer nothing."""
    from darkroom.child import EXIT_INTERNAL, Child

    ended = []
    child = object.__new__(Child)
    child._log = logging.getLogger("a test")
    child._exit = ended.append

    def panic():
        raise BaseException("a panic")

    child._guard(panic)
    assert ended == [EXIT_INTERNAL]
