"""A model's own schedule (`scheduler/scheduler_config.json`): read, its fields checked, and tried with
the sampler of each request.

The libraries take any configuration: a wrong type is silently something else, a field that is missing another schedule
than the one that the model was trained with. Some combinations fail in the middle of a picture. So the fields are
checked when the model is loaded, and a sampler takes all steps of a request once, on four latents, before the first
call.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy
import torch

from darkroom import faults, samplers, sigmas
from darkroom.errors import DarkroomError

# Steps that one sampler at least must take when a model is loaded.
USUAL_STEPS = 20
# Schedulers of a model that are kept.
MOST_MADE = 16
# Betas that leave no signal at the last time (Lin et al. 2023, arXiv 2305.08891), by diffusers' name.
ZERO_SNR = "rescale_betas_zero_snr"
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


def whole(low: int, high: int) -> Check:
    """A check of a whole number, both ends included."""
    return f"a whole number from {low} to {high}", lambda value: type(value) is int and low <= value <= high


def number(low: float, high: float) -> Check:
    """A check of a number, both ends included."""
    return f"a number from {low:g} to {high:g}", lambda value: _is_number(value) and low <= value <= high


def one_of(*names: str) -> Check:
    """A check of a name."""
    return f"one of {', '.join(names)}", lambda value: value in names if isinstance(value, str) else False


def _list_of(what: str, fits: Callable[[Any], bool]) -> Check:
    return f"a list of {what}", lambda value: isinstance(value, list) and all(map(fits, value))


def or_null(check: Check) -> Check:
    """The same check, which null passes too."""
    return f"{check[0]}, or null", lambda value: value is None or check[1](value)


SWITCH: Check = ("true, false or null", lambda value: value is None or isinstance(value, bool))
ANY_NUMBER: Check = ("a number", _is_number)

# What the samplers read of it. Other fields are of no concern.
FIELDS: dict[str, Check] = {
    "_class_name": ("a scheduler whose noise follows betas", lambda value: isinstance(value, str) and value in WRITTEN_BY),
    "num_train_timesteps": whole(2, 100_000),
    "beta_start": number(0, 1),
    "beta_end": number(0, 1),
    "beta_schedule": one_of("linear", "scaled_linear", "squaredcos_cap_v2", "exp"),
    "trained_betas": or_null(_list_of("numbers between 0 and 1", lambda value: _is_number(value) and 0 < value < 1)),
    "prediction_type": one_of("epsilon", "v_prediction", "sample"),
    "timestep_spacing": one_of("linspace", "leading", "trailing"),
    "timestep_type": one_of("discrete"),
    "interpolation_type": one_of("linear", "log_linear"),
    "final_sigmas_type": one_of("zero", "sigma_min"),
    "algorithm_type": one_of(
        *("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++", "deis", "data_prediction", "noise_prediction")
    ),
    "solver_type": one_of("midpoint", "heun", "logrho", "bh1", "bh2"),
    "time_shift_type": one_of("exponential", "linear"),
    "variance_type": (
        "the name of a variance, or null",
        lambda value: value in (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned", "learned_range"),
    ),
    "solver_order": whole(1, 3),
    "steps_offset": whole(0, 100_000),
    "original_inference_steps": whole(1, 100_000),
    "disable_corrector": _list_of("whole numbers", lambda value: type(value) is int),
    "dynamic_thresholding_ratio": number(0, 1),
    "clip_sample_range": ANY_NUMBER,
    "sample_max_value": ANY_NUMBER,
    "flow_shift": ANY_NUMBER,
    "timestep_scaling": ANY_NUMBER,
    "lambda_min_clipped": ANY_NUMBER,
    "sigma_min": or_null(ANY_NUMBER),
    "sigma_max": or_null(ANY_NUMBER),
    "shift_terminal": or_null(ANY_NUMBER),
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
    """The configuration of one model. `channels`: of its latents. `aligned`: as `samplers.make_scheduler`.

    Raises `model.corrupt`, which names file and field, for one that no sampler takes.
    """

    def __init__(self, path: str, channels: int, aligned: Sequence[float] | None = None):
        self._path = path
        self._channels = channels
        self._aligned = aligned
        self.config = _read(path)
        self._sigmas: sigmas.Sigmas | None = None
        # To be copied: the library takes several times as long to make one.
        self._made = lru_cache(MOST_MADE)(self._make)
        # What was wrong with a sampler, a schedule and a number of steps, if anything.
        self._problems: dict[tuple[str, str, int], str | None] = {}
        steps = min(USUAL_STEPS, self.train_steps)
        # The first one that draws is enough: the others are tried when a request names them.
        if not any(self._problem(name, samplers.AUTOMATIC, steps) is None for name in samplers.SAMPLERS):
            (first, _, _), problem = next(iter(self._problems.items()))
            raise corrupt(path, f"suits none of the samplers; of {first}: {problem}")

    @property
    def train_steps(self) -> int:
        """How many times the model was trained at: 0 to one less."""
        return self.config["num_train_timesteps"]

    def scheduler(self, sampler: str, steps: int, shape: Sequence[int] = (), schedule: str = samplers.AUTOMATIC) -> Any:
        """As `samplers.make_scheduler`, tried; `shape`, of the latents, changes nothing. Raises
        `inference.sampler_unknown` and `inference.schedule_unfit`, which names the samplers that take it."""
        problem = self._problem(sampler, schedule, steps)
        if problem is None:
            return copy.deepcopy(self._made(sampler, schedule, steps))
        fit = [name for name in samplers.SAMPLERS if self._problem(name, samplers.AUTOMATIC, steps) is None]
        instead = f"{', '.join(fit)} take it" if fit else f"none takes {steps}; this schedule has {self.train_steps} steps"
        pair = sampler if schedule == samplers.AUTOMATIC else f"{sampler} with {schedule}"
        raise DarkroomError(
            "inference.schedule_unfit",
            f"sampler {pair} cannot draw {steps} steps of the schedule in {self._path}: {problem}; {instead}",
            field="input.sampler",
            details={"samplers": fit},
        )

    def _make(self, sampler: str, schedule: str, steps: int) -> Any:
        return samplers.make_scheduler(sampler, self.config, steps, schedule, self._aligned)

    def clean(self, given: torch.Tensor, t: float, predicted: torch.Tensor) -> torch.Tensor:
        """As `families.Schedule.clean`: signal and noise make the deviation 1 together."""
        sigma = self._sigma(t)
        signal = 1 / math.sqrt(sigma**2 + 1)
        match self.config.get("prediction_type", "epsilon"):
            case "sample":
                return predicted
            case "v_prediction":
                return signal * given - sigma * signal * predicted
            case _:
                return given / signal - sigma * predicted

    def _sigma(self, t: float) -> float:
        if self._sigmas is None:
            self._sigmas = sigmas.table_of(self.config)
        return float(sigmas.at(numpy.array([t]), self._sigmas)[0])

    def noised(self, clean: torch.Tensor, noise: torch.Tensor, t: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(latents under the noise of time `t`, what the network is to predict of them), all shaped alike: the reverse
        of `clean`. Salimans and Ho 2022, "Progressive Distillation for Fast Sampling of Diffusion Models", arXiv
        2202.00512, for v."""
        sigma = self._sigma(t)
        signal = 1 / math.sqrt(sigma**2 + 1)
        # Where no signal is left sigma is infinite.
        share = math.sqrt(max(0.0, 1 - signal**2))
        given = signal * clean + share * noise
        match self.config.get("prediction_type", "epsilon"):
            case "sample":
                return given, clean
            case "v_prediction":
                return given, signal * noise - share * clean
            case _:
                return given, noise

    def _problem(self, sampler: str, schedule: str, steps: int) -> str | None:
        key = (sampler, schedule, steps)
        if key not in self._problems:
            self._problems[key] = self._try(*key)
        return self._problems[key]

    def _try(self, sampler: str, schedule: str, steps: int) -> str | None:
        """What goes wrong when the sampler takes all steps; None when nothing does."""
        if steps > self.train_steps:
            return f"the model was trained with {self.train_steps} steps"

        def make() -> Any:
            scheduler = self._make(sampler, schedule, steps)
            # The library drops what a class does not know; with other betas it would draw with another noise.
            if self.config.get(ZERO_SNR) and not samplers.knows_zero_snr(sampler):
                raise Unfit(f"the model was trained with {ZERO_SNR}, which it does not know")
            return scheduler

        return trial(make, self._channels, self.train_steps - 1)


class Unfit(Exception):
    """What makes a scheduler unfit for a model, in words."""


def trial(make: Callable[[], Any], channels: int, last: float) -> str | None:
    """What goes wrong when a scheduler takes all its steps on four latents; None when nothing does. `last`: the latest
    time that the model knows."""
    generator = torch.Generator("cpu").manual_seed(0)
    try:
        scheduler = make()
        times = scheduler.timesteps
        if len(times) == 0 or not bool(((times >= 0) & (times <= last)).all()):
            return f"its timesteps leave 0 to {last:g}"
        options = samplers.step_options(scheduler, generator)
        latents = torch.randn((1, channels, 2, 2), generator=generator) * float(scheduler.init_noise_sigma)
        for t in times:
            predicted = torch.randn(latents.shape, generator=generator)
            scheduler.scale_model_input(latents, t)
            latents = scheduler.step(predicted, t, latents, **options, return_dict=False)[0]
    except DarkroomError:
        raise
    except Unfit as error:
        return str(error)
    # Whatever the library throws for it: there is no list.
    except Exception as error:
        if faults.is_out_of_memory(error):
            raise
        return f"{type(error).__name__}: {error}"
    if latents.shape != (1, channels, 2, 2):
        return f"it makes latents of shape {list(latents.shape)}"
    return None if bool(latents.isfinite().all()) else "it makes numbers that are not finite"


def _read(path: str) -> Mapping[str, Any]:
    config = read_config(path, FIELDS)
    needed = ["num_train_timesteps"]
    if config.get("trained_betas") is None:
        needed += ["beta_schedule", "beta_start", "beta_end"]
    for name in needed:
        # Each sampler has a default of its own.
        if name not in config:
            raise corrupt(path, f"{name} is missing")
    betas = config.get("trained_betas")
    if betas is not None and len(betas) != config["num_train_timesteps"]:
        raise corrupt(path, f"trained_betas has {len(betas)} numbers, not num_train_timesteps, {config['num_train_timesteps']}")
    return config


def read_config(path: str, fields: Mapping[str, Check]) -> Mapping[str, Any]:
    """The configuration of a scheduler, its `fields` checked. Raises `model.corrupt`, which names file and field."""
    try:
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise corrupt(path, f"cannot be read as JSON: {error}") from error
    if not isinstance(config, dict):
        raise corrupt(path, "must hold an object")
    for name, value in config.items():
        if name in fields and not fields[name][1](value):
            raise corrupt(path, f"{name} must be {fields[name][0]}, not {json.dumps(value)[:100]}")
    return config


def corrupt(path: str, problem: str) -> DarkroomError:
    """The `model.corrupt` of a scheduler's file."""
    return DarkroomError("model.corrupt", f"{path}: {problem}", field="model.path")
