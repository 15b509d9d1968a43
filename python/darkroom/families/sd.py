"""Stable Diffusion 1 and 2: latent diffusion with a UNet, one CLIP text encoder and a KL autoencoder.

Rombach, Blattmann, Lorenz, Esser and Ommer 2022, "High-Resolution Image Synthesis with Latent Diffusion Models", arXiv
2112.10752.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

from darkroom import exactness
from darkroom.errors import DarkroomError
from darkroom.families import Conditioning
from darkroom.families.clip_text import ClipTokenizer
from darkroom.families.parts import load_network, weight_bytes
from darkroom.schedule import Schedule
from darkroom.tools import Tools

WEIGHTS = "diffusion_pytorch_model"


class StableDiffusion:
    """A `Family`. Encoded texts: `positive` and `negative`, [1, tokens, width] fp32. Latents: 4 channels, 8 pixels a
    cell in the usual models. Text encoder and autoencoder compute in fp32, the UNet in the dtype of the device's
    settings.
    """

    parts: ClassVar[Sequence[str]] = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")

    def __init__(self, unet: Any, vae: Any, text_encoder: Any, tokenizer: ClipTokenizer, schedule: Schedule, device: torch.device):
        self.bytes = weight_bytes(unet, vae, text_encoder)
        self.schedule = schedule
        self._unet, self._vae, self._text_encoder, self._tokenizer = unet, vae, text_encoder, tokenizer
        self._device = device
        # Pixels of a latent cell's side.
        self._scale = 2 ** (len(vae.config.block_out_channels) - 1)

    @classmethod
    def load(cls, folder: str, device: torch.device, tools: Tools) -> Self:
        """As `Family.load`."""

        def network(kind: Any, part: str, stem: str, **options: Any) -> Any:
            loaded = load_network(kind, os.path.join(folder, part), stem, device, **options)
            tools.advance()
            return loaded

        unet = network(UNet2DConditionModel, "unet", WEIGHTS, torch_dtype=getattr(torch, exactness.settings(device)["dtype"]))
        vae = network(AutoencoderKL, "vae", WEIGHTS, torch_dtype=torch.float32)
        text_encoder = network(CLIPTextModel, "text_encoder", "model", dtype=torch.float32, attn_implementation="sdpa")
        _check_fit(folder, unet.config, vae.config, text_encoder.config)
        tokenizer = ClipTokenizer(os.path.join(folder, "tokenizer"), text_encoder.config)
        schedule = Schedule(os.path.join(folder, "scheduler", "scheduler_config.json"), vae.config.latent_channels)
        return cls(unet, vae, text_encoder, tokenizer, schedule, device)

    def encode(self, prompt: str, negative_prompt: str, tools: Tools) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """As `Family.encode`: the text encoder's last hidden state, padded to its window."""
        made: dict[str, torch.Tensor] = {}
        heard: dict[str, Any] = {}
        for name, field, text in (("positive", "prompt", prompt), ("negative", "negative_prompt", negative_prompt)):
            tokens, heard[field] = self._tokenizer.read(text)
            hidden = self._text_encoder(tokens.to(self._device)).last_hidden_state
            made[name] = hidden.float().cpu()
            tools.hold([hidden, made[name]])
            tools.advance()
        return made, heard

    def condition(self, encoded: Mapping[str, torch.Tensor], guidance: float) -> Conditioning:
        """As `Family.condition`: `rows`, [2, tokens, width] negative and positive, or [1, tokens, width] the positive
        alone."""
        names = ["positive"] if guidance <= 1 else ["negative", "positive"]
        rows = torch.cat([encoded[name] for name in names]).to(self._device, self._unet.dtype)
        return Conditioning({"rows": rows}, guidance)

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int, int]:
        """As `Family.latent_shape`."""
        return (1, self._vae.config.latent_channels, height // self._scale, width // self._scale)

    def predict(self, latents: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """As `Family.predict`: classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598) over both rows in one
        pass."""
        rows = conditioning.tensors["rows"]
        # The memory layout decides which kernel runs: the same one after a resume.
        given = torch.cat([latents] * len(rows)).contiguous().to(self._unet.dtype)
        predicted = self._unet(given, t, encoder_hidden_states=rows, return_dict=False)[0].float()
        if len(rows) == 1:
            return predicted
        without, with_prompt = predicted[:1], predicted[1:]
        return without + conditioning.guidance * (with_prompt - without)

    def decode(self, latents: torch.Tensor, tools: Tools) -> torch.Tensor:
        """As `Family.decode`."""
        config = self._vae.config
        scaled = latents.to(self._device, torch.float32) / config.scaling_factor + (config.shift_factor or 0.0)
        tools.hold([latents, scaled])
        return self._vae.decode(scaled, return_dict=False)[0][0]


def _check_fit(folder: str, unet: Any, vae: Any, text_encoder: Any) -> None:
    """Configurations of the parts. Other layouts than this family's are refused here, not in the middle of a picture.

    Raises `model.corrupt`.
    """
    expected = {
        "cross_attention_dim": text_encoder.hidden_size,
        "in_channels": vae.latent_channels,
        "out_channels": vae.latent_channels,
        "addition_embed_type": None,
        "class_embed_type": None,
        "num_class_embeds": None,
    }
    for name, value in expected.items():
        if unet[name] != value:
            raise DarkroomError("model.corrupt", f"{folder}: the UNet's {name} is {unet[name]}, not {value}", field="model.path")
