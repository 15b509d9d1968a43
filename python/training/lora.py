"""Stage 4: two LoRAs (Hu et al. 2021), each a style that can be measured.

`pastel` mixes every colour with white: mean saturation falls with its weight. `outline` draws a dark rim of
three pixels around every thing; strokes that fine need the convolutions at full latent resolution, where this
UNet has no attention. Neither has a trigger word: captions are the ordinary ones, the weight alone decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig

from . import data, models, unet, vae
from .diffusion import noiser, pick_captions
from .optimise import Losses, MasterWeights, Schedule, Step, capture, loop, part
from .render import palette, pastel
from .run import Run

BATCH, RATE = 256, 2e-3
SCENES = 30_000
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
CONVOLUTIONS = ("conv1", "conv2")


@dataclass(frozen=True)
class Style:
    """What a LoRA learns: the rank, the layers it touches and the renderer's options that show the style."""

    rank: int
    targets: tuple[str, ...]
    title: str

    def rendering(self, name: str, device: torch.device) -> dict[str, Any]:
        return {"colours": pastel(palette(device))} if name == "pastel" else {"rim": 3.0}


STYLES = {
    "pastel": Style(4, ATTENTION, "Pastel: every colour mixed with white"),
    "outline": Style(8, ATTENTION + CONVOLUTIONS, "Outline: a dark rim around every thing"),
}


def fused(base: Mapping[str, torch.Tensor], adapter: Mapping[str, torch.Tensor], weight: float) -> dict[str, torch.Tensor]:
    """The UNet's weights with W + weight · B A for every adapted layer (alpha equals the rank, so the scale
    is 1).
    """
    result = dict(base)
    for name, down in adapter.items():
        if ".lora_A." not in name:
            continue
        up = adapter[name.replace(".lora_A.", ".lora_B.")]
        target = name.split(".lora_A.")[0] + ".weight"
        change = (up.flatten(1) @ down.flatten(1)).view_as(base[target])
        result[target] = base[target] + weight * change
    return result


def styled_unet(base: UNet2DConditionModel, adapter: Mapping[str, torch.Tensor], weight: float) -> UNet2DConditionModel:
    """A copy of the UNet with the adapter fused in."""
    network = models.new_unet()
    network.load_state_dict(fused(base.state_dict(), adapter, weight))
    return network.to(base.device).eval().requires_grad_(False)


def _step(run, networks, corpus, latents, scaling, weights, losses, batch) -> Step:
    adapted, text = networks
    noise, empty = noiser(run, scaling), data.empty_caption(run)

    def step() -> None:
        weights.forget_gradients()
        chosen = torch.randint(0, len(latents), (batch,), device=run.device)
        caption = torch.randint(0, data.CAPTIONS, (batch,), device=run.device)
        ids = pick_captions(corpus.tokens[chosen, caption], empty)
        noised = noise(latents[chosen])
        with torch.no_grad():
            states = models.encode_text(text, ids)
        loss = noised.loss(adapted(noised.latents, noised.steps, states, return_dict=False)[0])
        loss.backward()
        weights.step()
        losses.add(loss)

    return step


def train(run: Run, name: str) -> None:
    """Train one style; the UNet stage must be done. Raises KeyError for a style that is not in STYLES."""
    style = STYLES[name]
    torch.manual_seed(run.seed + 3 + list(STYLES).index(name))
    autoencoder = vae.load(run)
    corpus = data.corpus(run, "square", SCENES)
    latents = data.latents(run, autoencoder, corpus.packed, corpus.width, corpus.height, **style.rendering(name, run.device))
    network, text = unet.load(run)
    network.add_adapter(
        LoraConfig(
            r=style.rank,
            lora_alpha=style.rank,
            init_lora_weights="gaussian",
            target_modules=list(style.targets),
        ),
        name,
    )
    network = network.to(run.dtype).to(memory_format=torch.channels_last)
    weights = MasterWeights({"unet": network}, run, RATE, weight_decay=0.0, average=0.99)
    losses, batch = Losses(("v",), run), run.scale(BATCH, 4)
    step = _step(
        run,
        (network, text.to(run.dtype)),
        corpus,
        latents,
        autoencoder.config.scaling_factor,
        weights,
        losses,
        batch,
    )
    schedule = Schedule(run.budget(name), 50, 0.05, most_steps=4 if run.small else None)
    outcome = loop(name, [capture(step, run, name)], weights, schedule, losses, run)
    adapter = {key.replace(f".{name}.", "."): tensor for key, tensor in part(weights.averaged(), "unet").items()}
    run.save(name, adapter)
    run.finish(
        name,
        outcome.report()
        | {
            "rank": style.rank,
            "targets": style.targets,
            "parameters": sum(tensor.numel() for tensor in adapter.values()),
        },
    )
