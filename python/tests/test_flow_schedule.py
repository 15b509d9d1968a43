"""Schedules of flow matching: the times that the model was trained with, whatever the sampler, or a plain refusal."""

import json
import math

import pytest
import torch
from micro_flow import SCHEDULERS

from darkroom import schema
from darkroom.errors import DarkroomError
from darkroom.flow_schedule import FIELDS, SAMPLERS, FlowSchedule

SHAPE = (1, 4, 64, 64)


@pytest.fixture
def schedule_of(tmp_path):
    def make(config, **options):
        path = tmp_path / "scheduler_config.json"
        path.write_text(json.dumps(config))
        return FlowSchedule(str(path), 4, **options)

    return make


@pytest.mark.parametrize(("rows", "mu"), [(32, 0.5), (128, 1.15), (256, 0.5 + 0.65 * (16384 - 256) / 3840)])
def test_time_is_shifted_towards_noise_with_the_size_of_the_picture(schedule_of, rows, mu):
    """Equation 23 of arXiv 2403.03206 in the form of FLUX.1: t' = e^mu / (e^mu + 1/t - 1)."""
    scheduler = schedule_of(SCHEDULERS["flux1"]).scheduler("Euler", 5, (1, 4, rows, rows))
    shifted = [1000 * math.exp(mu) / (math.exp(mu) + 1 / share - 1) for share in (1, 0.8, 0.6, 0.4, 0.2)]
    assert scheduler.timesteps.tolist() == pytest.approx(shifted, rel=1e-5)
    assert scheduler.sigmas.tolist() == pytest.approx([*(t / 1000 for t in shifted), 0], rel=1e-5)


def test_heun_takes_the_same_times_twice_and_is_of_second_order(schedule_of):
    """dx/dt = x from t = 1 to 0 has x(0) = x(1)/e: with twice the steps Heun's error falls to a quarter, Euler's to
    half."""
    schedule = schedule_of({**SCHEDULERS["z-image"], "shift": 1.0})
    euler = schedule.scheduler("Euler", 4, SHAPE).timesteps.tolist()
    heun = schedule.scheduler("Heun", 4, SHAPE).timesteps.tolist()
    assert heun == [euler[0], *(t for t in euler[1:] for _ in range(2))]
    errors = {}
    for sampler in ("Euler", "Heun"):
        for steps in (8, 16, 32):
            scheduler = schedule.scheduler(sampler, steps, SHAPE)
            x = torch.ones(1, 1, 1, 1)
            for t in scheduler.timesteps:
                x = scheduler.step(x, t, x, return_dict=False)[0]
            errors[sampler, steps] = abs(float(x) - 1 / math.e)
    assert errors["Euler", 16] / errors["Euler", 32] == pytest.approx(2, rel=0.1)
    # Its last step is Euler's, so the order shows up to that step.
    assert errors["Heun", 32] < errors["Euler", 32] / 8


def test_lcm_draws_new_noise_of_the_requests_generator(schedule_of):
    schedule = schedule_of(SCHEDULERS["z-image"])

    def drawn(seed):
        scheduler = schedule.scheduler("LCM", 3, SHAPE)
        generator = torch.Generator().manual_seed(seed)
        return scheduler.step(torch.ones(SHAPE), scheduler.timesteps[0], torch.zeros(SHAPE), generator=generator, return_dict=False)[0]

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


@pytest.mark.parametrize(("name", "nearest"), [("Euler a", "Euler"), ("DDIM", None), ("UniPC", None), ("heun", "Heun"), ("LCMS", "LCM")])
def test_a_sampler_of_another_kind_of_noise_is_refused_with_the_nearest(schedule_of, name, nearest):
    with pytest.raises(DarkroomError) as thrown:
        schedule_of(SCHEDULERS["flux1"]).scheduler(name, 4, SHAPE)
    assert (thrown.value.code, thrown.value.field) == ("inference.sampler_unknown", "input.sampler")
    assert thrown.value.details["nearest"] in SAMPLERS
    assert nearest is None or thrown.value.details["nearest"] == nearest


def test_a_schedule_of_another_kind_of_noise_is_refused(schedule_of):
    with pytest.raises(DarkroomError) as thrown:
        schedule_of(SCHEDULERS["flux1"]).scheduler("Euler", 4, SHAPE, "Karras")
    assert (thrown.value.code, thrown.value.field) == ("inference.sampler_unknown", "input.schedule")
    assert thrown.value.details["nearest"] == "Automatic"


def test_node_offers_what_is_drawn():
    assert [*SAMPLERS] == schema.DOCUMENT["flow_samplers"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"_class_name": "DDIMScheduler"}, "_class_name must be one of FlowMatchEulerDiscreteScheduler, "),
        ({"num_train_timesteps": None}, "num_train_timesteps must be a whole number"),
        ({"shift": 0}, "shift must be a number from 0.001 to 1000, not 0"),
        ({"shift": "3"}, "shift must be a number"),
        ({"use_dynamic_shifting": "yes"}, "use_dynamic_shifting must be true, false or null"),
        ({"use_dynamic_shifting": True, "base_shift": None}, "base_shift is missing"),
        (
            {"use_dynamic_shifting": True, "base_shift": 0.5, "base_image_seq_len": 4096},
            "suits none of the samplers; of Euler: ZeroDivisionError",
        ),
        ({"time_shift_type": "cosine"}, "time_shift_type must be one of exponential, linear"),
        ({"shift_terminal": 1}, "shift_terminal must be a number from 0 to 0.999, or null, not 1"),
        ({"use_karras_sigmas": True, "use_exponential_sigmas": True}, "suits none of the samplers; of Euler: ValueError"),
        ({"scale_factors": [0.5]}, "scale_factors must be null"),
    ],
)
def test_a_schedule_that_nothing_can_draw_with_is_refused_with_file_and_field(schedule_of, tmp_path, changes, words):
    with pytest.raises(DarkroomError) as thrown:
        schedule_of({**SCHEDULERS["z-image"], **changes})
    assert (thrown.value.code, thrown.value.field) == ("model.corrupt", "model.path")
    assert f"{tmp_path / 'scheduler_config.json'}: {words}" in thrown.value.message


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [{}, [[]], "x", -1.5, 1e999, None, True, 7])
def test_a_field_of_another_type_is_refused_or_every_sampler_gives_a_plain_answer(schedule_of, field, value):
    for base in SCHEDULERS.values():
        try:
            schedule = schedule_of({**base, field: value})
        except DarkroomError as error:
            assert error.code == "model.corrupt"
            continue
        for sampler in SAMPLERS:
            try:
                assert len(schedule.scheduler(sampler, 6, SHAPE).timesteps) >= 6
            except DarkroomError as error:
                assert error.code == "inference.schedule_unfit"


def test_one_step_of_a_schedule_with_a_last_time_is_no_number_and_refused(schedule_of):
    """Stretching one time to two ends divides zero by zero."""
    schedule = schedule_of({**SCHEDULERS["flux1"], "shift_terminal": 0.02})
    with pytest.raises(DarkroomError) as thrown:
        schedule.scheduler("Euler", 1, SHAPE)
    assert thrown.value.code == "inference.schedule_unfit"
    assert schedule.scheduler("Euler", 2, SHAPE).timesteps[-1] == pytest.approx(20, rel=1e-4)
