"""The world the family draws: flat shapes in eight colours on a plain background. Needs numpy only.

A scene has no, one or two things. A thing has a colour, a shape and a size; two things stand left, right,
above or below of one another. Colours differ between things and background, so colour identifies a thing in a
picture.

Every combination occurs in training: with this few concepts, combinations that are held out do not generalise
at this model size, and the family is a test instrument, not a study of composition.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

SIDE = 128
"""Native picture side in pixels."""

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
PALETTE = np.array(
    [
        (220, 38, 38),
        (245, 130, 20),
        (250, 215, 40),
        (30, 150, 60),
        (35, 80, 215),
        (130, 50, 175),
        (245, 245, 245),
        (22, 22, 22),
    ],
    np.float32,
)
"""RGB of each colour, 0 to 255, shape [8, 3]."""

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
SIZES = ("small", "large")
RADII = ((17.0, 21.0), (23.0, 28.0))
"""Range of the radius in pixels for each size."""
SIZE_BOUNDARY = 22.0
"""A thing of a larger radius than this counts as large."""

INVERSE = {"left": "right", "right": "left", "above": "below", "below": "above"}
RELATIONS = tuple(INVERSE)

EXTENTS = {
    "circle": (1.0, 1.0, 1.0, 1.0),
    "square": (0.88, 0.88, 0.88, 0.88),
    "triangle": (1.01, 1.01, 1.25, 0.5),
    "star": (0.96, 0.96, 1.0, 0.82),
    "cross": (1.0, 1.0, 1.0, 1.0),
    "ring": (1.0, 1.0, 1.0, 1.0),
}
"""How far each shape reaches from its centre to the left, right, top and bottom, in radii."""

MARGIN = 2.0
"""Least distance in pixels between a thing and the border."""
GAP = 6.0
"""Least distance in pixels between two things along the axis of their relation."""
CROSS_LIMIT = 0.7
"""Largest offset across the axis of a relation, as a share of the offset along it: keeps the relation
unambiguous.
"""

EMPTY_SHARE, SINGLE_SHARE = 0.10, 0.40
"""Shares of scenes with nothing and with one thing; the rest has two."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One shape. `colour` and `shape` index COLOURS and SHAPES, `size` indexes SIZES; x, y, radius are in
    pixels.
    """

    colour: int
    shape: int
    size: int
    x: float
    y: float
    radius: float


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture's content. `relation` says where the first thing stands, seen from the second; None unless
    there are two.
    """

    background: int
    things: tuple[Thing, ...]
    relation: str | None = None
    width: int = SIDE
    height: int = SIDE


def random_scene(rng: random.Random, count: int | None = None, width: int = SIDE, height: int = SIDE) -> Scene:
    """Draw a scene with `count` things (0 to 2; by default drawn by the training shares) in a picture of
    width x height pixels.
    """
    if count is None:
        share = rng.random()
        count = 0 if share < EMPTY_SHARE else 1 if share < EMPTY_SHARE + SINGLE_SHARE else 2
    background, *colours = rng.sample(range(len(COLOURS)), count + 1)
    kinds = []
    for colour in colours:
        size = rng.randrange(2)
        kinds.append((colour, rng.randrange(len(SHAPES)), size, rng.uniform(*RADII[size])))
    reach = [tuple(part * radius for part in EXTENTS[SHAPES[shape]]) for _, shape, _, radius in kinds]
    if count == 2:
        relation = rng.choice(RELATIONS)
        places = _place_pair(rng, reach, relation, width, height)
    else:
        relation = None
        places = [
            (
                rng.uniform(MARGIN + left, width - MARGIN - right),
                rng.uniform(MARGIN + top, height - MARGIN - bottom),
            )
            for left, right, top, bottom in reach
        ]
    things = tuple(Thing(colour, shape, size, x, y, radius) for (colour, shape, size, radius), (x, y) in zip(kinds, places, strict=True))
    return Scene(background, things, relation, width, height)


def _place_pair(rng: random.Random, reach: list[tuple[float, ...]], relation: str, width: int, height: int) -> list[tuple[float, float]]:
    """Centres of two things that stand in `relation`, by rejection on the offset across the relation's
    axis.
    """
    horizontal = relation in ("left", "right")
    first, second = (0, 1) if relation in ("left", "above") else (1, 0)
    low, high, cross_low, cross_high = (0, 1, 2, 3) if horizontal else (2, 3, 0, 1)
    length, breadth = (width, height) if horizontal else (height, width)
    spans = [reach[first][low] + reach[first][high], reach[second][low] + reach[second][high]]
    slack = length - 2 * MARGIN - sum(spans) - GAP
    along, across = [0.0, 0.0], [0.0, 0.0]
    while True:
        near, far = sorted((rng.uniform(0, slack), rng.uniform(0, slack)))
        along[first] = MARGIN + near + reach[first][low]
        along[second] = MARGIN + far + spans[0] + GAP + reach[second][low]
        for index in (0, 1):
            across[index] = rng.uniform(MARGIN + reach[index][cross_low], breadth - MARGIN - reach[index][cross_high])
        if abs(across[0] - across[1]) <= CROSS_LIMIT * abs(along[0] - along[1]):
            return list(zip(along, across, strict=True)) if horizontal else list(zip(across, along, strict=True))


def pack(scenes: Iterable[Scene]) -> np.ndarray:
    """Scenes as float32 [N, 12]: background, count, then colour, shape, x, y, radius of two things (zeros
    where absent).
    """
    rows = []
    for scene in scenes:
        row = [float(scene.background), float(len(scene.things))]
        for thing in scene.things:
            row += [thing.colour, thing.shape, thing.x, thing.y, thing.radius]
        rows.append(row + [0.0] * (12 - len(row)))
    return np.array(rows, np.float32).reshape(-1, 12)


def signed_distance(shape: str, x: Any, y: Any, xp: ModuleType) -> Any:
    """Signed distance to the outline of a shape of radius 1, y pointing down, negative inside.

    x and y are arrays of `xp`, which is numpy or torch. The forms are those of Inigo Quilez's list of 2D
    distance functions; square, triangle and cross use the cheaper bound by maximum, which is exact inside and
    near edges.
    """
    larger, smaller, size = xp.maximum, xp.minimum, xp.abs
    if shape == "circle":
        return xp.sqrt(x * x + y * y) - 1
    if shape == "square":
        return larger(size(x), size(y)) - 0.88
    if shape == "triangle":
        return larger(y - 0.50, size(x) * 0.866 - (y + 0.15) * 0.5 - 0.55)
    if shape == "ring":
        return size(xp.sqrt(x * x + y * y) - 0.76) - 0.24
    if shape == "cross":
        return smaller(larger(size(x) - 1, size(y) - 0.34), larger(size(x) - 0.34, size(y) - 1))
    if shape != "star":
        raise ValueError(f"unknown shape: {shape}")
    # Fold the plane into one tenth of the five-pointed star, then measure to the one edge that is left.
    tenth = math.pi / 5
    around = xp.atan2(x, -y) if hasattr(xp, "atan2") else xp.arctan2(x, -y)
    angle = tenth - size(xp.remainder(around, 2 * tenth) - tenth)
    radius = xp.sqrt(x * x + y * y)
    px, py = radius * xp.cos(angle), radius * xp.sin(angle)
    bx, by = 0.42 * math.cos(tenth), 0.42 * math.sin(tenth)
    return ((px - 1) * by - py * (bx - 1)) / math.hypot(by, bx - 1)
