"""Stable Diffusion XL: a UNet that listens to two CLIP text encoders and is told the picture's size; and its refiner.

Podell et al. 2023, "SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis", arXiv 2307.01952.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self

import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from darkroom.errors import DarkroomError
from darkroom.families import Conditioning, long_text
from darkroom.families.clip_text import ClipTokenizer
from darkroom.families.hearing import Heard, Hearing, on_host
from darkroom.families.parts import Parts, index_of
from darkroom.families.unet import UNetFamily, check_fit, load_networks
from darkroom.schedule import Schedule
from darkroom.textual_inversion import Listener
from darkroom.tools import Tools

# Text encoder, its tokenizer, its class; the last one has the projection whose vector stands for the whole text.
FIRST = ("text_encoder", "tokenizer", CLIPTextModel)
SECOND = ("text_encoder_2", "tokenizer_2", CLIPTextModelWithProjection)
# The layer that it hears, counted from the end: the one before the last.
OWN_LAYER = 2
# Of 10, as the refiner was trained: what is wanted, and what is not.
AESTHETIC_SCORE, NEGATIVE_AESTHETIC_SCORE = 6.0, 2.5


class StableDiffusionXL(UNetFamily):
    """A `Family`. Encoded texts: `positive` and `negative`, [1, tokens, widths of both encoders together], and
    `positive_pooled` and `negative_pooled`, [1, projection], all fp32. Latents: 4 channels, 8 pixels a cell.
    """

    parts: ClassVar[Sequence[str]] = ("scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "vae")
    encoders: ClassVar[Sequence[tuple[str, str, Any]]] = (FIRST, SECOND)
    added: ClassVar[Sequence[str]] = ("text_embeds", "time_ids")
    figures: ClassVar[int] = 6
    """How many numbers `_told` gives the UNet beside the text."""

    def __init__(
        self,
        unet: Any,
        vae: Any,
        encoders: Sequence[tuple[Any, ClipTokenizer]],
        zeros_for_empty: bool,
        schedule: Schedule,
        device: torch.device,
    ):
        super().__init__(unet, vae, schedule, device, *(encoder for encoder, _ in encoders))
        self._encoders = encoders
        self._hearing = [Hearing(encoder, _hear, device) for encoder, _ in encoders]
        self._zeros_for_empty = zeros_for_empty

    @classmethod
    def load(cls, parts: Parts, device: torch.device) -> Self:
        """As `Family.load`."""
        unet, vae = load_networks(parts, device)
        networks = [parts.network(kind, part, torch.float32) for part, _, kind in cls.encoders]
        configs = [network.config for network in networks]
        fitting = {
            "cross_attention_dim": sum(config.hidden_size for config in configs),
            "addition_embed_type": "text_time",
            "projection_class_embeddings_input_dim": configs[-1].projection_dim
            + cls.figures * (unet.config.addition_time_embed_dim or 0),
        }
        check_fit(parts.where, unet.config, vae.config, fitting)
        tokenizers = [ClipTokenizer(parts.folder(part), config) for (_, part, _), config in zip(cls.encoders, configs, strict=True)]
        windows = {tokenizer.window for tokenizer in tokenizers}
        if len(windows) > 1:
            raise DarkroomError("model.corrupt", f"{parts.where}: its tokenizers read {sorted(windows)} tokens", field="model.path")
        schedule = Schedule(parts.file("scheduler", "scheduler_config.json"), vae.config.latent_channels)
        return cls(unet, vae, list(zip(networks, tokenizers, strict=True)), _zeros_for_empty(parts), schedule, device)

    @property
    def listeners(self) -> list[Listener]:
        """As `StableDiffusion.listeners`."""
        return [Listener(part, *pair) for (part, _, _), pair in zip(self.encoders, self._encoders, strict=True)]

    def encode(self, request: Mapping[str, Any], tools: Tools) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """As `Family.encode`: of each encoder the layer before the last, or the one that `clip_skip` counts from the
        end, side by side; and the last one's projection of the first chunk.

        An empty negative prompt is zeros where the model was trained so.
        """
        skip = request.get("clip_skip", OWN_LAYER)
        long_text.check_layer(skip, 1, min(encoder.config.num_hidden_layers for encoder, _ in self._encoders))

        def of(hearing: Hearing, tokens: torch.Tensor) -> Heard:
            tools.advance()
            return hearing(tokens, skip)

        chunks, heard = long_text.read([tokenizer for _, tokenizer in self._encoders], request)
        on_device: dict[str, torch.Tensor] = {}
        for name, of_each in chunks.items():
            hidden: list[torch.Tensor] = []
            pooled = torch.empty(0)
            for hearing, (_, tokenizer), own in zip(self._hearing, self._encoders, of_each, strict=True):
                syntax = request.get("prompt_syntax", "plain")
                states, pooled = long_text.encode(own, tokenizer.empty, partial(of, hearing), syntax, self._device)
                hidden.append(states)
            on_device[name], on_device[f"{name}_pooled"] = torch.cat(hidden, dim=-1), pooled
        made = on_host(on_device, tools)
        if request["negative_prompt"] == "" and self._zeros_for_empty:
            made["negative"].zero_()
            made["negative_pooled"].zero_()
        return made, heard

    def condition(self, encoded: Mapping[str, torch.Tensor], request: Mapping[str, Any]) -> Conditioning:
        """As `Family.condition`: `rows`, [rows, tokens, width]; `text_embeds`, [rows, projection]; `time_ids`, [rows,
        figures] fp32."""
        guidance = request["guidance"]
        told = [self._told(request, is_negative) for is_negative in ([False] if guidance <= 1 else [True, False])]
        tensors = {
            "rows": self._stacked(encoded, guidance),
            "text_embeds": self._stacked(encoded, guidance, "_pooled"),
            "time_ids": torch.tensor(told, dtype=torch.float32, device=self._device),
        }
        return Conditioning(tensors, guidance, request.get("guidance_rescale", 0.0))

    def _told(self, request: Mapping[str, Any], is_negative: bool) -> list[float]:
        """What the UNet is told of one row, section 2.2 of the paper: height and width of the picture that was scaled
        or cropped, the upper left corner of the crop, height and width of what is drawn. The negative row is told the
        same where the request says nothing else of it."""
        sizes = request.get("sizes", {})
        if is_negative:
            sizes = {**sizes, **sizes.get("negative", {})}
        height, width = request["height"], request["width"]
        usual = {"original_height": height, "original_width": width, "crop_top": 0, "crop_left": 0}
        usual |= {"target_height": height, "target_width": width}
        return [sizes.get(name, value) for name, value in usual.items()]


def _hear(encoder: Any, tokens: torch.Tensor, skip: int) -> Heard:
    output = encoder(tokens, output_hidden_states=True)
    # The first output of an encoder with a projection is the projected text.
    return output.hidden_states[-skip], output[0]


class Refiner(StableDiffusionXL):
    """A `Family`, as `StableDiffusionXL` but with the second encoder alone. It was trained on the last fifth of the
    noise: it goes on from latents of the base, and draws nothing that means anything out of noise."""

    parts: ClassVar[Sequence[str]] = ("scheduler", "text_encoder_2", "tokenizer_2", "unet", "vae")
    encoders: ClassVar[Sequence[tuple[str, str, Any]]] = (SECOND,)
    figures: ClassVar[int] = 5

    def _told(self, request: Mapping[str, Any], is_negative: bool) -> list[float]:
        """Size and crop as the base, and how well the picture is to be liked, of 10."""
        score = NEGATIVE_AESTHETIC_SCORE if is_negative else AESTHETIC_SCORE
        return [*super()._told(request, is_negative)[:4], score]


def _zeros_for_empty(parts: Parts) -> bool:
    """Whether an empty negative prompt is zeros, by the pipeline's own configuration; as in diffusers it is where
    nothing says otherwise. Raises `model.corrupt`."""
    value = index_of(parts).get("force_zeros_for_empty_prompt", True)
    if not isinstance(value, bool):
        problem = f"{parts.where}: model_index.json: force_zeros_for_empty_prompt must be true or false"
        raise DarkroomError("model.corrupt", problem, field="model.path")
    return value
