"""The tokenizer of a CLIP text encoder: loaded whole or refused; a text as chunks that fit into the encoder's window.

Byte-level pair encoding, as in Radford et al. 2021, "Learning Transferable Visual Models From Natural Language
Supervision", arXiv 2103.00020: 256 letters, the same at the end of a word, one word for each merge, and two marks for
start and end.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from darkroom import faults
from darkroom.errors import DarkroomError
from darkroom.prompts import Sections

END_OF_WORD = "</w>"
# Start, at least one token of the text, end.
SHORTEST_WINDOW = 3
# Embeddings are padded to a multiple of at most so many rows, for the sake of matrix kernels.
MOST_PADDING = 128
# How far from the end of a full chunk a comma may end it.
BACKTRACK = 20


@dataclass(frozen=True)
class Chunk:
    """What the encoder takes at once: `tokens`, [1, window], and how much each counts, `weights`, [window] fp32."""

    tokens: torch.Tensor
    weights: torch.Tensor

    @property
    def is_weighted(self) -> bool:
        return bool((self.weights != 1).any())


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
        self.window = _window(folder, self._tokenizer.model_max_length, config.max_position_embeddings)
        # A prompt is read from its beginning, whatever the file says.
        self._tokenizer.truncation_side = "right"
        self._comma = self._tokenizer.get_vocab().get("," + END_OF_WORD)
        self._words: Mapping[str, Sequence[int]] = {}
        # Of the first number of each such word: how many it has.
        self._places: Mapping[int, int] = {}

    @property
    def room(self) -> int:
        """Tokens of a text that fit into one window, between the two marks."""
        return self.window - 2

    def chunks(self, sections: Sections) -> list[list[tuple[int, float]]]:
        """(token, weight) of a text, at most `room` in each chunk: a new one begins with each section, and where one is
        full. What stands behind a comma among the last BACKTRACK tokens of a full one goes on in the next, as in
        AUTOMATIC1111's web UI (`modules/sd_hijack_clip.py`)."""
        made: list[list[tuple[int, float]]] = []
        held: list[tuple[int, float]] = []
        for number, section in enumerate(sections):
            if number > 0:
                made.append(held)
                held = []
            comma = None
            for part in section:
                for token in self._ids(part.text):
                    # A word of several places stays whole where it can.
                    if len(held) + self._places.get(token, 1) > self.room:
                        is_near = comma is not None and token != self._comma and self.room - comma <= BACKTRACK
                        end = comma + 1 if comma is not None and is_near else self.room
                        made.append(held[:end])
                        held, comma = held[end:], None
                    if token == self._comma:
                        comma = len(held)
                    held.append((token, part.weight))
        return [*made, held] if held or not made else made

    def count(self, text: str) -> int:
        """How many tokens a text has."""
        return len(self._ids(text))

    @contextmanager
    def knowing(self, words: Mapping[str, Sequence[int]]) -> Generator[None]:
        """While this lasts, each of these words, in any case, is the numbers that stand for it: below 0, which the
        vocabulary has not."""
        before = self._words, self._places
        self._words = {word.lower(): numbers for word, numbers in words.items()}
        self._places = {numbers[0]: len(numbers) for numbers in words.values()}
        try:
            yield
        finally:
            self._words, self._places = before

    def _ids(self, text: str) -> list[int]:
        """The tokens of a text, between whose pieces the `words` stand."""
        if not self._words:
            return self._tokenizer(text, add_special_tokens=False)["input_ids"]
        # The longest first: one may begin with another.
        names = "|".join(re.escape(word) for word in sorted(self._words, key=len, reverse=True))
        ids: list[int] = []
        for at, piece in enumerate(re.split(rf"(?<![A-Za-z0-9_])({names})(?![A-Za-z0-9_])", text, flags=re.IGNORECASE)):
            ids += self._words[piece.lower()] if at % 2 else self._tokenizer(piece, add_special_tokens=False)["input_ids"]
        return ids

    def framed(self, chunk: Sequence[tuple[int, float]]) -> Chunk:
        """A chunk as the encoder takes it: between its marks, filled up to the window."""
        begin, end, pad = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id, self._tokenizer.pad_token_id
        filling = self.room - len(chunk)
        tokens = [begin, *(token for token, _ in chunk), end, *[pad] * filling]
        weights = [1.0, *(weight for _, weight in chunk), 1.0, *[1.0] * filling]
        return Chunk(torch.tensor([tokens]), torch.tensor(weights, dtype=torch.float32))

    def empty(self) -> Chunk:
        """That of the empty text."""
        return self.framed([])

    def read(self, text: str) -> tuple[torch.Tensor, dict[str, Any]]:
        """(token ids [1, window], what was read) of the one window that some families hear: {read, dropped} count
        tokens of the text, without the two marks; `dropped_text` is the part of the text that the dropped ones stand
        for."""
        given = self._tokenizer(text, padding="max_length", max_length=self.window, truncation=True, return_tensors="pt")
        whole = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        spans = whole["offset_mapping"]
        read = min(len(spans), self.room)
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
