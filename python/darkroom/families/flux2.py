"""FLUX.2 klein: a transformer with a stream for the text and one for the picture, led by three layers of Qwen3.

Black Forest Labs 2026, github.com/black-forest-labs/flux2. The conditioning is that of diffusers' Flux2KleinPipeline.
Guidance is classifier-free, for the undistilled base models; the distilled ones draw with guidance 1. All of them see
reference pictures as tokens after those that they draw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, ClassVar, Self

import numpy
import torch
from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel
from transformers import Qwen2Tokenizer, Qwen3Model

from darkroom import exactness, references
from darkroom.families import Conditioning, autoencoder, flow, tiles
from darkroom.families.latent_rgb import FLUX2, LatentRgb
from darkroom.families.parts import Parts, dtype_of, weight_bytes
from darkroom.families.text_tokens import TextTokenizer, chat
from darkroom.fast import Ways
from darkroom.flow_schedule import FlowSchedule
from darkroom.tools import Tools

NAME = "FLUX.2"
# Tokens of a prompt in its template.
LENGTH = 512
# Layers of the text encoder whose states lie side by side.
LAYERS = (9, 18, 27)


class Flux2Klein(flow.FromText):
    """A `Family`. Encoded texts: `positive` and, where guidance is above 1, `negative`, [1, 512, 3 · width] fp32.
    Latents: 128 channels, 16 pixels a cell, which is a token: squares of 2 × 2 cells of the autoencoder, normalised.
    Seen of pictures: `reference`, [1, tokens, channels], and `reference_places`, [1, tokens, 4]."""

    # What Black Forest Labs name for klein.
    sees: int = 4
    fast: ClassVar[Ways] = Ways("transformer", ("transformer_blocks", "single_transformer_blocks"))
    parts: ClassVar[Sequence[str]] = ("scheduler", "text_encoder", "tokenizer", "transformer", "vae")

    def __init__(
        self,
        transformer: Any,
        vae: Any,
        norm: tuple[torch.Tensor, torch.Tensor],
        text_encoder: Any,
        tokenizer: TextTokenizer,
        schedule: FlowSchedule,
        device: torch.device,
    ):
        self.bytes = weight_bytes(transformer, vae, text_encoder)
        self.latent_rgb: LatentRgb | None = FLUX2.of(vae.config.latent_channels)
        self._norm = norm
        self.schedule = schedule
        self._transformer, self._vae, self._text_encoder, self._tokenizer = transformer, vae, text_encoder, tokenizer
        self._dtype = dtype_of(transformer)
        self._device = device
        # Pixels of a token's side.
        self._square = 2 * 2 ** (len(vae.config.block_out_channels) - 1)
        # The same for every call of a size: made once, because each would wait for the device.
        self._places = lru_cache(4)(partial(_places, device))

    @classmethod
    def load(cls, parts: Parts, device: torch.device) -> Self:
        """As `Family.load`."""
        transformer = parts.network(Flux2Transformer2DModel, "transformer", flow.dtype(device))
        vae = parts.network(AutoencoderKLFlux2, "vae", torch.float32)
        # Taken now: by the next network its weights may have made room.
        mean, variance = (buffer.view(1, -1, 1, 1) for buffer in (vae.bn.running_mean, vae.bn.running_var))
        norm = (mean.clone(), torch.sqrt(variance + vae.config.batch_norm_eps))
        text_encoder = parts.network(Qwen3Model, "text_encoder", flow.dtype(device))
        flow.check_fit(
            parts.where,
            {
                "the transformer's in_channels": (transformer.config.in_channels, 4 * vae.config.latent_channels),
                "the transformer's joint_attention_dim": (
                    transformer.config.joint_attention_dim,
                    len(LAYERS) * text_encoder.config.hidden_size,
                ),
                # dev has them, and Mistral for a text encoder.
                "the transformer's guidance_embeds": (transformer.config.guidance_embeds, False),
                "the text encoder has its layer 27": (text_encoder.config.num_hidden_layers >= LAYERS[-1], True),
            },
        )
        tokenizer = TextTokenizer(
            parts.folder("tokenizer"), Qwen2Tokenizer, text_encoder.config.vocab_size, LENGTH, chat(enable_thinking=False)
        )
        tokenizer.check_letters()
        path = parts.file("scheduler", "scheduler_config.json")
        schedule = FlowSchedule(path, transformer.config.in_channels, patch=1, shift=_shift)
        return cls(transformer, vae, norm, text_encoder, tokenizer, schedule, device)

    def encode(self, request: Mapping[str, Any], tools: Tools) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """As `Family.encode`: the padding is part of it."""
        made: dict[str, torch.Tensor] = {}
        heard: dict[str, Any] = {}
        for name, field, text in flow.texts(NAME, request):
            tokens, mask, heard[field] = self._tokenizer.read(text)
            if not flow.is_heard(name, request):
                continue
            states = self._text_encoder(
                input_ids=tokens.to(self._device), attention_mask=mask.to(self._device), output_hidden_states=True, use_cache=False
            ).hidden_states
            hidden = torch.cat([states[layer] for layer in LAYERS], dim=-1)
            made[name] = hidden.float().cpu()
            tools.hold([hidden, made[name]])
            tools.advance()
        return made, heard

    def condition(self, encoded: Mapping[str, torch.Tensor], request: Mapping[str, Any]) -> Conditioning:
        """As `Family.condition`: `positive` and, where guidance is above 1, `negative`, [1, 512, 3 · width] each."""
        return flow.guided_by(NAME, encoded, request, self._device, self._dtype)

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int, int]:
        """As `Family.latent_shape`."""
        flow.check_size(NAME, width, height, self._square)
        return (1, self._transformer.config.in_channels, height // self._square, width // self._square)

    @exactness.for_attention()
    def predict(self, latents: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """As `Family.predict`: a pass for each text."""
        _, channels, rows, columns = latents.shape
        dtype = self._dtype
        texts = conditioning.tensors
        text_places, places = self._places(texts["positive"].shape[1], rows, columns)
        if "reference_places" in texts:
            places = torch.cat([places, texts["reference_places"]], dim=1)
        drawn = rows * columns
        given: dict[str, Any] = {
            "hidden_states": flow.followed(latents.reshape(1, channels, drawn).permute(0, 2, 1).to(dtype), conditioning),
            "timestep": t.to(dtype).expand(1) / 1000,
            "txt_ids": text_places,
            "img_ids": places,
            "return_dict": False,
        }
        predicted = self._transformer(**given, encoder_hidden_states=texts["positive"])[0][:, :drawn].float()
        if "negative" in texts:
            without = self._transformer(**given, encoder_hidden_states=texts["negative"])[0][:, :drawn].float()
            predicted = without + conditioning.guidance * (predicted - without)
        return predicted.permute(0, 2, 1).reshape(latents.shape)

    def see(self, pictures: Sequence[numpy.ndarray]) -> Mapping[str, torch.Tensor]:
        """As `Family.see`: one with more than `references.AREA` pixels is made smaller, then each is cut to whole
        tokens around its middle. Picture n, from 0, is at time 10 + 10 n."""
        tokens: list[torch.Tensor] = []
        places: list[torch.Tensor] = []
        for number, picture in enumerate(pictures):
            seen = self._cut(picture)
            latents = self._latents(references.signed(seen, self._device))
            rows, columns = latents.shape[2:]
            tokens.append(latents.reshape(1, -1, rows * columns).permute(0, 2, 1))
            places.append(_grid(torch.tensor([10 + 10 * number]), rows, columns))
        return {
            "reference": torch.cat(tokens, dim=1).to(self._dtype),
            "reference_places": torch.cat(places)[None].to(self._device),
        }

    def _cut(self, picture: numpy.ndarray) -> numpy.ndarray:
        rows, columns = picture.shape[:2]
        if rows * columns > references.AREA:
            scale = math.sqrt(references.AREA / (rows * columns))
            picture = references.scaled(picture, (int(columns * scale), int(rows * scale)))
            rows, columns = picture.shape[:2]
        height, width = rows // self._square * self._square, columns // self._square * self._square
        if height == 0 or width == 0:
            side = f"{NAME} sees pictures in squares of {self._square} pixels, and one of the references has {columns} × {rows}"
            raise flow.unfit("references", f"{side}: send a larger one")
        top, left = (rows - height) // 2, (columns - width) // 2
        return picture[top : top + height, left : left + width]

    def _latents(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels, [1, 3, height, width] in -1 to 1, as latents of `latent_shape`."""

        def encode(given: torch.Tensor) -> torch.Tensor:
            return self._vae.encode(given).latent_dist.mode()

        with exactness.in_tf32():
            made = tiles.now().run(encode, pixels, self._square // 2)
        _, channels, rows, columns = made.shape
        squares = made.view(1, channels, rows // 2, 2, columns // 2, 2).permute(0, 1, 3, 5, 2, 4)
        mean, deviation = self._norm
        return (squares.reshape(1, channels * 4, rows // 2, columns // 2) - mean) / deviation

    def decode(self, latents: torch.Tensor, tools: Tools) -> torch.Tensor:
        """As `Family.decode`: the normalisation of each channel taken back, then tokens as squares of 2 × 2 cells."""
        latents = latents.to(self._device, torch.float32)
        mean, deviation = self._norm
        _, channels, rows, columns = latents.shape
        squares = (latents * deviation + mean).reshape(1, channels // 4, 2, 2, rows, columns)
        scaled = squares.permute(0, 1, 4, 2, 5, 3).reshape(1, channels // 4, rows * 2, columns * 2)
        tools.hold([latents, scaled])
        return autoencoder.decoded(self._vae, scaled)[0]


def _shift(_: Mapping[str, Any], tokens: int, steps: int) -> float:
    """mu of the shift of time by tokens and steps, as `compute_empirical_mu` of diffusers' pipeline has it: a line over
    the tokens for 10 steps, one for 200, and a line over the steps between them; that for 200 beyond 4300 tokens."""
    at_200 = 0.00016927 * tokens + 0.45666666
    if tokens > 4300:
        return float(at_200)
    at_10 = 8.73809524e-05 * tokens + 1.89833333
    slope = (at_200 - at_10) / 190.0
    return float(slope * steps + (at_200 - 200.0 * slope))


def _places(device: torch.device, tokens: int, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the tokens of text and picture are, [1, tokens, 4] and [1, rows · columns, 4]: time, row, column, place in
    the text."""
    zero = torch.arange(1)
    text = torch.cartesian_prod(zero, zero, zero, torch.arange(tokens))
    return text[None].to(device), _grid(zero, rows, columns)[None].to(device)


def _grid(time: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Places of a picture's tokens, [rows · columns, 4], at a time, [1]."""
    return torch.cartesian_prod(time, torch.arange(rows), torch.arange(columns), torch.arange(1))
