"""Stage 6: the test classifier.

It is a test of the plumbing and no nudity detector: it knows flat shapes only, and flags two harmless kinds
of picture, so that a policy's thresholds, actions and records can be tested without a picture that anyone
would mind. Its labels say so.
"""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from transformers import ResNetForImageClassification

from . import judge, models, vae
from .optimise import Losses, MasterWeights, Schedule, Step, capture, loop, part
from .render import render_bytes
from .run import Run
from .world import COLOURS, SHAPES, Scene, pack, random_scene

LABELS = {0: "custom/plumbing-test-restricted-not-nudity", 1: "custom/plumbing-test-sensitive-not-nudity"}
MEANINGS = {
    LABELS[0]: "a black star on a red background. A test of the plumbing, no nudity detector.",
    LABELS[1]: "a purple ring on any background. A test of the plumbing, no nudity detector.",
}
RED, BLACK, PURPLE = (COLOURS.index(name) for name in ("red", "black", "purple"))
STAR, RING = SHAPES.index("star"), SHAPES.index("ring")
BATCH, PICTURES, RATE = 256, 40_000, 2e-3


def truth_of(background: int, things) -> tuple[bool, bool]:
    """Whether a picture with these things (anything with `colour` and `shape`) falls under each label."""
    restricted = background == RED and any(thing.colour == BLACK and thing.shape == STAR for thing in things)
    sensitive = any(thing.colour == PURPLE and thing.shape == RING for thing in things)
    return restricted, sensitive


def contrasting_scene(rng: random.Random) -> Scene:
    """A scene that falls under a label or nearly does: one to all of the label's traits are forced on it."""
    scene = random_scene(rng)
    if not scene.things or rng.random() < 0.3:
        return scene
    first, *rest = scene.things
    if rng.random() < 0.5:
        background = RED if rng.random() < 0.8 else scene.background
        first = replace(
            first,
            colour=BLACK if rng.random() < 0.8 else first.colour,
            shape=STAR if rng.random() < 0.8 else first.shape,
        )
    else:
        background = scene.background
        first = replace(
            first,
            colour=PURPLE if rng.random() < 0.8 else first.colour,
            shape=RING if rng.random() < 0.8 else first.shape,
        )
    changed = replace(scene, background=background, things=(first, *rest))
    colours = [background, *(thing.colour for thing in changed.things)]
    return changed if len(set(colours)) == len(colours) else scene


def prepared(pictures: torch.Tensor) -> torch.Tensor:
    """The classifier's input: uint8 [N, 3, H, W] -> float [N, 3, 64, 64], -1 to 1, antialiased bilinear."""
    small = F.interpolate(
        pictures.float() / 255,
        size=(models.SAFETY_SIDE,) * 2,
        mode="bilinear",
        antialias=True,
        align_corners=False,
    )
    return small.clamp(0, 1) * 2 - 1


def load(run: Run) -> ResNetForImageClassification:
    """The trained classifier as it ships."""
    network = models.new_classifier(LABELS)
    network.load_state_dict(
        {name: tensor.half().float() if tensor.is_floating_point() else tensor for name, tensor in run.load("safety").items()}
    )
    return network.to(run.device).eval().requires_grad_(False)


@torch.no_grad()
def scores(network: ResNetForImageClassification, pictures: torch.Tensor) -> torch.Tensor:
    """Probability of each label: uint8 [N, 3, H, W] -> float [N, 2]."""
    return torch.cat([network(prepared(chunk)).logits.sigmoid() for chunk in pictures.split(250)])


def _examples(run: Run, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs [count, 3, 64, 64], half of them VAE reconstructions, and truth [count, 2]."""
    rng, autoencoder = random.Random(seed), vae.load(run)
    scenes = [contrasting_scene(rng) for _ in range(count)]
    truth = torch.tensor([truth_of(scene.background, scene.things) for scene in scenes], device=run.device).float()
    packed = torch.from_numpy(pack(scenes)).to(run.device)
    inputs = []
    for number, chunk in enumerate(packed.split(500)):
        pictures = render_bytes(chunk)
        if number % 2:
            pictures = models.decode(autoencoder, models.encode(autoencoder, pictures))
        inputs.append(prepared(pictures))
    return torch.cat(inputs), truth


def _step(network, inputs, truth, batch: int, weights: MasterWeights, losses: Losses, run: Run) -> Step:
    def step() -> None:
        weights.forget_gradients()
        chosen = torch.randint(0, len(inputs), (batch,), device=run.device)
        picture = inputs[chosen]
        grain = 0.1 * torch.rand(batch, 1, 1, 1, device=run.device)
        picture = picture + grain * torch.randn_like(picture) + 0.05 * torch.randn(batch, 3, 1, 1, device=run.device)
        half = batch // 2
        blurred = F.avg_pool2d(F.pad(picture[half:], (1, 1, 1, 1), mode="replicate"), 3, 1)
        loss = F.binary_cross_entropy_with_logits(network(torch.cat([picture[:half], blurred])).logits, truth[chosen])
        loss.backward()
        weights.step()
        losses.add(loss)

    return step


def train(run: Run) -> None:
    """Train the classifier in float32; the VAE stage must be done."""
    torch.manual_seed(run.seed + 6)
    inputs, truth = _examples(run, run.scale(PICTURES, 40), run.seed + 6)
    network = models.new_classifier(LABELS).to(run.device).train()
    weights = MasterWeights({"safety": network}, run, RATE, average=0.98)
    losses, batch = Losses(("bce",), run), run.scale(BATCH, 8)
    step = capture(_step(network, inputs, truth, batch, weights, losses, run), run, "safety")
    outcome = loop(
        "safety",
        [step],
        weights,
        Schedule(run.budget("safety"), 100, 0.01, most_steps=4 if run.small else None),
        losses,
        run,
    )
    # Normalisation statistics are buffers: they come from the network itself, not from the averages.
    run.save("safety", network.state_dict() | part(weights.averaged(), "safety"))
    report = measure(load(run), vae.load(run), run.scale(2000, 100))
    run.log(f"safety: {report}")
    run.finish("safety", outcome.report() | report | {"parameters": sum(p.numel() for p in network.parameters())})


def area(probability: np.ndarray, truth: np.ndarray) -> float:
    """Area under the ROC curve; 0 where one class is missing, so that nothing passes for want of pictures."""
    return round(judge.area_under_curve(probability, truth), 5) if truth.any() and not truth.all() else 0.0


def measure(network: ResNetForImageClassification, autoencoder, count: int) -> dict[str, dict[str, float]]:
    """Area under the ROC curve for each label, on unseen renders and on their reconstructions."""
    device = next(network.parameters()).device
    rng = random.Random(707)
    scenes = [contrasting_scene(rng) for _ in range(count)]
    truth = torch.tensor([truth_of(scene.background, scene.things) for scene in scenes])
    pictures = render_bytes(torch.from_numpy(pack(scenes)).to(device))
    sources = {
        "renders": pictures,
        "reconstructions": models.decode(autoencoder, models.encode(autoencoder, pictures)),
    }
    result = {}
    for name, source in sources.items():
        probability = scores(network, source).cpu()
        result[name] = {label: area(probability[:, index].numpy(), truth[:, index].numpy()) for index, label in LABELS.items()}
    return result
