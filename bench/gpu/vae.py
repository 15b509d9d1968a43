"""SDXL's autoencoder at full size with random weights: a decode as Darkroom does it, and with torch's own kernels.

Usage: python3 bench/gpu/vae.py [--size 1024] [--rounds 8]
Prints one JSON object: `decodeMs` and `torchMs` are medians of rounds by turns, both in fp32 with TF32; `isSame` says
whether all decodes of a side are equal to the last bit; `difference` is the largest between the two, of pixels in -1 to
1; `peakBytes` is what a decode takes at most beside the weights.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import os
import statistics
import sys
import time

sys.path[:0] = [os.path.join(os.path.dirname(__file__), "..", "..", *rest) for rest in (("python",), ("bench", "gpu"))]
from darkroom import exactness

exactness.prepare_environment(4)

import sdxl
import torch
from darkroom.families import suited
from diffusers import AutoencoderKL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("size", 1024), ("rounds", 8)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    exactness.configure(4)
    device = exactness.device("cuda")
    torch.manual_seed(1)
    own = AutoencoderKL(**sdxl.VAE).to(device).eval()
    ours = copy.deepcopy(own).to(memory_format=suited.layout(device))
    suited.suit(ours, device)
    latents = torch.randn(1, 4, options.size // 8, options.size // 8, device=device)
    sides = {"decode": ours, "torch": own}
    times: dict[str, list[float]] = {name: [] for name in sides}
    digests: dict[str, set[str]] = {name: set() for name in sides}
    peaks: dict[str, int] = {}
    made: dict[str, torch.Tensor] = {}
    for turn in range(-2, options.rounds):
        for name, vae in sides.items():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            torch.cuda.synchronize()
            started = time.perf_counter()
            with torch.inference_mode(), exactness.in_tf32():
                made[name] = vae.decode(latents, return_dict=False)[0]
            torch.cuda.synchronize()
            if turn >= 0:
                times[name].append((time.perf_counter() - started) * 1000)
            digests[name].add(hashlib.sha256(made[name].cpu().numpy().tobytes()).hexdigest())
            peaks[name] = torch.cuda.max_memory_allocated() - before
    row = {
        "device": torch.cuda.get_device_name(),
        "size": options.size,
        **{f"{name}Ms": round(statistics.median(values), 1) for name, values in times.items()},
        "isSame": all(len(each) == 1 for each in digests.values()),
        "difference": float((made["decode"] - made["torch"]).abs().max()),
        "peakBytes": peaks,
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
