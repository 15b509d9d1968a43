"""Parts of a diffusers folder, loaded alike for every family: offline, from safetensors only, whole or not at all."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from darkroom.errors import DarkroomError
from darkroom.families.weights import as_one_variant


class Pretrained(Protocol):
    """A class of diffusers or transformers that makes a `torch.nn.Module` from a folder."""

    def from_pretrained(self, folder: str, **options: Any) -> Any: ...


def load_network(kind: Pretrained, folder: str, stem: str, device: torch.device, **options: Any) -> Any:
    """A network in evaluation mode, its weights in memory of their own on `device`.

    `stem`: the name of its weights file without `.safetensors`. Raises `model.corrupt` when a file or a tensor is
    missing.
    """
    options |= {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
    with as_one_variant(folder, stem) as place:
        network, report = kind.from_pretrained(place, **options)
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
