"""Samplers and schedules: what each pair steps through, that it draws what it should, and that it goes on exactly."""

import hashlib
import itertools
import json
import math

import diffusers
import numpy
import pytest
import torch
from conftest import MODEL

from darkroom import checkpoint, samplers, schema, sigmas, solvers
from darkroom.errors import DarkroomError
from darkroom.schedule import Schedule

NAMES = list(samplers.SAMPLERS)
OVER_SIGMAS = [name for name, row in samplers.SAMPLERS.items() if row["schedules"] != ["Automatic"]]
# They end at the schedule's smallest sigma, not at 0.
NEVER_ZERO = ("DEIS", "SA-Solver")
CONFIG = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "clip_sample": False,
}
# Worked out from the definition, apart from the product: ᾱ is the running product of 1 − β, β even in its root.
ALPHAS = numpy.cumprod(1 - numpy.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
TABLE = numpy.sqrt((1 - ALPHAS) / ALPHAS)


def test_the_samplers_are_those_that_the_api_offers():
    assert list(schema.DOCUMENT["samplers"]) == NAMES
    assert {name for row in samplers.SAMPLERS.values() for name in row["schedules"]} == set(schema.DOCUMENT["schedules"])
    assert set(schema.DOCUMENT["schedules"]) == {"Automatic", *sigmas.SCHEDULES}
    assert len([name for name in NAMES if name != "DPM++ 2M Karras"]) >= 24


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


def test_a_pair_that_is_not_offered_is_refused():
    with pytest.raises(DarkroomError, match="there is no schedule 'Karras'; the nearest is 'Automatic'") as thrown:
        samplers.make_scheduler("DDIM", CONFIG, 4, "Karras")
    assert (thrown.value.code, thrown.value.field) == ("inference.sampler_unknown", "input.schedule")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_every_sampler_keeps_the_models_configuration(name, prediction_type):
    scheduler = samplers.make_scheduler(name, {**CONFIG, "prediction_type": prediction_type}, 6)
    config = dict(scheduler.config)
    assert config["prediction_type"] == prediction_type
    assert config["beta_schedule"] == "scaled_linear"
    assert config["steps_offset"] == 1
    assert scheduler.timesteps.device.type == "cpu"


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("DPM++ 2M", {"algorithm_type": "dpmsolver++", "solver_order": 2, "use_karras_sigmas": False}),
        ("DPM++ 2M Karras", {"algorithm_type": "dpmsolver++", "solver_order": 2, "use_karras_sigmas": True}),
        ("DPM++ 2M SDE", {"algorithm_type": "sde-dpmsolver++", "solver_order": 2, "solver_type": "midpoint"}),
        ("DPM++ 2M SDE Heun", {"algorithm_type": "sde-dpmsolver++", "solver_order": 2, "solver_type": "heun"}),
        ("Euler", {"use_karras_sigmas": False}),
        ("UniPC", {"solver_order": 2, "solver_type": "bh2"}),
        ("Heun", {"use_karras_sigmas": False}),
        ("PLMS", {"skip_prk_steps": True}),
    ],
)
def test_a_name_means_what_it_means_elsewhere(name, settings):
    config = samplers.make_scheduler(name, CONFIG, 6).config
    assert {key: config[key] for key in settings} == settings


def test_dpm_2m_with_karras_is_the_sampler_of_that_name():
    pair, name = samplers.make_scheduler("DPM++ 2M", CONFIG, 9, "Karras"), samplers.make_scheduler("DPM++ 2M Karras", CONFIG, 9)
    assert checkpoint.describe_scheduler(pair) == checkpoint.describe_scheduler(name)
    assert torch.equal(pair.sigmas, name.sigmas)
    assert torch.equal(pair.timesteps, name.timesteps)


def log_linear(x, left, right):
    """Between two points of the table, by the logarithm of sigma."""
    return math.exp(math.log(left) + x * (math.log(right) - math.log(left)))


def sigma_at(t):
    below = min(int(t), 998)
    return log_linear(t - below, TABLE[below], TABLE[below + 1])


def beta_quantile(q):
    """By a sum over x^(−0.4) (1 − x)^(−0.4), from which x = u^(5/3) takes the pole at 0 away."""
    u = (numpy.arange(200_000) + 0.5) / 200_000
    half = numpy.cumsum((1 - (u * 0.5**0.6) ** (5 / 3)) ** -0.4)
    half = half / half[-1] / 2
    if q > 0.5:
        return 1 - beta_quantile(1 - q)
    return (u[numpy.searchsorted(half, q)] * 0.5**0.6) ** (5 / 3)


# Thirteen steps of each, by its formula.
STEPS = 13
LOW, HIGH = TABLE[0], TABLE[-1]
BY_FORMULA = {
    "Karras": [(HIGH ** (1 / 7) + i / 12 * (LOW ** (1 / 7) - HIGH ** (1 / 7))) ** 7 for i in range(STEPS)],
    "Exponential": [HIGH * (LOW / HIGH) ** (i / 12) for i in range(STEPS)],
    "Beta": [TABLE[round(999 * beta_quantile(1 - i / STEPS))] if i else HIGH for i in range(STEPS)],
    "SGM Uniform": [sigma_at(999 * (1 - i / STEPS)) for i in range(STEPS)],
    "Simple": [TABLE[999 - int(i * 1000 / STEPS)] for i in range(STEPS)],
    "Normal": [sigma_at(999 * (1 - i / 12)) for i in range(STEPS)],
}


@pytest.mark.parametrize("schedule", BY_FORMULA)
def test_a_schedule_gives_the_sigmas_of_its_formula(schedule):
    made = sigmas.SCHEDULES[schedule](STEPS, sigmas.table_of(CONFIG), sigmas.ALIGNED_SD1)
    numpy.testing.assert_allclose(made, BY_FORMULA[schedule], rtol=2e-5)


@pytest.mark.parametrize("family", [sigmas.ALIGNED_SD1, sigmas.ALIGNED_SDXL])
def test_align_your_steps_is_its_table_at_ten_steps_and_between_its_points_elsewhere(family):
    table = sigmas.table_of(CONFIG)
    numpy.testing.assert_allclose(sigmas.align_your_steps(10, table, family), family[:10], rtol=1e-12)
    twenty = sigmas.align_your_steps(20, table, family)
    numpy.testing.assert_allclose(twenty[::2], family[:10], rtol=1e-12)
    numpy.testing.assert_allclose(twenty[1::2], [math.sqrt(a * b) for a, b in itertools.pairwise(family)], rtol=1e-12)


def test_align_your_steps_has_the_first_numbers_that_its_authors_published():
    from diffusers.schedulers import AysSchedules

    assert list(sigmas.ALIGNED_SD1[:10]) == AysSchedules["StableDiffusionSigmas"][:10]
    assert list(sigmas.ALIGNED_SDXL[:10]) == AysSchedules["StableDiffusionXLSigmas"][:10]


@pytest.mark.parametrize("schedule", sigmas.SCHEDULES)
def test_every_sampler_over_sigmas_takes_those_of_the_schedule(schedule):
    table = sigmas.table_of(CONFIG)
    for name in OVER_SIGMAS:
        if schedule in samplers.SAMPLERS[name]["named"]:
            continue
        zero = name not in NEVER_ZERO
        expected = sigmas.SCHEDULES[schedule](12 if zero else 13, table, sigmas.ALIGNED_SD1)
        scheduler = samplers.make_scheduler(name, CONFIG, 12, schedule)
        made = [float(sigma) for sigma in scheduler.sigmas]
        if name == "Heun":
            made = [made[0], *made[1::2]]
        numpy.testing.assert_allclose(made, [*expected, 0] if zero else expected, rtol=1e-6, err_msg=name)
        if name in ("Heun", *TWICE):
            continue
        times = scheduler.timesteps.double().numpy()
        numpy.testing.assert_allclose([sigma_at(t) for t in times], made[: len(times)], rtol=2e-4, err_msg=name)


TWICE = ("DPM2", "DPM2 a", "DPM++ 2S a", "DPM++ SDE")


def calls_of(name, steps):
    """How often a sampler of so many steps calls the network."""
    if name in TWICE:
        # An ancestral step to 0 goes all the way; so does any other's last.
        return 2 * steps - 1
    return {"Heun": 2 * steps - 1, "PLMS": steps + 1 if steps > 1 else 1}.get(name, steps)


@pytest.mark.parametrize("steps", [1, 2, 200])
def test_every_sampler_takes_every_number_of_steps_that_the_api_takes(steps):
    for name in NAMES:
        assert len(samplers.make_scheduler(name, CONFIG, steps).timesteps) == calls_of(name, steps), name


# What no sampler of a picture does on Gaussian data is to change its deviation, 1: where the picture's law is the
# standard one, the best prediction of the noise is known, and the way from noise to picture is a line.
def drawn(name, schedule, steps, size=96):
    """(noise, picture), as latents of deviation 1, by the best prediction there is."""
    table = sigmas.table_of(CONFIG)
    scheduler, generator = samplers.make_scheduler(name, CONFIG, steps, schedule), torch.Generator("cpu").manual_seed(3)
    noise = torch.randn(1, 4, size, size, generator=generator)
    latents, options = noise * float(scheduler.init_noise_sigma), samplers.step_options(scheduler, generator)
    for t in scheduler.timesteps:
        sigma = float(sigmas.at(numpy.array([float(t)]), table)[0])
        seen = scheduler.scale_model_input(latents, t)
        latents = scheduler.step(seen * (sigma / math.sqrt(sigma**2 + 1)), t, latents, **options, return_dict=False)[0]
    return noise, latents


# They take the network for one that was distilled, whose prediction is the whole picture.
DISTILLED = ("LCM", "TCD")
# Normal's last step but one is so wide that what these carry on from the steps before overshoots, as in k-diffusion.
WIDE_AT_THE_END = ("DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE", "RES Multistep a")
NOISY = tuple(name for name in NAMES if " a" in name or "SDE" in name or name in ("DDPM", "SA-Solver"))


@pytest.mark.parametrize("schedule", schema.DOCUMENT["schedules"])
def test_every_pair_draws_pictures_of_the_deviation_that_the_data_have(schedule):
    for name in [name for name, pair in samplers.PAIRS if pair == schedule and name not in DISTILLED]:
        if schedule in ("Automatic", "Normal") and name in WIDE_AT_THE_END:
            continue
        noise, picture = drawn(name, schedule, 60, size=64)
        assert picture.std().item() == pytest.approx(1, abs=0.06), name
        if name not in NOISY:
            assert torch.corrcoef(torch.stack([noise.flatten(), picture.flatten()]))[0, 1] > 0.999, name


@pytest.mark.parametrize(("name", "order"), [("Euler", 1), ("Heun", 2), ("DPM2", 2), ("RES Multistep", 2), ("LMS", 3), ("iPNDM", 1)])
def test_twice_the_steps_come_nearer_by_the_samplers_order(name, order):
    """Down to the last sigma, behind which every one of them takes what the network says."""
    table = sigmas.table_of(CONFIG)

    def error(steps):
        """Of the latents at 0.5, from 8 in so many steps."""
        spread = numpy.linspace(8.0, 0.5, steps)
        row = samplers.SAMPLERS[name]
        if hasattr(solvers, row["class"]):
            scheduler = getattr(solvers, row["class"])(CONFIG, spread, table)
        else:
            scheduler = samplers.make_scheduler(name, CONFIG, steps, "Karras")
            levels = torch.tensor([*spread, 0.0], dtype=torch.float64)
            scheduler.sigmas = torch.cat([levels[:1], levels[1:-1].repeat_interleave(2), levels[-1:]]) if name == "Heun" else levels
        x = torch.full((1, 1, 1, 1), math.sqrt(8.0**2 + 1), dtype=torch.float64)
        for t in scheduler.timesteps[:-1]:
            # What the network sees tells its sigma, by which it was scaled.
            seen = scheduler.scale_model_input(x, t)
            sigma = math.sqrt(max(0.0, float((x / seen) ** 2) - 1))
            predicted = seen * (sigma / math.sqrt(sigma**2 + 1))
            x = scheduler.step(predicted, t, x, **samplers.step_options(scheduler, None), return_dict=False)[0]
        return abs(float(x) - math.sqrt(0.5**2 + 1))

    assert error(33) / error(65) > 0.75 * 2**order


def bent(scheduler, steps_from=None):
    """Latents by a network whose answer is no line."""
    generator = torch.Generator("cpu").manual_seed(3)
    latents = torch.randn(1, 4, 8, 8, generator=generator) * float(steps_from or scheduler.init_noise_sigma)
    for t in scheduler.timesteps:
        predicted = scheduler.scale_model_input(latents, t).tanh()
        latents = scheduler.step(predicted, t, latents, **samplers.step_options(scheduler, generator), return_dict=False)[0]
    return latents


def test_every_sampler_draws_another_picture():
    assert len({bent(samplers.make_scheduler(name, CONFIG, 5)).numpy().tobytes() for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("LMS", "LMSDiscreteScheduler"), ("DPM2", "KDPM2DiscreteScheduler"), ("DPM2 a", "KDPM2AncestralDiscreteScheduler")],
)
def test_ours_draws_what_diffusers_draws_where_it_has_the_same_sampler(name, theirs):
    other = getattr(diffusers, theirs).from_config({**CONFIG, "timestep_spacing": "linspace"})
    other.set_timesteps(12)
    ours = samplers.make_scheduler(name, {**CONFIG, "timestep_spacing": "linspace"}, 12)
    torch.testing.assert_close(bent(ours, 14), bent(other, 14), rtol=1e-5, atol=5e-5)


def test_every_schedule_draws_another_picture(shared):
    pictures = {shared.run("denoise", sampler="Euler", schedule=name, steps=4)["files"]["latents"]["sha256"] for name in sigmas.SCHEDULES}
    assert len(pictures) == 7


@pytest.mark.parametrize("steps", [1, 2])
def test_every_pair_draws_with_few_steps(tmp_path, steps):
    (tmp_path / "scheduler_config.json").write_text(json.dumps({"_class_name": "DDIMScheduler", **CONFIG}))
    own = Schedule(str(tmp_path / "scheduler_config.json"), 4)
    # It takes all steps before it is handed out.
    assert [len(own.scheduler(name, steps, schedule).timesteps) for name, schedule in samplers.PAIRS]


@pytest.mark.parametrize("name", NAMES)
def test_every_pair_goes_on_from_a_checkpoint_to_the_same_bytes(name):
    """From each third call on, scheduler and generator as new as another process has them."""
    identity = {"request": {}, "model": MODEL["id"], "fingerprint": {}}

    def advance(latents, scheduler, generator, calls):
        options = samplers.step_options(scheduler, generator)
        for t in calls:
            scheduler.scale_model_input(latents, t)
            latents = scheduler.step(latents.sin(), t, latents, **options, return_dict=False)[0]
        return latents

    for schedule in samplers.SAMPLERS[name]["schedules"]:
        scheduler, generator = samplers.make_scheduler(name, CONFIG, 6, schedule), torch.Generator("cpu").manual_seed(3)
        latents = torch.randn(1, 4, 8, 8, generator=generator)
        recorder = checkpoint.Recorder(scheduler, generator, identity)
        for call in range(0, len(scheduler.timesteps), 3):
            latents = advance(latents, scheduler, generator, scheduler.timesteps[max(0, call - 3) : call])
            content = recorder.take(latents, call)()
            other, other_generator = samplers.make_scheduler(name, CONFIG, 6, schedule), torch.Generator("cpu")
            given = {"sha256": hashlib.sha256(content).hexdigest(), "call": call}
            restored = checkpoint.restore(content, given, other, other_generator, identity, torch.device("cpu"))
            same(restored, latents, "latents")
            same(other_generator.get_state(), generator.get_state(), "rng")
            for key, value in vars(scheduler).items():
                same(vars(other)[key], value, f"{schedule}: {key}")
        rest = scheduler.timesteps[call:]
        same(advance(restored, other, other_generator, rest), advance(latents, scheduler, generator, rest), schedule)


def same(left, right, where):
    assert type(left) is type(right), where
    if isinstance(right, torch.Tensor):
        assert left.dtype == right.dtype and torch.equal(left.nan_to_num(9), right.nan_to_num(9)), where
    elif isinstance(right, numpy.ndarray):
        assert left.dtype == right.dtype and numpy.array_equal(left, right, equal_nan=True), where
    elif isinstance(right, (list, tuple)):
        assert len(left) == len(right), where
        for one, other in zip(left, right, strict=True):
            same(one, other, where)
    elif callable(right):
        # The solver of stochastic Adams holds a function of the timestep, which its configuration makes.
        assert left.__code__ is right.__code__, where
    else:
        assert left == right, where
