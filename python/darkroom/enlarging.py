"""The way from one pass to a larger one: latents are stretched, or decoded, enlarged as a picture, and encoded again.

Pictures are enlarged in whole numbers by Pillow, latents in fp32 on the CPU, so that both are the same on every device.
"""

from __future__ import annotations

import torch

from darkroom import pictures, upscaling
from darkroom.families import Family
from darkroom.tools import Tools

# Names of `torch.nn.functional.interpolate`.
OF_LATENTS = {"latent": "bilinear", "latent-bicubic": "bicubic", "latent-nearest": "nearest-exact"}


def enlarged(model: Family, latents: torch.Tensor, tools: Tools) -> torch.Tensor:
    """`latents`, [1, channels, rows, columns] fp32 on the CPU, at the request's `width` and `height`: by its
    `upscaler`, the name of a filter or a network, which comes beside the model. Raises as `Models.get` and
    `upscaling.by_network`."""
    size = (tools.input["width"], tools.input["height"])
    upscaler = tools.input["upscaler"]
    if not isinstance(upscaler, dict) and upscaler in OF_LATENTS:
        return torch.nn.functional.interpolate(latents, model.latent_shape(*size)[2:], mode=OF_LATENTS[upscaler])
    image = model.decode(latents, tools)
    tools.hold([image])
    drawn = pictures.rgb(image)
    if isinstance(upscaler, dict):
        network = tools.runtime.models.beside(upscaler, tools)
        larger, _, _ = upscaling.by_network(drawn, size, network, tools, resumes=False)
    else:
        larger = upscaling.resized(drawn, size, upscaler)
    return model.encode_picture(pictures.signed(larger, tools.runtime.device))
