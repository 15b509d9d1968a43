"""How long one picture takes on this machine's CPU, with diffusers' own pipeline."""

from __future__ import annotations

import platform
import statistics
import time
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch

from . import judge
from .captions import prompts

PROMPT = "a red circle left of a blue square on yellow"


def measure(folder: Path, threads: int = 2, repeats: int = 10) -> dict[str, Any]:
    """Seconds for 20 DDIM steps at 128x128 with guidance 3, text and VAE included: median, least and most
    after one warm-up. Means something only where nothing else computes.
    """
    torch.set_num_threads(threads)
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)

    def once(text: str, seed: int) -> tuple[float, np.ndarray]:
        begun = time.perf_counter()
        picture = pipeline(
            text,
            width=128,
            height=128,
            num_inference_steps=20,
            guidance_scale=3.0,
            generator=torch.Generator().manual_seed(seed),
        ).images[0]
        return time.perf_counter() - begun, np.asarray(picture)

    once(PROMPT, 0)
    asked = prompts(1, repeats - repeats // 2, repeats // 2)
    seconds, right = [], 0
    for seed, prompt in enumerate(asked):
        spent, picture = once(prompt.text, seed)
        seconds.append(spent)
        right += judge.grade(picture, prompt.scene, prompt.sized).marks["all"]
    return {
        "threads": threads,
        "pictures": repeats,
        "right": right,
        "median": round(statistics.median(seconds), 2),
        "least": round(min(seconds), 2),
        "most": round(max(seconds), 2),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
    }
