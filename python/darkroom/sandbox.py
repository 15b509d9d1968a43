"""Closes a process off: from then on it opens no socket, starts no program or process, and touches no other one. Linux
only, on x86-64 and arm64; elsewhere it refuses.

A filter of seccomp (seccomp(2), `SECCOMP_MODE_FILTER`) answers the forbidden system calls with EPERM. It cannot be
taken off again, and holds for every thread there is and comes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

PR_SET_NO_NEW_PRIVS = 38
SECCOMP_SET_MODE_FILTER = 1
# Threads that run already get the filter too.
SECCOMP_FILTER_FLAG_TSYNC = 1
SECCOMP_RET_ALLOW = 0x7FFF0000
SECCOMP_RET_ERRNO = 0x00050000
SECCOMP_RET_KILL_PROCESS = 0x80000000
# Instructions of classic BPF (linux/bpf_common.h): load a word; jump if it equals, is at least, has a bit of; return.
LOAD, IF_EQUAL, IF_FROM, IF_ANY, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
# Offsets in `struct seccomp_data`, of the first argument that of its low word.
NUMBER, ARCHITECTURE, ARGUMENT = 0, 4, 16
# Numbers from here on are those of x32, another way to call the same.
X32 = 0x40000000

# clone(2) makes threads, which stay, and processes. clone3(2) hides which, so libraries are told to use the former.
CLONE_THREAD, CLONE3 = 0x10000, 435

# By architecture: its audit number, the numbers of seccomp(2) and clone(2), those of what is forbidden (asm/unistd.h).
SYSTEMS = {
    "x86_64": (
        0xC000003E,
        317,
        56,
        {
            "socket": 41,
            "connect": 42,
            "sendto": 44,
            "sendmsg": 46,
            "bind": 49,
            "listen": 50,
            "socketpair": 53,
            "fork": 57,
            "vfork": 58,
            "execve": 59,
            "kill": 62,
            "ptrace": 101,
            "tkill": 200,
            "tgkill": 234,
            "process_vm_readv": 310,
            "process_vm_writev": 311,
            "execveat": 322,
            "io_uring_setup": 425,
            "pidfd_open": 434,
        },
    ),
    "aarch64": (
        0xC00000B7,
        277,
        220,
        {
            "ptrace": 117,
            "kill": 129,
            "tkill": 130,
            "tgkill": 131,
            "socket": 198,
            "socketpair": 199,
            "bind": 200,
            "listen": 201,
            "connect": 203,
            "sendto": 206,
            "sendmsg": 211,
            "execve": 221,
            "process_vm_readv": 270,
            "process_vm_writev": 271,
            "execveat": 281,
            "io_uring_setup": 425,
            "pidfd_open": 434,
        },
    ),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def close_off() -> None:
    """From here on. Raises OSError where the system does not do it: nothing may then be opened."""
    system = SYSTEMS.get(platform.machine()) if sys.platform == "linux" else None
    if system is None:
        raise OSError(errno.ENOSYS, f"no filter is known for {sys.platform} on {platform.machine()}")
    architecture, seccomp, clone, forbidden = system
    code = _filter(architecture, clone, sorted(forbidden.values()))
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise _refused("prctl")
    program = _Program(len(code) // 8, code)
    if library.syscall(seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, ctypes.byref(program)) != 0:
        raise _refused("seccomp")


def _filter(architecture: int, clone: int, forbidden: list[int]) -> bytes:
    """The program: eight bytes an instruction, `struct sock_filter`."""
    refusal = SECCOMP_RET_ERRNO | errno.EPERM
    head = [
        (LOAD, 0, 0, ARCHITECTURE),
        (IF_EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, SECCOMP_RET_KILL_PROCESS),
        (LOAD, 0, 0, NUMBER),
    ]
    tail = [
        (IF_EQUAL, 0, 1, CLONE3),
        (RETURN, 0, 0, SECCOMP_RET_ERRNO | errno.ENOSYS),
        (IF_EQUAL, 0, 2, clone),
        (LOAD, 0, 0, ARGUMENT),
        (IF_ANY, 0, 1, CLONE_THREAD),
        (RETURN, 0, 0, SECCOMP_RET_ALLOW),
        (RETURN, 0, 0, refusal),
    ]
    # A jump counts from the instruction behind it; these lead to the last one.
    tests = [(IF_FROM, X32), *((IF_EQUAL, number) for number in forbidden)]
    body = [(how, len(tests) - 1 - i + len(tail) - 1, 0, value) for i, (how, value) in enumerate(tests)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in (*head, *body, *tail))


def _refused(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")
