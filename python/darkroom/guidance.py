"""Classifier-free guidance: how both predictions of a call become one, and in which calls there are two.

Ho and Salimans 2022, "Classifier-Free Diffusion Guidance", arXiv 2207.12598.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from darkroom.errors import DarkroomError
from darkroom.families import Conditioning, Family

if TYPE_CHECKING:
    from darkroom.control import Control


def guided(without: torch.Tensor, with_prompt: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
    """The guided prediction of both, shaped alike, [1, …].

    With a `rescale` it is brought to the deviation of the prediction with the prompt, by that share: Lin, Liu, Li and
    Yang 2023, "Common Diffusion Noise Schedules and Sample Steps are Flawed", arXiv 2305.08891, section 3.4, summed as
    diffusers' `rescale_noise_cfg`.
    """
    made = without + conditioning.guidance * (with_prompt - without)
    if conditioning.rescale == 0:
        return made
    rest = list(range(1, made.ndim))
    rescaled = made * (with_prompt.std(dim=rest, keepdim=True) / made.std(dim=rest, keepdim=True))
    return conditioning.rescale * rescaled + (1 - conditioning.rescale) * made


def is_guided(request: Mapping[str, Any]) -> bool:
    """Whether any call asks for the negative prompt: at a guidance of at most 1 none does. A request that says nothing
    of guidance may be drawn with one."""
    return request.get("guidance", math.inf) > 1


class Led:
    """What each call of a picture is led by. Outside of the request's `guidance_interval` a call is one of guidance 1:
    Kynkäänniemi et al. 2024, "Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in
    Diffusion Models", arXiv 2404.07724. Its ends are shares of the calls, rounded down as by diffusers' guiders.

    Raises as `Family.condition`, and `inference.request_unfit` for an interval without a call.
    """

    def __init__(self, model: Family, encoded: Mapping[str, torch.Tensor], request: Mapping[str, Any], calls: int):
        self._calls = calls
        self._controls: Sequence[Control] = ()
        interval = request.get("guidance_interval", {"start": 0.0, "end": 1.0})
        self._first, self._end = int(interval["start"] * calls), int(interval["end"] * calls)
        if self._first >= self._end:
            raise DarkroomError(
                "inference.request_unfit",
                f"none of the {calls} calls lies between {interval['start']:g} and {interval['end']:g} of them: widen guidanceInterval",
                field="input.guidanceInterval",
            )
        covers_all = self._first == 0 and self._end == calls
        self._inside = model.condition(encoded, request)
        self._outside = self._inside if covers_all else model.condition(encoded, {**request, "guidance": 1.0})

    def steer(self, controls: Sequence[Control]) -> None:
        """Each acts in the calls of its own."""
        self._controls = controls

    def add(self, **more: torch.Tensor) -> None:
        """Shows these tensors to every call."""
        self._inside, self._outside = (replace(each, tensors={**each.tensors, **more}) for each in (self._inside, self._outside))

    def at(self, call: int) -> Conditioning:
        """Of call number `call`, counted from the first that is done."""
        led = self._inside if self._first <= call < self._end else self._outside
        return replace(led, controls=[control for control in self._controls if control.acts(call, self._calls)])

    def tensors(self) -> list[torch.Tensor]:
        """All that it holds on the device."""
        shown = [control.picture for control in self._controls]
        return [*self._inside.tensors.values(), *self._outside.tensors.values(), *shown]
