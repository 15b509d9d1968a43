"""Texts of any length for families that hear CLIP alone: in chunks of the encoder's window, one behind the other.

Each chunk goes through the encoder by itself, so a text that fits into one has the bytes that it always had. Positive
and negative text have as many chunks; the shorter one is filled up with empty ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from darkroom.errors import DarkroomError
from darkroom.families.clip_text import Chunk, ClipTokenizer
from darkroom.prompts import Sections, sections_of

# Tokens of a text, whole chunks counted: 32 of a usual window. The denoiser looks at all of them in each call.
MOST_TOKENS = 2400
# Tensor of the conditioning → field of the request.
TEXTS = {"positive": "prompt", "negative": "negative_prompt"}

# Tokens on the device, [1, window] → (states [1, window, width], the vector of the whole text).
Forward = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def read(tokenizers: Sequence[ClipTokenizer], request: Mapping[str, Any]) -> tuple[dict[str, list[list[Chunk]]], dict[str, Any]]:
    """(`positive` and `negative`: for each tokenizer the chunks, all as many; what was read of each field).

    Of a field {read, dropped, dropped_text} as `ClipTokenizer.read` says them, nothing being dropped; `chunks`, how
    many the encoder hears; and where the text has weights `parts`, [{text, weight, tokens}]. Raises
    `inference.request_unfit` for a text that is too long, and as `sections_of`.
    """
    sections = {field: sections_of(request, field) for field in TEXTS.values()}
    cut = {field: [tokenizer.chunks(sections[field]) for tokenizer in tokenizers] for field in sections}
    for field, chunks in cut.items():
        _check_length(field, max(map(len, chunks)), tokenizers[0])
    most = max(len(each) for chunks in cut.values() for each in chunks)
    framed = {
        name: [
            [*map(tokenizer.framed, chunks), *[tokenizer.empty()] * (most - len(chunks))]
            for tokenizer, chunks in zip(tokenizers, cut[field], strict=True)
        ]
        for name, field in TEXTS.items()
    }
    # The last encoder's reading, where they differ at all.
    heard = {field: _told(tokenizers[-1], sections[field], cut[field][-1], most) for field in sections}
    return framed, heard


def encode(
    chunks: Sequence[Chunk], empty: Callable[[], Chunk], forward: Forward, syntax: str, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """(states of all chunks, [1, chunks · window, width]; the vector of the first chunk), fp32 on the device.

    How weights act, `syntax`: with `a1111` a state is multiplied, and each chunk keeps its mean (`EmphasisOriginal` of
    its `modules/sd_emphasis.py`); with `comfy` it lies so far from that of the `empty` text as the weight says
    (`ClipTokenWeightEncoder` of ComfyUI's `comfy/sd1_clip.py`).
    """
    heard = [forward(chunk.tokens.to(device)) for chunk in chunks]
    states = [hidden.float() for hidden, _ in heard]
    if any(chunk.is_weighted for chunk in chunks):
        nothing = forward(empty().tokens.to(device))[0].float() if syntax == "comfy" else None
        states = [_weighed(each, chunk, nothing) for each, chunk in zip(states, chunks, strict=True)]
    return torch.cat(states, dim=1), heard[0][1].float()


def _weighed(states: torch.Tensor, chunk: Chunk, nothing: torch.Tensor | None) -> torch.Tensor:
    if not chunk.is_weighted:
        return states
    weights = chunk.weights.to(states.device)[None, :, None]
    if nothing is not None:
        return torch.where(weights == 1, states, (states - nothing) * weights + nothing)
    weighed = states * weights
    return weighed * (states.mean() / weighed.mean())


def _check_length(field: str, chunks: int, tokenizer: ClipTokenizer) -> None:
    if chunks * tokenizer.room <= MOST_TOKENS:
        return
    name = "negativePrompt" if field == "negative_prompt" else field
    most = MOST_TOKENS // tokenizer.room
    raise DarkroomError(
        "inference.request_unfit",
        f"the text has {chunks} chunks of {tokenizer.room} tokens; at most {most} are read: shorten it, or take out some BREAK",
        field=f"input.{name}",
    )


def _told(tokenizer: ClipTokenizer, sections: Sections, chunks: Sequence[Sequence[Any]], most: int) -> dict[str, Any]:
    parts = [part for section in sections for part in section]
    told = {"read": sum(map(len, chunks)), "dropped": 0, "dropped_text": "", "chunks": most}
    if all(part.weight == 1 for part in parts):
        return told
    listed = [{"text": part.text, "weight": round(part.weight, 6), "tokens": tokenizer.count(part.text)} for part in parts]
    return {**told, "parts": listed}


def check_layer(clip_skip: int, first: int, last: int) -> None:
    """Raises `inference.request_unfit` unless the encoder has the layer: counted from the end, 1 is the last."""
    if not first <= clip_skip <= last:
        raise DarkroomError(
            "inference.request_unfit",
            f"the text encoder of this model has the layers {first} to {last} from the end; clipSkip must be one of them, not {clip_skip}",
            field="input.clipSkip",
        )
