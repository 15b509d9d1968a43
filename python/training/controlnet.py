"""Stage 3: a ControlNet for edges, trained against the frozen UNet.

Hints come from the renderer: boundaries one or two pixels wide, some cells dropped and shifted by a pixel, so
that the edges an ordinary detector finds at inference look familiar. Half of the captions name neither shapes
nor places.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import ControlNetModel

from . import data, models, unet, vae
from .diffusion import noiser, pick_captions
from .optimise import Losses, MasterWeights, Schedule, Step, capture, loop, part, rounded
from .render import edges
from .run import Run

BATCH, RATE = 256, 8e-4
SCENES = 100_000
CELL = 8
MOST_DROPPED = 0.1


def load(run: Run) -> ControlNetModel:
    """The trained ControlNet as it ships."""
    network = models.new_controlnet(models.new_unet())
    network.load_state_dict(rounded(run.load("controlnet")))
    return network.to(run.device).eval().requires_grad_(False)


def _hints(thin: torch.Tensor, thick: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Worn hints, [N, 3, H, W] 0 to 1, from edges one and two pixels wide, bool [N, H, W]."""
    count, height, width = thin.shape
    device = thin.device
    edge = torch.where(torch.rand(count, 1, 1, device=device) < 0.5, thick, thin).to(dtype)[:, None]
    drop = MOST_DROPPED * torch.rand(count, 1, 1, 1, device=device)
    kept = (torch.rand(count, 1, height // CELL, width // CELL, device=device) > drop).to(dtype)
    edge = edge * F.interpolate(kept, size=(height, width), mode="nearest")
    first, second, third, last = edge.chunk(4)
    moved = torch.cat([first, second.roll(1, 2), third.roll(-1, 3), last.roll((1, 1), (2, 3))])
    return moved.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def _step(run, networks, corpus, latents, scaling, weights, losses, batch) -> Step:
    control, frozen, text = networks
    noise, empty = noiser(run, scaling), data.empty_caption(run)
    thin, thick = edges(corpus.packed)

    def step() -> None:
        weights.forget_gradients()
        chosen = torch.randint(0, len(latents), (batch,), device=run.device)
        named = torch.randint(0, data.CAPTIONS, (batch,), device=run.device)
        vague = data.CAPTIONS + torch.randint(0, data.VAGUE, (batch,), device=run.device)
        caption = torch.where(torch.rand(batch, device=run.device) < 0.5, named, vague)
        ids = pick_captions(corpus.tokens[chosen, caption], empty)
        hint = _hints(thin[chosen], thick[chosen], run.dtype)
        noised = noise(latents[chosen])
        with torch.no_grad():
            states = models.encode_text(text, ids)
        down, middle = control(noised.latents, noised.steps, states, hint, return_dict=False)
        prediction = frozen(
            noised.latents,
            noised.steps,
            states,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            return_dict=False,
        )[0]
        loss = noised.loss(prediction)
        loss.backward()
        weights.step()
        losses.add(loss)

    return step


def train(run: Run) -> None:
    """Train the ControlNet; the UNet stage must be done."""
    torch.manual_seed(run.seed + 2)
    autoencoder = vae.load(run)
    corpus = data.corpus(run, "square", SCENES)
    latents = data.latents(run, autoencoder, corpus.packed, corpus.width, corpus.height)
    frozen, text = unet.load(run)
    control = models.new_controlnet(frozen).train().requires_grad_(True)
    networks = [module.to(run.dtype).to(memory_format=torch.channels_last) for module in (control.to(run.device), frozen)]
    weights = MasterWeights({"controlnet": networks[0]}, run, RATE, average=0.999)
    losses, batch = Losses(("v",), run), run.scale(BATCH, 4)
    step = _step(
        run,
        (*networks, text.to(run.dtype)),
        corpus,
        latents,
        autoencoder.config.scaling_factor,
        weights,
        losses,
        batch,
    )
    schedule = Schedule(run.budget("controlnet"), 150, 0.05, most_steps=4 if run.small else None)
    outcome = loop("controlnet", [capture(step, run, "controlnet")], weights, schedule, losses, run)
    run.save("controlnet", part(weights.averaged(), "controlnet"))
    run.finish("controlnet", outcome.report() | {"parameters": sum(p.numel() for p in control.parameters())})
