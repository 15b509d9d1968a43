"""Transformers with flow matching at full size with random weights: Darkroom's inference beside a bare call of
diffusers.

    python3 bench/gpu/flow.py z-image flux1 [--rounds 8] [--size 1024] [--layers 1.0] [--device cuda] [--json FILE]
    python3 bench/gpu/flow.py z-image flux1 flux2 qwen-image --micro --device cpu --size 64 --rounds 2

Needs torch, diffusers, transformers, safetensors and this repository; neither Node nor Redis. One process: both sides
share the transformer and the text encoders, made on the device in bfloat16, and take turns, because eager figures swing
with the host. Each side computes with its own settings: Darkroom's deterministic ones, its autoencoder in fp32 with
TF32, latents in fp32; the bare side torch's defaults and bfloat16 throughout. `--layers` takes that share of the
transformer's layers for a card that is too small, and stands in the result. Medians of the rounds.
"""

import argparse
import hashlib
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "python" / "tests"), str(Path(__file__).parent)]
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from sdxl import machine

THREADS = 4
SEED = 3
PROMPT = "a photo of an astronaut riding a horse on the moon, the earth behind, film grain, wide angle"

VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 16,
    "sample_size": 1024,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
QWEN3_4B = {
    "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "rope_theta": 1e6,
}
T5_XXL = {
    "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu",
}
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_WORDS = {"vocab_size": 514, "bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513, "max_position_embeddings": 77}
QWEN_VL = {
    "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "vocab_size": 152064,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}
# As the models are published: steps and guidance of a request, in Darkroom's count.
ASKED = {
    "z-image": {"steps": 9, "guidance": 1.0},
    "flux1": {"steps": 28, "guidance": 3.5},
    "flux2": {"steps": 4, "guidance": 1.0},
    "qwen-image": {"steps": 20, "guidance": 4.0},
}


def layers(count, share):
    return max(1, round(count * share))


def networks(family, share):
    """Configurations as published, but for the words of the tokenizers: what Darkroom's family takes, by part."""
    import diffusers
    import transformers

    if family == "z-image":
        return {
            "transformer": diffusers.ZImageTransformer2DModel(n_layers=layers(30, share), axes_lens=[1536, 512, 512]),
            "text_encoder": transformers.Qwen3Model(transformers.Qwen3Config(**QWEN3_4B)),
        }
    if family == "flux1":
        return {
            "transformer": diffusers.FluxTransformer2DModel(
                num_layers=layers(19, share), num_single_layers=layers(38, share), guidance_embeds=True
            ),
            "text_encoder": transformers.CLIPTextModel(transformers.CLIPTextConfig(**CLIP_L, **CLIP_WORDS)),
            "text_encoder_2": transformers.T5EncoderModel(transformers.T5Config(**T5_XXL)),
        }
    if family == "flux2":
        sizes = {"num_layers": layers(5, share), "num_single_layers": layers(20, share), "num_attention_heads": 24}
        return {
            "transformer": diffusers.Flux2Transformer2DModel(**sizes, joint_attention_dim=7680, guidance_embeds=False),
            "text_encoder": transformers.Qwen3Model(transformers.Qwen3Config(**QWEN3_4B)),
        }
    eyes = {"depth": 1, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}
    words = transformers.Qwen2_5_VLConfig(text_config=QWEN_VL, vision_config=eyes)
    return {
        "transformer": diffusers.QwenImageTransformer2DModel(num_layers=layers(60, share)),
        "text_encoder": transformers.Qwen2_5_VLForConditionalGeneration(words),
    }


def autoencoder(family):
    import diffusers

    if family == "qwen-image":
        return diffusers.AutoencoderKLQwenImage()
    if family == "flux2":
        return diffusers.AutoencoderKLFlux2()
    return diffusers.AutoencoderKL(**VAE)


def made(family, asked):
    """(parts on the device, folder of tokenizers and scheduler)."""
    import micro_flow
    import torch

    folder = Path(tempfile.mkdtemp(prefix="darkroom-flow-"))
    for name, write in micro_flow.FAMILIES[family][1].items():
        write(folder / name)
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(micro_flow.SCHEDULERS[family]))
    torch.manual_seed(7)
    device = torch.device(asked.device)
    if asked.micro:
        parts = {name: part.to(device) for name, part in micro_flow.FAMILIES[family][0]({}).items()}
    else:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        with device:
            parts = networks(family, asked.layers)
        torch.set_default_dtype(before)
        with device:
            parts["vae"] = autoencoder(family)
    return {name: part.eval() for name, part in parts.items()}, folder


class GivenParts:
    """`Parts` that are there already: networks by name, files in a folder."""

    def __init__(self, parts, folder):
        self.where, self._parts, self._folder = str(folder), parts, folder

    def network(self, kind, part, dtype):
        network = self._parts[part]
        assert isinstance(network, kind), (part, type(network), kind)
        return network

    def file(self, part, name):
        return str(self._folder / part / name)

    def folder(self, part):
        return str(self._folder / part)


class Quiet:
    """As much of `Tools` as a family needs."""

    def __init__(self, request):
        self.input = request

    def advance(self):
        pass

    def hold(self, tensors):
        pass


class Darkroom:
    """The family, the loop and the settings of the product's child."""

    def __init__(self, family, parts, folder, asked):
        import torch
        from darkroom.families import families

        self.device = torch.device(asked.device)
        self.request = {"prompt": PROMPT, "negative_prompt": "", "width": asked.size, "height": asked.size, "seed": SEED}
        self.request |= {"sampler": "Euler", "model": {"body_hash": "7" * 64}, **ASKED[family]}
        self.request["steps"] = asked.steps or self.request["steps"]
        self.model = families()[family].load(GivenParts(parts, folder), self.device)

    def draw(self):
        """(seconds by stage, latents). A stage ends when the device has done it."""
        import torch
        from darkroom.inference import Drawing, Pace
        from darkroom.sharing import Turn

        request, marks = self.request, [time.perf_counter()]
        tools: object = Quiet(request)
        with torch.inference_mode():
            encoded, _ = self.model.encode(request, tools)
            marks.append(time.perf_counter())
            drawing = Drawing(self.model, SimpleNamespace(device=self.device, facts={}), request)
            drawing.begin()
            conditioning = self.model.condition(encoded, request)
            pace = Pace(self.device, Turn())
            while drawing.call < drawing.calls:
                drawing.advance(self.model, conditioning)
                pace.wait()
            drawing.check()
            latents = drawing.latents.cpu()
            marks.append(time.perf_counter())
            image = self.model.decode(drawing.latents, tools)
            (image / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu()
            marks.append(time.perf_counter())
        spans = [after - before for before, after in itertools.pairwise(marks)]
        return dict(zip(("encode", "denoise", "decode"), spans, strict=True)), latents


class Bare:
    """diffusers' own pipeline, as its documentation says to call it."""

    def __init__(self, family, parts, folder, asked):
        import copy

        import flow_pipelines
        import torch

        dtype = torch.float32 if asked.device == "cpu" else torch.bfloat16
        own = {**parts, "vae": copy.deepcopy(parts["vae"]).to(dtype)}
        given = lambda kind, part: own.get(part) or flow_pipelines.load(folder, kind, part)
        # The same pipelines as in the tests, of the parts that are there.
        self.pipeline = flow_pipelines.pipeline_of(family, given)
        self.pipeline.set_progress_bar_config(disable=True)
        request = {"negative_prompt": "", **ASKED[family]}
        self.words = flow_pipelines.words_of(family, request)
        self.size, self.steps = asked.size, asked.steps or request["steps"]

    def draw(self):
        """(nothing by stage, latents)."""
        import torch

        kept = {}
        self.pipeline(
            prompt=PROMPT,
            width=self.size,
            height=self.size,
            num_inference_steps=self.steps,
            generator=torch.Generator("cpu").manual_seed(SEED),
            output_type="np",
            callback_on_step_end=lambda _, __, ___, given: kept.update(given) or {},
            **self.words,
        )
        return {}, kept["latents"].float().cpu()


def settle(is_exact):
    """The settings of the product's child, which `exactness.configure` has made, or torch's own."""
    import torch

    torch.use_deterministic_algorithms(is_exact)
    torch.backends.cudnn.deterministic = is_exact
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = not is_exact
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = not is_exact
    torch.backends.cudnn.conv.fp32_precision = "ieee" if is_exact else "tf32"
    torch.backends.cuda.enable_cudnn_sdp(not is_exact)


def compare(family, asked):
    import torch

    started = time.perf_counter()
    parts, folder = made(family, asked)
    weights = {name: sum(tensor.numel() for tensor in part.parameters()) for name, part in parts.items()}
    print(f"{family}: made {sum(weights.values()):,} weights in {time.perf_counter() - started:.1f} s", flush=True)
    sides = {"darkroom": Darkroom(family, parts, folder, asked), "bare": Bare(family, parts, folder, asked)}
    rows = {name: [] for name in sides}
    for turn in range(-2, asked.rounds):
        # Who begins changes, so that neither always runs on a warmer card; the first two rounds warm up.
        for name in sorted(sides, reverse=turn % 2 == 0):
            settle(name == "darkroom")
            began = time.perf_counter()
            stages, latents = sides[name].draw()
            row = {"total": time.perf_counter() - began, "stages": stages, "finite": bool(latents.isfinite().all())}
            row["sha256"] = hashlib.sha256(latents.numpy().tobytes()).hexdigest()
            if turn >= 0:
                rows[name].append(row)
        if turn >= 0:
            print(f"round {turn + 1}: " + ", ".join(f"{name} {rows[name][-1]['total']:.3f} s" for name in sides), flush=True)
    seconds = {name: statistics.median(row["total"] for row in of) for name, of in rows.items()}
    stages = {name: statistics.median(row["stages"][name] for row in rows["darkroom"]) for name in ("encode", "denoise", "decode")}
    return {
        "family": family,
        "asked": {"size": asked.size, "steps": sides["bare"].steps, "layers": asked.layers, "rounds": asked.rounds, "micro": asked.micro},
        "weights": weights,
        "seconds": seconds,
        "stages": stages,
        "ratio": seconds["darkroom"] / seconds["bare"],
        "totals": {name: [round(row["total"], 4) for row in of] for name, of in rows.items()},
        "latents_sha256": rows["darkroom"][-1]["sha256"],
        "same_bytes_every_round": len({row["sha256"] for row in rows["darkroom"]}) == 1,
        "finite": {name: all(row["finite"] for row in of) for name, of in rows.items()},
        "peak_bytes": torch.cuda.max_memory_allocated() if asked.device != "cpu" else None,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="+", choices=tuple(ASKED))
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, help="default: as the model is published")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--layers", type=float, default=1.0, help="share of the transformer's layers")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json")
    parser.add_argument("--micro", action="store_true", help="models of a few kilobytes")
    asked = parser.parse_args()

    from darkroom import exactness

    exactness.prepare_environment(THREADS)
    import gc

    import torch

    exactness.configure(THREADS)
    figures = {"machine": machine(asked), "families": []}
    for family in asked.families:
        figures["families"].append(compare(family, asked))
        print(json.dumps(figures["families"][-1], indent=1), flush=True)
        gc.collect()
        if asked.device != "cpu":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    if asked.json:
        Path(asked.json).write_text(json.dumps(figures, indent=1) + "\n")
    if not all(each["same_bytes_every_round"] for each in figures["families"]):
        sys.exit("Darkroom's latents are not the same bytes every time")


if __name__ == "__main__":
    main()
