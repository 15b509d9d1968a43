"""Kernels of a GPU that torch has in a slower form (kernels.cu): compiled when they are first called, by the compiler
that comes with torch, NVRTC, so that no machine needs one of its own.

They give the same bits at each run, not torch's: the same sums in another order, rounded once where torch rounds
between two kernels.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

SOURCE = Path(__file__).with_name("kernels.cu")
ELEMENTS = {torch.float16: "ELEMENT_HALF", torch.bfloat16: "ELEMENT_BFLOAT", torch.float32: "ELEMENT_FLOAT"}
THREADS = 256
# Numbers of a plane that one block adds up.
PLANE_PART = 8192
# Places of a row that one block adds up, at least, where channels lie beside one another; and parts at most.
LANE_PART, MOST_PARTS = 64, 1024


def are_there(device: torch.device) -> bool:
    """Whether a device computes by them: NVIDIA's GPUs do."""
    return device.type == "cuda" and torch.version.hip is None


def group_norm(
    given: torch.Tensor, groups: int, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float, is_silu: bool = False
) -> torch.Tensor:
    """Group norm of [rows, channels, …] in its dtype, and SiLU of that where it is asked for; moments are fp32. Laid
    out as `given`: planes one behind the other, or channels beside one another where torch's channels_last has it so.
    Wu and He 2018, "Group Normalization", arXiv 1803.08494. Raises RuntimeError, in the words of the compiler or the
    driver."""
    rows, channels = given.shape[:2]
    size = given[0, 0].numel()
    beside = given.dim() == 4 and channels > 1 and size > 1 and given.is_contiguous(memory_format=torch.channels_last)
    given = given if beside else given.contiguous()
    made = torch.empty_like(given)
    vector = 16 // given.element_size()
    is_aligned = (channels if beside else size) % vector == 0 and given.data_ptr() % 16 == 0
    length = max(LANE_PART, -(-size // MOST_PARTS)) if beside else PLANE_PART
    parts = -(-size // length)
    moments = torch.empty(rows, channels, parts, 2, dtype=torch.float32, device=given.device)
    scales, shifts = torch.empty(2, rows, channels, dtype=torch.float32, device=given.device)
    run = _functions(given.device.index, given.dtype)
    flag = int(is_aligned)
    if beside:
        step = vector if is_aligned else 1
        lanes = min(-(-channels // step), THREADS)
        places = max(1, THREADS // lanes)
        grid = (rows, parts, -(-channels // (lanes * step)))
        run("moments_of_channels", grid, (lanes, places, 1), [given, moments, size, channels, length, flag], shared=8 * lanes * places)
    else:
        run("moments_of_planes", (rows * channels, parts, 1), (THREADS, 1, 1), [given, moments, size, length, flag])
    of_groups = [moments, weight, bias, scales, shifts, channels, channels // groups, size, length, parts, eps]
    run("scales_of_groups", (rows, groups, 1), (THREADS, 1, 1), of_groups)
    step = THREADS * (vector if is_aligned else 1)
    if beside:
        grid = (min(-(-size * channels // step), 4096), rows, 1)
        run("scaled_channels", grid, (THREADS, 1, 1), [given, scales, shifts, made, size, channels, int(is_silu), flag])
    else:
        grid = (rows * channels, min(-(-size // step), 64), 1)
        run("scaled_planes", grid, (THREADS, 1, 1), [given, scales, shifts, made, size, int(is_silu), flag])
    return made


def gated(given: torch.Tensor) -> torch.Tensor:
    """Of [… , 2 · width] the first half times the GELU of the second, [… , width], in its dtype. Raises as
    `group_norm`."""
    given = given.contiguous()
    width = given.shape[-1] // 2
    made = torch.empty(*given.shape[:-1], width, dtype=given.dtype, device=given.device)
    vector = 16 // given.element_size()
    is_aligned = width % vector == 0 and given.data_ptr() % 16 == 0
    blocks = -(-made.numel() // (THREADS * (vector if is_aligned else 1)))
    arguments = [given, made, ctypes.c_longlong(made.numel()), width, int(is_aligned)]
    _functions(given.device.index, given.dtype)("gated_units", (blocks, 1, 1), (THREADS, 1, 1), arguments)
    return made


class _Functions:
    """Those of kernels.cu for one device and dtype."""

    def __init__(self, image: bytes):
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._module = ctypes.c_void_p()
        self._check(self._driver.cuModuleLoadData(ctypes.byref(self._module), image))
        self._found: dict[str, ctypes.c_void_p] = {}

    def __call__(
        self, name: str, grid: tuple[int, int, int], block: tuple[int, int, int], arguments: Sequence[Any], shared: int = 0
    ) -> None:
        """Launches on torch's current stream, so that a CUDA graph records it. Raises RuntimeError, in the driver's
        words."""
        function = self._found.get(name)
        if function is None:
            function = self._found[name] = ctypes.c_void_p()
            self._check(self._driver.cuModuleGetFunction(ctypes.byref(function), self._module, name.encode()))
        held = [_argument(each) for each in arguments]
        pointers = (ctypes.c_void_p * len(held))(*(ctypes.addressof(each) for each in held))
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        self._check(self._driver.cuLaunchKernel(function, *grid, *block, shared, stream, pointers, None))

    def _check(self, result: int) -> None:
        if result != 0:
            words = ctypes.c_char_p()
            self._driver.cuGetErrorString(result, ctypes.byref(words))
            raise RuntimeError(f"CUDA error: {(words.value or b'unknown').decode()}")


@functools.cache
def _functions(index: int, dtype: torch.dtype) -> _Functions:
    with torch.cuda.device(index):
        major, minor = torch.cuda.get_device_capability(index)
        return _Functions(_compiled(f"sm_{major}{minor}", ELEMENTS[dtype]))


def _compiled(architecture: str, element: str) -> bytes:
    """A cubin of kernels.cu. Raises RuntimeError with what the compiler says of it."""
    compiler = ctypes.CDLL(f"libnvrtc.so.{(torch.version.cuda or '').split('.')[0]}")
    program = ctypes.c_void_p()
    _check_compiler(compiler, compiler.nvrtcCreateProgram(ctypes.byref(program), SOURCE.read_bytes(), b"kernels.cu", 0, None, None))
    try:
        options = [f"--gpu-architecture={architecture}", f"-D{element}", "--std=c++17"]
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        if compiler.nvrtcCompileProgram(program, len(options), given) != 0:
            said = _text(compiler.nvrtcGetProgramLogSize, compiler.nvrtcGetProgramLog, program)
            raise RuntimeError(f"kernels.cu does not compile for {architecture}: {said.decode(errors='replace')}")
        return _text(compiler.nvrtcGetCUBINSize, compiler.nvrtcGetCUBIN, program)
    finally:
        compiler.nvrtcDestroyProgram(ctypes.byref(program))


def _text(size_of: Any, read: Any, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    size_of(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    read(program, buffer)
    return buffer.raw


def _check_compiler(compiler: Any, result: int) -> None:
    if result != 0:
        compiler.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise RuntimeError(f"NVRTC: {compiler.nvrtcGetErrorString(result).decode()}")


def _argument(given: Any) -> Any:
    """As a kernel takes it: a tensor by its address, none as a null pointer."""
    if given is None:
        return ctypes.c_void_p()
    if isinstance(given, torch.Tensor):
        return ctypes.c_void_p(given.data_ptr())
    if isinstance(given, int):
        return ctypes.c_int(given)
    return ctypes.c_float(given) if isinstance(given, float) else given
