"""FLUX.1 dev, schnell, Kontext: a transformer with a stream for the text and one for the picture, led by T5 and CLIP.

Black Forest Labs 2024, github.com/black-forest-labs/flux; the streams are those of Esser et al. 2024, arXiv 2403.03206.
The conditioning is that of diffusers' FluxPipeline. dev takes guidance as an input (Meng et al. 2023, arXiv
2210.03142), schnell has none; neither hears a negative prompt. Kontext (arXiv 2506.15742) is dev, trained to see the
tokens of a picture after those that it draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, ClassVar, Self

import numpy
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from transformers import CLIPTextModel, T5EncoderModel, T5Tokenizer

from darkroom import control, exactness, references
from darkroom.families import Conditioning, autoencoder, flow
from darkroom.families.clip_text import ClipTokenizer
from darkroom.families.latent_rgb import of_autoencoder
from darkroom.families.parts import Parts, dtype_of, weight_bytes
from darkroom.families.text_tokens import TextTokenizer
from darkroom.fast import Ways
from darkroom.flow_schedule import FlowSchedule
from darkroom.tools import Tools

NAME = "FLUX.1"
# Tokens of a prompt for T5: the pipeline's own length for both models.
LENGTH = 512
# (width, height) that Kontext was trained with, as diffusers' FluxKontextPipeline has them: a picture is brought to the
# one whose proportions are nearest.
KONTEXT_SIZES = (
    *((672, 1568), (688, 1504), (720, 1456), (752, 1392), (800, 1328), (832, 1248), (880, 1184), (944, 1104), (1024, 1024)),
    *((1104, 944), (1184, 880), (1248, 832), (1328, 800), (1392, 752), (1456, 720), (1504, 688), (1568, 672)),
)


class Flux(flow.FromText):
    """A `Family`. Encoded texts: `prompt`, [1, 512, width] of T5, and `pooled`, [1, width] of CLIP, fp32. Latents: 16
    channels, 8 pixels a cell; a token is 2 × 2 cells. Seen of a picture: `reference`, [1, tokens, 4 · channels], and
    `reference_places`, [tokens, 3].

    Kontext has dev's tensors: which of both a model is, and so whether it was trained to see, is said at submit.
    """

    sees: int = 1
    steered_by: Sequence[str] = ("FluxControlNetModel",)
    fast: ClassVar[Ways] = Ways("transformer", ("transformer_blocks", "single_transformer_blocks"))
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
        self.hears = transformer.config.joint_attention_dim
        self.schedule = schedule
        self.latent_rgb = of_autoencoder(vae.config)
        self._transformer, self._vae = transformer, vae
        self._dtype = dtype_of(transformer)
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
        tensors = {name: encoded[name].to(self._device, self._dtype) for name in ("prompt", "pooled")}
        if self._transformer.config.guidance_embeds:
            tensors["guidance"] = torch.full([1], guidance, dtype=torch.float32, device=self._device)
        elif guidance > 1:
            raise flow.unfit("guidance", f"this model of {NAME} has no guidance, as schnell has none: guidance must be 1, not {guidance:g}")
        return Conditioning(tensors, guidance)

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int, int]:
        """As `Family.latent_shape`."""
        flow.check_size(NAME, width, height, 2 * self._scale)
        return (1, self._vae.config.latent_channels, height // self._scale, width // self._scale)

    @exactness.for_attention()
    def predict(self, latents: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """As `Family.predict`: one pass."""
        rows, columns = latents.shape[2:]
        given = conditioning.tensors
        text_places, places = self._places(given["prompt"].shape[1], rows // 2, columns // 2)
        if "reference_places" in given:
            places = torch.cat([places, given["reference_places"]])
        tokens = flow.pack(latents).to(self._dtype)
        led: dict[str, Any] = {
            "timestep": t.to(self._dtype).expand(1) / 1000,
            "pooled_projections": given["pooled"],
            "encoder_hidden_states": given["prompt"],
            "txt_ids": text_places,
            "img_ids": places,
            "return_dict": False,
        }
        steering = self._steering(tokens, led, conditioning)
        predicted = self._transformer(
            hidden_states=flow.followed(tokens, conditioning), guidance=given.get("guidance"), **led, **steering
        )[0]
        return flow.unpack(predicted[:, : tokens.shape[1]].float(), rows, columns)

    def _steering(self, tokens: torch.Tensor, led: Mapping[str, Any], conditioning: Conditioning) -> dict[str, Any]:
        """What ControlNets add after blocks of both kinds; XLabs' begin again where they have fewer than the
        transformer."""

        def call(one: control.Control) -> Any:
            config = one.network.network.config
            more = {} if one.task is None else {"controlnet_mode": torch.full((1, 1), one.task, device=self._device)}
            if config.guidance_embeds:
                more["guidance"] = torch.full([1], conditioning.guidance, dtype=torch.float32, device=self._device)
            return one.network.network(
                hidden_states=tokens, controlnet_cond=one.picture, conditioning_scale=one.weight, **led, **more
            )

        made = control.acting(conditioning.controls, call)
        if not made:
            return {}
        repeats = any(one.network.network.input_hint_block is not None for one in conditioning.controls)
        return {
            "controlnet_block_samples": made[0],
            "controlnet_single_block_samples": made[1],
            "controlnet_blocks_repeat": repeats,
        }

    def shown(self, network: control.ControlNet, picture: numpy.ndarray) -> torch.Tensor:
        """As `Family.shown`: XLabs' see pixels, [1, 3, height, width] in -1 to 1, all others the picture's tokens."""
        # Its rows lie one after the other, as in the pipelines for ControlNets.
        pixels = references.signed(picture, self._device).contiguous()
        if network.network.input_hint_block is not None:
            return pixels
        return flow.pack(autoencoder.to_latents(self._vae, pixels))

    def see(self, pictures: Sequence[numpy.ndarray]) -> Mapping[str, torch.Tensor]:
        """As `Family.see`: one, which lies where the picture does that is drawn, at time 1."""
        [picture] = pictures
        square = 2 * self._scale
        # The pipeline asks for the proportions of whole tokens.
        rows, columns = (side // square for side in picture.shape[:2])
        _, width, height = min((abs(columns / rows - width / height), width, height) for width, height in KONTEXT_SIZES)
        size = (width // square * square, height // square * square)
        latents = autoencoder.to_latents(self._vae, references.signed(references.scaled(picture, size), self._device))
        _, places = _places(self._device, self._dtype, 0, size[1] // square, size[0] // square)
        places[:, 0] = 1
        return {"reference": flow.pack(latents).to(self._dtype), "reference_places": places}

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
