"""Samplers that diffusers lacks or only approximates, by k-diffusion's formulas, one class a sampler.

Each is a scheduler as the denoise loop knows one (`timesteps`, `scale_model_input`, `step`). One `step` is one call of
the network; a sampler of second order makes two of most steps. Everything that a step leaves for the next is plain data
in the attributes, so a checkpoint holds it.

Notation: x the latents, σ their noise, σ' that of the step's end, D what the network takes the picture for, −log σ the
time in which exponential integrators are written. Noise is drawn from the request's generator on the CPU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, expm1, log, prod, sqrt
from typing import Any

import numpy
import torch
from numpy.polynomial import Polynomial

from darkroom import sigmas as spread
from darkroom.noise import draw as draw_noise


def ancestral_step(sigma: float, goal: float) -> tuple[float, float]:
    """(down, up): to which sigma a step goes, and how much noise then makes it `goal` again. k-diffusion's
    `get_ancestral_step` at η = 1."""
    up = min(goal, sqrt(max(0.0, goal**2 * (sigma**2 - goal**2) / sigma**2)))
    return sqrt(max(0.0, goal**2 - up**2)), up


@dataclass(frozen=True)
class At:
    """One call: of a step from `sigma` to `down`, the `stage`th from 0. `x`: the latents there; `denoised`: D."""

    step: int
    stage: int
    sigma: float
    down: float
    x: torch.Tensor
    denoised: torch.Tensor
    generator: torch.Generator


class Solver(ABC):
    """`sigmas`: [steps], falling, above 0; the last step ends at 0. `table`: the model's own sigmas by timestep."""

    # Calls of every step but the last, which has one.
    order = 1

    def __init__(self, config: Mapping[str, Any], sigmas: Sequence[float], table: spread.Sigmas, ancestral: bool = False):
        self.config = {"prediction_type": "epsilon", **config, "ancestral": ancestral}
        self.sigmas = [*map(float, sigmas), 0.0]
        # (step, stage, σ at which the network is called) of each call.
        self._calls: list[tuple[int, int, float]] = []
        for step in range(len(sigmas)):
            between = self._between(self.sigmas[step], self._goal(step)[0])
            self._calls += [(step, stage, sigma) for stage, sigma in enumerate([self.sigmas[step], *between])]
        at = numpy.array([sigma for _, _, sigma in self._calls])
        self.timesteps = torch.from_numpy(spread.times_of(at, table)).float()
        # Of the noise that a picture begins as, which has the picture's own deviation beside sigma's.
        self.init_noise_sigma = sqrt(self.sigmas[0] ** 2 + 1)
        self.call = 0

    def set_begin_index(self, call: int) -> None:
        """Which call is the first."""
        self.call = call

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """A picture's latents as the call at `times`, [1], takes them."""
        return latents + noise * self._calls[int((self.timesteps == times.to(self.timesteps.device)).nonzero()[0])][2]

    def scale_model_input(self, sample: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Latents as the network was trained with them, of deviation 1."""
        return sample / sqrt(self._calls[self.call][2] ** 2 + 1)

    def step(
        self, predicted: torch.Tensor, t: torch.Tensor, sample: torch.Tensor, generator: torch.Generator, return_dict: bool = False
    ) -> tuple[torch.Tensor]:
        """The latents at the next call, or at the end."""
        step, stage, sigma = self._calls[self.call]
        self.call += 1
        down, up = self._goal(step)
        moved = self._move(At(step, stage, self.sigmas[step], down, sample, self._denoised(predicted, sample, sigma), generator))
        is_last = self.call == len(self._calls) or self._calls[self.call][1] == 0
        if is_last and up > 0:
            moved = moved + up * draw_noise(sample.shape, generator, sample.device)
        return (moved,)

    def _denoised(self, predicted: torch.Tensor, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """D, from what the network predicts of the noise, the velocity or the picture."""
        kind = self.config["prediction_type"]
        if kind == "epsilon":
            return x - sigma * predicted
        if kind == "v_prediction":
            return x / (sigma**2 + 1) - predicted * (sigma / sqrt(sigma**2 + 1))
        return predicted

    def _goal(self, step: int) -> tuple[float, float]:
        """(σ' of the step without noise, how much noise is added)."""
        sigma, goal = self.sigmas[step], self.sigmas[step + 1]
        return ancestral_step(sigma, goal) if self.config["ancestral"] else (goal, 0.0)

    def _between(self, sigma: float, down: float) -> list[float]:
        """Where else the network is called in a step from σ to σ'."""
        return []

    @abstractmethod
    def _move(self, at: At) -> torch.Tensor:
        """The latents at the next call of the step, or at its end."""


def _middle(sigma: float, down: float) -> list[float]:
    """Half of the way in −log σ; a step to 0 has none."""
    return [sqrt(sigma * down)] if down > 0 else []


class Dpm2(Solver):
    """DPM2 and DPM2 a: the midpoint method (k-diffusion's `sample_dpm_2`, `sample_dpm_2_ancestral`; Lu et al. 2022,
    DPM-Solver, arXiv 2206.00927)."""

    order = 2
    start: torch.Tensor

    def _between(self, sigma: float, down: float) -> list[float]:
        return _middle(sigma, down)

    def _move(self, at: At) -> torch.Tensor:
        x, denoised, sigma, down = at.x, at.denoised, at.sigma, at.down
        if down == 0:
            return denoised
        middle = sqrt(sigma * down)
        if at.stage == 0:
            self.start = x
            return x + (x - denoised) * ((middle - sigma) / sigma)
        return self.start + (x - denoised) * ((down - sigma) / middle)


class DpmPlus2S(Solver):
    """DPM++ 2S a: DPM-Solver++(2S), single step, with ancestral noise (k-diffusion's `sample_dpmpp_2s_ancestral`; Lu et
    al. 2022, arXiv 2211.01095, algorithm 1)."""

    order = 2
    start: torch.Tensor

    def _between(self, sigma: float, down: float) -> list[float]:
        return _middle(sigma, down)

    def _move(self, at: At) -> torch.Tensor:
        x, denoised, sigma, down = at.x, at.denoised, at.sigma, at.down
        if down == 0:
            return denoised
        h = log(sigma / down)
        if at.stage == 0:
            self.start = x
            return x * exp(-h / 2) - denoised * expm1(-h / 2)
        return self.start * exp(-h) - denoised * expm1(-h)


class DpmPlusSde(Solver):
    """DPM++ SDE: DPM-Solver++ of an SDE, two calls a step (k-diffusion's `sample_dpmpp_sde`, η = 1, r = 1/2).

    Its two draws of noise belong to one Brownian path over σ, the second one's interval holding the first one's. A sum
    of two independent parts has that law; k-diffusion looks the path up in a tree, whose numbers are others.
    """

    order = 2
    start: torch.Tensor
    noise: torch.Tensor

    def _between(self, sigma: float, down: float) -> list[float]:
        return _middle(sigma, down)

    def _move(self, at: At) -> torch.Tensor:
        x, denoised, sigma, down = at.x, at.denoised, at.sigma, at.down
        if down == 0:
            return denoised
        middle = sqrt(sigma * down)
        goal = middle if at.stage == 0 else down
        to, up = ancestral_step(sigma, goal)
        if at.stage == 0:
            self.start, self.noise = x, draw_noise(x.shape, at.generator, x.device)
            return x * (to / sigma) + denoised * (1 - to / sigma) + up * self.noise
        first, second = sqrt((sigma - middle) / (sigma - down)), sqrt((middle - down) / (sigma - down))
        noise = first * self.noise + second * draw_noise(x.shape, at.generator, x.device)
        return self.start * (to / sigma) + denoised * (1 - to / sigma) + up * noise


class DpmPlus3MSde(Solver):
    """DPM++ 3M SDE: multistep of third order (k-diffusion's `sample_dpmpp_3m_sde`, η = 1)."""

    def __init__(self, *given: Any, **more: Any):
        super().__init__(*given, **more)
        # D of the steps before, the latest first, and their widths.
        self.before: list[torch.Tensor] = []
        self.widths: list[float] = []

    def _move(self, at: At) -> torch.Tensor:
        x, denoised, sigma, down = at.x, at.denoised, at.sigma, at.down
        if down == 0:
            return denoised
        h = log(sigma / down)
        moved = x * exp(-2 * h) - denoised * expm1(-2 * h)
        phi2 = expm1(-2 * h) / (2 * h) + 1
        if len(self.before) == 2:
            r0, r1 = self.widths[0] / h, self.widths[1] / h
            slope, earlier = (denoised - self.before[0]) / r0, (self.before[0] - self.before[1]) / r1
            bend = (slope - earlier) / (r0 + r1)
            moved = moved + phi2 * (slope + bend * r0) - (phi2 / (2 * h) - 0.5) * bend
        elif len(self.before) == 1:
            moved = moved + phi2 * (denoised - self.before[0]) * (h / self.widths[0])
        self.before, self.widths = [denoised, *self.before][:2], [h, *self.widths][:2]
        return moved + down * sqrt(-expm1(-2 * h)) * draw_noise(x.shape, at.generator, x.device)


class Ipndm(Solver):
    """iPNDM: Adams–Bashforth of up to fourth order over σ with the coefficients of equal steps (ComfyUI's
    `sample_ipndm`; Zhang and Chen 2022, arXiv 2204.13902)."""

    COEFFICIENTS = ((1,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))

    def __init__(self, *given: Any, **more: Any):
        super().__init__(*given, **more)
        # Slopes (x − D) / σ, the latest first.
        self.slopes: list[torch.Tensor] = []

    def _move(self, at: At) -> torch.Tensor:
        x, denoised, sigma, down = at.x, at.denoised, at.sigma, at.down
        if down == 0:
            return denoised
        self.slopes = [(x - denoised) / sigma, *self.slopes][:4]
        for weight, slope in zip(self.COEFFICIENTS[len(self.slopes) - 1], self.slopes, strict=True):
            x = x + slope * (weight * (down - sigma))
        return x


class Lms(Solver):
    """LMS: linear multistep of up to fourth order over σ (k-diffusion's `sample_lms`, whose integrals of Lagrange's
    polynomials are worked out here instead of approached)."""

    def __init__(self, *given: Any, **more: Any):
        super().__init__(*given, **more)
        # Slopes (x − D) / σ, the latest first.
        self.slopes: list[torch.Tensor] = []

    def _move(self, at: At) -> torch.Tensor:
        x, denoised, sigma, down = at.x, at.denoised, at.sigma, at.down
        self.slopes = [(x - denoised) / sigma, *self.slopes][:4]
        # In units of the step, so that the powers stay small: from 0 to 1.
        knots = [(self.sigmas[at.step - back] - sigma) / (down - sigma) for back in range(len(self.slopes))]
        for knot, slope in zip(knots, self.slopes, strict=True):
            others = [other for other in knots if other != knot]
            scale = prod(knot - other for other in others)
            integral = Polynomial.fromroots(others).integ()(1.0) if others else 1.0
            x = x + slope * float((down - sigma) * integral / scale)
        return x


class ResMultistep(Solver):
    """RES Multistep and its ancestral kind: a refined exponential solver of second order (ComfyUI's
    `sample_res_multistep`; Zhang et al. 2023, arXiv 2308.02157)."""

    before: torch.Tensor | None = None
    # σ' of the step before, without noise.
    before_down: float = 0.0

    def _move(self, at: At) -> torch.Tensor:
        x, denoised, sigma, down = at.x, at.denoised, at.sigma, at.down
        before, before_down = self.before, self.before_down
        self.before, self.before_down = denoised, down
        if down == 0:
            return denoised
        h = log(sigma / down)
        c2 = log(before_down / self.sigmas[at.step - 1]) / h if before is not None else 0.0
        if before is None or c2 == 0:
            return x + (x - denoised) * ((down - sigma) / sigma)
        phi1 = -expm1(-h) / h
        phi2 = (1 - phi1) / h
        return x * exp(-h) + denoised * (h * (phi1 - phi2 / c2)) + before * (h * phi2 / c2)


class GradientEstimation(Solver):
    """Gradient Estimation: Euler with its slope carried on by the last change, γ = 2 (ComfyUI's
    `sample_gradient_estimation`; Permenter and Yuan 2024, arXiv 2306.04848)."""

    slope: torch.Tensor | None = None

    def _move(self, at: At) -> torch.Tensor:
        x, denoised, sigma, down = at.x, at.denoised, at.sigma, at.down
        if down == 0:
            return denoised
        slope, before = (x - denoised) / sigma, self.slope
        self.slope = slope
        return x + (slope if before is None else 2 * slope - before) * (down - sigma)
