"""The parts of a model, loaded alike for every family: offline, from safetensors only, whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Protocol

import torch
from transformers import PreTrainedModel

from darkroom.errors import DarkroomError
from darkroom.families import single_file
from darkroom.families.shell import Shell
from darkroom.families.weights import files_of
from darkroom.weight_files import WeightFiles


class Parts(Protocol):
    """What one model is made of, wherever that lies: a family asks for its parts by their names in a diffusers folder
    (`unet`, `text_encoder_2`, `scheduler`) and knows no layout."""

    where: str
    """The model, as messages name it."""

    def network(self, kind: Any, part: str, dtype: torch.dtype) -> Any:
        """A network of class `kind` in evaluation mode, its weights in memory of their own on the device; the load's
        progress moves on. Raises `model.corrupt` when a file or a tensor of it is missing."""
        ...

    def network_of_file(self, kind: Any, dtype: torch.dtype) -> Any:
        """As `network`, of a model that is one file: `kind` reads from it what the network is."""
        ...

    def tensors_of_file(self) -> dict[str, torch.Tensor]:
        """All tensors of such a file, as they are stored, on the device."""
        ...

    def file(self, part: str, name: str) -> str:
        """Path of a file that holds no weights, such as `scheduler_config.json`; it may be missing."""
        ...

    def folder(self, part: str) -> str:
        """Path of a part that is read as a whole, such as a tokenizer."""
        ...


class ModelParts:
    """`Parts` as a reference tells of them: a part that `parts` names lies where it says, its weights in the folder or
    under a prefix of one file; every other is a folder of the model. `fill` is called with each network that is asked
    for, and brings its weights."""

    def __init__(
        self,
        reference: Mapping[str, Any],
        device: torch.device,
        weights: WeightFiles,
        fill: Callable[[Shell], None],
        advance: Callable[[], None],
    ):
        self.where = reference["path"]
        self._sources = {part["name"]: part for part in reference.get("parts") or ()}
        self._device, self._weights, self._fill, self._advance = device, weights, fill, advance

    def network(self, kind: Any, part: str, dtype: torch.dtype) -> Any:
        """As `Parts.network`. Raises `model.corrupt` too when tensors of one file do not fit the part's configuration.
        """
        folder, source = self.folder(part), self._sources.get(part, {}).get("weights")
        if source:
            where = f"{source['path']} ({source['prefix'] or 'the whole file'})"
            files, prefix = [source["path"]], source["prefix"]
            read = partial(single_file.load, kind, folder, source["path"], source["prefix"], self._weights)
        else:
            where = folder
            stem = "model" if issubclass(kind, PreTrainedModel) else "diffusion_pytorch_model"
            files, prefix = files_of(folder, stem, self._weights.names), ""
            read = partial(self._read, files)
        with self._weights.reading_ahead(files, lambda name: name.startswith(prefix)):
            shell = Shell(kind, folder, part or "network", dtype, self._device, read, where)
        self._fill(shell)
        self._advance()
        return shell.network

    def network_of_file(self, kind: Any, dtype: torch.dtype) -> Any:
        """As `Parts.network_of_file`. `kind.load_config` says by which `names` its tensors stand in the file."""
        names = kind.load_config(self.where).names
        with self._weights.reading_ahead([self.where]):
            shell = Shell(kind, self.where, "network", dtype, self._device, partial(self._read_named, names), self.where)
        self._fill(shell)
        self._advance()
        return shell.network

    def tensors_of_file(self) -> dict[str, torch.Tensor]:
        """As `Parts.tensors_of_file`."""
        return self._weights.read(self.where, device=self._device)

    def _read_named(self, names: Mapping[str, str], dtype: torch.dtype | None, device: torch.device) -> dict[str, torch.Tensor]:
        found = self._weights.read(self.where, dtype, device=device)
        return {ours: found[theirs] for ours, theirs in names.items()}

    def _read(self, files: Iterable[str], dtype: torch.dtype | None, device: torch.device) -> dict[str, torch.Tensor]:
        tensors: dict[str, torch.Tensor] = {}
        for file in files:
            tensors |= self._weights.read(file, dtype, device=device)
        return tensors

    def file(self, part: str, name: str) -> str:
        """As `Parts.file`."""
        return os.path.join(self.folder(part), name)

    def folder(self, part: str) -> str:
        """As `Parts.folder`."""
        source = self._sources.get(part)
        return source["folder"] if source else os.path.join(self.where, part)


def index_of(parts: Parts) -> dict[str, Any]:
    """The pipeline's own configuration, `model_index.json`; empty where there is none. Raises `model.corrupt`."""
    path = parts.file("", "model_index.json")
    try:
        with open(path, encoding="utf-8") as file:
            return {**json.load(file)}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError, TypeError) as error:
        raise DarkroomError("model.corrupt", f"{path} cannot be read as a JSON object: {error}", field="model.path") from error


def dtype_of(network: Any) -> torch.dtype:
    """That it computes in. To be asked once: diffusers looks through all its modules each time, which takes
    milliseconds of a large one."""
    return network.dtype


def weight_bytes(*networks: torch.nn.Module) -> int:
    """Bytes of the parameters of these networks."""
    return sum(parameter.numel() * parameter.element_size() for network in networks for parameter in network.parameters())
