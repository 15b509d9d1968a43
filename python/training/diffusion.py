"""The diffusion loss and the sampler, shared by the UNet, the ControlNet and the LoRAs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import diffusers
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from . import models, tokenizer
from .run import Run

EMPTY_SHARE = 0.12
"""Share of captions replaced by the empty one, which guidance needs (Ho and Salimans 2022)."""
MIDDLE = (380, 860)
"""Half of all timesteps fall here. Layout is decided at middle noise: with uniform timesteps relations stay
at chance.
"""


@dataclass(frozen=True)
class Noised:
    """A batch to denoise: latents in the working dtype, timesteps, the target v and each picture's weight."""

    latents: torch.Tensor
    steps: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor

    def loss(self, prediction: torch.Tensor) -> torch.Tensor:
        return (self.weight * ((prediction.float() - self.target) ** 2).mean((1, 2, 3))).mean()


def noiser(run: Run, scaling: float) -> Callable[[torch.Tensor], Noised]:
    """A function that noises unscaled latents [N, 4, h, w].

    v = √ᾱ ε - √(1 - ᾱ) x (Salimans and Ho 2022). Weight: min(1, 5 / (snr + 1)), which tames nearly clean
    latents as min-SNR (Hang et al. 2023) does, but keeps the full weight at high noise, where layout is
    learned.
    """
    alphas = models.alphas_cumulative().to(run.device)
    signal, noise = alphas.sqrt(), (1 - alphas).sqrt()
    weights = (5 / (alphas / (1 - alphas) + 1)).clamp(max=1)

    def apply(clean: torch.Tensor) -> Noised:
        count = len(clean)
        uniform = torch.randint(0, len(alphas), (count // 2,), device=run.device)
        middle = torch.randint(*MIDDLE, (count - count // 2,), device=run.device)
        steps = torch.cat([uniform, middle])
        clean = clean.float() * scaling
        drawn = torch.randn_like(clean)
        a, b = signal[steps][:, None, None, None], noise[steps][:, None, None, None]
        latents = (a * clean + b * drawn).to(run.dtype).contiguous(memory_format=torch.channels_last)
        return Noised(latents, steps, a * drawn - b * clean, weights[steps])

    return apply


def pick_captions(tokens: torch.Tensor, empty: torch.Tensor) -> torch.Tensor:
    """Replace some captions, [N, 32], by the empty one, [1, 32]; int64."""
    return torch.where(torch.rand(len(tokens), 1, device=tokens.device) < EMPTY_SHARE, empty, tokens).long()


@dataclass
class Family:
    """The networks that draw, in float32, on one device."""

    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    vae: AutoencoderKL
    tokenizer: CLIPTokenizer
    controlnet: ControlNetModel | None = None

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def scaling(self) -> float:
        return self.vae.config.scaling_factor

    @classmethod
    def open(cls, folder: Path, device: str | torch.device) -> Family:
        """Load the packaged family."""
        float32 = {"torch_dtype": torch.float32, "local_files_only": True}
        return cls(
            _ready(UNet2DConditionModel.from_pretrained(folder / "unet", **float32), device),
            _ready(CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32), device),
            _ready(AutoencoderKL.from_pretrained(folder / "vae", **float32), device),
            tokenizer.load(folder / "tokenizer"),
            _ready(ControlNetModel.from_pretrained(folder / "controlnet-edge", **float32), device),
        )

    def with_unet(self, unet: UNet2DConditionModel) -> Family:
        return Family(unet, self.text_encoder, self.vae, self.tokenizer, self.controlnet)


def _ready(model: torch.nn.Module, device: str | torch.device):
    return model.to(device).eval().requires_grad_(False)


SAMPLERS = {
    "DDIM": (diffusers.DDIMScheduler, models.DDIM_ONLY),
    "Euler": (diffusers.EulerDiscreteScheduler, {}),
    "Euler a": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "DPM++ 2M": (diffusers.DPMSolverMultistepScheduler, {}),
}


def scheduler(name: str):
    """A fresh scheduler by its usual name. Raises KeyError for one that is not in SAMPLERS."""
    kind, extra = SAMPLERS[name]
    return kind(**models.SCHEDULER, **extra)


@dataclass(frozen=True)
class Hint:
    """What a ControlNet is shown: float [N, 3, H, W], 0 to 1, and how much it counts."""

    edges: torch.Tensor
    scale: float = 1.0


@dataclass(frozen=True)
class Start:
    """Pictures to start from, uint8 [N, 3, H, W]. `mask`, bool [N, H, W], limits the change to where it is
    true.
    """

    pictures: torch.Tensor
    strength: float = 1.0
    mask: torch.Tensor | None = None


@torch.no_grad()
def draw(
    family: Family,
    texts: list[str],
    *,
    seed: int,
    width: int = 128,
    height: int = 128,
    steps: int = 20,
    guidance: float = 3.0,
    sampler: str = "DDIM",
    hint: Hint | None = None,
    start: Start | None = None,
    chunk: int | None = None,
) -> torch.Tensor:
    """Draw one picture for each text: uint8 [N, 3, height, width].

    Picture i starts from a CPU generator seeded with seed + i, so it does not depend on the batch it is drawn
    in (up to rounding). Raises ValueError if a side is not a multiple of 8.
    """
    if width % 8 or height % 8:
        raise ValueError(f"sides must be multiples of 8: {width} x {height}")
    # On a CPU small batches stay in the cache.
    chunk = chunk or (500 if family.device.type == "cuda" else 10)
    parts = []
    for at in range(0, len(texts), chunk):
        span = slice(at, at + chunk)
        part_hint = Hint(hint.edges[span], hint.scale) if hint else None
        part_start = start and Start(start.pictures[span], start.strength, None if start.mask is None else start.mask[span])
        latents = _denoise(
            family,
            texts[span],
            seed + at,
            (height // models.FACTOR, width // models.FACTOR),
            steps,
            guidance,
            sampler,
            part_hint,
            part_start,
        )
        parts.append(models.decode(family.vae, latents / family.scaling))
    return torch.cat(parts)


def _denoise(family, texts, seed, size, steps, guidance, sampler, hint, start):
    device, count = family.device, len(texts)
    generators = [torch.Generator().manual_seed(seed + index) for index in range(count)]
    noise = torch.stack([torch.randn(models.LATENT_CHANNELS, *size, generator=generator) for generator in generators]).to(device)
    ids = tokenizer.encode(family.tokenizer, [""] * count + list(texts))
    states = models.encode_text(family.text_encoder, torch.from_numpy(ids).to(device).long())
    plan = scheduler(sampler)
    plan.set_timesteps(steps, device=device)
    timesteps = plan.timesteps
    if start is None:
        latents = noise * plan.init_noise_sigma
    else:
        first = steps - min(steps, int(steps * start.strength))
        timesteps = timesteps[first:]
        clean = models.encode(family.vae, start.pictures) * family.scaling
        latents = noise if start.strength >= 1 else plan.add_noise(clean, noise, timesteps[:1])
    mask = None if start is None or start.mask is None else _latent_mask(start.mask, size)
    stochastic = {"generator": generators} if sampler == "Euler a" else {}
    for number, step in enumerate(timesteps):
        doubled = plan.scale_model_input(torch.cat([latents, latents]), step)
        residuals = {}
        if hint is not None:
            down, middle = family.controlnet(
                doubled,
                step,
                states,
                torch.cat([hint.edges, hint.edges]),
                conditioning_scale=hint.scale,
                return_dict=False,
            )
            residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        free, told = family.unet(doubled, step, states, return_dict=False, **residuals)[0].chunk(2)
        latents = plan.step(free + guidance * (told - free), step, latents, return_dict=False, **stochastic)[0]
        if mask is not None:
            last = number + 1 == len(timesteps)
            known = clean if last else plan.add_noise(clean, noise, timesteps[number + 1 : number + 2])
            latents = torch.where(mask, latents, known)
    return latents


def _latent_mask(mask: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    small = torch.nn.functional.interpolate(mask[:, None].float(), size=size, mode="nearest")
    return small > 0.5
