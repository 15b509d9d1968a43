"""Command line: `python -m training <command>`, run in `python/`. `python -m training train --state DIR` does
every stage.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

# Before PyTorch and the tokenizers load: nothing here goes to the network, and worker processes must not
# multiply threads.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "2")

import torch

from . import card, controlnet, evaluate, lora, package, safety, sheet, timing, unet, upscaler, vae
from .run import BUDGETS, Run

STAGES = ("vae", "upscaler", "safety", "unet", "pastel", "outline", "controlnet")
OVERHEAD = 40.0
"""Seconds a stage needs beside its training: data, latents, measurements."""
AGAIN = 3
"""Exit status when the run's time is up and the same command must be given again."""


def train(run: Run, stages: tuple[str, ...] = STAGES) -> int:
    """Do the stages that are not done yet, in order, as far as the run's time allows."""
    precompiler = unet.start_precompiling(run) if "unet" in stages else None
    try:
        for stage in stages:
            if run.done(stage):
                continue
            needed = 60.0 if stage == "unet" else run.budget(stage) + OVERHEAD
            if run.left < needed:
                run.log(f"{stage}: no time left in this run, give the command again")
                return AGAIN
            run.log(f"{stage}: begins")
            if stage == "unet":
                if not unet.train(run, precompiler):
                    run.log("unet: no time left in this run, give the command again")
                    return AGAIN
            elif stage in lora.STYLES:
                lora.train(run, stage)
            else:
                {"vae": vae, "upscaler": upscaler, "safety": safety, "controlnet": controlnet}[stage].train(run)
            if run.cuda:
                torch.cuda.empty_cache()
    finally:
        if precompiler is not None and precompiler.poll() is None:
            precompiler.kill()
    run.log("every stage is done")
    return 0


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    root = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = root.add_subparsers(dest="command", required=True)

    def add(name: str, explanation: str, state: bool = False, family: bool = False) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=explanation, description=explanation)
        default = "cuda" if torch.cuda.is_available() else "cpu"
        command.add_argument("--device", default=default, help="cuda or cpu (default: %(default)s)")
        if state:
            command.add_argument("--state", type=Path, required=True, help="folder of results so far")
        if family:
            command.add_argument("--family", type=Path, required=True, help="the packaged family's folder")
        return command

    for name in ("train", *STAGES):
        explanation = "every stage that is not done yet" if name == "train" else f"the stage {name} ({BUDGETS[name]:.0f} s)"
        command = add(name, explanation, state=True)
        command.add_argument("--minutes", type=float, help="end after so long, to be resumed by the same command")
        command.add_argument("--seed", type=int, default=1)
        command.add_argument("--small", action="store_true", help="a few steps of each stage, to see that it works")
        command.add_argument("--seconds", type=float, help="another training time than the stage's own")
        command.add_argument("--start", type=Path, help="a family whose UNet and text encoder the stage unet begins with")
    add("precompile", "fill the compiler's cache for the stage unet (it does this itself)", state=True)
    add("package", "write the trained networks as a family", state=True, family=True)
    command = add(
        "evaluate",
        "measure the family, print the judge's table and the gates, write evaluation.json",
        family=True,
    )
    command.add_argument("--fraction", type=float, default=1.0, help="share of the main table's prompts (default: 1)")
    command.add_argument("--others", type=float, default=1.0, help="share of every other sample (default: 1)")
    command.add_argument("--out", type=Path, help="where to write (default: evaluation.json in the family)")
    command = add("time", "time pictures on two CPU cores, write timing.json", family=True)
    command.add_argument("--pictures", type=int, default=10)
    command = add("sheet", "draw the contact sheet of 64 fixed prompts", family=True)
    command.add_argument("--out", type=Path, required=True)
    add("card", "write README.md from the reports, and manifest.json", state=True, family=True)
    return root


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if options.device == "cpu":
        torch.set_num_threads(2)
    command = options.command
    if command == "time":
        figures = timing.measure(options.family, repeats=options.pictures)
        print(json.dumps(figures, indent=1))
        (options.family / "timing.json").write_text(json.dumps(figures, indent=1) + "\n")
        return 0
    if command == "sheet":
        sheet.make(options.family, options.out, options.device)
        return 0
    if command == "evaluate":
        run = Run.open(options.family, options.device, logs=False)
        result = evaluate.evaluate(run, options.family, options.fraction, options.others)
        print(evaluate.format_gates(result["gates"]))
        evaluate.write_result(result, options.out or options.family / "evaluation.json")
        run.close()
        return 0 if all(row["met"] for row in result["gates"]) else 1
    if command in ("package", "card", "precompile"):
        run = Run.open(options.state, options.device)
        if command == "package":
            package.build(run, options.family)
        elif command == "card":
            card.write(run, options.family)
            package.seal(options.family)
        else:
            unet.precompile(run)
        run.close()
        return 0
    run = Run.open(options.state, options.device, options.small, options.seed, options.minutes, options.seconds, options.start)
    try:
        return train(run, STAGES if command == "train" else (command,))
    finally:
        run.close()


if __name__ == "__main__":
    sys.exit(main())
