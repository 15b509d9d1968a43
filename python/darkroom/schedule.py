"""A model's own schedule (`scheduler/scheduler_config.json`): read, its fields checked, and tried with each sampler.

The libraries take any configuration: a wrong type is silently something else, a field that is missing another schedule
than the one that the model was trained with. Some combinations fail in the middle of a picture. So the fields are
checked when the model is loaded, and a sampler takes all steps of a request once, on four latents, before the first
call.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from darkroom import faults, samplers
from darkroom.errors import DarkroomError

# Steps that one sampler at least must take when a model is loaded.
USUAL_STEPS = 20
# The schedulers whose noise follows betas, as in a model of this kind; others would draw with another noise.
WRITTEN_BY = frozenset(
    f"{name}Scheduler"
    for name in (
        *("DDIM", "DDIMInverse", "DDIMParallel", "DDPM", "DDPMParallel", "PNDM", "LMSDiscrete"),
        *("EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete"),
        *("DPMSolverMultistep", "DPMSolverMultistepInverse", "DPMSolverSinglestep", "DPMSolverSDE", "DEISMultistep", "UniPCMultistep"),
        *("KDPM2Discrete", "KDPM2AncestralDiscrete", "LCM", "TCD", "SASolver"),
    )
)

Check = tuple[str, Callable[[Any], bool]]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


def _whole(low: int, high: int) -> Check:
    return f"a whole number from {low} to {high}", lambda value: type(value) is int and low <= value <= high


def _number(low: float, high: float) -> Check:
    return f"a number from {low:g} to {high:g}", lambda value: _is_number(value) and low <= value <= high


def _one_of(*names: str) -> Check:
    return f"one of {', '.join(names)}", lambda value: value in names if isinstance(value, str) else False


def _list_of(what: str, fits: Callable[[Any], bool]) -> Check:
    return f"a list of {what}", lambda value: isinstance(value, list) and all(map(fits, value))


def _or_null(check: Check) -> Check:
    return f"{check[0]}, or null", lambda value: value is None or check[1](value)


SWITCH: Check = ("true, false or null", lambda value: value is None or isinstance(value, bool))
ANY_NUMBER: Check = ("a number", _is_number)

# What the samplers read of it. Other fields are of no concern.
FIELDS: dict[str, Check] = {
    "_class_name": ("a scheduler whose noise follows betas", lambda value: isinstance(value, str) and value in WRITTEN_BY),
    "num_train_timesteps": _whole(2, 100_000),
    "beta_start": _number(0, 1),
    "beta_end": _number(0, 1),
    "beta_schedule": _one_of("linear", "scaled_linear", "squaredcos_cap_v2", "exp"),
    "trained_betas": _or_null(_list_of("numbers between 0 and 1", lambda value: _is_number(value) and 0 < value < 1)),
    "prediction_type": _one_of("epsilon", "v_prediction", "sample"),
    "timestep_spacing": _one_of("linspace", "leading", "trailing"),
    "timestep_type": _one_of("discrete"),
    "interpolation_type": _one_of("linear", "log_linear"),
    "final_sigmas_type": _one_of("zero", "sigma_min"),
    "algorithm_type": _one_of(
        *("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++", "deis", "data_prediction", "noise_prediction")
    ),
    "solver_type": _one_of("midpoint", "heun", "logrho", "bh1", "bh2"),
    "time_shift_type": _one_of("exponential", "linear"),
    "variance_type": (
        "the name of a variance, or null",
        lambda value: value in (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned", "learned_range"),
    ),
    "solver_order": _whole(1, 3),
    "steps_offset": _whole(0, 100_000),
    "original_inference_steps": _whole(1, 100_000),
    "disable_corrector": _list_of("whole numbers", lambda value: type(value) is int),
    "dynamic_thresholding_ratio": _number(0, 1),
    "clip_sample_range": ANY_NUMBER,
    "sample_max_value": ANY_NUMBER,
    "flow_shift": ANY_NUMBER,
    "timestep_scaling": ANY_NUMBER,
    "lambda_min_clipped": ANY_NUMBER,
    "sigma_min": _or_null(ANY_NUMBER),
    "sigma_max": _or_null(ANY_NUMBER),
    "shift_terminal": _or_null(ANY_NUMBER),
    "solver_p": ("null", lambda value: value is None),
    # They would make the noise that of another kind of model.
    "use_flow_sigmas": ("false or null", lambda value: value is None or value is False),
    "use_dynamic_shifting": ("false or null", lambda value: value is None or value is False),
    **dict.fromkeys(
        (
            *("clip_sample", "euler_at_final", "lower_order_final", "predict_x0", "rescale_betas_zero_snr", "set_alpha_to_one"),
            *("skip_prk_steps", "thresholding", "use_beta_sigmas", "use_exponential_sigmas", "use_karras_sigmas", "use_lu_lambdas"),
        ),
        SWITCH,
    ),
}


class Schedule:
    """The configuration of one model. `channels`: of its latents.

    Raises `model.corrupt`, which names file and field, for one that no sampler takes.
    """

    def __init__(self, path: str, channels: int):
        self._path = path
        self._channels = channels
        self.config = _read(path)
        # What was wrong with a sampler and a number of steps, if anything.
        self._problems: dict[tuple[str, int], str | None] = {}
        problems = {name: self._problem(name, min(USUAL_STEPS, self._train_steps)) for name in samplers.SAMPLERS}
        if None not in problems.values():
            first, problem = next(iter(problems.items()))
            raise _corrupt(path, f"suits none of the samplers; of {first}: {problem}")

    @property
    def _train_steps(self) -> int:
        return self.config["num_train_timesteps"]

    def scheduler(self, sampler: str, steps: int) -> Any:
        """As `samplers.make_scheduler`, tried. Raises `inference.sampler_unknown` and `inference.schedule_unfit`, which
        names the samplers that take it."""
        problem = self._problem(sampler, steps)
        if problem is None:
            return samplers.make_scheduler(sampler, self.config, steps)
        fit = [name for name in samplers.SAMPLERS if self._problem(name, steps) is None]
        instead = f"{', '.join(fit)} take it" if fit else f"none takes {steps}; this schedule has {self._train_steps} steps"
        raise DarkroomError(
            "inference.schedule_unfit",
            f"sampler {sampler} cannot draw {steps} steps of the schedule in {self._path}: {problem}; {instead}",
            field="input.sampler",
            details={"samplers": fit},
        )

    def _problem(self, sampler: str, steps: int) -> str | None:
        if (sampler, steps) not in self._problems:
            self._problems[sampler, steps] = self._try(sampler, steps)
        return self._problems[sampler, steps]

    def _try(self, sampler: str, steps: int) -> str | None:
        """What goes wrong when the sampler takes all steps; None when nothing does."""
        if steps > self._train_steps:
            return f"the model was trained with {self._train_steps} steps"
        generator = torch.Generator("cpu").manual_seed(0)
        try:
            scheduler = samplers.make_scheduler(sampler, self.config, steps)
            times = scheduler.timesteps
            if len(times) == 0 or not bool(((times >= 0) & (times < self._train_steps)).all()):
                return f"its timesteps leave 0 to {self._train_steps - 1}"
            options = samplers.step_options(scheduler, generator)
            latents = torch.randn((1, self._channels, 2, 2), generator=generator) * float(scheduler.init_noise_sigma)
            for t in times:
                predicted = torch.randn(latents.shape, generator=generator)
                scheduler.scale_model_input(latents, t)
                latents = scheduler.step(predicted, t, latents, **options, return_dict=False)[0]
        except DarkroomError:
            raise
        # Whatever the library throws for it: there is no list.
        except Exception as error:
            if faults.is_out_of_memory(error):
                raise
            return f"{type(error).__name__}: {error}"
        if latents.shape != (1, self._channels, 2, 2):
            return f"it makes latents of shape {list(latents.shape)}"
        return None if bool(latents.isfinite().all()) else "it makes numbers that are not finite"


def _read(path: str) -> Mapping[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise _corrupt(path, f"cannot be read as JSON: {error}") from error
    if not isinstance(config, dict):
        raise _corrupt(path, "must hold an object")
    for name, value in config.items():
        if name in FIELDS and not FIELDS[name][1](value):
            raise _corrupt(path, f"{name} must be {FIELDS[name][0]}, not {json.dumps(value)[:100]}")
    needed = ["num_train_timesteps"]
    if config.get("trained_betas") is None:
        needed += ["beta_schedule", "beta_start", "beta_end"]
    for name in needed:
        # Each sampler has a default of its own.
        if name not in config:
            raise _corrupt(path, f"{name} is missing")
    betas = config.get("trained_betas")
    if betas is not None and len(betas) != config["num_train_timesteps"]:
        raise _corrupt(path, f"trained_betas has {len(betas)} numbers, not num_train_timesteps, {config['num_train_timesteps']}")
    return config


def _corrupt(path: str, problem: str) -> DarkroomError:
    return DarkroomError("model.corrupt", f"{path}: {problem}", field="model.path")
