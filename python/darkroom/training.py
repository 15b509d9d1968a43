"""Training a LoRA: a low-rank difference of the network that draws, learned from captioned pictures.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685. Each example is a picture's
latents under noise of a time drawn at random, and the network is to predict what its schedule says: Ho, Jain and Abbeel
2020, "Denoising Diffusion Probabilistic Models", arXiv 2006.11239, equation 14, with the target of the model's
prediction type.

Whatever is random follows from the seed and the number of the step alone, so a run that goes on from a checkpoint
computes the same bits as one that was never interrupted.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from darkroom import adapters, checkpoint, frames, pictures, tensors
from darkroom.checkpoint import CheckpointRefused
from darkroom.drawing import Drawing, check_finite
from darkroom.errors import DarkroomError, Paused
from darkroom.families import Conditioning, Family
from darkroom.families.unet import UNetFamily
from darkroom.guidance import Led
from darkroom.pace import Pace
from darkroom.schedule import Schedule
from darkroom.tools import Tools

FORMAT = "darkroom training 1"
# The projections of each attention, as diffusers names them.
TARGETS = (".to_q", ".to_k", ".to_v", ".to_out.0")
# Gradients of a network in half precision would vanish; these are as many times larger, and brought back in fp32.
SCALE_OF_HALF = 4096.0
BETAS, EPSILON, DECAY = (0.9, 0.999), 1e-8, 0.01
MOST_SEED = 2**63


def train(tools: Tools) -> dict[str, Any]:
    """Files `adapter`, safetensors under kohya's names with metadata; `pixels`, RGB8 row by row, the
    sample drawn with it. `loss`: mean of the last tenth of the steps.

    Raises `inference.request_unfit` for a model whose network is no UNet of text to image, or does not fit onto the
    device as a whole; `inference.picture_unreadable`, `inference.diverged` and as `Models.get`; Cancelled, and Paused
    with the checkpoint that holds all that was done.
    """
    model, load_s = tools.runtime.models.get(tools.input["model"], tools)
    started = time.monotonic()
    tools.progress("run")
    # Nothing but the model's own weights is learned upon.
    adapters.wear(tools)
    network, schedule = _learner(model, tools)
    examples = Examples(model, tools)
    lora = Lora(network, tools)
    refused = _begin(lora, tools)
    first = lora.step
    loss = _learn(model, network, schedule, examples, lora, tools)
    with lora.worn():
        pixels = _sample(model, tools)
    files = {
        "adapter": tools.write("adapter.safetensors", lora.file(tools, model)),
        "pixels": tools.write("pixels.rgb", pixels),
    }
    stats = {
        "seconds": time.monotonic() - started,
        "load_s": load_s,
        "calls": lora.step - first,
        "resumed_from": first,
        "checkpoint_refused": refused,
    }
    return frames.result({"loss": loss}, files=files, stats=stats)


class Examples:
    """The captioned pictures: latents, [1, channels, rows, columns] fp32, and what the network hears of the caption."""

    def __init__(self, model: Family, tools: Tools):
        request = tools.input
        size = (request["width"], request["height"])
        self._made: list[tuple[torch.Tensor, Conditioning]] = []
        with torch.no_grad():
            for index, example in enumerate(request["examples"]):
                tools.check_stop(can_pause=True)
                tools.advance()
                shown = pictures.control(tools, f"picture{index}", {"picture": example["picture"], "resize": "crop"}, size)
                latents = model.encode_picture(pictures.signed(shown, tools.runtime.device))
                check_finite(latents, f"the latents of picture {index}")
                encoded, _ = model.encode({"prompt": example["caption"], "negative_prompt": ""}, tools)
                self._made.append((latents, model.condition(encoded, {**request, "guidance": 1.0})))
        tools.hold([latents for latents, _ in self._made])

    def at(self, number: int, seed: int) -> tuple[torch.Tensor, Conditioning]:
        """Example `number` of the run: each once an epoch, in an order that the epoch decides."""
        epoch, place = divmod(number, len(self._made))
        order = torch.randperm(len(self._made), generator=_generator(seed, "epoch", epoch))
        return self._made[int(order[place])]


class Lora:
    """The two factors of each target, fp32, and the moments of their optimizer: AdamW, Loshchilov and Hutter 2017,
    arXiv 1711.05101. `step`: how many are done."""

    def __init__(self, network: torch.nn.Module, tools: Tools):
        request, device = tools.input, tools.runtime.device
        self._factor = request["alpha"] / request["rank"]
        self._targets = {
            name: module
            for name, module in network.named_modules()
            if isinstance(module, torch.nn.Linear) and f".{name}".endswith(TARGETS)
        }
        self._weights: dict[str, torch.Tensor] = {}
        generator = _generator(request["seed"], "weights", 0)
        for name, module in self._targets.items():
            # As the paper begins: one factor random, the other nothing, so that the difference is nothing.
            down = torch.randn(request["rank"], module.in_features, generator=generator) / request["rank"]
            self._weights[f"{name}.down"] = down.to(device).requires_grad_()
            self._weights[f"{name}.up"] = torch.zeros(module.out_features, request["rank"], device=device).requires_grad_()
        self._optimizer = torch.optim.AdamW(
            self.parameters, lr=request["learning_rate"], betas=BETAS, eps=EPSILON, weight_decay=DECAY, foreach=False
        )
        self.step = 0
        self._identity = {
            "format": FORMAT,
            "model": request["model"]["body_hash"],
            "request": checkpoint.digest({name: value for name, value in request.items() if name not in ("model", "memory_profile")}),
            "fingerprint": checkpoint.digest(tools.runtime.facts),
        }

    @property
    def parameters(self) -> list[torch.Tensor]:
        """All factors, in one order."""
        return list(self._weights.values())

    @contextmanager
    def worn(self) -> Generator[None]:
        """The network computes with the difference meanwhile; its own weights stay as they are."""
        handles = [module.register_forward_hook(self._hook(name)) for name, module in self._targets.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str) -> Callable[[torch.nn.Module, tuple[Any, ...], torch.Tensor], torch.Tensor]:
        down, up = self._weights[f"{name}.down"], self._weights[f"{name}.up"]

        def added(_: torch.nn.Module, given: tuple[Any, ...], made: torch.Tensor) -> torch.Tensor:
            low = torch.nn.functional.linear(given[0].float(), down)
            return made + (torch.nn.functional.linear(low, up) * self._factor).to(made.dtype)

        return added

    def learn(self, gradients: list[torch.Tensor]) -> None:
        """One step of the optimizer. Raises `inference.diverged`."""
        for weight, gradient in zip(self.parameters, gradients, strict=True):
            check_finite(gradient, f"a gradient of step {self.step + 1}")
            weight.grad = gradient
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1

    def snapshot(self) -> Callable[[], bytes]:
        """The state now; what is returned gives the file's bytes on any thread and at any time later."""
        held = {name: weight.detach().clone() for name, weight in self._weights.items()}
        for name, weight in self._weights.items():
            state = self._optimizer.state.get(weight, {})
            held |= {f"{name}.{key}": state[key].detach().clone() for key in ("exp_avg", "exp_avg_sq") if key in state}
        copied = tensors.leaving(held, next(iter(held.values())).device)
        metadata = {**self._identity, "step": str(self.step)}
        return lambda: tensors.save(copied(), metadata)

    def resume(self, content: bytes, given: Mapping[str, Any]) -> None:
        """Raises CheckpointRefused; it is then as before."""
        if hashlib.sha256(content).hexdigest() != given["sha256"]:
            raise CheckpointRefused("the file does not match its SHA-256")
        try:
            found, metadata = tensors.load(content)
        except tensors.Unreadable as error:
            raise CheckpointRefused(f"the file is broken: {error}") from error
        for key, value in {**self._identity, "step": str(given["call"])}.items():
            if metadata.get(key) != value:
                raise CheckpointRefused(f"{key} was {metadata.get(key)}, is {value}")
        kept = {f"{name}{end}" for name in self._weights for end in ("", ".exp_avg", ".exp_avg_sq")}
        if found.keys() != kept:
            raise CheckpointRefused("the file is incomplete")
        with torch.no_grad():
            for name, weight in self._weights.items():
                weight.copy_(found[name])
                moments = {key: found[f"{name}.{key}"].to(weight.device) for key in ("exp_avg", "exp_avg_sq")}
                self._optimizer.state[weight] = {"step": torch.tensor(float(given["call"])), **moments}
        self.step = given["call"]

    def file(self, tools: Tools, model: Family) -> bytes:
        """As safetensors, fp16, under kohya's names, with the metadata that its trainer and ModelSpec 1.0.1 have."""
        request = tools.input
        held: dict[str, torch.Tensor] = {}
        for name in self._targets:
            flat = f"lora_unet_{name.replace('.', '_')}"
            held[f"{flat}.lora_down.weight"] = self._weights[f"{name}.down"].detach().half()
            held[f"{flat}.lora_up.weight"] = self._weights[f"{name}.up"].detach().half()
            held[f"{flat}.alpha"] = torch.tensor(float(request["alpha"]))
        base = {"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"}.get(request["model"]["family"], request["model"]["family"])
        architecture = {"sd1": "stable-diffusion-v1", "sd2": "stable-diffusion-v2", "sdxl": "stable-diffusion-xl-v1-base"}
        metadata = {
            "ss_network_module": "networks.lora",
            "ss_network_dim": str(request["rank"]),
            "ss_network_alpha": str(float(request["alpha"])),
            "ss_base_model_version": base,
            "ss_output_name": request["name"],
            "ss_learning_rate": str(request["learning_rate"]),
            "ss_steps": str(request["steps"]),
            "ss_num_train_images": str(len(request["examples"])),
            "ss_seed": str(request["seed"]),
            "modelspec.sai_model_spec": "1.0.1",
            "modelspec.architecture": f"{architecture.get(request['model']['family'], base)}/lora",
            "modelspec.title": request["name"],
            "modelspec.resolution": f"{request['width']}x{request['height']}",
            "darkroom.model": request["model"]["body_hash"],
        }
        return tensors.save(held, metadata)


def _learner(model: Family, tools: Tools) -> tuple[torch.nn.Module, Schedule]:
    """The network that draws, and what it was trained by."""
    if not isinstance(model, UNetFamily) or model.paints:
        problem = "a LoRA is trained for Stable Diffusion 1, 2 and XL only, and for no model for inpainting: name another model"
        raise DarkroomError("inference.request_unfit", problem, field="input.model")
    shell = next(shell for shell in tools.runtime.models.networks() if shell.part == "unet")
    if shell.is_in_blocks:
        problem = "the network does not fit onto the device as a whole, which training needs: choose another memory profile or device"
        raise DarkroomError("inference.request_unfit", problem, field="input.model")
    return shell.network, model.schedule


def _begin(lora: Lora, tools: Tools) -> str | None:
    """From the checkpoint that was given, if any. Returns why one was refused, None when none was."""
    try:
        found = tools.read_checkpoint()
        if found is not None:
            lora.resume(*found)
    except (OSError, CheckpointRefused) as error:
        tools.log.warning("a checkpoint was refused: %s", error, extra={"request_id": tools.request_id})
        return str(error)
    return None


def _learn(model: Family, network: torch.nn.Module, schedule: Schedule, examples: Examples, lora: Lora, tools: Tools) -> float:
    """All steps that are left. Returns the mean loss of the last tenth of them, as far as this process saw it."""
    request, first = tools.input, lora.step
    steps, every = request["steps"], request["sample"]["every"]
    pace, recent = Pace(tools.runtime.device, tools.runtime.turn), [float("nan")]
    tools.hold(lora.parameters)
    while lora.step < steps:
        tools.check_stop()
        if tools.stop == "pause":
            if lora.step == first:
                raise Paused
            tools.save_checkpoint(lora.step, lora.snapshot())
            raise Paused(tools.finish_checkpoints())
        with lora.worn():
            loss, gradients = _gradients(model, network, schedule, examples, lora, request)
        lora.learn(gradients)
        recent = [*recent, loss][-max(1, steps // 10) :]
        pace.wait()
        tools.progress("run", call=lora.step, calls=steps, **pace.figures(steps - lora.step))
        if lora.step < steps:
            if tools.checkpoint_due(lora.step):
                tools.save_checkpoint(lora.step, lora.snapshot())
            if lora.step % every == 0 and tools.runtime.preview_s > 0:
                with lora.worn():
                    shown = _sample(model, tools)
                tools.save_preview(lora.step, request["width"], request["height"], lambda shown=shown: shown)
    tools.finish_checkpoints()
    seen = [loss for loss in recent if loss == loss]
    return sum(seen) / len(seen) if seen else 0.0


def _gradients(
    model: Family, network: torch.nn.Module, schedule: Schedule, examples: Examples, lora: Lora, request: Mapping[str, Any]
) -> tuple[float, list[torch.Tensor]]:
    """(mean loss, gradients of the factors) of one step's examples, one after the other."""
    batch, seed = request["batch"], request["seed"]
    scale = SCALE_OF_HALF if next(network.parameters()).dtype == torch.float16 else 1.0
    total, summed = 0.0, [torch.zeros_like(weight) for weight in lora.parameters]
    for number in range(lora.step * batch, (lora.step + 1) * batch):
        latents, conditioning = examples.at(number, seed)
        generator = _generator(seed, "example", number)
        noise = torch.randn(latents.shape, generator=generator).to(latents.device)
        t = int(torch.randint(schedule.train_steps, (1,), generator=generator))
        given, wanted = schedule.noised(latents, noise, t)
        with torch.enable_grad():
            predicted = model.predict(given, torch.tensor(t, device=latents.device), conditioning)
            loss = torch.nn.functional.mse_loss(predicted, wanted) / batch
        for into, gradient in zip(summed, torch.autograd.grad(loss * scale, lora.parameters), strict=True):
            into += gradient / scale
        total += float(loss.detach())
    return total, summed


def _sample(model: Family, tools: Tools) -> bytes:
    """RGB8, row by row: what the network draws now."""
    asked = {**tools.input, **tools.input["sample"], "negative_prompt": ""}
    with torch.inference_mode():
        drawing = Drawing(model, tools.runtime, asked)
        drawing.begin()
        encoded, _ = model.encode(asked, tools)
        led = Led(model, encoded, asked, drawing.calls)
        while drawing.call < drawing.calls:
            tools.check_stop()
            drawing.advance(model, led.at(drawing.call))
            tools.advance()
        drawing.check()
        image = model.decode(drawing.latents, tools)
        check_finite(image, "the sample")
        return pictures.rgb(image).tobytes()


def _generator(seed: int, what: str, number: int) -> torch.Generator:
    """Random numbers that follow from these alone, drawn on the CPU so that they are the same on every device."""
    digest = hashlib.sha256(f"{seed} {what} {number}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "little") % MOST_SEED)
