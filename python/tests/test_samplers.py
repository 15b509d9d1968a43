import json

import pytest
from conftest import MODEL, ROOT, given
from darkroom import checkpoint, samplers
from darkroom.errors import DarkroomError

NAMES = list(samplers.SAMPLERS)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [("dpmpp_2m", "DPM++ 2M"), ("euler_ancestral", "Euler a"), ("  euler   A ", "Euler a"), ("uni_pc", "UniPC")],
)
def test_other_spellings_are_understood(spelling, name):
    assert samplers.canonical_name(spelling) == name


@pytest.mark.parametrize(
    ("unknown", "nearest"), [("DPM++ SDE Karras", "DPM++ 2M SDE Karras"), ("Eular", "Euler"), ("", "LCM")]
)
def test_an_unknown_name_is_refused_with_the_nearest(unknown, nearest):
    with pytest.raises(DarkroomError) as thrown:
        samplers.canonical_name(unknown)
    assert thrown.value.code == "inference.sampler_unknown"
    if unknown:
        assert thrown.value.details == {"nearest": nearest}
        assert repr(nearest) in thrown.value.message


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_every_sampler_keeps_the_models_configuration(name, prediction_type):
    config = json.loads((ROOT / "models/darkroom-tiny/scheduler/scheduler_config.json").read_text())
    scheduler = samplers.make_scheduler(name, {**config, "prediction_type": prediction_type}, 6)
    assert scheduler.config.prediction_type == prediction_type
    assert scheduler.config.beta_schedule == config["beta_schedule"]
    assert scheduler.timesteps.device.type == "cpu"


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("name", NAMES)
def test_every_sampler_draws_with_few_steps(shared, name, steps):
    answer = shared.run("denoise", sampler=name, steps=steps)
    assert answer["type"] == "result", answer
    assert answer["stats"]["calls"] >= steps


def test_another_sampler_is_another_picture_but_no_other_seed(shared):
    pictures = {name: shared.run("denoise", sampler=name)["files"]["latents"]["sha256"] for name in NAMES}
    assert len(set(pictures.values())) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_resumes_to_the_same_bytes_in_another_process(shared, fresh, name):
    """At every third call, through a process that knows nothing of the one that wrote it."""
    request_id = shared.work("denoise", sampler=name)
    whole = shared.until(request_id)
    made = [
        frame["data"]
        for frame in shared.frames
        if frame["request_id"] == request_id and frame["data"].get("type") == "checkpoint"
    ]
    assert [file["call"] for file in made] == list(range(1, whole["stats"]["calls"]))
    for file in made[::3] or made:
        resumed = fresh.run("denoise", sampler=name, checkpoint=relocated(fresh, given(file)))
        assert resumed["stats"]["checkpoint_refused"] is None
        assert resumed["stats"]["resumed_from"] == file["call"]
        assert resumed["files"]["latents"]["sha256"] == whole["files"]["latents"]["sha256"]


def test_scheduler_state_is_the_same_after_a_round_trip():
    import torch

    config = json.loads((ROOT / "models/darkroom-tiny/scheduler/scheduler_config.json").read_text())
    for name in NAMES:
        scheduler = samplers.make_scheduler(name, config, 6)
        generator = torch.Generator("cpu").manual_seed(3)
        options, latents = samplers.step_options(scheduler, generator), torch.randn(1, 4, 8, 8, generator=generator)
        for t in scheduler.timesteps[:4]:
            noise = torch.full_like(latents, 0.1)
            latents = scheduler.step(noise, t, latents, **options, return_dict=False)[0]
        identity = {"request": {}, "model": MODEL["id"], "fingerprint": {}}
        content = checkpoint.serialize(*checkpoint.snapshot(latents, generator, scheduler, 4, identity))
        other, other_generator = samplers.make_scheduler(name, config, 6), torch.Generator("cpu")
        restored, call = checkpoint.restore(content, sha256(content), other, other_generator, identity)
        assert call == 4
        assert torch.equal(restored, latents)
        assert torch.equal(other_generator.get_state(), generator.get_state())
        for key, value in vars(scheduler).items():
            same(vars(other)[key], value, f"{name} {key}")


def same(left, right, where):
    import numpy
    import torch

    assert type(left) is type(right), where
    if isinstance(right, torch.Tensor):
        assert left.dtype == right.dtype and torch.equal(left, right), where
    elif isinstance(right, numpy.ndarray):
        assert left.dtype == right.dtype and numpy.array_equal(left, right), where
    elif isinstance(right, (list, tuple)):
        assert len(left) == len(right), where
        for one, other in zip(left, right, strict=True):
            same(one, other, where)
    elif isinstance(right, (bool, int, float, str, type(None))):
        assert left == right, where


def sha256(content):
    import hashlib

    return hashlib.sha256(content).hexdigest()


def relocated(child, file):
    """The file, copied into the folder that the other child may read."""
    import shutil
    from pathlib import Path

    target = child.attempts / f"{file['sha256'][:16]}-{Path(file['path']).name}"
    shutil.copyfile(file["path"], target)
    return {**file, "path": str(target)}
