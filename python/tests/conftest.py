import copy
import hashlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

PYTHON = Path(__file__).parents[1]
ROOT = PYTHON.parent
sys.path.insert(0, str(PYTHON))

MODEL = {"id": "darkroom-tiny", "path": str(ROOT / "models" / "darkroom-tiny"), "body_hash": "a" * 64, "family": "sd1"}
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
SCHEMA = hashlib.sha256((PYTHON / "darkroom" / "schema.json").read_bytes()).hexdigest()
EVERY_CALL = {"interval_s": 60, "calls": 1}
NO_CHECKPOINTS = {"interval_s": 3600, "calls": None}
TERMINAL = ("result", "released", "error")


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="device that the children own: cpu, cuda, cuda:1")


@pytest.fixture(scope="session")
def device(request):
    return request.config.getoption("--device")


@dataclass
class Stall:
    request_id: str
    pipe: Path

    def end(self):
        self.pipe.read_bytes()


class Child:
    """The real child over its pipes; keeps every frame. `attempts`: its attempt folder."""

    def __init__(
        self,
        attempts,
        *,
        device="cpu",
        threads=1,
        checkpoint=NO_CHECKPOINTS,
        protocol=(1, 1),
        models=(),
        schema=SCHEMA,
        spare=False,
        environment=None,
    ):
        self.attempts = attempts
        self.errors = attempts / "stderr.log"
        self.last = 0
        self.frames = []
        self.pending = b""
        kept = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH") if key in os.environ}
        python_path = os.pathsep.join([str(PYTHON), *filter(None, [os.environ.get("PYTHONPATH")])])
        with open(self.errors, "ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "darkroom"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**kept, "HOME": str(attempts), "PYTHONPATH": python_path, "HF_HUB_OFFLINE": "1", **(environment or {})},
            )
        self.greeting = {
            "protocol": {"min": protocol[0], "max": protocol[1]},
            "schema": schema,
            "worker_id": "w",
            "device": device,
            "threads": threads,
            "spare": spare,
            "roots": {"models": [str(ROOT / "models"), *map(str, models)], "attempts": str(attempts)},
            "checkpoint": checkpoint,
        }

    def greet(self):
        """Sends the hello; the answer is waited for by `ready`."""
        self.hello = self.send("worker.hello", self.greeting)
        return self

    def ready(self):
        return self.until(self.hello)["output"]

    def send(self, action, data):
        self.last += 1
        self.raw(json.dumps({"request_id": str(self.last), "action": action, "data": data}).encode() + b"\n")
        return str(self.last)

    def raw(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def work(self, verb, *, files=None, checkpoint=None, session="s1", **changes):
        """Sends inference.<verb> for REQUEST with these changes, in an attempt folder of its own."""
        return self.send(f"inference.{verb}", self.data(verb, files=files, checkpoint=checkpoint, session=session, **changes))

    def data(self, verb, *, files=None, checkpoint=None, session="s1", **changes):
        folder = self.attempts / f"attempt-{self.process.pid}-{self.last}"
        folder.mkdir(exist_ok=True)
        names = {
            "encode": ("model", "prompt", "negative_prompt"),
            "denoise": tuple(REQUEST),
            "decode": ("model", "width", "height"),
        }[verb]
        given = copy.deepcopy({name: {**REQUEST, **changes}[name] for name in names})
        files = {name: self.given(file) for name, file in (files or {}).items()}
        checkpoint = checkpoint and self.given(checkpoint)
        return {"session_id": session, "dir": str(folder), "input": given, "files": files, "checkpoint": checkpoint}

    def given(self, file):
        """A file that some child made, as an input of this one: verified, and copied into its attempt folder."""
        content = Path(file["path"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
        assert len(content) == file["bytes"]
        path = self.attempts / f"{file['sha256'][:16]}.in"
        path.write_bytes(content)
        return {**{name: file[name] for name in ("sha256", "call") if name in file}, "path": str(path)}

    def next(self, timeout_s=120):
        """The next frame; None at the end of the stream."""
        end = time.monotonic() + timeout_s
        while b"\n" not in self.pending:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))
            if not ready:
                raise TimeoutError(f"no frame within {timeout_s} s; so far {self.frames[-5:]}; {self.said()[-2000:]}")
            chunk = os.read(self.process.stdout.fileno(), 1 << 20)
            if not chunk:
                assert self.pending == b"", "the stream ends within a line"
                return None
            self.pending += chunk
        line, _, self.pending = self.pending.partition(b"\n")
        frame = json.loads(line)
        assert set(frame) == {"request_id", "action", "data"}
        self.frames.append(frame)
        return frame

    def until(self, request_id, *kinds, timeout_s=120):
        """The next frame of a request that is of one of the kinds; by default its terminal one."""
        while frame := self.next(timeout_s):
            if frame["request_id"] == request_id and frame["data"].get("type") in (kinds or TERMINAL):
                return frame["data"]
        raise EOFError(f"the child ended with {self.process.wait(10)} before {request_id} was answered: {self.said()[-2000:]}")

    def stall(self, verb, call, **request):
        """Starts a step in a child that writes a checkpoint a call, and returns when the device thread waits in the
        middle of it: for the checkpoint at `call`, whose file is a pipe that nobody reads. One more call is done by
        then.
        """
        data = self.data(verb, **request)
        pipe = Path(data["dir"]) / f"checkpoint-{call}.safetensors.part"
        os.mkfifo(pipe)
        request_id = self.send(f"inference.{verb}", data)
        made = {"call": 0}
        while made["call"] < call - 1:
            made = self.until(request_id, "checkpoint", *TERMINAL)
            assert made["type"] == "checkpoint", made
        while (self.vitals()["busy"] or {}).get("call") != call + 1:
            time.sleep(0.01)
        return Stall(request_id, pipe)

    def of(self, request_id, kind):
        """The frames of a request so far that are of that kind."""
        return [frame["data"] for frame in self.frames if frame["request_id"] == request_id and frame["data"].get("type") == kind]

    def run(self, verb, **more):
        return self.until(self.work(verb, **more))

    def vitals(self):
        return self.until(self.send("worker.ping", {}))["output"]

    def models(self):
        """Ids of the resident models, the one used longest ago first."""
        return [model["id"] for model in self.vitals()["models"]]

    def said(self):
        """What it wrote to standard error."""
        return self.errors.read_text(errors="replace")

    def log(self):
        """The same as log entries. Raises ValueError at a line that is none."""
        return [json.loads(line) for line in self.said().splitlines()]

    def ends(self, timeout_s=30):
        """Its exit code, after the last frame."""
        while self.next(timeout_s):
            pass
        return self.process.wait(timeout_s)

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def spawn(tmp_path, device):
    """Starts children that end with the test; they have been greeted unless told `greeted=False`."""
    children = []

    def start(greeted=True, **options):
        folder = tmp_path / f"attempts-{len(children)}"
        folder.mkdir()
        children.append(Child(folder, **{"device": device, **options}))
        return children[-1].greet() if greeted else children[-1]

    yield start
    for child in children:
        child.close()


def lasting(tmp_path_factory, name, **options):
    folder = tmp_path_factory.mktemp(name)
    child = Child(folder, **options).greet()
    child.ready()
    yield child
    child.close()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def micro_folder(tmp_path_factory):
    """A model root for random models, which the lasting children know."""
    return tmp_path_factory.mktemp("micro")


@pytest.fixture(scope="session")
def micro(micro_folder):
    """A random model of noise prediction; darkroom-tiny is one of velocity prediction."""
    from micro import make_model

    return make_model(micro_folder / "micro")


@pytest.fixture(scope="session")
def shared(tmp_path_factory, device, micro_folder):
    """One child for all tests that leave it as they found it; one checkpoint a call."""
    yield from lasting(tmp_path_factory, "shared", device=device, checkpoint=EVERY_CALL, models=[micro_folder])


@pytest.fixture(scope="session")
def fresh(tmp_path_factory, device, micro_folder):
    """Another such process, to go on with what the first one began; without checkpoints."""
    yield from lasting(tmp_path_factory, "fresh", device=device, models=[micro_folder])
