"""A model's schedule: whatever stands in it, each sampler draws with it or is refused beforehand, and by name."""

import json

import pytest
import torch
from micro import SCHEDULER, make_model
from test_samplers import calls_of

from darkroom import samplers
from darkroom.errors import DarkroomError
from darkroom.schedule import FIELDS, WRITTEN_BY, Schedule

NAMES = list(samplers.SAMPLERS)
# One sampler of each class, whatever else it is made with: which fields are read is a matter of the class. Those of our
# own read what their common base reads.
KINDS = list({row["class"] if row["class"].endswith("Scheduler") else "Solver": name for name, row in samplers.SAMPLERS.items()}.values())
BETAS = [0.001 + index / 60_000 for index in range(1000)]


@pytest.fixture
def schedule_of(tmp_path):
    def make(text):
        path = tmp_path / "scheduler_config.json"
        path.write_text(text if isinstance(text, str) else json.dumps(text))
        return Schedule(str(path), 4)

    return make


def changed(**changes):
    return {**SCHEDULER, **changes}


def without(*names):
    return {name: value for name, value in SCHEDULER.items() if name not in names}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read as JSON"),
        ("\ufeff{}", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[]", "must hold an object"),
        ("3", "must hold an object"),
        ({}, "num_train_timesteps is missing"),
        (without("num_train_timesteps"), "num_train_timesteps is missing"),
        (without("beta_schedule"), "beta_schedule is missing"),
        (without("beta_start"), "beta_start is missing"),
        (without("beta_end"), "beta_end is missing"),
        (changed(num_train_timesteps=0), "num_train_timesteps must be a whole number"),
        (changed(num_train_timesteps=-1000), "num_train_timesteps must be a whole number"),
        (changed(num_train_timesteps=10**9), "num_train_timesteps must be a whole number"),
        (changed(num_train_timesteps="1000"), "num_train_timesteps must be a whole number"),
        (changed(num_train_timesteps=True), "num_train_timesteps must be a whole number"),
        (changed(beta_schedule="cosine"), "beta_schedule must be one of linear, "),
        (changed(beta_schedule="exp"), None),
        (changed(prediction_type="velocity"), "prediction_type must be one of epsilon, "),
        (changed(prediction_type="flow_prediction"), "prediction_type must be one of epsilon, "),
        (changed(timestep_spacing="log"), "timestep_spacing must be one of "),
        (changed(timestep_type="continuous"), "timestep_type must be one of discrete"),
        (changed(clip_sample="false"), "clip_sample must be true, false or null"),
        (changed(clip_sample=0), "clip_sample must be true, false or null"),
        (changed(beta_end=2), "beta_end must be a number from 0 to 1"),
        (changed(beta_start=-0.1), "beta_start must be a number from 0 to 1"),
        (changed(beta_start=float("nan")), "beta_start must be a number from 0 to 1"),
        (changed(trained_betas=BETAS[:999]), "trained_betas has 999 numbers, not num_train_timesteps, 1000"),
        (changed(trained_betas=[]), "trained_betas has 0 numbers"),
        (changed(trained_betas=["0.1"] * 1000), "trained_betas must be a list of numbers"),
        (changed(trained_betas=[2.0] * 1000), "trained_betas must be a list of numbers"),
        (changed(steps_offset=-1), "steps_offset must be a whole number"),
        (changed(solver_order=0), "solver_order must be a whole number"),
        (changed(use_flow_sigmas=True), "use_flow_sigmas must be false"),
        (changed(_class_name="FlowMatchEulerDiscreteScheduler"), "_class_name must be a scheduler whose noise follows betas"),
    ],
)
def test_a_schedule_that_nothing_can_draw_with_is_refused_with_file_and_field(schedule_of, tmp_path, text, words):
    if words is None:
        schedule_of(text)
        return
    with pytest.raises(DarkroomError) as thrown:
        schedule_of(text)
    assert (thrown.value.code, thrown.value.field) == ("model.corrupt", "model.path")
    assert f"{tmp_path / 'scheduler_config.json'}: {words}" in thrown.value.message


@pytest.mark.parametrize("name", sorted(WRITTEN_BY))
def test_what_the_library_writes_of_a_scheduler_is_taken_by_most_samplers(schedule_of, name):
    import diffusers

    try:
        written = getattr(diffusers, name)().to_json_string()
    except ImportError as error:
        # Some schedulers need packages that are no part of the environment; the message names which.
        pytest.skip(str(error))
    schedule = schedule_of(written)
    fit = [sampler for sampler in KINDS if not isinstance(attempt(schedule, sampler), DarkroomError)]
    assert len(fit) >= 6, fit


def attempt(schedule, sampler):
    try:
        return schedule.scheduler(sampler, 8)
    except DarkroomError as error:
        return error


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_of_another_type_is_refused_or_every_sampler_gives_a_plain_answer(schedule_of, field):
    for value in ({}, [[]], "x", -1.5, 1e999, None, True, 7, [1, "a"]):
        try:
            schedule = schedule_of(changed(**{field: value}))
        except DarkroomError as error:
            assert error.code == "model.corrupt"
            assert "scheduler_config.json" in error.message
            continue
        plain_answers(schedule, 6)


HOSTILE = {
    "fewer steps than are asked for": changed(num_train_timesteps=5),
    "two steps": changed(num_train_timesteps=2),
    "an offset beyond the end": changed(steps_offset=900, timestep_spacing="leading"),
    "an offset of all": changed(steps_offset=100_000, timestep_spacing="leading"),
    "no noise": changed(beta_start=0, beta_end=0),
    "noise from nothing": changed(beta_start=0),
    "all noise": changed(beta_start=1, beta_end=1),
    "noise of zero signal": changed(rescale_betas_zero_snr=True),
    "a schedule of some": changed(beta_schedule="exp"),
    "predicts the sample": changed(prediction_type="sample"),
    "learned variance": changed(variance_type="learned_range"),
    "two kinds of sigmas": changed(use_karras_sigmas=True, use_exponential_sigmas=True),
    "beta sigmas": changed(use_beta_sigmas=True),
    "exponential sigmas": changed(use_exponential_sigmas=True),
    "lambdas": changed(use_lu_lambdas=True),
    "another solver": changed(algorithm_type="dpmsolver", solver_type="heun", final_sigmas_type="zero"),
    "a third order": changed(solver_order=3),
    "sigmas that end early": changed(final_sigmas_type="sigma_min"),
    "sigmas by logarithm": changed(interpolation_type="log_linear"),
    "thresholds of nothing": changed(thresholding=True, sample_max_value=-1.0, dynamic_thresholding_ratio=0.0),
    "a huge scaling": changed(timestep_scaling=1e38),
    "trained betas": changed(trained_betas=BETAS),
    "linear spacing": changed(timestep_spacing="linspace"),
    "trailing spacing": changed(timestep_spacing="trailing"),
    "few original steps": changed(original_inference_steps=1),
}


# 61 of 1000 is a fraction that spacings round, where spacings are at stake.
SPACED = ("trailing spacing", "linear spacing", "trained betas", "sigmas by logarithm")


@pytest.mark.parametrize(("name", "steps"), [*((name, steps) for name in HOSTILE for steps in (1, 6)), *((name, 61) for name in SPACED)])
def test_every_sampler_draws_with_it_or_is_refused_before_the_first_call(schedule_of, name, steps):
    try:
        schedule = schedule_of(HOSTILE[name])
    except DarkroomError as error:
        assert error.code == "model.corrupt"
        assert "suits none of the samplers" in error.message
        return
    plain_answers(schedule, steps)


def plain_answers(schedule, steps):
    """Every sampler takes all steps to finite latents, or is refused with the names of those that do."""
    fit, refused = [], []
    for name in KINDS:
        try:
            scheduler = schedule.scheduler(name, steps)
        except DarkroomError as error:
            assert (error.code, error.error_class, error.field) == ("inference.schedule_unfit", "permanent", "input.sampler")
            assert f"sampler {name} cannot draw {steps} steps of the schedule in " in error.message
            refused.append(error)
            continue
        fit.append(name)
        generator = torch.Generator("cpu").manual_seed(3)
        latents = torch.randn(1, 4, 4, 4, generator=generator) * float(scheduler.init_noise_sigma)
        options = samplers.step_options(scheduler, generator)
        for t in scheduler.timesteps:
            assert 0 <= t < schedule.config["num_train_timesteps"]
            scheduler.scale_model_input(latents, t)
            latents = scheduler.step(latents * 0.1, t, latents, **options, return_dict=False)[0]
        assert latents.isfinite().all(), name
    for error in refused:
        named = error.details["samplers"]
        assert [name for name in named if name in KINDS] == sorted(fit, key=NAMES.index)
        assert ", ".join(named) in error.message


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_an_ordinary_schedule_gives_each_sampler_the_steps_that_were_asked_for(spacing):
    """Also where a fraction of 1000 rounds up: 61, 103, 121, 122."""
    for name in NAMES:
        for steps in (1, 2, 20, 50, 61, 103, 121, 122, 200):
            times = samplers.make_scheduler(name, changed(timestep_spacing=spacing), steps).timesteps
            assert len(times) == calls_of(name, steps), name
            assert times.min() >= 0 and times.max() < 1000


def test_a_model_of_zero_terminal_snr_is_drawn_by_those_that_know_it(schedule_of):
    """Karras and others reach from its own end, 4096 in place of infinity; who reads the betas otherwise is refused."""
    schedule = schedule_of(changed(rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction"))
    assert float(schedule.scheduler("Euler", 8, "Karras").sigmas[0]) == pytest.approx(4096, rel=1e-4)
    assert float(schedule.scheduler("DPM2", 8).sigmas[0]) == pytest.approx(4096, rel=1e-4)
    with pytest.raises(DarkroomError, match="trained with rescale_betas_zero_snr, which it does not know; Euler, Euler a") as thrown:
        schedule.scheduler("Heun", 8)
    assert {"DPM2", "DDIM"} < set(thrown.value.details["samplers"])


def test_a_request_that_a_sampler_cannot_draw_ends_before_its_first_call(fresh, micro_folder):
    model = make_model(micro_folder / "short schedule", seed=6, scheduler={"num_train_timesteps": 10})
    request_id = fresh.work("denoise", model=model, steps=11, sampler="DDIM")
    answer = fresh.until(request_id)
    assert (answer["code"], answer["field"]) == ("inference.schedule_unfit", "input.sampler")
    assert "the model was trained with 10 steps" in answer["message"]
    assert not [frame for frame in fresh.of(request_id, "progress") if "call" in frame]
    assert fresh.run("denoise", model=model, steps=5, sampler="DDIM")["type"] == "result"
