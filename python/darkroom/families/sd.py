"""Stable Diffusion 1 and 2: a UNet that listens to one CLIP text encoder, ViT-L in version 1 and OpenCLIP's ViT-H in 2.

Version 2 hears the layer before the last, so the encoder in its folder ends there: no number of layers is told here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from transformers import CLIPTextModel

from darkroom.families import Conditioning, long_text
from darkroom.families.clip_text import ClipTokenizer
from darkroom.families.hearing import Heard, Hearing, on_host
from darkroom.families.parts import Parts
from darkroom.families.unet import UNetFamily, check_fit, load_networks
from darkroom.schedule import Schedule
from darkroom.textual_inversion import Listener
from darkroom.tools import Tools

# The activation by which OpenCLIP's encoders, version 2's, are told from OpenAI's.
OPEN_CLIP = "gelu"


class StableDiffusion(UNetFamily):
    """A `Family`. Encoded texts: `positive` and `negative`, [1, tokens, width] fp32, as many tokens as all chunks have.
    Latents: 4 channels, 8 pixels a cell in the usual models.
    """

    parts: ClassVar[Sequence[str]] = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")

    def __init__(self, unet: Any, vae: Any, text_encoder: Any, tokenizer: ClipTokenizer, schedule: Schedule, device: torch.device):
        super().__init__(unet, vae, schedule, device, text_encoder)
        self._text_encoder, self._tokenizer = text_encoder, tokenizer
        self._hearing = Hearing(text_encoder, _hear, device)

    @classmethod
    def load(cls, parts: Parts, device: torch.device) -> Self:
        """As `Family.load`."""
        unet, vae = load_networks(parts, device)
        text_encoder = parts.network(CLIPTextModel, "text_encoder", torch.float32)
        fitting = {"cross_attention_dim": text_encoder.config.hidden_size, "addition_embed_type": None}
        check_fit(parts.where, unet.config, vae.config, fitting)
        tokenizer = ClipTokenizer(parts.folder("tokenizer"), text_encoder.config)
        schedule = Schedule(parts.file("scheduler", "scheduler_config.json"), vae.config.latent_channels)
        return cls(unet, vae, text_encoder, tokenizer, schedule, device)

    @property
    def listeners(self) -> list[Listener]:
        """Who may hear words of one's own."""
        return [Listener("text_encoder", self._text_encoder, self._tokenizer)]

    def encode(self, request: Mapping[str, Any], tools: Tools) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """As `Family.encode`: the text encoder's last hidden state, or that of the layer that `clip_skip` counts from
        the end, each chunk filled up to its window. Version 2's encoder ends at 2."""
        config = self._text_encoder.config
        last = _last(config)
        skip = request.get("clip_skip", last)
        long_text.check_layer(skip, last, config.num_hidden_layers + last - 1)

        def forward(tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            tools.advance()
            return self._hearing(tokens, skip)

        chunks, heard = long_text.read([self._tokenizer], request)
        syntax = request.get("prompt_syntax", "plain")
        states = {
            name: long_text.encode(own, self._tokenizer.empty, forward, syntax, self._device)[0] for name, [own] in chunks.items()
        }
        return on_host(states, tools), heard

    def condition(self, encoded: Mapping[str, torch.Tensor], request: Mapping[str, Any]) -> Conditioning:
        """As `Family.condition`: `rows`, [2, tokens, width] negative and positive, or [1, tokens, width] the positive
        alone."""
        tensors = {"rows": self._stacked(encoded, request["guidance"])}
        return Conditioning(tensors, request["guidance"], request.get("guidance_rescale", 0.0))


def _last(config: Any) -> int:
    """The `clip_skip` of an encoder's last layer."""
    return 2 if config.hidden_act == OPEN_CLIP else 1


def _hear(encoder: Any, tokens: torch.Tensor, skip: int) -> Heard:
    last = _last(encoder.config)
    output = encoder(tokens, output_hidden_states=skip > last)
    if skip == last:
        return output.last_hidden_state, output.pooler_output
    return encoder.final_layer_norm(output.hidden_states[last - 1 - skip]), output.pooler_output
