"""When memory runs out: what can be had again goes step by step, each told; then the request is refused, and the child
lives."""

import re
import resource

import pytest
from conftest import REQUEST
from micro import make_model

MIB = 1 << 20
SIZE = {"width": 512, "height": 512, "steps": 1}


@pytest.fixture
def big(micro_folder):
    """A model of some hundred MiB, to lie idle beside the one that draws."""
    return make_model(micro_folder / "big", seed=9, unet={"block_out_channels": (256, 512), "layers_per_block": 2})


def data_bytes(child):
    """What the limit is held against: memory of its own that the process may write."""
    with open(f"/proc/{child.process.pid}/status", encoding="ascii") as file:
        return int(re.search(r"VmData:\s+(\d+) kB", file.read())[1]) * 1024


def limit(child, size):
    resource.prlimit(child.process.pid, resource.RLIMIT_DATA, (size, resource.RLIM_INFINITY))


def within(child, rooms, verb, request, before=lambda: None):
    """Works with less and less memory to be had, MiB, until memory runs out: (answer, notes)."""
    for room in rooms:
        before()
        limit(child, data_bytes(child) + room * MIB)
        asked = child.work(verb, **request)
        answer = child.until(asked)
        limit(child, resource.RLIM_INFINITY)
        notes = [note["text"] for note in child.of(asked, "note")]
        if notes:
            return answer, notes
    # What the process has freed before is room that no limit takes from it.
    pytest.skip(f"its heap had room for all of it, at a limit of {room} MiB more")


def load(child, *models):
    for model in models:
        assert child.until(child.send("model.ensure", {"model": model, "files": [], "weight_bytes": 0}))["type"] == "result"


@pytest.fixture
def limited(fork, micro_folder, device):
    """A child whose memory can be limited."""
    if device != "cpu":
        pytest.skip("a limit of the process does not bind a GPU")
    child = fork(models=[micro_folder])
    child.ready()
    return child


def test_a_request_that_memory_runs_out_for_offloads_its_model_and_is_refused_in_words(limited, micro):
    child = limited
    load(child, micro)
    # What checks a request is compiled with the first one of its kind.
    nowhere = child.until(child.work("denoise", model={**micro, "id": "nowhere", "path": "/nowhere"}, **SIZE))
    assert nowhere.get("code") == "worker.path_refused"
    refused, notes = within(child, (8, 4, 2, 1, 0), "denoise", {"model": micro, **SIZE})
    assert (refused.get("code"), refused.get("class")) == ("memory.exhausted", "resource"), (refused, notes)
    assert ["out of memory: offloaded micro" in note for note in notes] == [True]


@pytest.mark.long
def test_when_memory_runs_out_idle_models_go_before_the_request(limited, micro, big):
    child = limited
    request = {"model": micro, "files": child.run("denoise", model=micro, **SIZE)["files"], **SIZE}
    drawn = child.run("decode", **request)["files"]["pixels"]["sha256"]
    rooms = (64, 48, 40, 32, 28, 24, 20, 16, 12, 8, 4, 2, 1, 0)
    answer, notes = within(child, rooms, "decode", request, lambda: load(child, big, micro))
    words = ["idle models", "offloaded", "in tiles"]
    rungs = [next(word for word in words if word in note) for note in notes]
    # A process need not give back what its heap has free, so the limit may bind still: then the next rung comes.
    assert rungs == words[: len(rungs)], notes
    if answer["type"] == "result":
        assert child.models() == ["micro"]
        is_tiled = rungs[-1] == "in tiles"
        assert (answer["output"]["tiles"] > 0) == is_tiled
        assert (answer["files"]["pixels"]["sha256"] == drawn) != is_tiled
    else:
        assert (rungs[-1], answer["code"]) == ("in tiles", "memory.exhausted")


def test_what_a_picture_took_is_told(fresh):
    fresh.until(fresh.send("memory.trim", {"idle_models": 99}))
    assert "peak_bytes" not in fresh.run("denoise")["stats"]
    answer = fresh.run("denoise")
    latents = 4 * REQUEST["width"] * REQUEST["height"] // 64 * 4
    assert answer["stats"]["peak_bytes"] >= latents
