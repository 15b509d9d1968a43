"""Pause, cancel and shutdown, and what the child says of itself meanwhile."""

import os
import time
from pathlib import Path

import pytest
from conftest import EVERY_CALL, MODEL, TERMINAL
from micro import make_model

from darkroom.runtime import LiveTensors


def ask(child, verb, target):
    """Sends pause or cancel and waits for its own answer."""
    assert child.until(child.send(f"worker.{verb}", {"target": target})) == {"type": "result", "output": {}, "files": {}, "stats": {}}


def test_cancel_ends_the_step_within_one_call_and_frees_all_of_it(shared):
    stall = shared.stall("denoise", 3, session="cancelled")
    assert shared.vitals()["sessions"]["cancelled"] > 64 * 48 / 16 * 4 * 4
    ask(shared, "cancel", stall.request_id)
    stall.end()
    answer = shared.until(stall.request_id)
    assert (answer["code"], answer["class"]) == ("session.cancelled", "cancelled")
    # The call that ran is done, no other one was begun.
    assert [file["call"] for file in shared.of(stall.request_id, "checkpoint")] == [1, 2, 3, 4]
    vitals = shared.vitals()
    assert (vitals["busy"], vitals["sessions"]) == (None, {})
    assert MODEL["id"] in [model["id"] for model in vitals["models"]]


def test_a_paused_session_holds_no_tensor_any_more(shared):
    stall = shared.stall("denoise", 3, session="paused")
    assert list(shared.vitals()["sessions"]) == ["paused"]
    ask(shared, "pause", stall.request_id)
    stall.end()
    assert shared.until(stall.request_id)["checkpoint"]["call"] == 4
    # Asked at once: the answer was sent when they were gone already.
    assert shared.vitals()["sessions"] == {}


def test_what_is_reported_as_held_is_what_lives():
    import torch

    held, kept, dropped = LiveTensors(), torch.zeros(100), torch.zeros(50)
    held.add("a", [kept, dropped])
    held.add("b", [kept[:0]])
    assert held.bytes() == {"a": 600}
    del dropped
    assert held.bytes() == {"a": 400}
    del kept
    assert held.bytes() == {}


def test_requests_that_wait_are_stopped_at_once(shared):
    stall = shared.stall("denoise", 3)
    paused, cancelled, kept = (shared.work("denoise", session=name) for name in ("paused", "cancelled", "kept"))
    shared.send("worker.pause", {"target": paused})
    shared.send("worker.cancel", {"target": cancelled})
    assert shared.until(paused) == {"type": "released", "checkpoint": None}
    assert shared.until(cancelled)["code"] == "session.cancelled"
    assert shared.vitals()["busy"]["request_id"] == stall.request_id
    stall.end()
    assert shared.until(stall.request_id)["type"] == "result"
    assert shared.until(kept)["type"] == "result"
    for request_id in (paused, cancelled):
        assert sum(len(shared.of(request_id, kind)) for kind in TERMINAL) == 1


def test_cancel_wins_over_pause(shared):
    for verbs in (("pause", "cancel"), ("cancel", "pause")):
        stall = shared.stall("denoise", 3)
        for verb in verbs:
            ask(shared, verb, stall.request_id)
        stall.end()
        assert shared.until(stall.request_id)["code"] == "session.cancelled"


def test_stopping_what_is_not_there_changes_nothing(shared):
    done = shared.work("denoise", steps=1)
    shared.until(done)
    for verb in ("pause", "cancel"):
        for target in (done, "no such request"):
            ask(shared, verb, target)
    shared.vitals()
    assert len(shared.of(done, "result")) == 1
    assert shared.of(done, "error") == []


def test_a_pause_before_the_first_call_gives_the_step_back_as_it_was(shared):
    """With the old checkpoint still good: nothing was done, so nothing new is kept."""
    first = shared.work("denoise")
    shared.until(first)
    request = shared.data("denoise", checkpoint=shared.of(first, "checkpoint")[2])
    pipe = piped(request["checkpoint"])
    request_id = shared.send("inference.denoise", request)
    shared.until(request_id, "progress")
    ask(shared, "pause", request_id)
    pipe()
    assert shared.until(request_id) == {"type": "released", "checkpoint": None}
    assert shared.of(request_id, "checkpoint") == []


def piped(file):
    """Makes a pipe of an input file, which holds up whoever reads it. Returns what writes the content into it."""
    path = Path(file["path"])
    content = path.read_bytes()
    path.unlink()
    os.mkfifo(path)
    return lambda: path.write_bytes(content)


@pytest.mark.parametrize(("verb", "made"), [("encode", "conditioning.safetensors"), ("decode", "pixels.rgb")])
@pytest.mark.parametrize("how", ["pause", "cancel"])
def test_work_without_checkpoints_that_has_begun_runs_to_its_end(shared, verb, made, how):
    request = shared.data(verb, files=shared.run("denoise", steps=1)["files"] if verb == "decode" else {})
    pipe = Path(request["dir"]) / f"{made}.part"
    os.mkfifo(pipe)
    request_id = shared.send(f"inference.{verb}", request)
    while shared.until(request_id, "progress")["stage"] != "run":
        pass
    ask(shared, how, request_id)
    pipe.read_bytes()
    assert shared.until(request_id)["type"] == "result"
    assert shared.vitals()["sessions"] == {}


def test_a_decode_that_is_paused_before_it_has_begun_is_given_back(shared):
    request = shared.data("decode", files=shared.run("denoise", steps=1)["files"])
    pipe = piped(request["files"]["latents"])
    request_id = shared.send("inference.decode", request)
    while (shared.vitals()["busy"] or {}).get("request_id") != request_id:
        time.sleep(0.01)
    ask(shared, "pause", request_id)
    pipe()
    assert shared.until(request_id) == {"type": "released", "checkpoint": None}


@pytest.mark.parametrize(
    ("how", "action", "end"),
    [
        ("pause", "model.ensure", "result"),
        ("cancel", "model.ensure", "result"),
        ("pause", "inference.encode", "released"),
        ("cancel", "inference.encode", "error"),
        ("pause", "inference.denoise", "released"),
    ],
)
def test_a_load_under_way_ends_and_the_model_stays(shared, micro_folder, tmp_path, how, action, end):
    model = make_model(micro_folder / f"{action} {how}", seed=20)
    pipe = piped({"path": f"{model['path']}/scheduler/scheduler_config.json"})
    ensured = {"model": model, "files": [], "weight_bytes": 0}
    data = ensured if action == "model.ensure" else shared.data(action.partition(".")[2], model=model)
    request_id = shared.send(action, data)
    while shared.until(request_id, "progress")["stage"] != "load":
        pass
    ask(shared, how, request_id)
    pipe()
    assert shared.until(request_id)["type"] == end
    assert shared.models()[-1] == model["id"]


def test_a_device_thread_that_hangs_is_seen_although_the_heart_beats(shared):
    """The node's watchdog goes by `advanced_s`, of the heartbeats too."""
    stall = shared.stall("denoise", 3, session="hung")
    beats = []
    while len(beats) < 3:
        frame = shared.next(30)
        if frame["action"] == "worker.heartbeat":
            beats.append(frame["data"])
    for beat in beats:
        assert beat["busy"] | {"advanced_s": 0} == {
            "request_id": stall.request_id,
            "action": "inference.denoise",
            "call": 4,
            "advanced_s": 0,
        }
    passed = beats[2]["uptime_s"] - beats[0]["uptime_s"]
    assert passed >= 3.9
    assert beats[2]["busy"]["advanced_s"] - beats[0]["busy"]["advanced_s"] == pytest.approx(passed, abs=0.2)
    stall.end()
    assert shared.until(stall.request_id)["type"] == "result"
    assert shared.vitals()["busy"] is None


def test_a_full_queue_refuses_the_next_request(shared):
    stall = shared.stall("denoise", 3)
    data = shared.data("denoise")
    waiting = [shared.send("inference.denoise", data) for _ in range(64)]
    refused = shared.until(shared.send("inference.denoise", data))
    assert (refused["code"], refused["class"]) == ("worker.busy", "transient")
    for request_id in waiting:
        shared.send("worker.cancel", {"target": request_id})
    for request_id in waiting:
        assert shared.until(request_id)["code"] == "session.cancelled"
    stall.end()
    assert shared.until(stall.request_id)["type"] == "result"


def test_shutdown_gives_back_what_runs_and_what_waits_then_ends(fork, shared):
    child = fork(checkpoint=EVERY_CALL)
    child.ready()
    stall = child.stall("denoise", 3)
    waiting = child.work("denoise", seed=8)
    shutdown = child.send("worker.shutdown", {})
    assert child.until(waiting) == {"type": "released", "checkpoint": None}
    late = child.until(child.work("denoise", seed=9))
    assert late["code"] == "worker.busy"
    assert child.until(child.send("worker.shutdown", {}))["code"] == "worker.protocol"
    stall.end()
    released = child.until(stall.request_id)
    assert released["checkpoint"]["call"] == 4
    assert child.until(shutdown)["type"] == "result"
    assert child.ends() == 0
    resumed = shared.run("denoise", checkpoint=released["checkpoint"])
    assert resumed["stats"]["resumed_from"] == 4


def test_out_of_memory_fails_the_request_clears_the_pool_and_after_three_recycles_the_process(fork):
    child = fork()
    child.ready()
    # Sixteen thousand terabytes of latents.
    huge = {"width": 2**27, "height": 2**27}
    for _ in range(2):
        answer = child.run("denoise", **huge)
        assert (answer["code"], answer["class"]) == ("memory.exhausted", "resource")
        vitals = child.vitals()
        assert (vitals["models"], vitals["sessions"]) == ([], {})
    assert child.run("denoise", steps=1)["type"] == "result"
    # The third ends the process; what waits behind it goes back first.
    requests = [child.data("denoise", **huge), child.data("denoise", seed=8)]
    pipe = Path(requests[0]["dir"]) / "conditioning.in"
    os.mkfifo(pipe)
    requests[0]["files"] = {"conditioning": {"path": str(pipe), "sha256": "0" * 64}}
    third, waiting = (child.send("inference.denoise", request) for request in requests)
    child.until(waiting, "accepted")
    pipe.write_bytes(b"")
    answers = child.until_all(third, waiting)
    assert answers[third]["code"] == "memory.exhausted"
    assert answers[waiting] == {"type": "released", "checkpoint": None}
    assert child.ends() == 75
