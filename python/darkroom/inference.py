"""Text to conditioning, pictures and noise to latents, latents to pixels: one image per forward, so that an image is
the same alone or among others.

What is computed is the model's family's; here are the loop, its checkpoints, its pace, and the files that steps hand
on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy
import torch

from darkroom import (
    adapters,
    checkpoint,
    control,
    enlarging,
    fast,
    frames,
    graphs,
    memory,
    pictures,
    preprocessors,
    previews,
    references,
    tensors,
    training,
)
from darkroom import textual_inversion as inversion
from darkroom.drawing import Drawing, check_finite
from darkroom.errors import DarkroomError, Paused
from darkroom.families import Family, tiles
from darkroom.guidance import Led, is_guided
from darkroom.pace import Pace
from darkroom.tools import Tools


def encode(tools: Tools) -> dict[str, Any]:
    """inference.encode: file `conditioning`, safetensors with the tensors of the family's `encode`, fp32.

    Raises as `Models.get` and `adapters.wear`; Cancelled, and Paused with nothing to go on from.
    """
    model, load_s = tools.runtime.models.get(tools.input["model"], tools)
    tools.check_stop(can_pause=True)
    started = time.monotonic()
    tools.progress("run")
    for note in adapters.wear(tools, adapters.TEXT_ENCODERS):
        tools.note(note)
    with torch.inference_mode(), inversion.heard(model, tools):
        conditioning, heard = model.encode(tools.input, tools)
    file = tools.write("conditioning.safetensors", tensors.save(conditioning, {"belongs": _conditioning_belongs(tools)}))
    stats = {"seconds": time.monotonic() - started, "load_s": load_s, "tokens": heard}
    return frames.result(files={"conditioning": file}, stats=stats)


def encode_picture(tools: Tools) -> dict[str, Any]:
    """inference.encode_picture: file `picture_latents`, safetensors fp32 with `latents`, [1, channels, rows, columns];
    with a mask `mask`, [1, 1, rows, columns], 1 where it is drawn anew; for a network for inpainting `masked`, shaped
    as `latents`, of the picture that is grey there.

    Raises `inference.picture_unreadable`, `inference.mask_empty` and as `Models.get`; Cancelled, and Paused with
    nothing to go on from.
    """
    model, load_s = tools.runtime.models.get(tools.input["model"], tools)
    tools.check_stop(can_pause=True)
    started = time.monotonic()
    tools.progress("run")
    with torch.inference_mode(), tiles.tiling(memory.in_tiles(tools), tools.advance) as tiling:
        made = _picture_latents(model, pictures.canvas(tools), tools)
    file = tools.write("picture_latents.safetensors", tensors.save(made, {"belongs": _picture_belongs(tools)}))
    stats = {"seconds": time.monotonic() - started, "load_s": load_s, "tiles": tiling.count}
    return frames.result(files={"picture_latents": file}, stats=stats)


def preprocess(tools: Tools) -> dict[str, Any]:
    """inference.preprocess: file `pixels`, RGB8 row by row, width · height · 3 bytes: what a ControlNet is shown.

    Raises `inference.picture_unreadable`, and as `preprocessors.of` of one that is a network; Cancelled, and
    Paused with nothing to go on from.
    """
    network, load_s = preprocessors.of(tools.input, tools)
    tools.check_stop(can_pause=True)
    started = time.monotonic()
    tools.progress("run")
    made = pictures.control(tools, "picture", tools.input, (tools.input["width"], tools.input["height"]), network)
    file = tools.write("pixels.rgb", made.tobytes())
    stats = {"seconds": time.monotonic() - started, **({} if network is None else {"load_s": load_s})}
    return frames.result(files={"pixels": file}, stats=stats)


def denoise(tools: Tools) -> dict[str, Any]:
    """inference.denoise: file `latents`, safetensors with `latents`, [1, channels, rows, columns] fp32.

    Raises `inference.diverged`, `inference.sampler_unknown`, `inference.schedule_unfit`, `inference.request_unfit`,
    `model.unusable` and as `Models.get` and `adapters.wear`; Cancelled, and Paused with the checkpoint that holds all
    that was done. With a `picture`, `artifact.missing` when its latents cannot be used; with ControlNets as
    `control.seen` and `control.of_request`.
    """
    seen = control.seen(tools)
    model, load_s = tools.runtime.models.get(tools.input["model"], tools)
    started = time.monotonic()
    tools.progress("run")
    adapters.wear(tools)
    with torch.inference_mode():
        latents, stats = _denoise(model, tools, seen)
    file = tools.write("latents.safetensors", tensors.save({"latents": latents}, {"belongs": _latents_belong(tools)}))
    return frames.result(files={"latents": file}, stats={**stats, "load_s": load_s, "seconds": time.monotonic() - started})


def enlarge(tools: Tools) -> dict[str, Any]:
    """inference.enlarge: file `picture_latents` as `encode_picture` makes it, of the latents of a smaller picture.

    Raises `artifact.missing` as `decode`, `inference.diverged` and as `Models.get`; Cancelled, and Paused with nothing
    to go on from.
    """
    latents = _given_latents(tools)
    model, load_s = tools.runtime.models.get(tools.input["model"], tools)
    tools.check_stop(can_pause=True)
    started = time.monotonic()
    tools.progress("run")
    _check_shape(latents, model.latent_shape(**tools.input["from"]))
    with torch.inference_mode(), tiles.tiling(memory.in_tiles(tools), tools.advance):
        made = enlarging.enlarged(model, latents, tools)
        check_finite(made, "the enlarged latents")
    content = tensors.save({"latents": made.float().cpu()}, {"belongs": _enlarged_belong(tools)})
    file = tools.write("picture_latents.safetensors", content)
    return frames.result(files={"picture_latents": file}, stats={"seconds": time.monotonic() - started, "load_s": load_s})


def decode(tools: Tools) -> dict[str, Any]:
    """inference.decode: file `pixels`, RGB8 row by row, width · height · 3 bytes. With a `mask` they are pasted back
    onto the files `picture` and `mask`: where the masked area alone is drawn, the pixels are as many as the picture's.
    `tiles`: in how many pieces the autoencoder computed; 0 where it did in none, and the bits are the usual ones.

    Raises `artifact.missing` when the latents are missing, broken or of another model, build or hardware class;
    `inference.diverged`, `inference.picture_unreadable` and as `Models.get`; Cancelled, and Paused with nothing to go
    on from.
    """
    latents = _given_latents(tools)
    model, load_s = tools.runtime.models.get(tools.input["model"], tools)
    tools.check_stop(can_pause=True)
    started = time.monotonic()
    tools.progress("run")
    _check_shape(latents, model.latent_shape(tools.input["width"], tools.input["height"]))
    with torch.inference_mode():
        with tiles.tiling(memory.in_tiles(tools), tools.advance) as tiling:
            image = model.decode(latents, tools)
        tools.hold([image])
        tools.settle()
        check_finite(image, "the decoded picture")
        drawn = pictures.rgb(image)
    mask = tools.input.get("mask")
    pixels = drawn if mask is None else pictures.canvas(tools).paste(drawn, mask["blur"])
    file = tools.write("pixels.rgb", numpy.ascontiguousarray(pixels).data.cast("B"))
    stats = {"seconds": time.monotonic() - started, "load_s": load_s, "tiles": tiling.count}
    return frames.result({"tiles": tiling.count}, files={"pixels": file}, stats=stats)


def train(tools: Tools) -> dict[str, Any]:
    """inference.train: as `training.train`."""
    return training.train(tools)


def _denoise(model: Family, tools: Tools, seen: Mapping[int, numpy.ndarray]) -> tuple[torch.Tensor, dict[str, Any]]:
    """(latents, stats). Raises Cancelled, or Paused with the checkpoint that holds all that was done."""
    runtime, request = tools.runtime, tools.input
    picture = _given_picture(tools)
    drawing = Drawing(model, runtime, request, picture, ("references" in request or "control" in request) and memory.in_tiles(tools))
    encoded, stats = _encoded(model, tools)
    stats["checkpoint_refused"] = _begin(drawing, tools)
    stats["resumed_from"] = first = drawing.call
    led = Led(model, encoded, request, drawing.calls)
    led.steer(control.of_request(model, tools, seen))
    led.add(**references.of_request(model, tools))
    if picture is not None and model.paints:
        led.add(painting=torch.cat([picture["mask"], picture["masked"]], 1).to(runtime.device))
    captures, replays = graphs.counts()
    pace = Pace(runtime.device, runtime.turn)

    def save() -> None:
        tools.save_checkpoint(drawing.call, drawing.snapshot(previews.look(model, drawing.seen, tools)))

    tools.hold([*encoded.values(), *led.tensors(), *drawing.tensors()])
    with fast.drawing(model, tools) as used:
        if used is not None and used.cache is not None and first > 0:
            tools.note(f"the picture goes on from call {first} with a step cache that is empty")
        while drawing.call < drawing.calls:
            tools.check_stop()
            if tools.stop == "pause":
                if drawing.call == first:
                    raise Paused
                save()
                raise Paused(tools.finish_checkpoints())
            if used is not None:
                used.begin_call()
            drawing.advance(model if used is None else used.model(model), led.at(drawing.call))
            tools.hold([*drawing.tensors(), *(used.tensors() if used is not None else ())])
            pace.wait()
            tools.progress("run", call=drawing.call, calls=drawing.calls, **pace.figures(drawing.calls - drawing.call))
            if drawing.call < drawing.calls:
                previews.show(model, drawing.seen, drawing.call, tools)
                if tools.checkpoint_due(drawing.call):
                    save()
    tools.settle()
    drawing.check()
    stats |= used.stats() if used is not None else {}
    tools.finish_checkpoints()
    now = graphs.counts()
    stats |= {"calls": drawing.calls - first, "graph_captures": now[0] - captures, "graph_replays": now[1] - replays}
    return drawing.latents, stats


def _begin(drawing: Drawing, tools: Tools) -> str | None:
    """From the checkpoint that was given, or from noise. Returns why a checkpoint was refused, None when none was."""
    try:
        found = tools.read_checkpoint()
        if found is not None:
            drawing.resume(*found)
            return None
    except (OSError, checkpoint.CheckpointRefused) as error:
        tools.log.warning("a checkpoint was refused: %s", error, extra={"request_id": tools.request_id})
        drawing.begin()
        return str(error)
    drawing.begin()
    return None


def _encoded(model: Family, tools: Tools) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(encoded texts, stats): the hint that was given when it belongs to this request, model and class; else encoded
    again."""
    content, problem = tools.read("conditioning")
    if content is not None:
        try:
            given, metadata = tensors.load(content)
            if metadata.get("belongs") == _conditioning_belongs(tools):
                return given, {"remade": []}
            problem = "it belongs to another request, model or class"
        except tensors.Unreadable as error:
            problem = str(error)
    tools.log.info("the conditioning is made again: %s", problem, extra={"request_id": tools.request_id})
    with inversion.heard(model, tools):
        made, heard = model.encode(tools.input, tools)
    return made, {"remade": ["conditioning"], "tokens": heard}


def _picture_latents(model: Family, canvas: pictures.Canvas, tools: Tools) -> dict[str, torch.Tensor]:
    mask = canvas.drawn()
    fill = (tools.input.get("mask") or {}).get("fill", "original")
    pixels = pictures.signed(canvas.pixels(fill), tools.runtime.device)
    shape = model.latent_shape(tools.input["width"], tools.input["height"])
    latents = model.encode_picture(pixels)
    if latents.shape != shape:
        latents = torch.nn.functional.interpolate(latents, shape[2:], mode="bilinear")
    made = {"latents": latents}
    if mask is not None:
        made["mask"] = torch.from_numpy(pictures.cells(mask, *shape[2:])).float()[None, None]
        if model.paints:
            seen = pictures.signed(canvas.pixels(), tools.runtime.device) * torch.from_numpy(~mask).to(tools.runtime.device)
            made["masked"] = model.encode_picture(seen)
    tools.hold(made.values())
    check_finite(latents, "the latents of the picture")
    return {name: tensor.float().cpu() for name, tensor in made.items()}


def _given_picture(tools: Tools) -> dict[str, torch.Tensor] | None:
    """None for a request without a picture, and that draws over none of its own."""
    if "enlarged" in tools.input:
        return _given(tools, "picture_latents", _enlarged_belong(tools))
    return _given(tools, "picture_latents", _picture_belongs(tools)) if "picture" in tools.input else None


def _given_latents(tools: Tools) -> torch.Tensor:
    return _given(tools, "latents", _latents_belong(tools))["latents"]


def _given(tools: Tools, file: str, belongs: str) -> dict[str, torch.Tensor]:
    """An input file, one of whose tensors is `latents`. Raises `artifact.missing`: the node has it made again."""
    content, problem = tools.read(file)
    if content is None:
        raise _unusable(file, problem)
    try:
        given, metadata = tensors.load(content)
    except tensors.Unreadable as error:
        raise _unusable(file, str(error)) from error
    if "latents" not in given or metadata.get("belongs") != belongs:
        raise _unusable(file, "they belong to another model, build or hardware class, or to another request")
    return given


def _unusable(file: str, problem: str | None) -> DarkroomError:
    return DarkroomError("artifact.missing", f"the {file.replace('_', ' ')} cannot be used: {problem}", field=f"files.{file}")


def _facts(tools: Tools) -> dict[str, Any]:
    """What must be shared by whoever goes on from a file of this request."""
    return fast.facts_of(tools.runtime.facts, tools.input)


def _conditioning_belongs(tools: Tools) -> str:
    request = tools.input
    asked = {name: request.get(name) for name in ("prompt", "negative_prompt", "prompt_syntax", "clip_skip")}
    asked["guided"] = is_guided(request)
    beside = {**adapters.pinned(request), **({"references": request["references"]} if "references" in request else {})}
    return checkpoint.digest([request["model"]["body_hash"], asked, *beside.items(), _facts(tools)])


def _picture_belongs(tools: Tools) -> str:
    fields = {name: tools.input.get(name) for name in ("picture", "resize", "mask", "width", "height")}
    if memory.in_tiles(tools):
        fields["tiles"] = True
    return checkpoint.digest([tools.input["model"]["body_hash"], fields, _facts(tools)])


def _enlarged_belong(tools: Tools) -> str:
    size = [tools.input["width"], tools.input["height"]]
    return checkpoint.digest([tools.input["model"]["body_hash"], "enlarged", size, _facts(tools)])


def _latents_belong(tools: Tools) -> str:
    return checkpoint.digest([tools.input["model"]["body_hash"], _facts(tools)])


def _check_shape(latents: torch.Tensor, expected: tuple[int, ...]) -> None:
    if tuple(latents.shape) != expected:
        raise _unusable("latents", f"their shape is {list(latents.shape)}, not {list(expected)}")
