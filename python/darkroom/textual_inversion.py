"""Textual inversion: words of a prompt that are vectors of their own, read from files that training made.

Gal et al. 2022, "An Image is Worth One Word: Personalizing Text-to-Image Generation using Textual Inversion", arXiv
2208.01618. A file holds as many vectors as the word takes places, for one text encoder or, by `clip_l` and `clip_g`,
for the two of Stable Diffusion XL.

To the tokenizer such a word is a run of numbers below 0, which no vocabulary has: -1 is the first vector of the table,
-2 the second. The encoder's lookup puts the vectors in their places, so neither vocabulary nor weights change.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch

from darkroom import graphs
from darkroom.adapters import read_pinned
from darkroom.errors import DarkroomError
from darkroom.families.clip_text import ClipTokenizer
from darkroom.tools import Tools


class Listener(NamedTuple):
    """A text encoder that may hear words of one's own, by its part's name."""

    part: str
    encoder: Any
    tokenizer: ClipTokenizer


# The tensor of a part in files that hold those of several; else there is one tensor, whatever its name.
_OF_PART = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}


@contextmanager
def heard(model: Any, tools: Tools) -> Generator[None]:
    """While this lasts, the `listeners` of a model hear the request's `embeddings`, each {model: {id, path, body_hash},
    word}. Nothing where there are none.

    Raises as `adapters.read_pinned`; `inference.embedding_unfit`, which names the embedding, for a model without a
    listener, vectors of another width, and more vectors than a prompt has places.
    """
    wanted = tools.input.get("embeddings", ())
    listeners: Sequence[Listener] = getattr(model, "listeners", ())
    if wanted and not listeners:
        raise _unfit(wanted[0], "this model hears no words of one's own: only Stable Diffusion 1, 2 and XL do")
    read = [(each, read_pinned(each["model"], tools.runtime.roots["models"])[0]) for each in wanted]
    with ExitStack() as stack:
        for listener in listeners if read else ():
            words: dict[str, list[int]] = {}
            rows: list[torch.Tensor] = []
            places = 0
            for each, tensors in read:
                vectors = _vectors(each, tensors, listener, len(listeners))
                words[each["word"]] = [-place - 1 for place in range(places, places + len(vectors))]
                places += len(vectors)
                rows.append(vectors)
            lookup = listener.encoder.get_input_embeddings()
            stack.enter_context(graphs.eagerly(listener.encoder))
            stack.enter_context(_looked_up(lookup, torch.cat(rows)))
            stack.enter_context(listener.tokenizer.knowing(words))
        yield


def _vectors(each: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], listener: Listener, listeners: int) -> torch.Tensor:
    """[places, width] fp32 for one encoder."""
    own = _OF_PART[listener.part]
    found = tensors.get(own)
    if found is None and listeners == 1 and not set(_OF_PART.values()) & tensors.keys() and len(tensors) <= 2:
        found = tensors.get("emb_params", next(iter(tensors.values())))
    if found is None:
        raise _unfit(each, f"it has no vectors {own} for the {listener.part} of this model, but {', '.join(sorted(tensors)[:3])}")
    vectors = found.float().reshape(-1, found.shape[-1]) if found.dim() in (1, 2) else found.float()
    width = listener.encoder.config.hidden_size
    if vectors.dim() != 2 or vectors.shape[1] != width:
        raise _unfit(each, f"its vectors are {list(found.shape)}, and those of the {listener.part} of this model have {width} numbers")
    if len(vectors) > listener.tokenizer.room:
        raise _unfit(each, f"it takes {len(vectors)} places, and a prompt of this model has {listener.tokenizer.room}")
    return vectors


@contextmanager
def _looked_up(lookup: torch.nn.Module, table: torch.Tensor) -> Generator[None]:
    """While this lasts, `lookup` gives row -n - 1 of the table for a number n below 0."""
    asked: list[torch.Tensor] = []

    def before(_: torch.nn.Module, given: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        asked.append(given[0])
        return (given[0].clamp(min=0),)

    def after(_: torch.nn.Module, given: tuple[torch.Tensor], made: torch.Tensor) -> torch.Tensor:
        ids = asked.pop()
        own = ids < 0
        made[own] = table.to(made.device, made.dtype)[-ids[own] - 1]
        return made

    hooks = [lookup.register_forward_pre_hook(before), lookup.register_forward_hook(after)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _unfit(each: Mapping[str, Any], problem: str) -> DarkroomError:
    return DarkroomError("inference.embedding_unfit", f"embedding {each['model']['id']}: {problem}", field="input.embeddings")
