"""Model families: how one kind of diffusion model is loaded, and what it computes.

A family is one class in a file of this folder and one row in `families()`. Its name is the one that src/models/ gives
to a folder on disk: the node recognises a model and says its family with every reference, so recognition stands in one
place. Width, steps and the other defaults of a request stand there too; a family here decides nothing that a request
says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

if TYPE_CHECKING:
    import numpy
    import torch

    from darkroom.control import Control, ControlNet
    from darkroom.families.latent_rgb import LatentRgb
    from darkroom.families.parts import Parts
    from darkroom.fast import Ways
    from darkroom.tools import Tools


@dataclass(frozen=True)
class Conditioning:
    """What `Family.predict` is led by, on the device. `tensors` are the family's own: the loop only accounts for them.
    """

    tensors: Mapping[str, torch.Tensor]
    guidance: float
    rescale: float = 0.0
    """How much of the guided prediction has the deviation of the one with the prompt, 0 to 1."""
    controls: Sequence[Control] = field(default=())
    """Those that act in this call."""


class Schedule(Protocol):
    """How noise becomes a picture: the model's own configuration, for each sampler that takes it."""

    def scheduler(self, sampler: str, steps: int, shape: Sequence[int], schedule: str) -> Any:
        """A scheduler of its own for one request, set to `steps`, that has taken them all on four latents; its
        timesteps stay on the CPU. `shape`: of the latents, whose size some schedules follow; `schedule`: how the steps
        are spread, `Automatic` for the model's own way.

        It has what diffusers' schedulers have: `timesteps`, `init_noise_sigma`, `scale_model_input` and `step`, and
        keeps all its state in plain attributes, which a checkpoint takes.

        Raises `inference.sampler_unknown`, which names the nearest that is offered, and `inference.schedule_unfit`,
        which names the samplers that take it.
        """
        ...

    def clean(self, given: torch.Tensor, t: float, predicted: torch.Tensor) -> torch.Tensor:
        """The latents without noise that the network takes `given` for, when it predicts `predicted` at time `t` of the
        schedule; both shaped as latents, `given` scaled by the scheduler."""
        ...


class Family(Protocol):
    """One resident model of a family: an image at a time, so that it is the same alone and among others.

    Its weights never change after `load`. No method draws random numbers; all are deterministic for one exactness
    class.
    """

    parts: ClassVar[Sequence[str]]
    """Folders within the model's folder that `load` reads; nothing else of it is opened."""

    fast: ClassVar[Ways]
    """What of its network may be compiled or left out in the class `fast`."""

    shares: bool
    """Whether two pictures at a time are drawn sooner than one after the other, which is measured on a GPU; then it is
    a `together.Model` too."""

    bytes: int
    """Bytes of its weights on the device."""

    paints: bool
    """Whether its network is one for inpainting, which is shown the mask and the rest of the picture: `predict` then
    takes `painting` of the conditioning's tensors, [1, 1 + channels, rows, columns]."""

    hears: int | None
    """Numbers of a text vector that its network listens to, where `predict` heeds the conditioning's `controls`; None
    where it does not."""

    steered_by: Sequence[str]
    """Classes of ControlNets that may steer it."""

    lends: Any
    """Its network, where `steered_by` names ControlNets of `control.BORROWING`; None elsewhere."""

    sees: int
    """How many reference pictures it takes, which `see` turns into tensors for `predict`; 0 where it takes none."""

    latent_rgb: LatentRgb | None
    """How its latents look; None where nobody has fitted that: then its pictures have no previews."""

    @property
    def schedule(self) -> Schedule:
        """The model's own; the sampler is the request's."""
        ...

    @classmethod
    def load(cls, parts: Parts, device: torch.device) -> Self:
        """Takes its parts onto the device.

        Raises `model.corrupt` when a file is missing or broken, when the parts do not fit together, when the tokenizer
        would not hear a prompt, and when no sampler takes the schedule; and what the libraries raise at files that they
        cannot read.
        """
        ...

    def encode(self, request: Mapping[str, Any], tools: Tools) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Both texts as named tensors, fp32 on the CPU, which are kept as a file; and for `prompt` and
        `negative_prompt` what was read of it: {read, dropped, dropped_text}, counted in tokens, and `chunks` and
        `parts` as `clip_text.read` says. `request`: {prompt, negative_prompt} and, where they are asked for,
        {guidance, prompt_syntax, clip_skip}: at a guidance of at most 1 a family may leave the negative prompt out.
        Raises `inference.request_unfit` for what the model would not hear."""
        ...

    def condition(self, encoded: Mapping[str, torch.Tensor], request: Mapping[str, Any]) -> Conditioning:
        """What `encode` made, on the device in the denoiser's dtype. `request`: {guidance, width, height, …} of the
        denoise; a guidance of at most 1 leaves the negative prompt out. Raises `inference.request_unfit` for a guidance
        that the model has not, and for a `guidance_rescale` or `guidance_interval` where it knows none.
        """
        ...

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int, int]:
        """[1, channels, rows, columns] of an image of `width` × `height` pixels. Raises `inference.request_unfit` for a
        size that the model does not draw."""
        ...

    def predict(self, latents: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """The guided prediction, fp32 and shaped as `latents` (fp32, scaled by the scheduler), at time `t` of the
        schedule, a scalar on the device.

        Raises `model.unusable` when the model needs more than the conditioning has.
        """
        ...

    def decode(self, latents: torch.Tensor, tools: Tools) -> torch.Tensor:
        """`latents`, fp32 on any device, as [3, height, width] fp32 on the device: RGB in -1 to 1, not clamped."""
        ...

    def encode_picture(self, pixels: torch.Tensor) -> torch.Tensor:
        """`pixels`, [3, height, width] fp32 on the device, RGB in -1 to 1, as latents of `latent_shape`, fp32 on the
        device."""
        ...

    def shown(self, network: ControlNet, picture: numpy.ndarray) -> torch.Tensor:
        """What a ControlNet of `steered_by` is shown of a picture, RGB8 [height, width, 3] of the size that is drawn;
        fp32 on any device."""
        ...

    def see(self, pictures: Sequence[numpy.ndarray]) -> Mapping[str, torch.Tensor]:
        """Reference pictures, RGB8 [rows, columns, 3] of any size, at most as many as `sees` says, as tensors of the
        conditioning, on the device. Raises `inference.request_unfit` where it takes none."""
        ...


def families() -> dict[str, type[Family]]:
    """Every family by its name. Importing them takes the seconds that torch, diffusers and transformers take."""
    from darkroom.families.flux import Flux
    from darkroom.families.flux2 import Flux2Klein
    from darkroom.families.qwen_image import QwenImage
    from darkroom.families.sd import StableDiffusion
    from darkroom.families.sd3 import StableDiffusion3
    from darkroom.families.sdxl import Refiner, StableDiffusionXL
    from darkroom.families.z_image import ZImage

    return {
        "sd1": StableDiffusion,
        "sdxl": StableDiffusionXL,
        "sdxl-refiner": Refiner,
        "flux1": Flux,
        "flux2": Flux2Klein,
        "qwen-image": QwenImage,
        "sd3": StableDiffusion3,
        "z-image": ZImage,
    }
