"""The class `fast` at full size with random weights: compiled blocks against a network compiled as a whole.

    python3 bench/gpu/fast.py [sdxl sd3] [--rounds 6] [--size 1024] [--steps 30] [--device cuda] [--json FILE]
    python3 bench/gpu/fast.py sdxl --regions BasicTransformerBlock        # other blocks than the family names
    python3 bench/gpu/fast.py sd3 --micro --device cpu --size 64 --steps 2 --rounds 1    # whether it runs at all

Needs torch, diffusers, transformers and this repository; on a GPU Triton and a C compiler. All sides share one network
and draw by turns with the product's own loop, from one noise, with texts of random numbers: `exact` and `fast` as the
product draws them, their UNet replayed as a CUDA graph; `whole` by `torch.compile(network, mode="reduce-overhead")`,
with torch's own CUDA graphs, as its documentation says for small batches. Medians of the rounds.

`ratio` is `fast` through `whole`, at most 1.05 by intent. `compile` says in seconds what the first picture of a side
takes longer than a later one: of `fast` with an empty cache on disk (`cold`), and in a second process that finds it
there (`warm`). `near` is the norm of the difference from `exact` as a share of the norm: of one call's prediction, and
of the latents after all calls. `error` is the same norm of one call's difference from the network in fp32: with random
weights rounding of bf16 is some per cent of it, so `near` alone says little. Step caches are left out: what they save
follows from real weights.

It ends with an error when latents are not finite, when one call of `fast` is further from the network in fp32 than 1.25
times what `exact` is, when `exact` draws other bytes after `fast` than before, when something was not compiled, or when
the second process finds nothing on disk.
"""

import argparse
import contextlib
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "python" / "tests"), str(Path(__file__).parent)]
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import sdxl

THREADS = 4
SEED = 3
FURTHER = 1.25
# stable-diffusion-3-medium.
SD3 = {
    "sample_size": 128,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 24,
    "attention_head_dim": 64,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192,
}
# stable-diffusion-xl-base-1.0.
SDXL_SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "timestep_spacing": "leading",
    "steps_offset": 1,
}
VAE_16 = {**sdxl.VAE, "latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609}
GUIDANCE = {"sdxl": 7.0, "sd3": 4.5, "flux1": 3.5}


def on_device(make, device, dtype):
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    with device:
        made = make()
    torch.set_default_dtype(before)
    return made.eval().requires_grad_(False)


def scheduler(folder, config):
    path = folder / "scheduler_config.json"
    path.write_text(json.dumps(config))
    return str(path)


def make(name, asked, folder):
    """(family with random weights, its network, the name of the attribute that calls it, encoded texts)."""
    import diffusers
    import torch

    from darkroom.families import flow

    device = torch.device(asked.device)
    torch.manual_seed(7)
    random = torch.Generator("cpu").manual_seed(5)
    text = lambda *shape: torch.randn(*shape, generator=random)
    if name == "sdxl":
        return make_sdxl(asked, folder, device, text)
    import micro_flow
    from darkroom.flow_schedule import FlowSchedule

    if asked.micro:
        network = micro_flow.FAMILIES[name][0]({})["transformer"].to(device).eval().requires_grad_(False)
    elif name == "sd3":
        network = on_device(lambda: diffusers.SD3Transformer2DModel(**SD3), device, flow.dtype(device))
    else:
        network = on_device(lambda: diffusers.FluxTransformer2DModel(guidance_embeds=True), device, flow.dtype(device))
    config = network.config
    channels = config.in_channels if name == "sd3" else config.in_channels // 4
    vae = on_device(lambda: diffusers.AutoencoderKL(**{**VAE_16, "latent_channels": channels}), device, torch.float32)
    path = scheduler(folder, micro_flow.SCHEDULERS[name])
    if name == "sd3":
        from darkroom.families.sd3 import StableDiffusion3

        schedule = FlowSchedule(path, channels, patch=config.patch_size, shares=None)
        model = StableDiffusion3(network, vae, [], (None, torch.nn.Identity()), schedule, device)
        width, pooled = config.joint_attention_dim, config.pooled_projection_dim
        encoded = {side: text(1, 333, width) for side in ("positive", "negative")}
        encoded |= {f"pooled_{side}": text(1, pooled) for side in ("positive", "negative")}
    else:
        from darkroom.families.flux import Flux

        model = Flux(network, vae, (torch.nn.Identity(),) * 2, (None, None), FlowSchedule(path, channels), device)
        encoded = {"prompt": text(1, 512, config.joint_attention_dim), "pooled": text(1, config.pooled_projection_dim)}
    return model, network, "_forward" if name == "sd3" else "_transformer", encoded


def make_sdxl(asked, folder, device, text):
    """SDXL without its text encoders."""
    import diffusers
    import torch

    from darkroom import exactness
    from darkroom.families import Conditioning
    from darkroom.families.sdxl import StableDiffusionXL
    from darkroom.families.unet import UNetFamily
    from darkroom.schedule import Schedule

    class Denoiser(UNetFamily):
        added = StableDiffusionXL.added

        def condition(self, encoded, request):
            held = {name: tensor.to(device, self._unet.dtype) for name, tensor in encoded.items()}
            return Conditioning(held, request["guidance"])

    config = sdxl.UNET
    if asked.micro:
        import micro

        config = {**micro.UNET, **micro._told(32 + 48, 6)}
    dtype = getattr(torch, exactness.precisions(device)["dtype"])
    network = on_device(lambda: diffusers.UNet2DConditionModel(**config), device, dtype)
    vae = on_device(lambda: diffusers.AutoencoderKL(**{**sdxl.VAE, "latent_channels": network.config.in_channels}), device, torch.float32)
    path = scheduler(folder, SDXL_SCHEDULER)
    model = Denoiser(network, vae, Schedule(path, network.config.in_channels), device)
    told = network.config.projection_class_embeddings_input_dim - 6 * network.config.addition_time_embed_dim
    sizes = torch.tensor([[asked.size, asked.size, 0, 0, asked.size, asked.size]] * 2, dtype=torch.float32)
    return (
        model,
        network,
        "_forward",
        {"rows": text(2, 77, network.config.cross_attention_dim), "text_embeds": text(2, told), "time_ids": sizes},
    )


class Sides:
    """The three ways to draw with one network."""

    def __init__(self, name, asked, folder):
        import torch

        self.name, self.asked, self.device = name, asked, torch.device(asked.device)
        self.model, self.network, self.attribute, self.encoded = make(name, asked, folder)
        self.request = {"width": asked.size, "height": asked.size, "seed": SEED, "steps": asked.steps, "sampler": "Euler"}
        self.request |= {"guidance": GUIDANCE[name], "model": {"body_hash": "7" * 64}}
        self.conditioning = self.model.condition(self.encoded, self.request)
        self.own = getattr(self.model, self.attribute)
        self.compiled = None
        self._whole = None

    def whole(self):
        """What calls the network, compiled as a whole."""
        import torch

        if self._whole is None:
            options = {"mode": "reduce-overhead"} if self.device.type == "cuda" else {}
            made = torch.compile(self.network, dynamic=False, **options)
            if self.name == "sd3":
                from darkroom.families import sd3

                made = sd3._forward_of(made)
            elif self.name == "sdxl":
                from darkroom.families import unet

                made = unet._forward_of(made, self.model.added)
            self._whole = made
        return self._whole

    @contextlib.contextmanager
    def within(self, side):
        from darkroom import compiling, exactness, graphs

        if side == "exact":
            yield
            return
        if side == "fast":
            ways = self.model.fast
            kinds = self.asked.regions or ways.regions or self.network._repeated_blocks
            self.compiled = compiling.of(self.network, kinds, ways.varies)
            with exactness.unbound(), graphs.another(self.network), self.compiled.within(self.asked.size, lambda: None):
                yield
            return
        setattr(self.model, self.attribute, self.whole())
        try:
            # With the same settings as `fast` has.
            with exactness.unbound():
                yield
        finally:
            setattr(self.model, self.attribute, self.own)

    def draw(self, side):
        """(seconds of the denoise, latents, the first call's prediction)."""
        import torch

        from darkroom.inference import Drawing, Pace
        from darkroom.sharing import Turn

        with torch.inference_mode(), self.within(side):
            drawing = Drawing(self.model, SimpleNamespace(device=self.device, facts={}), self.request)
            drawing.begin()
            first = None
            self.settle()
            started = time.perf_counter()
            pace = Pace(self.device, Turn())
            while drawing.call < drawing.calls:
                if side == "whole" and self.device.type == "cuda":
                    torch.compiler.cudagraph_mark_step_begin()
                drawing.advance(self.model, self.conditioning)
                if first is None:
                    first = drawing.seen.predicted.clone()
                pace.wait()
            self.settle()
            return time.perf_counter() - started, drawing.latents.float().cpu(), first.float().cpu()

    def reference(self):
        """The first call's prediction by the network in fp32, which it stays in: the last thing to ask."""
        from darkroom import graphs

        graphs.enabled = False
        self.network.float()
        self.conditioning = self.model.condition(self.encoded, self.request)
        self.request = {**self.request, "steps": 1}
        return self.draw("exact")[2]

    def settle(self):
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize()


def serve(name, asked, folder):
    """One process: what it measured of one network, a line of JSON. `asked.serve`: cold or warm."""
    import torch

    from darkroom import compiling, exactness

    # Whatever the libraries print goes where it does not disturb.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    problem = compiling.obstacle(torch.device(asked.device).type)
    if problem:
        sys.exit(problem)
    exactness.configure(THREADS)
    sides = Sides(name, asked, folder)
    before, _, _ = sides.draw("exact")
    first_s, *_ = sides.draw("fast")
    functions, anew = compiling.counted()
    later_s = statistics.median(sides.draw("fast")[0] for _ in range(2))
    said = {
        "weights": sum(tensor.numel() for tensor in sides.network.parameters()),
        "blocks": sides.compiled.counts,
        "regions": len(sides.compiled.regions),
        "functions": functions,
        "from_cache": functions - anew,
        "failure": sides.compiled.failure,
        "compile_s": first_s - later_s,
        "exact_first_s": before,
    }
    if asked.serve == "cold":
        said |= rounds(sides, asked)
    out.write(json.dumps(said) + "\n")


def rounds(sides, asked):
    """The three sides by turns."""
    names = ("exact", "fast", "whole")
    sides.draw("exact")
    first_s, *_ = sides.draw("whole")
    again_s, *_ = sides.draw("whole")
    rows = {name: [] for name in names}
    for turn in range(-1, asked.rounds):
        # Who begins changes, so that none always runs on a warmer card.
        for name in names[turn % 3 :] + names[: turn % 3]:
            seconds, latents, first = sides.draw(name)
            if turn >= 0:
                rows[name].append((seconds, latents, first))
    digests = {name: {hashlib.sha256(latents.numpy().tobytes()).hexdigest() for _, latents, _ in rows[name]} for name in names}
    _, latents, prediction = rows["exact"][-1]
    near = lambda name: {
        "call": float((rows[name][-1][2] - prediction).norm() / prediction.norm()),
        "latents": float((rows[name][-1][1] - latents).norm() / latents.norm()),
    }
    # By the same noise and time as the first call of the others.
    steps, sides.request["steps"] = sides.request["steps"], 1
    firsts = {name: sides.draw(name)[2] for name in names}
    sides.request["steps"] = steps
    reference = sides.reference()
    error = {name: float((first - reference).norm() / reference.norm()) for name, first in firsts.items()}
    return {
        "error": error,
        "seconds": {name: statistics.median(row[0] for row in rows[name]) for name in names},
        "totals": {name: [round(row[0], 4) for row in rows[name]] for name in names},
        "whole_compile_s": first_s - again_s,
        "near": {name: near(name) for name in ("fast", "whole")},
        "finite": all(bool(row[1].isfinite().all()) for each in rows.values() for row in each),
        "same_bytes_every_round": {name: len(digests[name]) == 1 for name in names},
    }


def compare(name, asked, arguments):
    """Both processes of one network, with a cache on disk that is empty at first."""
    with tempfile.TemporaryDirectory(prefix="darkroom-fast-") as place:
        said = {}
        for which in ("cold", "warm"):
            command = [sys.executable, __file__, name, *arguments, "--serve", which, "--folder", place]
            ended = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if ended.returncode:
                sys.exit(f"the {which} process of {name} ended with {ended.returncode}; its own words stand above")
            said[which] = json.loads(ended.stdout.splitlines()[-1])
            print(f"{name}, {which}: compiled in {said[which]['compile_s']:.1f} s", flush=True)
    cold, warm = said["cold"], said["warm"]
    return {
        "network": name,
        "asked": {key: getattr(asked, key) for key in ("size", "steps", "rounds", "regions", "micro")},
        **{key: cold[key] for key in ("weights", "blocks", "regions", "functions", "seconds", "totals", "near", "error", "finite")},
        "ratio": cold["seconds"]["fast"] / cold["seconds"]["whole"],
        "fast_through_exact": cold["seconds"]["fast"] / cold["seconds"]["exact"],
        "compile": {"cold": cold["compile_s"], "warm": warm["compile_s"], "whole": cold["whole_compile_s"]},
        "from_cache": {"cold": cold["from_cache"], "warm": warm["from_cache"], "functions": warm["functions"]},
        "failure": cold["failure"] or warm["failure"],
        "same_bytes_every_round": cold["same_bytes_every_round"],
    }


def faults(figures):
    """What is not as it must be, in words."""
    name = figures["network"]
    if not figures["finite"]:
        yield f"{name}: latents are not finite"
    if figures["failure"]:
        yield f"{name}: {figures['failure']}"
    error = figures["error"]
    if error["fast"] > FURTHER * error["exact"]:
        yield f"{name}: one call of fast is {error['fast']:.2%} from the network in fp32, one of exact {error['exact']:.2%}"
    if not figures["same_bytes_every_round"]["exact"]:
        yield f"{name}: exact does not draw the same bytes every time"
    if figures["from_cache"]["warm"] < figures["from_cache"]["functions"]:
        yield f"{name}: the second process found {figures['from_cache']['warm']} of {figures['from_cache']['functions']} functions on disk"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=["sdxl", "sd3"], help="sdxl, sd3, flux1")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--regions", nargs="*", help="classes of blocks to compile; default: as the family says")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json")
    parser.add_argument("--micro", action="store_true", help="networks of a few kilobytes")
    parser.add_argument("--serve", choices=("cold", "warm"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if unknown := set(asked.networks) - set(GUIDANCE):
        parser.error(f"there is no network {', '.join(sorted(unknown))}: choose of {', '.join(GUIDANCE)}")
    if asked.serve:
        from darkroom import compiling, exactness

        exactness.prepare_environment(THREADS)
        if problem := compiling.prepare_environment(str(asked.folder / "compiled"), asked.device):
            sys.exit(problem)
        serve(asked.networks[0], asked, asked.folder)
        return
    # The names of the networks go to each process one by one.
    arguments = [each for each in sys.argv[1:] if each not in GUIDANCE]
    figures = {"machine": sdxl.machine(asked), "networks": [compare(name, asked, arguments) for name in asked.networks]}
    print(json.dumps(figures, indent=1))
    if asked.json:
        Path(asked.json).write_text(json.dumps(figures, indent=1) + "\n")
    if problems := [problem for each in figures["networks"] for problem in faults(each)]:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
