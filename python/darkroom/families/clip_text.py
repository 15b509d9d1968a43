"""The tokenizer of a CLIP text encoder: loaded whole or refused, and what of a text fits into the encoder's window.

Byte-level pair encoding, as in Radford et al. 2021, "Learning Transferable Visual Models From Natural Language
Supervision", arXiv 2103.00020: 256 letters, the same at the end of a word, one word for each merge, and two marks for
start and end.
"""

from __future__ import annotations

import json
import os
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from darkroom import faults
from darkroom.errors import DarkroomError

END_OF_WORD = "</w>"
# Start, at least one token of the text, end.
SHORTEST_WINDOW = 3
# Embeddings are padded to a multiple of at most so many rows, for the sake of matrix kernels.
MOST_PADDING = 128


class ClipTokenizer:
    """`config`: the text encoder's. Raises `model.corrupt` for a tokenizer that would not hear a prompt, or whose
    tokens the encoder does not have."""

    def __init__(self, folder: str, config: Any):
        there = {name for name in ("vocab.json", "merges.txt", "tokenizer.json") if os.path.isfile(os.path.join(folder, name))}
        if "tokenizer.json" not in there and len(there) < 2:
            raise _corrupt(folder, "has neither tokenizer.json nor vocab.json with merges.txt")
        try:
            self._tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
            described = json.loads(self._tokenizer.backend_tokenizer.to_str())["model"]
        # Whatever broken files make the library throw; it throws bare Exceptions too.
        except Exception as error:
            if faults.is_out_of_memory(error):
                raise
            raise _corrupt(folder, f"cannot be read: {type(error).__name__}: {error}") from error
        _check_words(folder, self._tokenizer, described)
        _check_ids(folder, self._tokenizer, config.vocab_size)
        self._window = _window(folder, self._tokenizer.model_max_length, config.max_position_embeddings)
        # A prompt is read from its beginning, whatever the file says.
        self._tokenizer.truncation_side = "right"

    def read(self, text: str) -> tuple[torch.Tensor, dict[str, Any]]:
        """(token ids [1, window], what was read): {read, dropped} count tokens of the text, without the two marks;
        `dropped_text` is the part of the text that the dropped ones stand for."""
        given = self._tokenizer(text, padding="max_length", max_length=self._window, truncation=True, return_tensors="pt")
        whole = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        spans = whole["offset_mapping"]
        read = min(len(spans), self._window - 2)
        dropped_text = text[spans[read][0] : spans[-1][1]] if read < len(spans) else ""
        return given["input_ids"], {"read": read, "dropped": len(spans) - read, "dropped_text": dropped_text}


def _check_words(folder: str, tokenizer: Any, described: dict[str, Any]) -> None:
    """Every byte has its letter, and every longer word the merge that makes it: without them a text is not heard."""
    words = described.get("vocab")
    if described.get("type") != "BPE" or not isinstance(words, dict):
        raise _corrupt(folder, f"is of type {described.get('type')}, not BPE")
    alphabet = ByteLevel.alphabet()
    letters = {*alphabet, *(letter + END_OF_WORD for letter in alphabet)}
    lacking = letters - words.keys()
    if lacking:
        raise _corrupt(folder, f"lacks {len(lacking)} of the {len(letters)} letters of its vocabulary")
    made = {"".join(merge if isinstance(merge, list) else merge.split(" ")) for merge in described["merges"]}
    unmade = words.keys() - letters - made - tokenizer.get_added_vocab().keys()
    if unmade:
        raise _corrupt(
            folder, f"has no merge for {len(unmade)} of its {len(words)} words, such as {min(unmade)!r}: merges.txt is not whole"
        )


def _check_ids(folder: str, tokenizer: Any, rows: int) -> None:
    """`rows`: how many tokens the encoder has an embedding for."""
    ids = tokenizer.get_vocab()
    if max(ids.values()) >= rows or len(ids) <= rows - MOST_PADDING:
        raise _corrupt(folder, f"has {len(ids)} words with ids up to {max(ids.values())}; its text encoder has {rows}")


def _window(folder: str, longest: Any, positions: int) -> int:
    if not isinstance(longest, int) or isinstance(longest, bool) or longest < SHORTEST_WINDOW:
        raise _corrupt(folder, f"has a model_max_length of {longest!r} in tokenizer_config.json, not a number from {SHORTEST_WINDOW} on")
    return min(longest, positions)


def _corrupt(folder: str, problem: str) -> DarkroomError:
    return DarkroomError("model.corrupt", f"the tokenizer in {folder} {problem}", field="model.path")
