"""How fast a model is here: its load, its calls, its decode, and the memory that they take at most. A picture is drawn
as a session would draw it, and thrown away."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import torch

from darkroom import exactness, frames, memory
from darkroom.drawing import Drawing
from darkroom.families import Family
from darkroom.profiles import Offload
from darkroom.tools import ModelKey, Tools, inside

Made = TypeVar("Made")

# So many warm loads, unless they take as long together, seconds.
WARM_LOADS, WARM_S = 5, 20.0


class Pace(NamedTuple):
    """Seconds of one picture: both texts, its first call, the median of those after it, and its pixels."""

    encode_s: float
    first_call_s: float
    call_s: float
    decode_s: float


def benchmark(tools: Tools) -> dict[str, Any]:
    """model.benchmark: `cold_load_s` of a model that was never here, its networks made and the files read from their
    disk; `warm_load_s` of one whose networks are made, with the weights from RAM (the worker's cache where it has the
    model, else the system's), the median of several; seconds of the parts of a picture, `peak_bytes` as `_peak` says.
    Networks that do not fit together come when they are used: then a warm load makes them, too.

    The model is let go of several times, and stays resident at the end. Raises as `Models.get` and `inference.denoise`;
    Cancelled.
    """
    models, reference = tools.runtime.models, tools.input["model"]
    key: ModelKey = (reference["id"], reference["body_hash"])
    files = _files_of(reference, tools.runtime.roots["models"])
    calls = WARM_LOADS + 2

    def load(number: int, is_new: bool) -> tuple[Family, float]:
        tools.check_stop()
        tools.progress("measure", call=number, calls=calls)
        models.forget(key) if is_new else models.strip(key)
        return models.get(reference, tools)

    # What a process does once, such as to register the cache's memory with the driver, is no part of a load.
    load(0, is_new=True)
    warm: list[float] = []
    while len(warm) < WARM_LOADS and sum(warm) < WARM_S:
        warm.append(load(1 + len(warm), is_new=models.offload > Offload.NONE)[1])
    # None of it comes from the worker's cache, which is offered again with the next step.
    models.weights.offer(())
    models.forget(key)
    is_forgotten = _forget(files)
    models.weights.measure()
    model, cold_s = load(calls - 1, is_new=True)
    is_cold = is_forgotten and models.weights.measure().ram == 0
    tools.progress("measure", call=calls, calls=calls)
    warm_s = statistics.median(warm)
    with _peak(tools.runtime.device) as peak:
        pace = _draw(model, tools)
    output = {"bytes": model.bytes, "is_cold": is_cold, "cold_load_s": cold_s, "warm_load_s": warm_s, **pace._asdict()}
    return frames.result({**output, "peak_bytes": peak()})


def optimize(tools: Tools) -> dict[str, Any]:
    """model.optimize: draws until nothing is done for the first time any more (kernels chosen, caches filled), then
    gives back what that left in the allocator. `before` and `after`: seconds of the first picture, and of the last.

    Precision and attention are told, not changed: pictures follow from them, and what was promised holds. Raises as
    `Models.get` and `inference.denoise`; Cancelled.
    """
    runtime = tools.runtime
    model, _ = runtime.models.get(tools.input["model"], tools)
    reserved = memory.reserved_bytes(runtime.device)
    first = _draw(model, tools)
    after = _draw(model, tools)
    grown = memory.reserved_bytes(runtime.device)
    memory.empty_caches(runtime.device)
    kept = memory.reserved_bytes(runtime.device)
    settings = exactness.settings(runtime.device)
    return frames.result(
        {
            "bytes": model.bytes,
            "precision": settings["dtype"],
            "attention": settings["attention"],
            "before": {**first._asdict(), "reserved_bytes": reserved},
            "after": {**after._asdict(), "reserved_bytes": kept},
            "freed_bytes": None if grown is None or kept is None else max(0, grown - kept),
        }
    )


def _draw(model: Family, tools: Tools) -> Pace:
    """One picture, its work waited for part by part."""
    runtime, request = tools.runtime, tools.input
    with torch.inference_mode():
        encoded, encode_s = _timed(runtime.device, lambda: model.encode({**request, "negative_prompt": ""}, tools)[0])
        conditioning = model.condition(encoded, request)
        drawing = Drawing(model, runtime, request)
        drawing.begin()
        calls: list[float] = []
        while drawing.call < drawing.calls:
            tools.check_stop()
            calls.append(_timed(runtime.device, lambda: drawing.advance(model, conditioning))[1])
            tools.progress("run", call=drawing.call, calls=drawing.calls, rate=round(1 / max(calls[-1], 1e-6), 3))
        tools.check_stop()
        _, decode_s = _timed(runtime.device, lambda: model.decode(drawing.latents, tools))
    # The first ones may make recordings and choose kernels.
    return Pace(encode_s, calls[0], statistics.median(calls[1:] or calls), decode_s)


def _timed(device: torch.device, act: Callable[[], Made]) -> tuple[Made, float]:
    """What it returns, and the seconds until the device has done it."""
    _wait(device)
    started = time.monotonic()
    made = act()
    _wait(device)
    return made, time.monotonic() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def _peak(device: torch.device) -> Generator[Callable[[], int | None]]:
    """Bytes at most, within: in tensors of the device; where there is none but the CPU, of the process in RAM, as Linux
    counts it (`VmHWM` of proc(5), which writing 5 to `clear_refs` begins anew); None elsewhere."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: torch.cuda.max_memory_allocated(device)
        return
    is_counted = False
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
        is_counted = True
    yield lambda: _most_resident() if is_counted else None


def _most_resident() -> int | None:
    with contextlib.suppress(OSError, StopIteration), open("/proc/self/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return None


def _files_of(reference: Mapping[str, Any], roots: list[str]) -> list[str]:
    """The regular files of a model that lie in the roots, those of its parts that lie elsewhere too."""
    path = reference["path"]
    files = [path] if os.path.isfile(path) else [os.path.join(at, name) for at, _, names in os.walk(path) for name in names]
    files += [part["weights"]["path"] for part in reference.get("parts") or () if part["weights"]]
    return [file for file in files if os.path.isfile(file) and inside(file, roots) is not None]


def _forget(files: Iterable[str]) -> bool:
    """Has the system forget what it keeps of these files in RAM; whether it could be asked for all of them. Others that
    have them open are not disturbed."""
    if not hasattr(os, "posix_fadvise"):
        return False
    is_forgotten = True
    for file in files:
        try:
            descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            is_forgotten = False
            continue
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError:
            is_forgotten = False
        finally:
            os.close(descriptor)
    return is_forgotten
