"""The training set: packed scenes with tokenised captions, and their latents. Pictures are rendered on the
device, never stored.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from . import models, tokenizer
from .captions import write, write_vague
from .render import CHUNK, render
from .run import Run
from .world import SIDE, pack, random_scene

CAPTIONS, VAGUE = 4, 2
"""Full and vague captions for each scene, in this order in `Corpus.tokens`."""
LONG = 192
FORMATS = {"square": (SIDE, SIDE), "wide": (LONG, SIDE), "tall": (SIDE, LONG)}
"""Width and height in pixels of the formats trained on."""
SCENES = {"square": 250_000, "wide": 24_000, "tall": 24_000}


@dataclass(frozen=True)
class Corpus:
    """Scenes of one format on the device: packed float32 [N, 12], tokens int16 [N, 6, 32]."""

    packed: torch.Tensor
    tokens: torch.Tensor
    width: int
    height: int

    def first(self, count: int) -> Corpus:
        return Corpus(self.packed[:count], self.tokens[:count], self.width, self.height)


def prepare_tokenizer(run: Run) -> Path:
    """The run's tokenizer folder, trained if it is not there yet."""
    folder = run.state / "tokenizer"
    if not (folder / "tokenizer.json").exists():
        tokenizer.save(tokenizer.train(), folder)
    return folder


def corpus(run: Run, form: str, count: int | None = None) -> Corpus:
    """The scenes and captions of one format, drawn from the run's seed; by default as many as SCENES says."""
    width, height = FORMATS[form]
    folder = prepare_tokenizer(run)
    total = run.scale(count or SCENES[form], 64)
    size = min(total, 4000)
    base = run.seed * 1_000_000 + list(FORMATS).index(form) * 100_000
    jobs = [(folder, base + index, size, width, height) for index in range(total // size)]
    parts = run.map(_draw, jobs)
    packed = torch.from_numpy(np.concatenate([part[0] for part in parts])).to(run.device)
    tokens = torch.from_numpy(np.concatenate([part[1] for part in parts])).to(run.device)
    run.log(f"{form}: {len(packed)} scenes, {tokens.shape[0] * tokens.shape[1]} captions")
    return Corpus(packed, tokens, width, height)


@lru_cache(maxsize=1)
def _tokenizer(folder: Path):
    return tokenizer.load(folder)


def _draw(job: tuple[Path, int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    folder, seed, count, width, height = job
    rng = random.Random(seed)
    scenes = [random_scene(rng, None, width, height) for _ in range(count)]
    texts = []
    for scene in scenes:
        texts += [write(rng, scene).text for _ in range(CAPTIONS)]
        texts += [write_vague(rng, scene) for _ in range(VAGUE)]
    ids = tokenizer.encode(_tokenizer(folder), texts)
    return pack(scenes), ids.reshape(count, CAPTIONS + VAGUE, -1)


def empty_caption(run: Run) -> torch.Tensor:
    """Token ids of the empty prompt, int16 [1, 32]."""
    return torch.from_numpy(tokenizer.encode(_tokenizer(prepare_tokenizer(run)), [""])).to(run.device)


@torch.no_grad()
def latents(run: Run, vae: AutoencoderKL, packed: torch.Tensor, width: int, height: int, **style) -> torch.Tensor:
    """Unscaled latents of rendered scenes, in the run's working dtype: [N, 4, height / 4, width / 4]. `style`
    goes to `render`.
    """
    shape = (len(packed), models.LATENT_CHANNELS, height // models.FACTOR, width // models.FACTOR)
    result = torch.empty(shape, dtype=run.dtype, device=run.device)
    working = models.new_vae().to(run.device, run.dtype).to(memory_format=torch.channels_last).eval()
    working.load_state_dict(vae.state_dict())
    for start in range(0, len(packed), CHUNK):
        picture = render(packed[start : start + CHUNK], width, height, **style) * 2 - 1
        picture = picture.to(run.dtype).contiguous(memory_format=torch.channels_last)
        result[start : start + CHUNK] = models.posterior(working, picture)[0].to(run.dtype)
    return result
