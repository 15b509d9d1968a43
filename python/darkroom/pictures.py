"""Pictures that come in: fitted to the size that is drawn, masked, and what was drawn pasted back onto them.

All of it is done in whole numbers on the CPU (Pillow resamples 8 bits in fixed point), so that one picture and one
request are the same pixels on every device. Pictures are arrays [rows, columns, 3] of uint8, masks [rows, columns] of
bool: true is drawn anew.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from PIL import Image

from darkroom import preprocess
from darkroom.errors import DarkroomError
from darkroom.tools import Tools

# What lies behind a transparent picture, as in browsers.
WHITE = 255
# Of a mask that was given: at least so bright is drawn anew.
PAINTED = 128
# How many pixels around one its blur is taken from: the nearest that hold any of the picture.
REACH = (2, 8, 32, 128, 512)
GREY = 127

# Left, top, right, bottom: pixels of a picture, the last two not counted in.
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Canvas:
    """What one request draws on: the `region` of `base` is drawn at `size` (width, height) and goes back into it.

    `base` has the size of what comes out. `mask`, of the same size, is None where all of it is drawn anew.
    """

    base: numpy.ndarray
    mask: numpy.ndarray | None
    region: Box
    size: tuple[int, int]

    def pixels(self, fill: str = "original") -> numpy.ndarray:
        """The region at its size in the drawing. `fill` `blur`: what the mask covers is made of what is around it."""
        region = _cut(self.base, self.region)
        if fill == "blur" and self.mask is not None:
            region = filled(region, _cut(self.mask, self.region))
        return resized(region, self.size)

    def drawn(self) -> numpy.ndarray | None:
        """The mask of the region, at its size in the drawing."""
        return None if self.mask is None else _resized_mask(_cut(self.mask, self.region), self.size)

    def paste(self, drawn: numpy.ndarray, blur: int) -> numpy.ndarray:
        """The base with `drawn`, of the drawing's size, in the region. Where the mask is false the base keeps its
        bytes; `blur` is how many pixels its edge takes to the full, inwards."""
        if self.mask is None:
            return drawn
        left, top, right, bottom = self.region
        weight = _cut(softened(self.mask, blur), self.region).astype(numpy.uint32)[..., None]
        new = resized(drawn, (right - left, bottom - top)).astype(numpy.uint32)
        made = self.base.copy()
        old = made[top:bottom, left:right].astype(numpy.uint32)
        made[top:bottom, left:right] = (new * weight + old * (255 - weight) + 127) // 255
        return made


def canvas(tools: Tools) -> Canvas:
    """Of the request's `picture`, `resize` and `mask`, with the files `picture` and `mask`.

    Without a mask, `latent` leaves a picture that is smaller than the drawing as it is, but for whole cells: `size` is
    then its own, and the latents are what is stretched.

    Where the request has `drawn`, the file `picture` is RGB8 row by row, what `decode` has made of this session.

    Raises `inference.picture_unreadable` and `inference.mask_empty`; `artifact.missing` for what was drawn and is gone.
    """
    request = tools.input
    size = (request["width"], request["height"])
    given = incoming(tools)
    picture, wanted = _over(given, WHITE), request.get("mask")
    if wanted is None:
        if request["resize"] == "latent":
            size = (min(size[0], max(8, picture.shape[1] // 8 * 8)), min(size[1], max(8, picture.shape[0] // 8 * 8)))
        return Canvas(_fitted(picture, request["resize"], size), None, (0, 0, size[0], size[1]), size)
    source = wanted["source"]
    if wanted["area"] == "masked":
        mask = _shaped(_given_mask(tools, given, source), wanted)
        return Canvas(picture, mask, _around(mask, wanted["padding"], size), size)
    if source == "border":
        mask = _border(picture, size)
    else:
        mask = _fitted(_given_mask(tools, given, source).astype(numpy.uint8) * 255, request["resize"], size) >= PAINTED
    return Canvas(_fitted(picture, request["resize"], size), _shaped(mask, wanted), (0, 0, size[0], size[1]), size)


def incoming(tools: Tools) -> numpy.ndarray:
    """The request's `picture`, [rows, columns, 3 or 4]: the file of that name, a PNG, or where the request has `drawn`
    RGB8 row by row, what this session has made so far.

    Raises `inference.picture_unreadable`; `artifact.missing` for what was drawn and is gone.
    """
    pin = tools.input["picture"]
    return _drawn(tools, pin) if "drawn" in tools.input else _read(tools, "picture", pin)


def whole(tools: Tools) -> numpy.ndarray:
    """The request's `picture` as it is, on white: [rows, columns, 3]. Raises as `incoming`."""
    return _over(incoming(tools), WHITE)


def shown(tools: Tools, name: str, pin: Mapping[str, Any]) -> numpy.ndarray:
    """The file of that name, a PNG, on white: [rows, columns, 3]. Raises `inference.picture_unreadable`."""
    return _over(_read(tools, name, pin), WHITE)


def signed(pixels: numpy.ndarray, device: torch.device) -> torch.Tensor:
    """RGB8, [rows, columns, 3], as [3, rows, columns] fp32 in -1 to 1 on the device."""
    return torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1).to(device) / 127.5 - 1


def rgb(image: torch.Tensor) -> numpy.ndarray:
    """[3, rows, columns] in -1 to 1, as RGB8, [rows, columns, 3]."""
    return (image / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()


def control(
    tools: Tools,
    name: str,
    wanted: Mapping[str, Any],
    size: tuple[int, int],
    network: Callable[[numpy.ndarray], numpy.ndarray] | None = None,
) -> numpy.ndarray:
    """The picture that a ControlNet is shown, of `size` (width, height): the file `name`, fitted as `wanted` says of
    its `resize`, then what its `preprocessor` makes of it, which may need no picture. `network`: of a preprocessor that
    has one.

    Raises `inference.picture_unreadable`.
    """
    pin, made = wanted.get("picture"), None
    if pin is not None:
        made = opaque(tools, name, pin)
        made = _fitted(made, wanted["resize"], size) if "resize" in wanted else made
    return preprocess.run(made, wanted.get("preprocessor"), size, network)


def opaque(tools: Tools, name: str, pin: Mapping[str, Any]) -> numpy.ndarray:
    """The file `name`, a PNG of the size that `pin` says, on white: [rows, columns, 3]. Raises
    `inference.picture_unreadable`."""
    return _over(_read(tools, name, pin), WHITE)


def cells(mask: numpy.ndarray, rows: int, columns: int) -> numpy.ndarray:
    """A mask by latent cells, [rows, columns]: a cell is drawn anew when any of its pixels is."""
    height, width = mask.shape
    return numpy.asarray(mask.reshape(rows, height // rows, columns, width // columns).any((1, 3)))


def resized(picture: numpy.ndarray, size: tuple[int, int], box: tuple[float, float, float, float] | None = None) -> numpy.ndarray:
    """Bicubic, with all pixels of the `box` (default: all of it) that lie behind a new one; `size`: width, height."""
    return numpy.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC, box))


def softened(mask: numpy.ndarray, blur: int) -> numpy.ndarray:
    """0 to 255, [rows, columns]: a ramp of 2 · `blur` pixels from the edge inwards, never outside of the mask. Parts
    that are too thin for a ramp are full."""
    if blur == 0:
        return mask.astype(numpy.uint8) * 255
    window = (2 * blur + 1) ** 2
    inner = _sums(mask, blur) == window
    ramp = _sums(inner, blur) * 255 // window
    thin = mask & (_sums(inner, blur) == 0)
    return numpy.where(thin, 255, ramp).astype(numpy.uint8)


def filled(picture: numpy.ndarray, mask: numpy.ndarray) -> numpy.ndarray:
    """The picture with what the mask covers made of the mean of what is around each pixel, near before far."""
    made, hole = picture.copy(), mask.copy()
    known = numpy.where(mask[..., None], 0, picture)
    made[hole] = GREY
    for reach in REACH:
        count = _sums(~mask, reach)
        near = hole & (count > 0)
        if near.any():
            sums = numpy.stack([_sums(known[..., channel], reach)[near] for channel in range(3)], -1)
            made[near] = sums // count[near][:, None]
            hole &= ~near
    return made


def _read(tools: Tools, name: str, pin: Mapping[str, Any]) -> numpy.ndarray:
    """An input file as [rows, columns, 3 or 4]."""
    content, problem = tools.read(name)
    if content is not None:
        try:
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                if image.mode in ("RGB", "RGBA") and image.size == (pin["width"], pin["height"]):
                    return numpy.asarray(image)
                problem = f"it is {image.mode} of {image.size[0]} × {image.size[1]} pixels"
        except (OSError, ValueError, SyntaxError) as error:
            problem = str(error)
    raise DarkroomError("inference.picture_unreadable", f"picture {pin['sha256']} cannot be used: {problem}", field=name)


def _drawn(tools: Tools, pin: Mapping[str, Any]) -> numpy.ndarray:
    """What was drawn so far, [rows, columns, 3]: the node has it drawn again when it is gone."""
    content, problem = tools.read("picture")
    shape = (pin["height"], pin["width"], 3)
    if content is None or len(content) != shape[0] * shape[1] * 3:
        problem = problem or f"it has {len(content or b'')} bytes, not {shape[0]} · {shape[1]} · 3"
        raise DarkroomError("artifact.missing", f"what was drawn cannot be used: {problem}", field="files.picture")
    return numpy.frombuffer(content, numpy.uint8).reshape(shape)


def _over(picture: numpy.ndarray, ground: int) -> numpy.ndarray:
    """Without its transparency: laid over a grey of that value."""
    if picture.shape[2] == 3:
        return picture
    alpha = picture[..., 3:].astype(numpy.uint32)
    return ((picture[..., :3] * alpha + ground * (255 - alpha) + 127) // 255).astype(numpy.uint8)


def _given_mask(tools: Tools, picture: numpy.ndarray, source: Any) -> numpy.ndarray:
    """Of the picture's size: what is transparent in it, what is inside a box of it, or what is bright in another."""
    if source == "alpha":
        return picture[..., 3] < PAINTED if picture.shape[2] == 4 else numpy.zeros(picture.shape[:2], bool)
    if "left" in source:
        mask = numpy.zeros(picture.shape[:2], bool)
        mask[source["top"] : source["top"] + source["height"], source["left"] : source["left"] + source["width"]] = True
        return mask
    return numpy.asarray(Image.fromarray(_over(_read(tools, "mask", source), 0)).convert("L")) >= PAINTED


def _fitted(picture: numpy.ndarray, resize: str, size: tuple[int, int]) -> numpy.ndarray:
    height, width = picture.shape[:2]
    if resize == "crop":
        scale = max(size[0] / width, size[1] / height)
        seen = (min(width, size[0] / scale), min(height, size[1] / scale))
        left, top = (width - seen[0]) / 2, (height - seen[1]) / 2
        return resized(picture, size, (left, top, left + seen[0], top + seen[1]))
    if resize == "pad":
        left, top, right, bottom = _placed(picture, size)
        around = ((top, size[1] - bottom), (left, size[0] - right), (0, 0))[: picture.ndim]
        return numpy.pad(resized(picture, (right - left, bottom - top)), around, mode="edge")
    return resized(picture, size)


def _placed(picture: numpy.ndarray, size: tuple[int, int]) -> Box:
    """Where `pad` puts a picture: as large as fits, in the middle."""
    height, width = picture.shape[:2]
    scale = min(size[0] / width, size[1] / height)
    columns, rows = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (size[0] - columns) // 2, (size[1] - rows) // 2
    return (left, top, left + columns, top + rows)


def _border(picture: numpy.ndarray, size: tuple[int, int]) -> numpy.ndarray:
    """What `pad` adds."""
    left, top, right, bottom = _placed(picture, size)
    mask = numpy.ones((size[1], size[0]), bool)
    mask[top:bottom, left:right] = False
    return mask


def _shaped(mask: numpy.ndarray, wanted: Mapping[str, Any]) -> numpy.ndarray:
    """Inverted and grown. Raises `inference.mask_empty`."""
    shaped = mask ^ wanted["invert"]
    if wanted["grow"] > 0:
        shaped = _sums(shaped, wanted["grow"]) > 0
    if not shaped.any():
        raise DarkroomError("inference.mask_empty", "the mask covers no pixel: nothing would be drawn", field="mask")
    return shaped


def _around(mask: numpy.ndarray, padding: int, size: tuple[int, int]) -> Box:
    """The box of what the mask covers and `padding` pixels more, widened to the proportions of `size` where the picture
    has room for it, as AUTOMATIC1111's web UI does."""
    height, width = mask.shape
    rows, columns = numpy.flatnonzero(mask.any(1)), numpy.flatnonzero(mask.any(0))
    left, right = max(0, int(columns[0]) - padding), min(width, int(columns[-1]) + 1 + padding)
    top, bottom = max(0, int(rows[0]) - padding), min(height, int(rows[-1]) + 1 + padding)
    wide = max(right - left, -(-(bottom - top) * size[0] // size[1]))
    high = max(bottom - top, -(-(right - left) * size[1] // size[0]))
    left, right = _widened(left, right, wide, width)
    top, bottom = _widened(top, bottom, high, height)
    return (left, top, right, bottom)


def _widened(first: int, end: int, wanted: int, most: int) -> tuple[int, int]:
    wanted = min(wanted, most)
    first = min(max(0, first - (wanted - (end - first)) // 2), most - wanted)
    return first, first + wanted


def _resized_mask(mask: numpy.ndarray, size: tuple[int, int]) -> numpy.ndarray:
    return resized(mask.astype(numpy.uint8) * 255, size) >= PAINTED


def _cut(array: numpy.ndarray, box: Box) -> numpy.ndarray:
    left, top, right, bottom = box
    return array[top:bottom, left:right]


def _sums(values: numpy.ndarray, reach: int) -> numpy.ndarray:
    """Sum over the square of 2 · `reach` + 1 pixels around each, [rows, columns] of int32; beyond an edge the last row
    or column goes on. Totals may wrap: their differences do not."""
    sums = numpy.pad(values.astype(numpy.int32), reach, mode="edge")
    side = 2 * reach + 1
    for axis in (0, 1):
        total = numpy.cumsum(sums, axis, dtype=numpy.int32)
        before = numpy.insert(total, 0, 0, axis)
        sums = numpy.take(before, range(side, before.shape[axis]), axis) - numpy.take(before, range(before.shape[axis] - side), axis)
    return sums
