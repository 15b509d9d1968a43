"""FLUX.1 dev and schnell: a transformer with a stream for the text and one for the picture, led by T5 and CLIP.

Black Forest Labs 2024, github.com/black-forest-labs/flux; the streams are those of Esser et al. 2024, arXiv 2403.03206.
The conditioning is that of diffusers' FluxPipeline. dev takes guidance as an input (Meng et al. 2023, arXiv
2210.03142), schnell has none; neither hears a negative prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, ClassVar, Self

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from transformers import CLIPTextModel, T5EncoderModel, T5Tokenizer

from darkroom import exactness
from darkroom.families import Conditioning, autoencoder, flow
from darkroom.families.clip_text import ClipTokenizer
from darkroom.families.latent_rgb import of_autoencoder
from darkroom.families.parts import Parts, weight_bytes
from darkroom.families.text_tokens import TextTokenizer
from darkroom.flow_schedule import FlowSchedule
from darkroom.tools import Tools

NAME = "FLUX.1"
# Tokens of a prompt for T5: the pipeline's own length for both models.
LENGTH = 512


class Flux(flow.FromText):
    """A `Family`. Encoded texts: `prompt`, [1, 512, width] of T5, and `pooled`, [1, width] of CLIP, fp32. Latents: 16
    channels, 8 pixels a cell; a token is 2 × 2 cells."""

    parts: ClassVar[Sequence[str]] = ("scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "transformer", "vae")

    def __init__(
        self,
        transformer: Any,
        vae: Any,
        encoders: tuple[Any, Any],
        tokenizers: tuple[ClipTokenizer, TextTokenizer],
        schedule: FlowSchedule,
        device: torch.device,
    ):
        self.bytes = weight_bytes(transformer, vae, *encoders)
        self.schedule = schedule
        self.latent_rgb = of_autoencoder(vae.config)
        self._transformer, self._vae = transformer, vae
        self._clip, self._t5 = encoders
        self._clip_tokenizer, self._t5_tokenizer = tokenizers
        self._device = device
        self._scale = 2 ** (len(vae.config.block_out_channels) - 1)
        # The same for every call of a size: made once, because each would wait for the device.
        self._places = lru_cache(4)(partial(_places, device, transformer.dtype))

    @classmethod
    def load(cls, parts: Parts, device: torch.device) -> Self:
        """As `Family.load`."""
        transformer = parts.network(FluxTransformer2DModel, "transformer", flow.dtype(device))
        vae = parts.network(AutoencoderKL, "vae", torch.float32)
        clip = parts.network(CLIPTextModel, "text_encoder", flow.dtype(device))
        t5 = parts.network(T5EncoderModel, "text_encoder_2", flow.dtype(device))
        flow.check_fit(
            parts.where,
            {
                # Fill, Depth and Canny take a picture beside the latents.
                "the transformer's in_channels": (transformer.config.in_channels, 4 * vae.config.latent_channels),
                "the transformer's joint_attention_dim": (transformer.config.joint_attention_dim, t5.config.d_model),
                "the transformer's pooled_projection_dim": (transformer.config.pooled_projection_dim, clip.config.hidden_size),
            },
        )
        tokenizers = (
            ClipTokenizer(parts.folder("tokenizer"), clip.config),
            TextTokenizer(parts.folder("tokenizer_2"), T5Tokenizer, t5.config.vocab_size, LENGTH),
        )
        schedule = FlowSchedule(parts.file("scheduler", "scheduler_config.json"), vae.config.latent_channels)
        return cls(transformer, vae, (clip, t5), tokenizers, schedule, device)

    def encode(self, request: Mapping[str, Any], tools: Tools) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """As `Family.encode`. What is told of the prompt is T5's reading; CLIP hears its first 75 tokens, and adds one
        vector for the whole."""
        (_, _, prompt), (_, _, negative_prompt) = flow.texts(NAME, request)
        flow.check_unheard(NAME, negative_prompt)
        pooled = self._clip(self._clip_tokenizer.read(prompt)[0].to(self._device)).pooler_output
        tokens, _, heard = self._t5_tokenizer.read(prompt)
        hidden = self._t5(tokens.to(self._device))[0]
        made = {"prompt": hidden.float().cpu(), "pooled": pooled.float().cpu()}
        tools.hold([hidden, pooled, *made.values()])
        tools.advance()
        return made, {"prompt": heard, "negative_prompt": {"read": 0, "dropped": 0, "dropped_text": ""}}

    def condition(self, encoded: Mapping[str, torch.Tensor], request: Mapping[str, Any]) -> Conditioning:
        """As `Family.condition`: `prompt`, `pooled` and, where the model takes it, `guidance`, [1] fp32."""
        flow.check_rescale(NAME, request)
        if "guidance_interval" in request:
            raise flow.unfit("guidanceInterval", f"{NAME} takes guidance as an input, in every call: leave guidanceInterval out")
        guidance = request["guidance"]
        tensors = {name: encoded[name].to(self._device, self._transformer.dtype) for name in ("prompt", "pooled")}
        if self._transformer.config.guidance_embeds:
            tensors["guidance"] = torch.full([1], guidance, dtype=torch.float32, device=self._device)
        elif guidance > 1:
            raise flow.unfit("guidance", f"this model of {NAME} has no guidance, as schnell has none: guidance must be 1, not {guidance:g}")
        return Conditioning(tensors, guidance)

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int, int]:
        """As `Family.latent_shape`."""
        flow.check_size(NAME, width, height, 2 * self._scale)
        return (1, self._vae.config.latent_channels, height // self._scale, width // self._scale)

    @exactness.for_transformer()
    def predict(self, latents: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """As `Family.predict`: one pass."""
        rows, columns = latents.shape[2:]
        given = conditioning.tensors
        text_places, places = self._places(given["prompt"].shape[1], rows // 2, columns // 2)
        predicted = self._transformer(
            hidden_states=flow.pack(latents).to(self._transformer.dtype),
            timestep=t.to(self._transformer.dtype).expand(1) / 1000,
            guidance=given.get("guidance"),
            pooled_projections=given["pooled"],
            encoder_hidden_states=given["prompt"],
            txt_ids=text_places,
            img_ids=places,
            return_dict=False,
        )[0]
        return flow.unpack(predicted.float(), rows, columns)

    def decode(self, latents: torch.Tensor, tools: Tools) -> torch.Tensor:
        """As `Family.decode`."""
        latents = latents.to(self._device, torch.float32)
        tools.hold([latents])
        return autoencoder.to_pixels(self._vae, latents)


def _places(device: torch.device, dtype: torch.dtype, tokens: int, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the tokens of text and picture are, [tokens, 3] and [rows · columns, 3]: nowhere, row, column."""
    grid = torch.zeros(rows, columns, 3)
    grid[..., 1] += torch.arange(rows)[:, None]
    grid[..., 2] += torch.arange(columns)[None, :]
    return torch.zeros(tokens, 3).to(device, dtype), grid.reshape(rows * columns, 3).to(device, dtype)
