"""A picture made larger by a network: tile by tile, so that what it takes of memory follows from the tile.

The picture is thought to go on beyond its edges with their pixels, so every tile has one shape, wherever it lies and
however small the picture is. Where a tile holds what the network sees (`EXACT`), as much as that is cut off around
each, and they lie side by side. Sums are exact then (`upscalers.on_grid`), so a pixel is the one that a tile of any
size makes, to the byte. Where the network sees further, tiles overlap by `RAMP` and go over into one another there; the
size of the tiles then decides pixels, and the receipt has it.

A result that is larger than asked for is made smaller by Lanczos' filter, and so is one of a factor that is no power of
the network's: that runs as often as it takes to be as large. Transparency is enlarged by Lanczos' filter alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy
from PIL import Image

from darkroom import checkpoint, frames, memory, pictures
from darkroom.errors import DarkroomError, Paused
from darkroom.pace import Pace
from darkroom.tools import Tools
from darkroom.upscalers import Upscaler

FILTERS = {"lanczos": Image.Resampling.LANCZOS, "bicubic": Image.Resampling.BICUBIC, "nearest": Image.Resampling.NEAREST}
"""Without a network, by the names that requests give them."""
# How many times as far as the network sees a tile's side must be for the exact way: half of it is then of use.
EXACT = 4
# Pixels of the other way: cut off around a tile, whose edges a network draws worst, and over which two go over.
MARGIN, RAMP = 8, 32
# Pixels of a result, and of what a network makes on the way to it.
MOST_PIXELS = 8192 * 8192
FORMAT = "darkroom-upscale-1"


@dataclass(frozen=True)
class Tiling:
    """`side` of a tile, `margin` that is cut off around it, `ramp` over which what is left overlaps; pixels of the
    picture."""

    side: int
    margin: int
    ramp: int
    is_exact: bool

    @property
    def kept(self) -> int:
        """What is left of a tile's side."""
        return self.side - 2 * self.margin

    @property
    def hop(self) -> int:
        """From one tile to the next."""
        return self.kept - self.ramp

    def count(self, length: int) -> int:
        """How many tiles cover so many pixels."""
        return max(1, -(-(length - self.ramp) // self.hop))


def tiling_of(upscaler: Upscaler, side: int) -> Tiling:
    """How tiles of that side are put together."""
    step = upscaler.fold
    if upscaler.reach is not None and EXACT * upscaler.reach <= side:
        return Tiling(side, -(-upscaler.reach // step) * step, 0, True)
    return Tiling(side, -(-MARGIN // step) * step, RAMP, False)


def best_tiling(upscaler: Upscaler, sizes: list[tuple[int, int]], asked: int | None, most: int | None) -> Tiling:
    """`asked`: a side that the request says; `most`: the largest that the device has memory for, None where nothing
    speaks against any. Where any side gives the same bytes, the one with least to compute."""
    if asked is not None:
        return tiling_of(upscaler, min(asked, most or asked))
    able = [tiling_of(upscaler, side) for side in memory.TILE_SIDES if side <= (most or side)]
    exact = [tiling for tiling in able if tiling.is_exact]

    def cost(tiling: Tiling) -> int:
        return sum(tiling.count(width) * tiling.count(height) for width, height in sizes) * tiling.side**2

    return min(exact, key=cost) if exact else able[0]


class Enlargement:
    """One picture under way: what every tile moves on, and what a checkpoint holds.

    `picture`: RGB8, [rows, columns, 3]. It goes through the network `passes` times.
    """

    def __init__(self, picture: numpy.ndarray, upscaler: Upscaler, passes: int, tiling: Tiling, identity: str):
        self._upscaler, self._tiling, self._passes, self._identity = upscaler, tiling, passes, identity
        self._sizes = sizes_of(picture, upscaler.scale, passes)
        self.call = 0
        self.calls = sum(tiling.count(width) * tiling.count(height) for width, height in self._sizes)
        self._begin(picture, 0)

    def _begin(self, picture: numpy.ndarray, number: int) -> None:
        """Pass `number`, over this."""
        scale = self._upscaler.scale
        self._picture, self._pass, self._tile = picture, number, 0
        height, width = picture.shape[:2]
        self.made = numpy.zeros((height * scale, width * scale, 3), numpy.uint8)
        # A row of tiles, before it goes over into the one above.
        self._row = numpy.zeros((self._tiling.kept * scale, width * scale, 3), numpy.uint8)

    def arrays(self) -> list[numpy.ndarray]:
        """All that it holds."""
        return [self._picture, self.made, self._row]

    def advance(self, alive: Callable[[], None] = lambda: None) -> None:
        """One tile; `alive` is called while it is computed. Raises as `Upscaler.enlarge`."""
        if self._is_over():
            self._begin(self.made, self._pass + 1)
        columns = self._tiling.count(self._picture.shape[1])
        row, column = divmod(self._tile, columns)
        scale, margin, kept, hop = self._upscaler.scale, self._tiling.margin, self._tiling.kept, self._tiling.hop
        made = self._upscaler.enlarge(self._cut(row * hop - margin, column * hop - margin), self._tiling.is_exact, alive)
        inner = slice(margin * scale, (margin + kept) * scale)
        _lay(self._row, made[inner, inner], column * hop * scale, self._tiling.ramp * scale if column else 0, 1)
        if column == columns - 1:
            _lay(self.made, self._row, row * hop * scale, self._tiling.ramp * scale if row else 0, 0)
        self._tile += 1
        self.call += 1

    def _is_over(self) -> bool:
        height, width = self._picture.shape[:2]
        return self._tile == self._tiling.count(width) * self._tiling.count(height)

    def _cut(self, top: int, left: int) -> numpy.ndarray:
        """A tile; beyond an edge its pixels go on."""
        height, width = self._picture.shape[:2]
        rows = numpy.arange(top, top + self._tiling.side).clip(0, height - 1)
        columns = numpy.arange(left, left + self._tiling.side).clip(0, width - 1)
        return self._picture[rows[:, None], columns]

    # --- checkpoints ---

    def snapshot(self) -> Callable[[], bytes]:
        """What gives the bytes of a file, on any thread and at any time later."""
        columns = self._tiling.count(self._picture.shape[1])
        done, scale = self._tile // columns, self._upscaler.scale
        # Rows that no tile to come touches are not copied.
        still = min(done * self._tiling.hop * scale, len(self.made))
        end = min(still + self._tiling.ramp * scale, len(self.made)) if done else 0
        parts = [self._picture if self._pass else self._picture[:0], self.made[:still], self.made[still:end].copy(), self._row.copy()]
        told = {"format": FORMAT, "identity": self._identity, "call": self.call, "pass": self._pass, "tile": self._tile, "rows": end}
        header = json.dumps(told, separators=(",", ":")).encode()
        return lambda: b"".join([len(header).to_bytes(8, "little"), header, *(numpy.ascontiguousarray(part).data for part in parts)])

    def resume(self, content: bytes, given: Mapping[str, Any]) -> None:
        """`given`: {call} as the node recorded it. Raises `checkpoint.CheckpointRefused`; it is then as it was."""
        try:
            end = 8 + int.from_bytes(content[:8], "little")
            told = json.loads(content[8:end])
            wanted = {"format": FORMAT, "identity": self._identity, "call": given["call"]}
            for name, value in wanted.items():
                if told[name] != value:
                    raise checkpoint.CheckpointRefused(f"its {name} was {told[name]}, and is {value}")
            number, rows = told["pass"], told["rows"]
            width, height = self._sizes[number]
            picture, at = self._picture, end
            if number > 0:
                picture, at = _array(content, at, (height, width, 3))
            again = Enlargement.__new__(Enlargement)
            again.__dict__.update(self.__dict__)
            again._begin(picture, number)
            again.made[:rows], at = _array(content, at, (rows, *again.made.shape[1:]))
            again._row, at = _array(content, at, again._row.shape)
            again._tile, again.call = told["tile"], told["call"]
            if at != len(content):
                raise ValueError(f"it has {len(content)} bytes, and {at} are told of")
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise checkpoint.CheckpointRefused(f"the file is broken: {error}") from error
        self.__dict__.update(again.__dict__)


def sizes_of(picture: numpy.ndarray, scale: int, passes: int) -> list[tuple[int, int]]:
    """Width and height of what each pass takes."""
    height, width = picture.shape[:2]
    return [(width * scale**number, height * scale**number) for number in range(passes)]


def _array(content: bytes, at: int, shape: tuple[int, ...]) -> tuple[numpy.ndarray, int]:
    size = int(numpy.prod(shape))
    return numpy.frombuffer(content, numpy.uint8, size, at).reshape(shape).copy(), at + size


def _lay(onto: numpy.ndarray, piece: numpy.ndarray, at: int, ramp: int, axis: int) -> None:
    """Puts a piece at that place of an axis, as much of it as there is room for. Over its first `ramp` rows or columns
    it goes over into what is there, in whole numbers."""
    into, given = onto.swapaxes(0, axis), piece.swapaxes(0, axis)
    given = given[: len(into) - at, : into.shape[1]]
    if ramp > 0:
        # Odd shares of the doubled ramp: halfway between two is none.
        share = (2 * numpy.arange(ramp, dtype=numpy.uint32) + 1)[:, None, None]
        old, new = into[at : at + ramp].astype(numpy.uint32), given[:ramp].astype(numpy.uint32)
        into[at : at + ramp] = (old * (2 * ramp - share) + new * share + ramp) // (2 * ramp)
    into[at + ramp : at + len(given)] = given[ramp:]


# --- what a request asks for ---


def passes_of(scale: int, size: tuple[int, int], wanted: tuple[int, int]) -> int:
    """How often a network of that scale has to run."""
    passes = 1
    while scale > 1 and (size[0] * scale**passes < wanted[0] or size[1] * scale**passes < wanted[1]):
        passes += 1
    return passes


def by_network(
    picture: numpy.ndarray, size: tuple[int, int], upscaler: Upscaler, tools: Tools, resumes: bool
) -> tuple[numpy.ndarray, Tiling, dict[str, Any]]:
    """RGB8 of `size` (width, height) of a picture, how it was put together, and figures. `resumes`: with checkpoints;
    without, a pause has nothing to go on from.

    Raises `postprocessing.too_large`, Cancelled and Paused, and as `Upscaler.enlarge`.
    """
    height, width = picture.shape[:2]
    passes = passes_of(upscaler.scale, (width, height), size)
    made = width * height * upscaler.scale ** (2 * passes)
    if made > MOST_PIXELS:
        problem = f"{upscaler.scale} times larger {passes} times would be {made} pixels, and {MOST_PIXELS} are the most"
        raise DarkroomError("postprocessing.too_large", problem, field="input.upscaler")
    request = tools.input["upscaler"]
    sizes = sizes_of(picture, upscaler.scale, passes)
    tiling = best_tiling(upscaler, sizes, tools.input.get("tile"), tools.runtime.peaks.largest_tile(request))
    identity = checkpoint.digest([request["body_hash"], tools.input["picture"], sizes, tiling.side, tools.runtime.facts]) if resumes else ""
    work = Enlargement(picture, upscaler, passes, tiling, identity)
    refused = _resume(work, tools) if resumes else None
    first = work.call
    pace = Pace(tools.runtime.device, tools.runtime.turn)
    while work.call < work.calls:
        tools.check_stop(can_pause=not resumes or work.call == first)
        if tools.stop == "pause":
            tools.save_checkpoint(work.call, work.snapshot())
            raise Paused(tools.finish_checkpoints())
        work.advance(tools.advance)
        tools.hold(work.arrays())
        pace.wait()
        tools.progress("run", call=work.call, calls=work.calls, **pace.figures(work.calls - work.call))
        if resumes and work.call < work.calls and tools.checkpoint_due(work.call):
            tools.save_checkpoint(work.call, work.snapshot())
    if resumes:
        tools.finish_checkpoints()
    figures = {"calls": work.calls - first, "resumed_from": first, "checkpoint_refused": refused, "tiles": work.calls}
    return resized(work.made, size, "lanczos"), tiling, figures


def _resume(work: Enlargement, tools: Tools) -> str | None:
    """Why a checkpoint was refused, None when none was."""
    try:
        found = tools.read_checkpoint()
        if found is not None:
            work.resume(*found)
    except (OSError, checkpoint.CheckpointRefused) as error:
        tools.log.warning("a checkpoint was refused: %s", error, extra={"request_id": tools.request_id})
        return str(error)
    return None


def resized(picture: numpy.ndarray, size: tuple[int, int], by: str) -> numpy.ndarray:
    """A picture of `size` (width, height), [rows, columns, 1, 3 or 4], by one of `FILTERS`; what is transparent lends
    its neighbours no colour."""
    if picture.shape[1::-1] == size:
        return picture
    return numpy.asarray(Image.fromarray(picture).resize(size, FILTERS[by]))


def _network(upscaler: Any, tools: Tools) -> tuple[Upscaler | None, float | None]:
    """It, and the seconds that its load took; nothing for the name of a filter."""
    if isinstance(upscaler, str):
        return None, None
    # Any: what draws nothing is no `Family`.
    models: Any = tools.runtime.models
    return models.get(upscaler, tools)


def upscale(tools: Tools) -> dict[str, Any]:
    """postprocessing.upscale: file `pixels`, RGB8 or, of a picture with transparency, RGBA8 row by row: the file
    `picture` at the request's `width` and `height`, by its `upscaler`, a network or the name of a filter.

    `has_alpha`: which of them; `network`: the architecture, None for a filter; `tile`: the side of the tiles where it
    decides pixels, else None.

    Raises `inference.picture_unreadable`, `artifact.missing` for pixels of this session that are gone, as `by_network`
    and `Models.get`; Paused with the checkpoint that holds all tiles that are done.
    """
    request = tools.input
    size = (request["width"], request["height"])
    upscaler, load_s = _network(request["upscaler"], tools)
    started = time.monotonic()
    tools.progress("run")
    given = pictures.incoming(tools)
    told: dict[str, Any] = {"has_alpha": given.shape[2] == 4, "network": None, "tile": None}
    figures: dict[str, Any] = {}
    if upscaler is None:
        tools.check_stop(can_pause=True)
        made = resized(given, size, request["upscaler"])
    else:
        colours = numpy.ascontiguousarray(given[..., :3])
        made, tiling, figures = by_network(colours, size, upscaler, tools, resumes=True)
        told |= {"network": upscaler.name, "tile": None if tiling.is_exact else tiling.side}
        if told["has_alpha"]:
            made = numpy.dstack([made, resized(given[..., 3], size, "lanczos")])
    file = tools.write("pixels.raw", numpy.ascontiguousarray(made).data.cast("B"))
    stats = {"seconds": time.monotonic() - started, **({} if load_s is None else {"load_s": load_s}), **figures}
    return frames.result(told, files={"pixels": file}, stats=stats)
