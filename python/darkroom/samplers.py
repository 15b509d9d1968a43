"""Samplers by the names that AUTOMATIC1111's web UI gives them, as diffusers' table of schedulers maps them.

A scheduler is built from the model's own configuration, so that prediction type, betas and spacing survive.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from darkroom.errors import DarkroomError

KARRAS = {"use_karras_sigmas": True}

# Name: (diffusers class, its options besides the model's configuration).
SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {"solver_order": 2}),
    "DPM++ 2M Karras": ("DPMSolverMultistepScheduler", {"solver_order": 2, **KARRAS}),
    "DDIM": ("DDIMScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "LCM": ("LCMScheduler", {}),
}


def make_scheduler(name: str, model_config: Mapping[str, Any], steps: int) -> Any:
    """A scheduler of its own for one request, set to `steps`; its timesteps stay on the CPU.

    Raises `inference.sampler_unknown`, which names the nearest that is offered.
    """
    if name not in SAMPLERS:
        [nearest] = difflib.get_close_matches(name, SAMPLERS, n=1, cutoff=0.0)
        raise DarkroomError(
            "inference.sampler_unknown",
            f"there is no sampler {name!r}; the nearest is {nearest!r}",
            field="input.sampler",
            details={"nearest": nearest},
        )
    class_name, options = SAMPLERS[name]
    kind = _class(class_name)
    if class_name == "LCMScheduler":
        # It picks its timesteps out of so many, 50 unless told otherwise, and refuses more steps than those.
        options = {**options, "original_inference_steps": max(50, steps)}
    scheduler = kind.from_config(model_config, **options)
    scheduler.set_timesteps(steps, device="cpu")
    _end_at_the_beginning(scheduler)
    return scheduler


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


def load_classes() -> None:
    """Imports every scheduler, which takes seconds that no request should wait for."""
    for class_name, _ in SAMPLERS.values():
        _class(class_name)


def _class(name: str) -> Any:
    import diffusers

    return getattr(diffusers, name)
