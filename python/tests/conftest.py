import contextlib
import copy
import hashlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from forked import ForkedProcess, Nursery

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
# What a request may say besides, and what of it a denoise alone is told.
OF_TEXT = ("prompt_syntax", "clip_skip", "adapters", "embeddings", "references")
OF_DENOISE = ("strength", "sizes", "variation", "guidance_rescale", "guidance_interval", "control", "enlarged", "step_cache", *OF_TEXT)
MORE = ("picture", "resize", "mask", "drawn", *OF_DENOISE)
SCHEMA = hashlib.sha256((PYTHON / "darkroom" / "schema.json").read_bytes()).hexdigest()
EVERY_CALL = {"interval_s": 60, "calls": 1}
NO_CHECKPOINTS = {"interval_s": 3600, "calls": None}
TERMINAL = ("result", "released", "error")


# Of the settings in `src/workers/python/environment.ts` those that change what the child does.
AS_THE_NODE = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


# Tests that go over families, samplers and more: `npm test` takes every so many of their cases, by numbers that step
# through each of these in turn; `npm run test:crash` takes all others.
OVER_ALL = {
    "test_two_sessions_of_one_model_draw_at_a_time_what_each_draws_alone": 3,
    "test_the_negative_prompt_is_heard_where_there_is_guidance": 2,
    "test_outside_of_the_mask_every_byte_stays": 3,
    "test_every_pair_goes_on_from_a_checkpoint_to_the_same_bytes": 3,
    "test_what_the_library_writes_of_a_scheduler_is_taken_by_most_samplers": 3,
    "test_what_is_drawn_is_what_transformers_makes_of_it": 3,
    "test_over_a_picture_is_drawn_what_diffusers_own_pipeline_draws": 3,
    "test_the_loop_draws_the_bits_of_diffusers_own_pipeline": 11,
    "test_another_process_goes_on_from_a_checkpoint_to_the_same_bytes": 8,
    "test_the_loop_draws_what_diffusers_own_pipeline_draws": 5,
    "test_a_picture_goes_on_from_any_call_to_the_same_bytes": 4,
    "test_one_draws_the_bits_of_diffusers_own_pipeline": 5,
    "test_a_union_draws_the_bits_of_diffusers_own_pipeline": 3,
    "test_where_the_networks_are_moves_no_bit": 5,
    "test_guidance_in_some_calls_has_the_bits_of_diffusers_whose_scale_is_changed_on_the_way": 4,
    "test_a_rescaled_guidance_has_the_bits_of_diffusers": 10,
    "test_every_family_with_guidance_is_guided_in_some_calls": 3,
    "test_a_run_that_went_on_from_any_checkpoint_draws_the_same": 3,
    "test_the_prompt_decides_and_so_does_the_guidance": 3,
    "test_the_picture_is_the_one_that_diffusers_own_pipeline_decodes": 3,
    "test_every_checkpoint_of_a_run_leads_to_the_same_bytes": 2,
    "test_a_paused_step_goes_on_in_another_process_to_the_same_bytes": 2,
    "test_a_killed_step_goes_on_in_another_process_to_the_same_bytes": 2,
    "test_a_gguf_draws_what_its_weights_draw": 3,
    "test_the_librarys_own_loader_draws_the_same": 2,
    "test_networks_and_text_encoders_are_changed_as_the_sum_says": 6,
    "test_two_draw_the_bits_of_diffusers_own_pipeline": 2,
    "test_an_esrgan_computes_as_it_was_published": 4,
    "test_a_tile_of_any_size_that_holds_what_the_network_sees_makes_the_same_bytes": 4,
    "test_bytes_follow_from_no_number_of_threads": 2,
    "test_every_sampler_draws_with_it_or_is_refused_before_the_first_call": 3,
    "test_a_field_of_another_type_is_refused_or_every_sampler_gives_a_plain_answer": 3,
    "test_every_pair_draws_pictures_of_the_deviation_that_the_data_have": 3,
    "test_a_preview_resembles_the_picture_as_no_other_matrix_would_show_it_and_moves_no_bit": 3,
    "test_a_shard_that_is_missing_or_broken_is_named": 3,
    "test_shards_load_by_whatever_names_they_were_written": 2,
    "test_every_family_draws_from_one_file_what_it_draws_from_its_folder": 3,
    "test_checkpoints_of_one_state_are_equal_bytes": 3,
    "test_a_step_that_runs_out_of_memory_begins_again_with_smaller_tiles": 2,
    "test_at_full_strength_a_variation_is_the_picture_of_its_own_seed": 3,
    "test_a_spare_that_is_not_wanted_ends": 3,
    "test_a_tokenizer_that_would_not_hear_the_prompt_is_refused": 3,
    "test_inside_a_mask_is_drawn_what_diffusers_own_pipeline_draws": 5,
    "test_a_killed_picture_goes_on_where_its_networks_are_elsewhere": 4,
    "test_a_step_cache_that_leaves_nothing_out_moves_no_bit_and_one_that_does_says_how_often": 5,
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    met = Counter()
    for item in items:
        name = item.originalname
        if name in OVER_ALL:
            if met[name] % OVER_ALL[name] > 0:
                item.add_marker(pytest.mark.long)
            met[name] += 1


def pytest_addoption(parser):
    parser.addoption("--judged", default=6, type=int, help="how many pictures of a kind are judged")
    parser.addoption("--device", default="cpu", help="device that the children own: cpu, cuda, cuda:1")


@pytest.fixture(scope="session")
def device(request):
    return request.config.getoption("--device")


# Those that have not ended. A test that fails ends none, and the next one of the same child would wait for ever.
STALLS = []


@pytest.fixture(autouse=True)
def stalls_end_with_their_test():
    yield
    for stall in STALLS:
        with contextlib.suppress(OSError):
            # Whoever waits for a reader goes on; what was killed has none that waits.
            os.close(os.open(stall.pipe, os.O_RDONLY | os.O_NONBLOCK))
    STALLS.clear()


@dataclass
class Stall:
    request_id: str
    pipe: Path

    def __post_init__(self):
        STALLS.append(self)

    def end(self):
        STALLS.remove(self)
        self.pipe.read_bytes()


def environment_of_children():
    kept = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH") if key in os.environ}
    python_path = os.pathsep.join([str(PYTHON), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**kept, **AS_THE_NODE, "PYTHONPATH": python_path}


class Child:
    """The real child over its pipes; keeps every frame. `attempts`: its attempt folder; `nursery`: forks it."""

    def __init__(
        self,
        attempts,
        *,
        device="cpu",
        threads=1,
        slots=1,
        checkpoint=NO_CHECKPOINTS,
        protocol=(1, 1),
        models=(),
        schema=SCHEMA,
        spare=False,
        environment=None,
        model_bytes=None,
        nursery=None,
        preview_s=0,
        compiled=None,
    ):
        self.attempts = attempts
        self.errors = attempts / "stderr.log"
        self.last = 0
        self.frames = []
        self.pending = b""
        command, pipe = [sys.executable, "-m", "darkroom"], subprocess.PIPE
        environment = {**environment_of_children(), "HOME": str(attempts), **(environment or {})}
        with open(self.errors, "ab") as errors:
            if nursery:
                self.process = ForkedProcess(nursery, errors, attempts)
            else:
                self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, env=environment)
        self.greeting = {
            "protocol": {"min": protocol[0], "max": protocol[1]},
            "schema": schema,
            "worker_id": "w",
            "device": device,
            "threads": threads,
            "slots": slots,
            "spare": spare,
            "roots": {"models": [str(ROOT / "models"), *map(str, models)], "attempts": str(attempts), "compiled": compiled},
            "checkpoint": checkpoint,
            "preview_s": preview_s,
            "model_bytes": model_bytes,
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
            "encode": ("model", "prompt", "negative_prompt", "guidance"),
            "denoise": (*REQUEST, *({"schedule"} & set(changes))),
            "encode_picture": ("model", "width", "height"),
            "enlarge": ("model", "width", "height", "from", "upscaler"),
            "decode": ("model", "width", "height"),
        }[verb]
        names += tuple(name for name in ("memory_profile", "class") if name in changes)
        if verb == "encode":
            names += tuple(name for name in OF_TEXT if name in changes)
        elif verb == "denoise":
            names += tuple(name for name in MORE if name in changes and name != "drawn")
        elif verb in ("encode_picture", "decode"):
            names += tuple(name for name in MORE if name in changes and name not in OF_DENOISE)
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
            if frame["request_id"] == request_id:
                kind = frame["data"].get("type")
                if kind in (kinds or TERMINAL):
                    return frame["data"]
                assert kind not in TERMINAL, f"{frame['data']} came instead of {' or '.join(kinds)}"
        raise EOFError(f"the child ended with {self.process.wait(10)} before {request_id} was answered: {self.said()[-2000:]}")

    def until_all(self, *request_ids, timeout_s=120):
        """Request id → its terminal frame, of several that are open at a time."""
        made = {}
        while len(made) < len(request_ids):
            frame = self.next(timeout_s)
            if frame is None:
                raise EOFError(f"the child ended with {self.process.wait(10)}: {self.said()[-2000:]}")
            if frame["request_id"] in request_ids and frame["data"].get("type") in TERMINAL:
                made[frame["request_id"]] = frame["data"]
        return made

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


@pytest.fixture(scope="session")
def nursery(tmp_path_factory, device):
    """Where children are forked; None where each has to be started: what a driver has opened is not forked."""
    if device != "cpu" or sys.platform != "linux":
        yield None
        return
    made = Nursery({**environment_of_children(), "HOME": str(tmp_path_factory.mktemp("nursery"))})
    yield made
    made.close()


@contextlib.contextmanager
def starting(tmp_path, **usual):
    """Starts children that end with the test; they have been greeted unless told `greeted=False`."""
    children = []

    def start(greeted=True, **options):
        folder = Path(tempfile.mkdtemp(prefix="attempts-", dir=tmp_path))
        children.append(Child(folder, **{**usual, **options}))
        return children[-1].greet() if greeted else children[-1]

    yield start
    for child in children:
        child.close()


@pytest.fixture
def spawn(tmp_path, device):
    """Starts children as a node does, each with its own imports: for what is tested of a start, or of a process."""
    with starting(tmp_path, device=device) as start:
        yield start


@pytest.fixture
def fork(tmp_path, device, nursery):
    """Starts children whose imports are done."""
    with starting(tmp_path, device=device, nursery=nursery) as start:
        yield start


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
def of_family(micro, micro_folder):
    """Family → its random model."""
    from micro import make_sdxl
    from micro_flow import make_flow_model

    made = {"sd1": micro}

    def model(family):
        if family not in made:
            folder = micro_folder / f"profiles {family}"
            made[family] = make_sdxl(folder, 21) if family == "sdxl" else make_flow_model(folder, family, 22)
        return made[family]

    return model


@pytest.fixture(scope="session")
def fresh(tmp_path_factory, device, micro_folder):
    """Another such process, to go on with what the first one began; without checkpoints."""
    yield from lasting(tmp_path_factory, "fresh", device=device, models=[micro_folder])
