"""One picture under way, from noise or over a picture: what each call moves on, and what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch

from darkroom import adapters, checkpoint, control, fast, noise, previews
from darkroom.errors import DarkroomError
from darkroom.families import Conditioning, Family
from darkroom.runtime import Runtime
from darkroom.samplers import AUTOMATIC, first_call, step_options


class Predicts(Protocol):
    """What computes calls: a `Family`."""

    def predict(self, latents: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """As `Family.predict`."""
        ...


class Drawing:
    """One image under way: what every call moves on, and what a checkpoint holds.

    `picture`: what it begins from, as `encode_picture` made it. Then the first calls are left out, as many as
    `strength` leaves, and the picture stands under the noise of the first that is done. At 1 nothing of it does: only
    what a mask keeps is the picture's then. So diffusers' pipelines for inpainting have it; those for image to image
    let the picture shine through at 1 too.
    """

    def __init__(
        self,
        model: Family,
        runtime: Runtime,
        request: Mapping[str, Any],
        picture: Mapping[str, torch.Tensor] | None = None,
        in_tiles: bool = False,
    ):
        self._device = runtime.device
        self._generator = torch.Generator("cpu").manual_seed(request["seed"])
        self._shape = model.latent_shape(request["width"], request["height"])
        schedule = request.get("schedule", AUTOMATIC)
        self._scheduler = model.schedule.scheduler(request["sampler"], request["steps"], self._shape, schedule)
        # There at once: a copy of each would make the host wait for the device.
        self._times = self._scheduler.timesteps.to(runtime.device)
        self._options = step_options(self._scheduler, self._generator)
        self._identity = {
            "model": request["model"]["body_hash"],
            # Where networks are moves no bit of latents.
            "request": {
                **{name: value for name, value in request.items() if name not in ("model", "memory_profile")},
                **adapters.pinned(request),
                **control.pinned(request),
                **({"tiles": True} if in_tiles else {}),
            },
            "fingerprint": fast.facts_of(runtime.facts, request),
        }
        self._recorder = checkpoint.Recorder(self._scheduler, self._generator, self._identity)
        self.latents: torch.Tensor = torch.empty(0)
        self.seen: previews.Seen | None = None
        self._request = request
        self._picture = picture
        self._first = 0 if picture is None else first_call(self._scheduler, request["steps"], request["strength"])
        # Those that keep no place of their own find it by the time.
        if self._first > 0 and hasattr(self._scheduler, "set_begin_index"):
            self._scheduler.set_begin_index(self._first)
        self.call = 0
        self.calls = len(self._scheduler.timesteps) - self._first
        # What a mask keeps is put back after each call; a network for inpainting is shown it.
        self._mask = None if picture is None or model.paints or "mask" not in picture else picture["mask"].to(self._device)

    def begin(self) -> None:
        """Noise: drawn on the CPU in fp32, so that a seed means the same on every device."""
        drawn = noise.first(self._shape, self._generator, self._request.get("variation"))
        if self._picture is None or self._first == 0:
            self.latents = (drawn * float(self._scheduler.init_noise_sigma)).to(self._device)
            return
        below = self._picture["latents"]
        if (self._request.get("mask") or {}).get("fill") == "noise":
            holes = self._picture["mask"]
            below = (1 - holes) * below + holes * torch.randn(self._shape, generator=self._generator, dtype=torch.float32)
        self.latents = self._under(drawn, below, self._first)

    def _under(self, drawn: torch.Tensor, latents: torch.Tensor, at: int) -> torch.Tensor:
        """Latents as noisy as those that call `at` of the schedule takes. On the CPU: the scheduler's own tensors stay
        there."""
        return self._scheduler.add_noise(latents, drawn, self._scheduler.timesteps[at : at + 1]).to(self._device)

    def resume(self, content: bytes, given: Mapping[str, Any]) -> None:
        """Raises checkpoint.CheckpointRefused; `begin` is then still possible."""
        self.latents = checkpoint.restore(content, given, self._scheduler, self._generator, self._identity, self._device)
        self.call = given["call"]

    def advance(self, model: Predicts, conditioning: Conditioning) -> None:
        """One call: latents [1, channels, rows, columns] fp32 to the next ones."""
        at = self._first + self.call
        t = self._scheduler.timesteps[at]
        given = self._scheduler.scale_model_input(self.latents, t)
        predicted = model.predict(given, self._times[at], conditioning)
        self.seen = previews.Seen(given, float(t), predicted)
        self.latents = self._scheduler.step(predicted, t, self.latents, **self._options, return_dict=False)[0]
        self.call += 1
        if self._mask is not None and self._picture is not None:
            self.latents = (1 - self._mask) * self._kept(self._picture["latents"]) + self._mask * self.latents

    def _kept(self, latents: torch.Tensor) -> torch.Tensor:
        """The picture's latents under the noise that the picture began with, as the next call takes them."""
        if self.call == self.calls:
            return latents.to(self._device)
        # The first that the seed gives, as in `begin`: a run that went on from a checkpoint has it too.
        generator = torch.Generator("cpu").manual_seed(self._request["seed"])
        return self._under(noise.first(self._shape, generator, self._request.get("variation")), latents, self._first + self.call)

    def snapshot(self, draft: torch.Tensor | None) -> Callable[[], bytes]:
        """As `Recorder.take`."""
        return self._recorder.take(self.latents, self.call, draft)

    def check(self) -> None:
        """Raises `inference.diverged` when a latent is not finite."""
        check_finite(self.latents, f"the latents after call {self.call}")

    def tensors(self) -> list[torch.Tensor]:
        """Everything it holds on the device and beside it."""
        seen = [] if self.seen is None else [self.seen.given, self.seen.predicted]
        return [self.latents, *seen, *checkpoint.tensors_of(vars(self._scheduler))]


def check_finite(tensor: torch.Tensor, name: str) -> None:
    """Raises `inference.diverged`."""
    if not bool(tensor.isfinite().all()):
        raise DarkroomError("inference.diverged", f"{name} holds a number that is not finite")
