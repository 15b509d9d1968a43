"""What makes a process the child of a node. Standard library only, so that it can come before everything else."""

from __future__ import annotations

import os
import signal
import sys


def take_pipes() -> tuple[int, int]:
    """Keeps the standard streams for frames alone: descriptors to read the node's lines from and to write to it.

    Before any import that could print. Afterwards standard input is empty and standard output is standard error. The
    descriptors are not inherited, so no grandchild can hold the pipe open.
    """
    pipes = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    os.umask(0o077)
    return pipes


def follow_parent() -> None:
    """Dies with the node, and leaves Ctrl-C to it: the terminal sends that to the whole foreground group."""
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
