"""What people write about a scene: templates with synonyms, omissions and loose order. Needs numpy only."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .world import COLOURS, INVERSE, SHAPES, SIDE, SIZES, Scene, Thing, random_scene

# A word listed twice is drawn twice as often.
SHAPE_WORDS = {
    "circle": ("circle", "circle", "disc"),
    "square": ("square", "square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "cross": ("cross", "cross", "plus"),
    "ring": ("ring", "ring", "donut"),
}
SIZE_WORDS = {"small": ("small", "small", "little"), "large": ("large", "large", "big")}
RELATION_WORDS = {
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
PLACE_WORDS = {
    "left": ("on the left", "on the right"),
    "right": ("on the right", "on the left"),
    "above": ("at the top", "at the bottom"),
    "below": ("at the bottom", "at the top"),
}
EMPTY_TEMPLATES = (
    "a plain {} background",
    "plain {} background",
    "{} background",
    "nothing on {}",
    "an empty {} background",
    "only {}",
)
BACKGROUND_TEMPLATES = (
    "on {}",
    "on {a} {} background",
    "against {a} {} background",
    "on a plain {} background",
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text to draw and the scene it was written from. `sized` says which things' sizes the text names."""

    text: str
    scene: Scene
    sized: tuple[bool, ...]


def vocabulary() -> dict[str, list[str]]:
    """The words a user can draw with, by kind, in the order of the world."""

    def unique(words: tuple[tuple[str, ...], ...]) -> list[str]:
        return list(dict.fromkeys(word for group in words for word in group))

    return {
        "colours": list(COLOURS),
        "shapes": unique(tuple(SHAPE_WORDS[shape] for shape in SHAPES)),
        "sizes": unique(tuple(SIZE_WORDS[size] for size in SIZES)),
        "relations": unique(tuple(RELATION_WORDS.values())),
    }


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _on_background(rng: random.Random, colour: str) -> str:
    return rng.choice(BACKGROUND_TEMPLATES).format(colour, a=_article(colour))


def _with_background(rng: random.Random, core: str, colour: str) -> str:
    template = rng.randrange(6)
    if template <= 2:
        return f"{core} {_on_background(rng, colour)}"
    if template == 3:
        return f"{core}, {colour} background"
    return f"{colour} background{' with' if template == 4 else ','} {core}"


def _describe(
    rng: random.Random,
    thing: Thing,
    *,
    sized: bool,
    coloured: bool,
    shaped: bool,
    article: bool,
    trailing: bool = False,
) -> str:
    """One thing in words; `trailing` puts the colour after the noun ("star, red")."""
    colour, size = COLOURS[thing.colour], rng.choice(SIZE_WORDS[SIZES[thing.size]])
    noun = rng.choice(SHAPE_WORDS[SHAPES[thing.shape]] if shaped else ("shape", "object"))

    def led(words: str) -> str:
        return f"{_article(words)} {words}" if article else words

    if trailing and coloured:
        if rng.random() < 0.5:
            return f"{led(noun)}, {colour}" + (f", {size}" if sized else "")
        return f"{led(f'{size} {noun}' if sized else noun)}, {colour}"
    return led(" ".join(([size] if sized else []) + ([colour] if coloured else []) + [noun]))


def write(rng: random.Random, scene: Scene, full: bool = False) -> Prompt:
    """Caption a scene. `full` names every colour, shape, relation and the background, as the evaluation
    needs.
    """

    def omit(share: float) -> bool:
        return not full and rng.random() < share

    background = COLOURS[scene.background]
    if not scene.things:
        return Prompt(rng.choice(EMPTY_TEMPLATES).format(background), scene, ())
    sized = tuple(rng.random() < 0.45 for _ in scene.things)
    bare = omit(0.12)
    if len(scene.things) == 1:
        core = _describe(
            rng,
            scene.things[0],
            sized=sized[0],
            coloured=not omit(0.05),
            shaped=not omit(0.05),
            article=rng.random() < 0.7,
            trailing=rng.random() < 0.15,
        )
    else:
        core = _describe_pair(rng, scene, sized, omit)
    return Prompt(core if bare else _with_background(rng, core, background), scene, sized)


def _describe_pair(rng: random.Random, scene: Scene, sized: tuple[bool, ...], omit) -> str:
    article = rng.random() < 0.7
    parts = [
        _describe(rng, thing, sized=named, coloured=not omit(0.04), shaped=not omit(0.04), article=article)
        for thing, named in zip(scene.things, sized, strict=True)
    ]
    relation = scene.relation
    if rng.random() < 0.5:
        parts, relation = parts[::-1], INVERSE[relation]
    if omit(0.10):
        return f"{parts[0]} and {parts[1]}"
    if rng.random() < 0.25:
        places = PLACE_WORDS[relation]
        return f"{parts[0]} {places[0]}{rng.choice((' and ', ', '))}{parts[1]} {places[1]}"
    return f"{parts[0]} {rng.choice(RELATION_WORDS[relation])} {parts[1]}"


def write_vague(rng: random.Random, scene: Scene) -> str:
    """Caption without shapes and places: a ControlNet that reads everything from the text learns to ignore
    its hint.
    """
    background = COLOURS[scene.background]
    colours = [COLOURS[thing.colour] for thing in scene.things]
    rng.shuffle(colours)
    if not colours:
        return f"{background} background"
    tail = "" if rng.random() < 0.3 else rng.choice((" on {}", " on {a} {} background", ", {} background"))
    tail = tail.format(background, a=_article(background))
    if len(colours) == 1:
        forms = ("{a} {0} shape", "one shape, {0}", "something {0}", "{0}")
        return rng.choice(forms).format(colours[0], a=_article(colours[0])) + tail
    return rng.choice(("two shapes, {} and {}", "{} and {} shapes", "{} and {}", "shapes in {} and {}")).format(*colours) + tail


def prompts(seed: int, singles: int, pairs: int, empties: int = 0, width: int = SIDE, height: int = SIDE) -> list[Prompt]:
    """Full captions of random scenes: `singles` with one thing, then `pairs` with two, then `empties` with
    none.
    """
    rng = random.Random(seed)
    counts = [1] * singles + [2] * pairs + [0] * empties
    return [write(rng, random_scene(rng, count, width, height), full=True) for count in counts]


FIXED = (
    "a red circle left of a blue square on yellow",
    "a large yellow star on a blue background",
    "a small green ring above a purple triangle on white",
    "white cross, black background",
    "a small orange square right of a large green circle on black",
    "a plain purple background",
    "a black donut below a red star against a white background",
    "red circle",
)
"""Prompts written by hand that lead the contact sheet."""


def sheet_texts() -> list[str]:
    """The 64 fixed prompts of the contact sheet."""
    return [*FIXED, *(prompt.text for prompt in prompts(64, 24, 28, 4))]
