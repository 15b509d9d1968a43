"""What families share whose denoiser is a UNet over the latents of a KL autoencoder: guidance, the shape of latents,
latents to pixels.

Rombach, Blattmann, Lorenz, Esser and Ommer 2022, "High-Resolution Image Synthesis with Latent Diffusion Models", arXiv
2112.10752.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from darkroom import control, exactness, guidance
from darkroom.errors import DarkroomError
from darkroom.families import Conditioning, autoencoder, suited
from darkroom.families.latent_rgb import of_autoencoder
from darkroom.families.parts import Parts, dtype_of, weight_bytes
from darkroom.fast import Ways
from darkroom.graphs import Replayed
from darkroom.schedule import Schedule
from darkroom.together import Call
from darkroom.tools import Tools


class UNetFamily:
    """The half of a `Family` that knows no text. The UNet computes in the dtype of the device's settings, all else in
    fp32."""

    # Most of a UNet's time goes into these.
    fast: ClassVar[Ways] = Ways("unet", regions=("ResnetBlock2D", "BasicTransformerBlock"))
    shares: bool = True
    sees: int = 0
    steered_by: Sequence[str] = tuple(control.OF_UNETS)
    lends: Any = None
    added: ClassVar[Sequence[str]] = ()
    """Names of the tensors that the UNet takes beside latents, time and text: its `added_cond_kwargs`."""

    def __init__(self, unet: Any, vae: Any, schedule: Schedule, device: torch.device, *encoders: Any):
        self.bytes = weight_bytes(unet, vae, *encoders)
        self.schedule = schedule
        self.hears: int | None = unet.config.cross_attention_dim
        self.latent_rgb = of_autoencoder(vae.config)
        self.paints = unet.config.in_channels != vae.config.latent_channels
        self._unet, self._vae, self._device = unet, vae, device
        self._dtype = dtype_of(unet)
        suited.suit(unet, device)
        self._forward = Replayed(unet, _forward_of(unet, self.added), device)
        # Pixels of a latent cell's side.
        self._scale = 2 ** (len(vae.config.block_out_channels) - 1)

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int, int]:
        """As `Family.latent_shape`."""
        return (1, self._vae.config.latent_channels, height // self._scale, width // self._scale)

    @exactness.for_attention()
    def predict(self, latents: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """As `Family.predict`: classifier-free guidance over both rows in one pass.

        Of the conditioning: `rows`, [rows, tokens, width]; what is `added`; `painting` where the UNet paints, [1, 1 +
        channels, rows, columns], the mask before the picture's latents. Raises `model.unusable` when a UNet that paints
        is shown no picture.
        """
        held = conditioning.tensors
        rows, painting = held["rows"], held.get("painting")
        if self.paints and painting is None:
            raise DarkroomError(
                "model.unusable", "the UNet is one for inpainting: it takes a mask and a picture, and the request has none", field="model"
            )
        seen = latents if painting is None else torch.cat([latents, painting], dim=1)
        # The memory layout decides which kernel runs: the same one after a resume.
        given = torch.cat([seen] * len(rows)).contiguous(memory_format=suited.layout(self._device)).to(self._dtype)
        added = {name: held[name] for name in self.added}
        steered = control.steering(conditioning.controls, latents, t, rows, added)
        predicted = self._forward(given, t, rows, *added.values(), *steered)
        if len(rows) == 1:
            return predicted
        return guidance.guided(predicted[:1], predicted[1:], conditioning)

    def may_go_together(self, one: Call, other: Call) -> bool:
        """As `together.Model.may_go_together`: texts of one length, and nothing that steers or is painted over."""
        both = (one, other)
        if any(call.conditioning.controls or "painting" in call.conditioning.tensors for call in both):
            return False
        shapes = [[call.latents.shape, *(tensor.shape for tensor in call.conditioning.tensors.values())] for call in both]
        return shapes[0] == shapes[1]

    @exactness.for_attention()
    def predict_together(self, calls: Sequence[Call]) -> list[torch.Tensor]:
        """As `together.Model.predict_together`: the rows of each below those of the one before, each at its own
        time."""
        held = [call.conditioning.tensors for call in calls]
        rows = torch.cat([each["rows"] for each in held])
        count = len(rows) // len(calls)
        seen = torch.cat([call.latents for call in calls for _ in range(count)])
        given = seen.contiguous(memory_format=suited.layout(self._device)).to(self._dtype)
        t = torch.stack([call.t for call in calls]).repeat_interleave(count)
        added = [torch.cat([each[name] for each in held]) for name in self.added]
        predicted = self._forward(given, t, rows, *added).split(count)
        if count == 1:
            return list(predicted)
        return [guidance.guided(each[:1], each[1:], call.conditioning) for each, call in zip(predicted, calls, strict=True)]

    def decode(self, latents: torch.Tensor, tools: Tools) -> torch.Tensor:
        """As `Family.decode`, in fp32: not every autoencoder of these families stays finite in fp16."""
        given = latents.to(self._device, torch.float32)
        tools.hold([latents, given])
        return autoencoder.to_pixels(self._vae, given)

    def encode_picture(self, pixels: torch.Tensor) -> torch.Tensor:
        """As `Family.encode_picture`, in the precision of `decode`."""
        return autoencoder.to_latents(self._vae, pixels)

    def shown(self, network: control.ControlNet, picture: numpy.ndarray) -> torch.Tensor:
        """As `Family.shown`: [1, 3, height, width], 0 to 1."""
        return torch.tensor(picture, dtype=torch.float32).permute(2, 0, 1)[None] / 255

    def see(self, pictures: Sequence[numpy.ndarray]) -> Mapping[str, torch.Tensor]:
        """As `Family.see`: these families take none."""
        raise DarkroomError("inference.request_unfit", "this model takes no reference pictures", field="input.references")

    def _stacked(self, encoded: Mapping[str, torch.Tensor], guidance: float, suffix: str = "") -> torch.Tensor:
        """`negative` and `positive` of what `encode` made, one below the other on the device in the UNet's dtype; the
        positive alone where guidance of at most 1 needs no other."""
        names = ["positive"] if guidance <= 1 else ["negative", "positive"]
        return torch.cat([encoded[name + suffix] for name in names]).to(self._device, self._dtype)


def _forward_of(unet: Any, names: Sequence[str]) -> Callable[..., torch.Tensor]:
    """Latents, time, texts, what `names` says and what ControlNets add (nothing, or a tensor a block and the middle's),
    all on the device, to the prediction in fp32. It holds no family: one that is let go of takes its weights along at
    once."""

    def forward(given: torch.Tensor, t: torch.Tensor, rows: torch.Tensor, *more: torch.Tensor) -> torch.Tensor:
        added = dict(zip(names, more, strict=False)) or None
        steered = more[len(names) :]
        steering = {"down_block_additional_residuals": steered[:-1], "mid_block_additional_residual": steered[-1]} if steered else {}
        predicted = unet(given, t, encoder_hidden_states=rows, added_cond_kwargs=added, **steering, return_dict=False)[0]
        return predicted.float().contiguous()

    return forward


def load_networks(parts: Parts, device: torch.device) -> tuple[Any, Any]:
    """(UNet, autoencoder). Raises as `Parts.network`."""
    unet = parts.network(UNet2DConditionModel, "unet", getattr(torch, exactness.precisions(device)["dtype"]))
    return unet, parts.network(AutoencoderKL, "vae", torch.float32)


def check_fit(where: str, unet: Any, vae: Any, expected: Mapping[str, Any]) -> None:
    """Configurations of the parts. Other layouts than the family's are refused here, not in the middle of a picture.

    `expected`: what the family asks of the UNet's configuration besides its channels. Raises `model.corrupt`.
    """
    channels = vae.latent_channels
    asked = {
        "in_channels": (channels, 2 * channels + 1),
        "out_channels": (channels,),
        # Another way to hear a text, a class or a guidance than these families have.
        **dict.fromkeys(("class_embed_type", "num_class_embeds", "encoder_hid_dim", "time_cond_proj_dim"), (None,)),
        **{name: (value,) for name, value in expected.items()},
    }
    for name, values in asked.items():
        if unet[name] not in values:
            wanted = " or ".join(map(str, values))
            raise DarkroomError("model.corrupt", f"{where}: the UNet's {name} is {unet[name]}, not {wanted}", field="model.path")
