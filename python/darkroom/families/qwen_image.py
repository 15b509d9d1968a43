"""Qwen-Image: a transformer with a stream for the text and one for the picture, led by Qwen2.5-VL.

Qwen Team 2025, "Qwen-Image Technical Report", arXiv 2508.02324. The conditioning is that of diffusers'
QwenImagePipeline: guidance is classifier-free, and the guided prediction keeps the length of the unguided one in each
token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

from darkroom import exactness
from darkroom.families import Conditioning, autoencoder, flow
from darkroom.families.latent_rgb import QWEN, LatentRgb
from darkroom.families.parts import Parts, weight_bytes
from darkroom.families.text_tokens import TextTokenizer
from darkroom.flow_schedule import FlowSchedule
from darkroom.tools import Tools

NAME = "Qwen-Image"
TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
# Tokens of the template before the prompt, which the transformer is not shown; and those that it is shown at most.
PREFIX, LENGTH = 34, 1024


class QwenImage(flow.FromText):
    """A `Family`. Encoded texts: `positive` and `negative`, [1, tokens, width] fp32, as many tokens as the text has.
    Latents: 16 channels, 8 pixels a cell; a token is 2 × 2 cells."""

    latent_rgb: LatentRgb | None = QWEN
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
        self.schedule = schedule
        self._transformer, self._vae, self._text_encoder, self._tokenizer = transformer, vae, text_encoder, tokenizer
        self._device = device
        self._scale = 2 ** len(vae.config.temperal_downsample)

    @classmethod
    def load(cls, parts: Parts, device: torch.device) -> Self:
        """As `Family.load`."""
        transformer = parts.network(QwenImageTransformer2DModel, "transformer", flow.dtype(device))
        vae = parts.network(AutoencoderKLQwenImage, "vae", torch.float32)
        text_encoder = parts.network(Qwen2_5_VLForConditionalGeneration, "text_encoder", flow.dtype(device))
        words = text_encoder.config.get_text_config()
        flow.check_fit(
            parts.where,
            {
                "the transformer's in_channels": (transformer.config.in_channels, 4 * vae.config.z_dim),
                "the transformer's joint_attention_dim": (transformer.config.joint_attention_dim, words.hidden_size),
                "the transformer's guidance_embeds": (transformer.config.guidance_embeds, False),
                # A layered model draws several pictures at once.
                "the transformer's use_additional_t_cond": (transformer.config.use_additional_t_cond, False),
            },
        )
        tokenizer = TextTokenizer(
            parts.folder("tokenizer"), Qwen2Tokenizer, words.vocab_size, PREFIX + LENGTH, lambda _, text: TEMPLATE.format(text)
        )
        tokenizer.check_letters()
        schedule = FlowSchedule(parts.file("scheduler", "scheduler_config.json"), vae.config.z_dim)
        return cls(transformer, vae, text_encoder, tokenizer, schedule, device)

    def encode(self, request: Mapping[str, Any], tools: Tools) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """As `Family.encode`: the text encoder's last state, without the template's beginning."""
        made: dict[str, torch.Tensor] = {}
        heard: dict[str, Any] = {}
        for name, field, text in flow.texts(NAME, request):
            tokens, mask, heard[field] = self._tokenizer.read(text, padded=False)
            # The language head beside it would reckon a score for every word of its vocabulary.
            states = self._text_encoder.model(input_ids=tokens.to(self._device), attention_mask=mask.to(self._device))
            hidden = states.last_hidden_state[:, PREFIX:]
            made[name] = hidden.float().cpu()
            tools.hold([hidden, made[name]])
            tools.advance()
        return made, heard

    def condition(self, encoded: Mapping[str, torch.Tensor], request: Mapping[str, Any]) -> Conditioning:
        """As `Family.condition`: `positive` and, where guidance is above 1, `negative`, [1, tokens, width] each."""
        return flow.guided_by(NAME, encoded, request, self._device, self._transformer.dtype)

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int, int]:
        """As `Family.latent_shape`."""
        flow.check_size(NAME, width, height, 2 * self._scale)
        return (1, self._vae.config.z_dim, height // self._scale, width // self._scale)

    @exactness.for_transformer()
    def predict(self, latents: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """As `Family.predict`: a pass for each text, since they differ in length."""
        rows, columns = latents.shape[2:]
        dtype = self._transformer.dtype
        given: dict[str, Any] = {
            "hidden_states": flow.pack(latents).to(dtype),
            "timestep": t.to(dtype).expand(1) / 1000,
            "img_shapes": [[(1, rows // 2, columns // 2)]],
            "return_dict": False,
        }
        texts = conditioning.tensors
        predicted = self._transformer(**given, encoder_hidden_states=texts["positive"])[0].float()
        if "negative" in texts:
            without = self._transformer(**given, encoder_hidden_states=texts["negative"])[0].float()
            guided = without + conditioning.guidance * (predicted - without)
            predicted = guided * (torch.norm(predicted, dim=-1, keepdim=True) / torch.norm(guided, dim=-1, keepdim=True))
        return flow.unpack(predicted, rows, columns)

    def decode(self, latents: torch.Tensor, tools: Tools) -> torch.Tensor:
        """As `Family.decode`: each channel has a mean and a deviation of its own, and the picture is a film of one
        frame."""
        config = self._vae.config
        latents = latents.to(self._device, torch.float32).unsqueeze(2)
        mean = torch.tensor(config.latents_mean, device=self._device).view(1, -1, 1, 1, 1)
        deviation = torch.tensor(config.latents_std, device=self._device).view(1, -1, 1, 1, 1)
        # As the pipeline reckons it, to the last bit.
        scaled = latents / (1.0 / deviation) + mean
        tools.hold([latents, scaled])
        return autoencoder.decoded(self._vae, scaled)[0, :, 0]
