"""A network apart from its weights: what it computes is made once, from its configuration; its weights come and go."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from diffusers import ModelMixin
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming

from darkroom import graphs
from darkroom.adapter_keys import DENOISER, TEXT_ENCODERS, modules_of
from darkroom.errors import DarkroomError
from darkroom.families.blocks import Blocks
from darkroom.families.suited import layout
from darkroom.patch import Patch, Patched

Read = Callable[[torch.dtype | None, torch.device], Mapping[str, torch.Tensor]]
"""Reads all weights of a network anew, in memory of their own on a device: floating ones in a dtype, or as stored."""


class Shell:
    """`kind`: a class of diffusers or transformers, or what says likewise how it is made; `folder` holds its
    `config.json`; `where`: its weights, as messages name them, which are on no device until `fill`.

    Raises what the libraries raise at a configuration that they cannot read.
    """

    def __init__(self, kind: Any, folder: str, part: str, dtype: torch.dtype, device: torch.device, read: Read, where: str):
        self.part = part
        self.network = _without_weights(kind, folder, dtype)
        self.is_filled = False
        self.used_at = time.monotonic()
        self._where, self._device, self._read = where, device, read
        full = _kept_in_full(self.network, dtype)
        # What stays in full precision must not go through half of it.
        self._read_dtype = None if full else dtype
        self._weights = _weights(self.network, lambda name: torch.float32 if full.intersection(name.split(".")) else dtype)
        self._bytes = sum(weight.bytes for weight in self._weights)
        # Names of the weights in their files, in order; found when they are read first.
        self._names: list[str] | None = None
        # What adapters change of it, and its weights while they are there.
        self._patch = Patch()
        self._patched: Patched | None = None
        self._buffered = [module for module in self.network.modules() if module._buffers]
        self._blocks = Blocks(self.network, self._weights, device)
        self.is_in_blocks = False

    @property
    def bytes(self) -> int:
        """Of its weights, whether they are there or not."""
        return self._bytes

    @property
    def held(self) -> int:
        """Bytes that its weights take of the device now."""
        if not self.is_filled:
            return 0
        return self._blocks.bytes if self.is_in_blocks else self._bytes

    @property
    def patched_by(self) -> tuple[tuple[str, float], ...]:
        """Name and weight of each that its weights are changed by, in order."""
        return self._patch.adapters

    @property
    def has_blocks(self) -> bool:
        """Whether it can be there block by block."""
        return bool(self._blocks)

    @cached_property
    def shapes(self) -> dict[str, torch.Size]:
        """Of its weights, by each of their names."""
        return {name: weight.shape for weight in self._weights for name in weight.names}

    @cached_property
    def modules(self) -> dict[str, str]:
        """As `adapter_keys.modules_of`."""
        part = self.part if self.part in TEXT_ENCODERS else DENOISER
        return modules_of(part, [name for name, _ in self.network.named_modules() if name], self.network.config)

    def patch(self, patch: Patch) -> None:
        """Has its weights changed by this and by nothing else, from now on: those that come later too. Raises as
        `Patched.apply`; then they are unchanged."""
        self._patch = patch
        if self.is_filled:
            self._apply()

    def unpatch(self) -> None:
        """As `patch` with nothing: its weights are those of its files."""
        self.patch(Patch())

    def _apply(self) -> None:
        if self._patched is None and self._patch.changes:
            self._patched = Patched({name: weight.waiting for weight in self._weights for name in weight.names}, self._device)
        if self._patched is not None:
            try:
                self._patched.apply(self._patch)
            except BaseException:
                self._patch = Patch()
                raise
            if self.is_in_blocks:
                self._blocks.changed()

    def before_use(self, act: Callable[[Shell], None]) -> None:
        """`act` is called before the network computes, as a whole or a part of it, and may fill it."""

        def hook(*_: Any) -> None:
            self.used_at = time.monotonic()
            act(self)

        # An autoencoder's `decode` calls its parts and never itself.
        for module in (self.network, *self.network.children()):
            module.register_forward_pre_hook(hook)

    def fill(self, in_blocks: bool = False) -> None:
        """Reads the weights: onto the device, or `in_blocks` into RAM, from where each block comes when it computes.
        Raises `model.corrupt` when one is missing or has another shape, and what reading raises.
        """
        self.is_in_blocks = in_blocks and self.has_blocks
        graphs.replay(self.network, not self.is_in_blocks)
        try:
            with torch.inference_mode(False):
                self._fill()
        except BaseException:
            self.strip()
            raise
        self.is_filled = True
        self._apply()

    def _fill(self) -> None:
        given = dict(self._read(self._read_dtype, torch.device("cpu") if self.is_in_blocks else self._device))
        if self._names is None:
            today = _names_today(self.network, given)
            found = [next((today[name] for name in weight.names if name in today), None) for weight in self._weights]
            missing = sorted(weight.names[0] for weight, name in zip(self._weights, found, strict=True) if name is None)
            # The libraries would fill them with random numbers.
            if missing:
                more = f"{missing[:3]}, of {len(self._weights)} tensors that its configuration speaks of"
                raise DarkroomError("model.corrupt", f"{self._where} lacks {more}", field="model.path")
            self._names = [name for name in found if name is not None]
        for weight, name in zip(self._weights, self._names, strict=True):
            if given[name].shape != weight.shape:
                found, wanted = list(given[name].shape), list(weight.shape)
                message = f"{self._where}: {weight.names[0]} is {found}, by its configuration {wanted}"
                raise DarkroomError("model.corrupt", message, field="model.path")
        names = {id(weight): name for weight, name in zip(self._weights, self._names, strict=True)}
        for weight in self._blocks.resident if self.is_in_blocks else self._weights:
            weight.put(given[names[id(weight)]].to(self._device))
        if self.is_in_blocks:
            self._blocks.keep(lambda weight: given.pop(names[id(weight)]).to(weight.dtype))
        for module in self._buffered:
            for name, buffer in module._buffers.items():
                if buffer is not None and buffer.device != self._device and buffer.device.type != "meta":
                    module._buffers[name] = buffer.to(self._device)

    def strip(self) -> None:
        """Lets go of the weights; shapes and types stay."""
        graphs.drop(self.network)
        self._blocks.drop()
        for weight in self._weights:
            weight.clear()
        self.is_filled, self._patched = False, None


class _Weight:
    """One tensor of a network, under each of its names: tied weights have several. `places`: (module, leaf), where a
    leaf is a parameter, or a buffer that files hold."""

    def __init__(self, tensor: torch.Tensor, dtype: torch.dtype):
        self.names: list[str] = []
        self.places: list[tuple[torch.nn.Module, str]] = []
        self.kept: torch.Tensor | None = None
        self.shape = tensor.shape
        self.dtype = dtype if tensor.dtype.is_floating_point else tensor.dtype
        self.bytes = tensor.numel() * self.dtype.itemsize

    @property
    def tensor(self) -> torch.Tensor:
        """As the network computes with it."""
        module, leaf = self.places[0]
        return getattr(module, leaf)

    @property
    def waiting(self) -> torch.Tensor:
        """Where it is kept between calls: in RAM while its network is in blocks."""
        return self.tensor if self.kept is None else self.kept

    def put(self, tensor: torch.Tensor) -> None:
        tensor = tensor.to(self.dtype)
        # As convolutions read them; torch would turn them over at each call.
        tensor = tensor.contiguous(memory_format=layout(tensor.device) if tensor.dim() == 4 else torch.contiguous_format)
        for module, leaf in self.places:
            if leaf in module._parameters:
                module._parameters[leaf] = torch.nn.Parameter(tensor, requires_grad=False)
            else:
                module._buffers[leaf] = tensor

    def clear(self) -> None:
        self.kept = None
        self.put(torch.empty(self.shape, dtype=self.dtype, device="meta"))


def _weights(network: torch.nn.Module, dtype_of: Callable[[str], torch.dtype]) -> list[_Weight]:
    found: dict[int, _Weight] = {}
    for path, module in network.named_modules(remove_duplicate=False):
        buffers = {name: held for name, held in module._buffers.items() if name not in module._non_persistent_buffers_set}
        for leaf, tensor in {**module._parameters, **buffers}.items():
            if tensor is None:
                continue
            name = f"{path}.{leaf}" if path else leaf
            weight = found.setdefault(id(tensor), _Weight(tensor, dtype_of(name)))
            weight.names.append(name)
            weight.places.append((module, leaf))
    return list(found.values())


def _without_weights(kind: Any, folder: str, dtype: torch.dtype) -> Any:
    with _no_parameters():
        if issubclass(kind, PreTrainedModel):
            kinds_config: Any = kind.config_class
            config = kinds_config.from_pretrained(folder, local_files_only=True)
            # One with a backbone leaves that to choose: not every one attends so.
            attention = {} if hasattr(config, "backbone_config") else {"attn_implementation": "sdpa"}
            network = kind._from_config(config, dtype=dtype, **attention)
        else:
            config = kind.load_config(folder, local_files_only=True)
            before = torch.get_default_dtype()
            torch.set_default_dtype(dtype)
            try:
                network = kind.from_config(config)
            finally:
                torch.set_default_dtype(before)
    return network.eval()


@contextmanager
def _no_parameters() -> Generator[None]:
    """Modules that are made here have parameters without memory; their buffers, which they compute, have theirs."""
    # Any: its method is replaced.
    modules: Any = torch.nn.Module
    register = modules.register_parameter

    def register_empty(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter | None) -> None:
        register(module, name, parameter)
        # One that is tied is without memory already, and stays the same.
        if parameter is not None and parameter.device.type != "meta":
            module._parameters[name] = torch.nn.Parameter(parameter.to("meta"), requires_grad=False)

    modules.register_parameter = register_empty
    try:
        yield
    finally:
        modules.register_parameter = register


def _names_today(network: Any, given: Iterable[str]) -> dict[str, str]:
    """Names that the network has today → names in its files, which keep those of the version that wrote them."""
    if issubclass(type(network), ModelMixin):
        named = {name: name for name in given}
        network._fix_state_dict_keys_on_load(named)
        return named
    # One of ours: whoever reads its file gives the tensors the network's names.
    if not isinstance(network, PreTrainedModel):
        return {name: name for name in given}
    changes = [change for change in get_model_conversion_mapping(network) if isinstance(change, WeightRenaming)]
    own, prefix = network.state_dict().keys(), f"{network.base_model_prefix}."
    named = {}
    for name in given:
        today = name
        for change in changes:
            today, _ = change.rename_source_key(today)
        # Saved as a part of a larger class, such as one with a head; or the other way about.
        if today not in own and today.removeprefix(prefix) in own:
            today = today.removeprefix(prefix)
        elif today not in own and prefix + today in own:
            today = prefix + today
        named[today] = name
    return named


def _kept_in_full(network: Any, dtype: torch.dtype) -> set[str]:
    """Names of modules that their authors keep in fp32 whatever the rest computes in."""
    if dtype not in (torch.float16, torch.bfloat16):
        return set()
    kept = set(getattr(network, "_keep_in_fp32_modules", None) or ())
    if isinstance(network, PreTrainedModel):
        # Transformers' first list is for fp16 alone.
        kept = (kept if dtype == torch.float16 else set()) | set(getattr(network, "_keep_in_fp32_modules_strict", None) or ())
    return kept
