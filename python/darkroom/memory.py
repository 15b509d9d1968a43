"""What the child holds of its device, and how it lets go of what can be had again."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from darkroom import frames, graphs
from darkroom.profiles import Tiles
from darkroom.tools import ModelKey, Tools

if TYPE_CHECKING:
    import torch

    from darkroom.runtime import Runtime

# Until a picture has been measured, models leave this part of a device free for it.
PICTURE_SHARE = 10
# Sides of the tiles that a network enlarges a picture in, pixels: the usual one, and those for less memory.
TILE_SIDES = (256, 128, 64)


def trim(tools: Tools) -> dict[str, Any]:
    """memory.trim: empties the caches of torch's allocator, drops recorded graphs, and lets go of up to `idle_models`
    models, the one used longest ago first.

    Models that a request in the child uses or waits for stay. `freed_bytes` is what went back to the device; None where
    there is no device but the CPU, whose memory torch does not pool.
    """
    runtime = tools.runtime
    before = reserved_bytes(runtime.device)
    gone = runtime.models.drop(tools.data["idle_models"], keep=runtime.wanted())
    runtime.adapters.clear()
    runtime.classifiers.clear()
    runtime.faces.clear()
    drop_caches(runtime.device)
    after = reserved_bytes(runtime.device)
    freed = None if before is None or after is None else max(0, before - after)
    return frames.result({"freed_bytes": freed, "models": gone})


def ladder(runtime: Runtime, tools: Tools) -> Iterator[str]:
    """What a request that ran out of memory tries before it is refused, one thing after another: each is done, and
    said in words, when it is asked for. Caches, idle models, the networks of its own model but the one that computes,
    pieces of a picture to decode, smaller tiles of one that is enlarged, blocks of the network: as far as its profile
    goes."""
    before = reserved_bytes(runtime.device)
    runtime.adapters.clear()
    runtime.classifiers.clear()
    runtime.faces.clear()
    drop_caches(runtime.device)
    after = reserved_bytes(runtime.device)
    if before is not None and after is not None and after < before:
        yield f"emptied caches of {before - after} bytes"
    for done in runtime.models.relieve():
        drop_caches(runtime.device)
        yield done
    if tools.action == "inference.decode" and tools.profile.tiles is Tiles.WHEN_SHORT and not in_tiles(tools):
        runtime.peaks.ran_out(_model_of(tools), _pixels(tools))
        yield "the autoencoder decodes in tiles, which moves bits: the file's exactness says so"
    upscaler = tools.data.get("input", {}).get("upscaler")
    # By the name of a filter it takes no device's memory.
    if isinstance(upscaler, dict):
        while (side := runtime.peaks.shorten_tiles(upscaler, tools.input.get("tile"))) is not None:
            yield f"the picture is enlarged in tiles of {side} pixels at most"
    for done in runtime.models.cut():
        drop_caches(runtime.device)
        yield done


def in_tiles(tools: Tools) -> bool:
    """Whether the autoencoder computes in tiles for this request: by its profile, and where that leaves it open, by
    what has run out of memory here."""
    how = tools.profile.tiles
    short = how is Tiles.WHEN_SHORT and tools.action == "inference.decode"
    return how is Tiles.ALWAYS or (short and tools.runtime.peaks.runs_out(_model_of(tools), _pixels(tools)))


def used(tools: Tools) -> dict[str, str]:
    """What of its memory profile a request used, for the receipt: {profile, offload}."""
    return {"profile": tools.profile_name, "offload": tools.runtime.models.offload.word}


def _model_of(tools: Tools) -> ModelKey:
    """The model that draws."""
    reference = tools.input["model"]
    return reference["id"], reference["body_hash"]


def _pixels(tools: Tools) -> int:
    return tools.input["width"] * tools.input["height"]


def room(device: torch.device, peaks: Peaks, limit: int | None, held: int) -> int | None:
    """Bytes that models may take beyond the `held` ones: up to the `limit` that was set, and to what the device has
    free beside a picture. None where nobody knows."""
    left = None if limit is None else limit - held
    if device.type != "cuda":
        return left
    import torch

    free, total = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device)
    # A process may have been given a part of the device.
    allowed = int(torch.cuda.get_per_process_memory_fraction(device) * total)
    free = min(free, allowed - reserved) + reserved - torch.cuda.memory_allocated(device) - peaks.kept(min(total, allowed))
    return free if left is None else min(free, left)


def _allocated(device: torch.device) -> dict[str, int]:
    """Bytes that tensors have on a CUDA device: `current`, and the `peak` since that was set back. Two of a hundred
    figures, all of which torch sorts by name for `memory_allocated`."""
    import torch

    return torch.cuda.memory_stats_as_nested_dict(device)["allocated_bytes"]["all"]


class Peaks:
    """What requests take of a device beyond the weights that are there."""

    def __init__(self, device: torch.device):
        self._device = device
        self._before = 0
        self._highest = 0
        # By model the least pixels whose decode has run out of memory.
        self._short: dict[ModelKey | None, int] = {}
        # By upscaler the side of the largest tiles that there may be memory for.
        self._tiles: dict[ModelKey, int] = {}

    def begin(self) -> None:
        """A request begins."""
        if self._device.type == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = _allocated(self._device)["current"]

    def end(self, held: int) -> int:
        """The most that it took, bytes. `held`: of tensors that it said it holds; where there is no device but the CPU,
        nothing else is known."""
        if self._device.type != "cuda":
            return held
        peak = max(0, _allocated(self._device)["peak"] - self._before)
        self._highest = max(self._highest, peak)
        return peak

    def ran_out(self, key: ModelKey, pixels: int) -> None:
        """A picture of so many pixels could not be decoded whole."""
        self._short[key] = min(pixels, self._short.get(key, pixels))

    def runs_out(self, key: ModelKey, pixels: int) -> bool:
        """Whether one so large, or a smaller one, could not be before."""
        return key in self._short and pixels >= self._short[key]

    def largest_tile(self, upscaler: Mapping[str, Any]) -> int | None:
        """Side of the largest tiles that this upscaler, {id, body_hash}, has memory for; None while none ran out."""
        return self._tiles.get((upscaler["id"], upscaler["body_hash"]))

    def shorten_tiles(self, upscaler: Mapping[str, Any], asked: int | None) -> int | None:
        """Tiles as large as they were have run out of memory: half the side from now on, which is returned; None when
        there are no smaller ones. `asked`: the side that the request says."""
        side = min(self.largest_tile(upscaler) or asked or TILE_SIDES[0], asked or TILE_SIDES[0]) // 2
        if side < TILE_SIDES[-1]:
            return None
        self._tiles[(upscaler["id"], upscaler["body_hash"])] = side - side % TILE_SIDES[-1]
        return self.largest_tile(upscaler)

    def kept(self, total: int) -> int:
        """What models leave free of a device with `total` bytes: the most that a request took, or until one has been
        measured, a part of it."""
        return self._highest or total // PICTURE_SHARE


def drop_caches(device: torch.device) -> None:
    """Gives back what no tensor needs, and recorded graphs, which the next forwards record again."""
    graphs.drop_all()
    empty_caches(device)


def empty_caches(device: torch.device) -> None:
    """Gives back what no tensor needs."""
    gc.collect()
    if device.type == "cuda":
        import torch

        torch.cuda.empty_cache()


def allocated_bytes(device: torch.device) -> int | None:
    """In tensors. None where there is no device but the CPU."""
    if device.type != "cuda":
        return None
    import torch

    return torch.cuda.memory_allocated(device)


def reserved_bytes(device: torch.device) -> int | None:
    """Taken from the device: tensors, and what the allocator keeps. None where there is no device but the CPU."""
    if device.type != "cuda":
        return None
    import torch

    return torch.cuda.memory_reserved(device)
