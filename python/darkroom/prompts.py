"""Prompts as people write them: which words count more, and where a chunk of tokens ends.

The grammar is that of AUTOMATIC1111's web UI (`modules/prompt_parser.py`), docs/prompts.md has it whole: `(a)` weighs
1.1 times as much, `[a]` as much less, `(a:1.3)` 1.3 times; brackets lie in brackets, one that is not closed ends with
the text; `\\(` is a letter; `BREAK` begins a new chunk.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from darkroom.errors import DarkroomError

# A bracket counts its words so many times as much; a square one so many times less.
STRESS = 1.1
# The weight of a word may be at most this, or as much below 0. src/workflows/built-in/prompt-input.ts says the same.
MOST_WEIGHT = 10.0

_SIGNS = re.compile(r"\\[\\()\[\]]|[(\[]|:\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*\)|[)\]]|[^\\()\[\]:]+|[:\\]")
_BREAK = re.compile(r"\s*\bBREAK\b\s*")


@dataclass
class Part:
    """Words of one weight."""

    text: str
    weight: float = 1.0


# A text as the chunks that its author asked for, each of some parts.
Sections = list[list[Part]]


def sections_of(request: Mapping[str, Any], field: str) -> Sections:
    """The text of `field`, `prompt` or `negative_prompt`, read as the request's `prompt_syntax` says; `plain` or none
    is one part of weight 1. Raises `inference.request_unfit` for a weight beyond MOST_WEIGHT."""
    text = request[field]
    if request.get("prompt_syntax", "plain") == "plain":
        return [[Part(text)]]
    sections = parse(text)
    for part in (part for section in sections for part in section):
        if abs(part.weight) > MOST_WEIGHT:
            name = "negativePrompt" if field == "negative_prompt" else field
            raise DarkroomError(
                "inference.request_unfit",
                f"{part.text.strip()[:80]!r} has the weight {part.weight:g}; it must be from -{MOST_WEIGHT:g} to {MOST_WEIGHT:g}",
                field=f"input.{name}",
            )
    return sections


def parse(text: str) -> Sections:
    """A text in the grammar; every text is one."""
    # None is a BREAK.
    parts: list[Part | None] = []
    rounds: list[int] = []
    squares: list[int] = []

    def weigh(start: int, times: float) -> None:
        for part in parts[start:]:
            if part is not None:
                part.weight *= times

    for match in _SIGNS.finditer(text):
        sign, weight = match.group(0), match.group(1)
        if len(sign) == 2 and sign[0] == "\\":
            parts.append(Part(sign[1]))
        elif sign == "(":
            rounds.append(len(parts))
        elif sign == "[":
            squares.append(len(parts))
        elif weight is not None and rounds:
            weigh(rounds.pop(), float(weight))
        elif sign == ")" and rounds:
            weigh(rounds.pop(), STRESS)
        elif sign == "]" and squares:
            weigh(squares.pop(), 1 / STRESS)
        else:
            first, *rest = _BREAK.split(sign)
            parts.append(Part(first))
            for words in rest:
                parts += [None, Part(words)]
    for start in rounds:
        weigh(start, STRESS)
    for start in squares:
        weigh(start, 1 / STRESS)
    return _joined(parts)


def _joined(parts: list[Part | None]) -> Sections:
    """Neighbours of one weight are one part: words that an escape or a bracket cut are whole again."""
    sections: Sections = [[]]
    for part in parts:
        if part is None:
            sections.append([])
        elif part.text and sections[-1] and sections[-1][-1].weight == part.weight:
            sections[-1][-1].text += part.text
        elif part.text:
            sections[-1].append(part)
    return sections
