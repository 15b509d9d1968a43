"""Samplers and schedules by the names that AUTOMATIC1111's web UI gives them.

Which there are stands in `src/domains/samplers.ts`, which `schema.json` carries. A scheduler is built from the model's
own configuration, so that prediction type, betas and, without a schedule, spacing survive.
"""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from darkroom import schema
from darkroom.errors import DarkroomError

if TYPE_CHECKING:
    import numpy

AUTOMATIC = "Automatic"
# Name: {class, options, schedules, named}.
SAMPLERS: dict[str, dict[str, Any]] = schema.DOCUMENT["samplers"]
# Every pair that is offered; those with a name of their own stand under it too.
PAIRS: tuple[tuple[str, str], ...] = tuple((name, schedule) for name, row in SAMPLERS.items() for schedule in row["schedules"])

# Options of a model's configuration that would spread the steps another way than the request says.
OTHER_SPREADS: dict[str, Any] = {
    **dict.fromkeys(("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"), False),
    "final_sigmas_type": "zero",
}
# They integrate in log σ and cannot end at 0, so the last step ends at the schedule's smallest sigma.
NEVER_ZERO = ("DEISMultistepScheduler", "SASolverScheduler")
# They pick their timesteps out of so many, 50 unless told otherwise, and refuse more steps than those.
DISTILLED = ("LCMScheduler", "TCDScheduler")


def make_scheduler(
    name: str, model_config: Mapping[str, Any], steps: int, schedule: str = AUTOMATIC, aligned: Sequence[float] | None = None
) -> Any:
    """A scheduler of its own for one request, set to `steps`; its timesteps stay on the CPU.

    `aligned`: the model's sigmas of Align Your Steps; None takes those of Stable Diffusion 1. Raises
    `inference.sampler_unknown`, which names the nearest that is offered.
    """
    row = SAMPLERS.get(name)
    if row is None:
        raise _unknown("sampler", name, SAMPLERS)
    if schedule not in row["schedules"]:
        raise _unknown("schedule", schedule, row["schedules"])
    if schedule in row["named"]:
        return make_scheduler(row["named"][schedule], model_config, steps)
    if hasattr(_solvers(), row["class"]):
        return _solver(row, model_config, steps, schedule, aligned)
    options = dict(row["options"])
    if row["class"] in DISTILLED:
        options["original_inference_steps"] = max(50, steps)
    kind = _class(row["class"])
    if schedule != AUTOMATIC:
        taken = inspect.signature(kind).parameters
        options = {**{option: value for option, value in OTHER_SPREADS.items() if option in taken}, **options}
    scheduler = kind.from_config(model_config, **options)
    scheduler.set_timesteps(steps, device="cpu")
    if schedule == AUTOMATIC:
        _end_at_the_beginning(scheduler)
    else:
        _spread(scheduler, row["class"], model_config, steps, schedule, aligned)
    return scheduler


def knows_zero_snr(name: str) -> bool:
    """Whether the sampler heeds `rescale_betas_zero_snr`; one that does not would draw with another noise."""
    row = SAMPLERS[name]
    return hasattr(_solvers(), row["class"]) or "rescale_betas_zero_snr" in inspect.signature(_class(row["class"])).parameters


def _unknown(what: str, name: str, offered: Mapping[str, Any] | Sequence[str]) -> DarkroomError:
    [nearest] = difflib.get_close_matches(name, offered, n=1, cutoff=0.0)
    return DarkroomError(
        "inference.sampler_unknown",
        f"there is no {what} {name!r}; the nearest is {nearest!r}",
        field=f"input.{what}",
        details={"nearest": nearest},
    )


def _sigmas(model_config: Mapping[str, Any], steps: int, schedule: str, aligned: Sequence[float] | None, table: numpy.ndarray) -> Any:
    from darkroom import sigmas

    if schedule == AUTOMATIC:
        return sigmas.own(model_config, steps)
    return sigmas.SCHEDULES[schedule](steps, table, aligned or sigmas.ALIGNED_SD1)


def _solver(
    row: Mapping[str, Any], model_config: Mapping[str, Any], steps: int, schedule: str, aligned: Sequence[float] | None
) -> Any:
    from darkroom import sigmas

    table = sigmas.table_of(model_config)
    spread = _sigmas(model_config, steps, schedule, aligned, table)
    return getattr(_solvers(), row["class"])(model_config, spread, table, **row["options"])


def _spread(
    scheduler: Any, kind: str, model_config: Mapping[str, Any], steps: int, schedule: str, aligned: Sequence[float] | None
) -> None:
    """Gives one of diffusers' schedulers over sigmas those of the schedule, and the timesteps that belong to them."""
    import numpy
    import torch

    from darkroom import sigmas

    table = sigmas.table_of(model_config)
    ends_at_zero = kind not in NEVER_ZERO
    spread = _sigmas(model_config, steps if ends_at_zero else steps + 1, schedule, aligned, table)
    levels = torch.from_numpy(numpy.append(spread, 0.0) if ends_at_zero else spread).float()
    times = torch.from_numpy(sigmas.times_of(levels[:-1].double().numpy(), table)).float()
    if kind == "HeunDiscreteScheduler":
        # It has each step's end once as such and once as the beginning of the next.
        levels = torch.cat([levels[:1], levels[1:-1].repeat_interleave(2), levels[-1:]])
        times = torch.cat([times[:1], times[1:].repeat_interleave(2)])
    scheduler.sigmas, scheduler.timesteps = levels, times
    scheduler.num_inference_steps = len(spread) if ends_at_zero else len(spread) - 1
    # Otherwise it looks for the first step by its timestep, of which there may be two.
    scheduler.set_begin_index(0)


def _end_at_the_beginning(scheduler: Any) -> None:
    """Drops timesteps before 0. Trailing spacing counts down by a fraction, and with some numbers of steps (61, 103,
    121 and 122 of 1000) rounding gives it one more than it was asked for, at -1, which is another time than any."""
    import torch

    surplus = int((scheduler.timesteps < 0).sum())
    if surplus == 0:
        return
    scheduler.timesteps = scheduler.timesteps[:-surplus]
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None:
        scheduler.sigmas = torch.cat([sigmas[: -surplus - 1], sigmas[-1:]])


def step_options(scheduler: Any, generator: Any) -> dict[str, Any]:
    """What `scheduler.step` takes besides prediction, time and latents: the request's generator where noise is drawn.
    """
    if "generator" in inspect.signature(scheduler.step).parameters:
        return {"generator": generator}
    return {}


def first_call(scheduler: Any, steps: int, strength: float) -> int:
    """The first timestep of an image that begins from a picture: of `steps` the last ⌊steps · strength⌋ are drawn, as
    in diffusers' pipelines. A step of a scheduler of order 2 is two calls."""
    return (steps - min(int(steps * strength), steps)) * scheduler.order


def load_classes() -> None:
    """Imports every scheduler, which takes seconds that no request should wait for."""
    for row in SAMPLERS.values():
        if not hasattr(_solvers(), row["class"]):
            _class(row["class"])


def _solvers() -> Any:
    from darkroom import solvers

    return solvers


def _class(name: str) -> Any:
    import diffusers

    from darkroom import noise

    kind = getattr(diffusers, name)
    module: Any = sys.modules[kind.__module__]
    if hasattr(module, "randn_tensor"):
        # The same numbers, without a host that waits for the device at each of them.
        module.randn_tensor = noise.as_diffusers_draws
    return kind
