"""Models on the device: loaded from a diffusers folder on disk, offline, from safetensors only."""

import json
import os
import time

from darkroom import exactness, protocol
from darkroom.errors import DarkroomError
from darkroom.tools import inside

PARTS = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")
# Resident at a time; the one used longest ago goes first.
MOST_RESIDENT = 2


class Model:
    """One resident model. `scale`: pixels of a latent cell's side. Its weights never change after loading."""

    def __init__(self, unet, vae, text_encoder, tokenizer, scheduler_config):
        self.unet, self.vae, self.text_encoder = unet, vae, text_encoder
        self.tokenizer, self.scheduler_config = tokenizer, scheduler_config
        self.dtype = unet.dtype
        self.scale = 2 ** (len(vae.config.block_out_channels) - 1)
        self.bytes = sum(
            parameter.numel() * parameter.element_size() for module in (unet, vae, text_encoder) for parameter in module.parameters()
        )


class Models:
    """Resident models by id and body hash, in order of use. `roots`: folders that models may lie in."""

    def __init__(self, device, roots):
        self.device = device
        self.roots = roots
        self._resident = {}
        self._used_at = {}

    def describe(self, wanted):
        """The resident models, the one used longest ago first. `wanted`: (id, body hash) of those that requests use or wait for."""
        now = time.monotonic()
        return [
            {
                "id": key[0],
                "bytes": model.bytes,
                "is_idle": key not in wanted,
                "used_s": round(max(0.0, now - self._used_at.get(key, now)), 3),
            }
            for key, model in list(self._resident.items())
        ]

    def drop(self, most, keep):
        """Lets go of up to `most` models but those in `keep`, the one used longest ago first; returns their ids."""
        gone = [key for key in self._resident if key not in keep][:most]
        for key in gone:
            self._forget(key)
        return [model_id for model_id, _ in gone]

    def _forget(self, key):
        self._resident.pop(key)
        self._used_at.pop(key, None)

    def get(self, reference, tools):
        """(model, seconds its load took: 0 when it was resident). `reference`: {id, path, body_hash}.

        Raises `worker.path_refused`, `model.corrupt` and `model.load_failed`.
        """
        key = (reference["id"], reference["body_hash"])
        if key in self._resident:
            self._resident[key] = self._resident.pop(key)
            self._used_at[key] = time.monotonic()
            return self._resident[key], 0.0
        started = time.monotonic()
        tools.progress("load")
        folder = inside(reference["path"], self.roots)
        if folder is None:
            raise DarkroomError("worker.path_refused", f"{reference['path']} is in no model folder", field="model.path")
        while len(self._resident) >= MOST_RESIDENT:
            self._forget(next(iter(self._resident)))
        try:
            self._check_files(folder)
            model = self._load(folder, tools)
        except DarkroomError:
            raise
        # Whatever a broken folder makes the libraries throw, but for what is the device's fault.
        except Exception as error:
            if is_out_of_memory(error) or is_device_lost(error):
                raise
            raise DarkroomError("model.load_failed", f"{folder}: {type(error).__name__}: {error}", field="model.path") from error
        self._resident[key], self._used_at[key] = model, time.monotonic()
        return model, self._used_at[key] - started

    def clear(self):
        self._resident.clear()
        self._used_at.clear()

    def _check_files(self, folder):
        """Nothing that the load would read may lie outside the roots."""
        for part in PARTS:
            if not os.path.isdir(os.path.join(folder, part)):
                raise DarkroomError("model.corrupt", f"{folder} has no {part}/", field="model.path")
            for name in os.listdir(os.path.join(folder, part)):
                file = os.path.join(folder, part, name)
                if inside(file, self.roots) is None:
                    raise DarkroomError("worker.path_refused", f"{file} leads out of the model folders", field="model.path")

    def _load(self, folder, tools):
        import torch
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTokenizer

        def network(kind, part, stem, **options):
            here = os.path.join(folder, part)
            options |= {"local_files_only": True, "use_safetensors": True, "variant": _variant(here, stem), "output_loading_info": True}
            module, report = kind.from_pretrained(here, **options)
            # The libraries would fill them with random numbers.
            if report["missing_keys"]:
                raise DarkroomError("model.corrupt", f"{here} lacks {sorted(report['missing_keys'])[:3]}", field="model.path")
            # Mapped weights would follow the file when somebody writes to it.
            for tensor in (*module.parameters(), *module.buffers()):
                tensor.data = tensor.data.to(self.device, copy=True)
            tools.advance()
            return module.eval()

        dtype = getattr(torch, exactness.settings(self.device)["dtype"])
        unet = network(UNet2DConditionModel, "unet", "diffusion_pytorch_model", torch_dtype=dtype)
        vae = network(AutoencoderKL, "vae", "diffusion_pytorch_model", torch_dtype=torch.float32)
        text_encoder = network(CLIPTextModel, "text_encoder", "model", dtype=torch.float32, attn_implementation="sdpa")
        tokenizer = CLIPTokenizer.from_pretrained(os.path.join(folder, "tokenizer"), local_files_only=True)
        with open(os.path.join(folder, "scheduler", "scheduler_config.json"), encoding="utf-8") as file:
            scheduler_config = json.load(file)
        _check_fit(folder, unet.config, vae.config, text_encoder.config)
        return Model(unet, vae, text_encoder, tokenizer, scheduler_config)


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
    said = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in said)


def is_device_lost(error):
    """A CUDA error that every later call of this process would meet again."""
    import torch

    if isinstance(error, torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and ("CUDA error" in str(error) or "CUDNN_STATUS_EXECUTION_FAILED" in str(error))


def _variant(folder, stem):
    """`fp16` for a folder that holds its weights under that name only."""
    names = os.listdir(folder)
    plain = any(name.startswith(stem) and ".fp16." not in name and name.endswith(".safetensors") for name in names)
    return "fp16" if not plain and any(name.startswith(f"{stem}.fp16") for name in names) else None


def _check_fit(folder, unet, vae, text_encoder):
    """The loop draws text to image with one text encoder, as Stable Diffusion 1 and 2 do. Other layouts are refused here, not mid-way."""
    wanted = {
        "cross_attention_dim": text_encoder.hidden_size,
        "in_channels": vae.latent_channels,
        "out_channels": vae.latent_channels,
        "addition_embed_type": None,
        "class_embed_type": None,
        "num_class_embeds": None,
    }
    for name, value in wanted.items():
        if unet[name] != value:
            raise DarkroomError("model.corrupt", f"{folder}: the UNet's {name} is {unet[name]}, not {value}", field="model.path")
