"""What the transformers with flow matching share: their dtype, the 2 × 2 packing of latents, their checks.

On a GPU they and their text encoders compute in bfloat16, as their authors publish them: the range of float16 is too
small for T5 and Qwen. On a CPU all is fp32. The autoencoder computes in fp32 everywhere, on a GPU with TF32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy
import torch

from darkroom import exactness
from darkroom.errors import DarkroomError
from darkroom.families import Conditioning
from darkroom.guidance import is_guided

if TYPE_CHECKING:
    from darkroom.control import ControlNet


def dtype(device: torch.device) -> torch.dtype:
    """Of transformer and text encoders."""
    said = exactness.precisions(device)
    return getattr(torch, said.get("transformer", said["dtype"]))


def pack(latents: torch.Tensor) -> torch.Tensor:
    """[1, channels, rows, columns] as tokens, [1, rows/2 · columns/2, channels · 4], each a square of 2 × 2 cells."""
    _, channels, rows, columns = latents.shape
    squares = latents.view(1, channels, rows // 2, 2, columns // 2, 2)
    return squares.permute(0, 2, 4, 1, 3, 5).reshape(1, (rows // 2) * (columns // 2), channels * 4)


def unpack(tokens: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """The inverse of `pack` for latents of so many rows and columns."""
    channels = tokens.shape[2] // 4
    squares = tokens.view(1, rows // 2, columns // 2, channels, 2, 2)
    return squares.permute(0, 3, 1, 4, 2, 5).reshape(1, channels, rows, columns)


def guided_by(
    family: str, encoded: Mapping[str, torch.Tensor], request: Mapping[str, Any], device: torch.device, dtype: torch.dtype
) -> Conditioning:
    """`positive` and, where guidance is above 1, `negative`, as they were encoded. Raises as `check_rescale`."""
    check_rescale(family, request)
    names = [name for name in ("positive", "negative") if is_heard(name, request)]
    return Conditioning({name: encoded[name].to(device, dtype) for name in names}, request["guidance"])


def is_heard(name: str, request: Mapping[str, Any]) -> bool:
    """Whether any call asks for this text, `positive` or `negative`: the text encoder reads no other one."""
    return name == "positive" or is_guided(request)


def check_size(family: str, width: int, height: int, multiple: int, most: int | None = None) -> None:
    """Raises `inference.request_unfit` unless both sides are a multiple of `multiple` pixels, and at most `most`."""
    for name, side in (("width", width), ("height", height)):
        if side % multiple != 0:
            raise unfit(name, f"{family} draws in squares of {multiple} pixels: {name} must be a multiple of {multiple}, not {side}")
        if most is not None and side > most:
            raise unfit(name, f"this model of {family} knows places up to {most} pixels: {name} must be at most {most}, not {side}")


def texts(family: str, request: Mapping[str, Any]) -> tuple[tuple[str, str, str], tuple[str, str, str]]:
    """(what `encode` makes of it, its field, the text) of both prompts. Raises `inference.request_unfit` for what only
    CLIP's families hear."""
    if request.get("prompt_syntax", "plain") != "plain":
        raise unfit("promptSyntax", f"{family} hears no weights: promptSyntax must be plain, or left out")
    if "clip_skip" in request:
        raise unfit("clipSkip", f"{family} hears another text encoder than CLIP, or CLIP's own layer: leave clipSkip out")
    return ("positive", "prompt", request["prompt"]), ("negative", "negative_prompt", request["negative_prompt"])


def check_rescale(family: str, request: Mapping[str, Any]) -> None:
    """Raises `inference.request_unfit` for a rescaled guidance, which pipelines of flow matching have not."""
    if "guidance_rescale" in request:
        raise unfit("guidanceRescale", f"{family} draws by flow matching, whose guidance is not rescaled: leave guidanceRescale out")


def check_unheard(family: str, negative_prompt: str) -> None:
    """Raises `inference.request_unfit` unless the negative prompt is empty."""
    if negative_prompt:
        raise unfit("negativePrompt", f"{family} hears no negative prompt: leave it out, and say in the prompt what to draw instead")


def unfit(field: str, problem: str) -> DarkroomError:
    """The `inference.request_unfit` of a field of the request."""
    return DarkroomError("inference.request_unfit", problem, field=f"input.{field}")


def check_fit(where: str, expected: Mapping[str, tuple[Any, Any]]) -> None:
    """What parts say of one another: name → (what it is, what the other parts want). Raises `model.corrupt`, so that a
    wrong part is refused at the load and not in the middle of a picture."""
    for name, (found, wanted) in expected.items():
        if found != wanted:
            raise DarkroomError("model.corrupt", f"{where}: {name} is {found}, not {wanted}", field="model.path")


def followed(tokens: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
    """`tokens` of what is drawn, [1, tokens, channels], and after them those of the reference pictures, where there are
    any."""
    seen = conditioning.tensors.get("reference")
    return tokens if seen is None else torch.cat([tokens, seen], dim=1)


class FromText:
    """The half of a `Family` that begins from no picture."""

    shares: bool = False
    paints: bool = False
    hears: int | None = None
    sees: int = 0
    steered_by: Sequence[str] = ()
    lends: Any = None

    def shown(self, network: ControlNet, picture: numpy.ndarray) -> torch.Tensor:
        """As `Family.shown`: never asked of a family that none steers."""
        raise unfit("control", "models of this family are not steered by ControlNets: leave `control` out")

    def see(self, pictures: Sequence[numpy.ndarray]) -> Mapping[str, torch.Tensor]:
        """As `Family.see`: none where a family does not say otherwise."""
        raise unfit("references", "this model takes no reference pictures: leave them out")

    def encode_picture(self, pixels: torch.Tensor) -> torch.Tensor:
        """Raises `inference.request_unfit`."""
        raise unfit("picture", "this model draws from text alone: leave the picture out")
