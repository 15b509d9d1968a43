"""Stable Diffusion at full size with random weights, and diffusers' bare pipeline of it: what `bench/gpu.ts` starts.

    python3 bench/gpu/bare.py make sd15 FOLDER       # sd15 or sdxl, fp16 on disk; made on the GPU
    python3 bench/gpu/bare.py draw FOLDER SIZE STEPS

`draw` keeps the pipeline in memory with torch's own settings, all in fp16 but an SDXL's autoencoder, which its own
configuration wants in fp32. It answers each line of its input with `{"seconds": …}` of one call that ends in a PIL
image; the PNG is not made.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "python" / "tests"), str(Path(__file__).parent)]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
GUIDANCE = 7.0
SEED = 3


def make(kind: str, folder: Path) -> None:
    if kind == "sdxl":
        import sdxl

        sdxl.make(folder, "cuda")
    else:
        import model_turns

        model_turns.make(folder, 15, "cuda", is_micro=False)


def draw(folder: Path, size: int, steps: int) -> None:
    import torch
    from diffusers import DiffusionPipeline, EulerAncestralDiscreteScheduler

    # Whatever the libraries print goes where it does not disturb.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    pipeline = DiffusionPipeline.from_pretrained(str(folder), torch_dtype=torch.float16, local_files_only=True)
    pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(pipeline.scheduler.config)
    pipeline.to("cuda").set_progress_bar_config(disable=True)
    for line in sys.stdin:
        asked = json.loads(line)
        started = time.perf_counter()
        pipeline(
            asked["prompt"],
            negative_prompt=asked["negativePrompt"],
            width=size,
            height=size,
            num_inference_steps=steps,
            guidance_scale=GUIDANCE,
            generator=torch.Generator("cpu").manual_seed(SEED),
        )
        out.write(json.dumps({"seconds": time.perf_counter() - started}) + "\n")


if __name__ == "__main__":
    verb, *rest = sys.argv[1:]
    if verb == "make":
        make(rest[0], Path(rest[1]))
    else:
        draw(Path(rest[0]), int(rest[1]), int(rest[2]))
