"""Pictures of the class `fast` that are drawn together: their calls are rows of one forward, as the receipt says."""

import threading
import time
from functools import partial

import pytest
import torch
from conftest import EVERY_CALL, lasting

from darkroom import tensors
from darkroom.sharing import Turn
from darkroom.together import Together

SEEDS = (7, 8)


@pytest.fixture(scope="module")
def child(tmp_path_factory, device, micro_folder):
    """Has two slots, and no compiler."""
    more = {"device": device, "models": [micro_folder], "environment": {"PATH": "/nowhere"}}
    yield from lasting(tmp_path_factory, "together", slots=2, checkpoint=EVERY_CALL, **more)


@pytest.fixture
def both(child, micro):
    """The same, whose model is there."""
    child.run("encode", model=micro, **{"class": "fast"})
    child.frames.clear()
    return child


def latents_of(answer):
    assert answer["type"] == "result", answer
    with open(answer["files"]["latents"]["path"], "rb") as file:
        return tensors.load(file.read())[0]["latents"]


def assert_near(answer, alone, device):
    """By the norm; a GPU's UNet computes in fp16."""
    made, wanted = latents_of(answer), latents_of(alone)
    assert (made - wanted).norm() < (1e-5 if device == "cpu" else 1e-2) * wanted.norm()


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M Karras"])
def test_two_pictures_are_rows_of_one_forward_and_near_to_what_each_is_alone(both, shared, micro, device, sampler):
    request = {"model": micro, "sampler": sampler, "class": "fast", "guidance": 3.0}
    ids = [both.work("denoise", session=f"s{seed}", seed=seed, **request) for seed in SEEDS]
    drawn = both.until_all(*ids)
    for request_id, seed in zip(ids, SEEDS, strict=True):
        assert drawn[request_id]["type"] == "result", (drawn[request_id], both.said()[-1500:])
        fast = drawn[request_id]["stats"]["fast"]
        assert fast["rows"] == 2 and fast["co_batch"]["calls"] > 0 and "co-batch" in fast["used"], fast
        alone = shared.run("denoise", model=micro, sampler=sampler, seed=seed, guidance=3.0)
        assert_near(drawn[request_id], alone, device)


def test_one_goes_on_alone_when_the_other_is_paused_or_has_fewer_calls(both, shared, micro, device):
    request = {"model": micro, "class": "fast"}
    short = both.work("denoise", session="short", seed=7, steps=3, **request)
    long = both.work("denoise", session="long", seed=8, steps=9, **request)
    drawn = both.until_all(short, long)
    assert drawn[long]["stats"]["calls"] == 9 and 0 < drawn[long]["stats"]["fast"]["co_batch"]["calls"] <= 3
    alone = shared.run("denoise", model=micro, seed=8, steps=9)
    assert_near(drawn[long], alone, device)

    stall = both.stall("denoise", 3, session="first", seed=7, **request)
    other = both.work("denoise", session="second", seed=8, **request)
    both.until(both.send("worker.pause", {"target": stall.request_id}))
    stall.end()
    answers = both.until_all(stall.request_id, other)
    assert answers[stall.request_id]["type"] == "released" and answers[other]["type"] == "result"


def test_texts_of_another_length_are_computed_alone(both, micro):
    request = {"model": micro, "class": "fast"}
    long_text = " ".join(["a red circle on a blue background"] * 40)
    ids = [both.work("denoise", session="a", seed=7, **request), both.work("denoise", session="b", seed=8, prompt=long_text, **request)]
    for answer in both.until_all(*ids).values():
        fast = answer["stats"]["fast"]
        assert fast["rows"] == 1 and "co_batch" not in fast
        assert {each["way"]: each["why"] for each in fast["not_used"]}["co-batch"].startswith("no other picture")


@pytest.mark.parametrize("changes", [{"width": 72}, {"guidance": 1.0}, {"class": "exact"}])
def test_what_the_network_was_not_made_ready_for_waits(both, micro, changes):
    request = {"model": micro, "class": "fast"}
    ids = [both.work("denoise", session="a", seed=7, **request), both.work("denoise", session="b", seed=8, **{**request, **changes})]
    order = []
    for answer in both.until_all(*ids).values():
        assert answer["type"] == "result"
    for frame in both.frames:
        if frame["request_id"] in ids and frame["data"].get("type") in ("checkpoint", "result"):
            order.append(frame["request_id"])
    assert order == sorted(order, key=ids.index)


class Rows:
    """Adds one to what it is given; a forward of two may have no memory."""

    def __init__(self, most=2):
        self.most, self.forwards = most, []

    def predict(self, latents, t, conditioning):
        self.forwards.append(1)
        return latents + 1

    def predict_together(self, calls):
        if len(calls) > self.most:
            raise MemoryError("out of memory")
        self.forwards.append(len(calls))
        return [call.latents + 1 for call in calls]

    def may_go_together(self, one, other):
        return one.conditioning == other.conditioning


def at_once(turn, *runs):
    """Runs each in a thread, which have the turn one after the other from the first on."""
    threads = [threading.Thread(target=run, daemon=True) for run in runs]
    with turn.of("the test"):
        for number, thread in enumerate(threads, 2):
            thread.start()
            while turn._asked < number:
                time.sleep(0.001)
    for thread in threads:
        thread.join(20)


def draw(rows, calls_of, conditioning_of=lambda number: "same"):
    """What each picture has after its calls, drawn by a thread each."""
    turn, made = Turn(), {}
    together = Together(rows, turn)

    def run(number, calls):
        with turn.of(number), together.joining() as member:
            latents = torch.full((1,), float(number * 100))
            for _ in range(calls):
                latents = member.predict(latents, None, conditioning_of(number))
                # As the pace of a drawing does it.
                with turn.given_away():
                    pass
            made[number] = (float(latents), member.calls, member.most)

    at_once(turn, *(partial(run, *pair) for pair in enumerate(calls_of)))
    assert len(made) == len(calls_of)
    return made


def test_each_has_its_own_row_and_who_has_ended_is_waited_for_no_more():
    rows = Rows(3)
    made = draw(rows, [4, 20, 9])
    assert {number: value for number, (value, _, _) in made.items()} == {0: 4.0, 1: 120.0, 2: 209.0}
    assert max(rows.forwards) == 3 and made[1][1] >= 5 and made[0][2] == 3
    assert sum(rows.forwards) == 33


def test_only_calls_that_fit_are_rows_of_one_forward():
    rows = Rows(3)
    made = draw(rows, [5, 5, 5], lambda number: number % 2)
    assert max(rows.forwards) == 2 and made[1][1] == 0 and made[0][1] > 0


def test_where_a_forward_of_two_has_no_memory_each_has_its_own_from_then_on():
    rows = Rows(1)
    made = draw(rows, [5, 5])
    assert set(rows.forwards) == {1} and [value for value, _, _ in made.values()] and made[0][1:] == (0, 1)


def test_what_a_forward_raises_is_raised_in_all_that_it_was_for():
    class Broken(Rows):
        def predict_together(self, calls):
            raise ValueError("broken")

    turn, raised = Turn(), []
    together = Together(Broken(), turn)

    def run(number):
        with turn.of(number), together.joining() as member:
            try:
                for _ in range(3):
                    member.predict(torch.zeros(1), None, "same")
                    with turn.given_away():
                        pass
            except ValueError as error:
                raised.append(str(error))

    at_once(turn, *(partial(run, number) for number in range(2)))
    assert raised == ["broken", "broken"]
    assert turn.holder is None
