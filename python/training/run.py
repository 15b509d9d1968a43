"""One run of the training: its device, its folder of results so far, its helpers and its time."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from . import judge
from .captions import Prompt

# Seconds of training for each stage on one GPU; the whole, with data, latents and evaluation, is about 25
# minutes.
BUDGETS = {
    "vae": 190.0,
    "upscaler": 45.0,
    "safety": 25.0,
    "unet": 600.0,
    "controlnet": 120.0,
    "pastel": 30.0,
    "outline": 40.0,
}


@dataclass
class Run:
    """Where a run keeps its state, on what it computes and until when.

    `small` shrinks every stage to a few steps, to see on a CPU that it works at all. Stages write
    `<stage>.safetensors` and, when finished, `<stage>.json` to `state`; a stage with its report there is
    done. `logs` also writes what is printed to `log.txt` there.
    """

    state: Path
    device: torch.device
    small: bool = False
    seed: int = 1
    ends: float = float("inf")
    seconds: float | None = None
    start: Path | None = None
    logs: bool = True
    begun: float = field(default_factory=time.monotonic)
    _pool: Any = None

    @classmethod
    def open(
        cls,
        state: Path,
        device: str,
        small: bool = False,
        seed: int = 1,
        minutes: float | None = None,
        seconds: float | None = None,
        start: Path | None = None,
        logs: bool = True,
    ) -> Run:
        """Prepare the folder, the worker processes (before CUDA starts: they are forked) and the device."""
        state.mkdir(parents=True, exist_ok=True)
        run = cls(state, torch.device(device), small, seed, seconds=seconds, start=start, logs=logs)
        if minutes is not None:
            run.ends = run.begun + 60 * minutes
        workers = min(14, (os.cpu_count() or 2) - 2)
        if run.cuda and workers > 1:
            run._pool = multiprocessing.get_context("fork").Pool(workers)
            torch.backends.cudnn.benchmark = True
        return run

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def dtype(self) -> torch.dtype:
        """What networks compute in while they train."""
        return torch.bfloat16 if self.cuda else torch.float32

    @property
    def left(self) -> float:
        """Seconds until this run must end."""
        return self.ends - time.monotonic()

    def log(self, message: str) -> None:
        line = f"[{time.monotonic() - self.begun:7.1f}] {message}"
        print(line, flush=True)
        if self.logs:
            with (self.state / "log.txt").open("a") as file:
                file.write(line + "\n")

    def synchronize(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def budget(self, stage: str) -> float:
        """Seconds a stage trains for."""
        if self.seconds is not None:
            return self.seconds
        return 3.0 if self.small else BUDGETS[stage]

    def scale(self, full: int, small: int) -> int:
        """A count at full scale, or in a smoke run."""
        return small if self.small else full

    def done(self, stage: str) -> bool:
        return (self.state / f"{stage}.json").exists()

    def finish(self, stage: str, report: Mapping[str, Any]) -> None:
        """Write a stage's report, which marks it done."""
        device = torch.cuda.get_device_name() if self.cuda else "CPU"
        full = {"device": device, "torch": torch.__version__, "seed": self.seed, **report}
        (self.state / f"{stage}.json").write_text(json.dumps(full, indent=1) + "\n")

    def report(self, stage: str) -> dict[str, Any]:
        """A finished stage's report. Raises FileNotFoundError if it is not done."""
        return json.loads((self.state / f"{stage}.json").read_text())

    def save(self, name: str, weights: Mapping[str, torch.Tensor], **notes: object) -> None:
        """Write tensors as `<name>.safetensors`, whole or not at all; `notes` become metadata strings."""
        path = self.state / f"{name}.safetensors"
        partial = path.with_suffix(".partial")
        save_file(
            {key: tensor.detach().cpu().contiguous() for key, tensor in weights.items()},
            partial,
            metadata={key: str(value) for key, value in notes.items()},
        )
        partial.replace(path)

    def load(self, name: str) -> dict[str, torch.Tensor]:
        """Tensors of `<name>.safetensors`, on the run's device. Raises FileNotFoundError if the stage has not
        run.
        """
        path = self.state / f"{name}.safetensors"
        if not path.exists():
            raise FileNotFoundError(f"{path}: run the stage that makes it first")
        return load_file(path, device=str(self.device))

    def map(self, function, jobs: list) -> list:
        """Apply a function to jobs, in worker processes where there are any."""
        return self._pool.map(function, jobs, chunksize=1) if self._pool else [function(job) for job in jobs]

    def grade(self, pictures: torch.Tensor, asked: list[Prompt]) -> list[judge.Grade]:
        """Judge uint8 pictures [N, 3, H, W] against their prompts."""
        images = pictures.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        step = 16
        jobs = [(images[at : at + step], asked[at : at + step]) for at in range(0, len(images), step)]
        return [verdict for part in self.map(_grade_job, jobs) for verdict in part]

    def close(self) -> None:
        if self._pool:
            self._pool.terminate()
            self._pool = None


def _grade_job(job: tuple[np.ndarray, list[Prompt]]) -> list[judge.Grade]:
    return judge.grade_all(*job)
