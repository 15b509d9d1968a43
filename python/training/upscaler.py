"""Stage 5: the x2 upscaler, trained on renders at double size.

What it enlarges: averaged renders, bicubically reduced renders, and the VAE's reconstructions, because
generated pictures come from there. Loss: L1.
"""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F

from . import judge, models, vae
from .models import Compact
from .optimise import Losses, MasterWeights, Schedule, Step, capture, loop, part, rounded
from .render import palette, pastel, render_bytes, to_numpy
from .run import Run
from .world import pack, random_scene

BATCH, PICTURES, RATE = 32, 12_000, 1e-3


def load(run: Run) -> Compact:
    """The trained upscaler as it ships."""
    network = Compact()
    network.load_state_dict(rounded(run.load("upscaler")))
    return network.to(run.device).eval().requires_grad_(False)


def _reduced(large: torch.Tensor, kind: str) -> torch.Tensor:
    """Half the size, float 0 to 1, by averaging or by bicubic interpolation with antialiasing."""
    if kind == "average":
        return F.avg_pool2d(large, 2)
    return F.interpolate(large, scale_factor=0.5, mode="bicubic", antialias=True).clamp(0, 1)


def _pairs(run: Run, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 pictures at double size, some paler and outlined, and the VAE's reconstructions of them at native
    size.
    """
    rng = random.Random(seed)
    packed = torch.from_numpy(pack(random_scene(rng) for _ in range(count))).to(run.device)
    strength = torch.tensor([rng.choice((0.0, 0.0, 0.0, rng.uniform(0, 0.6))) for _ in range(count)], device=run.device)
    rims = torch.tensor([rng.choice((0.0, 0.0, 0.0, 3.0)) for _ in range(count)], device=run.device)
    colours = pastel(palette(run.device)[None], strength[:, None, None])
    autoencoder, large, rebuilt = vae.load(run), [], []
    for at in range(0, count, 512):
        span = slice(at, at + 512)
        style = {"colours": colours[span], "rim": rims[span]}
        large.append(render_bytes(packed[span], scale=2, **style))
        rebuilt.append(models.decode(autoencoder, models.encode(autoencoder, render_bytes(packed[span], **style))))
    return torch.cat(large), torch.cat(rebuilt)


def _step(network: Compact, large, rebuilt, batch: int, weights: MasterWeights, losses: Losses, run: Run) -> Step:
    def step() -> None:
        weights.forget_gradients()
        chosen = torch.randint(0, len(large), (batch,), device=run.device)
        target = large[chosen].float() / 255
        quarter = max(1, batch // 4)
        small = torch.cat(
            [
                _reduced(target[:quarter], "average"),
                _reduced(target[quarter : 2 * quarter], "bicubic"),
                rebuilt[chosen[2 * quarter :]].float() / 255,
            ]
        )
        grain = 0.02 * torch.rand(batch, 1, 1, 1, device=run.device) * torch.randn_like(small)
        small = torch.cat([small[:-quarter], (small + grain).clamp(0, 1)[-quarter:]])
        loss = (network(small.to(run.dtype)).float() - target).abs().mean()
        loss.backward()
        weights.step()
        losses.add(loss)

    return step


def train(run: Run) -> None:
    """Train the upscaler; the VAE stage must be done."""
    torch.manual_seed(run.seed + 5)
    large, rebuilt = _pairs(run, run.scale(PICTURES, 16), run.seed + 5)
    network = Compact().to(run.device, run.dtype)
    weights = MasterWeights({"upscaler": network}, run, RATE, weight_decay=0.0, average=0.999)
    losses, batch = Losses(("l1",), run), run.scale(BATCH, 8)
    step = capture(_step(network, large, rebuilt, batch, weights, losses, run), run, "upscaler")
    outcome = loop(
        "upscaler",
        [step],
        weights,
        Schedule(run.budget("upscaler"), 100, 0.02, most_steps=4 if run.small else None),
        losses,
        run,
    )
    run.save("upscaler", part(weights.averaged(), "upscaler"))
    report = measure(load(run), vae.load(run), run.scale(200, 4))
    run.log(f"upscaler: {report}")
    run.finish("upscaler", outcome.report() | report | {"parameters": sum(p.numel() for p in network.parameters())})


@torch.no_grad()
def measure(network: Compact, autoencoder, count: int) -> dict[str, dict[str, float]]:
    """Mean PSNR in dB on unseen renders, of the upscaler and of bicubic interpolation, for three ways to get
    the small picture.
    """
    device = next(network.parameters()).device
    rng = random.Random(606)
    # Empty pictures would count as near perfect either way.
    packed = torch.from_numpy(pack(random_scene(rng, rng.choice((1, 2))) for _ in range(count))).to(device)
    large, native = render_bytes(packed, scale=2), render_bytes(packed)
    truth = to_numpy(large)
    sources = {
        "average": _reduced(large.float() / 255, "average"),
        "bicubic": _reduced(large.float() / 255, "bicubic"),
        "reconstruction": models.decode(autoencoder, models.encode(autoencoder, native)).float() / 255,
    }
    result = {}
    for name, small in sources.items():
        # What is enlarged in practice has eight bits.
        small = (small * 255).round() / 255
        enlarged = {
            "upscaler": torch.cat([network(part) for part in small.split(50)]),
            "bicubic": F.interpolate(small, scale_factor=2, mode="bicubic", align_corners=False),
        }
        quality = {}
        for method, pictures in enlarged.items():
            seen = to_numpy((pictures.clamp(0, 1) * 255).round().byte())
            quality[method] = round(sum(judge.psnr(a, b) for a, b in zip(truth, seen, strict=True)) / count, 2)
        result[name] = quality | {"gain": round(quality["upscaler"] - quality["bicubic"], 2)}
    return result
