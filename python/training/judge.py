"""The judge: reads a picture of the family with plain image processing and compares it with what was asked.

Nearest palette colour for each pixel; background = most frequent colour of the border; opening with a 3 x 3
square for each colour; 4-connected components of at least 120 pixels; shape = best intersection over union
with templates stretched to the component's box; relation from the centroids. On rendered ground truth it is
right every time (a test holds it to that), so what it misses in a generated picture is the model's fault.

Needs numpy only, so that tests of the product can use it without PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from .captions import Prompt
from .world import COLOURS, PALETTE, SHAPES, SIZE_BOUNDARY, Scene, signed_distance

LEAST_AREA = 120
"""Components with fewer pixels are noise."""
TEMPLATE_RADII = (18, 25)
ATTRIBUTES = ("background", "count", "colour", "shape", "binding", "relation", "size", "all")
BLACK = COLOURS.index("black")


@dataclass(frozen=True, slots=True)
class Found:
    """A thing seen in a picture: colour and shape as indices, centroid, radius and area in pixels, fit of the
    template 0 to 1.
    """

    colour: int
    shape: int
    x: float
    y: float
    radius: float
    area: int
    fit: float


@dataclass(frozen=True, slots=True)
class Sight:
    """What the judge sees in a picture, largest thing first."""

    background: int
    things: tuple[Found, ...]


@dataclass(slots=True)
class Grade:
    """Verdict on one picture. `marks` maps attributes to right or wrong; what the prompt did not ask for is
    absent.

    `all` means background, count, binding of colours to shapes, and relation. `shapes` lists pairs (asked,
    seen), seen -1 where nothing was found.
    """

    count: int
    marks: dict[str, bool]
    relation: str | None = None
    shapes: list[tuple[int, int]] = field(default_factory=list)


Table = dict[int, dict[str, tuple[int, int]]]
"""Count of things asked for -> attribute -> (right, asked)."""


def segment(picture: np.ndarray, palette: np.ndarray = PALETTE) -> np.ndarray:
    """Nearest palette colour of each pixel: uint8 [H, W, 3] -> int8 [H, W]."""
    flat = picture.reshape(-1, 3).astype(np.float32)
    distance = (palette * palette).sum(1)[None] - 2 * flat @ palette.T
    return distance.argmin(1).reshape(picture.shape[:2]).astype(np.int8)


def background_of(labels: np.ndarray) -> int:
    """Most frequent label in the outer two pixels of [H, W]."""
    border = np.concatenate([labels[:2].ravel(), labels[-2:].ravel(), labels[:, :2].ravel(), labels[:, -2:].ravel()])
    return int(np.bincount(border, minlength=len(COLOURS)).argmax())


def opened(labels: np.ndarray, background: int) -> np.ndarray:
    """Morphological opening with a 3 x 3 square for each label; background and what the opening removes
    become -1.
    """
    height, width = labels.shape
    padded = np.pad(labels, 1, mode="edge")
    windows = [(dy, dx) for dy in range(3) for dx in range(3)]
    eroded = np.ones((height, width), bool)
    for dy, dx in windows:
        eroded &= padded[dy : dy + height, dx : dx + width] == labels
    core = np.pad(eroded, 1)
    kept = np.zeros((height, width), bool)
    for dy, dx in windows:
        kept |= core[dy : dy + height, dx : dx + width] & (padded[dy : dy + height, dx : dx + width] == labels)
    return np.where(kept & (labels != background), labels, -1).astype(np.int8)


def _templates() -> list[tuple[int, np.ndarray]]:
    """(shape, mask) at two radii, opened and cropped: small stars lose their tips to the opening, so the
    template must too.
    """
    templates = []
    for index, shape in enumerate(SHAPES):
        for radius in TEMPLATE_RADII:
            axis = (np.arange(80) + 0.5 - 40) / radius
            inside = (signed_distance(shape, *np.meshgrid(axis, axis), np) <= 0).astype(np.int8)
            mask = opened(inside, 0) > 0
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            templates.append((index, mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]))
    return templates


def _unit_areas() -> list[float]:
    """Area of each shape of radius 1, by counting on a fine grid."""
    span, cells = 2.8, 800
    axis = (np.arange(cells) + 0.5) / cells * span - span / 2
    return [float((signed_distance(shape, *np.meshgrid(axis, axis), np) <= 0).mean() * span**2) for shape in SHAPES]


TEMPLATES = _templates()
UNIT_AREAS = _unit_areas()


def components(labels: np.ndarray) -> list[list[tuple[int, int, int, int]]]:
    """4-connected components of equal label >= 0 in [H, W], each as runs (row, first column, end column,
    label).

    Union-find over horizontal runs: no dependency, and fast enough in plain Python because there are few
    runs.
    """
    parent: list[int] = []

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    runs: list[tuple[int, int, int, int]] = []
    above: list[int] = []
    for row, line in enumerate(labels):
        cuts = np.flatnonzero(np.diff(line)) + 1
        here = []
        for first, end in zip([0, *cuts.tolist()], [*cuts.tolist(), len(line)], strict=True):
            label = int(line[first])
            if label < 0:
                continue
            index = len(runs)
            runs.append((row, first, end, label))
            parent.append(index)
            here.append(index)
            for other in above:
                _, other_first, other_end, other_label = runs[other]
                if other_label == label and other_first < end and first < other_end:
                    parent[root(index)] = root(other)
        above = here
    groups: dict[int, list[tuple[int, int, int, int]]] = {}
    for index, run in enumerate(runs):
        groups.setdefault(root(index), []).append(run)
    return list(groups.values())


def _best_shape(mask: np.ndarray) -> tuple[int, float]:
    best, fit = 0, -1.0
    rows, columns = np.arange(mask.shape[0]) + 0.5, np.arange(mask.shape[1]) + 0.5
    for shape, template in TEMPLATES:
        y = (rows * template.shape[0] / mask.shape[0]).astype(int)
        x = (columns * template.shape[1] / mask.shape[1]).astype(int)
        stretched = template[y][:, x]
        overlap = (stretched & mask).sum() / max(1, (stretched | mask).sum())
        if overlap > fit:
            best, fit = shape, float(overlap)
    return best, fit


def look(picture: np.ndarray) -> Sight:
    """What is in a picture, uint8 [H, W, 3]."""
    labels = segment(picture)
    background = background_of(labels)
    found = []
    for runs in components(opened(labels, background)):
        lines = np.array(runs)
        lengths = lines[:, 2] - lines[:, 1]
        area = int(lengths.sum())
        if area < LEAST_AREA:
            continue
        top, left = lines[:, 0].min(), lines[:, 1].min()
        mask = np.zeros((lines[:, 0].max() + 1 - top, lines[:, 2].max() - left), bool)
        for row, first, end, _ in runs:
            mask[row - top, first - left : end - left] = True
        shape, fit = _best_shape(mask)
        x = float(((lines[:, 1] + lines[:, 2]) / 2 * lengths).sum() / area)
        y = float(((lines[:, 0] + 0.5) * lengths).sum() / area)
        found.append(Found(runs[0][3], shape, x, y, math.sqrt(area / UNIT_AREAS[shape]), area, fit))
    return Sight(background, tuple(sorted(found, key=lambda thing: -thing.area)))


def relation_of(first: Found, second: Found) -> str:
    """Where the first thing stands, seen from the second."""
    dx, dy = second.x - first.x, second.y - first.y
    if abs(dx) >= abs(dy):
        return "left" if dx > 0 else "right"
    return "above" if dy > 0 else "below"


def grade(picture: np.ndarray, scene: Scene, sized: Sequence[bool] = ()) -> Grade:
    """Compare a picture, uint8 [H, W, 3], with the scene its prompt was written from; `sized` says which
    sizes were asked for.
    """
    sight = look(picture)
    asked, count = scene.things, len(scene.things)
    marks = {"background": sight.background == scene.background, "count": len(sight.things) == count}
    result = Grade(count, marks, scene.relation)
    if count == 1:
        matches = [sight.things[0] if sight.things else None]
        marks["colour"] = matches[0] is not None and matches[0].colour == asked[0].colour
        marks["shape"] = matches[0] is not None and matches[0].shape == asked[0].shape
        marks["binding"] = marks["colour"] and marks["shape"]
    elif count == 2:
        top = sight.things[:2]
        matches = [next((seen for seen in top if seen.colour == thing.colour), None) for thing in asked]
        marks["colour"] = sorted(seen.colour for seen in top) == sorted(thing.colour for thing in asked)
        marks["shape"] = sorted(seen.shape for seen in top) == sorted(thing.shape for thing in asked)
        marks["binding"] = all(seen is not None and seen.shape == thing.shape for seen, thing in zip(matches, asked, strict=True))
        marks["relation"] = None not in matches and relation_of(*matches) == scene.relation
    else:
        matches = []
    if any(sized):
        marks["size"] = all(
            seen is not None and (not named or (seen.radius > SIZE_BOUNDARY) == bool(thing.size))
            for seen, thing, named in zip(matches, asked, sized, strict=True)
        )
    result.shapes = [(thing.shape, seen.shape if seen else -1) for thing, seen in zip(asked, matches, strict=True)]
    marks["all"] = all(marks.get(name, True) for name in ("background", "count", "binding", "relation"))
    return result


def grade_all(pictures: Iterable[np.ndarray], asked: Iterable[Prompt]) -> list[Grade]:
    """Grade pictures, uint8 [N, H, W, 3], against their prompts."""
    return [grade(picture, prompt.scene, prompt.sized) for picture, prompt in zip(pictures, asked, strict=True)]


def tabulate(grades: Iterable[Grade]) -> Table:
    """Count right and asked by number of things and attribute."""
    table: Table = {}
    for verdict in grades:
        row = table.setdefault(verdict.count, {})
        for name, right in verdict.marks.items():
            hits, total = row.get(name, (0, 0))
            row[name] = (hits + bool(right), total + 1)
    return table


def share(table: Table, count: int, attribute: str = "all") -> float:
    """Share right, 0 to 1, of one cell of a table."""
    hits, total = table[count][attribute]
    return hits / total


def format_table(table: Table) -> str:
    """The table as Markdown, in percent."""
    names = {0: "nothing", 1: "one object", 2: "two objects"}
    lines = [
        "| prompts | " + " | ".join(ATTRIBUTES[:-1]) + " | **all right** |",
        "| --- " * (len(ATTRIBUTES) + 1) + "|",
    ]
    for count in sorted(table):
        row = table[count]
        cells = [f"{100 * row[name][0] / row[name][1]:.1f} %" if name in row else "-" for name in ATTRIBUTES]
        lines.append(f"| {names[count]} ({row['all'][1]}) | " + " | ".join(cells[:-1]) + f" | **{cells[-1]}** |")
    return "\n".join(lines)


def saturation(picture: np.ndarray) -> float:
    """Mean HSV saturation, 0 to 1, of uint8 [H, W, 3]."""
    value = picture.astype(np.float32) / 255
    high, low = value.max(2), value.min(2)
    return float(((high - low) / np.maximum(high, 1e-3)).mean())


def rim_share(picture: np.ndarray) -> float:
    """Share of the pixels along the background's edge that are black: near 0 for flat shapes, near 1 for
    outlined ones.

    Tells nothing where black was asked for. 0 if there is no edge.
    """
    labels = segment(picture)
    figure = labels != background_of(labels)
    # Two pixels deep: the outermost pixel of a black rim is a blend with the background and may read as
    # another colour.
    inner = figure & _dilated(~figure, 2)
    return float((labels[inner] == BLACK).mean()) if inner.any() else 0.0


def _dilated(mask: np.ndarray, reach: int) -> np.ndarray:
    """Dilation with a square of side 2 · reach + 1, done one axis at a time."""
    for axis in (0, 1):
        padded = np.pad(mask, [(reach, reach) if index == axis else (0, 0) for index in (0, 1)])
        length = mask.shape[axis]
        mask = np.logical_or.reduce([padded.take(range(start, start + length), axis) for start in range(2 * reach + 1)])
    return mask


def boundaries(labels: np.ndarray) -> np.ndarray:
    """Pixels of [H, W] whose right, lower or lower right neighbour has another label."""
    padded = np.pad(labels, ((0, 1), (0, 1)), mode="edge")
    right, below, diagonal = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return (labels != right) | (labels != below) | (labels != diagonal)


def boundary_overlap(hint: np.ndarray, picture: np.ndarray, tolerance: int = 2) -> float:
    """Intersection over union, 0 to 1, of a hint's edges, bool [H, W], with a picture's, uint8 [H, W, 3].

    An edge pixel is matched if the other side has one within `tolerance` pixels (square); the intersection is
    the mean of the two directions' matches.
    """
    labels = segment(picture)
    edges = boundaries(opened(labels, background_of(labels)))
    matched = ((edges & _dilated(hint, tolerance)).sum() + (hint & _dilated(edges, tolerance)).sum()) / 2
    return float(matched / max(1.0, edges.sum() + hint.sum() - matched))


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 pictures."""
    error = float(((first.astype(np.float32) - second.astype(np.float32)) ** 2).mean())
    return 10 * math.log10(255**2 / max(error, 1e-3))


def area_under_curve(scores: np.ndarray, truth: np.ndarray) -> float:
    """Area under the ROC curve by the Mann-Whitney statistic, ties counted half. Raises ValueError without
    both classes.
    """
    positive, negative = scores[truth], scores[~truth]
    if not len(positive) or not len(negative):
        raise ValueError("both classes are needed")
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left") + np.searchsorted(ordered, positive, "right")
    return float(below.sum() / (2 * len(positive) * len(negative)))
