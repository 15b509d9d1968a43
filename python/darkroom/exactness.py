"""What decides the bits of an image besides the request: the hardware's class, the build, the settings."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# Raised by hand with any change to this package that can move a bit of a picture.
NUMERICS = 4

# Read by libraries when they are loaded, so set before the first import of torch.
ENVIRONMENT = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # MKL and OpenMP may otherwise take fewer threads than they were told to, and another split sums differently.
    "MKL_DYNAMIC": "FALSE",
    "OMP_DYNAMIC": "FALSE",
    # Threads that spin while they wait hold one another up on a busy machine: 48 s instead of 1.3 s for 20 steps of
    # darkroom-tiny with two threads on two busy cores.
    "OMP_WAIT_POLICY": "PASSIVE",
}


def prepare_environment(threads: int) -> None:
    """Sets what the libraries read when they are loaded; before the first import of torch."""
    os.environ.update(ENVIRONMENT, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))


def configure(threads: int) -> None:
    """Sets torch up so that the same request gives the same bits in every process of this class."""
    import torch

    # torch makes the settings that are marked below of modules at run time, where no type checker sees them.
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    torch.use_deterministic_algorithms(True)
    # Filling fresh tensors with NaN costs more than the rest together and changes no result.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyrefly: ignore[missing-attribute]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.fp32_precision = "ieee"  # pyrefly: ignore[missing-attribute]
    # cuDNN's convolutions keep TF32 of their own, whatever stands above them.
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # pyrefly: ignore[missing-attribute]
    torch.backends.cudnn.rnn.fp32_precision = "ieee"  # pyrefly: ignore[missing-attribute]
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    # Which of these runs follows from shape and dtype alone; `for_attention` lets cuDNN's choose too.
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cuda.enable_flash_sdp(True)
    torch.backends.cuda.enable_mem_efficient_sdp(True)
    torch.backends.cuda.enable_math_sdp(True)


@contextlib.contextmanager
def in_tf32() -> Generator[None]:
    """Within it convolutions and products of fp32 on a GPU run as TF32, which `settings` says of pictures there:
    autoencoders and text encoders that need fp32's range need no more than TF32's digits, which are those of fp16. A
    CPU knows no TF32."""
    import torch

    def use(precision: str) -> None:
        torch.backends.cudnn.conv.fp32_precision = precision  # pyrefly: ignore[missing-attribute]
        torch.backends.cuda.matmul.fp32_precision = precision

    use("tf32")
    try:
        yield
    finally:
        use("ieee")


@contextlib.contextmanager
def for_attention() -> Generator[None]:
    """Within it attention on a GPU may be cuDNN's, which takes half the time of the others there. torch counts it
    among what is not deterministic for the sake of its backward pass, and leaves it out unless that is allowed. The
    forward pass of these networks sums nothing in an order that changes, and which kernels cuDNN takes follows from
    its version, the device and the shapes: the class of hardware names the first two."""
    import torch

    if not torch.cuda.is_initialized():
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cuda.cudnn_sdp_enabled()
    torch.use_deterministic_algorithms(False)
    torch.backends.cuda.enable_cudnn_sdp(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cuda.enable_cudnn_sdp(before[1])


@contextlib.contextmanager
def unbound() -> Generator[None]:
    """Within it whichever kernels are fastest may run on a GPU, since no bytes are promised: what `configure` has set
    is as torch itself has it, and cuDNN tries out its convolutions. A CPU's kernels are the same."""
    import torch

    if not torch.cuda.is_initialized():
        yield
        return

    def bind(is_bound: bool) -> None:
        torch.use_deterministic_algorithms(is_bound)
        torch.backends.cudnn.deterministic = is_bound
        torch.backends.cudnn.benchmark = not is_bound
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = not is_bound
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = not is_bound
        torch.backends.cuda.enable_cudnn_sdp(not is_bound)

    bind(False)
    try:
        yield
    finally:
        bind(True)


def device(name: str) -> torch.device:
    """The torch.device that a worker is given as `cpu`, `cuda`, `cuda:<index>` or `cuda:<UUID>`; a GPU is initialised.
    Raises RuntimeError."""
    import torch

    kind, _, which = name.partition(":")
    is_uuid = kind == "cuda" and "-" in which
    device = torch.device(kind if is_uuid else name)
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise RuntimeError(f"device {name!r} is not supported; use cpu or cuda:N")
    if not torch.cuda.is_available():
        raise RuntimeError(f"device {name!r} is not there: torch {torch.__version__} finds no CUDA driver or has no CUDA in it")
    index = _index_of(which) if is_uuid else device.index or 0
    if index >= torch.cuda.device_count():
        raise RuntimeError(f"device {name!r} is not there: the machine has {torch.cuda.device_count()}, counted from 0")
    torch.cuda.set_device(index)
    torch.cuda.init()
    return torch.device("cuda", index)


def _index_of(uuid: str) -> int:
    """Of the GPU with that UUID; the number of GPUs when there is none."""
    import torch

    uuids = [str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())]
    return uuids.index(uuid) if uuid in uuids else len(uuids)


def build() -> dict[str, Any]:
    """Versions of whatever computes."""
    import diffusers
    import safetensors
    import tokenizers
    import torch
    import transformers

    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "safetensors": safetensors.__version__,
        "numerics": NUMERICS,
    }


def hardware(device: torch.device, threads: int) -> dict[str, Any]:
    """What the machine is, as far as it decides bits or a reader wants to know."""
    import torch

    described = {
        "kind": device.type,
        "name": cpu_name(),
        "uuid": None,
        "index": device.index or 0,
        "capability": None,
        "driver": None,
        "total_bytes": None,
        "arch": platform.machine(),
        "vector": torch.backends.cpu.get_cpu_capability(),
        "math": _math_libraries(torch.__config__.show()),
        "threads": threads,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        described.update(
            name=properties.name,
            uuid=str(properties.uuid),
            capability=f"{properties.major}.{properties.minor}",
            driver=driver(),
            total_bytes=properties.total_memory,
            math=f"cuda {torch.version.cuda}, cudnn {torch.backends.cudnn.version()}",
        )
    return described


def precisions(device: torch.device) -> dict[str, str]:
    """In which type networks compute on a device: `dtype` the UNets, `transformer` those of flow matching and their
    text encoders, whose range float16 is too small for; `vae` how the autoencoder does, and `text` the UNets' text
    encoders, whose weights are fp32. Only `dtype` where all are fp32."""
    if device.type == "cpu":
        return {"dtype": "float32"}
    return {"dtype": "float16", "transformer": "bfloat16", "vae": "tf32", "text": "tf32"}


def settings(device: torch.device) -> dict[str, Any]:
    """What a user of the same hardware and build could have set otherwise. `tiling`: of a picture whose autoencoder
    computed in tiles the node says true; `offload` is none whatever a memory profile does, since it moves no bit;
    `kernels`: whose compute what families/suited.py names."""
    import torch

    from darkroom import kernels

    of_fp32 = (
        torch.backends.cuda.matmul.fp32_precision,
        torch.backends.cudnn.conv.fp32_precision,  # pyrefly: ignore[missing-attribute]
    )
    return {
        **precisions(device),
        **({} if device.type == "cpu" else {"kernels": "darkroom" if kernels.are_there(device) else "torch"}),
        "attention": "sdpa",
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "tf32": "tf32" in of_fp32,
        "tiling": False,
        "offload": "none",
    }


def facts(*, build: dict[str, Any], hardware: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """What two processes must share for one to go on from the other's checkpoint: class of hardware, build, settings.

    The node hashes them into its exactness key, so they hold nothing that differs between two devices of one class.
    """
    shared = ("kind", "arch", "vector", "math", "threads")
    if hardware["kind"] != "cpu":
        shared = ("kind", "name", "capability", "driver", "math", "threads")
    return {
        "hardware": {name: hardware[name] for name in shared},
        "build": {name: value for name, value in build.items() if name != "python"},
        "settings": settings,
    }


def cpu_name() -> str:
    """The model of the CPU, as its maker names it; else its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _math_libraries(config: str) -> str:
    """`mkl 2024.2, onednn 3.12.0` out of torch's own description of its build."""
    found = re.findall(r"(Math Kernel Library|MKL-DNN|OpenBLAS)\D*?([0-9]+(?:\.[0-9]+)*)", config)
    names = {"Math Kernel Library": "mkl", "MKL-DNN": "onednn", "OpenBLAS": "openblas"}
    return ", ".join(f"{names[name]} {version}" for name, version in found) or "unknown"


def driver() -> str | None:
    """The NVIDIA kernel driver's version; where the system does not tell (WSL), the CUDA version that it speaks."""
    try:
        with open("/proc/driver/nvidia/version", encoding="utf-8") as file:
            match = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", file.read())
    except OSError:
        match = None
    if match:
        return match.group(1)
    version = ctypes.c_int()
    try:
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except OSError:
        return None
    return f"cuda {version.value // 1000}.{version.value % 1000 // 10}"
