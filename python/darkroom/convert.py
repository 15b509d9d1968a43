"""Makes safetensors of a pickle: a process of its own, started for one file, that ends with it.

    python -P -m darkroom.convert SOURCE TARGET

Before the file is opened the process closes itself off, or refuses to go on: no sockets and no programs (seccomp), no
GPU, limits on memory, CPU time and the size of what it writes, nothing inherited but three pipes, an environment
without secrets. Then `torch.load` reads it with `weights_only`, which runs none of its code; what is left to trust is
that reader, and what it could do at worst is in here. Lines of JSON on standard output: {"stage"} on the way, and at
the end {"tensors", "bytes", "skipped"} or {"code", "message"}.
"""

from __future__ import annotations

import os

# Before torch looks for one.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["OMP_NUM_THREADS"] = "1"

import json
import resource
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from safetensors.torch import save_file

from darkroom import sandbox
from darkroom.process import follow_parent

# Where tools keep the table of tensors in what they save; first come those that hold what is meant to be used.
TABLES = ("state_dict", "model_state_dict", "params_ema", "params", "model", "module", "ema")
MAX_TENSORS = 32_768
MAX_NAME = 1_024
CPU_S = 3_600
# Beside the tensors themselves: what the reader needs for its own work.
SPARE_BYTES = 1 << 30


def main() -> None:
    """Converts the file of the first argument; the second is written whole, or removed."""
    follow_parent()
    source, target = sys.argv[1:3]
    size = os.path.getsize(source)
    tell({"stage": "read"})
    try:
        limit(size)
        sandbox.close_off()
    except OSError as error:
        refuse("pickle_refused", f"this system does not let the process close itself off: {error}")
    try:
        saved = torch.load(source, map_location="cpu", weights_only=True)
    except MemoryError:
        refuse("not_converted", f"it needs more memory than a file of {size} bytes may")
    # Whatever a pickle makes the reader throw: it is no weights-only file, or broken.
    except Exception as error:
        refuse("not_converted", f"it holds more than weights, or is broken: {one_line(error)}")
    table = table_of(saved)
    tensors, skipped = tensors_of(table)
    tell({"stage": "write"})
    try:
        save_file(tensors, target, {"format": "pt"})
        with open(target, "rb") as file:
            os.fsync(file.fileno())
    except Exception as error:
        if os.path.exists(target):
            os.remove(target)
        refuse("not_converted", f"it could not be written: {one_line(error)}")
    tell({"tensors": len(tensors), "bytes": os.path.getsize(target), "skipped": skipped[:20]})


def limit(size: int) -> None:
    """`size`: bytes of the file. A file of a few kilobytes that unpacks to many gigabytes ends here. Raises OSError."""
    with open("/proc/self/statm", encoding="ascii") as file:
        mapped = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    for what, most in (
        (resource.RLIMIT_AS, mapped + 4 * size + SPARE_BYTES),
        (resource.RLIMIT_CPU, CPU_S),
        # Tensors that share their bytes in the pickle are written once each.
        (resource.RLIMIT_FSIZE, 2 * size + (64 << 20)),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def table_of(saved: Any) -> Mapping[str, Any]:
    """The table of tensors in what was saved; ends the process when there is none."""
    for _ in range(3):
        if not isinstance(saved, Mapping):
            break
        if any(isinstance(value, torch.Tensor) for value in saved.values()):
            return saved
        # A textual inversion of A1111: its vectors by a token.
        learned = saved.get("string_to_param")
        if isinstance(learned, Mapping) and len(learned) == 1:
            return {"emb_params": next(iter(learned.values()))}
        inner = next((saved[name] for name in TABLES if isinstance(saved.get(name), Mapping)), None)
        if inner is None:
            break
        saved = inner
    if isinstance(saved, torch.Tensor):
        return {"emb_params": saved}
    refuse("not_converted", "it holds no table of tensors where tools keep one")


def tensors_of(table: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The tensors, each with bytes of its own, and the names of what is none."""
    tensors: dict[str, torch.Tensor] = {}
    skipped: list[str] = []
    for name, value in table.items():
        if not isinstance(name, str) or not name or len(name.encode("utf-8", "surrogatepass")) > MAX_NAME or not name.isprintable():
            refuse("not_converted", f"a tensor has a name that is none: {name!r:.100}")
        if isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta:
            tensors[name] = value.detach().contiguous().clone()
        else:
            skipped.append(name)
    if len(tensors) > MAX_TENSORS:
        refuse("not_converted", f"it holds {len(tensors)} tensors, {MAX_TENSORS} are the most")
    return tensors, skipped


def one_line(error: Exception) -> str:
    """The beginning of what a library says, as one line of plain text."""
    text = " ".join(str(error).split())
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:300] or type(error).__name__


def refuse(code: str, message: str) -> NoReturn:
    """Says why there will be no file, and ends the process."""
    tell({"code": code, "message": message})
    sys.exit(1)


def tell(line: dict[str, Any]) -> None:
    """One line to the node."""
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
