"""What Qwen-Image-Edit's text encoder sees: reference pictures in the template of a prompt, as patches for Qwen2.5-VL.

Sizes, templates and the tokens left out are those of diffusers' QwenImageEditPipeline, for one picture, and
QwenImageEditPlusPipeline, for up to three (Qwen-Image-Edit-2509 and later). In one thing they are not: the pinned
transformers reckons the places of a picture's tokens in rows and columns, with which Qwen2.5-VL was trained, from
`mm_token_type_ids` alone, and diffusers 0.40 leaves those out. Here they are given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from darkroom import references
from darkroom.families import flow
from darkroom.families.text_tokens import TextTokenizer

BEFORE = (
    "<|im_start|>system\nDescribe the key features of the input image (color, shape, size, texture, objects, background), then "
    "explain how the user's text instruction should alter or modify the image. Generate a new image that meets the user's "
    "requirements while maintaining consistency with the original input where appropriate.<|im_end|>\n<|im_start|>user\n"
)
AFTER = "<|im_end|>\n<|im_start|>assistant\n"
PLACE = "<|image_pad|>"
# Tokens of the template before the first picture, which the transformer is not shown.
PREFIX = 64
# As Qwen-Image-Edit's own preprocessor_config.json has them: no picture of the sizes below is scaled again.
LEAST_PIXELS, MOST_PIXELS = 56 * 56, 12_845_056


@dataclass(frozen=True)
class Edit:
    """How one kind of pipeline shows pictures. `area`: pixels of what the text encoder sees of each; `name`: what
    stands before picture n, from 1."""

    sees: int
    area: int
    name: Callable[[int], str]


EDITS = {
    "QwenImageEditPipeline": Edit(1, references.AREA, lambda _: ""),
    "QwenImageEditPlusPipeline": Edit(3, 384 * 384, lambda number: f"Picture {number}: "),
}
"""By the class that a model's index names; every other draws from text alone."""


class Eyes:
    """The text encoder's, of one model. `encoder`: Qwen2_5_VLForConditionalGeneration."""

    def __init__(self, edit: Edit, encoder: Any, tokenizer: TextTokenizer, where: str):
        self.sees = edit.sees
        self._edit, self._encoder, self._tokenizer = edit, encoder, tokenizer
        sight = encoder.config.vision_config
        self._merged = sight.spatial_merge_size**2
        self._place = encoder.config.image_token_id
        flow.check_fit(where, {f"the tokenizer's id of {PLACE}": (tokenizer.id_of(PLACE), self._place)})
        self._cut = Qwen2VLImageProcessorPil(
            patch_size=sight.patch_size,
            temporal_patch_size=sight.temporal_patch_size,
            merge_size=sight.spatial_merge_size,
            min_pixels=LEAST_PIXELS,
            max_pixels=MOST_PIXELS,
        )

    def look(self, pictures: Sequence[numpy.ndarray], device: torch.device) -> dict[str, torch.Tensor]:
        """`pixel_values`, [patches, numbers of a patch] fp32, and `image_grid_thw`, [pictures, 3]: frames, rows and
        columns of patches."""
        sizes = [references.size_of_area(picture, self._edit.area, 32) for picture in pictures]
        seen = [Image.fromarray(references.scaled(picture, size)) for picture, size in zip(pictures, sizes, strict=True)]
        made = self._cut(seen, return_tensors="pt")
        return {name: made[name].to(device) for name in ("pixel_values", "image_grid_thw")}

    def read(self, text: str, field: str, seen: dict[str, torch.Tensor], length: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """(what the text encoder is given beside `seen`, what was read of the text, as `TextTokenizer.read` says); of
        the text itself and what stands after it at most `length` tokens. Raises `inference.request_unfit` for a text
        that has the mark of a picture."""
        if PLACE in text:
            raise flow.unfit(field, f"{PLACE} stands for a picture in the text encoder's template: leave it out of the prompt")
        before = BEFORE
        for number, grid in enumerate(seen["image_grid_thw"].tolist(), start=1):
            places = PLACE * (grid[0] * grid[1] * grid[2] // self._merged)
            before += f"{self._edit.name(number)}<|vision_start|>{places}<|vision_end|>"
        tokens, mask, heard = self._tokenizer.within(before, AFTER, length).read(text, padded=False)
        given = {"input_ids": tokens, "attention_mask": mask, "mm_token_type_ids": (tokens == self._place).int()}
        return given, heard
