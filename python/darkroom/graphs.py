"""CUDA graphs: the kernels of one forward, recorded once for a shape and replayed, with the same bytes as without.

One image a forward is bound by the host, which launches some thousand kernels for it; a replay is one launch. The
recorded kernels are the ones that would have run, so a replay is equal to the eager forward bit for bit, and either may
go on from the other's checkpoint. "Getting Started with CUDA Graphs", NVIDIA 2019; `torch.cuda.CUDAGraph`.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    import torch

Made = TypeVar("Made", "torch.Tensor", "tuple[torch.Tensor, ...]")
"""What a forward gives."""

# Shapes of one network at a time on one stream; the one used longest ago goes first.
MOST_SHAPES = 4
# A replay that takes more than this of an eager forward's time is not worth its memory.
WORTH = 0.97


@dataclass
class Recording(Generic[Made]):
    """One shape. `graph` is None where a replay would not pay."""

    graph: Any
    given: tuple[torch.Tensor, ...]
    made: Made | None
    weights: tuple[torch.Tensor, ...]
    """What it reads of the network, in the network's order."""
    pointers: tuple[int, ...]
    bytes: int

    def is_stale(self) -> bool:
        """Whether a weight has moved since. Asked before each replay, so it walks no modules: those of a large network
        take as long as a quarter of its forward."""
        return _pointers(self.weights) != self.pointers


class Replayed(Generic[Made]):
    """A forward of `network`, eager or replayed: it takes tensors on the device and gives one or several, its caller's
    own to keep.

    `forward` may only read its tensors and the network's weights, and draw no random numbers. On other devices than a
    GPU it is called as it is.
    """

    def __init__(self, network: torch.nn.Module, forward: Callable[..., Made], device: torch.device):
        self._network, self._forward, self._device = network, forward, device
        self._recordings: OrderedDict[tuple[Any, ...], Recording[Made]] = OrderedDict()
        # Shapes that ran once: their kernels are chosen and their workspaces there.
        self._warm: set[tuple[Any, ...]] = set()
        self.captures = 0
        self.replays = 0
        _all.add(self)

    @property
    def bytes(self) -> int:
        """Device memory that the recordings hold beside the weights."""
        return sum(recording.bytes for recording in self._recordings.values())

    def __call__(self, *given: torch.Tensor) -> Made:
        # What is differentiated is computed: a recording knows of no gradients.
        if self._device.type != "cuda" or not enabled or self._network in _eager or _is_learning():
            return self._forward(*given)
        # Requests that share the device replay at a time, each its own: a recording has one place for what it is given.
        key = (_stream(self._device), self._network in _another, *((tuple(tensor.shape), tensor.dtype) for tensor in given))
        recording = self._recordings.get(key)
        if recording is not None and recording.graph is not None and recording.is_stale():
            # Somebody gave the network other tensors: the graph would read the old ones.
            recording = None
        if recording is None:
            if key not in self._warm:
                self._warm.add(key)
                return self._forward(*given)
            recording = self._record(key, given)
        self._recordings.move_to_end(key)
        if recording.graph is None or recording.made is None:
            return self._forward(*given)
        for place, tensor in zip(recording.given, given, strict=True):
            place.copy_(tensor)
        recording.graph.replay()
        self.replays += 1
        _of_thread.replays += 1
        return _copied(recording.made)

    def records(self, network: torch.nn.Module) -> bool:
        """Whether it is this network's."""
        return self._network is network

    def drop(self) -> None:
        """Lets go of every recording; the next forward of a shape is eager, the one after that records it again."""
        self._recordings.clear()
        self._warm.clear()

    def _record(self, key: tuple[Any, ...], given: tuple[torch.Tensor, ...]) -> Recording[Made]:
        """Records the forward of this shape and compares its time with an eager one's. A device without the memory for
        it goes on eagerly."""
        import torch

        self._recordings.pop(key, None)
        same = [known for known in self._recordings if known[0] == key[0]]
        for known in same[: max(0, len(same) - MOST_SHAPES + 1)]:
            del self._recordings[known]
        places = tuple(tensor.clone() for tensor in given)
        eager_ms = _milliseconds(lambda: self._forward(*places))
        # As the recording itself begins: what is reserved after it, and was not before, is its own.
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved(self._device)
        try:
            graph = torch.cuda.CUDAGraph()
            # Other threads may wait for the device meanwhile, which a capture of the usual mode forbids them.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                made = self._forward(*places)
            self.captures += 1
            _of_thread.captures += 1
            replay_ms = _milliseconds(graph.replay)
            pays = replay_ms <= WORTH * eager_ms
        except torch.OutOfMemoryError:
            graph, made, pays = None, None, False
        if not pays:
            graph, made, places = None, None, ()
        held = max(0, torch.cuda.memory_reserved(self._device) - before) if pays else 0
        weights = (*self._network.parameters(), *self._network.buffers()) if pays else ()
        recording = Recording(graph, places, made, weights, _pointers(weights), held)
        self._recordings[key] = recording
        return recording


class _OfThread(threading.local):
    captures = 0
    replays = 0


_of_thread = _OfThread()

# Whether networks are replayed at all; a measurement turns it off to compare.
enabled = True

_all: weakref.WeakSet[Replayed[Any]] = weakref.WeakSet()
# Networks whose weights are not all on the device: a recording would read what is elsewhere by then.
_eager: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()
# Networks that draw in the class `fast` now, with other kernels.
_another: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()


def drop_all() -> int:
    """Lets go of every recording of every network; returns how many bytes they held."""
    held = held_bytes()
    for network in list(_all):
        network.drop()
    return held


def drop(network: torch.nn.Module) -> None:
    """Lets go of the recordings of one network, which is given other weights."""
    for replayed in list(_all):
        if replayed.records(network):
            replayed.drop()


def replay(network: torch.nn.Module, is_replayed: bool) -> None:
    """Whether the forwards of a network may be recorded."""
    (_eager.discard if is_replayed else _eager.add)(network)


@contextlib.contextmanager
def eagerly(network: torch.nn.Module) -> Generator[None]:
    """Within it the forwards of a network are not recorded, nor replayed: more runs in them than kernels."""
    was_eager = network in _eager
    _eager.add(network)
    try:
        yield
    finally:
        if not was_eager:
            _eager.discard(network)


@contextlib.contextmanager
def another(network: torch.nn.Module) -> Generator[None]:
    """Within it the network computes the same with other kernels, which have recordings of their own."""
    _another.add(network)
    try:
        yield
    finally:
        _another.discard(network)


def held_bytes() -> int:
    """Device memory of all recordings."""
    return sum(network.bytes for network in list(_all))


def counts() -> tuple[int, int]:
    """(captures, replays) of this thread so far."""
    return _of_thread.captures, _of_thread.replays


def _stream(device: torch.device) -> int:
    import torch

    return torch.cuda.current_stream(device).cuda_stream


def _is_learning() -> bool:
    import torch

    return torch.is_grad_enabled()


def _copied(made: Any) -> Any:
    return tuple(tensor.clone() for tensor in made) if isinstance(made, tuple) else made.clone()


def _pointers(tensors: tuple[torch.Tensor, ...]) -> tuple[int, ...]:
    return tuple(tensor.data_ptr() for tensor in tensors)


def _milliseconds(work: Callable[[], Any]) -> float:
    import torch

    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)
