"""Stable Diffusion 3 and 3.5: a transformer with streams for text and picture, led by two CLIPs and T5.

Esser et al. 2024, "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", arXiv 2403.03206. The
conditioning is that of diffusers' StableDiffusion3Pipeline: guidance is classifier-free.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from transformers import CLIPTextModelWithProjection, T5EncoderModel, T5Tokenizer

from darkroom import control, exactness, references
from darkroom.families import Conditioning, autoencoder, flow
from darkroom.families.clip_text import ClipTokenizer
from darkroom.families.latent_rgb import of_autoencoder
from darkroom.families.parts import Parts, dtype_of, weight_bytes
from darkroom.families.text_tokens import TextTokenizer
from darkroom.fast import Ways
from darkroom.flow_schedule import FlowSchedule
from darkroom.graphs import Replayed
from darkroom.tools import Tools

NAME = "Stable Diffusion 3"
# Tokens of a prompt for T5: the pipeline's own length.
LENGTH = 256


class StableDiffusion3(flow.FromText):
    """A `Family`. Encoded texts: `positive`, [1, 77 + 256, width], and `pooled_positive`, [1, width of both CLIPs],
    fp32; where guidance is above 1 `negative` and `pooled_negative` too. Latents: 16 channels, 8 pixels a cell; a token
    is 2 × 2 cells."""

    steered_by: Sequence[str] = ("SD3ControlNetModel",)
    fast: ClassVar[Ways] = Ways("transformer", ("transformer_blocks",), ("JointTransformerBlock",))
    parts: ClassVar[Sequence[str]] = (
        *("scheduler", "text_encoder", "text_encoder_2", "text_encoder_3"),
        *("tokenizer", "tokenizer_2", "tokenizer_3", "transformer", "vae"),
    )

    def __init__(
        self,
        transformer: Any,
        vae: Any,
        clips: Sequence[tuple[ClipTokenizer, Any]],
        t5: tuple[TextTokenizer, Any],
        schedule: FlowSchedule,
        device: torch.device,
    ):
        self.bytes = weight_bytes(transformer, vae, t5[1], *(encoder for _, encoder in clips))
        self.hears = transformer.config.joint_attention_dim
        self.schedule = schedule
        self.latent_rgb = of_autoencoder(vae.config)
        self._transformer, self._vae = transformer, vae
        self._dtype = dtype_of(transformer)
        self._forward = Replayed(transformer, _forward_of(transformer), device)
        self._clips, self._t5 = clips, t5
        self._device = device
        self._scale = 2 ** (len(vae.config.block_out_channels) - 1)

    @classmethod
    def load(cls, parts: Parts, device: torch.device) -> Self:
        """As `Family.load`."""
        transformer = parts.network(SD3Transformer2DModel, "transformer", flow.dtype(device))
        vae = parts.network(AutoencoderKL, "vae", torch.float32)
        encoders = [parts.network(CLIPTextModelWithProjection, name, flow.dtype(device)) for name in ("text_encoder", "text_encoder_2")]
        t5 = parts.network(T5EncoderModel, "text_encoder_3", flow.dtype(device))
        config = transformer.config
        flow.check_fit(
            parts.where,
            {
                "the transformer's in_channels": (config.in_channels, vae.config.latent_channels),
                "the transformer's joint_attention_dim": (config.joint_attention_dim, t5.config.d_model),
                "the transformer's pooled_projection_dim": (
                    config.pooled_projection_dim,
                    sum(encoder.config.projection_dim for encoder in encoders),
                ),
            },
        )
        clips = [
            (ClipTokenizer(parts.folder(name), encoder.config), encoder)
            for name, encoder in zip(("tokenizer", "tokenizer_2"), encoders, strict=True)
        ]
        tokenizer = TextTokenizer(parts.folder("tokenizer_3"), T5Tokenizer, t5.config.vocab_size, LENGTH)
        path = parts.file("scheduler", "scheduler_config.json")
        schedule = FlowSchedule(path, vae.config.latent_channels, patch=config.patch_size, shares=None)
        return cls(transformer, vae, clips, (tokenizer, t5), schedule, device)

    def encode(self, request: Mapping[str, Any], tools: Tools) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """As `Family.encode`: the last state but one of both CLIPs side by side, padded to T5's width, then T5's. What
        is told of a prompt is T5's reading; the CLIPs hear its first 75 tokens."""
        made: dict[str, torch.Tensor] = {}
        heard: dict[str, Any] = {}
        for name, field, text in flow.texts(NAME, request):
            tokenizer, t5 = self._t5
            tokens, _, heard[field] = tokenizer.read(text)
            if not flow.is_heard(name, request):
                continue
            states = [encoder(reader.read(text)[0].to(self._device), output_hidden_states=True) for reader, encoder in self._clips]
            last = t5(tokens.to(self._device))[0]
            clips = torch.cat([each.hidden_states[-2] for each in states], dim=-1)
            clips = torch.nn.functional.pad(clips, (0, last.shape[-1] - clips.shape[-1]))
            made[name] = torch.cat([clips, last], dim=-2).float().cpu()
            made[f"pooled_{name}"] = torch.cat([each.text_embeds for each in states], dim=-1).float().cpu()
            tools.hold([last, clips, made[name], made[f"pooled_{name}"]])
            tools.advance()
        return made, heard

    def condition(self, encoded: Mapping[str, torch.Tensor], request: Mapping[str, Any]) -> Conditioning:
        """As `Family.condition`: `rows`, [2, tokens, width] negative and positive, or [1, tokens, width] the positive
        alone, and `pooled` the same."""
        flow.check_rescale(NAME, request)
        names = [name for name in ("negative", "positive") if flow.is_heard(name, request)]
        rows = torch.cat([encoded[name] for name in names])
        pooled = torch.cat([encoded[f"pooled_{name}"] for name in names])
        dtype = self._dtype
        return Conditioning({"rows": rows.to(self._device, dtype), "pooled": pooled.to(self._device, dtype)}, request["guidance"])

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int, int]:
        """As `Family.latent_shape`: a model has learnt so many places, counted from the middle."""
        config = self._transformer.config
        square = config.patch_size * self._scale
        flow.check_size(NAME, width, height, square, config.pos_embed_max_size * square)
        return (1, self._vae.config.latent_channels, height // self._scale, width // self._scale)

    @exactness.for_attention()
    def predict(self, latents: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """As `Family.predict`: both texts in one pass."""
        rows, pooled = conditioning.tensors["rows"], conditioning.tensors["pooled"]
        given = torch.cat([latents] * len(rows)).to(self._dtype)
        time = t.expand(len(rows))

        def call(one: control.Control) -> Any:
            network = one.network.network
            # Stability's of 3.5 large hear no text, and take the transformer's places.
            hidden = given if network.config.use_pos_embed else self._transformer.pos_embed(given)
            return network(
                hidden_states=hidden,
                timestep=time,
                encoder_hidden_states=None if network.config.joint_attention_dim is None else rows,
                pooled_projections=torch.zeros_like(pooled) if _is_unpooled(network) else pooled,
                controlnet_cond=one.picture.repeat(len(rows), 1, 1, 1),
                conditioning_scale=one.weight,
                return_dict=False,
            )

        steering = control.acting(conditioning.controls, call)
        predicted = self._forward(given, time, rows, pooled, *((steering[0] or ()) if steering else ()))
        if len(rows) == 1:
            return predicted
        without, with_prompt = predicted.chunk(2)
        return without + conditioning.guidance * (with_prompt - without)

    def shown(self, network: control.ControlNet, picture: numpy.ndarray) -> torch.Tensor:
        """As `Family.shown`: the picture's latents, [1, channels, rows, columns]; for InstantX's not shifted."""
        # Its rows lie one after the other, as in the pipeline for ControlNets.
        pixels = references.signed(picture, self._device).contiguous()
        return autoencoder.to_latents(self._vae, pixels, is_shifted=not _is_unpooled(network.network))

    def decode(self, latents: torch.Tensor, tools: Tools) -> torch.Tensor:
        """As `Family.decode`."""
        latents = latents.to(self._device, torch.float32)
        tools.hold([latents])
        return autoencoder.to_pixels(self._vae, latents)


def _forward_of(transformer: Any) -> Callable[..., torch.Tensor]:
    """Latents, time, texts, their vectors and what ControlNets add (a tensor for some blocks), all on the device, to
    the prediction in fp32. It holds no family: one that is let go of takes its weights along at once."""

    def forward(given: torch.Tensor, time: torch.Tensor, rows: torch.Tensor, pooled: torch.Tensor, *steering: torch.Tensor) -> torch.Tensor:
        return transformer(
            hidden_states=given,
            timestep=time,
            encoder_hidden_states=rows,
            pooled_projections=pooled,
            block_controlnet_hidden_states=list(steering) or None,
            return_dict=False,
        )[0].float()

    return forward


def _is_unpooled(network: Any) -> bool:
    """Whether a ControlNet was trained as InstantX's were: without pooled texts, on latents that are not shifted."""
    return network.config.force_zeros_for_pooled_projection
