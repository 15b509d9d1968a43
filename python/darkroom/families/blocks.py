"""A network of which only the blocks that compute are on the device: the others wait in RAM, and come one ahead.

The blocks of a network are the members of its lists of modules, such as a transformer's layers; a member that holds
more than a sixteenth of the network, as a stage of a UNet does, counts as its own lists' members. All else stays: it
is small, and parts of it are used without being called. What computes are the same kernels on the same numbers, so no
bit moves. The scheme is that of diffusers' group offloading (diffusers/hooks/group_offloading.py), but with two places
on the device that are taken in turn, so that what it takes of the device is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

SHARE = 16
# Tensors begin at a multiple of this, as torch's allocator has them: which kernels run may follow from it.
ALIGNMENT = 512


class Weight(Protocol):
    """`shell._Weight`, as far as blocks use it."""

    shape: torch.Size
    dtype: torch.dtype
    bytes: int
    places: list[tuple[torch.nn.Module, str]]
    kept: torch.Tensor | None
    """In RAM, while its network is in blocks."""

    def put(self, tensor: torch.Tensor) -> None: ...

    def clear(self) -> None: ...


@dataclass
class Block:
    """Weights that come and go together: bytes `begin` to `end` in RAM."""

    module: torch.nn.Module
    weights: list[tuple[Weight, int]] = field(default_factory=list)
    """Each with where it begins within the block."""
    begin: int = 0
    end: int = 0


@dataclass
class Slot:
    """A place on the device for one block."""

    memory: torch.Tensor
    there: Any
    """Event: its block has come."""
    free: Any
    """Event: what computed with it has ended."""
    block: Block | None = None


class Blocks:
    """`weights`: all of a network's. Which of them stay is `resident`; the others come by block once `keep` has them
    in RAM."""

    def __init__(self, network: torch.nn.Module, weights: Sequence[Weight], device: torch.device):
        self._device = device
        self._blocks = [Block(module) for module in modules_of(network)]
        owner = {id(module): block for block in self._blocks for module in block.module.modules()}
        self.resident: list[Weight] = []
        at = 0
        for weight in weights:
            owners = {id(owner.get(id(module))): owner.get(id(module)) for module, _ in weight.places}
            # One that several blocks share, or a block and the rest, stays.
            [first, *more] = owners.values()
            if first is None or more:
                self.resident.append(weight)
            else:
                first.weights.append((weight, 0))
        for block in self._blocks:
            block.begin = at
            for index, (weight, _) in enumerate(block.weights):
                block.weights[index] = (weight, at - block.begin)
                at += -(-weight.bytes // ALIGNMENT) * ALIGNMENT
            block.end = at
        self._blocks = [block for block in self._blocks if block.weights]
        self._host: torch.Tensor | None = None
        self._registered = False
        self._slots: list[Slot] = []
        self._stream: Any = None
        # Which block computed after which: the next one comes while this one computes.
        self._follows: dict[int, Block] = {}
        self._last: Block | None = None
        self._hooks: list[Any] = []

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._blocks)

    @property
    def bytes(self) -> int:
        """What it takes of the device while the network is in blocks. A CPU has its device's memory in RAM: all."""
        held = sum(weight.bytes for weight in self.resident)
        if self._device.type == "cpu":
            return held + (self._blocks[-1].end if self._blocks else 0)
        return held + 2 * max((block.end - block.begin for block in self._blocks), default=0)

    def keep(self, tensor_of: Callable[[Weight], torch.Tensor]) -> None:
        """Takes the weights of all blocks into RAM; the network may compute from then on, once its resident ones are
        there. `tensor_of`: gives a weight in its own type, in RAM."""
        host = torch.empty(self._blocks[-1].end if self._blocks else 0, dtype=torch.uint8)
        for block in self._blocks:
            for weight, begin in block.weights:
                weight.kept = _view(host, block.begin + begin, weight)
                weight.kept.copy_(tensor_of(weight))
        self._host = host
        if self._device.type == "cuda":
            # From memory that the driver knows a copy runs beside what computes.
            self._registered = int(_runtime().cudaHostRegister(host.data_ptr(), host.numel(), 0)) == 0
            self._stream = torch.cuda.Stream(self._device)
            largest = max(block.end - block.begin for block in self._blocks)
            for _ in range(2):
                slot = Slot(torch.empty(largest, dtype=torch.uint8, device=self._device), torch.cuda.Event(), torch.cuda.Event())
                slot.free.record()
                self._slots.append(slot)
        for block in self._blocks:
            self._hooks.append(block.module.register_forward_pre_hook(self._before(block)))
            self._hooks.append(block.module.register_forward_hook(self._after(block), always_call=True))

    def changed(self) -> None:
        """Weights in RAM have changed: what came onto the device before is theirs no longer."""
        for slot in self._slots:
            slot.block = None

    def drop(self) -> None:
        """Lets go of RAM and device; nothing is to be done for a network that is not in blocks."""
        if self._host is None:
            return
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        for block in self._blocks:
            _clear(block)
            for weight, _ in block.weights:
                weight.kept = None
        if self._registered and self._host is not None:
            torch.cuda.synchronize(self._device)
            _runtime().cudaHostUnregister(self._host.data_ptr())
        self._registered, self._host, self._stream, self._last = False, None, None, None
        self._slots.clear()
        self._follows.clear()

    def _before(self, block: Block) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            with torch.inference_mode(False):
                self._come(block)

        return hook

    def _after(self, block: Block) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            slot = next((slot for slot in self._slots if slot.block is block), None)
            if slot is not None:
                slot.free.record(torch.cuda.current_stream(self._device))
            with torch.inference_mode(False):
                _clear(block)

        return hook

    def _come(self, block: Block) -> None:
        if self._last is not None:
            self._follows[id(self._last)] = block
        self._last = block
        memory, begin = self._host, block.begin
        if self._slots:
            own = self._slot_of(block)
            torch.cuda.current_stream(self._device).wait_event(own.there)
            memory, begin = own.memory, 0
        if memory is None:
            raise RuntimeError("a block computes whose weights were let go of")
        for weight, at in block.weights:
            weight.put(_view(memory, begin + at, weight))
        following = self._follows.get(id(block))
        if self._slots and following is not None:
            self._slot_of(following, keep=block)

    def _slot_of(self, block: Block, keep: Block | None = None) -> Slot:
        """Where a block is; it comes when it is in none, in place of another one than `keep`."""
        found = next((slot for slot in self._slots if slot.block is block), None)
        if found is not None or self._host is None:
            return found or self._slots[0]
        slot = next(slot for slot in self._slots if slot.block is None or slot.block is not (keep or self._last))
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(slot.free)
            slot.memory[: block.end - block.begin].copy_(self._host[block.begin : block.end], non_blocking=True)
            slot.there.record(self._stream)
        slot.block = block
        return slot


def modules_of(network: torch.nn.Module) -> list[torch.nn.Module]:
    """The modules that are the blocks of a network, none within another."""
    limit = _bytes(network) / SHARE
    found: list[torch.nn.Module] = []

    def search(module: torch.nn.Module) -> None:
        for child in module.children():
            for member in child if isinstance(child, torch.nn.ModuleList) else ():
                is_large = _bytes(member) > limit and any(isinstance(each, torch.nn.ModuleList) for each in member.modules())
                if is_large:
                    search(member)
                else:
                    found.append(member)
            if not isinstance(child, torch.nn.ModuleList):
                search(child)

    search(network)
    return list({id(module): module for module in found}.values())


def _runtime() -> Any:
    """CUDA's own library, as torch has loaded it."""
    return torch.cuda.cudart()


def _bytes(module: torch.nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())


def _view(memory: torch.Tensor, begin: int, weight: Weight) -> torch.Tensor:
    return memory[begin : begin + weight.bytes].view(weight.dtype).view(weight.shape)


def _clear(block: Block) -> None:
    for weight, _ in block.weights:
        weight.clear()
