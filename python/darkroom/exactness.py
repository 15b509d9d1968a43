"""What decides the bits of an image besides the request: the hardware's class, the build, the settings."""

import os
import platform
import re

# Raised by hand with any change to this package that can move a bit of a picture.
NUMERICS = 1

# Read by libraries when they are loaded, so set before the first import of torch.
ENVIRONMENT = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # MKL and OpenMP may otherwise take fewer threads than they were told to, and another split sums
    # differently.
    "MKL_DYNAMIC": "FALSE",
    "OMP_DYNAMIC": "FALSE",
    # Threads that spin while they wait hold one another up on a busy machine: 48 s instead of 1.3 s for 20
    # steps of darkroom-tiny with two threads on two busy cores.
    "OMP_WAIT_POLICY": "PASSIVE",
}


def prepare_environment(threads):
    os.environ.update(ENVIRONMENT, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))


def configure(threads):
    """Sets torch up so that the same request gives the same bits in every process of this class."""
    import torch

    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    torch.use_deterministic_algorithms(True)
    # Filling fresh tensors with NaN costs more than the rest together and changes no result.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    # Which of these runs follows from shape and dtype alone; cuDNN's choice does not.
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cuda.enable_flash_sdp(True)
    torch.backends.cuda.enable_mem_efficient_sdp(True)
    torch.backends.cuda.enable_math_sdp(True)


def build():
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


def hardware(device, threads):
    """`device`: a torch.device. What the machine is, as far as it decides bits or a reader wants to know."""
    import torch

    described = {
        "kind": device.type,
        "name": _cpu_name(),
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
            driver=_nvidia_driver(),
            total_bytes=properties.total_memory,
            math=f"cuda {torch.version.cuda}, cudnn {torch.backends.cudnn.version()}",
        )
    return described


def settings(device):
    return {
        "dtype": "float32" if device.type == "cpu" else "float16",
        "attention": "sdpa",
        "deterministic": True,
        "tiling": False,
        "offload": "none",
    }


def fingerprint(described, built, set_to):
    """What two processes must share for one to go on from the other's checkpoint: everything but the device's
    own identity.
    """
    own = ("uuid", "index", "total_bytes")
    return {
        "hardware": {key: value for key, value in described.items() if key not in own},
        "build": built,
        "settings": set_to,
    }


def _cpu_name():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _math_libraries(config):
    """`mkl 2024.2, onednn 3.12.0` out of torch's own description of its build."""
    found = re.findall(r"(Math Kernel Library|MKL-DNN|OpenBLAS)\D*?([0-9]+(?:\.[0-9]+)*)", config)
    names = {"Math Kernel Library": "mkl", "MKL-DNN": "onednn", "OpenBLAS": "openblas"}
    return ", ".join(f"{names[name]} {version}" for name, version in found) or "unknown"


def _nvidia_driver():
    try:
        with open("/proc/driver/nvidia/version", encoding="utf-8") as file:
            match = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", file.read())
            return match.group(1) if match else None
    except OSError:
        return None
