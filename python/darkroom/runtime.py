"""What all requests of one child share."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from darkroom.sharing import Turn

if TYPE_CHECKING:
    import torch

    from darkroom.adapters import Adapters
    from darkroom.classifiers import Classifiers
    from darkroom.faces import Faces
    from darkroom.memory import Peaks
    from darkroom.model import Models
    from darkroom.tools import ModelKey


class LiveTensors:
    """The tensors of each session, by weak reference: it counts what is alive, not what somebody meant to free.

    A tensor is whatever says its size as `nbytes`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: dict[str, dict[int, weakref.ref[Any]]] = {}

    def add(self, session_id: str, tensors: Iterable[Any]) -> None:
        """These are the session's, for as long as they live."""
        with self._lock:
            self._sessions.setdefault(session_id, {}).update((id(tensor), weakref.ref(tensor)) for tensor in tensors)

    def bytes_of(self, session_id: str) -> int:
        """Bytes that the session holds."""
        return self.bytes().get(session_id, 0)

    def bytes(self) -> dict[str, int]:
        """Session id → bytes, of sessions that hold any."""
        with self._lock:
            alive = {
                session_id: {key: ref for key, ref in refs.items() if ref() is not None} for session_id, refs in self._sessions.items()
            }
            self._sessions = {session_id: refs for session_id, refs in alive.items() if refs}
            tensors = {session_id: [ref() for ref in refs.values()] for session_id, refs in self._sessions.items()}
        return {session_id: sum(tensor.nbytes for tensor in its if tensor is not None) for session_id, its in tensors.items()}


@dataclass(frozen=True)
class Runtime:
    """Made once, when the child has shaken hands."""

    device: torch.device
    """Computes, and holds the models."""
    roots: dict[str, Any]
    """`models`: folders that models may lie in; `attempts`: the folder of all that steps read and write."""
    checkpoint: dict[str, Any]
    """`calls`: a checkpoint every so many calls, or None; then every `interval_s` seconds."""
    preview_s: float
    """Least seconds between two previews; 0 makes none."""
    models: Models
    adapters: Adapters
    classifiers: Classifiers
    faces: Faces
    live: LiveTensors
    peaks: Peaks
    facts: dict[str, Any]
    """What another process must share to go on from a file of this one: `exactness.facts`."""
    wanted: Callable[[], Collection[ModelKey]]
    """The models that requests use or wait for."""
    turn: Turn = field(default_factory=Turn)
    """Which device thread may touch tensors."""
