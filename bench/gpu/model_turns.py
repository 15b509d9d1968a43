"""Two models of SD1.5's size that take turns in the product's child, which is asked by frames as a worker asks it; and
what `model.benchmark` says of one. `bench/gpu/model_load.py` runs it and says what is needed.

    python3 bench/gpu/model_turns.py --micro --device cpu    # whether it runs at all
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "python" / "tests")]
TURNS = 20
BENCHMARKS = 5
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
SD15_UNET = {
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "block_out_channels": (320, 640, 1280, 1280),
    "sample_size": 64,
}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
PICTURE = {"prompt": "a red circle", "guidance": 3.0, "seed": 7, "sampler": "Euler a", "steps": 4}


def make(folder: Path, seed: int, device: str, is_micro: bool) -> dict:
    """Writes a model, fp16 on disk; returns it as a request names it."""
    import micro
    import torch

    if is_micro:
        return micro.make_model(folder, seed)
    torch.set_default_dtype(torch.float16)
    with torch.device(device):
        micro.write_networks(folder, seed, SD15_UNET, VAE)
        micro.write_encoder(folder / "text_encoder", CLIP_L, 77)
    torch.set_default_dtype(torch.float32)
    micro.write_tokenizer(folder / "tokenizer", 77)
    if device != "cpu":
        torch.cuda.empty_cache()
    return micro.finish(folder, seed, "sd1", "StableDiffusionPipeline")


def cache(folder: Path) -> list[dict]:
    """Its weights in RAM under no name, as the worker's cache offers them."""
    offers = []
    for file in sorted(folder.glob("*/*.safetensors")):
        descriptor = os.memfd_create(file.name)
        with open(file, "rb") as source, open(os.dup(descriptor), "wb") as target:
            shutil.copyfileobj(source, target, 16 << 20)
        found = os.fstat(descriptor)
        place = f"/proc/{os.getpid()}/fd/{descriptor}"
        offers.append({"path": str(file.resolve()), "mapping": place, "bytes": found.st_size, "inode": found.st_ino})
    return offers


class Child:
    """The child over its pipes."""

    def __init__(self, models: Path, attempts: Path, device: str, model_bytes: int | None):
        attempts.mkdir()
        self.attempts, self.last = attempts, 0
        settings = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT / "python")}
        if "PYTHONPATH" in os.environ:
            settings["PYTHONPATH"] += os.pathsep + os.environ["PYTHONPATH"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "darkroom"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **settings}
        )
        schema = hashlib.sha256((ROOT / "python" / "darkroom" / "schema.json").read_bytes()).hexdigest()
        hello = {"protocol": {"min": 1, "max": 1}, "schema": schema, "worker_id": "bench", "device": device, "threads": 4, "slots": 1, "spare": False}
        hello |= {"roots": {"models": [str(models)], "attempts": str(attempts), "compiled": str(attempts)}, "model_bytes": model_bytes}
        self.ask("worker.hello", {**hello, "checkpoint": {"interval_s": 3600, "calls": None}, "preview_s": 0})

    def ask(self, action: str, data: dict) -> dict:
        """Its answer; whatever else it says meanwhile is not kept."""
        self.last += 1
        line = json.dumps({"request_id": str(self.last), "action": action, "data": data})
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        for answer in self.process.stdout:
            frame = json.loads(answer)
            if frame["request_id"] == str(self.last) and frame["data"].get("type") in ("result", "released", "error"):
                if frame["data"]["type"] != "result":
                    sys.exit(f"{action}: {frame['data']}")
                return frame["data"]
        sys.exit(f"the child ended with {self.process.wait()}; its own words stand above")

    def step(self, action: str, files: dict, given: dict) -> dict:
        folder = self.attempts / str(self.last + 1)
        folder.mkdir()
        files = {name: {"path": file["path"], "sha256": file["sha256"]} for name, file in files.items()}
        return self.ask(action, {"session_id": "bench", "dir": str(folder), "files": files, "checkpoint": None, "input": given})

    def turn(self, model: dict, offers: list[dict], size: int) -> dict:
        """A session's steps on the device but for its decode: what its load said, and its latents."""
        load = self.ask("model.ensure", {"model": model, "files": offers, "weight_bytes": 0})["output"]
        texts = {"prompt": PICTURE["prompt"], "negative_prompt": ""}
        conditioning = self.step("inference.encode", {}, {"model": model, **texts})["files"]
        denoise = {**PICTURE, "model": model, "negative_prompt": "", "width": size, "height": size}
        drawn = self.step("inference.denoise", conditioning, denoise)
        return {**load, "loads_in_steps": drawn["stats"]["load_s"], "latents": drawn["files"]["latents"]["sha256"]}

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(30)


def alternate(child: Child, models: list[dict], offers: list[list[dict]], size: int) -> dict:
    """Turns by one and the other, in what the child itself counts."""
    turns = [child.turn(models[number % 2], offers[number % 2], size) for number in range(TURNS)]
    resident = child.ask("worker.ping", {})["output"]["models"]
    loads = [turn for turn in turns if not turn["resident"]]
    return {
        "turns": TURNS,
        "loads": len(loads),
        "loads_after_two": sum(not turn["resident"] for turn in turns[2:]),
        "loads_in_steps": sum(turn["loads_in_steps"] > 0 for turn in turns),
        "ram_bytes": [min(turn["ram_bytes"] for turn in loads), max(turn["ram_bytes"] for turn in loads)],
        "disk_bytes": sum(turn["disk_bytes"] for turn in turns),
        "registered_bytes": sum(turn["registered_bytes"] for turn in turns),
        "load_s": [round(turn["seconds"], 3) for turn in loads],
        "pictures": [len({turn["latents"] for turn in turns[begin::2]}) for begin in (0, 1)],
        "resident": [model["id"] for model in resident],
        "latents": [turns[0]["latents"], turns[1]["latents"]],
    }


def run(folder: Path, device: str, models: list[dict], size: int, before: Callable[[], None] = lambda: None) -> dict:
    """Both children, and what `model.benchmark` says in the first one, some times, `before` each of which is called.
    `holds`: what has to be so."""
    offers = [cache(Path(model["path"])) for model in models]
    whole = Child(folder, folder / "attempts-both", device, None)
    both = alternate(whole, models, offers, size)
    held = whole.ask("model.ensure", {"model": models[0], "files": offers[0], "weight_bytes": 0})["output"]["bytes"]
    benchmarks = []
    for _ in range(BENCHMARKS):
        before()
        whole.ask("model.ensure", {"model": models[0], "files": offers[0], "weight_bytes": 0})
        request = {"model": models[0], **PICTURE, "width": size, "height": size}
        benchmarks.append(whole.step("model.benchmark", {}, request)["output"])
    whole.close()
    limited = Child(folder, folder / "attempts-one", device, held)
    one = alternate(limited, models, offers, size)
    limited.close()
    holds = {
        "both stay: no load after the first two": both["loads"] == 2 and both["loads_after_two"] == both["loads_in_steps"] == 0,
        "one stays: each turn loads, from RAM alone": one["loads"] == TURNS and one["disk_bytes"] == one["loads_in_steps"] == 0,
        "each load brings the whole model": one["ram_bytes"][0] == one["ram_bytes"][1] == both["ram_bytes"][0] > 0,
        "the cache is registered with the driver": device == "cpu" or one["registered_bytes"] == one["ram_bytes"][0] * TURNS,
        "one is resident at the end, or both": len(one["resident"]) == 1 and len(both["resident"]) == 2,
        "pictures are the same in every turn": both["pictures"] == one["pictures"] == [1, 1] and both["latents"] == one["latents"],
        "a benchmark's cold load is from disk": all(each["is_cold"] for each in benchmarks),
    }
    stored = sum(offer["bytes"] for offer in offers[0])
    return {"holds": holds, "held": held, "stored": stored, "both": both, "one": one, "benchmarks": benchmarks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--micro", action="store_true", help="models of a few kilobytes")
    parser.add_argument("--folder", help="on the disk to be measured; default: the temporary folder")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-", dir=asked.folder) as folder:
        models = [make(Path(folder) / f"model-{seed}", seed, asked.device, asked.micro) for seed in (1, 2)]
        told = run(Path(folder), asked.device, models, 64 if asked.micro else 512)
    print(json.dumps(told))
    if not all(told["holds"].values()):
        sys.exit("; ".join(name for name, is_so in told["holds"].items() if not is_so))


if __name__ == "__main__":
    main()
