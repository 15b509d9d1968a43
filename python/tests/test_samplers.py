import hashlib

import pytest
import torch
from conftest import MODEL

from darkroom import checkpoint, samplers, schema, tensors
from darkroom.errors import DarkroomError

NAMES = list(samplers.SAMPLERS)
CONFIG = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "epsilon",
    "steps_offset": 1,
}


def test_the_samplers_are_those_that_the_api_offers():
    assert schema.DOCUMENT["samplers"] == NAMES


@pytest.mark.parametrize(("unknown", "nearest"), [("DPM++ 2M SDE Karras", "DPM++ 2M Karras"), ("Eular", "Euler"), ("euler a", "Euler a")])
def test_an_unknown_name_is_refused_with_the_nearest(unknown, nearest):
    with pytest.raises(DarkroomError) as thrown:
        samplers.make_scheduler(unknown, CONFIG, 4)
    assert thrown.value.code == "inference.sampler_unknown"
    assert thrown.value.details == {"nearest": nearest}
    assert repr(nearest) in thrown.value.message


def test_even_a_name_like_no_other_gets_an_answer():
    with pytest.raises(DarkroomError, match="there is no sampler ''"):
        samplers.make_scheduler("", CONFIG, 4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_every_sampler_keeps_the_models_configuration(name, prediction_type):
    scheduler = samplers.make_scheduler(name, {**CONFIG, "prediction_type": prediction_type}, 6)
    assert scheduler.config.prediction_type == prediction_type
    assert scheduler.config.beta_schedule == "scaled_linear"
    assert scheduler.config.steps_offset == 1
    assert scheduler.timesteps.device.type == "cpu"


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("DPM++ 2M", {"algorithm_type": "dpmsolver++", "solver_order": 2, "use_karras_sigmas": False}),
        ("DPM++ 2M Karras", {"algorithm_type": "dpmsolver++", "solver_order": 2, "use_karras_sigmas": True}),
        ("Euler", {"use_karras_sigmas": False}),
        ("UniPC", {"solver_order": 2, "solver_type": "bh2"}),
        ("Heun", {"use_karras_sigmas": False}),
    ],
)
def test_a_name_means_what_it_means_elsewhere(name, settings):
    config = samplers.make_scheduler(name, CONFIG, 6).config
    assert {key: config[key] for key in settings} == settings


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 2, 200])
def test_every_sampler_takes_every_number_of_steps_that_the_api_takes(name, steps):
    calls = {"Heun": 2 * steps - 1}.get(name, steps)
    assert len(samplers.make_scheduler(name, CONFIG, steps).timesteps) == calls


def test_every_sampler_draws_another_picture(shared):
    pictures = {name: shared.run("denoise", sampler=name)["files"]["latents"]["sha256"] for name in NAMES}
    assert len(set(pictures.values())) == len(NAMES)


@pytest.mark.parametrize("steps", [1, 2])
def test_every_sampler_draws_with_few_steps(shared, steps):
    for name in NAMES:
        assert shared.run("denoise", sampler=name, steps=steps)["type"] == "result", name


@pytest.mark.parametrize("name", NAMES)
def test_all_of_a_scheduler_comes_back_from_a_checkpoint(name):
    scheduler, generator = samplers.make_scheduler(name, CONFIG, 6), torch.Generator("cpu").manual_seed(3)
    latents, options = torch.randn(1, 4, 8, 8, generator=generator), samplers.step_options(scheduler, generator)
    for t in scheduler.timesteps[:4]:
        scheduler.scale_model_input(latents, t)
        latents = scheduler.step(torch.full_like(latents, 0.1), t, latents, **options, return_dict=False)[0]
    identity = {"request": {}, "model": MODEL["id"], "fingerprint": {}}
    content = tensors.save(*checkpoint.snapshot(latents, generator, scheduler, 4, identity))

    other, other_generator = samplers.make_scheduler(name, CONFIG, 6), torch.Generator("cpu")
    given = {"sha256": hashlib.sha256(content).hexdigest(), "call": 4}
    restored = checkpoint.restore(content, given, other, other_generator, identity, torch.device("cpu"))
    same(restored, latents, "latents")
    same(other_generator.get_state(), generator.get_state(), "rng")
    for key, value in vars(scheduler).items():
        same(vars(other)[key], value, key)


def same(left, right, where):
    import numpy

    assert type(left) is type(right), where
    if isinstance(right, torch.Tensor):
        assert left.dtype == right.dtype and torch.equal(left.nan_to_num(9), right.nan_to_num(9)), where
    elif isinstance(right, numpy.ndarray):
        assert left.dtype == right.dtype and numpy.array_equal(left, right, equal_nan=True), where
    elif isinstance(right, (list, tuple)):
        assert len(left) == len(right), where
        for one, other in zip(left, right, strict=True):
            same(one, other, where)
    else:
        assert left == right, where
