"""Stage 1: the autoencoder.

Loss: L1 + 0.5 · L1 of Sobel gradients + 1e-5 · KL (mean over elements) + 1e-3 · (mean latent)². The last term
keeps latents centred, because Stable Diffusion pipelines know a scaling factor but no shift. Steps matter
more than batch size: at 64 pictures a batch and some 5,500 steps reconstructions keep every attribute.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from . import judge, models
from .captions import prompts
from .data import FORMATS
from .optimise import Losses, MasterWeights, Schedule, Step, capture, loop, part, rounded
from .render import palette, pastel, render_bytes, to_numpy
from .run import Run
from .world import pack, random_scene

BATCH = 64
PICTURES = {"square": 90_000, "wide": 6_000, "tall": 6_000}
CYCLE = ("square",) * 9 + ("wide",) + ("square",) * 9 + ("tall",)
LEAST_RIGHT = 0.95
"""A VAE that loses attributes caps everything after it: below this share of right reconstructions the stage
fails.
"""


def load(run: Run) -> AutoencoderKL:
    """The trained VAE as it ships (half precision values in float32), with its scaling factor in the
    config.
    """
    vae = models.new_vae()
    vae.load_state_dict(run.load("vae"))
    vae.register_to_config(scaling_factor=run.report("vae")["scaling_factor"])
    return vae.to(run.device).eval().requires_grad_(False)


def styled_scenes(run: Run, count: int, width: int, height: int, seed: int) -> torch.Tensor:
    """Training pictures, uint8 [count, 3, height, width]: three in four plain, the rest paler and often
    outlined.

    The LoRAs draw in those styles, so the VAE must know them.
    """
    rng = random.Random(seed)
    packed = torch.from_numpy(pack(random_scene(rng, None, width, height) for _ in range(count))).to(run.device)
    generator = torch.Generator(run.device).manual_seed(seed)

    def draw(scale: float) -> torch.Tensor:
        return torch.rand(count, generator=generator, device=run.device) * scale

    strength = torch.where(draw(1) < 0.2, draw(0.6), 0.0)[:, None, None]
    rims = torch.where(draw(1) < 0.15, 2 + draw(2), 0.0)
    colours = pastel(palette(run.device)[None], strength)
    parts = [
        render_bytes(packed[at : at + 1024], width, height, colours=colours[at : at + 1024], rim=rims[at : at + 1024])
        for at in range(0, count, 1024)
    ]
    return torch.cat(parts)


def _disturbed(pictures: torch.Tensor) -> torch.Tensor:
    """Float pictures -1 to 1 with jittered colours; an eighth blurred and an eighth replaced by smooth noise.

    So that the VAE also survives pictures from outside, as image-to-image brings them.
    """
    count, device = len(pictures), pictures.device
    eighth = max(1, count // 8)
    size = pictures.shape[-2:]
    picture = pictures.float() / 127.5 - 1
    picture = picture * (1 + 0.03 * torch.randn(count, 3, 1, 1, device=device)) + 0.02 * torch.randn(count, 3, 1, 1, device=device)
    blurred = F.avg_pool2d(F.pad(picture[:eighth], (1, 1, 1, 1), mode="replicate"), 3, 1)
    coarse = F.interpolate(torch.randn(eighth, 3, 6, 6, device=device), size=size, mode="bilinear") * 0.7
    fine = F.interpolate(torch.randn(eighth // 2 + 1, 3, 20, 20, device=device), size=size, mode="bilinear") * 0.6
    smooth = torch.cat([fine, coarse])[:eighth]
    return torch.cat([blurred, picture[eighth : count - eighth], smooth]).clamp(-1, 1)


def _step(vae: AutoencoderKL, pictures: torch.Tensor, batch: int, weights: MasterWeights, losses: Losses, run: Run) -> Step:
    sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], device=run.device) / 4
    kernels = torch.stack([sobel, sobel.T])[:, None].repeat(3, 1, 1, 1)

    def step() -> None:
        weights.forget_gradients()
        chosen = torch.randint(0, len(pictures), (batch,), device=run.device)
        picture = _disturbed(pictures[chosen])
        working = picture.to(run.dtype).contiguous(memory_format=torch.channels_last)
        mean, log_variance = models.posterior(vae, working)
        sample = (mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)).to(run.dtype)
        sample = sample.contiguous(memory_format=torch.channels_last)
        error = vae.decoder(vae.post_quant_conv(sample)).float() - picture
        flat = error.abs().mean()
        edge = F.conv2d(error, kernels, groups=3).abs().mean()
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        centre = (mean.mean((0, 2, 3)) ** 2).mean()
        (flat + 0.5 * edge + 1e-5 * divergence + 1e-3 * centre).backward()
        weights.step()
        losses.add(flat, edge, divergence)

    return step


def train(run: Run) -> None:
    """Train the VAE, measure its scaling factor and hold its reconstructions against the judge. Raises
    RuntimeError if they fail.
    """
    torch.manual_seed(run.seed)
    pictures = {
        form: styled_scenes(run, run.scale(PICTURES[form], 16), *FORMATS[form], seed=run.seed * 10 + index)
        for index, form in enumerate(FORMATS)
    }
    run.log("vae: pictures rendered")
    vae = models.new_vae().to(run.device, run.dtype).to(memory_format=torch.channels_last)
    weights = MasterWeights({"vae": vae}, run, 1e-3, weight_decay=0.0, average=0.999)
    losses = Losses(("l1", "edge", "kl"), run)
    batches = {
        "square": run.scale(BATCH, 8),
        "wide": run.scale(BATCH * 2 // 3, 8),
        "tall": run.scale(BATCH * 2 // 3, 8),
    }
    steps = {form: capture(_step(vae, pictures[form], batches[form], weights, losses, run), run, f"vae {form}") for form in FORMATS}
    schedule = Schedule(run.budget("vae"), 100, 0.05, most_steps=20 if run.small else None)
    outcome = loop("vae", [steps[form] for form in CYCLE], weights, schedule, losses, run)
    shipped = models.new_vae().to(run.device).eval().requires_grad_(False)
    shipped.load_state_dict(rounded(part(weights.averaged(), "vae")))
    report = outcome.report() | measure(run, shipped, run.scale(300, 4))
    sample = torch.cat(list(_latent_sample(run, shipped, pictures["square"])))
    report["latent_deviation"] = sample.std((0, 2, 3)).tolist()
    report["scaling_factor"] = round(float(1 / sample.std()), 6)
    run.log(f"vae: {report['psnr']} dB, right {report['right']}, scaling factor {report['scaling_factor']}")
    if not run.small and min(report["right"].values()) < LEAST_RIGHT:
        raise RuntimeError(f"the VAE loses attributes: {report['right']}")
    run.save("vae", shipped.state_dict())
    run.finish("vae", report)


def _latent_sample(run: Run, vae: AutoencoderKL, pictures: torch.Tensor) -> Iterator[torch.Tensor]:
    for chunk in pictures[: run.scale(8000, 16)].split(250):
        yield models.encode(vae, chunk)


def measure(run: Run, vae: AutoencoderKL, each: int) -> dict[str, object]:
    """PSNR in dB of unseen renders and share right of their reconstructions, `each` with one and as many with
    two things.
    """
    asked = prompts(5150, each, each)
    packed = torch.from_numpy(pack(prompt.scene for prompt in asked)).to(run.device)
    truth = render_bytes(packed)
    seen = models.decode(vae, models.encode(vae, truth))
    table = judge.tabulate(run.grade(seen, asked))
    quality = [judge.psnr(a, b) for a, b in zip(to_numpy(truth), to_numpy(seen), strict=True)]
    return {
        "psnr": round(sum(quality) / len(quality), 2),
        "right": {count: round(judge.share(table, count), 4) for count in sorted(table)},
    }
