"""What a ControlNet is shown, made of an ordinary picture or of joints: edges, less detail, figures.

Everything here is whole numbers on the CPU, or square roots, which IEEE 754 rounds alike everywhere: one picture makes
the same bytes on every machine. What networks see is in `preprocessors.py`. Pictures are arrays [rows, columns, 3] of
uint8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy
from PIL import Image, ImageDraw, ImageFilter

# Weights of the pixels beside the middle row and column, and how many times too large what they make is.
SMOOTHING = {"sobel": ((1, 2, 1), 4), "scharr": ((3, 10, 3), 16)}
# tan 22.5° and tan 67.5°, times 2¹⁵.
FLAT, STEEP = 13573, 79109
# Blurs, pixels, of which a soft edge is the mean.
SOFT_RADII = (1, 2, 4)
# OpenPose's 18 joints of a body (COCO): which of them are joined, and the colour of each.
LIMBS = (
    *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10)),
    *((1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),
)
COLOURS = (
    *((255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0), (0, 255, 85), (0, 255, 170)),
    *((0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85)),
)
# Of a limb's colour, percent: as OpenPose lays limbs over black, so that joints stand out.
LIMB_SHARE = 60
# Pixels of a joint's radius, and of half a limb's width, in a picture whose shorter side is this.
STICK, OF_SIDE = 4, 512


def run(
    picture: numpy.ndarray | None,
    wanted: Mapping[str, Any] | None,
    size: tuple[int, int],
    network: Callable[[numpy.ndarray], numpy.ndarray] | None = None,
) -> numpy.ndarray:
    """`wanted`: a preprocessor's `name` and its settings, as the request has them; None leaves the picture as it is.
    `size`: width and height of what is drawn without a picture; `network`: what sees the picture for those that need
    one (`preprocessors.py`)."""
    if wanted is not None and wanted["name"] == "pose":
        return pose(wanted["people"], size)
    if picture is None:
        raise ValueError("without joints there must be a picture")
    if wanted is None:
        return picture
    if network is not None:
        return network(picture)
    settings = {name: value for name, value in wanted.items() if name != "name"}
    return OF_PICTURES[wanted["name"]](picture, **settings)


def grey(picture: numpy.ndarray) -> numpy.ndarray:
    """Brightness alone (ITU-R 601, as Pillow reckons it)."""
    return _coloured(_brightness(picture))


def invert(picture: numpy.ndarray) -> numpy.ndarray:
    """Dark for light: for drawings on white, where ControlNets know white on black."""
    return 255 - picture


def blur(picture: numpy.ndarray, radius: int) -> numpy.ndarray:
    """Gauss, with `radius` pixels as its standard deviation."""
    return numpy.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


def tile(picture: numpy.ndarray, factor: int) -> numpy.ndarray:
    """Without what is finer than `factor` pixels: made smaller by so much, and as large again."""
    height, width = picture.shape[:2]
    small = Image.fromarray(picture).resize((max(1, width // factor), max(1, height // factor)), Image.Resampling.BOX)
    return numpy.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def edge(picture: numpy.ndarray, operator: str) -> numpy.ndarray:
    """How steep brightness is, by Sobel's operator or Scharr's."""
    return _coloured(_steepness(_brightness(picture), operator))


def soft(picture: numpy.ndarray) -> numpy.ndarray:
    """Edges of several widths together, as bright as they go: an approximation of what HED and PiDiNet, which are
    networks, make."""
    seen = Image.fromarray(_brightness(picture))
    blurred = [numpy.asarray(seen.filter(ImageFilter.GaussianBlur(radius))) for radius in SOFT_RADII]
    weighted = [_steepness(each, "sobel").astype(numpy.int64) * radius for each, radius in zip(blurred, SOFT_RADII, strict=True)]
    total = numpy.sum(weighted, axis=0)
    most = max(1, int(numpy.max(total)))
    return _coloured((total * 255 // most).astype(numpy.uint8))


def canny(picture: numpy.ndarray, low: int, high: int) -> numpy.ndarray:
    """Thin edges: those as steep as `high`, and what of `low` hangs together with them.

    Canny 1986, "A Computational Approach to Edge Detection"; as OpenCV's `Canny` reckons it on a colour picture: no
    blur before it, Sobel's operator, |dx| + |dy| of the colour with the most, replicated borders.
    """
    across, down = (numpy.stack([_slope(picture[..., channel], axis, "sobel") for channel in range(3)], -1) for axis in (1, 0))
    strength = numpy.abs(across) + numpy.abs(down)
    most = strength.argmax(-1)[..., None]
    dx, dy, size = (numpy.take_along_axis(each, most, -1)[..., 0] for each in (across, down, strength))
    weak = _is_ridge(dx, dy, size) & (size > low)
    return _coloured(_connected(weak, weak & (size > high)).astype(numpy.uint8) * 255)


def pose(people: Sequence[Sequence[Sequence[float] | None]], size: tuple[int, int]) -> numpy.ndarray:
    """Figures on black, as OpenPose draws them. `people`: 18 joints each, [x, y] as shares of width and height, None
    where one is not seen; `size`: width and height in pixels."""
    width, height = size
    image = Image.new("RGB", size)
    draw = ImageDraw.Draw(image)
    stick = max(1, STICK * min(size) // OF_SIDE)
    for joints in people:
        at = [None if joint is None else (round(joint[0] * width), round(joint[1] * height)) for joint in joints]
        for (first, second), colour in zip(LIMBS, COLOURS, strict=False):
            begin, end = at[first], at[second]
            if begin is not None and end is not None:
                draw.polygon(_limb(begin, end, stick), tuple(part * LIMB_SHARE // 100 for part in colour))
        for joint, colour in zip(at, COLOURS, strict=True):
            if joint is not None:
                x, y = joint
                draw.ellipse((x - stick, y - stick, x + stick, y + stick), colour)
    return numpy.asarray(image)


def _limb(begin: tuple[int, int], end: tuple[int, int], stick: int) -> list[tuple[int, int]]:
    """An ellipse from joint to joint, as a polygon; twice `stick` thick."""
    (x, y), (dx, dy) = begin, (end[0] - begin[0], end[1] - begin[1])
    length = math.isqrt(dx * dx + dy * dy)
    if length == 0:
        return [begin] * 3
    points = []
    # A circle in whole numbers: cosine and sine of 15° steps, in thousandths.
    for cosine, sine in _CIRCLE:
        along, aside = 1000 + cosine, sine * stick * 2
        across, down = dx * along * length - dy * aside, dy * along * length + dx * aside
        points.append((x + across // (2000 * length), y + down // (2000 * length)))
    return points


_QUARTER = (1000, 966, 866, 707, 500, 259)
_CIRCLE = [
    pair
    for turn in range(4)
    for step in range(6)
    for cosine, sine in [(_QUARTER[step], (0, *_QUARTER[:0:-1])[step])]
    for pair in [((cosine, sine), (-sine, cosine), (-cosine, -sine), (sine, -cosine))[turn]]
]


OF_PICTURES: Mapping[str, Callable[..., numpy.ndarray]] = {
    "canny": canny,
    "edge": edge,
    "soft": soft,
    "tile": tile,
    "blur": blur,
    "grey": grey,
    "invert": invert,
}
"""By the names that requests give them."""


def _brightness(picture: numpy.ndarray) -> numpy.ndarray:
    return numpy.asarray(Image.fromarray(picture).convert("L"))


def _coloured(values: numpy.ndarray) -> numpy.ndarray:
    return numpy.repeat(values[..., None], 3, 2)


def _slope(values: numpy.ndarray, axis: int, operator: str) -> numpy.ndarray:
    """Of [rows, columns] of uint8 along an axis, int32; beyond an edge the last row or column goes on."""
    (before, middle, after), _ = SMOOTHING[operator]
    wide = numpy.pad(values.astype(numpy.int32), 1, mode="edge")
    beside = wide if axis == 1 else wide.T
    smooth = before * beside[:-2] + middle * beside[1:-1] + after * beside[2:]
    slope = smooth[:, 2:] - smooth[:, :-2]
    return slope if axis == 1 else slope.T


def _steepness(values: numpy.ndarray, operator: str) -> numpy.ndarray:
    """0 to 255: the length of the slope, so that a step from black to white is 255."""
    across, down = (_slope(values, axis, operator).astype(numpy.float64) for axis in (1, 0))
    _, scale = SMOOTHING[operator]
    return numpy.minimum(255, numpy.sqrt(across * across + down * down) // scale).astype(numpy.uint8)


def _is_ridge(dx: numpy.ndarray, dy: numpy.ndarray, size: numpy.ndarray) -> numpy.ndarray:
    """Whether a pixel is the steepest among its two neighbours across the edge."""
    wide = numpy.pad(size, 1)
    steps, rise = numpy.abs(dx).astype(numpy.int64), numpy.abs(dy).astype(numpy.int64) << 15
    flat, steep = rise < steps * FLAT, rise > steps * STEEP

    def beside(row: int, column: int) -> numpy.ndarray:
        return wide[1 + row : wide.shape[0] - 1 + row, 1 + column : wide.shape[1] - 1 + column]

    falls = (dx ^ dy) < 0
    across = (size > beside(0, -1)) & (size >= beside(0, 1))
    along = (size > beside(-1, 0)) & (size >= beside(1, 0))
    down = (size > beside(-1, -1)) & (size > beside(1, 1))
    up = (size > beside(-1, 1)) & (size > beside(1, -1))
    return numpy.where(flat, across, numpy.where(steep, along, numpy.where(falls, up, down)))


def _connected(weak: numpy.ndarray, strong: numpy.ndarray) -> numpy.ndarray:
    """What of `weak` hangs together, corners included, with something `strong`."""
    open_ = numpy.pad(weak & ~strong, 1)
    found = numpy.pad(strong, 1)
    columns = found.shape[1]
    steps = numpy.array([-columns - 1, -columns, -columns + 1, -1, 1, columns - 1, columns, columns + 1])
    waiting, reached = open_.ravel(), found.ravel()
    front = numpy.flatnonzero(reached)
    while len(front) > 0:
        near = numpy.unique((front[:, None] + steps).ravel())
        near = near[(near >= 0) & (near < len(waiting))]
        front = near[waiting[near]]
        waiting[front], reached[front] = False, True
    return reached.reshape(found.shape)[1:-1, 1:-1]
