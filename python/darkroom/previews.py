"""What a picture looks like while it is drawn: what the network took the noisy latents of its last call for, shown
without the decoder. It costs no call and moves nothing that the next one takes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from darkroom import tensors
from darkroom.families import Family
from darkroom.tools import Tools


@dataclass(frozen=True)
class Seen:
    """One call: what the network was given at time `t` of the schedule, and what it predicted, both shaped as latents.
    """

    given: torch.Tensor
    t: float
    predicted: torch.Tensor


def look(model: Family, seen: Seen | None, tools: Tools) -> torch.Tensor | None:
    """RGB8, [rows, columns, 3], a pixel a latent cell, on the device; nothing waits for it. None before the first call,
    where previews are off, and where the latents of the model are of no known space."""
    if seen is None or model.latent_rgb is None or tools.runtime.preview_s == 0:
        return None
    return model.latent_rgb.pixels(model.schedule.clean(seen.given, seen.t, seen.predicted))


def show(model: Family, seen: Seen | None, call: int, tools: Tools) -> None:
    """Shows how it looks after `call` calls, when a preview is due."""
    if not tools.preview_due() or (shown := look(model, seen, tools)) is None:
        return
    copied = tensors.leaving({"shown": shown}, shown.device)
    tools.save_preview(call, shown.shape[1], shown.shape[0], lambda: copied()["shown"].contiguous().numpy().tobytes())
