"""Which exceptions are the fault of device or disk."""

from __future__ import annotations

import errno
import sys


def is_out_of_memory(error: BaseException) -> bool:
    """Whether device or host had no memory left for it."""
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    # The last three: of files that are mapped, C++ and oneDNN.
    said = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED", "Cannot allocate memory")
    said += ("bad_alloc", "could not create a primitive")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in said)


def is_disk_full(error: BaseException) -> bool:
    """Whether a disk had no room for it, or the user's share of the disk is used up."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def is_device_lost(error: BaseException) -> bool:
    """Whether it is a CUDA error that every later call of this process would meet again."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and ("CUDA error" in str(error) or "CUDNN_STATUS_EXECUTION_FAILED" in str(error))
