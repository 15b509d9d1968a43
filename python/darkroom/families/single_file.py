"""A network from the tensors under one prefix of one file, as trainers and other servers save them.

| layout | networks | converted by |
| --- | --- | --- |
| that of its library | all | nothing: the names are the network's own |
| original (LDM, Black Forest Labs, Stability …) | those of diffusers | diffusers' own functions, one a class |
| OpenCLIP | CLIP's text encoders | diffusers' own function |
| llama.cpp | T5's encoder, Qwen3 | the tables below |

Nothing is fetched and nothing guessed: the part's folder has the network's configuration, every tensor that it speaks
of must be there in its shape, and what is there beyond them is left out.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers.loaders import single_file_model, single_file_utils
from transformers import PreTrainedModel

from darkroom.errors import DarkroomError
from darkroom.families import packed
from darkroom.weight_files import WeightFiles

Tensors = dict[str, torch.Tensor]

UNET = "model.diffusion_model."
"""The prefix that diffusers' function for UNets asks for."""
OPEN_CLIP = "transformer.resblocks.0.ln_1.weight"
"""A tensor that only CLIP's text encoders in OpenCLIP's layout have."""
LLAMA = "token_embd.weight"
"""A tensor that only encoders in llama.cpp's layout have."""
SUCCESSORS = {"AutoencoderKLFlux2": "AutoencoderKL", "AutoencoderKLQwenImage": "AutoencoderKLWan"}
"""Classes that diffusers converts no file for, with those whose original layout is theirs."""


def load(
    kind: Any, folder: str, path: str, prefix: str, weights: WeightFiles, dtype: torch.dtype | None, device: torch.device
) -> Tensors:
    """The tensors of a network of class `kind`, by the names that it has for them, in memory of their own on `device`;
    what was packed in `dtype`, all else of the types that they are stored in: what is made of them comes before any
    other type.

    `folder`: with its `config.json`. `path`: a safetensors or GGUF file, whose tensors under `prefix` are meant. Raises
    `model.corrupt`.
    """
    # Eight bits have scales beside them, and are no numbers by themselves.
    found = weights.read(path, None, lambda name: name.startswith(prefix), device, dtype)
    if not found:
        raise DarkroomError("model.corrupt", f"{path} has no tensor {prefix}*", field="model.path")
    return converted(kind, folder, packed.unpacked({name.removeprefix(prefix): tensor for name, tensor in found.items()}, path, dtype))


def converted(kind: Any, folder: str, tensors: Tensors) -> Tensors:
    """The tensors by the names that class `kind` has for them, whatever layout they came in; `folder`: with its
    `config.json`."""
    if LLAMA in tensors:
        is_t5 = any(name.startswith("enc.") for name in tensors)
        tensors = {_of_llama(name, is_t5): tensor for name, tensor in tensors.items()}
    if issubclass(kind, PreTrainedModel):
        config_class: Any = kind.config_class
        config = config_class.from_pretrained(folder, local_files_only=True)
        if OPEN_CLIP in tensors:
            with init_empty_weights():
                network = kind(config)
            tensors = single_file_utils.convert_open_clip_checkpoint(network, tensors, prefix="")
        # Files of CLIP-L for Stable Diffusion 3 leave it out: it changes nothing there.
        if kind.__name__ == "CLIPTextModelWithProjection" and config.projection_dim == config.hidden_size:
            tensors.setdefault("text_projection.weight", torch.eye(config.projection_dim))
        return tensors
    config = kind.load_config(folder, local_files_only=True)
    with init_empty_weights():
        network = kind.from_config(config)
    if network.state_dict().keys() <= tensors.keys():
        return tensors
    name = single_file_model._get_single_file_loadable_mapping_class(kind) or SUCCESSORS.get(kind.__name__)
    if name is None:
        return tensors
    # Any: a table of all that is said of a class.
    convert: Any = single_file_model.SINGLE_FILE_LOADABLE_CLASSES[name]["checkpoint_mapping_fn"]
    if name == "UNet2DConditionModel":
        tensors = {UNET + key: tensor for key, tensor in tensors.items()}
    takes = inspect.signature(convert).parameters
    made: Tensors = convert(checkpoint=tensors, **({"config": config} if "config" in takes else {}))
    # What the function looked for in vain.
    return {key: tensor for key, tensor in made.items() if tensor is not None}


# llama.cpp's names of what a layer has (`gguf-py/gguf/constants.py`), by those of transformers.
OF_T5 = {
    **{f"attn_{name}": f"layer.0.SelfAttention.{name}" for name in "qkvo"},
    "attn_norm": "layer.0.layer_norm",
    "attn_rel_b": "layer.0.SelfAttention.relative_attention_bias",
    "ffn_gate": "layer.1.DenseReluDense.wi_0",
    "ffn_up": "layer.1.DenseReluDense.wi_1",
    "ffn_down": "layer.1.DenseReluDense.wo",
    "ffn_norm": "layer.1.layer_norm",
    "token_embd": "shared",
    "output_norm": "encoder.final_layer_norm",
}
OF_QWEN = {
    **{f"attn_{name}": f"self_attn.{name}_proj" for name in "qkv"},
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    **{f"ffn_{name}": f"mlp.{name}_proj" for name in ("gate", "up", "down")},
    "ffn_norm": "post_attention_layernorm",
    "token_embd": "embed_tokens",
    "output_norm": "norm",
}
LAYER = re.compile(r"(?:enc\.)?(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)")


def _of_llama(name: str, is_t5: bool) -> str:
    """A tensor of llama.cpp's by transformers' name; one that is none stays as it is, and nobody asks for it."""
    match = LAYER.fullmatch(name)
    known = (OF_T5 if is_t5 else OF_QWEN).get(match[2]) if match else None
    if match is None or known is None:
        return name
    layer = f"{'encoder.block' if is_t5 else 'layers'}.{match[1]}." if match[1] else ""
    return f"{layer}{known}.{match[3]}"
