"""What CUDA graphs give: one denoise of a full-size network with random weights, eager and replayed, by turns.

Usage: python bench/gpu/graphs.py [--size 512] [--steps 30] [--rounds 8]
Prints one JSON object a line: `graphs.denoiseRatio` is the median of the pairs' ratios; `isSame` says whether the
latents are equal byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "python"))
from darkroom import exactness

exactness.prepare_environment(4)

import torch
from darkroom import graphs
from diffusers import EulerAncestralDiscreteScheduler, UNet2DConditionModel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("size", 512), ("steps", 30), ("rounds", 8)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    exactness.configure(4)
    device = exactness.device("cuda")
    torch.manual_seed(1)
    with torch.device(device):
        # The configuration of Stable Diffusion 1.5's network, 860 million parameters.
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8).half().eval()
        rows = torch.randn(2, 77, 768).half()
    forward = graphs.Replayed(unet, lambda given, t, rows: unet(given, t, encoder_hidden_states=rows, return_dict=False)[0].float(), device)

    @torch.inference_mode()
    def draw() -> tuple[float, str]:
        scheduler = EulerAncestralDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
        scheduler.set_timesteps(options.steps)
        generator = torch.Generator().manual_seed(7)
        side = options.size // 8
        latents = (torch.randn(1, 4, side, side, generator=generator) * float(scheduler.init_noise_sigma)).to(device)
        torch.cuda.synchronize()
        started = time.perf_counter()
        for t in scheduler.timesteps:
            given = torch.cat([scheduler.scale_model_input(latents, t)] * 2).contiguous().half()
            without, with_prompt = forward(given, t.to(device), rows).chunk(2)
            predicted = without + 7.5 * (with_prompt - without)
            latents = scheduler.step(predicted, t, latents, generator=generator, return_dict=False)[0]
        torch.cuda.synchronize()
        return time.perf_counter() - started, hashlib.sha256(latents.cpu().numpy().tobytes()).hexdigest()

    def timed(is_replayed: bool) -> tuple[float, str]:
        graphs.enabled = is_replayed
        return draw()

    for is_replayed in (False, True, False, True):
        timed(is_replayed)
    pairs = [(timed(False), timed(True)) for _ in range(options.rounds)]
    eager, replayed = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    print(
        json.dumps(
            {
                "device": torch.cuda.get_device_name(device),
                "size": options.size,
                "steps": options.steps,
                "eagerS": round(statistics.median(s for s, _ in eager), 4),
                "replayedS": round(statistics.median(s for s, _ in replayed), 4),
                "graphs.denoiseRatio": round(statistics.median(b[0] / a[0] for a, b in pairs), 4),
                "graphs.mb": round(graphs.held_bytes() / 1e6, 1),
                "captures": forward.captures,
                "isSame": len({digest for _, digest in (*eager, *replayed)}) == 1,
            }
        )
    )


if __name__ == "__main__":
    main()
