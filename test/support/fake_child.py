"""The product's own child with a backend that draws nothing: its real frames, queue and loop, without torch, with
faults on demand.

Its bytes are hashes of the request and the facts of its class, so tests can compare them; a checkpoint really holds the
state of the chain, and going on from it gives the same bytes as never having stopped.

    fake_child.py [--call-ms 5] [--load-ms 0] [--import-ms 0] [--heartbeat-ms 2000] [--build TEXT] [--device-name TEXT]
                  [--numerics 1] [--uuid UUID] [--fault NAME[:ARG][@CALL]]... [--once FILE] [--die-when FILE]
                  [--gates FOLDER] [--holds N]

With `--gates FOLDER` a denoise step whose seed has a file there is held once it has done as many calls as the file
says, until the file is gone or the step is paused or cancelled: what a test does meanwhile does not depend on time.
With `--die-when FILE` it exits 1 before the first frame whenever that file is there.

With `--holds N` it keeps so many models at a time, as a device with little memory does.

Faults with `@CALL` fire when that many denoise calls are done; with `--once FILE` each fires a single time over all
restarts.

    hang@5            the device thread stops, the heartbeat goes on
    freeze@5          the whole process stops, as by SIGSTOP
    crash@5           dies of SIGKILL
    exit:75@5         exits with that code
    garbage@5         writes a line that is not JSON
    partial-line@5    writes half a frame, then dies
    long-line@5       writes a line of 2 MiB
    stdout-noise@5    print(), a raw write and a grandchild on standard output
    slow@5            from then on every call takes ten times as long
    error:CODE@5      ends the request with that error
    duplicate-terminal  sends every terminal frame of work twice
    die-after:ACTION    dies of SIGKILL right behind the terminal frame of that action
    late-after-cancel   after `session.cancelled` sends progress and a result
    mute                never answers the handshake
    refuse              answers the handshake with an error and exits 64
    other-schema        greets with another schema than the node has
    die-at-start        exits 1 before the first frame
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "python"))

from darkroom.process import follow_parent, take_pipes

LINES_IN, LINES_OUT = take_pipes()

import argparse
import hashlib
import json
import signal
import threading
import time
from types import SimpleNamespace

from darkroom import exactness, frames, logs, registry, schema
from darkroom.child import Child
from darkroom.device_loop import Prepared
from darkroom.errors import DarkroomError, Paused
from darkroom.memory import Peaks
from darkroom.model import Models
from darkroom.runtime import LiveTensors, Runtime
from darkroom.writer import Writer


class Fault:
    def __init__(self, text, marker):
        body, _, call = text.partition("@")
        self.name, *self.args = body.split(":")
        self.call = int(call) if call else None
        self._marker = marker

    def fires(self):
        if self._marker is None:
            return True
        try:
            os.close(os.open(self._marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        return True


class Faults:
    def __init__(self, options):
        self._all = [Fault(text, f"{options.once}.{i}" if options.once else None) for i, text in enumerate(options.fault)]

    def fire(self, name, call=None, args=None):
        """The fault of that name at that call, if it fires; with `args`, only one that was given them."""
        for fault in self._all:
            if fault.name == name and fault.call == call and args in (None, fault.args) and fault.fires():
                return fault
        return None


class FaultyWriter(Writer):
    """Talks on behind terminal frames of work, where it was told to."""

    def __init__(self, descriptor, faults):
        super().__init__(descriptor)
        self._faults = faults

    def send(self, request_id, action, data):
        if (request_id, action) == ("0", "worker.hello") and self._faults.fire("other-schema"):
            data = {**data, "schema": "0" * 64}
        super().send(request_id, action, data)
        if action not in schema.OPERATIONS or data.get("type") not in ("result", "released", "error"):
            return
        if self._faults.fire("duplicate-terminal"):
            super().send(request_id, action, data)
        if self._faults.fire("die-after", args=[action]):
            self.kill()
        if data.get("code") == "session.cancelled" and action == "inference.denoise" and self._faults.fire("late-after-cancel"):
            file = {"path": "/nowhere", "sha256": "0" * 64, "bytes": 0}
            super().send(request_id, action, {"type": "progress", "stage": "run", "call": 9, "calls": 9})
            super().send(request_id, action, frames.result(files={"latents": file}))

    def kill(self):
        self.flush(5)
        os.kill(os.getpid(), signal.SIGKILL)


def fast_of(request, calls, why):
    """What a picture of the class `fast` used: it has no blocks, and computes every other call."""
    blocks = {"blocks": [], "build": "fake", "functions": 0, "from_cache": 0, "seconds": 0}
    used = {} if why else {"compile": blocks}
    said = {"used": ["compile"] if used else [], "not_used": [{"way": "compile", "why": why}] if why else [], "rows": 1}
    if "step_cache" in request:
        said["used"].append("step-cache")
        used["step_cache"] = {"threshold": request["step_cache"], "computed": calls - calls // 2, "reused": calls // 2}
    return {**said, **used}


class FakeModel:
    """A family without weights."""

    parts = ()
    shares = True
    bytes = 1000
    load_s = 0.0

    @classmethod
    def load(cls, tools, device):
        for _ in range(10):
            time.sleep(cls.load_s / 10)
            tools.loaded(tools.data.get("weight_bytes", 0) // 10)
        return cls()


class FakeModels(Models):
    """Holds so many models; the one used longest ago goes for another."""

    holds = 1000

    def get(self, reference, tools):
        while (reference["id"], reference["body_hash"]) not in self._known and len(self._known) >= self.holds:
            self.forget(next(iter(self._known)))
        return super().get(reference, tools)


class FakeWeights:
    """Reads nothing; tells as much as the cache offered, and that it would have come from disk without it."""

    offered = 0

    def offer(self, files):
        self.offered = sum(file["bytes"] for file in files)

    def withdraw(self, inodes):
        pass

    def wait(self):
        pass

    def measure(self):
        return SimpleNamespace(ram=self.offered, disk=0 if self.offered else 1000, registered=0)


class FakeAdapters:
    """Has read none. So have the classifiers."""

    def clear(self):
        pass


class FakeTensor:
    def __init__(self, nbytes):
        self.nbytes = nbytes


class FakeBackend:
    def __init__(self, options, faults, writer):
        self._options, self._faults, self._writer = options, faults, writer
        self._call_s = options.call_ms / 1000
        FakeModel.load_s = options.load_ms / 1000
        FakeModels.holds = options.holds

    def load(self, hello, progress):
        if self._faults.fire("mute"):
            threading.Event().wait()
        if self._faults.fire("refuse"):
            raise RuntimeError("told to refuse the handshake")
        progress(0, 1)
        time.sleep(self._options.import_ms / 1000)
        progress(1, 1)

    def open(self, hello, wanted):
        kind, _, index = hello["device"].partition(":")
        libraries = ("torch", "diffusers", "transformers", "tokenizers", "safetensors")
        described = {
            "build": {"python": "3", **dict.fromkeys(libraries, self._options.build), "numerics": self._options.numerics},
            "hardware": {
                "kind": kind,
                "name": self._options.device_name,
                "uuid": self._options.uuid,
                "index": int(index or 0),
                "capability": None,
                "driver": None,
                "total_bytes": None,
                "arch": "fake",
                "vector": "none",
                "math": "hash",
                "threads": hello["threads"],
            },
            "settings": {"dtype": "float32", "attention": "none", "deterministic": True, "tf32": False, "tiling": False, "offload": "none"},
        }
        fast = {"why": self._options.cannot_compile, "uncached": None}
        # Whatever it says of its hardware, it holds nothing outside its process.
        device = SimpleNamespace(type="cpu", index=0)
        runtime = Runtime(
            device=device,
            roots=hello["roots"],
            checkpoint=hello["checkpoint"],
            preview_s=hello["preview_s"],
            models=FakeModels(
                device,
                hello["roots"]["models"],
                dict.fromkeys([*schema.DOCUMENT["families"], "controlnet", "upscaler", "preprocessor"], FakeModel),
                lambda _reference, _fill, tools: tools,
                FakeWeights(),
                lambda held: None,
            ),
            adapters=FakeAdapters(),
            classifiers=FakeAdapters(),
            faces=FakeAdapters(),
            live=LiveTensors(),
            peaks=Peaks(device),
            facts=exactness.facts(**described),
            wanted=wanted,
        )
        return Prepared(runtime, {**described, "facts": runtime.facts, "fast": fast})

    def operation(self, action):
        drawing = {f"inference.{verb}": getattr(self, verb) for verb in ("encode", "encode_picture", "denoise", "enlarge", "decode")}
        drawing["postprocessing.upscale"] = self.upscale
        drawing["postprocessing.check"] = self.check
        drawing["postprocessing.score"] = self.score
        return drawing.get(action) or registry.operation(action)

    # --- operations ---

    def encode(self, tools):
        tools.runtime.models.get(tools.input["model"], tools)
        tools.check_stop(can_pause=True)
        tools.progress("run")
        heard = {name: read(tools.input[name]) for name in ("prompt", "negative_prompt")}
        return frames.result(files={"conditioning": tools.write("conditioning", conditioning_of(tools))}, stats={"tokens": heard})

    def encode_picture(self, tools):
        tools.runtime.models.get(tools.input["model"], tools)
        tools.check_stop(can_pause=True)
        tools.progress("run")
        content = digest([tools.input, [digest((tools.read(name)[0] or b"").hex()) for name in ("picture", "mask")]]).encode()
        return frames.result(files={"picture_latents": tools.write("picture_latents", content)})

    def denoise(self, tools):
        started = time.monotonic()
        request = tools.input
        _, load_s = tools.runtime.models.get(request["model"], tools)
        tools.progress("run")
        calls = request["steps"] * 2 - 1 if request["sampler"] == "Heun" else request["steps"]
        conditioning, _ = tools.read("conditioning")
        stats = {"remade": [] if conditioning else ["conditioning"], "resumed_from": 0, "checkpoint_refused": None}
        identity = digest([request, tools.runtime.facts, digest((conditioning or conditioning_of(tools)).hex())])
        state, first = identity, 0
        try:
            if (found := tools.read_checkpoint()) is not None:
                state, first = resume(*found, identity)
        except (OSError, ValueError) as error:
            stats["checkpoint_refused"] = str(error)
        stats["resumed_from"] = first
        # Held for as long as the step runs.
        held = FakeTensor(request["width"] * request["height"])
        tools.hold([held])
        tools.advance(first)

        def checkpoint(call):
            content = json.dumps({"identity": identity, "state": state, "call": call}).encode()
            tools.save_checkpoint(call, lambda: content)

        for call in range(first, calls):
            self.misbehave(tools, call)
            with tools.runtime.turn.given_away():
                self.wait_at_gate(tools, request["seed"], call)
            tools.check_stop()
            if tools.stop == "pause":
                if call == first:
                    raise Paused
                checkpoint(call)
                raise Paused(tools.finish_checkpoints())
            with tools.runtime.turn.given_away():
                time.sleep(self._call_s)
            state = digest([state, call])
            rate = 1 / max(self._call_s, 1e-4)
            tools.progress("run", call=call + 1, calls=calls, rate=rate, eta_s=(calls - call - 1) / rate)
            if call + 1 < calls and tools.checkpoint_due(call + 1):
                checkpoint(call + 1)
        self.misbehave(tools, calls)
        tools.check_stop()
        tools.finish_checkpoints()
        latents = hashlib.shake_256(state.encode()).digest(request["height"] * request["width"])
        stats |= {"calls": calls - first, "load_s": load_s, "seconds": time.monotonic() - started}
        if request.get("class") == "fast":
            stats["fast"] = fast_of(request, calls - first, self._options.cannot_compile)
        return frames.result(files={"latents": tools.write("latents", latents)}, stats=stats)

    def enlarge(self, tools):
        tools.runtime.models.get(tools.input["model"], tools)
        tools.check_stop(can_pause=True)
        tools.progress("run")
        latents, problem = tools.read("latents")
        if latents is None:
            raise DarkroomError("artifact.missing", f"the latents cannot be used: {problem}", field="files.latents")
        return frames.result(files={"picture_latents": tools.write("picture_latents", digest([tools.input, latents.hex()]).encode())})

    def decode(self, tools):
        tools.runtime.models.get(tools.input["model"], tools)
        tools.check_stop(can_pause=True)
        tools.progress("run")
        latents, problem = tools.read("latents")
        if latents is None:
            raise DarkroomError("artifact.missing", f"the latents cannot be used: {problem}", field="files.latents")
        # A region goes back into its picture.
        size = tools.input["picture"] if tools.input.get("mask", {}).get("area") == "masked" else tools.input
        pixels = hashlib.shake_256(latents).digest(size["width"] * size["height"] * 3)
        return frames.result({"tiles": 0}, files={"pixels": tools.write("pixels.rgb", pixels)})

    def upscale(self, tools):
        request = tools.input
        tools.check_stop(can_pause=True)
        if isinstance(request["upscaler"], dict):
            tools.runtime.models.get(request["upscaler"], tools)
        tools.progress("run", call=1, calls=1)
        picture, problem = tools.read("picture")
        if picture is None:
            raise DarkroomError("inference.picture_unreadable", f"the picture cannot be used: {problem}", field="picture")
        pixels = hashlib.shake_256(digest([request, picture.hex()]).encode()).digest(request["width"] * request["height"] * 3)
        made = {"has_alpha": False, "network": None if isinstance(request["upscaler"], str) else "Fake", "tile": None}
        return frames.result(made, files={"pixels": tools.write("pixels.raw", pixels)})

    def check(self, tools):
        """Each classifier is what its `fake.json` says: `scores` by category, a `fault`, or an `answer` as it is. With
        `odd` its scores are 0 for every other picture."""
        tools.check_stop(can_pause=True)
        tools.progress("run")
        pixels, problem = tools.read("picture")
        if pixels is None:
            raise DarkroomError("artifact.missing", f"the pixels cannot be used: {problem}", field="files.picture")
        return frames.result({"scores": self.said(tools, pixels)})

    def score(self, tools):
        made = []
        for number in range(len(tools.input["pictures"])):
            tools.check_stop(can_pause=True)
            file, problem = tools.read(f"picture{number}")
            made.append({"scores": [] if file is None else self.said(tools, file), "problem": problem})
        return frames.result({"pictures": made})

    def said(self, tools, pixels):
        made = []
        for reference in tools.input["classifiers"]:
            told = json.loads(Path(reference["path"], "fake.json").read_text())
            if "fault" in told:
                self.misbehave(tools, None, Faults(SimpleNamespace(fault=[told["fault"]], once=None)))
            if "answer" in told:
                head = json.dumps({"request_id": tools.request_id, "action": tools.action})[:-1]
                self._writer.put(f'{head}, "data": {{"type": "result", "output": {told["answer"]}, "files": {{}}, "stats": {{}}}}}}\n'.encode())
                threading.Event().wait()
            odd = not told.get("odd") or hashlib.sha256(pixels).digest()[0] % 2
            made.append([{"category": category, "score": score if odd else 0.0} for category, score in told["scores"].items()])
        return made

    # --- faults ---

    def misbehave(self, tools, call, faults=None):
        def fires(name):
            fault = (faults or self._faults).fire(name, call)
            if fault:
                # Everything before the fault has been heard.
                tools.finish_checkpoints()
                self._writer.flush(5)
            return fault

        if fires("hang"):
            threading.Event().wait()
        if fires("freeze"):
            os.kill(os.getpid(), signal.SIGSTOP)
        if fires("crash"):
            self._writer.kill()
        if fault := fires("exit"):
            os._exit(int(fault.args[0]))
        if fires("garbage"):
            self._writer.put(b"Loading pipeline components...: 100%|##########| 5/5\n")
        if fires("partial-line"):
            self._writer.put(b'{"request_id":"1","action":"inference.den')
            self._writer.kill()
        if fires("long-line"):
            self._writer.put(b"x" * (2 * schema.LINE_CAP) + b"\n")
        if fires("stdout-noise"):
            print("noise from print", flush=True)
            os.write(1, b"noise from a raw write\n")
            os.system("echo noise from a grandchild")
        if fires("slow"):
            self._call_s *= 10
        if fault := fires("error"):
            raise DarkroomError(fault.args[0], f"asked for by a fault at call {call}")

    def wait_at_gate(self, tools, seed, call):
        while self._options.gates is not None and tools.stop is None:
            try:
                if call < int(Path(self._options.gates, str(seed)).read_text()):
                    return
            except FileNotFoundError:
                return
            tools.advance()
            time.sleep(0.02)


def digest(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def conditioning_of(tools):
    request = tools.input
    return digest([request["model"]["body_hash"], request["prompt"], request["negative_prompt"], tools.runtime.facts]).encode()


def read(text):
    """What of a text is read: its first 75 words, a token each."""
    words = text.split()
    return {"read": len(words[:75]), "dropped": len(words[75:]), "dropped_text": " ".join(words[75:])}


def resume(content, given, identity):
    """(state, call). Raises ValueError."""
    if hashlib.sha256(content).hexdigest() != given["sha256"]:
        raise ValueError("the file does not match its SHA-256")
    made = json.loads(content)
    if made["identity"] != identity:
        raise ValueError("it belongs to another request or build")
    return made["state"], made["call"]


def parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--call-ms", type=float, default=5)
    parser.add_argument("--load-ms", type=float, default=0)
    parser.add_argument("--import-ms", type=float, default=0)
    parser.add_argument("--heartbeat-ms", type=float, default=2000)
    parser.add_argument("--build", default="fake")
    parser.add_argument("--device-name", default="Fake CPU")
    parser.add_argument("--numerics", type=int, default=1)
    parser.add_argument("--uuid")
    parser.add_argument("--fault", action="append", default=[])
    parser.add_argument("--once")
    parser.add_argument("--die-when", default="")
    parser.add_argument("--gates")
    parser.add_argument("--holds", type=int, default=1000)
    parser.add_argument("--cannot-compile")
    return parser.parse_args()


def main():
    options = parse_arguments()
    faults = Faults(options)
    follow_parent()
    if os.path.exists(options.die_when) or faults.fire("die-at-start"):
        print("fake child: told to die at the start", file=sys.stderr)
        os._exit(1)
    print(json.dumps({"level": "debug", "msg": "fake child started", "pid": os.getpid()}), file=sys.stderr, flush=True)
    writer = FaultyWriter(LINES_OUT, faults)
    Child(LINES_IN, writer, FakeBackend(options, faults, writer), logs.start(), options.heartbeat_ms / 1000).run()


main()
