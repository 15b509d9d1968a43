"""The model card: what the family is, what it was measured to do, what it cannot do, and the commands that made it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import judge, safety
from .captions import vocabulary
from .evaluate import format_gates
from .package import DATE, LICENSE
from .run import Run
from .world import SHAPES

STAGES = ("vae", "upscaler", "safety", "unet", "pastel", "outline", "controlnet")


def write(run: Run, folder: Path) -> None:
    """Write the family's `README.md` from the stages' reports, `evaluation.json` and `timing.json`.

    Raises FileNotFoundError if one of them is missing.
    """
    reports = {stage: run.report(stage) for stage in STAGES}
    figures, timing = (json.loads((folder / name).read_text()) for name in ("evaluation.json", "timing.json"))
    sections = (_introduction(), _use(), _figures(figures, timing), _limits(), _training(reports))
    (folder / "README.md").write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _introduction() -> str:
    words = "\n".join(f"- {kind}: {', '.join(known)}" for kind, known in vocabulary().items())
    return f"""---
license: {LICENSE.lower()}
library_name: diffusers
pipeline_tag: text-to-image
---

# darkroom-tiny

A complete, very small family of latent diffusion models in the diffusers layout. It draws flat shapes on a plain background, as the
prompt says: *a red circle left of a blue square on yellow*. It exists to test, demonstrate and measure an inference engine on two CPU
cores without a network: whether a picture is right can be measured. It is of no other use.

No picture and no word of it comes from elsewhere: scenes are drawn at random, rendered by signed distance functions and described by
templates, all in code (`python/training/world.py`, `render.py`, `captions.py`).

The words it knows, beside "on", "with", "and", "plain", "background", articles and the like:

{words}

No, one or two things; two things left, right, above or below of one another, in different colours. Any prompt may be typed, but other
words mean nothing to it."""


def _use() -> str:
    meanings = "\n".join(f"- `{label}`: {meaning}" for label, meaning in safety.MEANINGS.items())
    return f"""## Parts

All weights are fp16 safetensors with ModelSpec metadata; `manifest.json` has the SHA-256 of every file.

| path | what |
| --- | --- |
| `unet`, `text_encoder`, `vae`, `tokenizer`, `scheduler` | the pipeline: v-prediction, linear betas, latents at a quarter of the side |
| `controlnet-edge` | ControlNet for edges: white lines one or two pixels wide on black |
| `lora/pastel.safetensors` | LoRA of rank 4, attention only: every colour mixed with white; weights 0 to 1, no trigger word |
| `lora/pastel-kohya.safetensors` | the same tensors under kohya's names |
| `lora/outline.safetensors` | LoRA of rank 8, attention and convolutions: a black rim |
| `upscaler/x2-compact.safetensors` | ×2 upscaler, the Compact network of Real-ESRGAN with 24 features and 6 inner convolutions |
| `safety` | a test of the plumbing, **no nudity detector** |

```python
import diffusers, torch
pipeline = diffusers.StableDiffusionPipeline.from_pretrained("models/darkroom-tiny")
picture = pipeline("a red circle left of a blue square on yellow", width=128, height=128, num_inference_steps=20,
                   guidance_scale=3.0, generator=torch.Generator().manual_seed(7)).images[0]
```

The classifier knows flat shapes only. It flags two harmless kinds of picture, so that thresholds and actions of a policy can be tested:

{meanings}"""


def _figures(figures: dict[str, Any], timing: dict[str, Any]) -> str:
    def table(counts: dict[str, Any]) -> str:
        return judge.format_table({int(count): row for count, row in counts.items()})

    confusion = figures["prompts"]["confusion"]
    wrong = [
        f"{SHAPES[row]} read as {confusion['columns'][column]}: {count}"
        for row, counts in enumerate(confusion["counts"])
        for column, count in enumerate(counts)
        if count and row != column
    ]
    formats = "\n\n".join(f"{name}:\n\n{table(counts)}" for name, counts in figures["formats"].items())
    variants = "\n".join(
        f"| {name} | {100 * judge.share({int(k): v for k, v in counts.items()}, 1):.1f} % "
        f"| {100 * judge.share({int(k): v for k, v in counts.items()}, 2):.1f} % |"
        for name, counts in figures["variants"].items()
    )
    partial = {name: share for name, share in figures["fractions"].items() if share < 1}
    sample = ", ".join(f"{name} {share:.0%}" for name, share in partial.items())
    sample = f" (share of the full sample: {sample})" if sample else ""
    kept = figures["image_to_image"]
    return f"""## Figures

Measured on {figures["device"]}, float32, torch {figures["torch"]}, {figures["date"]}, by `python -m training evaluate`{sample}.
A judge made of plain image processing reads every picture; it is right on all of its own 2,400 rendered pictures, plain and worn.
Scenes and noise come from seeds that training does not use, but from the same world: short prompts occur in both.

{format_gates(figures["gates"])}

128×128, 20 DDIM steps, guidance 3, all attributes ("all right" is background, count, colours bound to shapes, and relation):

{table(figures["prompts"]["table"])}

Shapes misread: {", ".join(wrong) or "none"}.

{formats}

Other settings, share all right of {_asked(figures["variants"])} prompts of each kind:

| setting | one | two |
| --- | --- | --- |
{variants}

- VAE: {figures["vae"]["psnr"]} dB on unseen renders; upscaler against bicubic interpolation, dB, small picture made by averaging \
{_gain(figures["upscaler"]["average"])}, by bicubic reduction {_gain(figures["upscaler"]["bicubic"])}, by the VAE \
{_gain(figures["upscaler"]["reconstruction"])}.
- ControlNet, boundary IoU within 2 pixels at scales 0, 0.5, 1: full prompts {_row(figures["controlnet"]["full"])}, vague prompts \
{_row(figures["controlnet"]["vague"])}; renders reach {figures["controlnet"]["renders"]["own hint"]}.
- LoRAs at weights 0, 0.25, 0.5, 0.75, 1 and renders in the style: saturation under pastel {_row(figures["loras"]["pastel"])}; share of \
black rim under outline {_row(figures["loras"]["outline"])}.
- Image to image at strength 0.5: things move {kept["moved_mean"]} pixels on average, 95 % of them at most \
{kept["moved_95_percent"]}.
- Time of a picture with the stock pipeline, {timing["threads"]} CPU threads ({timing["machine"]}, torch {timing["torch"]}), nothing else
  running: median {timing["median"]} s, {timing["least"]} to {timing["most"]} s over {timing["pictures"]} pictures, by
  `python -m training time`."""


def _asked(variants: dict[str, Any]) -> int:
    """How many prompts with one thing each setting was measured on."""
    return next(iter(variants.values()))["1"]["all"][1]


def _gain(figure: dict[str, float]) -> str:
    return f"{figure['upscaler']} against {figure['bicubic']}"


def _row(figures: dict[str, float]) -> str:
    return ", ".join(f"{value:g}" for value in figures.values())


def _limits() -> str:
    return """## Limits

- It knows the words above and draws at most two things. It has no notion of people, text or photographs.
- Native side 128 pixels. 192×128 and 128×192 were one batch in ten: one thing is drawn well there, but beside two things a third one
  appears in about a quarter of the pictures. Other sides (multiples of 8) work but were not trained.
- The pastel LoRA has only attention to work with and was trained for seconds: at weight 1 colours are pale but grainy, and edges soften.
- The classifier detects nothing but the two kinds of picture named above."""


def _training(reports: dict[str, dict[str, Any]]) -> str:
    rows = "\n".join(
        f"| {stage} | {report['device']} | {report['seconds']:g} s | {report['steps']:,} | {report['steps_per_second']:g} |"
        for stage, report in reports.items()
    )
    start = ""
    if reports["unet"]["start"] != "random":
        start = """
UNet and text encoder did not start at random but from an earlier edition of the family: the same networks and world, trained for
23,540 steps in 706 s of an NVIDIA H200 (2026-11-23, torch 2.11.0+cu130) on the latents of that edition's VAE, in squares only. The stage
`unet` taught them this VAE and the two other formats. `--start` names the folder of such an edition; without it the stage starts at random
for its whole default time, which was not carried through with this edition.
"""
    torch_build = reports["unet"]["torch"]
    return f"""## How it was made

{DATE}, torch {torch_build}, bfloat16 with float32 masters, seed 1:

| stage | device | training | steps | steps/s |
| --- | --- | --- | --- | --- |
{rows}
{start}
In `python/`, with the packages of `requirements.in` and a CUDA build of PyTorch:

```
python -m training train --state STATE --minutes 9       # again until it ends with status 0; every stage, resumed
python -m training package --state STATE --family ../models/darkroom-tiny
python -m training evaluate --family ../models/darkroom-tiny --device cpu
python -m training time --family ../models/darkroom-tiny
python -m training card --state STATE --family ../models/darkroom-tiny
python -m training sheet --family ../models/darkroom-tiny --out ../docs/darkroom-tiny-sheet.png
```

`train --start EDITION` and the single stages' `--seconds` gave the times above. `--small` walks through every stage in a minute."""
