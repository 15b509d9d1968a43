"""Text to conditioning, noise to latents, latents to pixels: one image per forward, so that an image is the same alone
or among others.

What is computed is the model's family's; here are the loop, its checkpoints, its pace, and the files that steps hand
on.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import torch

from darkroom import checkpoint, frames, tensors
from darkroom.errors import DarkroomError, Paused
from darkroom.families import Conditioning, Family
from darkroom.runtime import Runtime
from darkroom.samplers import step_options
from darkroom.tools import Tools

# Calls that rate and time left are reckoned from.
RECENT = 8


def encode(tools: Tools) -> dict[str, Any]:
    """inference.encode: file `conditioning`, safetensors with the tensors of the family's `encode`, fp32.

    Raises as `Models.get`; Cancelled, and Paused with nothing to go on from.
    """
    model, load_s = tools.runtime.models.get(tools.input["model"], tools)
    tools.check_stop(can_pause=True)
    started = time.monotonic()
    tools.progress("run")
    with torch.inference_mode():
        conditioning, heard = model.encode(tools.input["prompt"], tools.input["negative_prompt"], tools)
    file = tools.write("conditioning.safetensors", tensors.save(conditioning, {"belongs": _conditioning_belongs(tools)}))
    stats = {"seconds": time.monotonic() - started, "load_s": load_s, "tokens": heard}
    return frames.result(files={"conditioning": file}, stats=stats)


def denoise(tools: Tools) -> dict[str, Any]:
    """inference.denoise: file `latents`, safetensors with `latents`, [1, channels, rows, columns] fp32.

    Raises `inference.diverged`, `inference.sampler_unknown`, `inference.schedule_unfit` and as `Models.get`; Cancelled,
    and Paused with the checkpoint that holds all that was done.
    """
    model, load_s = tools.runtime.models.get(tools.input["model"], tools)
    started = time.monotonic()
    tools.progress("run")
    with torch.inference_mode():
        latents, stats = _denoise(model, tools)
    file = tools.write("latents.safetensors", tensors.save({"latents": latents}, {"belongs": _latents_belong(tools)}))
    return frames.result(files={"latents": file}, stats={**stats, "load_s": load_s, "seconds": time.monotonic() - started})


def decode(tools: Tools) -> dict[str, Any]:
    """inference.decode: file `pixels`, RGB8 row by row, width · height · 3 bytes.

    Raises `artifact.missing` when the latents are missing, broken or of another model, build or hardware class;
    `inference.diverged`, and as `Models.get`; Cancelled, and Paused with nothing to go on from.
    """
    latents = _given_latents(tools)
    model, load_s = tools.runtime.models.get(tools.input["model"], tools)
    tools.check_stop(can_pause=True)
    started = time.monotonic()
    tools.progress("run")
    width, height = tools.input["width"], tools.input["height"]
    expected = model.latent_shape(width, height)
    if tuple(latents.shape) != expected:
        raise _unusable_latents(f"their shape is {list(latents.shape)}, not {list(expected)}")
    with torch.inference_mode():
        image = model.decode(latents, tools)
        tools.hold([image])
        _check_finite(image, "the decoded picture")
        rgb = (image / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0)
        content = rgb.contiguous().cpu().numpy().tobytes()
    file = tools.write("pixels.rgb", content)
    stats = {"seconds": time.monotonic() - started, "load_s": load_s}
    return frames.result(files={"pixels": file}, stats=stats)


class Drawing:
    """One image under way: what every call moves on, and what a checkpoint holds."""

    def __init__(self, model: Family, runtime: Runtime, request: Mapping[str, Any]):
        self._device = runtime.device
        self._generator = torch.Generator("cpu").manual_seed(request["seed"])
        self._scheduler = model.schedule.scheduler(request["sampler"], request["steps"])
        self._options = step_options(self._scheduler, self._generator)
        self._identity = {
            "model": request["model"]["body_hash"],
            "request": {name: value for name, value in request.items() if name != "model"},
            "fingerprint": runtime.facts,
        }
        self._shape = model.latent_shape(request["width"], request["height"])
        self.latents: torch.Tensor = torch.empty(0)
        self.call = 0
        self.calls = len(self._scheduler.timesteps)

    def begin(self) -> None:
        """Noise: drawn on the CPU in fp32, so that a seed means the same on every device."""
        noise = torch.randn(self._shape, generator=self._generator, dtype=torch.float32)
        self.latents = (noise * float(self._scheduler.init_noise_sigma)).to(self._device)

    def resume(self, content: bytes, given: Mapping[str, Any]) -> None:
        """Raises checkpoint.CheckpointRefused; `begin` is then still possible."""
        self.latents = checkpoint.restore(content, given, self._scheduler, self._generator, self._identity, self._device)
        self.call = given["call"]

    def advance(self, model: Family, conditioning: Conditioning) -> None:
        """One call: latents [1, channels, rows, columns] fp32 to the next ones."""
        t = self._scheduler.timesteps[self.call]
        predicted = model.predict(self._scheduler.scale_model_input(self.latents, t), t, conditioning)
        self.latents = self._scheduler.step(predicted, t, self.latents, **self._options, return_dict=False)[0]
        self.call += 1

    def snapshot(self) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """What `tensors.save` takes. Raises `inference.diverged` rather than keep what no call can mend."""
        self.check()
        return checkpoint.snapshot(self.latents, self._generator, self._scheduler, self.call, self._identity)

    def check(self) -> None:
        """Raises `inference.diverged` when a latent is not finite."""
        _check_finite(self.latents, f"the latents after call {self.call}")

    def tensors(self) -> list[torch.Tensor]:
        """Everything it holds on the device and beside it."""
        return [self.latents, *checkpoint.tensors_of(vars(self._scheduler))]


class Pace:
    """How fast it goes. Keeps the host at most one call ahead of the device, so that pause, progress and the watchdog
    speak of what has happened.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._last: torch.cuda.Event | None = None
        self._ends = deque([time.monotonic()], RECENT + 1)

    def wait(self) -> None:
        """After a call."""
        if self._device.type == "cuda":
            event = torch.cuda.Event()
            event.record()
            if self._last is not None:
                self._last.synchronize()
            self._last = event
        self._ends.append(time.monotonic())

    def figures(self, left: int) -> dict[str, float]:
        """{rate, eta_s}: calls a second, and seconds that the `left` calls take, from the latest calls and what came
        between them."""
        rate = (len(self._ends) - 1) / max(self._ends[-1] - self._ends[0], 1e-6)
        return {"rate": round(rate, 3), "eta_s": round(left / rate, 3)}


def _denoise(model: Family, tools: Tools) -> tuple[torch.Tensor, dict[str, Any]]:
    """(latents, stats). Raises Cancelled, or Paused with the checkpoint that holds all that was done."""
    runtime, request = tools.runtime, tools.input
    drawing = Drawing(model, runtime, request)
    encoded, stats = _encoded(model, tools)
    stats["checkpoint_refused"] = _begin(drawing, tools)
    stats["resumed_from"] = first = drawing.call
    conditioning = model.condition(encoded, request["guidance"])
    pace = Pace(runtime.device)

    def save() -> None:
        snapshot = drawing.snapshot()
        tools.save_checkpoint(drawing.call, lambda: tensors.save(*snapshot))

    tools.hold([*encoded.values(), *conditioning.tensors.values(), *drawing.tensors()])
    while drawing.call < drawing.calls:
        tools.check_stop()
        if tools.stop == "pause":
            if drawing.call == first:
                raise Paused
            save()
            raise Paused(tools.finish_checkpoints())
        drawing.advance(model, conditioning)
        tools.hold(drawing.tensors())
        pace.wait()
        tools.progress("run", call=drawing.call, calls=drawing.calls, **pace.figures(drawing.calls - drawing.call))
        if drawing.call < drawing.calls and tools.checkpoint_due(drawing.call):
            save()
    drawing.check()
    tools.finish_checkpoints()
    return drawing.latents, {**stats, "calls": drawing.calls - first}


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
    made, heard = model.encode(tools.input["prompt"], tools.input["negative_prompt"], tools)
    return made, {"remade": ["conditioning"], "tokens": heard}


def _given_latents(tools: Tools) -> torch.Tensor:
    content, problem = tools.read("latents")
    if content is None:
        raise _unusable_latents(problem)
    try:
        given, metadata = tensors.load(content)
    except tensors.Unreadable as error:
        raise _unusable_latents(str(error)) from error
    if "latents" not in given or metadata.get("belongs") != _latents_belong(tools):
        raise _unusable_latents("they belong to another model, build or hardware class")
    return given["latents"]


def _unusable_latents(problem: str | None) -> DarkroomError:
    return DarkroomError("artifact.missing", f"the latents cannot be used: {problem}", field="files.latents")


def _conditioning_belongs(tools: Tools) -> str:
    request = tools.input
    return checkpoint.digest([request["model"]["body_hash"], request["prompt"], request["negative_prompt"], tools.runtime.facts])


def _latents_belong(tools: Tools) -> str:
    return checkpoint.digest([tools.input["model"]["body_hash"], tools.runtime.facts])


def _check_finite(tensor: torch.Tensor, name: str) -> None:
    if not bool(tensor.isfinite().all()):
        raise DarkroomError("inference.diverged", f"{name} holds a number that is not finite")
