"""Models on the device: loaded from a diffusers folder on disk, offline, from safetensors only."""

import json
import os
import time

from darkroom import protocol
from darkroom.errors import DarkroomError
from darkroom.tools import inside

PARTS = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")
# Resident at a time; the one used longest ago goes first.
MOST_RESIDENT = 2


class Model:
    """One resident model. `scale`: pixels of a latent cell's side. Its weights never change after loading."""

    def __init__(self, parts, dtype):
        self.unet, self.vae, self.text_encoder, self.tokenizer, self.scheduler_config = parts
        self.dtype = dtype
        self.scale = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.bytes = sum(
            parameter.numel() * parameter.element_size()
            for module in (self.unet, self.vae, self.text_encoder)
            for parameter in module.parameters()
        )


class Models:
    """Resident models by id and body hash, in order of use. `roots`: folders that models may lie in."""

    def __init__(self, device, roots):
        self.device = device
        self.roots = roots
        self._resident = {}

    def ids(self):
        return [model_id for model_id, _ in list(self._resident)]

    def get(self, reference, tools):
        """(model, seconds its load took: 0 when it was resident). `reference`: {id, path, body_hash}."""
        key = (reference["id"], reference["body_hash"])
        if key in self._resident:
            self._resident[key] = self._resident.pop(key)
            return self._resident[key], 0.0
        started = time.monotonic()
        folder = self._checked(reference["path"])
        while len(self._resident) >= MOST_RESIDENT:
            self._resident.pop(next(iter(self._resident)))
        tools.progress("load")
        model = self._load(folder, tools)
        self._resident[key] = model
        return model, time.monotonic() - started

    def clear(self):
        self._resident.clear()

    def _checked(self, path):
        """The real folder. Raises `worker.path_refused` when it, or a file the load would read, lies outside
        the roots.
        """
        folder = inside(path, self.roots)
        if folder is None:
            raise DarkroomError("worker.path_refused", f"{path} is in no model folder", field="model.path")
        for part in PARTS:
            if not os.path.isdir(os.path.join(folder, part)):
                raise DarkroomError("model.corrupt", f"{folder} has no {part}/", field="model.path")
            for name in os.listdir(os.path.join(folder, part)):
                file = os.path.join(folder, part, name)
                if inside(file, self.roots) is None:
                    raise DarkroomError(
                        "worker.path_refused", f"{file} leads out of the model folders", field="model.path"
                    )
        return folder

    def _load(self, folder, tools):
        from safetensors import SafetensorError

        try:
            return self._parts(folder, tools)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
            if is_out_of_memory(error) or is_device_lost(error):
                raise
            raise DarkroomError("model.load_failed", f"{folder}: {error}", field="model.path") from error

    def _parts(self, folder, tools):
        import torch
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTokenizer

        dtype = torch.float32 if self.device.type == "cpu" else torch.float16

        def diffusers_part(kind, part, as_type):
            module = kind.from_pretrained(
                os.path.join(folder, part),
                torch_dtype=as_type,
                local_files_only=True,
                use_safetensors=True,
                # Mapped weights would follow the file when somebody writes to it.
                disable_mmap=True,
                variant=_variant(os.path.join(folder, part), "diffusion_pytorch_model"),
            )
            tools.advance()
            return module.to(self.device).eval()

        unet = diffusers_part(UNet2DConditionModel, "unet", dtype)
        vae = diffusers_part(AutoencoderKL, "vae", torch.float32)
        text_folder = os.path.join(folder, "text_encoder")
        text_encoder, report = CLIPTextModel.from_pretrained(
            text_folder,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            attn_implementation="sdpa",
            variant=_variant(text_folder, "model"),
            output_loading_info=True,
        )
        if report["missing_keys"]:
            raise DarkroomError("model.corrupt", f"{text_folder} lacks {sorted(report['missing_keys'])[:3]}")
        for parameter in text_encoder.parameters():
            parameter.data = parameter.data.clone()
        tools.advance()
        tokenizer = CLIPTokenizer.from_pretrained(os.path.join(folder, "tokenizer"), local_files_only=True)
        with open(os.path.join(folder, "scheduler", "scheduler_config.json"), encoding="utf-8") as file:
            scheduler_config = json.load(file)
        parts = (unet, vae, text_encoder.to(self.device).eval(), tokenizer, scheduler_config)
        return Model(parts, dtype)


def ensure(tools):
    """model.ensure: makes a model resident ahead of the work."""
    reference = tools.data["model"]
    model, seconds = tools.place.models.get(reference, tools)
    output = {"id": reference["id"], "resident": seconds == 0, "bytes": model.bytes, "seconds": seconds}
    return protocol.result(output)


def is_out_of_memory(error):
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def is_device_lost(error):
    """A CUDA error that every later call of this process would meet again."""
    import torch

    if isinstance(error, torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and (
        "CUDA error" in str(error) or "CUDNN_STATUS_EXECUTION_FAILED" in str(error)
    )


def _variant(folder, stem):
    """`fp16` for a folder that holds its weights under that name only."""
    names = os.listdir(folder)
    plain = any(
        name.startswith(stem) and ".fp16." not in name and name.endswith(".safetensors") for name in names
    )
    return "fp16" if not plain and any(name.startswith(f"{stem}.fp16") for name in names) else None
