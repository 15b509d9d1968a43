"""What it takes to change the adapters of a network in place: Stable Diffusion XL's full size, random weights, a graph.

Usage: python bench/gpu/adapters.py [--size 1024] [--switches 100]
Two LoRA files, of ranks 32 and 64 over all layers of attention and their feed-forwards, are written to RAM and put in
force as the product does it, by `darkroom.adapters.wear`. Prints one JSON object: seconds of a switch (median, 90th
percentile, and the first ones, which read the files and copy the originals), whether the weights' bytes are the same
before and after, whether the graph was still replayed and gives the eager bytes, and a step's time with two adapters
over its time without.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
from types import SimpleNamespace

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "python"))
from darkroom import exactness

exactness.prepare_environment(4)

import torch
from darkroom import adapters, graphs
from darkroom.adapter_keys import DENOISER, modules_of
from darkroom.patch import Patched
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

CONFIG = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
STEPS = 8


class Network:
    """As much of a `Shell` as adapters use, around a network whose weights are there."""

    part = "unet"

    def __init__(self, network: torch.nn.Module):
        weights = dict(network.named_parameters())
        self.shapes = {name: weight.shape for name, weight in weights.items()}
        self.modules = modules_of(
            DENOISER,
            [name for name, _ in network.named_modules() if name],
            network.config,
        )
        self.patch = Patched(weights, next(network.parameters()).device).apply


def write_lora(path: str, network: torch.nn.Module, rank: int) -> dict[str, object]:
    """A LoRA in kohya's names; returns it as a request names it."""
    tensors = {}
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Linear) and (
            "attn" in name or ".ff." in name or "proj_" in name
        ):
            flat, (rows, columns) = (
                f"lora_unet_{name.replace('.', '_')}",
                module.weight.shape,
            )
            tensors[f"{flat}.lora_down.weight"] = (
                torch.randn(rank, columns).mul(0.02).half()
            )
            tensors[f"{flat}.lora_up.weight"] = (
                torch.randn(rows, rank).mul(0.02).half().reshape(rows, rank)
            )
            tensors[f"{flat}.alpha"] = torch.tensor(float(rank))
    save_file(tensors, path)
    with open(path, "rb") as file:
        content = file.read()
    body = hashlib.sha256(
        memoryview(content)[8 + int.from_bytes(content[:8], "little") :]
    ).hexdigest()
    return {"id": f"rank {rank}", "path": path, "body_hash": body}


def fingerprint(network: torch.nn.Module) -> str:
    """Follows from every bit of the weights and its place."""
    whole = hashlib.sha256()
    for weight in network.parameters():
        bits = weight.view(-1).view(torch.int16).long()
        places = torch.arange(1, bits.numel() + 1, device=bits.device)
        whole.update(f"{int(bits.sum())} {int((bits * places).sum())}\n".encode())
    return whole.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("size", 1024), ("switches", 100)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    exactness.configure(4)
    device = exactness.device("cuda")
    torch.manual_seed(1)
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16)
    with torch.device(device):
        unet = UNet2DConditionModel(**CONFIG).eval().requires_grad_(False)
        side = options.size // 8
        rows, pooled, sizes = (
            torch.randn(2, 77, 2048),
            torch.randn(2, 1280),
            torch.full((2, 6), float(options.size)),
        )
        latents = torch.randn(2, 4, side, side)
    torch.set_default_dtype(dtype)

    def compute(given: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        added = {"text_embeds": pooled, "time_ids": sizes}
        return unet(
            given,
            t,
            encoder_hidden_states=rows,
            added_cond_kwargs=added,
            return_dict=False,
        )[0].float()

    forward = graphs.Replayed(unet, compute, device)
    time_of_step = torch.tensor(500.0, device=device)

    @torch.inference_mode()
    def draw() -> tuple[float, str]:
        """Seconds of a step, and the SHA-256 of what the last one gave."""
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(STEPS):
            made = forward(latents, time_of_step)
        torch.cuda.synchronize()
        return (time.perf_counter() - started) / STEPS, hashlib.sha256(
            made.cpu().numpy().tobytes()
        ).hexdigest()

    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        one, two = (
            write_lora(f"{folder}/{rank}.safetensors", unet, rank) for rank in (32, 64)
        )
        network = Network(unet)
        runtime = SimpleNamespace(
            adapters=adapters.Adapters([folder], device),
            models=SimpleNamespace(networks=lambda: [network]),
        )

        def wear(*wanted: tuple[dict[str, object], float]) -> float:
            given = {
                "adapters": [
                    {"model": model, "weight": weight} for model, weight in wanted
                ]
            }
            tools = SimpleNamespace(input=given, runtime=runtime, advance=lambda: None)
            torch.cuda.synchronize()
            started = time.perf_counter()
            adapters.wear(tools)  # type: ignore[arg-type]
            torch.cuda.synchronize()
            return time.perf_counter() - started

        draw()
        before, places = (
            fingerprint(unet),
            [weight.data_ptr() for weight in unet.parameters()],
        )
        plain_s, plain = draw()
        sets = [
            ((one, 0.8),),
            ((one, 0.8), (two, 0.5)),
            ((two, 0.7),),
            ((two, 0.5), (one, 0.8)),
            (),
        ]
        first = [wear(*wanted) for wanted in sets]
        both = [wear(*sets[index % 2 * 2 + 1]) for index in range(options.switches)]
        captures, replays = forward.captures, forward.replays
        changed_s, changed = draw()
        graphs.enabled = False
        _, eager = draw()
        graphs.enabled = True
        replayed = forward.replays - replays
        back_s = wear()
        after_s, after = draw()
        result = {
            "device": torch.cuda.get_device_name(),
            "switches": options.switches,
            "switchSeconds": round(statistics.median(both), 4),
            "switchSecondsP90": round(sorted(both)[int(len(both) * 0.9)], 4),
            "firstSeconds": [round(each, 3) for each in first],
            "backSeconds": round(back_s, 4),
            "isSameWeights": fingerprint(unet) == before,
            "isSamePlace": [weight.data_ptr() for weight in unet.parameters()]
            == places,
            "isSamePicture": after == plain,
            "changes": changed != plain,
            "isGraphUsed": replayed == STEPS and forward.captures == captures,
            "isGraphEager": changed == eager,
            "stepSeconds": round(plain_s, 4),
            "stepRatio": round(changed_s / min(plain_s, after_s), 3),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
