"""A LoRA is learned: to the same bytes however often its training is stopped, and drawn with like any other."""

import hashlib
from pathlib import Path

import numpy
import pytest
from conftest import MODEL
from test_pictures import saved

from darkroom import tensors

SIZE = {"width": 64, "height": 64}
SAMPLE = {"prompt": "a red circle on a blue background", "steps": 2, "guidance": 1.0, "sampler": "Euler", "every": 3}
ASKED = {**SIZE, "model": MODEL, "name": "learned", "seed": 5, "steps": 6, "rank": 4, "alpha": 4.0}
ASKED |= {"learning_rate": 0.01, "batch": 2, "sample": SAMPLE}


def circle(colour, background):
    y, x = numpy.mgrid[:64, :64]
    inside = ((x - 32) ** 2 + (y - 32) ** 2 < 18**2)[..., None]
    return numpy.where(inside, numpy.uint8(colour), numpy.uint8(background)).astype(numpy.uint8)


# Colours that darkroom-tiny draws in full, mixed with white.
PICTURES = [
    (circle((240, 150, 150), (150, 160, 235)), "a red circle on a blue background"),
    (circle((150, 215, 160), (255, 235, 160)), "a green circle on a yellow background"),
    (circle((150, 160, 235), (240, 150, 150)), "a blue circle on a red background"),
]


def asked(child, pictures=PICTURES, checkpoint=None, **changes):
    """Sends inference.train; returns the request's id."""
    files, examples = {}, []
    for index, (pixels, caption) in enumerate(pictures):
        files[f"picture{index}"], pin = saved(child, pixels)
        examples.append({"picture": pin, "caption": caption})
    folder = child.attempts / f"attempt-{child.process.pid}-{child.last}"
    folder.mkdir()
    data = {
        "session_id": "s1",
        "dir": str(folder),
        "input": {**ASKED, "examples": examples, **changes},
        "files": {name: {"path": file["path"], "sha256": file["sha256"]} for name, file in files.items()},
        "checkpoint": checkpoint and child.given(checkpoint),
    }
    return child.send("inference.train", data)


def trained(child, **more):
    return child.until(asked(child, **more))


def digests(answer):
    return {name: file["sha256"] for name, file in answer["files"].items()}


@pytest.fixture(scope="module")
def undisturbed(shared):
    request = asked(shared)
    answer = shared.until(request)
    assert answer["type"] == "result", answer
    return answer, shared.of(request, "checkpoint"), shared.of(request, "progress")


def test_a_run_tells_each_step_and_what_it_has_learned(undisturbed):
    answer, checkpoints, progress = undisturbed
    assert [made["call"] for made in checkpoints] == [1, 2, 3, 4, 5]
    assert {"call": 6, "calls": 6}.items() <= progress[-1].items()
    assert 0 < answer["output"]["loss"] < 10
    content = Path(answer["files"]["adapter"]["path"]).read_bytes()
    held, metadata = tensors.load(content)
    assert metadata["ss_network_dim"] == "4" and metadata["modelspec.title"] == "learned"
    assert sorted({name.rsplit(".", 2)[-2] if name.endswith("weight") else "alpha" for name in held}) == ["alpha", "lora_down", "lora_up"]
    assert all(bool(tensor.isfinite().all()) for tensor in held.values())
    assert len(Path(answer["files"]["pixels"]["path"]).read_bytes()) == 64 * 64 * 3


@pytest.mark.parametrize("call", [1, pytest.param(4, marks=pytest.mark.long)])
def test_another_process_goes_on_from_a_checkpoint_to_the_same_bytes(undisturbed, fresh, call):
    answer, checkpoints, _ = undisturbed
    again = trained(fresh, checkpoint=checkpoints[call - 1])
    assert again["stats"]["resumed_from"] == call
    assert digests(again) == digests(answer)


@pytest.mark.long
def test_a_paused_training_goes_on_to_the_same_bytes(undisturbed, shared, fresh):
    request = asked(shared, steps=400)
    shared.until(request, "checkpoint")
    shared.send("worker.pause", {"target": request})
    released = shared.until(request)
    assert released["type"] == "released" and released["checkpoint"]["call"] < 400
    again = trained(fresh, steps=released["checkpoint"]["call"] + 2, checkpoint=released["checkpoint"])
    # The number of steps is a part of the request.
    assert "request was" in again["stats"]["checkpoint_refused"]
    assert trained(fresh, checkpoint=None)["files"]["adapter"]["sha256"] == digests(undisturbed[0])["adapter"]


@pytest.mark.long
def test_the_model_is_the_same_after_it(fresh):
    before = fresh.run("denoise")["files"]["latents"]["sha256"]
    assert trained(fresh)["type"] == "result"
    assert fresh.run("denoise")["files"]["latents"]["sha256"] == before


@pytest.mark.long
def test_samples_are_shown_on_the_way(fork):
    child = fork(preview_s=1)
    child.ready()
    request = asked(child)
    assert child.until(request)["type"] == "result"
    [preview] = child.of(request, "preview")
    assert (preview["call"], preview["width"], preview["height"]) == (3, 64, 64)


@pytest.mark.long
def test_what_it_has_learned_is_drawn(fork, tmp_path):
    """The colours of the pictures, and no longer the model's own, with the file that came out."""
    child = fork(models=[tmp_path])
    child.ready()
    answer = trained(child, steps=60, rank=8, alpha=8.0, learning_rate=0.01, batch=1)
    content = Path(answer["files"]["adapter"]["path"]).read_bytes()
    (tmp_path / "learned.safetensors").write_bytes(content)
    body = hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()
    adapter = {"model": {"id": "learned", "path": str(tmp_path / "learned.safetensors"), "body_hash": body}, "weight": 1.0}

    def paleness(**more):
        drawn = []
        for seed in range(4):
            asked = {**SIZE, "seed": seed, "prompt": "a red circle on a blue background", **more}
            conditioning = child.run("encode", **{name: value for name, value in asked.items() if name in ("prompt", "adapters")})
            latents = child.run("denoise", files=conditioning["files"], **asked)["files"]["latents"]
            pixels = child.run("decode", files={"latents": latents}, **SIZE)["files"]["pixels"]
            picture = numpy.frombuffer(Path(pixels["path"]).read_bytes(), numpy.uint8).reshape(-1, 3).astype(float)
            drawn.append((picture.max(1) - picture.min(1)).mean())
        return sum(drawn) / len(drawn)

    own, learned = paleness(), paleness(adapters=[adapter])
    assert learned < 0.75 * own, (own, learned)


@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"batch": 1, "pictures": [(circle((1, 2, 3), (4, 5, 6)), "x")]}, None),
        ({"learning_rate": 1.0, "steps": 40, "alpha": 1000.0}, "not finite"),
    ],
)
def test_one_picture_is_enough_and_what_diverges_is_told(fresh, change, says):
    answer = trained(fresh, **change)
    if says is None:
        assert answer["type"] == "result"
    else:
        assert answer["code"] == "inference.diverged" and says in answer["message"]


@pytest.mark.long
def test_a_broken_checkpoint_is_refused_and_the_run_begins_again(undisturbed, fresh):
    answer, checkpoints, _ = undisturbed
    content = bytearray(Path(checkpoints[2]["path"]).read_bytes())
    content[-4] ^= 1
    broken = fresh.attempts / "broken.safetensors"
    broken.write_bytes(content)
    made = {"path": str(broken), "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "call": 2}
    again = trained(fresh, checkpoint=made)
    assert "step was 3, is 2" in again["stats"]["checkpoint_refused"]
    assert digests(again) == digests(answer)


def test_a_model_for_inpainting_is_refused(fresh, micro_folder):
    from micro import make_model

    painter = make_model(micro_folder / "painter-of-training", unet={"in_channels": 9})
    answer = trained(fresh, model=painter)
    assert answer["code"] == "inference.request_unfit" and answer["field"] == "input.model"
