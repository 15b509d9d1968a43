"""Qwen-Image: a transformer with a stream for the text and one for the picture, led by Qwen2.5-VL.

Qwen Team 2025, "Qwen-Image Technical Report", arXiv 2508.02324. The conditioning is that of diffusers'
QwenImagePipeline: guidance is classifier-free, and the guided prediction keeps the length of the unguided one in each
token. Qwen-Image-Edit is shown reference pictures too: its text encoder, and its transformer as tokens after those that
it draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy
import torch
from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

from darkroom import control, exactness, references
from darkroom.families import Conditioning, autoencoder, flow, tiles
from darkroom.families.latent_rgb import QWEN, LatentRgb
from darkroom.families.parts import Parts, dtype_of, index_of, weight_bytes
from darkroom.families.qwen_eyes import EDITS, Eyes
from darkroom.families.qwen_eyes import PREFIX as EDIT_PREFIX
from darkroom.families.text_tokens import TextTokenizer
from darkroom.fast import Ways
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
    """A `Family`. Encoded texts: `positive` and, where guidance is above 1, `negative`, [1, tokens, width] fp32, as
    many tokens as the text has. Latents: 16 channels, 8 pixels a cell; a token is 2 × 2 cells. Seen of pictures:
    `reference`, [1, tokens, 4 · channels], and `reference_sizes`, [pictures, 2], rows and columns of tokens, which
    stays on the CPU."""

    steered_by: Sequence[str] = ("QwenImageControlNetModel",)
    fast: ClassVar[Ways] = Ways("transformer", ("transformer_blocks",), varies=True)
    parts: ClassVar[Sequence[str]] = ("scheduler", "text_encoder", "tokenizer", "transformer", "vae")

    def __init__(
        self,
        transformer: Any,
        vae: Any,
        text_encoder: Any,
        tokenizer: TextTokenizer,
        schedule: FlowSchedule,
        device: torch.device,
        eyes: Eyes | None = None,
    ):
        self.bytes = weight_bytes(transformer, vae, text_encoder)
        self.latent_rgb: LatentRgb | None = QWEN.of(vae.config.z_dim)
        self.hears = transformer.config.joint_attention_dim
        self.schedule = schedule
        self._transformer, self._vae, self._text_encoder, self._tokenizer = transformer, vae, text_encoder, tokenizer
        self._dtype = dtype_of(transformer)
        self._device = device
        self._eyes = eyes
        self.sees = 0 if eyes is None else eyes.sees
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
        edit = EDITS.get(index_of(parts).get("_class_name", ""))
        eyes = None if edit is None else Eyes(edit, text_encoder, tokenizer, parts.where)
        return cls(transformer, vae, text_encoder, tokenizer, schedule, device, eyes)

    def encode(self, request: Mapping[str, Any], tools: Tools) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """As `Family.encode`: the text encoder's last state, without the template's beginning. A model for edits needs
        a picture."""
        made: dict[str, torch.Tensor] = {}
        heard: dict[str, Any] = {}
        pictures = references.given(tools)
        references.check_count(self.sees, len(pictures))
        if self._eyes and not pictures:
            raise flow.unfit("references", f"this model of {NAME} edits pictures: send the ids of one or more in references")
        seen = self._eyes.look(pictures, self._device) if self._eyes else {}
        for name, field, text in flow.texts(NAME, request):
            if self._eyes:
                given, heard[field] = self._eyes.read(text, field, seen, LENGTH)
                first = EDIT_PREFIX
            else:
                tokens, mask, heard[field] = self._tokenizer.read(text, padded=False)
                given, first = {"input_ids": tokens, "attention_mask": mask}, PREFIX
            if not flow.is_heard(name, request):
                continue
            given = {argument: tensor.to(self._device) for argument, tensor in given.items()}
            # The language head beside it would reckon a score for every word of its vocabulary.
            hidden = self._text_encoder.model(**given, **seen).last_hidden_state[:, first:]
            made[name] = hidden.float().cpu()
            tools.hold([hidden, made[name]])
            tools.advance()
        return made, heard

    def condition(self, encoded: Mapping[str, torch.Tensor], request: Mapping[str, Any]) -> Conditioning:
        """As `Family.condition`: `positive` and, where guidance is above 1, `negative`, [1, tokens, width] each."""
        return flow.guided_by(NAME, encoded, request, self._device, self._dtype)

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int, int]:
        """As `Family.latent_shape`."""
        flow.check_size(NAME, width, height, 2 * self._scale)
        return (1, self._vae.config.z_dim, height // self._scale, width // self._scale)

    @exactness.for_attention()
    def predict(self, latents: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """As `Family.predict`: a pass for each text, since they differ in length."""
        rows, columns = latents.shape[2:]
        dtype = self._dtype
        texts = conditioning.tensors
        tokens = flow.pack(latents).to(dtype)
        drawn = tokens.shape[1]
        sizes = texts["reference_sizes"].tolist() if "reference_sizes" in texts else []
        given: dict[str, Any] = {
            "hidden_states": flow.followed(tokens, conditioning),
            "timestep": t.to(dtype).expand(1) / 1000,
            "img_shapes": [[(1, rows // 2, columns // 2), *((1, high, wide) for high, wide in sizes)]],
            "return_dict": False,
        }

        def call(one: control.Control) -> Any:
            # By the prompt; the pass of the negative one is steered alike.
            made = one.network.network(
                **given, encoder_hidden_states=texts["positive"], controlnet_cond=one.picture, conditioning_scale=one.weight
            )
            return (made,)

        steering = control.acting(conditioning.controls, call)
        if steering:
            given["controlnet_block_samples"] = steering[0]
        predicted = self._transformer(**given, encoder_hidden_states=texts["positive"])[0][:, :drawn].float()
        if "negative" in texts:
            without = self._transformer(**given, encoder_hidden_states=texts["negative"])[0][:, :drawn].float()
            guided = without + conditioning.guidance * (predicted - without)
            predicted = guided * (torch.norm(predicted, dim=-1, keepdim=True) / torch.norm(guided, dim=-1, keepdim=True))
        return flow.unpack(predicted, rows, columns)

    def see(self, pictures: Sequence[numpy.ndarray]) -> Mapping[str, torch.Tensor]:
        """As `Family.see`: each with about `references.AREA` pixels."""
        tokens: list[torch.Tensor] = []
        sizes: list[tuple[int, int]] = []
        for picture in pictures:
            seen = references.scaled(picture, references.size_of_area(picture, references.AREA, 32))
            latents = self._latents(references.signed(seen, self._device))
            tokens.append(flow.pack(latents))
            sizes.append((latents.shape[2] // 2, latents.shape[3] // 2))
        return {"reference": torch.cat(tokens, dim=1).to(self._dtype), "reference_sizes": torch.tensor(sizes)}

    def shown(self, network: control.ControlNet, picture: numpy.ndarray) -> torch.Tensor:
        """As `Family.shown`: the picture's tokens."""
        # Its rows lie one after the other, and a product takes the place of a quotient, as in that pipeline.
        mean, deviation = self._norm()
        made = self._mean_of(references.signed(picture, self._device).contiguous())
        return flow.pack(((made - mean) * (1.0 / deviation))[:, :, 0])

    def _latents(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels, [1, 3, height, width] in -1 to 1, as latents of `latent_shape`."""
        mean, deviation = self._norm()
        return ((self._mean_of(pixels) - mean) / deviation)[:, :, 0]

    def _mean_of(self, pixels: torch.Tensor) -> torch.Tensor:
        """What the autoencoder makes of them, a film of one frame."""

        def encode(given: torch.Tensor) -> torch.Tensor:
            return self._vae.encode(given).latent_dist.mode()

        with exactness.in_tf32():
            return tiles.now().run(encode, pixels.unsqueeze(2), self._scale)

    def _norm(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and deviation of each channel, [1, channels, 1, 1, 1]."""
        config = self._vae.config
        both = (config.latents_mean, config.latents_std)
        mean, deviation = (torch.tensor(values, device=self._device).view(1, -1, 1, 1, 1) for values in both)
        return mean, deviation

    def decode(self, latents: torch.Tensor, tools: Tools) -> torch.Tensor:
        """As `Family.decode`: each channel has a mean and a deviation of its own, and the picture is a film of one
        frame."""
        latents = latents.to(self._device, torch.float32).unsqueeze(2)
        mean, deviation = self._norm()
        # As the pipeline reckons it, to the last bit.
        scaled = latents / (1.0 / deviation) + mean
        tools.hold([latents, scaled])
        return autoencoder.decoded(self._vae, scaled)[0, :, 0]
