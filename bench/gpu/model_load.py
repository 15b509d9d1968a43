"""How long models of real size take from disk and from RAM onto a GPU, with random weights, by the child's own code;
two that take turns in it; and whether `model.benchmark` tells the same.

    python3 bench/gpu/model_load.py [--sizes sd15 sdxl] [--folder DISK] [--rounds 3] [--json FILE]

Needs torch for CUDA, diffusers, transformers, numpy and fastjsonschema; neither Node nor Redis. Prints one line of
JSON, by size:

| name | what |
| --- | --- |
| `coldLoadRatio` | load with cold files, networks made anew, against reading as many bytes from that disk |
| `warmLoadRatio` | RAM cache → device, networks made and mapping registered, against a pinned copy of as much |
| `warmFirstLoadS`, `warmNewChildS` | the same in a new child: networks made, mapping registered, seconds |
| `coldGBs`, `warmGBs` | bytes a second |
| `makeS` | what making the networks takes of a load |

`turns`: see `model_turns.py`. `benchmark`: seconds that `model.benchmark` says against those of this script's own load
of the same model just before, five times by turns; medians of the pairs, to be within 10 %. Both count the same: cold,
networks made anew with cold files; warm, the weights of networks that are made, the median of several loads in a row.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "python"))

import model_turns
import torch
from darkroom.families.parts import ModelParts
from darkroom.families.shell import Shell
from darkroom.weight_files import WeightFiles
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

READERS = 8
PIECE = 16 << 20
WARM_LOADS = 5

SDXL_UNET = {
    "cross_attention_dim": 2048,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": [1, 2, 10],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128,
}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20, "projection_dim": 1280}

# (part, class, configuration, the dtype it computes in); SD1.5's model is the first one that takes turns.
SIZES = {
    "sd15": [
        ("unet", UNet2DConditionModel, model_turns.SD15_UNET, torch.float16),
        ("vae", AutoencoderKL, model_turns.VAE, torch.float32),
        ("text_encoder", CLIPTextModel, model_turns.CLIP_L, torch.float32),
    ],
    "sdxl": [
        ("unet", UNet2DConditionModel, SDXL_UNET, torch.float16),
        ("vae", AutoencoderKL, model_turns.VAE, torch.float32),
        ("text_encoder", CLIPTextModel, model_turns.CLIP_L, torch.float32),
        ("text_encoder_2", CLIPTextModelWithProjection, CLIP_G, torch.float32),
    ],
}


def make(folder: Path, size: str) -> None:
    """Writes the networks in fp16."""
    for part, kind, config, _ in SIZES[size]:
        is_diffusers = kind in (UNet2DConditionModel, AutoencoderKL)
        with torch.device("cuda"):
            network = (kind(**config) if is_diffusers else kind(CLIPTextConfig(**config))).half()
        (network.save_config if is_diffusers else network.config.save_pretrained)(folder / part)
        name = "diffusion_pytorch_model" if is_diffusers else "model"
        tensors = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
        save_file(tensors, folder / part / f"{name}.safetensors", {"format": "pt"})
        del network
    torch.cuda.empty_cache()


def make_cold(files: list[Path]) -> None:
    """Out of the page cache."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def read_bare(files: list[Path], readers: int) -> float:
    """Seconds to read them in pieces by so many threads, each into a buffer of its own."""
    buffers = [bytearray(PIECE) for _ in range(readers)]

    def run(reader: int) -> None:
        for number, (descriptor, at) in enumerate(pieces):
            if number % readers == reader:
                os.preadv(descriptor, [buffers[reader]], at)

    descriptors = [os.open(file, os.O_RDONLY) for file in files]
    pieces = [(descriptor, at) for descriptor in descriptors for at in range(0, os.fstat(descriptor).st_size, PIECE)]
    with ThreadPoolExecutor(readers) as threads:
        started = time.monotonic()
        list(threads.map(run, range(readers)))
        seconds = time.monotonic() - started
    for descriptor in descriptors:
        os.close(descriptor)
    return seconds


def load(folder: Path, size: str, weights: WeightFiles, fill: Callable[[Shell], None] = Shell.fill) -> list[Shell]:
    """As a family loads its parts."""
    shells: list[Shell] = []

    def keep(shell: Shell) -> None:
        shells.append(shell)
        fill(shell)

    parts = ModelParts({"path": str(folder)}, torch.device("cuda"), weights, keep, lambda: None)
    for part, kind, _, dtype in SIZES[size]:
        parts.network(kind, part, dtype)
    return shells


def timed(act: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    started = time.monotonic()
    act()
    torch.cuda.synchronize()
    return time.monotonic() - started


def rounded(values: list[float]) -> list[float]:
    return [round(value, 4) for value in values]


def cold(folder: Path, size: str, rounds: int, files: list[Path]) -> dict:
    """From disk, by turns with bare reads by as many readers as are fastest here."""
    total, weights = sum(file.stat().st_size for file in files), WeightFiles(torch.device("cuda"))
    # What a process pays once: the libraries' first calls, the slabs.
    first = timed(lambda: load(folder, size, weights))
    weights.measure()
    by_readers = {}
    for readers in (1, READERS):
        make_cold(files)
        by_readers[readers] = read_bare(files, readers)
    readers = min(by_readers, key=lambda each: by_readers[each])
    reads, loads = [by_readers[readers]], []
    for _ in range(rounds):
        make_cold(files)
        loads.append(timed(lambda: load(folder, size, weights)))
        make_cold(files)
        reads.append(read_bare(files, readers))
    cached = read_bare(files, READERS)
    loaded, read, figures = statistics.median(loads), statistics.median(reads), weights.measure()
    return {
        "bytes": total,
        "coldLoadRatio": round(loaded / read, 3),
        "cold": rounded(loads),
        "bareRead": rounded(reads),
        "readers": readers,
        "wasCold": read > 1.5 * cached,
        "coldGBs": round(total / loaded / 1e9, 2),
        "aheadBytes": figures.ahead // rounds,
        "firstLoadS": round(first, 3),
        "pageCacheLoadS": round(timed(lambda: load(folder, size, weights)), 3),
        "makeS": round(timed(lambda: load(folder, size, weights, lambda shell: None)), 3),
        "readS": read,
        "coldS": loaded,
    }


def warm(folder: Path, size: str, rounds: int, total: int) -> dict:
    """From RAM, as the worker's cache offers it: files without a name that this process maps."""
    device = torch.device("cuda")
    weights, offers = WeightFiles(device), model_turns.cache(folder)
    weights.offer(offers)
    shells: list[Shell] = []
    first = timed(lambda: shells.extend(load(folder, size, weights)))
    figures = weights.measure()
    pinned = torch.empty(total, dtype=torch.uint8, pin_memory=True)
    pinned.fill_(1)
    target = torch.empty(total, dtype=torch.uint8, device=device)
    loads, firsts, copies = [], [], []
    for _ in range(max(rounds, WARM_LOADS)):
        copies.append(timed(lambda: target.copy_(pinned, non_blocking=True)))
        # The first one after a copy of other memory is no warm one: the second counts, as in `model.benchmark`.
        seconds = []
        for _ in range(2):
            for shell in shells:
                shell.strip()
            seconds.append(timed(lambda: [shell.fill() for shell in shells]))
        loads.append(seconds[-1])
        firsts.append(seconds[0])
    loaded, copy = statistics.median(loads), statistics.median(copies)
    again = WeightFiles(device)
    again.offer(offers)
    new = timed(lambda: load(folder, size, again))
    for each in (weights, again):
        each.withdraw([offer["inode"] for offer in offers])
    for offer in offers:
        os.close(int(offer["mapping"].rpartition("/")[2]))
    return {
        "warmLoadRatio": round(loaded / copy, 3),
        "warm": rounded(loads),
        "warmAfterCopy": rounded(firsts),
        "bareCopy": rounded(copies),
        "warmGBs": round(total / loaded / 1e9, 2),
        "warmFirstLoadS": round(first, 3),
        "warmNewChildS": round(new, 3),
        "registeredBytes": figures.registered,
        "copyS": copy,
    }


def measure(folder: Path, size: str, rounds: int) -> dict:
    files = sorted(folder.glob("*/*.safetensors"))
    told = cold(folder, size, rounds, files)
    torch.cuda.empty_cache()
    told |= warm(folder, size, rounds, told["bytes"])
    torch.cuda.empty_cache()
    return told


class Own:
    """This script's own loads of a model, beside which `model.benchmark` is asked for its own by turns."""

    def __init__(self, folder: Path, size: str):
        self.cold: list[float] = []
        self.warm: list[float] = []
        self._load = lambda weights: load(folder, size, weights)
        self._files = sorted(folder.glob("*/*.safetensors"))
        self._disk, self._ram = WeightFiles(torch.device("cuda")), WeightFiles(torch.device("cuda"))
        self._offers = model_turns.cache(folder)
        self._ram.offer(self._offers)
        self._load(self._disk)
        self._shells = self._load(self._ram)

    def measure(self) -> None:
        loads = []
        for _ in range(WARM_LOADS):
            for shell in self._shells:
                shell.strip()
            loads.append(timed(lambda: [shell.fill() for shell in self._shells]))
        self.warm.append(statistics.median(loads))
        make_cold(self._files)
        self.cold.append(timed(lambda: self._load(self._disk)))

    def against(self, benchmarks: list[dict]) -> dict:
        """Medians of the pairs: what a benchmark says against the load just before it."""
        told = {"cold": [each["cold_load_s"] for each in benchmarks], "warm": [each["warm_load_s"] for each in benchmarks]}
        own = {"cold": self.cold, "warm": self.warm}
        pairs = {name: [said / seen for said, seen in zip(told[name], own[name], strict=True)] for name in told}
        against = {name: round(statistics.median(ratios), 3) for name, ratios in pairs.items()}
        return {
            "against": against,
            "agrees": all(0.9 <= value <= 1.1 for value in against.values()),
            **{f"{name}Told": rounded(values) for name, values in told.items()},
            **{f"{name}Own": rounded(values) for name, values in own.items()},
            "isCold": all(each["is_cold"] for each in benchmarks),
        }

    def close(self) -> None:
        self._ram.withdraw([offer["inode"] for offer in self._offers])
        for offer in self._offers:
            os.close(int(offer["mapping"].rpartition("/")[2]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--folder", help="on the disk to be measured; default: the temporary folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="darkroom-bench-", dir=asked.folder))
    # As the child does: its collector does not look at the libraries' objects in the midst of a load.
    gc.collect()
    gc.freeze()
    told: dict = {"machine": torch.cuda.get_device_name(), "torch": torch.__version__, "cpus": os.cpu_count()}
    try:
        if "sd15" in asked.sizes:
            models = [model_turns.make(folder / f"model-{seed}", seed, "cuda", False) for seed in (1, 2)]
            told["sd15"] = measure(Path(models[0]["path"]), "sd15", asked.rounds)
            own = Own(Path(models[0]["path"]), "sd15")
            told["turns"] = model_turns.run(folder, "cuda", models, 512, own.measure)
            own.close()
            told["benchmark"] = own.against(told["turns"].pop("benchmarks"))
            for model in models:
                shutil.rmtree(model["path"])
        if "sdxl" in asked.sizes:
            make(folder / "sdxl", "sdxl")
            told["sdxl"] = measure(folder / "sdxl", "sdxl", asked.rounds)
    finally:
        shutil.rmtree(folder)
    line = json.dumps(told)
    print(line)
    if asked.json:
        Path(asked.json).write_text(line + "\n")


if __name__ == "__main__":
    main()
