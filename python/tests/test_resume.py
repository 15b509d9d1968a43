"""Whatever stops a denoise step, it goes on from its checkpoint to the same bytes; what it cannot go on from it
refuses, and says why."""

import hashlib
import json
import signal
from pathlib import Path

import pytest
from conftest import EVERY_CALL

from darkroom import tensors

STOP_AT = 4
# One sampler of each kind of state: none, noise, what came before, two calls a step, and of our own both with noise and
# with lists. test_samplers.py has the state of every pair, `npm run test:exact` every pair in a farm.
STATES = ("DDIM", "Euler a", "DPM++ 2M Karras", "Heun", "DPM++ SDE", "DPM++ 3M SDE")
KILLED = ("Euler a", "DPM++ 2M Karras", "DPM++ SDE")


@pytest.fixture(scope="module")
def undisturbed(shared):
    """Sampler → (latents, pixels) as drawn by a child that nobody disturbed."""
    drawn = {}

    def draw(sampler):
        if sampler not in drawn:
            drawn[sampler] = digests(shared, shared.run("denoise", sampler=sampler))
        return drawn[sampler]

    return draw


def digests(child, denoised):
    """SHA-256 of the latents and of the pixels they decode to."""
    assert denoised["type"] == "result", denoised
    latents = denoised["files"]["latents"]
    pixels = child.run("decode", files={"latents": latents})
    return latents["sha256"], pixels["files"]["pixels"]["sha256"]


@pytest.mark.parametrize("sampler", KILLED)
def test_a_killed_step_goes_on_in_another_process_to_the_same_bytes(fork, undisturbed, fresh, sampler):
    victim = fork(checkpoint=EVERY_CALL)
    victim.ready()
    stall = victim.stall("denoise", STOP_AT, sampler=sampler)
    victim.process.kill()
    assert victim.ends() == -signal.SIGKILL
    last = victim.of(stall.request_id, "checkpoint")[-1]
    assert last["call"] == STOP_AT - 1
    assert not victim.of(stall.request_id, "result")

    resumed = fresh.run("denoise", sampler=sampler, checkpoint=last)
    assert resumed["stats"]["resumed_from"] == last["call"]
    assert resumed["stats"]["checkpoint_refused"] is None
    assert digests(fresh, resumed) == undisturbed(sampler)


@pytest.mark.parametrize("sampler", STATES)
def test_a_paused_step_goes_on_in_another_process_to_the_same_bytes(shared, undisturbed, fresh, sampler):
    checkpoint = paused_at(shared, STOP_AT, sampler=sampler)
    assert checkpoint["call"] == STOP_AT + 1
    resumed = fresh.run("denoise", sampler=sampler, checkpoint=checkpoint)
    assert resumed["stats"]["resumed_from"] == checkpoint["call"]
    assert digests(fresh, resumed) == undisturbed(sampler)


def paused_at(child, call, **request):
    """The checkpoint of a step that was paused while its next call ran."""
    stall = child.stall("denoise", call, **request)
    child.until(child.send("worker.pause", {"target": stall.request_id}))
    stall.end()
    released = child.until(stall.request_id)
    assert released["type"] == "released", released
    return released["checkpoint"]


@pytest.mark.parametrize("sampler", STATES)
def test_every_checkpoint_of_a_run_leads_to_the_same_bytes(shared, undisturbed, fresh, sampler):
    """The first, the last and one between, of every solver's history."""
    request_id = shared.work("denoise", sampler=sampler)
    calls = shared.until(request_id)["stats"]["calls"]
    made = shared.of(request_id, "checkpoint")
    assert [file["call"] for file in made] == list(range(1, calls))
    for file in (made[0], made[len(made) // 2], made[-1]):
        resumed = fresh.run("denoise", sampler=sampler, checkpoint=file)
        assert resumed["stats"]["resumed_from"] == file["call"]
        assert resumed["stats"]["calls"] == calls - file["call"]
        assert resumed["files"]["latents"]["sha256"] == undisturbed(sampler)[0]


@pytest.mark.parametrize("sampler", STATES)
def test_checkpoints_of_one_state_are_equal_bytes(shared, fresh_each_call, sampler):
    """Of two processes, and of one that went on from a checkpoint of the other."""
    first = shared.work("denoise", sampler=sampler)
    shared.until(first)
    made = {file["call"]: file["sha256"] for file in shared.of(first, "checkpoint")}
    half = shared.of(first, "checkpoint")[3]
    second = fresh_each_call.work("denoise", sampler=sampler)
    third = fresh_each_call.work("denoise", sampler=sampler, checkpoint=half)
    for request_id in (second, third):
        fresh_each_call.until(request_id)
    assert {file["call"]: file["sha256"] for file in fresh_each_call.of(second, "checkpoint")} == made
    resumed = {file["call"]: file["sha256"] for file in fresh_each_call.of(third, "checkpoint")}
    assert resumed == {call: sha256 for call, sha256 in made.items() if call > half["call"]}


@pytest.fixture(scope="module")
def fresh_each_call(tmp_path_factory, device, nursery):
    from conftest import lasting

    yield from lasting(tmp_path_factory, "each call", device=device, nursery=nursery, checkpoint=EVERY_CALL)


def test_a_pause_right_after_a_checkpoint_writes_it_no_second_time(shared):
    """The node may be reading it."""
    stall = shared.stall("denoise", STOP_AT)
    shared.until(shared.send("worker.pause", {"target": stall.request_id}))
    stall.end()
    released = shared.until(stall.request_id)
    told = shared.of(stall.request_id, "checkpoint")
    assert [file["call"] for file in told] == list(range(1, STOP_AT + 2))
    assert {**released["checkpoint"], "type": "checkpoint"} == told[-1]
    assert len({file["path"] for file in told}) == len(told)


def test_pausing_twice_loses_nothing(shared, undisturbed, fresh):
    first = paused_at(shared, 3, sampler="Heun")
    second = paused_at(shared, 8, sampler="Heun", checkpoint=first)
    assert (first["call"], second["call"]) == (4, 9)
    assert digests(fresh, fresh.run("denoise", sampler="Heun", checkpoint=second)) == undisturbed("Heun")


# --- refusals: start at call 0, say so, same bytes ---


@pytest.fixture(scope="module")
def stopped(shared):
    """(checkpoint at call 3, SHA-256 of the latents that the whole run ends with)."""
    request_id = shared.work("denoise", sampler="DPM++ 2M Karras")
    whole = shared.until(request_id)
    return shared.of(request_id, "checkpoint")[2], whole["files"]["latents"]["sha256"]


def restarts(child, checkpoint, reason, end, **changes):
    """Runs it from this checkpoint and expects that it began at call 0, said why, and drew the same."""
    answer = child.run("denoise", checkpoint=checkpoint, **{"sampler": "DPM++ 2M Karras", **changes})
    assert answer["type"] == "result", answer
    assert reason in answer["stats"]["checkpoint_refused"]
    assert answer["stats"]["resumed_from"] == 0
    assert answer["stats"]["calls"] == 8
    if end:
        assert answer["files"]["latents"]["sha256"] == end


def altered(file, alter):
    """A copy whose content is altered, under the SHA-256 that it then has."""
    content = alter(Path(file["path"]).read_bytes())
    path = Path(file["path"]).with_suffix(".altered")
    path.write_bytes(content)
    return {**file, "path": str(path), "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def with_metadata(**changes):
    def alter(content):
        held, metadata = tensors.load(content)
        return tensors.save(held, {**metadata, **changes})

    return alter


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def test_a_flipped_byte_is_refused(fresh, stopped):
    checkpoint, end = stopped
    request = fresh.data("denoise", sampler="DPM++ 2M Karras", checkpoint=altered(checkpoint, flipped))
    request["checkpoint"]["sha256"] = checkpoint["sha256"]
    answer = fresh.until(fresh.send("inference.denoise", request))
    assert answer["stats"]["checkpoint_refused"] == "the file does not match its SHA-256"
    assert answer["stats"]["resumed_from"] == 0
    assert answer["files"]["latents"]["sha256"] == end


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (["build", "torch"], "2.12.0", "fingerprint.build.torch was 2.12.0, is "),
        (["build", "numerics"], 0, "fingerprint.build.numerics was 0, is "),
        (["hardware", "threads"], 64, "fingerprint.hardware.threads was 64, is "),
        (["settings", "dtype"], "bfloat16", "fingerprint.settings.dtype was bfloat16, is "),
    ],
)
def test_another_build_hardware_or_setting_is_refused(fresh, stopped, path, value, reason):
    checkpoint, end = stopped

    def alter(content):
        fingerprint = json.loads(tensors.load(content)[1]["fingerprint"])
        fingerprint[path[0]][path[1]] = value
        return with_metadata(fingerprint=json.dumps(fingerprint))(content)

    restarts(fresh, altered(checkpoint, alter), reason, end)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"seed": 8}, "request.seed was 7, is 8"),
        ({"prompt": "a green star"}, "request.prompt was a red circle"),
        ({"guidance": 2.5}, "request.guidance was 3.0, is 2.5"),
        ({"sampler": "DPM++ 2M"}, "request.sampler was DPM++ 2M Karras, is DPM++ 2M"),
    ],
)
def test_the_checkpoint_of_another_request_is_refused(fresh, stopped, changes, reason):
    restarts(fresh, stopped[0], reason, None, **changes)


def test_the_checkpoint_of_another_model_is_refused(fresh, stopped, micro):
    restarts(fresh, stopped[0], "model was ", None, model=micro)


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (lambda content: content[: len(content) // 2], "the file is broken: "),
        (lambda content: b"", "the file is broken: "),
        (lambda content: b"garbage" * 40, "the file is broken: "),
        (with_metadata(format="darkroom checkpoint 0"), "format was darkroom checkpoint 0, is "),
        (with_metadata(call="4"), "call was 4, is 3"),
        (with_metadata(state='{"sigmas": ["tensor", "state.999", true]}'), "the file is incomplete: "),
    ],
    ids=["truncated", "empty", "garbage", "format", "call", "incomplete"],
)
def test_what_is_no_whole_checkpoint_is_refused(fresh, stopped, alter, reason):
    checkpoint, end = stopped
    restarts(fresh, altered(checkpoint, alter), reason, end)


def test_a_checkpoint_that_is_gone_is_refused(fresh, stopped):
    checkpoint, end = stopped
    request = fresh.data("denoise", sampler="DPM++ 2M Karras", checkpoint=checkpoint)
    Path(request["checkpoint"]["path"]).unlink()
    answer = fresh.until(fresh.send("inference.denoise", request))
    assert "No such file" in answer["stats"]["checkpoint_refused"]
    assert answer["files"]["latents"]["sha256"] == end


def test_a_checkpoint_that_cannot_be_written_costs_nothing_but_itself(shared, stopped):
    request = shared.data("denoise", sampler="DPM++ 2M Karras")
    (Path(request["dir"]) / "checkpoint-2.safetensors.part").mkdir()
    request_id = shared.send("inference.denoise", request)
    assert shared.until(request_id)["files"]["latents"]["sha256"] == stopped[1]
    assert [file["call"] for file in shared.of(request_id, "checkpoint")] == [1, 3, 4, 5, 6, 7]


# --- hints: made again when they cannot be used ---


@pytest.fixture(scope="module")
def encoded(shared):
    return shared.run("encode")["files"]["conditioning"]


@pytest.fixture(scope="module")
def drawn(shared, encoded):
    answer = shared.run("denoise", files={"conditioning": encoded})
    assert answer["stats"]["remade"] == []
    return answer["files"]["latents"]


@pytest.mark.parametrize(
    ("spoil", "honest"),
    [(flipped, False), (lambda content: content[:100], True), (with_metadata(belongs="another class"), True)],
    ids=["flipped", "truncated", "of another class"],
)
def test_broken_conditioning_is_made_again(fresh, encoded, drawn, spoil, honest):
    request = fresh.data("denoise", files={"conditioning": altered(encoded, spoil)})
    if not honest:
        request["files"]["conditioning"]["sha256"] = encoded["sha256"]
    answer = fresh.until(fresh.send("inference.denoise", request))
    assert answer["stats"]["remade"] == ["conditioning"]
    assert answer["files"]["latents"]["sha256"] == drawn["sha256"]


def test_missing_conditioning_is_made_again(fresh, encoded, drawn):
    request = fresh.data("denoise", files={"conditioning": encoded})
    Path(request["files"]["conditioning"]["path"]).unlink()
    for answer in (fresh.until(fresh.send("inference.denoise", request)), fresh.run("denoise")):
        assert answer["stats"]["remade"] == ["conditioning"]
        assert answer["files"]["latents"]["sha256"] == drawn["sha256"]


def test_conditioning_of_another_prompt_is_made_again(fresh, encoded):
    with_hint = fresh.run("denoise", prompt="a green star", files={"conditioning": encoded})
    assert with_hint["stats"]["remade"] == ["conditioning"]
    assert with_hint["files"]["latents"]["sha256"] == fresh.run("denoise", prompt="a green star")["files"]["latents"]["sha256"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (None, "it was not given"),
        (lambda path: path.unlink(), "it cannot be read: No such file"),
        (lambda path: path.write_bytes(flipped(path.read_bytes())), "it does not match its SHA-256"),
    ],
    ids=["not given", "gone", "flipped"],
)
def test_latents_that_are_missing_or_broken_are_asked_for_again(fresh, drawn, spoil, reason):
    request = fresh.data("decode", files={"latents": drawn} if spoil else {})
    if spoil:
        spoil(Path(request["files"]["latents"]["path"]))
    answer = fresh.until(fresh.send("inference.decode", request))
    assert (answer["code"], answer["class"], answer["field"]) == ("artifact.missing", "resource", "files.latents")
    assert reason in answer["message"]


@pytest.mark.parametrize(
    ("alter", "changes", "reason"),
    [
        (with_metadata(belongs="another class"), {}, "another model, build or hardware class"),
        (lambda content: b"garbage" * 40, {}, "header"),
        (lambda content: content, {"width": 128}, "shape is [1, 4, 12, 16], not [1, 4, 12, 32]"),
    ],
    ids=["another class", "garbage", "another size"],
)
def test_latents_of_something_else_are_asked_for_again(fresh, drawn, alter, changes, reason):
    answer = fresh.run("decode", files={"latents": altered(drawn, alter)}, **changes)
    assert answer["code"] == "artifact.missing"
    assert reason in answer["message"]


@pytest.mark.long
def test_another_thread_count_is_another_class(spawn, stopped, drawn):
    """Really another class, not only another text: such a child goes on from no checkpoint and decodes no latents of
    the first one."""
    other = spawn(threads=2)
    assert other.ready()["hardware"]["threads"] == 2
    answer = other.run("denoise", sampler="DPM++ 2M Karras", checkpoint=stopped[0])
    assert answer["stats"]["checkpoint_refused"] == "fingerprint.hardware.threads was 1, is 2"
    assert other.run("decode", files={"latents": drawn})["code"] == "artifact.missing"
