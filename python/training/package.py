"""From a run's state to the family's folder in the diffusers layout: half precision, with ModelSpec metadata
and a manifest.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save, save_file

from . import captions, controlnet, data, lora, models, safety, tokenizer, unet, upscaler, vae
from .diffusion import scheduler
from .run import Run

DATE = "2026-11-24"
LICENSE = "Apache-2.0"
RECOMMENDED = {"width": 128, "height": 128, "steps": 20, "guidance": 3, "sampler": "DDIM"}

MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.40.0",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def build(run: Run, folder: Path) -> None:
    """Write every network of a finished run to `folder`, which is emptied first. Raises FileNotFoundError if
    a stage is missing.
    """
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    drawing, text = unet.load(run)
    autoencoder = vae.load(run)
    steering = controlnet.load(run)
    for name, network, title in (
        ("unet", drawing, "darkroom-tiny UNet"),
        ("vae", autoencoder, "darkroom-tiny VAE"),
        ("controlnet-edge", steering, "darkroom-tiny ControlNet for edges"),
    ):
        (folder / name).mkdir()
        network.save_config(folder / name)
        _write(folder / name / "diffusion_pytorch_model.safetensors", network.state_dict(), name, title)
    _write_text_encoder(folder / "text_encoder", text)
    tokenizer.save(tokenizer.load(data.prepare_tokenizer(run)), folder / "tokenizer")
    scheduler("DDIM").save_pretrained(folder / "scheduler")
    _write_json(folder / "model_index.json", MODEL_INDEX)
    _write_loras(run, folder / "lora")
    (folder / "upscaler").mkdir()
    _write(
        folder / "upscaler" / "x2-compact.safetensors",
        upscaler.load(run).state_dict(),
        "upscaler",
        "darkroom-tiny x2 upscaler",
        resolution="any",
    )
    _write_classifier(run, folder / "safety")


def _write_text_encoder(folder: Path, text) -> None:
    # The names of Stable Diffusion 1's files, which every version of transformers reads.
    weights = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in text.state_dict().items()}
    _save_config(text.config, "CLIPTextModel", folder)
    _write(folder / "model.safetensors", weights, "text-encoder", "darkroom-tiny text encoder")


def _save_config(config, architecture: str, folder: Path) -> None:
    config.architectures = [architecture]
    # Half precision on disk only: loaded with no dtype given, it must match the networks diffusers loads as
    # float32.
    config.dtype = "float32"
    config.save_pretrained(folder)


def _write_loras(run: Run, folder: Path) -> None:
    folder.mkdir()
    for name, style in lora.STYLES.items():
        adapter = run.load(name)
        trained = {"title": style.title, "usage_hint": "weights 0 to 1; no trigger word"}
        _write(
            folder / f"{name}.safetensors",
            {f"unet.{key}": tensor for key, tensor in adapter.items()},
            "lora",
            **trained,
        )
        if name == "pastel":
            kohya = {
                "ss_base_model_version": "darkroom-tiny",
                "ss_network_module": "networks.lora",
                "ss_network_dim": str(style.rank),
                "ss_network_alpha": str(style.rank),
            }
            _write(
                folder / f"{name}-kohya.safetensors",
                kohya_layout(adapter, style.rank),
                "lora",
                extra=kohya,
                **trained,
            )


def kohya_layout(adapter: Mapping[str, torch.Tensor], alpha: int) -> dict[str, torch.Tensor]:
    """A LoRA under the names of kohya's sd-scripts, with its alpha as a tensor for each layer."""
    result = {}
    for name, tensor in adapter.items():
        module, side = name.removesuffix(".weight").rsplit(".", 1)
        prefix = "lora_unet_" + module.replace(".", "_")
        result[f"{prefix}.lora_{'down' if side == 'lora_A' else 'up'}.weight"] = tensor
        result[f"{prefix}.alpha"] = torch.tensor(float(alpha))
    return result


def _write_classifier(run: Run, folder: Path) -> None:
    network = safety.load(run)
    _save_config(network.config, "ResNetForImageClassification", folder)
    _write(
        folder / "model.safetensors",
        network.state_dict(),
        "safety",
        "darkroom-tiny test classifier, no nudity detector",
        usage_hint=" ".join(f"{label}: {meaning}" for label, meaning in safety.MEANINGS.items()),
        resolution="64x64",
    )
    half = [0.5, 0.5, 0.5]
    _write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True,
            "resample": 2,
            "size": {"height": models.SAFETY_SIDE, "width": models.SAFETY_SIDE},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": half,
            "image_std": half,
        },
    )


def _write(
    path: Path,
    weights: Mapping[str, torch.Tensor],
    part: str,
    title: str,
    *,
    usage_hint: str = "",
    resolution: str = "128x128",
    extra: Mapping[str, str] | None = None,
) -> None:
    """Write fp16 safetensors with ModelSpec 1.0 metadata, whose hash covers the tensor bytes."""
    tensors = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).detach().cpu().contiguous() for name, tensor in weights.items()
    }
    plain = save(tensors)
    body = plain[8 + int.from_bytes(plain[:8], "little") :]
    metadata = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"darkroom-tiny-v1/{part}",
        "modelspec.implementation": "diffusers",
        "modelspec.title": title,
        "modelspec.author": "Darkroom",
        "modelspec.license": LICENSE,
        "modelspec.date": DATE,
        "modelspec.resolution": resolution,
        "modelspec.prediction_type": "v",
        "modelspec.description": "Part of a very small model family that draws flat coloured shapes, for tests.",
        "modelspec.hash_sha256": "0x" + hashlib.sha256(body).hexdigest(),
        **(extra or {}),
    }
    if usage_hint:
        metadata["modelspec.usage_hint"] = usage_hint
    save_file(tensors, path, metadata=metadata)
    # safetensors writes for its owner alone.
    path.chmod(0o644)


def manifest(folder: Path) -> dict[str, Any]:
    """What `manifest.json` holds: settings, words, parts, and size and SHA-256 of every other file."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"):
        content = path.read_bytes()
        files[path.relative_to(folder).as_posix()] = {
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    return {
        "name": "darkroom-tiny",
        "version": "1.0.0",
        "date": DATE,
        "license": LICENSE,
        "recommended": RECOMMENDED,
        "vocabulary": captions.vocabulary(),
        "parts": {
            "pipeline": ".",
            "controlnet": {"edge": "controlnet-edge"},
            "lora": {name: f"lora/{name}.safetensors" for name in ("pastel", "outline", "pastel-kohya")},
            "upscaler": {"x2": "upscaler/x2-compact.safetensors"},
            "safety": {
                "path": "safety",
                "labels": safety.MEANINGS,
                "note": "A test of the plumbing. No nudity detector.",
            },
        },
        "bytes": sum(entry["bytes"] for entry in files.values()),
        "files": files,
    }


def seal(folder: Path) -> None:
    """Write `manifest.json`, last of all."""
    _write_json(folder / "manifest.json", manifest(folder))


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
