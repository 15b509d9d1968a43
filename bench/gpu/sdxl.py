"""Stable Diffusion XL at full size with random weights: Darkroom's inference beside a bare call of diffusers.

    python3 bench/gpu/sdxl.py [--rounds 8] [--steps 30] [--size 1024] [--guidance 7] [--device cuda] [--json FILE]
    python3 bench/gpu/sdxl.py --micro --device cpu --size 64 --steps 4 --rounds 2    # whether it runs at all

Needs torch, diffusers, transformers, safetensors and this repository; neither Node nor Redis. Two processes, each with
the model in memory, take turns, because eager figures swing with the host. The bare one keeps torch's own settings and
computes all in fp16, its autoencoder in fp32 where the model says so; the other one is the product's child without its
pipes. Medians of the rounds; latents are compared, and digests of all rounds of one side must be equal.
Darkroom draws as it does, its UNet replayed as a CUDA graph; once more eagerly at the end, to the same bytes.
"""

import argparse
import hashlib
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "python" / "tests")]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
THREADS = 4
SEED = 3
PROMPT, NEGATIVE = "a photo of an astronaut riding a horse on the moon", "blurry, low quality"

# The configurations of stable-diffusion-xl-base-1.0, but for the words: one a byte.
UNET = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
}
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "projection_dim": 768}
CLIP_G = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20, "projection_dim": 1280,
    "hidden_act": "gelu",
}
WINDOW = 77


def make(folder, device):
    """Writes the model, fp16 on disk."""
    import micro
    import torch

    torch.set_default_dtype(torch.float16)
    with torch.device(device):
        micro.write_networks(folder, 7, UNET, VAE)
        micro.write_encoder(folder / "text_encoder", CLIP_L, WINDOW)
        micro.write_encoder(folder / "text_encoder_2", CLIP_G, WINDOW, projects=True)
    micro.write_tokenizer(folder / "tokenizer", WINDOW)
    micro.write_tokenizer(folder / "tokenizer_2", WINDOW, pad=micro.LETTER)
    schedule = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading", "interpolation_type": "linear"}
    micro.finish(folder, 7, "sdxl", "StableDiffusionXLPipeline", schedule, {"force_zeros_for_empty_prompt": True})


class Darkroom:
    """The product's child without its pipes: encode, denoise, decode through files, as a worker asks for them."""

    def __init__(self, folder, asked):
        from darkroom import exactness

        exactness.prepare_environment(THREADS)
        from darkroom.backend import TorchBackend

        self.attempts = folder.parent / "attempts"
        self.attempts.mkdir()
        backend = TorchBackend()
        hello = {"threads": THREADS, "device": asked.device, "checkpoint": {"interval_s": 3600, "calls": None}}
        hello |= {"model_bytes": None, "preview_s": 1}
        hello["roots"] = {"models": [str(folder.parent)], "attempts": str(self.attempts), "compiled": str(self.attempts)}
        backend.load(hello, lambda done, imports: None)
        prepared = backend.open(hello, list)
        self.backend, self.runtime, self.settings = backend, prepared.runtime, prepared.described["settings"]
        model = {"id": folder.name, "path": str(folder), "body_hash": "7" * 64, "family": "sdxl"}
        self.request = {"model": model, "prompt": PROMPT, "negative_prompt": NEGATIVE, "width": asked.size, "height": asked.size}
        self.request |= {"steps": asked.steps, "guidance": asked.guidance, "seed": SEED, "sampler": "Euler a"}
        self.count = 0

    def step(self, verb, names, files):
        """One step of a session: (seconds, its files)."""
        import logging

        from darkroom.tools import Tools

        self.count += 1
        own = self.attempts / str(self.count)
        own.mkdir()
        data = {"session_id": "bench", "dir": str(own), "input": {name: self.request[name] for name in names}}
        data |= {"files": files, "checkpoint": None}
        started = time.perf_counter()
        tools = Tools(str(self.count), f"inference.{verb}", data, self.runtime, lambda frame: None, logging.getLogger("bench"))
        answer = self.backend.operation(tools.action)(tools)
        tools.close()
        return time.perf_counter() - started, answer["files"]

    def draw(self):
        """(seconds by stage, latents)."""
        from darkroom import tensors

        encode_s, conditioning = self.step("encode", ("model", "prompt", "negative_prompt"), {})
        denoise_s, latents = self.step("denoise", tuple(self.request), conditioning)
        decode_s, _ = self.step("decode", ("model", "width", "height"), latents)
        held = tensors.load(Path(latents["latents"]["path"]).read_bytes())[0]["latents"]
        return {"encode": encode_s, "denoise": denoise_s, "decode": decode_s}, held


class Bare:
    """diffusers' own pipeline, as its documentation says to call it."""

    def __init__(self, folder, asked):
        import torch
        from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionXLPipeline

        torch.set_num_threads(THREADS)
        dtype = torch.float32 if asked.device == "cpu" else torch.float16
        pipeline = StableDiffusionXLPipeline.from_pretrained(str(folder), torch_dtype=dtype, local_files_only=True, add_watermarker=False)
        pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(pipeline.scheduler.config)
        self.pipeline = pipeline.to(asked.device)
        self.pipeline.set_progress_bar_config(disable=True)
        vae = "fp32 when decoding" if pipeline.vae.config.force_upcast else "as all else"
        self.settings = {"dtype": str(dtype).removeprefix("torch."), "vae": vae}
        self.asked = asked
        # Read off the arguments that the pipeline gives its own method.
        self.encode = pipeline.encode_prompt
        pipeline.encode_prompt = self.encoded

    def encoded(self, *arguments, **options):
        result = self.encode(*arguments, **options)
        self.mark("encode")
        return result

    def mark(self, name):
        """A moment on the device's own clock, without waiting for it; on a CPU the wall clock."""
        import torch

        if self.asked.device == "cpu":
            self.marks[name] = time.perf_counter()
        else:
            self.marks[name] = torch.cuda.Event(enable_timing=True)
            self.marks[name].record()

    def stepped(self, pipeline, step, t, held):
        if step == self.asked.steps - 1:
            self.latents = held["latents"].clone()
            self.mark("denoise")
        return {}

    def draw(self):
        """(seconds by stage, latents)."""
        import torch

        self.marks = {}
        self.mark("begin")
        self.pipeline(
            PROMPT,
            negative_prompt=NEGATIVE,
            width=self.asked.size,
            height=self.asked.size,
            num_inference_steps=self.asked.steps,
            guidance_scale=self.asked.guidance,
            generator=torch.Generator("cpu").manual_seed(SEED),
            output_type="np",
            callback_on_step_end=self.stepped,
        )
        self.mark("decode")
        if self.asked.device != "cpu":
            torch.cuda.synchronize()
        moments = list(self.marks.values())
        if self.asked.device == "cpu":
            spans = [after - before for before, after in itertools.pairwise(moments)]
        else:
            spans = [before.elapsed_time(after) / 1000 for before, after in itertools.pairwise(moments)]
        return dict(zip(("encode", "denoise", "decode"), spans, strict=True)), self.latents.float().cpu()


def serve(kind, folder, asked):
    """One of the two processes: a picture a line of its standard input, its figures a line of its output."""
    import torch

    # Whatever the libraries print goes where it does not disturb.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    started = time.perf_counter()
    side = {"darkroom": Darkroom, "bare": Bare}[kind](folder, asked)
    out.write(json.dumps({"settings": side.settings, "start_s": round(time.perf_counter() - started, 2)}) + "\n")
    for line in sys.stdin:
        if kind == "darkroom":
            from darkroom import graphs

            graphs.enabled = line.strip() != "eager"
        with torch.inference_mode():
            started = time.perf_counter()
            stages, latents = side.draw()
            total = time.perf_counter() - started
        torch.save(latents, folder.parent / f"{kind}.pt")
        row = {"stages": stages, "total": total, "sha256": hashlib.sha256(latents.numpy().tobytes()).hexdigest()}
        row["peak_bytes"] = torch.cuda.max_memory_allocated() if asked.device != "cpu" else None
        out.write(json.dumps(row) + "\n")


class Side:
    """The other end of `serve`."""

    def __init__(self, kind, folder, arguments):
        command = [sys.executable, __file__, *arguments, "--serve", kind, "--folder", str(folder)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.began = self.read()
        self.rows = []

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"a process of the benchmark ended with {self.process.wait()}; its own words stand above")
        return json.loads(line)

    def draw(self, how="draw"):
        self.process.stdin.write(f"{how}\n")
        self.process.stdin.flush()
        return self.read()

    def median(self, stage=None):
        return statistics.median(row["stages"][stage] if stage else row["total"] for row in self.rows)


def compare(folder, asked, arguments):
    import torch

    sides = {kind: Side(kind, folder, arguments) for kind in ("bare", "darkroom")}
    for kind, side in sides.items():
        print(f"{kind}: ready after {side.began['start_s']} s, {side.began['settings']}", flush=True)
        # Kernels are chosen and loaded, and the child's model comes with its first picture.
        for _ in range(2):
            side.draw()
    for turn in range(asked.rounds):
        # Who begins changes, so that neither always runs on a warmer card.
        for kind in sorted(sides, reverse=turn % 2 == 0):
            sides[kind].rows.append(sides[kind].draw())
        print(f"round {turn + 1}: " + ", ".join(f"{kind} {side.rows[-1]['total']:.3f} s" for kind, side in sides.items()), flush=True)
    eager = [sides["darkroom"].draw("eager") for _ in range(3)]
    ours, bare = (torch.load(folder.parent / f"{kind}.pt") for kind in ("darkroom", "bare"))
    difference = (ours - bare).abs()
    figures = {
        "machine": machine(asked),
        "asked": {name: getattr(asked, name) for name in ("size", "steps", "guidance", "rounds", "micro")},
        "settings": {kind: side.began["settings"] for kind, side in sides.items()},
        "seconds": {
            kind: {"total": side.median(), **{stage: side.median(stage) for stage in ("encode", "denoise", "decode")}}
            for kind, side in sides.items()
        },
        "totals": {kind: [round(row["total"], 4) for row in side.rows] for kind, side in sides.items()},
        "ratio": sides["darkroom"].median() / sides["bare"].median(),
        "denoise_ratio": sides["darkroom"].median("denoise") / sides["bare"].median("denoise"),
        "eager": {
            "seconds": statistics.median(row["total"] for row in eager),
            "same_bytes": {row["sha256"] for row in eager} == {row["sha256"] for row in sides["darkroom"].rows},
        },
        "peak_bytes": {kind: side.rows[-1]["peak_bytes"] for kind, side in sides.items()},
        "same_bytes_every_round": {kind: len({row["sha256"] for row in side.rows}) == 1 for kind, side in sides.items()},
        "latents": {
            "finite": bool(ours.isfinite().all() and bare.isfinite().all()),
            "std": float(bare.std()),
            "mean_difference": float(difference.mean()),
            "largest_difference": float(difference.max()),
        },
    }
    for side in sides.values():
        side.process.stdin.close()
        side.process.wait()
    print(json.dumps(figures, indent=1))
    if asked.json:
        Path(asked.json).write_text(json.dumps(figures, indent=1) + "\n")
    if not (figures["same_bytes_every_round"]["darkroom"] and figures["eager"]["same_bytes"] and figures["latents"]["finite"]):
        sys.exit("Darkroom's latents are not the same bytes every time, or not finite")


def machine(asked):
    import diffusers
    import torch
    import transformers

    is_gpu = asked.device != "cpu"
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "device": torch.cuda.get_device_name() if is_gpu else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--guidance", type=float, default=7.0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json")
    parser.add_argument("--micro", action="store_true", help="a model of a few kilobytes")
    parser.add_argument("--serve", choices=("darkroom", "bare"), help=argparse.SUPPRESS)
    parser.add_argument("--make", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.make and asked.micro:
        import micro

        micro.make_sdxl(asked.folder)
    elif asked.make:
        make(asked.folder, asked.device)
    elif asked.serve:
        serve(asked.serve, asked.folder, asked)
    else:
        with tempfile.TemporaryDirectory(prefix="darkroom-sdxl-") as place:
            folder = Path(place) / "sdxl"
            started = time.perf_counter()
            # In a process of its own: its memory on the device goes with it.
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--make", "--folder", str(folder)], check=True)
            print(f"made {sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()):,} bytes of model", end=" ")
            print(f"in {time.perf_counter() - started:.1f} s", flush=True)
            compare(folder, asked, sys.argv[1:])


if __name__ == "__main__":
    main()
