"""Sessions of one model that share a device: each draws the bytes that it draws alone, and what may not share waits."""

import contextlib
import logging
import threading
from types import SimpleNamespace

import pytest
from conftest import EVERY_CALL

from darkroom.device_loop import DeviceLoop
from darkroom.requests import Requests
from darkroom.sharing import Turn, may_share

SEEDS = (7, 8)


@pytest.fixture
def both(fork):
    """A child with two slots whose model is there."""
    child = fork(slots=2, checkpoint=EVERY_CALL)
    child.ready()
    child.run("encode")
    return child


def frames_of(child, *request_ids):
    """Request ids in the order in which their calls ended."""
    told = [frame for frame in child.frames if frame["request_id"] in request_ids and frame["data"].get("type") == "checkpoint"]
    return [frame["request_id"] for frame in told]


def is_mixed(order):
    """Whether neither was done before the other had begun."""
    return len(set(order)) > 1 and order != sorted(order, key=order.index)


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M Karras", "DPM++ SDE"])
def test_two_sessions_of_one_model_draw_at_a_time_what_each_draws_alone(both, shared, sampler):
    alone = [shared.run("denoise", seed=seed, sampler=sampler)["files"]["latents"]["sha256"] for seed in SEEDS]
    ids = [both.work("denoise", seed=seed, sampler=sampler, session=f"s{seed}") for seed in SEEDS]
    drawn = list(both.until_all(*ids).values())
    assert sorted(made["files"]["latents"]["sha256"] for made in drawn) == sorted(alone)
    assert is_mixed(frames_of(both, *ids)), frames_of(both, *ids)
    # Nobody can tell whose the memory was.
    assert not any("peak_bytes" in made["stats"] for made in drawn)


def test_texts_are_encoded_and_pictures_decoded_while_another_is_drawn(both, shared):
    latents = shared.run("denoise", seed=9)["files"]["latents"]
    alone = shared.run("decode", files={"latents": latents})["files"]["pixels"]["sha256"]
    heard = shared.run("encode", prompt="a blue square")["files"]["conditioning"]["sha256"]
    stall = both.stall("denoise", 3, session="first")
    # The first one holds the turn between two calls, until its checkpoint is read.
    encode = both.work("encode", prompt="a blue square", session="second")
    decode = both.work("decode", files={"latents": latents}, session="third")
    stall.end()
    answers = both.until_all(stall.request_id, encode, decode)
    assert answers[encode]["files"]["conditioning"]["sha256"] == heard
    assert answers[decode]["files"]["pixels"]["sha256"] == alone
    ended = [frame["request_id"] for frame in both.frames if frame["data"].get("type") == "result"]
    assert ended.index(encode) < ended.index(stall.request_id)


def test_one_is_paused_and_cancelled_without_the_other(both, shared):
    alone = shared.run("denoise", seed=8)["files"]["latents"]["sha256"]
    stall = both.stall("denoise", 3, seed=7, session="first")
    other = both.work("denoise", seed=8, session="second")
    both.until(both.send("worker.pause", {"target": stall.request_id}))
    stall.end()
    answers = both.until_all(stall.request_id, other)
    assert answers[stall.request_id]["type"] == "released"
    assert answers[other]["files"]["latents"]["sha256"] == alone
    whole = shared.run("denoise", seed=7)["files"]["latents"]["sha256"]
    again = both.run("denoise", seed=7, checkpoint=answers[stall.request_id]["checkpoint"])
    assert again["files"]["latents"]["sha256"] == whole


@pytest.mark.parametrize("changes", [{"memory_profile": "lowest-memory"}, {"model": None}])
def test_what_would_change_the_model_waits_until_the_other_has_ended(fork, micro, micro_folder, changes):
    child = fork(slots=2, checkpoint=EVERY_CALL, models=[micro_folder])
    child.ready()
    child.run("encode")
    changes = {**changes, **({"model": micro} if "model" in changes else {})}
    ids = [child.work("denoise", seed=7, session="first"), child.work("denoise", seed=8, session="second", **changes)]
    answers = child.until_all(*ids)
    assert [answers[request_id]["type"] for request_id in ids] == ["result", "result"], answers
    assert not is_mixed(frames_of(child, *ids))


def request(request_id, session, model="m", action="inference.denoise", shares=True):
    models = SimpleNamespace(may_be_shared=lambda reference: shares)
    return SimpleNamespace(
        request_id=request_id, action=action, session=session, stop=None, is_alone=True, runtime=SimpleNamespace(models=models),
        input={"model": {"id": model, "body_hash": "0"}, "width": 64, "height": 64, "guidance": 3.0}, model_keys={(model, "0")},
    )  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"class": "fast"},
        {"adapters": [{"model": {"id": "style"}, "weight": 1}]},
        {"embeddings": [{"model": {"id": "word"}}]},
        {"memory_profile": "balanced"},
        {"model": {"id": "another", "body_hash": "0"}},
    ],
)
def test_who_asks_for_more_than_the_model_as_it_is_goes_along_with_nobody(changes):
    one, other = request("1", "a"), request("2", "b")
    assert may_share(one, other)
    # Of a family that gains nothing.
    assert not may_share(request("1", "a", shares=False), other)
    other.input = {**other.input, **changes}
    assert not may_share(one, other) and not may_share(other, one)


@pytest.mark.parametrize("action", ["inference.train", "postprocessing.upscale", "memory.trim", "inference.encode_picture"])
def test_what_does_more_than_draw_goes_along_with_nobody(action):
    one, other = request("1", "a"), request("2", "b", action=action)
    assert not may_share(one, other) and not may_share(other, one)


def test_words_of_ones_own_go_along_with_nobody_be_they_the_same():
    one, other = request("1", "a"), request("2", "b")
    for each in (one, other):
        each.input = {**each.input, "embeddings": [{"model": {"id": "word"}}]}
    assert not may_share(one, other)


def queue(*wanted):
    requests = Requests(SimpleNamespace(send=lambda *frame: None), logging.getLogger("test"))
    for each in wanted:
        requests.accept(each)
    return requests


RESULT = {"type": "result", "output": None, "files": {}, "stats": {}}


def test_a_session_that_came_first_goes_on_before_another_model_comes_and_nobody_waits_for_ever():
    one, other, third = request("1", "a"), request("2", "b", "another"), request("3", "c")
    requests = queue(one, other, third)
    assert requests.take() is one
    # The third would go along with the first, and so would the next; the second would wait for ever.
    later = threading.Thread(target=lambda: taken.append(requests.take()))
    taken = []
    later.start()
    later.join(0.1)
    assert taken == []
    decode = request("4", "a", action="inference.decode")
    requests.accept(decode)
    later.join(5)
    assert taken == [decode]
    for ended in (one, decode):
        requests.finish(ended, RESULT)
    assert requests.take() is other
    requests.finish(other, RESULT)
    assert requests.take() is third
    assert (one.is_alone, decode.is_alone, other.is_alone) == (False, False, True)


def test_who_waits_for_the_device_alone_is_not_the_one_that_does_not_get_on():
    one, other = request("1", "a"), request("2", "b")
    requests = queue(one, other)
    assert [requests.take(), requests.take()] == [one, other]
    waits = threading.Thread(target=requests.leave_alone, args=(one,))
    waits.start()
    for _ in range(500):
        if requests.running == [other]:
            break
        threading.Event().wait(0.01)
    assert requests.running == [other]
    requests.finish(other, RESULT)
    waits.join(5)
    assert requests.running == [one]


def test_a_command_is_passed_by_no_step():
    step, command, next_step = request("1", "a"), request("2", None, action="memory.trim"), request("3", "a")
    requests = queue(step, command, next_step)
    assert requests.take() is step
    requests.finish(step, RESULT)
    assert requests.take() is command


class Short:
    """A device on which one request has room, and not two."""

    def __init__(self, turn):
        self.turn, self.at_once, self.most, self.tries = turn, 0, 0, 0

    def operation(self, action):
        return self.run

    def run(self, tools):
        self.tries += 1
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            for _ in range(50):
                if self.at_once > 1:
                    raise MemoryError("out of memory")
                with self.turn.given_away():
                    threading.Event().wait(0.002)
            return dict(RESULT)
        finally:
            self.at_once -= 1


def test_two_that_have_no_room_beside_one_another_are_drawn_one_after_the_other():
    turn, asked, answers = Turn(), [request("1", "a"), request("2", "b")], {}
    nothing = SimpleNamespace(begin=lambda: None, end=lambda held: 0)
    device = SimpleNamespace(type="cpu")
    runtime = SimpleNamespace(turn=turn, device=device, peaks=nothing, models=SimpleNamespace(may_be_shared=lambda reference: True))
    notes = []
    for each in asked:
        each.runtime, each.note, each.advance, each.close, each.data = runtime, notes.append, lambda: None, lambda: None, {}
    writer = SimpleNamespace(send=lambda request_id, action, frame: answers.setdefault(request_id, frame["type"]))
    requests = Requests(SimpleNamespace(send=lambda *frame: None), logging.getLogger("test"))
    for each in asked:
        requests.accept(each)
    requests._writer = writer
    backend = Short(turn)
    loop = DeviceLoop(backend, runtime, requests, logging.getLogger("test"))
    threads = [threading.Thread(target=loop.run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(500):
        if len(answers) == 2:
            break
        threading.Event().wait(0.01)
    requests.close()
    for thread in threads:
        thread.join(5)
    assert answers == {"1": "result", "2": "result"}
    assert backend.most == 2 and backend.tries > 2
    assert notes and set(notes) == {"out of memory: it waited for what ran beside it"}


def test_one_thread_at_a_time_has_the_turn_in_the_order_in_which_they_asked():
    turn, order, inside = Turn(), [], []

    def work(name):
        for _ in range(20):
            with turn.of(name):
                inside.append(name)
                assert inside == [name] and turn.holder == name
                order.append(name)
                inside.clear()

    with turn.of("main"):
        threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        with contextlib.suppress(TimeoutError):
            threading.Event().wait(0.05)
        assert order == []
    for thread in threads:
        thread.join(5)
    assert len(order) == 60
    # Each asks again only when it has had its turn, so none has two before the others have one.
    assert all(len(set(order[i : i + 3])) == 3 for i in range(0, 45, 3))
