"""Schedules of flow matching: the model predicts the velocity from picture to noise, and time is the share of noise.

Lipman et al. 2023, "Flow Matching for Generative Modeling", arXiv 2210.02747; the shift of time towards noise for large
pictures is Esser et al. 2024, "Scaling Rectified Flow Transformers", arXiv 2403.03206, §5.3.2.

The times of a picture follow from the model's configuration, the number of steps and, where the configuration says so,
from how many tokens the picture has. They are the same for every sampler of a family.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_heun_discrete import FlowMatchHeunDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_lcm import FlowMatchLCMScheduler

from darkroom.errors import DarkroomError
from darkroom.samplers import AUTOMATIC
from darkroom.schedule import ANY_NUMBER, SWITCH, USUAL_STEPS, Check, corrupt, number, one_of, or_null, read_config, trial, whole

# What the samplers read of a configuration. Other fields are of no concern.
FIELDS: dict[str, Check] = {
    "_class_name": one_of("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler"),
    "num_train_timesteps": whole(2, 100_000),
    "shift": number(0.001, 1000),
    "base_shift": or_null(ANY_NUMBER),
    "max_shift": or_null(ANY_NUMBER),
    "base_image_seq_len": whole(1, 10_000_000),
    "max_image_seq_len": whole(1, 10_000_000),
    "shift_terminal": or_null(number(0, 0.999)),
    "time_shift_type": one_of("exponential", "linear"),
    # Each step of it enlarges the picture, which has one size here.
    "scale_factors": ("null", lambda value: value is None),
    **dict.fromkeys(
        (
            *("use_dynamic_shifting", "invert_sigmas", "stochastic_sampling"),
            *("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"),
        ),
        SWITCH,
    ),
}


class _Plain:
    """What the loop asks of every scheduler: here noise has deviation 1 and latents are not scaled."""

    init_noise_sigma = 1.0

    def scale_model_input(self, sample: torch.Tensor, timestep: Any) -> torch.Tensor:
        """`sample` as it is."""
        return sample


class FlowEuler(_Plain, FlowMatchEulerDiscreteScheduler):
    """Euler's method."""


class FlowLcm(_Plain, FlowMatchLCMScheduler):
    """A consistency model's: to the picture, and back to the next time with new noise (arXiv 2310.04378)."""


class FlowHeun(_Plain, FlowMatchHeunDiscreteScheduler):
    """Heun's method: two calls a step but the last."""

    def follow(self, euler: FlowEuler) -> None:
        """Takes the times of `euler`; the library's own class knows no shift by the picture's size."""
        self.set_timesteps(len(euler.timesteps), device="cpu")
        times, sigmas = euler.timesteps, euler.sigmas
        self.timesteps = torch.cat([times[:1], times[1:].repeat_interleave(2)])
        self.sigmas = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])


# By the names that the field gives them. Node knows them too: src/models/families.ts.
SAMPLERS: tuple[str, ...] = ("Euler", "Heun", "LCM")


def full_range(steps: int) -> list[float]:
    """Shares of noise before the shift, from 1 down to 1/`steps`, as most families' pipelines begin."""
    return numpy.linspace(1.0, 1 / steps, steps).tolist()


def by_tokens(config: Mapping[str, Any], tokens: int, steps: int) -> float:
    """The exponent mu of the shift: linear in the picture's tokens, `base_shift` at `base_image_seq_len` and
    `max_shift` at `max_image_seq_len`. `steps` changes nothing."""
    slope = (config["max_shift"] - config["base_shift"]) / (config["max_image_seq_len"] - config["base_image_seq_len"])
    return tokens * slope + (config["base_shift"] - slope * config["base_image_seq_len"])


class FlowSchedule:
    """A `Schedule`: the configuration of one model.

    `channels`: of its latents; `patch`: latent cells of a token's side; `shares`: shares of noise before the shift, by
    the number of steps, or None for the library's own; `shift`: mu by configuration, tokens and steps.

    Raises `model.corrupt`, which names file and field, for one that no sampler takes.
    """

    def __init__(
        self,
        path: str,
        channels: int,
        patch: int = 2,
        shares: Callable[[int], list[float]] | None = full_range,
        shift: Callable[[Mapping[str, Any], int, int], float] = by_tokens,
    ):
        self._path, self._channels, self._patch = path, channels, patch
        self._shares, self._shift = shares, shift
        self.config: dict[str, Any] = dict(read_config(path, FIELDS))
        # The library has a default for each field, and those that shift time are another model's.
        for name in ("num_train_timesteps", "base_shift" if self.config.get("use_dynamic_shifting") else "shift"):
            if self.config.get(name) is None:
                raise corrupt(path, f"{name} is missing")
        # What was wrong with a sampler, a number of steps and of tokens, if anything.
        self._problems: dict[tuple[str, int, int], str | None] = {}
        problems = {name: self._problem(name, min(USUAL_STEPS, self._train_steps), 1) for name in SAMPLERS}
        if None not in problems.values():
            first, problem = next(iter(problems.items()))
            raise corrupt(path, f"suits none of the samplers; of {first}: {problem}")

    @property
    def _train_steps(self) -> int:
        return self.config["num_train_timesteps"]

    def scheduler(self, sampler: str, steps: int, shape: Sequence[int], schedule: str = AUTOMATIC) -> Any:
        """As `Schedule.scheduler`."""
        if schedule != AUTOMATIC:
            raise DarkroomError(
                "inference.sampler_unknown",
                f"schedule {schedule!r} is none for flow matching, which this model draws by; it takes {AUTOMATIC!r} alone",
                field="input.schedule",
                details={"nearest": AUTOMATIC},
            )
        if sampler not in SAMPLERS:
            [nearest] = difflib.get_close_matches(sampler, SAMPLERS, n=1, cutoff=0.0)
            raise DarkroomError(
                "inference.sampler_unknown",
                f"sampler {sampler!r} is none for flow matching, which this model draws by; the nearest is {nearest!r}",
                field="input.sampler",
                details={"nearest": nearest},
            )
        tokens = (shape[-2] // self._patch) * (shape[-1] // self._patch)
        problem = self._problem(sampler, steps, tokens)
        if problem is None:
            return self._make(sampler, steps, tokens)
        fit = [name for name in SAMPLERS if self._problem(name, steps, tokens) is None]
        instead = f"{', '.join(fit)} take it" if fit else f"none takes {steps}; this schedule has {self._train_steps} steps"
        raise DarkroomError(
            "inference.schedule_unfit",
            f"sampler {sampler} cannot draw {steps} steps of the schedule in {self._path}: {problem}; {instead}",
            field="input.sampler",
            details={"samplers": fit},
        )

    def clean(self, given: torch.Tensor, t: float, predicted: torch.Tensor) -> torch.Tensor:
        """As `families.Schedule.clean`: the velocity leads from the picture to noise, which is all there is at 1."""
        return given - t / self._train_steps * predicted

    def _make(self, sampler: str, steps: int, tokens: int) -> Any:
        scheduler: Any = FlowEuler.from_config(self.config)
        times: dict[str, Any] = {"device": "cpu", "mu": self._shift(scheduler.config, tokens, steps)}
        times |= {"num_inference_steps": steps} if self._shares is None else {"sigmas": self._shares(steps)}
        if sampler == "LCM":
            scheduler = FlowLcm.from_config(self.config)
        scheduler.set_timesteps(**times)
        if sampler == "Heun":
            heun: Any = FlowHeun.from_config(self.config)
            heun.follow(scheduler)
            scheduler = heun
        # Otherwise the first call looks the index up, on the device.
        scheduler.set_begin_index(0)
        return scheduler

    def _problem(self, sampler: str, steps: int, tokens: int) -> str | None:
        """What goes wrong when the sampler takes all steps; None when nothing does."""
        key = (sampler, steps, tokens)
        if key not in self._problems:
            if steps > self._train_steps:
                return f"the model was trained with {self._train_steps} steps"
            self._problems[key] = trial(lambda: self._make(*key), self._channels, self._train_steps)
        return self._problems[key]
