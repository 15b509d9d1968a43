"""How the steps of a picture are spread over the noise: the schedules that a request may name.

A sigma is the noise's standard deviation where the picture's own is 1: sqrt((1 − ᾱ) / ᾱ) of a model with cumulated
alphas ᾱ. `table`: the model's own, one by training timestep, rising.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy
from numpy.typing import NDArray

Sigmas = NDArray[numpy.float64]

# Align Your Steps (Sabour, Fidler and Kreis 2024, arXiv 2404.14507): ten steps as its authors publish them, and where
# the last one ends when more are interpolated. The table of Stable Diffusion 1 serves all that have none of their own.
ALIGNED_SD1 = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
ALIGNED_SDXL = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)
# Karras, Aittala, Aila and Laine 2022, arXiv 2206.00364, equation 5.
RHO = 7.0
# Lee et al. 2024, "Beta Sampling is All You Need", arXiv 2407.12173: both parameters.
BETA = 0.6


def times_of(sigmas: Sigmas, table: Sigmas) -> Sigmas:
    """Training timesteps, fractions of them too: linear in the logarithm of sigma, as k-diffusion's `sigma_to_t`."""
    with numpy.errstate(all="ignore"):
        return numpy.interp(numpy.log(sigmas), numpy.log(table), numpy.arange(len(table)))


def at(times: Sigmas, table: Sigmas) -> Sigmas:
    """Sigmas of training timesteps: the inverse of `times_of`."""
    return numpy.exp(numpy.interp(times, numpy.arange(len(table)), numpy.log(table)))


def karras(steps: int, table: Sigmas, aligned: Sequence[float]) -> Sigmas:
    ramp = numpy.linspace(0, 1, steps)
    low, high = table[0] ** (1 / RHO), table[-1] ** (1 / RHO)
    return (high + ramp * (low - high)) ** RHO


def exponential(steps: int, table: Sigmas, aligned: Sequence[float]) -> Sigmas:
    return numpy.exp(numpy.linspace(numpy.log(table[-1]), numpy.log(table[0]), steps))


def beta(steps: int, table: Sigmas, aligned: Sequence[float]) -> Sigmas:
    """As ComfyUI's: quantiles of the beta distribution over the training timesteps, rounded; one that comes twice is
    taken once, so many steps may become fewer."""
    from scipy.special import betaincinv  # pyrefly: ignore[untyped-import]

    quantiles = 1 - numpy.linspace(0, 1, steps, endpoint=False)
    times = numpy.rint(betaincinv(BETA, BETA, quantiles) * (len(table) - 1)).astype(int)
    return table[numpy.unique(times)[::-1]]


def normal(steps: int, table: Sigmas, aligned: Sequence[float]) -> Sigmas:
    return at(numpy.linspace(len(table) - 1, 0, steps), table)


def sgm_uniform(steps: int, table: Sigmas, aligned: Sequence[float]) -> Sigmas:
    """As `normal` with one more step, whose last is left out."""
    return at(numpy.linspace(len(table) - 1, 0, steps + 1)[:-1], table)


def simple(steps: int, table: Sigmas, aligned: Sequence[float]) -> Sigmas:
    """As ComfyUI's: every so manieth of the table, from its end."""
    return table[[len(table) - 1 - int(index * len(table) / steps) for index in range(steps)]]


def align_your_steps(steps: int, table: Sigmas, aligned: Sequence[float]) -> Sigmas:
    """As ComfyUI's node: the published sigmas, interpolated in their logarithm to one more than `steps`, whose last is
    left out."""
    at_ends = numpy.linspace(0, 1, len(aligned))
    return numpy.exp(numpy.interp(numpy.linspace(0, 1, steps + 1), at_ends, numpy.log(aligned)))[:-1]


# By the name in a request. Each takes (steps, table, aligned) and gives `steps` sigmas, falling, above 0.
SCHEDULES: dict[str, Callable[[int, Sigmas, Sequence[float]], Sigmas]] = {
    "Karras": karras,
    "Exponential": exponential,
    "Beta": beta,
    "SGM Uniform": sgm_uniform,
    "Simple": simple,
    "Normal": normal,
    "AYS": align_your_steps,
}


def table_of(config: Mapping[str, Any]) -> Sigmas:
    """The model's own sigmas by training timestep, from its scheduler's configuration; where its last ᾱ is 0 (zero
    terminal SNR), 4096 stands for infinity, as in diffusers."""
    alphas = euler(config).alphas_cumprod.double().numpy()
    return ((1 - alphas) / alphas) ** 0.5


def own(config: Mapping[str, Any], steps: int) -> Sigmas:
    """What Automatic means to a sampler over sigmas: those that the model's configuration gives, [steps]."""
    scheduler = euler(config)
    scheduler.set_timesteps(steps, device="cpu")
    kept = len(scheduler.timesteps) - int((scheduler.timesteps < 0).sum())
    return scheduler.sigmas[:kept].double().numpy()


def euler(config: Mapping[str, Any]) -> Any:
    from diffusers import EulerDiscreteScheduler

    return EulerDiscreteScheduler.from_config(dict(config))
