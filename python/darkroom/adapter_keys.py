"""Whose tensors an adapter's file holds: the names that kohya, LDM, diffusers and peft give them.

A name is (prefix of the part)(module)(what the tensor is to the module). Each dialect writes the three in its own way:

| dialect | name |
| --- | --- |
| kohya | `lora_unet_down_blocks_0_attentions_0_…_to_q.lora_down.weight`, `lora_te1_text_model_encoder_…`, `lycoris_…` |
| LDM | `lora_unet_input_blocks_4_1_…`, `diffusion_model.input_blocks.4.1.….lora_A.weight` |
| diffusers | `unet.….to_q.lora_A.weight`, `unet.….attn2.processor.to_q_lora.down.weight` |
| its text encoders | `text_encoder.….lora_B.weight`, `text_encoder.….lora_linear_layer.up.weight` |
| peft | `base_model.model.….to_q.lora_A.default.weight` |

Pure: nothing here reads a file or holds a tensor. A module is compared with `_` for `.`, since kohya's names have lost
the difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

DENOISER = "denoiser"
"""The network that draws, whatever its family calls it: `unet` or `transformer`."""
TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")

# What a tensor is to its module, by the words of each dialect.
_WORDS = {
    **dict.fromkeys(("lora_down", "lora_A"), "down"),
    **dict.fromkeys(("lora_up", "lora_B"), "up"),
    "lora_mid": "mid",
    "alpha": "alpha",
    "dora_scale": "magnitude",
    # peft's are of the rows, whatever shape it keeps them in.
    "lora_magnitude_vector": "row_magnitude",
    **{name: name for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")},
    **{name: name for name in ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")},
    **dict.fromkeys(("diff", "w_norm"), "diff"),
    **dict.fromkeys(("diff_b", "b_norm"), "diff_b"),
}
# `….lora_A.weight`, `….lora_A.default_0.weight`, `….alpha`: peft puts the name of the adapter behind the word.
_END = re.compile(rf"\.({'|'.join(_WORDS)})(?:\.(?!(?:weight|bias)$)[\w-]+)?(?:\.(weight|bias))?$")
_HALF = re.compile(r"(?:\.lora|_lora|\.lora_linear_layer)\.(down|up)\.weight$")

_PREFIXES = tuple(
    (re.compile(pattern), part)
    for pattern, part in (
        (r"base_model\.model\.(?=(?:text_model|encoder)\.)", "text_encoder"),
        (r"base_model\.model\.", None),
        (r"lora_te1?_|lycoris_(?=text_model_)", "text_encoder"),
        (r"lora_te2_", "text_encoder_2"),
        (r"lora_te3_", "text_encoder_3"),
        (r"lora_unet_|lora_transformer_|lycoris_", DENOISER),
        (r"(?:unet|transformer|(?:model\.)?diffusion_model)\.", DENOISER),
        (r"text_encoder\.|(?:text_encoders\.)?clip_l\.(?:transformer\.)?", "text_encoder"),
        (r"text_encoder_2\.|(?:text_encoders\.)?clip_g\.(?:transformer\.)?", "text_encoder_2"),
        (r"text_encoder_3\.|(?:text_encoders\.)?t5xxl\.(?:transformer\.)?", "text_encoder_3"),
        (r"(?=text_model\.)", "text_encoder"),
    )
)


@dataclass(frozen=True)
class Key:
    """`part`: `denoiser` or a text encoder; `module`: its name with `_` for `.`; `word`: `down`, `up`, `alpha` …"""

    part: str
    module: str
    word: str


def key_of(name: str) -> Key | None:
    """What the tensor of that name is; None for one that is no part of an adapter."""
    half = _HALF.search(name)
    end = _END.search(name)
    if half:
        owner, word = name[: half.start()], half[1]
    elif end:
        owner, word = name[: end.start()], _WORDS[end[1]]
        # The bias of the up projection: what it adds does not go through the low rank.
        if end[2] == "bias" and word != "up":
            return None
        word = "up_bias" if end[2] == "bias" else word
    else:
        return None
    part = None
    # peft's prefix may stand before another one.
    for _ in range(2):
        found = next(((match, of) for pattern, of in _PREFIXES if (match := pattern.match(owner))), None)
        if found is None:
            break
        owner, part = owner[found[0].end() :], found[1] or part
        if found[1] is not None:
            break
    return Key(part or DENOISER, owner.replace(".", "_").replace("_processor_", "_"), word)


def modules_of(part: str, names: Iterable[str], config: Any) -> dict[str, str]:
    """Modules of a network by every name that a dialect has for them, `_` for `.`. `names`: those of its modules today;
    `config`: of a network that draws."""
    every = list(names)
    found: dict[str, str] = {}
    for name in every:
        flat = name.replace(".", "_")
        found[flat] = name
        if part in TEXT_ENCODERS:
            # Transformers calls the same layers by both names, with the version.
            found[flat.removeprefix("text_model_") if flat.startswith("text_model_") else f"text_model_{flat}"] = name
        if name.endswith(".to_out.0"):
            # diffusers' first attention processors name the layer without its place.
            found[flat.removesuffix("_0")] = name
    if part == DENOISER and "up_block_types" in config:
        pairs = _original_blocks(config)
        for name in every:
            if original := _original(name, pairs):
                found.setdefault(original.replace(".", "_"), name)
    return found


# Inside a residual block: diffusers' names and LDM's.
_INSIDE = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def _original(name: str, pairs: Mapping[str, str]) -> str | None:
    """The name that LDM has for a module of diffusers' UNet; None for one that LDM does not have."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        block = pairs.get(".".join(parts[:length]))
        if block is not None:
            rest = [_INSIDE.get(each, each) for each in parts[length:]] if "resnets" in parts[:length] else parts[length:]
            return ".".join([block, *rest])
    return None


def _original_blocks(config: Mapping[str, Any]) -> dict[str, str]:
    """Blocks of diffusers' UNet → those of LDM, which counts layers through all blocks (`openaimodel.py` in
    CompVis/latent-diffusion)."""
    blocks = len(config["block_out_channels"])
    layers = config["layers_per_block"]
    layers = [layers] * blocks if isinstance(layers, int) else list(layers)
    pairs = {
        "conv_in": "input_blocks.0.0",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
    at = 1
    for block in range(blocks):
        for layer in range(layers[block]):
            pairs[f"down_blocks.{block}.resnets.{layer}"] = f"input_blocks.{at}.0"
            pairs[f"down_blocks.{block}.attentions.{layer}"] = f"input_blocks.{at}.1"
            at += 1
        if block < blocks - 1:
            pairs[f"down_blocks.{block}.downsamplers.0.conv"] = f"input_blocks.{at}.0.op"
            at += 1
    at = 0
    for block in range(blocks):
        attends = "CrossAttn" in config["up_block_types"][block]
        last = layers[blocks - 1 - block]
        for layer in range(last + 1):
            pairs[f"up_blocks.{block}.resnets.{layer}"] = f"output_blocks.{at}.0"
            pairs[f"up_blocks.{block}.attentions.{layer}"] = f"output_blocks.{at}.1"
            if layer == last and block < blocks - 1:
                pairs[f"up_blocks.{block}.upsamplers.0.conv"] = f"output_blocks.{at}.{2 if attends else 1}.conv"
            at += 1
    return pairs
