"""Z-Image and Z-Image-Turbo: a transformer in which text and picture are one sequence, led by Qwen3.

Z-Image Team 2025, "Z-Image: An Efficient Image Generation Foundation Model with Single-Stream Diffusion Transformer",
arXiv 2511.22699. The conditioning is that of diffusers' ZImagePipeline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy
import torch
from diffusers import AutoencoderKL, ZImageTransformer2DModel
from transformers import Qwen2Tokenizer, Qwen3Model

from darkroom import control, exactness, references
from darkroom.families import Conditioning, autoencoder, flow
from darkroom.families.latent_rgb import of_autoencoder
from darkroom.families.parts import Parts, dtype_of, weight_bytes
from darkroom.families.text_tokens import TextTokenizer, chat
from darkroom.fast import Ways
from darkroom.flow_schedule import FlowSchedule
from darkroom.tools import Tools

NAME = "Z-Image"
# Tokens of a prompt in its template.
LENGTH = 512


class ZImage(flow.FromText):
    """A `Family`. Encoded texts: `positive` and, where guidance is above 1, `negative`, [tokens, width] fp32, as many
    tokens as the text has.
    Latents: 16 channels, 8 pixels a cell; a token is 2 × 2 cells.

    `guidance` is the usual scale, where 1 is none: diffusers' pipeline counts it from 0, so 5 here is 4 there.
    """

    steered_by: Sequence[str] = control.BORROWING
    fast: ClassVar[Ways] = Ways("transformer", ("layers",), varies=True)
    parts: ClassVar[Sequence[str]] = ("scheduler", "text_encoder", "tokenizer", "transformer", "vae")

    def __init__(
        self,
        transformer: Any,
        vae: Any,
        text_encoder: Any,
        tokenizer: TextTokenizer,
        schedule: FlowSchedule,
        device: torch.device,
    ):
        self.bytes = weight_bytes(transformer, vae, text_encoder)
        self.hears = transformer.config.cap_feat_dim
        self.lends = transformer
        self.schedule = schedule
        self.latent_rgb = of_autoencoder(vae.config)
        self._transformer, self._vae, self._text_encoder, self._tokenizer = transformer, vae, text_encoder, tokenizer
        self._dtype = dtype_of(transformer)
        self._device = device
        self._scale = 2 ** (len(vae.config.block_out_channels) - 1)

    @classmethod
    def load(cls, parts: Parts, device: torch.device) -> Self:
        """As `Family.load`."""
        transformer = parts.network(ZImageTransformer2DModel, "transformer", flow.dtype(device))
        vae = parts.network(AutoencoderKL, "vae", torch.float32)
        text_encoder = parts.network(Qwen3Model, "text_encoder", flow.dtype(device))
        flow.check_fit(
            parts.where,
            {
                "the transformer's in_channels": (transformer.config.in_channels, vae.config.latent_channels),
                "the transformer's cap_feat_dim": (transformer.config.cap_feat_dim, text_encoder.config.hidden_size),
                "the transformer's siglip_feat_dim": (transformer.config.siglip_feat_dim, None),
            },
        )
        tokenizer = TextTokenizer(
            parts.folder("tokenizer"), Qwen2Tokenizer, text_encoder.config.vocab_size, LENGTH, chat(enable_thinking=True)
        )
        tokenizer.check_letters()
        schedule = FlowSchedule(parts.file("scheduler", "scheduler_config.json"), vae.config.latent_channels, shares=_shares)
        return cls(transformer, vae, text_encoder, tokenizer, schedule, device)

    def encode(self, request: Mapping[str, Any], tools: Tools) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """As `Family.encode`: the last state but one of the text encoder, without the padding."""
        made: dict[str, torch.Tensor] = {}
        heard: dict[str, Any] = {}
        for name, field, text in flow.texts(NAME, request):
            tokens, mask, heard[field] = self._tokenizer.read(text)
            if not flow.is_heard(name, request):
                continue
            mask = mask.to(self._device).bool()
            given = {"input_ids": tokens.to(self._device), "attention_mask": mask, "output_hidden_states": True}
            hidden = self._text_encoder(**given).hidden_states[-2][0][mask[0]]
            made[name] = hidden.float().cpu()
            tools.hold([hidden, made[name]])
            tools.advance()
        return made, heard

    def condition(self, encoded: Mapping[str, torch.Tensor], request: Mapping[str, Any]) -> Conditioning:
        """As `Family.condition`: `positive` and, where guidance is above 1, `negative`, [tokens, width] each."""
        return flow.guided_by(NAME, encoded, request, self._device, self._dtype)

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int, int]:
        """As `Family.latent_shape`."""
        flow.check_size(NAME, width, height, 2 * self._scale)
        return (1, self._vae.config.latent_channels, height // self._scale, width // self._scale)

    @exactness.for_attention()
    def predict(self, latents: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """As `Family.predict`: both texts in one pass. The network counts time from noise to picture, and predicts the
        velocity the other way round."""
        rows = list(conditioning.tensors.values())
        time = ((1000 - t) / 1000).expand(len(rows))
        # [channels, frames, rows, columns] each: a picture is a film of one frame.
        given = latents[0].to(self._dtype).unsqueeze(1)
        steering = self._steering([given] * len(rows), time, rows, conditioning)
        predicted = self._transformer([given] * len(rows), time, rows, controlnet_block_samples=steering, return_dict=False)[0]
        velocity = predicted[0].float()
        if len(rows) == 2:
            velocity = velocity + (conditioning.guidance - 1) * (velocity - predicted[1].float())
        return -velocity.squeeze(1).unsqueeze(0)

    def _steering(
        self, given: list[torch.Tensor], time: torch.Tensor, rows: list[torch.Tensor], conditioning: Conditioning
    ) -> dict[int, torch.Tensor] | None:
        """What ControlNets add after layers, by their number: each has places of its own."""
        total: dict[int, torch.Tensor] = {}
        for one in conditioning.controls:
            pictures = list(one.picture.unsqueeze(2)) * len(rows)
            with control.borrowing(one.network.network, self._transformer):
                made = one.network.network(given, time, rows, pictures, conditioning_scale=one.weight)
            for place, more in made.items():
                total[place] = total[place] + more if place in total else more
        return total or None

    def shown(self, network: control.ControlNet, picture: numpy.ndarray) -> torch.Tensor:
        """As `Family.shown`: the picture's latents, [1, channels, rows, columns]. Versions from 2.0 on take more
        channels, those of a mask and of what it keeps: none is shown them, as in the pipeline."""
        # Its rows lie one after the other, as in the pipeline for ControlNets.
        latents = autoencoder.to_latents(self._vae, references.signed(picture, self._device).contiguous())
        more = network.network.config.control_in_dim - latents.shape[1]
        return torch.cat([latents, latents.new_zeros(1, more, *latents.shape[2:])], dim=1)

    def decode(self, latents: torch.Tensor, tools: Tools) -> torch.Tensor:
        """As `Family.decode`."""
        latents = latents.to(self._device, torch.float32)
        tools.hold([latents])
        return autoencoder.to_pixels(self._vae, latents)


def _shares(steps: int) -> list[float]:
    """As `flow_schedule.full_range`, in single precision as the pipeline of this family reckons."""
    return torch.linspace(1.0, 1 / steps, steps).tolist()
