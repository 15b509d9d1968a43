"""The evaluation: draws with the packaged family, measures every picture and holds the figures against the
gates.

Everything works on a CPU too; `--fraction` takes a smaller sample of each measurement.
"""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import ResNetForImageClassification

from . import judge, lora, safety, upscaler, vae
from .captions import Prompt, prompts, write, write_vague
from .data import FORMATS
from .diffusion import Family, Hint, Start, draw
from .models import Compact, decode, encode
from .render import edges, render, render_bytes, to_bytes, to_numpy
from .run import Run
from .world import COLOURS, SHAPES, Scene, pack, random_scene

MAIN = ("judge", "prompts")
"""Sections that decide first whether a family is any good."""
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
VARIANTS = (
    ("DDIM", 10, 3.0),
    ("DDIM", 50, 3.0),
    ("DDIM", 20, 1.0),
    ("DDIM", 20, 2.0),
    ("DDIM", 20, 5.0),
    ("Euler", 20, 3.0),
    ("Euler a", 20, 3.0),
    ("DPM++ 2M", 20, 3.0),
)
BLACK = COLOURS.index("black")


@dataclass
class Bench:
    """What is evaluated, with what, and how much of it."""

    run: Run
    folder: Path
    family: Family
    fraction: float

    def count(self, full: int) -> int:
        return max(2, round(full * self.fraction))

    def packed(self, asked: list[Prompt]) -> torch.Tensor:
        return torch.from_numpy(pack(prompt.scene for prompt in asked)).to(self.run.device)

    def graded(self, asked: list[Prompt], **options: Any) -> tuple[judge.Table, list[judge.Grade], torch.Tensor]:
        """Draw and judge: table, grades and the uint8 pictures."""
        pictures = draw(self.family, [prompt.text for prompt in asked], **options)
        grades = self.run.grade(pictures, asked)
        return judge.tabulate(grades), grades, pictures


def evaluate(run: Run, folder: Path, fraction: float = 1.0, others: float = 1.0) -> dict[str, Any]:
    """Measure the family in `folder`. Returns what `evaluation.json` holds.

    `fraction` is the share taken of the samples of MAIN, `others` that of everything else.
    """
    family = Family.open(folder, run.device)
    device = torch.cuda.get_device_name() if run.cuda else "CPU"
    result: dict[str, Any] = {
        "device": device,
        "torch": torch.__version__,
        "date": date.today().isoformat(),
        "fractions": {},
    }
    sections: dict[str, Callable[[Bench], Any]] = {
        "judge": measure_judge,
        "vae": lambda b: vae.measure(run, b.family.vae, b.count(300)),
        "prompts": measure_prompts,
        "formats": measure_formats,
        "controlnet": measure_controlnet,
        "loras": measure_loras,
        "inpainting": measure_inpainting,
        "image_to_image": measure_image_to_image,
        "upscaler": measure_upscaler,
        "safety": measure_safety,
        "variants": measure_variants,
    }
    for name, measure in sections.items():
        begun = time.monotonic()
        result["fractions"][name] = fraction if name in MAIN else others
        result[name] = measure(Bench(run, folder, family, result["fractions"][name]))
        run.log(f"evaluate {name}: {time.monotonic() - begun:.1f} s")
    result["gates"] = gates(result)
    return result


def measure_judge(bench: Bench) -> dict[str, Any]:
    """The judge on rendered ground truth, plain, and blurred (deviation 1 pixel) with noise (deviation
    0.05).
    """
    each = bench.count(600)
    asked = prompts(11, each, each)
    clear = torch.cat([render(chunk) for chunk in bench.packed(asked).split(200)])
    return {
        kind: judge.tabulate(bench.run.grade(pictures, asked))
        for kind, pictures in (("plain", to_bytes(clear)), ("blurred and noisy", to_bytes(worn(clear))))
    }


def worn(pictures: torch.Tensor, seed: int = 11) -> torch.Tensor:
    """Float pictures 0 to 1 [N, 3, H, W] after a Gaussian blur of one pixel and noise of 0.05."""
    kernel = torch.exp(-(torch.arange(-3, 4, device=pictures.device).float() ** 2) / 2)
    kernel = kernel / kernel.sum()
    square = (kernel[:, None] * kernel[None])[None, None].repeat(3, 1, 1, 1)
    blurred = torch.nn.functional.conv2d(torch.nn.functional.pad(pictures, (3, 3, 3, 3), mode="replicate"), square, groups=3)
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(seed)).to(pictures.device)
    return blurred + 0.05 * noise


def measure_prompts(bench: Bench) -> dict[str, Any]:
    """The main table: as many prompts with one thing as with two, DDIM, 20 steps, guidance 3."""
    asked = prompts(20260, bench.count(500), bench.count(500))
    table, grades, _ = bench.graded(asked, seed=1000)
    bench.run.log("the judge's table:\n" + judge.format_table(table))
    confusion = np.zeros((len(SHAPES), len(SHAPES) + 1), int)
    relations: dict[str, list[int]] = {}
    for verdict in grades:
        for wanted, seen in verdict.shapes:
            confusion[wanted, seen] += 1
        if verdict.relation:
            hits = relations.setdefault(verdict.relation, [0, 0])
            hits[0] += verdict.marks["relation"]
            hits[1] += 1
    wrong = [prompt.text for prompt, verdict in zip(asked, grades, strict=True) if not verdict.marks["all"]]
    return {
        "table": table,
        "confusion": {"rows": SHAPES, "columns": [*SHAPES, "none"], "counts": confusion.tolist()},
        "relations": relations,
        "wrong": wrong[:20],
    }


def measure_formats(bench: Bench) -> dict[str, judge.Table]:
    """The table for the two other formats."""
    each, result = bench.count(100), {}
    for form in ("wide", "tall"):
        width, height = FORMATS[form]
        asked = prompts(303, each, each, width=width, height=height)
        result[f"{width}x{height}"], _, _ = bench.graded(asked, seed=3000, width=width, height=height)
    return result


def measure_variants(bench: Bench) -> dict[str, judge.Table]:
    """The table under other samplers, step counts and guidance scales."""
    each = bench.count(50)
    asked = prompts(404, each, each)
    return {
        f"{sampler}, {steps} steps, guidance {guidance:g}": bench.graded(asked, seed=4000, sampler=sampler, steps=steps, guidance=guidance)[
            0
        ]
        for sampler, steps, guidance in (("DDIM", 20, 3.0), *VARIANTS)
    }


def measure_controlnet(bench: Bench) -> dict[str, dict[str, float]]:
    """Boundary overlap with the hint, for full and for vague prompts, by the ControlNet's scale."""
    each = bench.count(100)
    asked, rng = prompts(4242, each, each), random.Random(4)
    texts = {
        "full": [prompt.text for prompt in asked],
        "vague": [write_vague(rng, prompt.scene) for prompt in asked],
    }
    packed = bench.packed(asked)
    thin, _ = edges(packed)
    hint, hints = thin[:, None].expand(-1, 3, -1, -1).float(), thin.cpu().numpy()

    def overlap(pictures: torch.Tensor) -> float:
        values = [judge.boundary_overlap(edge, picture) for edge, picture in zip(hints, to_numpy(pictures), strict=True)]
        return round(float(np.mean(values)), 4)

    result = {
        kind: {f"{scale:g}": overlap(draw(bench.family, lines, seed=4300, hint=Hint(hint, scale))) for scale in (0.0, 0.5, 1.0)}
        for kind, lines in texts.items()
    }
    result["renders"] = {"own hint": overlap(render_bytes(packed))}
    return result


def measure_loras(bench: Bench) -> dict[str, dict[str, float]]:
    """Mean saturation under `pastel` and mean black rim under `outline`, by weight; prompts for the rim name
    no black.
    """
    each = bench.count(50)
    asked = [p for p in prompts(777, 2 * each, 2 * each) if BLACK not in _colours(p.scene)]
    measures = {"pastel": judge.saturation, "outline": judge.rim_share}
    packed, result = bench.packed(asked), {}
    for name, measure in measures.items():
        adapter = load_adapter(bench.folder / "lora" / f"{name}.safetensors", bench.run.device)
        values = {}
        for weight in WEIGHTS:
            styled = bench.family.with_unet(lora.styled_unet(bench.family.unet, adapter, weight))
            pictures = draw(styled, [prompt.text for prompt in asked], seed=7700)
            values[f"{weight:g}"] = round(float(np.mean([measure(picture) for picture in to_numpy(pictures)])), 4)
        style = lora.STYLES[name].rendering(name, bench.run.device)
        values["renders in the style"] = round(float(np.mean([measure(picture) for picture in to_numpy(render_bytes(packed, **style))])), 4)
        result[name] = values
    return result


def _colours(scene: Scene) -> set[int]:
    return {scene.background, *(thing.colour for thing in scene.things)}


def load_adapter(path: Path, device: torch.device) -> dict[str, torch.Tensor]:
    """A packaged LoRA in diffusers' layout, with names relative to the UNet."""
    return {name.removeprefix("unet."): tensor.float() for name, tensor in load_file(path, device=str(device)).items()}


def _side_by_side(count: int, seed: int) -> list[Scene]:
    """Scenes with two things left and right of the middle, each well inside its half."""
    rng, scenes = random.Random(seed), []
    while len(scenes) < count:
        scene = random_scene(rng, 2)
        left, right = sorted(scene.things, key=lambda thing: thing.x)
        if scene.relation in ("left", "right") and left.x + left.radius < 60 and right.x - right.radius > 68:
            scenes.append(scene)
    return scenes


def measure_inpainting(bench: Bench) -> dict[str, float]:
    """Replace the right-hand thing behind a mask of the right half.

    `kept`: mean absolute difference from the original, 0 to 255, over unmasked pixels at least 8 from the
    mask; it is the VAE's own error, as nothing is pasted back. `vae`: the same for a mere reconstruction.
    `right`: share of pictures that match the new prompt.
    """
    rng = random.Random(55)
    before = _side_by_side(bench.count(100), 5)
    asked = []
    for scene in before:
        right = max(scene.things, key=lambda thing: thing.x)
        colour = rng.choice([index for index in range(len(COLOURS)) if index not in _colours(scene)])
        changed = replace(right, colour=colour, shape=(right.shape + rng.randrange(1, len(SHAPES))) % len(SHAPES))
        things = tuple(changed if thing is right else thing for thing in scene.things)
        # Named sizes would bind the thing outside the mask too; only what is drawn anew is judged.
        asked.append(replace(write(rng, replace(scene, things=things), full=True), sized=()))
    original = render_bytes(torch.from_numpy(pack(before)).to(bench.run.device))
    mask = torch.zeros(len(asked), 128, 128, dtype=torch.bool, device=bench.run.device)
    mask[:, :, 64:] = True
    pictures = draw(bench.family, [prompt.text for prompt in asked], seed=5000, start=Start(original, 1.0, mask))
    rebuilt = decode(bench.family.vae, encode(bench.family.vae, original))

    def difference(seen: torch.Tensor) -> float:
        return round(float((seen.float() - original.float()).abs()[..., : 64 - 8].mean()), 3)

    table = judge.tabulate(bench.run.grade(pictures, asked))
    return {
        "kept": difference(pictures),
        "vae": difference(rebuilt),
        "right": round(judge.share(table, 2), 4),
    }


def measure_image_to_image(bench: Bench) -> dict[str, float]:
    """Strength 0.5 from a render of the prompt's own scene: how far things move, in pixels, and the share
    still right.
    """
    each = bench.count(50)
    asked = prompts(808, each, each)
    original = render_bytes(bench.packed(asked))
    pictures = draw(bench.family, [prompt.text for prompt in asked], seed=8000, start=Start(original, 0.5))
    moved = []
    for before, after in zip(to_numpy(original), to_numpy(pictures), strict=True):
        found = {seen.colour: seen for seen in reversed(judge.look(after).things)}
        for thing in judge.look(before).things:
            if thing.colour in found:
                seen = found[thing.colour]
                moved.append(float(np.hypot(seen.x - thing.x, seen.y - thing.y)))
    moved = moved or [float("inf")]
    table = judge.tabulate(bench.run.grade(pictures, asked))
    return {
        "moved_mean": round(float(np.mean(moved)), 2),
        "moved_95_percent": round(float(np.percentile(moved, 95)), 2),
        "right_one": round(judge.share(table, 1), 4),
        "right_two": round(judge.share(table, 2), 4),
    }


def measure_upscaler(bench: Bench) -> dict[str, dict[str, float]]:
    """See `upscaler.measure`."""
    network = Compact()
    network.load_state_dict({k: v.float() for k, v in load_file(bench.folder / "upscaler" / "x2-compact.safetensors").items()})
    network = network.to(bench.run.device).eval().requires_grad_(False)
    return upscaler.measure(network, bench.family.vae, bench.count(200))


def measure_safety(bench: Bench) -> dict[str, dict[str, float]]:
    """Area under the ROC curve on renders, on reconstructions, and on generated pictures, where the judge
    tells the truth.
    """
    network = ResNetForImageClassification.from_pretrained(bench.folder / "safety", dtype=torch.float32)
    network = network.to(bench.run.device).eval().requires_grad_(False)
    result = safety.measure(network, bench.family.vae, bench.count(2000))
    rng, asked = random.Random(909), []
    while len(asked) < bench.count(300):
        scene = safety.contrasting_scene(rng)
        if scene.things:
            asked.append(write(rng, scene, full=True))
    pictures = draw(bench.family, [prompt.text for prompt in asked], seed=9000)
    probability = safety.scores(network, pictures).cpu().numpy()
    sights = [judge.look(picture) for picture in to_numpy(pictures)]
    truth = np.array([safety.truth_of(sight.background, sight.things) for sight in sights])
    result["generated"] = {label: safety.area(probability[:, index], truth[:, index]) for index, label in safety.LABELS.items()}
    return result


def gates(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Each promise with its figure and whether it is kept."""
    table, loras, control = result["prompts"]["table"], result["loras"], result["controlnet"]
    fall = [loras["pastel"][f"{weight:g}"] for weight in WEIGHTS]
    rise = [loras["outline"][f"{weight:g}"] for weight in WEIGHTS]
    curves = [value for figures in result["safety"].values() for value in figures.values()]
    inside = result["inpainting"]
    shares = [judge.share(formats, count) for formats in result["formats"].values() for count in formats]
    truth = [judge.share(kind, count) for kind in result["judge"].values() for count in kind]
    rows = [
        ("judge right on rendered ground truth, least", min(truth), "= 1", min(truth) == 1),
        ("one object, all right", judge.share(table, 1), "≥ 0.99", judge.share(table, 1) >= 0.99),
        ("two objects, all right", judge.share(table, 2), "≥ 0.97", judge.share(table, 2) >= 0.97),
        ("192x128 and 128x192, all right, least", min(shares), "≥ 0.9", min(shares) >= 0.9),
        (
            "ControlNet boundary IoU, vague prompts, scale 1",
            control["vague"]["1"],
            "≥ 0.6",
            control["vague"]["1"] >= 0.6,
        ),
        (
            "ControlNet boundary IoU, full prompts, scale 1",
            control["full"]["1"],
            "≥ 0.6",
            control["full"]["1"] >= 0.6,
        ),
        (
            "ControlNet boundary IoU, vague prompts, scale 0",
            control["vague"]["0"],
            "≤ 0.2",
            control["vague"]["0"] <= 0.2,
        ),
        (
            "ControlNet boundary IoU, full prompts, scale 0",
            control["full"]["0"],
            "≤ 0.2",
            control["full"]["0"] <= 0.2,
        ),
        (
            "pastel: saturation at weights 0 … 1",
            fall,
            "falls",
            all(a > b for a, b in itertools.pairwise(fall)),
        ),
        (
            "outline: black rim at weights 0 … 1",
            rise,
            "rises",
            all(a < b for a, b in itertools.pairwise(rise)),
        ),
        ("inpainting: mean change outside the mask, of 255", inside["kept"], "≤ 2", inside["kept"] <= 2),
        ("inpainting: new thing right", inside["right"], "≥ 0.8", inside["right"] >= 0.8),
        (
            "upscaler: dB over bicubic",
            result["upscaler"]["average"]["gain"],
            "≥ 3",
            result["upscaler"]["average"]["gain"] >= 3,
        ),
        ("test classifier: AUC, least", min(curves), "≥ 0.99", min(curves) >= 0.99),
    ]
    return [{"gate": gate, "figure": _short(figure), "wanted": wanted, "met": bool(met)} for gate, figure, wanted, met in rows]


def _short(figure: float | list[float]) -> float | list[float]:
    return [round(value, 4) for value in figure] if isinstance(figure, list) else round(figure, 4)


def format_gates(rows: list[dict[str, Any]]) -> str:
    """The gates as Markdown."""
    lines = ["| gate | figure | wanted | met |", "| --- | --- | --- | --- |"]
    for row in rows:
        figure = row["figure"]
        text = " → ".join(f"{value:g}" for value in figure) if isinstance(figure, list) else f"{figure:g}"
        lines.append(f"| {row['gate']} | {text} | {row['wanted']} | {'yes' if row['met'] else '**no**'} |")
    return "\n".join(lines)


def write_result(result: dict[str, Any], path: Path) -> None:
    """Write `evaluation.json`."""
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
