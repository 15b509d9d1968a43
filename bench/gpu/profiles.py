"""Memory profiles on small cards: Stable Diffusion XL at full size with random weights, under a limit on the GPU's
memory.

    python3 bench/gpu/profiles.py [--steps 4] [--size 1024] [--cards 24 12 8]
    python3 bench/gpu/profiles.py --micro --device cpu --size 512 --steps 2     # whether it runs at all

Needs torch, diffusers, transformers, safetensors and this repository. A card is imitated by
`torch.cuda.set_per_process_memory_fraction`; what the driver's context takes is not in the limit. Prints one line of
JSON: for each card and profile the seconds of the stages, where the networks were and in how many tiles was decoded,
what was said on the way, the most that tensors took, and whether the latents are those of the card without a limit, to
the last bit: they must be.
"""

import argparse
import hashlib
import json
import logging
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [
    str(ROOT / "python"),
    str(ROOT / "python" / "tests"),
    str(Path(__file__).parent),
]

import sdxl

# Gigabytes → profiles that are drawn with; None: no limit.
CARDS = {
    None: ("auto",),
    24: ("auto",),
    12: ("auto", "balanced"),
    8: ("auto", "lowest-memory"),
}


class Limited(sdxl.Darkroom):
    """As the product: a request that runs out of memory goes down the ladder of `darkroom.memory`."""

    def __init__(self, folder, asked):
        super().__init__(folder, asked)
        from darkroom.device_loop import DeviceLoop
        from darkroom.requests import Requests

        self.loop = DeviceLoop(
            self.backend,
            self.runtime,
            Requests(None, logging.getLogger("bench")),
            logging.getLogger("bench"),
        )
        self.said = []

    def step(self, verb, names, files):
        """(seconds, the answer)."""
        from darkroom.tools import Tools

        self.count += 1
        own = self.attempts / str(self.count)
        own.mkdir()
        data = {
            "session_id": "bench",
            "dir": str(own),
            "input": {name: self.request[name] for name in (*names, "memory_profile")},
        }
        data |= {"files": files, "checkpoint": None}
        started = time.perf_counter()
        tools = Tools(
            str(self.count),
            f"inference.{verb}",
            data,
            self.runtime,
            self.told,
            logging.getLogger("bench"),
        )
        answer, _ = self.loop.answer(tools)
        tools.close()
        if answer["type"] != "result":
            raise RuntimeError(answer.get("message", str(answer)))
        return time.perf_counter() - started, answer

    def told(self, frame):
        if frame["type"] == "note":
            self.said.append(frame["text"])

    def draw(self, profile):
        """A row of the report."""
        import torch
        from darkroom import memory

        self.request["memory_profile"], self.said = profile, []
        self.runtime.models.clear()
        memory.drop_caches(self.runtime.device)
        if self.runtime.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        row = {"profile": profile}
        try:
            encode_s, encoded = self.step(
                "encode", ("model", "prompt", "negative_prompt"), {}
            )
            denoise_s, denoised = self.step(
                "denoise",
                tuple(name for name in self.request if name != "memory_profile"),
                encoded["files"],
            )
            decode_s, decoded = self.step(
                "decode", ("model", "width", "height"), denoised["files"]
            )
        except RuntimeError as error:
            return {**row, "failed": str(error), "said": self.said}
        row |= {"encode_s": encode_s, "denoise_s": denoise_s, "decode_s": decode_s}
        row = {
            name: round(value, 2) if isinstance(value, float) else value
            for name, value in row.items()
        }
        row |= {
            "denoise": denoised["stats"]["memory"]["offload"],
            "decode": decoded["stats"]["memory"]["offload"],
        }
        row |= {"tiles": decoded["output"]["tiles"], "said": self.said}
        if self.runtime.device.type == "cuda":
            row["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        row["latents"] = hashlib.sha256(
            Path(denoised["files"]["latents"]["path"]).read_bytes()
        ).hexdigest()[:16]
        row["pixels"] = decoded["files"]["pixels"]["sha256"][:16]
        return row


def main():
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--steps", type=int, default=4)
    asked.add_argument("--size", type=int, default=1024)
    asked.add_argument("--guidance", type=float, default=7)
    asked.add_argument("--device", default="cuda")
    asked.add_argument(
        "--cards", type=int, nargs="*", default=[24, 12, 8], help="gigabytes of each"
    )
    asked.add_argument(
        "--micro", action="store_true", help="a model of some hundred kilobytes"
    )
    asked = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="darkroom-profiles-") as place:
        folder = Path(place) / "xl"
        if asked.micro:
            import micro

            micro.make_sdxl(folder)
        else:
            folder.mkdir()
            sdxl.make(folder, asked.device)
        import torch

        torch.set_default_dtype(torch.float32)
        darkroom = Limited(folder, asked)
        report = {
            "torch": torch.__version__,
            "steps": asked.steps,
            "size": asked.size,
            "device": asked.device,
            "cards": [],
        }
        total = (
            torch.cuda.get_device_properties(0).total_memory
            if asked.device != "cpu"
            else None
        )
        if total is not None:
            report["device"] = torch.cuda.get_device_name(0)
        for card in (None, *asked.cards):
            if total is not None:
                torch.cuda.set_per_process_memory_fraction(
                    min(1.0, card * 10**9 / total) if card else 1.0
                )
            for profile in CARDS.get(card, ("auto", "balanced", "lowest-memory")):
                report["cards"].append({"gb": card, **darkroom.draw(profile)})
        whole = report["cards"][0]["latents"]
        report["same_latents"] = all(
            row.get("latents") == whole for row in report["cards"]
        )
    print(json.dumps(report))
    sys.exit(0 if report["same_latents"] else 1)


if __name__ == "__main__":
    main()
