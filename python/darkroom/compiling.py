"""Regional compilation: the repeated blocks of a network are compiled, each kind of them once, and not the whole of it.

A network is some dozen blocks of few kinds. Blocks of one class whose weights have the same shapes share one compiled
function, so what is compiled is a small part of the network, and takes seconds where all of it takes minutes (PyTorch's
recipe "Reducing torch.compile cold start compilation time with regional compilation"; diffusers'
`compile_repeated_blocks`). It is switched on for one picture at a time: the blocks' `forward` is another one meanwhile,
so that pictures of the class `exact` compute with the same blocks as ever.

Weights are inputs of what is compiled: adapters patch them in place, and they may be read anew. What was compiled lies
on disk by build, and is found again by the next process.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import stat
import sysconfig
import threading
import time
import types
import weakref
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom import exactness, faults

if TYPE_CHECKING:
    import torch

# Shapes of pictures that one network keeps compiled code for; with the next one it begins anew, from the cache on disk.
MOST_SHAPES = 8
# More compilations of one region than so many shapes need are the sign of an error.
MOST_COMPILED = 8 * MOST_SHAPES
# A call of a region that takes longer than the first compiles; longer than the second it hangs.
COMPILES_S, HANGS_S = 1.0, 900.0
# What builds that are gone have left is removed after so many days.
KEPT_DAYS = 30


@dataclass
class Region:
    """Blocks of one class whose weights have the same shapes."""

    kind: str
    blocks: list[torch.nn.Module] = field(default_factory=list)
    call: Callable[..., Any] | None = None
    code: types.CodeType | None = None
    """What torch keeps the compiled functions by: a copy of its own, so that letting go of it lets go of them."""

    def compile(self, is_dynamic: bool) -> None:
        import torch

        own = type(self.blocks[0]).forward
        copy = types.FunctionType(own.__code__.replace(), own.__globals__, own.__name__, own.__defaults__, own.__closure__)
        copy.__kwdefaults__ = own.__kwdefaults__
        self.code = copy.__code__
        # Without a graph that is whole it would go on eagerly in parts, and say nothing.
        self.call = torch.compile(copy, dynamic=is_dynamic, fullgraph=True)

    def drop(self) -> None:
        if self.code is not None:
            from torch._dynamo.eval_frame import reset_code

            reset_code(self.code)
        self.call, self.code = None, None


class Compiled:
    """The regions of one network. `kinds`: names of the classes of its blocks; `is_dynamic`: compiled once for all
    shapes, where these change from prompt to prompt, else once for each."""

    def __init__(self, network: torch.nn.Module, kinds: Sequence[str], is_dynamic: bool):
        regions: dict[tuple[Any, ...], Region] = {}
        for block in network.modules():
            kind = type(block).__name__
            if kind in kinds:
                shapes = tuple((name, tuple(weight.shape)) for name, weight in block.named_parameters())
                # What of its configuration decides which way it goes, such as a number of heads, is no weight's shape.
                numbers = tuple(sorted((name, value) for name, value in vars(block).items() if isinstance(value, int | str | float)))
                regions.setdefault((kind, shapes, numbers), Region(kind)).blocks.append(block)
        self.regions = list(regions.values())
        self.failure: str | None = None
        """Why it computes eagerly after all, once it does."""
        self.seconds = 0.0
        """That compiling has taken."""
        self._is_dynamic = is_dynamic
        self._shapes: set[Any] = set()
        # Since when a region is being called, for who watches it.
        self._since: float | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Class of block → how many of them are compiled."""
        made: dict[str, int] = {}
        for region in self.regions:
            made[region.kind] = made.get(region.kind, 0) + len(region.blocks)
        return made

    def drop(self) -> None:
        """Lets go of what was compiled."""
        for region in self.regions:
            region.drop()
        self._shapes.clear()

    @contextlib.contextmanager
    def within(self, shape: Any, watch: Callable[[], None]) -> Generator[None]:
        """Within it the blocks compute compiled. `shape`: whatever tells pictures apart that need other code; `watch`:
        called every second, from another thread, while something is being compiled."""
        if shape not in self._shapes and len(self._shapes) >= MOST_SHAPES:
            self.drop()
        self._shapes.add(shape)
        for region in self.regions:
            if region.call is None:
                region.compile(self._is_dynamic)
            for block in region.blocks:
                block.forward = functools.partial(self._compute, region, block)
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(ended, watch), name="compiling", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            for region in self.regions:
                for block in region.blocks:
                    del block.forward
            ended.set()
            watcher.join()

    def _compute(self, region: Region, block: torch.nn.Module, *given: Any, **named: Any) -> Any:
        if self.failure is None and region.call is not None:
            from torch._dynamo.utils import counters

            before, began = counters["stats"]["unique_graphs"], time.monotonic()
            self._since = began
            try:
                return region.call(block, *given, **named)
            except Exception as error:
                if faults.is_out_of_memory(error) or faults.is_device_lost(error):
                    raise
                # What is no error of the compiler's the block itself raises again.
                self.failure = _first_line(error)
            finally:
                self._since = None
                if counters["stats"]["unique_graphs"] != before:
                    self.seconds += time.monotonic() - began
        return type(block).forward(block, *given, **named)

    def _watch(self, ended: threading.Event, watch: Callable[[], None]) -> None:
        while not ended.wait(1.0):
            since = self._since
            if since is not None and COMPILES_S < time.monotonic() - since < HANGS_S:
                watch()


# By network, as long as that lives.
_all: weakref.WeakKeyDictionary[torch.nn.Module, Compiled] = weakref.WeakKeyDictionary()


def of(network: torch.nn.Module, kinds: Sequence[str], is_dynamic: bool) -> Compiled:
    """What is compiled of a network: nothing yet when it is asked for first."""
    found = _all.get(network)
    if found is None:
        _configure()
        found = _all[network] = Compiled(network, kinds, is_dynamic)
        weakref.finalize(network, found.drop)
    return found


def drop(network: torch.nn.Module) -> None:
    """Lets go of what was compiled of a network, and of why that failed."""
    found = _all.get(network)
    if found is not None:
        found.drop()
        found.failure = None


def counted() -> tuple[int, int]:
    """(functions that were compiled since the process began, those of them that were not found on disk)."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"], counters["inductor"]["fxgraph_cache_miss"]


def _configure() -> None:
    import torch._dynamo.config as dynamo

    # What torch would do instead is to go on eagerly, and say nothing.
    dynamo.recompile_limit = MOST_COMPILED
    dynamo.fail_on_recompile_limit_hit = True


def obstacle(kind: str) -> str | None:
    """Why nothing can be compiled for devices of that kind on this machine; None where it can."""
    compilers = ("g++",) if kind == "cpu" else ("cc", "gcc", "clang")
    if kind != "cpu" and importlib.util.find_spec("triton") is None:
        return "Triton, which compiles for GPUs, is not installed beside torch"
    if not any(shutil.which(name) for name in compilers):
        return f"there is no C++ compiler: {' or '.join(compilers)} is not on the PATH of the worker"
    if not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")):
        return "Python's headers are not installed: Python.h is missing, which Debian has in python3-dev"
    return None


def prepare_environment(root: str | None, device: str) -> str | None:
    """Where torch and Triton keep what they have compiled: a folder of this build within `root`. Before the first
    import of torch. Returns why there is none that lasts, in words; None when all is well."""
    # One process for each compilation is worth it only where there are many kernels: on a CPU each is a program.
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1" if device == "cpu" else str(min(8, os.cpu_count() or 1))
    if root is None:
        return "the node named no folder for it"
    build = _build(device)
    folder = Path(root) / hashlib.sha256(json.dumps(build, sort_keys=True).encode()).hexdigest()[:16]
    try:
        for each in (Path(root), folder):
            each.mkdir(mode=0o700, exist_ok=True)
            _check_own(each)
        (folder / "build.json").write_text(json.dumps(build, indent=1) + "\n")
        os.utime(folder)
        _remove_old(Path(root), folder)
    except OSError as error:
        return f"{error.filename or folder}: {error.strerror or error}"
    os.environ.update(TORCHINDUCTOR_CACHE_DIR=str(folder / "inductor"), TRITON_CACHE_DIR=str(folder / "triton"))
    return None


def _build(device: str) -> dict[str, Any]:
    """What another process must share to use what this one has compiled, as far as it is known before torch is."""

    def version(name: str) -> str | None:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    packages = {name: version(name) for name in ("torch", "triton", "diffusers")}
    if device == "cpu":
        return {**packages, "python": platform.python_version(), "device": exactness.cpu_name(), "driver": None}
    cards = sorted({_model_of(path) for path in Path("/proc/driver/nvidia/gpus").glob("*/information")})
    return {**packages, "python": platform.python_version(), "device": ", ".join(cards), "driver": exactness.driver()}


def _model_of(information: Path) -> str:
    found = re.search(r"Model:\s*(.+)", information.read_text(errors="replace"))
    return found.group(1).strip() if found else "unknown"


def _check_own(folder: Path) -> None:
    """Raises OSError unless nobody else can write there: what lies in it is run."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise OSError(0, "is no folder", str(folder))
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise OSError(0, "is not this user's alone, with mode 0700", str(folder))


def _remove_old(root: Path, own: Path) -> None:
    before = time.time() - KEPT_DAYS * 86_400
    for folder in root.iterdir():
        if folder != own and folder.is_dir() and folder.lstat().st_mtime < before:
            shutil.rmtree(folder, ignore_errors=True)


def _first_line(error: BaseException) -> str:
    # torch wraps what its compiler raised into words about itself.
    error = getattr(error, "inner_exception", None) or error
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0] if said else ''}"[:300]
