"""A Python child without torch: the same protocol, no pictures, faults on demand.

Its bytes are hashes of the request, the seed, the build and the device name, so tests can compare them; a checkpoint really holds the
state of the chain, and going on from it gives the same bytes as never having stopped. Standard library only; ready in well under 100 ms.

    fake_child.py [--call-ms 5] [--load-ms 0] [--import-ms 0] [--heartbeat-ms 2000] [--build TEXT] [--device-name TEXT]
                  [--numerics 1] [--uuid UUID] [--fault NAME[:ARG][@CALL]]... [--once FILE] [--die-when FILE]
                  [--gates FOLDER]

With `--gates FOLDER` a denoise step whose seed has a file there is held once it has done as many calls as the file says, until the file is
gone or the step is paused or cancelled: what a test does meanwhile does not depend on time.
With `--die-when FILE` it exits 1 before the first frame whenever that file is there.

Faults with `@CALL` fire when that many denoise calls are done; with `--once FILE` each fires a single time over all restarts.

    hang@5            the device thread stops, the heartbeat goes on
    freeze@5          the whole process stops, as by SIGSTOP
    crash@5           dies of SIGKILL
    exit:75@5         exits with that code
    garbage@5         writes a line that is not JSON
    partial-line@5    writes half a frame, then dies
    long-line@5       writes a line of 2 MiB
    stdout-noise@5    print(), a raw write and a grandchild on standard output
    slow@5            from then on every call takes ten times as long
    error:CODE:CLASS@5  ends the request with that error
    wrong-sha@5       the checkpoints from then on name a wrong SHA-256; without `@`: the result's files do
    duplicate-terminal  sends every terminal frame of work twice
    die-after:ACTION    dies of SIGKILL right behind the terminal frame of that action
    late-after-cancel   after `session.cancelled` sends progress and a result
    mute                never answers the handshake
    refuse              answers the handshake with an error and exits 64
    die-at-start        exits 1 before the first frame
"""

import os
import sys

# Descriptors first, as the real child does: nothing but this file's frames reaches the pipe.
FRAMES_IN, FRAMES_OUT = os.dup(0), os.dup(1)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
os.dup2(2, 1)
os.umask(0o077)

import argparse
import hashlib
import json
import queue
import signal
import threading
import time

BORN = time.monotonic()
LINE_CAP = 1_048_576
MODEL_BYTES = 1000
HAS_CHECKPOINTS = "inference.denoise"
WORK = ("inference.decode", "inference.denoise", "inference.encode", "memory.trim", "model.ensure")
REMEDY = "This is a test's fake child; read its --fault switches."


class Fault:
    def __init__(self, text, marker):
        body, _, call = text.partition("@")
        self.name, *self.args = body.split(":")
        self.call = int(call) if call else None
        self.marker = marker

    def fires(self):
        if self.marker is None:
            return True
        try:
            os.close(os.open(self.marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        return True


class Stop(Exception):
    """Ends a request with an error frame."""

    def __init__(self, code, error_class, message, **more):
        super().__init__(message)
        self.data = {"type": "error", "code": code, "class": error_class, "message": message, "remedy": REMEDY, **more}


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
    return parser.parse_args()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def safetensors(tensors, metadata=None):
    """`{name: (dtype, shape, bytes)}` as a safetensors file."""
    header, at = {}, 0
    if metadata:
        header["__metadata__"] = {key: str(value) for key, value in metadata.items()}
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(data for _, _, data in tensors.values())


def read_safetensors(data):
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    body = data[8 + length :]
    metadata = header.pop("__metadata__", {})
    return {name: body[slice(*entry["data_offsets"])] for name, entry in header.items()}, metadata


class Child:
    def __init__(self, options):
        self.options = options
        self.faults = [Fault(text, f"{options.once}.{i}" if options.once else None) for i, text in enumerate(options.fault)]
        self.writing = threading.Lock()
        self.work = queue.Queue()
        self.hello = None
        self.running = {}  # request id → "run" | "pause" | "cancel"
        self.uses = {}  # request id → model it uses or waits for
        self.busy = None  # [request id, action, call, since]
        self.sessions = {}
        self.models = {}  # id → when it was used last; the one used longest ago first
        self.call_s = options.call_ms / 1000

    # --- frames ---

    def send(self, request_id, action, data):
        text = json.dumps({"request_id": request_id, "action": action, "data": data}, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
        self.write(text.encode() + b"\n")

    def write(self, data):
        with self.writing:
            view = memoryview(data)
            while view:
                view = view[os.write(FRAMES_OUT, view) :]

    def finish(self, request_id, action, data):
        """The terminal frame: nothing of the request is held any more."""
        self.running.pop(request_id, None)
        self.uses.pop(request_id, None)
        self.send(request_id, action, data)
        if self.fault("duplicate-terminal"):
            self.send(request_id, action, data)
        if any(fault.name == "die-after" and fault.args == [action] and fault.fires() for fault in self.faults):
            os.kill(os.getpid(), signal.SIGKILL)
        if data.get("code") == "session.cancelled" and self.fault("late-after-cancel"):
            self.send(request_id, action, {"type": "progress", "stage": "run", "call": 9, "calls": 9})
            self.send(request_id, action, {"type": "result", "output": {}, "files": {}, "stats": {}})

    def fault(self, name, call=None):
        return next((fault for fault in self.faults if fault.name == name and fault.call == call and fault.fires()), None)

    # --- what it is ---

    def ready(self):
        kind, _, index = self.hello["device"].partition(":")
        build = self.options.build
        return {
            "protocol": 1,
            "pid": os.getpid(),
            "build": {
                "python": "3",
                "torch": build,
                "diffusers": build,
                "transformers": build,
                "tokenizers": build,
                "safetensors": build,
                "numerics": self.options.numerics,
            },
            "hardware": {
                "kind": kind,
                "name": self.options.device_name,
                "uuid": self.options.uuid,
                "index": int(index or 0),
                "capability": None,
                "driver": None,
                "total_bytes": None,
                "arch": "fake",
                "vector": "none",
                "math": "hash",
                "threads": self.hello["threads"],
            },
            "settings": {"dtype": "float32", "attention": "none", "deterministic": True, "tf32": False, "tiling": False, "offload": "none"},
            "actions": list(WORK),
            "samplers": ["Euler", "Euler a", "DPM++ 2M", "DPM++ 2M Karras", "DDIM", "UniPC", "Heun", "LCM"],
        }

    def same_bits(self):
        """What its bytes depend on besides the request."""
        return [self.options.build, self.options.device_name, self.options.numerics, self.hello["threads"]]

    def vitals(self):
        busy = self.busy
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
        return {
            "uptime_s": round(time.monotonic() - BORN, 3),
            "rss_bytes": pages * os.sysconf("SC_PAGE_SIZE"),
            "device_bytes": None,
            "allocated_bytes": None,
            "busy": busy
            and {"request_id": busy[0], "action": busy[1], "call": busy[2], "advanced_s": round(time.monotonic() - busy[3], 3)},
            "sessions": dict(self.sessions),
            "models": [
                {"id": model, "bytes": MODEL_BYTES, "is_idle": model not in self.wanted(), "used_s": round(time.monotonic() - used_at, 3)}
                for model, used_at in list(self.models.items())
            ],
        }

    # --- threads ---

    def read(self):
        pending = b""
        while chunk := os.read(FRAMES_IN, 65_536):
            *lines, pending = (pending + chunk).split(b"\n")
            if len(pending) >= LINE_CAP:
                os._exit(70)
            for line in lines:
                self.handle(json.loads(line))
        os._exit(0)

    def handle(self, frame):
        request_id, action, data = frame["request_id"], frame["action"], frame["data"]
        result = {"type": "result", "output": {}, "files": {}, "stats": {}}
        if action == "worker.hello":
            self.shake_hands(request_id, data, result)
        elif action == "worker.ping":
            self.send(request_id, action, {**result, "output": self.vitals()})
        elif action in ("worker.pause", "worker.cancel"):
            if data["target"] in self.running:
                self.running[data["target"]] = action.removeprefix("worker.")
            self.send(request_id, action, result)
        elif action == "worker.shutdown":
            for target in self.running:
                self.running[target] = "pause"
            self.work.put((request_id, action, result))
        elif action in WORK:
            self.running[request_id] = "run"
            if model := data.get("model") or data.get("input", {}).get("model"):
                self.uses[request_id] = model["id"]
            self.send(request_id, action, {"type": "accepted"})
            self.work.put((request_id, action, data))
        else:
            self.send(request_id, action, Stop("worker.action_unknown", "permanent", f"there is no action {action}").data)

    def shake_hands(self, request_id, data, result):
        if self.fault("mute"):
            return
        low, high = data["protocol"]["min"], data["protocol"]["max"]
        if self.fault("refuse") or not low <= 1 <= high:
            self.send(request_id, "worker.hello", Stop("worker.start_failed", "permanent", f"protocol {low} to {high} asked for, this child speaks 1").data)
            os._exit(64)
        self.hello = data
        self.send(request_id, "worker.hello", {"type": "progress", "stage": "import", "call": 0, "calls": 1})
        time.sleep(self.options.import_ms / 1000)
        self.send(request_id, "worker.hello", {**result, "output": self.ready()})
        threading.Thread(target=self.beat, daemon=True).start()
        threading.Thread(target=self.device, daemon=True).start()

    def beat(self):
        while True:
            self.send("0", "worker.heartbeat", self.vitals())
            time.sleep(self.options.heartbeat_ms / 1000)

    def device(self):
        while True:
            request_id, action, data = self.work.get()
            if action == "worker.shutdown":
                self.send(request_id, action, data)
                os._exit(0)
            self.busy = [request_id, action, None, time.monotonic()]
            try:
                reply = self.run(request_id, action, data)
            except Stop as stop:
                reply = stop.data
            except Exception as error:
                reply = Stop("worker.failed", "permanent", f"{type(error).__name__}: {error}").data
            self.busy = None
            self.sessions.pop(data.get("session_id"), None)
            self.finish(request_id, action, reply)

    # --- work ---

    def run(self, request_id, action, data):
        if self.running[request_id] == "pause":
            return {"type": "released", "checkpoint": None}
        self.check_cancel(request_id)
        if action == "memory.trim":
            gone = [model for model in list(self.models) if model not in self.wanted()][: data["idle_models"]]
            for model in gone:
                self.models.pop(model)
            return {"type": "result", "output": {"freed_bytes": None, "models": gone}, "files": {}, "stats": {}}
        loaded_s = self.ensure(request_id, action, (data if action == "model.ensure" else data["input"])["model"])
        if action == "model.ensure":
            output = {"id": data["model"]["id"], "resident": loaded_s is None, "bytes": MODEL_BYTES, "seconds": loaded_s or 0}
            return {"type": "result", "output": output, "files": {}, "stats": {}}
        self.check_path(data["dir"], "dir")
        self.send(request_id, action, {"type": "progress", "stage": "run"})
        verb = {"inference.encode": self.encode, "inference.denoise": self.denoise, "inference.decode": self.decode}[action]
        return verb(request_id, data)

    def wanted(self):
        return set(list(self.uses.values()))

    def ensure(self, request_id, action, model):
        """Seconds the load took; None when the model was resident."""
        if model["id"] in self.models:
            self.models.pop(model["id"])
            self.models[model["id"]] = time.monotonic()
            return None
        self.send(request_id, action, {"type": "progress", "stage": "load"})
        time.sleep(self.options.load_ms / 1000)
        self.models[model["id"]] = time.monotonic()
        return self.options.load_ms / 1000

    def encode(self, request_id, data):
        conditioning = self.conditioning(data["input"])
        return self.result({"conditioning": self.file(data["dir"], "conditioning.safetensors", conditioning)})

    def conditioning(self, request):
        def row(text):
            return ("F32", [1, 8, 4], hashlib.shake_256(canonical([request["model"]["body_hash"], text, self.same_bits()])).digest(128))

        return safetensors({"positive": row(request["prompt"]), "negative": row(request["negative_prompt"])})

    def denoise(self, request_id, data):
        request, stats = data["input"], {"remade": [], "resumed_from": 0, "checkpoint_refused": None}
        calls = request["steps"] * 2 - 1 if request["sampler"] == "Heun" else request["steps"]
        conditioning = self.given(data, "conditioning")
        if conditioning is None:
            conditioning = self.conditioning(request)
            stats["remade"].append("conditioning")
        identity = sha256(canonical([request, self.same_bits(), sha256(conditioning)]))
        state, call = hashlib.sha256(identity.encode()).digest(), 0
        if data["checkpoint"]:
            try:
                state, call = self.resume(data["checkpoint"], identity)
                stats["resumed_from"] = call
            except (OSError, ValueError, KeyError) as error:
                stats["checkpoint_refused"] = str(error)
        self.sessions[data["session_id"]] = request["width"] * request["height"]
        checkpoints, saved_at, told_at, first = 0, time.monotonic(), 0.0, call
        while call < calls:
            self.misbehave(request_id, call)
            self.wait_at_gate(request_id, request["seed"], call)
            if self.running[request_id] == "pause":
                return {"type": "released", "checkpoint": self.checkpoint(data["dir"], identity, state, call)}
            self.check_cancel(request_id)
            time.sleep(self.call_s)
            state, call = hashlib.sha256(state + call.to_bytes(4, "big")).digest(), call + 1
            now = time.monotonic()
            self.busy = [request_id, HAS_CHECKPOINTS, call, now]
            if now - told_at >= 0.2 or call == calls:
                told_at = now
                rate = 1 / max(self.call_s, 1e-4)
                self.send(request_id, HAS_CHECKPOINTS, {"type": "progress", "stage": "run", "call": call, "calls": calls, "rate": rate, "eta_s": (calls - call) / rate})
            every = self.hello["checkpoint"]["calls"]
            due = call % every == 0 if every else now - saved_at >= self.hello["checkpoint"]["interval_s"]
            if due and call < calls:
                saved_at, checkpoints = now, checkpoints + 1
                self.send(request_id, HAS_CHECKPOINTS, {"type": "checkpoint", **self.checkpoint(data["dir"], identity, state, call)})
        self.misbehave(request_id, call)
        self.check_cancel(request_id)
        shape = [1, 4, request["height"] // 4, request["width"] // 4]
        latents = safetensors({"latents": ("F32", shape, hashlib.shake_256(state).digest(4 * shape[1] * shape[2] * shape[3]))})
        return self.result({"latents": self.file(data["dir"], "latents.safetensors", latents)}, {**stats, "calls": calls - first, "checkpoints": checkpoints})

    def decode(self, request_id, data):
        latents = self.given(data, "latents")
        if latents is None:
            raise Stop("artifact.missing", "resource", "the latents are missing or broken", field="files.latents")
        width, height = data["input"]["width"], data["input"]["height"]
        pixels = hashlib.shake_256(hashlib.sha256(latents).digest()).digest(width * height * 3)
        return self.result({"pixels": self.file(data["dir"], "pixels.rgb", pixels)}, output={"width": width, "height": height})

    def misbehave(self, request_id, call):
        name = {fault.name for fault in self.faults if fault.call == call}
        if "hang" in name and self.fault("hang", call):
            threading.Event().wait()
        if "freeze" in name and self.fault("freeze", call):
            os.kill(os.getpid(), signal.SIGSTOP)
        if "crash" in name and self.fault("crash", call):
            os.kill(os.getpid(), signal.SIGKILL)
        if "exit" in name and (fault := self.fault("exit", call)):
            os._exit(int(fault.args[0]))
        if "garbage" in name and self.fault("garbage", call):
            self.write(b"Loading pipeline components...: 100%|##########| 5/5\n")
        if "partial-line" in name and self.fault("partial-line", call):
            self.write(b'{"request_id":"1","action":"inference.den')
            os.kill(os.getpid(), signal.SIGKILL)
        if "long-line" in name and self.fault("long-line", call):
            self.write(b"x" * (2 * LINE_CAP) + b"\n")
        if "stdout-noise" in name and self.fault("stdout-noise", call):
            print("noise from print", flush=True)
            os.write(1, b"noise from a raw write\n")
            os.system("echo noise from a grandchild")
        if "slow" in name and self.fault("slow", call):
            self.call_s *= 10
        if "error" in name and (fault := self.fault("error", call)):
            raise Stop(fault.args[0], fault.args[1], f"asked for by a fault at call {call}")

    def wait_at_gate(self, request_id, seed, call):
        if self.options.gates is None:
            return
        while self.running[request_id] == "run":
            try:
                with open(os.path.join(self.options.gates, str(seed))) as gate:
                    if call < int(gate.read()):
                        return
            except FileNotFoundError:
                return
            self.busy[3] = time.monotonic()
            time.sleep(0.02)

    def check_cancel(self, request_id):
        if self.running[request_id] == "cancel":
            raise Stop("session.cancelled", "cancelled", f"request {request_id} was cancelled")

    # --- files ---

    def check_path(self, path, field):
        root = os.path.realpath(self.hello["roots"]["attempts"])
        if not os.path.realpath(path).startswith(root + os.sep):
            raise Stop("worker.path_refused", "permanent", f"{path} is not inside {root}", field=field)

    def given(self, data, name):
        """Bytes of an input file; None when there is none or it is not what its name says."""
        file = data["files"].get(name)
        if file is None:
            return None
        self.check_path(file["path"], f"files.{name}")
        try:
            with open(file["path"], "rb") as source:
                content = source.read()
        except OSError:
            return None
        return content if sha256(content) == file["sha256"] else None

    def file(self, folder, name, content):
        path = os.path.join(folder, name)
        with open(path + ".part", "wb") as target:
            target.write(content)
        os.rename(path + ".part", path)
        return {"path": path, "sha256": sha256(content), "bytes": len(content)}

    def checkpoint(self, folder, identity, state, call):
        content = safetensors({"state": ("U8", [32], state)}, {"identity": identity, "call": call})
        made = self.file(folder, f"checkpoint-{call}.safetensors", content)
        wrong = any(fault.name == "wrong-sha" and fault.call is not None and call >= fault.call for fault in self.faults)
        return {**made, "call": call, **({"sha256": "0" * 64} if wrong else {})}

    def resume(self, given, identity):
        self.check_path(given["path"], "checkpoint.path")
        with open(given["path"], "rb") as source:
            content = source.read()
        if sha256(content) != given["sha256"]:
            raise ValueError("the file does not match its SHA-256")
        tensors, metadata = read_safetensors(content)
        if metadata["identity"] != identity:
            raise ValueError("it belongs to another request or build")
        return tensors["state"], int(metadata["call"])

    def result(self, files, stats=None, output=None):
        if self.fault("wrong-sha"):
            files = {name: {**file, "sha256": "0" * 64} for name, file in files.items()}
        return {"type": "result", "output": output or {}, "files": files, "stats": stats or {}}


def die_with_parent():
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def main():
    child = Child(parse_arguments())
    if os.path.exists(child.options.die_when) or child.fault("die-at-start"):
        print("fake child: told to die at the start", file=sys.stderr)
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    print(json.dumps({"level": "debug", "msg": "fake child started", "pid": os.getpid()}), file=sys.stderr, flush=True)
    child.send("0", "worker.hello", {"protocol": 1, "pid": os.getpid()})
    child.read()


main()
