import hashlib
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

PYTHON = Path(__file__).parents[1]
ROOT = PYTHON.parent
sys.path.insert(0, str(PYTHON))

MODEL = {"id": "darkroom-tiny", "path": str(ROOT / "models" / "darkroom-tiny"), "body_hash": "a" * 64}
REQUEST = {
    "model": MODEL,
    "prompt": "a red circle on a blue background",
    "negative_prompt": "",
    "width": 64,
    "height": 48,
    "steps": 8,
    "guidance": 3.0,
    "seed": 7,
    "sampler": "Euler a",
}


class Child:
    """The real child over its pipes; collects frames by request id."""

    def __init__(self, attempts, device="cpu", threads=1, checkpoint=None, protocol=(1, 1), models=(), environment=None):
        self.attempts = attempts
        self.last = 0
        self.frames = []
        self.pending = b""
        kept = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH") if key in os.environ}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "darkroom"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=open(attempts / "stderr.log", "ab"),
            env={**kept, "HOME": str(attempts), "PYTHONPATH": str(PYTHON), "HF_HUB_OFFLINE": "1", **(environment or {})},
        )
        self.hello = self.send(
            "worker.hello",
            {
                "protocol": {"min": protocol[0], "max": protocol[1]},
                "worker_id": "w",
                "device": device,
                "threads": threads,
                "roots": {"models": [str(ROOT / "models"), *models], "attempts": str(attempts)},
                "checkpoint": checkpoint or {"interval_s": 60, "calls": None},
            },
        )

    def send(self, action, data):
        self.last += 1
        frame = {"request_id": str(self.last), "action": action, "data": data}
        self.process.stdin.write(json.dumps(frame).encode() + b"\n")
        self.process.stdin.flush()
        return str(self.last)

    def raw(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def work(self, verb, data=None, files=None, checkpoint=None, session="s1", **changes):
        place = self.attempts / f"attempt-{self.process.pid}-{self.last}"
        place.mkdir()
        given = {**(data or REQUEST), **changes}
        if verb == "encode":
            given = {key: given[key] for key in ("model", "prompt", "negative_prompt")}
        if verb == "decode":
            given = {key: given[key] for key in ("model", "width", "height")}
        whole = {"session_id": session, "dir": str(place), "input": given, "files": files or {}, "checkpoint": checkpoint}
        return self.send(f"inference.{verb}", whole)

    def next(self, timeout_s=60):
        """The next frame; None at the end of the stream."""
        end = time.monotonic() + timeout_s
        while b"\n" not in self.pending:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))
            if not ready:
                raise TimeoutError(f"no frame within {timeout_s} s; so far {self.frames[-5:]}")
            chunk = os.read(self.process.stdout.fileno(), 1 << 20)
            if not chunk:
                return None
            self.pending += chunk
        line, _, self.pending = self.pending.partition(b"\n")
        frame = json.loads(line)
        self.frames.append(frame)
        return frame

    def until(self, request_id, *kinds, timeout_s=60):
        """The next frame of a request that is of one of the kinds; by default its terminal one."""
        kinds = kinds or ("result", "released", "error")
        while frame := self.next(timeout_s):
            if frame["request_id"] == request_id and frame["data"].get("type") in kinds:
                return frame["data"]
        raise EOFError(f"the child ended with {self.process.wait(10)} before {request_id} was answered")

    def ready(self):
        return self.until(self.hello)["output"]

    def run(self, verb, **more):
        return self.until(self.work(verb, **more))

    def vitals(self):
        return self.until(self.send("worker.ping", {}))["output"]

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def given(file):
    """A file that the child made, as an input of the next request."""
    content = Path(file["path"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == file["sha256"]
    assert len(content) == file["bytes"]
    return {key: file[key] for key in ("path", "sha256", "call") if key in file}


@pytest.fixture
def spawn(tmp_path):
    children = []

    def start(**options):
        children.append(Child(tmp_path, **options))
        return children[-1]

    yield start
    for child in children:
        child.close()


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """One child for all tests that leave it as they found it; one checkpoint a call."""
    child = Child(tmp_path_factory.mktemp("shared"), checkpoint={"interval_s": 60, "calls": 1})
    child.ready()
    yield child
    child.close()


@pytest.fixture(scope="session")
def fresh(tmp_path_factory):
    """Another such process."""
    child = Child(tmp_path_factory.mktemp("fresh"))
    child.ready()
    yield child
    child.close()
