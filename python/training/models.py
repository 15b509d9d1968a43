"""Shapes of the family's networks and the noise schedule, in the names diffusers and transformers use.

The latent is four channels at a quarter of the picture's side: small enough for a CPU, and the latent shape
rules of Stable Diffusion 1 hold. The schedule is v-prediction over linear betas: with SD's own betas a share
√ᾱ_T = 0.07 of the picture survives in the last step and flat backgrounds leak towards grey; linear betas
leave 0.006, and v stays well conditioned there (Salimans and Ho 2022, "Progressive Distillation", appendix
D).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, ResNetConfig, ResNetForImageClassification

from .tokenizer import END, LENGTH, START, VOCABULARY_SIZE

TEXT_WIDTH, TEXT_LAYERS, TEXT_HEADS = 96, 3, 4
WIDTHS = (32, 64, 96)
LATENT_CHANNELS = 4
FACTOR = 4
"""Picture pixels for each latent pixel along a side."""

UNET = {
    "sample_size": 32,
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "block_out_channels": WIDTHS,
    "layers_per_block": 1,
    "cross_attention_dim": TEXT_WIDTH,
    # In this version of the config this is the number of heads, not their width.
    "attention_head_dim": 4,
    "norm_num_groups": 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}
VAE = {
    "block_out_channels": (24, 48, 64),
    "layers_per_block": 1,
    "latent_channels": LATENT_CHANNELS,
    "norm_num_groups": 8,
    "sample_size": 128,
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "force_upcast": False,
}
# One stride of two for each gap between entries: three entries reach this VAE's quarter scale, the default
# four would not.
CONTROLNET = {"conditioning_embedding_out_channels": (8, 16, 32), "conditioning_channels": 3}
SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "steps_offset": 0,
}
DDIM_ONLY = {"clip_sample": False, "set_alpha_to_one": False}
SAFETY_SIDE = 64
"""Side in pixels of the classifier's input."""


def alphas_cumulative() -> torch.Tensor:
    """ᾱ_t of the schedule, float32 [1000]."""
    steps, first, last = (SCHEDULER[name] for name in ("num_train_timesteps", "beta_start", "beta_end"))
    return torch.cumprod(1 - torch.linspace(first, last, steps, dtype=torch.float64), 0).float()


def new_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(**UNET)


def new_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """A ControlNet that starts as a copy of the UNet's encoder behind zero convolutions (Zhang et al.
    2023).
    """
    return ControlNetModel.from_unet(unet, **CONTROLNET)


def text_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=TEXT_LAYERS,
        num_attention_heads=TEXT_HEADS,
        max_position_embeddings=LENGTH,
        vocab_size=VOCABULARY_SIZE,
        projection_dim=TEXT_WIDTH,
        hidden_act="quick_gelu",
        bos_token_id=START,
        eos_token_id=END,
        pad_token_id=END,
    )


def new_text_encoder() -> CLIPTextModel:
    return CLIPTextModel(text_config())


def encode_text(model: CLIPTextModel, ids: torch.Tensor) -> torch.Tensor:
    """The text encoder's last hidden state, [N, 32] int -> [N, 32, 96].

    Written out because CLIPTextModel.forward builds its mask on the host, which a CUDA graph cannot capture;
    a test holds the two equal.
    """
    model = getattr(model, "text_model", model)
    length = ids.shape[1]
    hidden = model.embeddings.token_embedding(ids) + model.embeddings.position_embedding.weight[:length][None]
    for layer in model.encoder.layers:
        attention, normed = layer.self_attn, layer.layer_norm1(hidden)
        query, key, value = (
            project(normed).unflatten(-1, (TEXT_HEADS, -1)).transpose(1, 2)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2).flatten(2)
        hidden = hidden + attention.out_proj(mixed)
        inner = layer.mlp.fc1(layer.layer_norm2(hidden))
        hidden = hidden + layer.mlp.fc2(inner * torch.sigmoid(1.702 * inner))
    return model.final_layer_norm(hidden)


def new_vae() -> AutoencoderKL:
    """A VAE with a quiet start: the posterior's deviation begins at 0.05.

    Started at 1, the noise drowns the signal until the encoder has raised its scale, and channels die
    meanwhile (21 dB instead of 40, whatever the weight of the KL term).
    """
    vae = AutoencoderKL(**VAE)
    with torch.no_grad():
        vae.quant_conv.bias[LATENT_CHANNELS:].fill_(-6.0)
        vae.quant_conv.weight[LATENT_CHANNELS:].mul_(0.1)
    return vae


def posterior(vae: AutoencoderKL, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and log-variance, float32 [N, 4, H/4, W/4], of pictures [N, 3, H, W] in -1 to 1."""
    mean, log_variance = vae.quant_conv(vae.encoder(picture)).float().chunk(2, 1)
    return mean, log_variance.clamp(-30, 20)


@torch.no_grad()
def encode(vae: AutoencoderKL, pictures: torch.Tensor, chunk: int = 50) -> torch.Tensor:
    """Posterior means of uint8 pictures [N, 3, H, W], unscaled."""
    dtype = vae.dtype
    return torch.cat([posterior(vae, (part.float() / 127.5 - 1).to(dtype))[0] for part in pictures.split(chunk)])


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: torch.Tensor, chunk: int = 50) -> torch.Tensor:
    """uint8 pictures [N, 3, H, W] of unscaled latents."""
    parts = []
    for part in latents.split(chunk):
        picture = vae.decoder(vae.post_quant_conv(part.to(vae.dtype))).float()
        parts.append(((picture.clamp(-1, 1) + 1) * 127.5).round().byte())
    return torch.cat(parts)


class Compact(nn.Module):
    """x2 upscaler: 3 x 3 convolutions with PReLU, pixel shuffle, added to the nearest-neighbour enlargement.

    The "Compact" network of Real-ESRGAN (SRVGGNetCompact) with 24 features and 6 inner convolutions; the
    parameter names are those its loaders expect.
    """

    def __init__(self, features: int = 24, inner: int = 6, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor
        layers: list[nn.Module] = [nn.Conv2d(3, features, 3, padding=1), nn.PReLU(features)]
        for _ in range(inner):
            layers += [nn.Conv2d(features, features, 3, padding=1), nn.PReLU(features)]
        layers.append(nn.Conv2d(features, 3 * factor**2, 3, padding=1))
        self.body = nn.ModuleList(layers)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] in 0 to 1 -> [N, 3, 2H, 2W]."""
        hidden = picture
        for layer in self.body:
            hidden = layer(hidden)
        return F.pixel_shuffle(hidden, self.factor) + F.interpolate(picture, scale_factor=self.factor, mode="nearest")


def new_classifier(labels: dict[int, str]) -> ResNetForImageClassification:
    """A tiny ResNet with one independent output for each label."""
    config = ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        problem_type="multi_label_classification",
        id2label=labels,
        label2id={name: key for key, name in labels.items()},
    )
    return ResNetForImageClassification(config)
