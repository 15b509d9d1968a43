"""Parts of a diffusers folder, loaded alike for every family: offline, from safetensors only, whole or not at all."""

from __future__ import annotations

import json
import os
from typing import Any, Protocol

import torch

from darkroom.errors import DarkroomError


class Pretrained(Protocol):
    """A class of diffusers or transformers that makes a `torch.nn.Module` from a folder."""

    def from_pretrained(self, folder: str, **options: Any) -> Any: ...


def load_network(kind: Pretrained, folder: str, stem: str, device: torch.device, **options: Any) -> Any:
    """A network in evaluation mode, its weights in memory of their own on `device`.

    `stem`: the name of its weights file without `.safetensors`. Raises `model.corrupt` when a tensor is missing.
    """
    options |= {"local_files_only": True, "use_safetensors": True, "variant": _variant(folder, stem), "output_loading_info": True}
    network, report = kind.from_pretrained(folder, **options)
    # The libraries would fill them with random numbers.
    if report["missing_keys"]:
        raise DarkroomError("model.corrupt", f"{folder} lacks {sorted(report['missing_keys'])[:3]}", field="model.path")
    # Mapped weights would follow the file when somebody writes to it.
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data = tensor.data.to(device, copy=True)
    return network.eval()


def weight_bytes(*networks: torch.nn.Module) -> int:
    """Bytes of the parameters of these networks."""
    return sum(parameter.numel() * parameter.element_size() for network in networks for parameter in network.parameters())


def load_json(*path: str) -> Any:
    """A JSON file. Raises OSError and ValueError."""
    with open(os.path.join(*path), encoding="utf-8") as file:
        return json.load(file)


def _variant(folder: str, stem: str) -> str | None:
    """`fp16` for a folder that holds its weights under that name only."""
    names = os.listdir(folder)
    plain = any(name.startswith(stem) and ".fp16." not in name and name.endswith(".safetensors") for name in names)
    return "fp16" if not plain and any(name.startswith(f"{stem}.fp16") for name in names) else None
