"""Model families: how one kind of diffusion model is loaded, and what it computes.

A family is one class in a file of this folder and one row in `families()`. Its name is the one that src/models/ gives
to a folder on disk: the node recognises a model and says its family with every reference, so recognition stands in one
place. Width, steps and the other defaults of a request stand there too; a family here decides nothing that a request
says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

if TYPE_CHECKING:
    import torch

    from darkroom.schedule import Schedule
    from darkroom.tools import Tools


@dataclass(frozen=True)
class Conditioning:
    """What `Family.predict` is led by, on the device. `tensors` are the family's own: the loop only accounts for them.
    """

    tensors: Mapping[str, torch.Tensor]
    guidance: float


class Family(Protocol):
    """One resident model of a family: an image at a time, so that it is the same alone and among others.

    Its weights never change after `load`. No method draws random numbers; all are deterministic for one exactness
    class.
    """

    parts: ClassVar[Sequence[str]]
    """Folders within the model's folder that `load` reads; nothing else of it is opened."""

    bytes: int
    """Bytes of its weights on the device."""

    schedule: Schedule
    """The model's own schedule (betas, prediction type, spacing); the sampler is the request's."""

    @classmethod
    def load(cls, folder: str, device: torch.device, tools: Tools) -> Self:
        """Loads a diffusers folder, offline and from safetensors only; calls `tools.advance` after each part.

        Raises `model.corrupt` when a file is missing or broken, when the parts do not fit together, when the tokenizer
        would not hear a prompt, and when no sampler takes the schedule; and what the libraries raise at files that they
        cannot read.
        """
        ...

    def encode(self, prompt: str, negative_prompt: str, tools: Tools) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Both texts as named tensors, fp32 on the CPU, which are kept as a file; and for `prompt` and
        `negative_prompt` what was read of it: {read, dropped, dropped_text}, counted in tokens."""
        ...

    def condition(self, encoded: Mapping[str, torch.Tensor], guidance: float) -> Conditioning:
        """What `encode` made, on the device in the denoiser's dtype. `guidance` of at most 1 leaves the negative prompt
        out."""
        ...

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int, int]:
        """[1, channels, rows, columns] of an image of `width` × `height` pixels."""
        ...

    def predict(self, latents: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """The guided prediction, fp32 and shaped as `latents` (fp32, scaled by the scheduler), at time `t` of the
        schedule."""
        ...

    def decode(self, latents: torch.Tensor, tools: Tools) -> torch.Tensor:
        """`latents`, fp32 on any device, as [3, height, width] fp32 on the device: RGB in -1 to 1, not clamped."""
        ...


def families() -> dict[str, type[Family]]:
    """Every family by its name. Importing them takes the seconds that torch, diffusers and transformers take."""
    from darkroom.families.sd import StableDiffusion

    return {"sd1": StableDiffusion}
