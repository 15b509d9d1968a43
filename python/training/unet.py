"""Stage 2: the UNet and its text encoder, trained together on latents of half a million scenes.

The whole step is one CUDA graph for each picture format. Compiling the network makes the square step half as
fast again but takes minutes of CPU time, so a second process fills the compiler's cache while the VAE trains,
and the loop switches when it is ready.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from . import data, judge, models, tokenizer, vae
from .captions import prompts
from .diffusion import Family, draw, noiser, pick_captions
from .optimise import Losses, MasterWeights, Schedule, Step, capture, loop, part, rounded
from .run import Run

BATCH = 512
RATE, WARMUP, FINAL = 1e-3, 500, 0.02
CYCLE = ("square",) * 9 + ("wide",) + ("square",) * 9 + ("tall",)
"""One batch in ten has another format, so that such pictures do not look broken."""
LOOK_EVERY = 90.0
"""Seconds between looks at pictures and saved states."""
SAVE_MARGIN = 15.0

Network = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def load(run: Run) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """UNet and text encoder as they ship: half precision values in float32."""
    return restore(run, run.load("unet"))


def restore(run: Run, weights: dict[str, torch.Tensor]) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """Build both networks from weights named "unet.…" and "text.…"."""
    unet, text = models.new_unet(), models.new_text_encoder()
    unet.load_state_dict(rounded(part(weights, "unet")))
    missing, unexpected = text.load_state_dict(rounded(part(weights, "text")), strict=False)
    # Position ids are a buffer, not a weight.
    if unexpected or any("position_ids" not in name for name in missing):
        raise RuntimeError(f"text encoder: missing {missing}, unexpected {unexpected}")
    return tuple(module.to(run.device).eval().requires_grad_(False) for module in (unet, text))


def family(run: Run, weights: dict[str, torch.Tensor] | None = None) -> Family:
    """The family as far as it is trained, without its ControlNet."""
    unet, text = restore(run, weights) if weights is not None else load(run)
    return Family(unet, text, vae.load(run), tokenizer.load(data.prepare_tokenizer(run)))


def _network(unet: UNet2DConditionModel, text: CLIPTextModel) -> Network:
    def forward(latents: torch.Tensor, steps: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return unet(latents, steps, models.encode_text(text, ids), return_dict=False)[0]

    return forward


def _working(run: Run) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """Fresh networks in the working dtype. Small embeddings: at transformers' own scale the texts start out
    as noise.
    """
    unet, text = models.new_unet(), models.new_text_encoder()
    embeddings = getattr(text, "text_model", text).embeddings
    nn.init.normal_(embeddings.position_embedding.weight, std=0.02)
    nn.init.normal_(embeddings.token_embedding.weight, std=0.05)
    if run.start is not None:
        _borrow(run.start, unet, text, tokenizer.load(data.prepare_tokenizer(run)))
    unet = unet.to(run.device, run.dtype).to(memory_format=torch.channels_last)
    return unet, text.to(run.device, run.dtype)


@torch.no_grad()
def _borrow(start: Path, unet: UNet2DConditionModel, text: CLIPTextModel, words: CLIPTokenizer) -> None:
    """Take the weights of another family of this shape. Token embeddings are matched by spelling."""
    table = getattr(text, "text_model", text).embeddings.token_embedding.weight
    fresh = table.clone()
    unet.load_state_dict(UNet2DConditionModel.from_pretrained(start / "unet").float().state_dict())
    text.load_state_dict(CLIPTextModel.from_pretrained(start / "text_encoder").float().state_dict())
    known = tokenizer.load(start / "tokenizer").get_vocab()
    for token, index in words.get_vocab().items():
        if token in known:
            fresh[index] = table[known[token]]
    table.copy_(fresh)


def start_precompiling(run: Run) -> subprocess.Popen | None:
    """Fill the compiler's cache in another process. None on a CPU and in a smoke run."""
    if not run.cuda or run.small or run.done("unet"):
        return None
    log = (run.state / "precompile.log").open("w")
    command = [sys.executable, "-m", "training", "precompile", "--state", str(run.state.resolve())]
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=Path(__file__).parents[1])


def precompile(run: Run) -> None:
    """Compile the training graph once, for the cache."""
    network = torch.compile(_network(*_working(run)))
    latents = torch.randn(BATCH, 4, 32, 32, device=run.device, dtype=run.dtype).contiguous(memory_format=torch.channels_last)
    steps = torch.randint(0, 1000, (BATCH,), device=run.device)
    ids = torch.randint(0, 1000, (BATCH, tokenizer.LENGTH), device=run.device)
    for _ in range(2):
        network(latents, steps, ids).float().mean().backward()
    run.synchronize()
    print("compiled", flush=True)


def _step(
    network: Network,
    corpus: data.Corpus,
    latents: torch.Tensor,
    batch: int,
    scaling: float,
    empty: torch.Tensor,
    weights: MasterWeights,
    losses: Losses,
    run: Run,
) -> Step:
    noise = noiser(run, scaling)

    def step() -> None:
        weights.forget_gradients()
        chosen = torch.randint(0, len(latents), (batch,), device=run.device)
        caption = torch.randint(0, data.CAPTIONS, (batch,), device=run.device)
        ids = pick_captions(corpus.tokens[chosen, caption], empty)
        noised = noise(latents[chosen])
        loss = noised.loss(network(noised.latents, noised.steps, ids))
        loss.backward()
        weights.step()
        losses.add(loss)

    return step


def train(run: Run, precompiler: subprocess.Popen | None = None) -> bool:
    """Train until the budget is spent or the run must end; True if finished.

    The averaged weights and the time spent are saved as it goes; a later run continues the schedule from
    them, with fresh optimiser moments behind a short warm-up.
    """
    progress = run.state / "unet-progress.json"
    resumed = json.loads(progress.read_text()) if progress.exists() else {"elapsed": 0.0, "steps": 0, "looks": []}
    autoencoder = vae.load(run)
    scaling = autoencoder.config.scaling_factor
    corpora, latents = {}, {}
    for form in data.FORMATS:
        corpora[form] = data.corpus(run, form)
        latents[form] = data.latents(run, autoencoder, corpora[form].packed, corpora[form].width, corpora[form].height)
    run.log(f"unet: latents encoded, deviation {float(latents['square'][:20000].float().std()) * scaling:.3f} after scaling")
    torch.manual_seed(run.seed + 1 + int(resumed["elapsed"]))
    unet, text = _working(run)
    weights = MasterWeights({"unet": unet, "text": text}, run, RATE, undecayed=("text",))
    if resumed["elapsed"]:
        weights.restore(run.load("unet"))
    losses, empty = Losses(("v",), run), data.empty_caption(run)

    def make(form: str, network: Network, label: str) -> Step:
        width, height = data.FORMATS[form]
        batch = run.scale(BATCH * 128 * 128 // (width * height), 8)
        step = _step(network, corpora[form], latents[form], batch, scaling, empty, weights, losses, run)
        return capture(step, run, f"unet {form} {label}")

    plain = _network(unet, text)
    weights.set_rate(1 / 50, 0)
    steps = {form: make(form, plain, "plain") for form in data.FORMATS}
    looks, looked, waiting = list(resumed["looks"]), time.monotonic(), precompiler is not None

    def pause(count: int, elapsed: float) -> list[Step] | None:
        nonlocal looked, waiting
        fresh = None
        if waiting and precompiler.poll() is not None:
            waiting = False
            if precompiler.returncode == 0:
                try:
                    steps["square"] = make("square", torch.compile(plain), "compiled")
                    fresh = [steps[name] for name in CYCLE]
                except RuntimeError as error:
                    run.log(f"unet: not compiled: {str(error)[:300]}")
            run.log(f"unet: compiled step in use: {fresh is not None}")
        if time.monotonic() - looked > LOOK_EVERY:
            looked = time.monotonic()
            save(count, elapsed)
            looks.append({"steps": resumed["steps"] + count, "seconds": round(elapsed)} | _look(run, autoencoder, weights))
            run.log(f"unet: {looks[-1]}")
        return fresh

    def save(count: int, elapsed: float) -> None:
        run.save("unet", weights.averaged())
        progress.write_text(json.dumps({"elapsed": elapsed, "steps": resumed["steps"] + count, "looks": looks}))

    schedule = Schedule(
        run.budget("unet"),
        WARMUP,
        FINAL,
        resumed["elapsed"],
        run.left - SAVE_MARGIN,
        most_steps=6 if run.small else None,
    )
    outcome = loop("unet", [steps[name] for name in CYCLE], weights, schedule, losses, run, pause)
    save(outcome.steps, resumed["elapsed"] + outcome.seconds)
    if outcome.finished:
        report = outcome.report() | {
            "total_steps": resumed["steps"] + outcome.steps,
            "total_seconds": round(resumed["elapsed"] + outcome.seconds, 1),
            "parameters": {key: sum(p.numel() for p in module.parameters()) for key, module in (("unet", unet), ("text", text))},
            "looks": looks,
            "start": run.start.name if run.start else "random",
        }
        run.finish("unet", report)
    return outcome.finished


def _look(run: Run, autoencoder: AutoencoderKL, weights: MasterWeights) -> dict[str, float]:
    """Share right on a few fixed prompts, by number of things."""
    each = run.scale(150, 2)
    asked = prompts(9001, each, each)
    unet, text = restore(run, weights.averaged())
    drawing = Family(unet, text, autoencoder, tokenizer.load(data.prepare_tokenizer(run)))
    table = judge.tabulate(run.grade(draw(drawing, [prompt.text for prompt in asked], seed=77), asked))
    return {
        "one": round(judge.share(table, 1), 4),
        "two": round(judge.share(table, 2), 4),
        "relation": round(judge.share(table, 2, "relation"), 4),
    }
