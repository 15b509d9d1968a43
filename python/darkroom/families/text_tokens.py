"""Tokenizers of the large text encoders (T5, Qwen): loaded whole or refused, what they read of a prompt, and what they
leave out."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel

from darkroom import faults
from darkroom.errors import DarkroomError

# No tokenizer that hears prompts takes this for one unknown token.
PROBE = "a red circle"


class TextTokenizer:
    """`kind`: the class of transformers; `rows`: how many tokens its text encoder has an embedding for; `length`:
    tokens that a text may have, its marks and template included; `wrap`: puts a prompt into its family's template.

    Raises `model.corrupt` for a tokenizer that would not hear a prompt, or whose tokens the encoder does not have.
    """

    def __init__(self, folder: str, kind: Any, rows: int, length: int, wrap: Callable[[Any, str], str] = lambda _, text: text):
        self._folder, self._length, self._wrap = folder, length, wrap
        if not os.path.isdir(folder):
            raise self._corrupt("is missing")
        try:
            self._tokenizer = kind.from_pretrained(folder, local_files_only=True)
            # A prompt is read from its beginning, whatever the file says.
            self._tokenizer.truncation_side = "right"
            ids = self._tokenizer.get_vocab()
            heard = self._tokenizer(PROBE, add_special_tokens=False)["input_ids"]
            # What the template says before a prompt, in letters.
            self._begin = max(0, wrap(self._tokenizer, PROBE).find(PROBE))
            self._wrapped(PROBE)
        except DarkroomError:
            raise
        # Whatever broken files make the library throw; it throws bare Exceptions too.
        except Exception as error:
            if faults.is_out_of_memory(error):
                raise
            raise self._corrupt(f"cannot be read: {type(error).__name__}: {error}") from error
        if max(ids.values()) >= rows:
            raise self._corrupt(f"has ids up to {max(ids.values())}; its text encoder has {rows}")
        if not heard or all(token == self._tokenizer.unk_token_id for token in heard):
            raise self._corrupt(f"does not hear {PROBE!r}")
        if self._tokenizer.pad_token_id is None:
            raise self._corrupt("has no pad_token in tokenizer_config.json")

    def check_letters(self) -> None:
        """Of a byte-level tokenizer: every byte has its letter. Raises `model.corrupt`."""
        lacking = set(ByteLevel.alphabet()) - self._tokenizer.get_vocab().keys()
        if lacking:
            raise self._corrupt(f"lacks {len(lacking)} of the 256 letters of its vocabulary")

    def id_of(self, word: str) -> int | None:
        """Of a token of the vocabulary; None where there is no such token."""
        return self._tokenizer.get_vocab().get(word)

    def within(self, before: str, after: str, length: int) -> TextTokenizer:
        """The same one for prompts between these texts; a prompt and what is after it may have `length` tokens."""
        other = copy.copy(self)
        other._wrap = lambda _, text: before + text + after
        other._begin = len(before)
        other._length = len(self._tokenizer(before)["input_ids"]) + length
        return other

    def read(self, prompt: str, padded: bool = True) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        """(token ids, mask, what was read), the tensors [1, tokens]; `padded`: to the whole length. Of the prompt
        {read, dropped} count tokens, those of the template are none; `dropped_text` is what the dropped ones stand for.
        """
        text = self._wrapped(prompt)
        begin, end = self._begin, self._begin + len(prompt)
        padding = {"padding": "max_length"} if padded else {}
        given = self._tokenizer(text, max_length=self._length, truncation=True, return_tensors="pt", **padding)
        whole = self._tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        # The marks that a tokenizer adds stand at the end and stay.
        room = self._length - self._tokenizer.num_special_tokens_to_add()
        own = [(index, start) for index, (start, stop) in enumerate(whole) if start < end and stop > max(begin, start)]
        dropped = [start for index, start in own if index >= room]
        dropped_text = text[max(begin, dropped[0]) : end] if dropped else ""
        heard = {"read": len(own) - len(dropped), "dropped": len(dropped), "dropped_text": dropped_text}
        return given["input_ids"], given["attention_mask"], heard

    def _wrapped(self, prompt: str) -> str:
        """The text that is read; the prompt stands in it where every prompt does."""
        text = self._wrap(self._tokenizer, prompt)
        if not text.startswith(prompt, self._begin):
            raise self._corrupt("has a chat template that does not hold the prompt as it is")
        return text

    def _corrupt(self, problem: str) -> DarkroomError:
        return DarkroomError("model.corrupt", f"the tokenizer in {self._folder} {problem}", field="model.path")


def chat(**options: Any) -> Callable[[Any, str], str]:
    """A `wrap`: the prompt as what a user says, in the tokenizer's own chat template with these options."""

    def wrap(tokenizer: Any, prompt: str) -> str:
        messages = [{"role": "user", "content": prompt}]
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **options)

    return wrap
