"""What UNets and autoencoders spend a GPU's time on, computed in another way than torch does it: group norms with the
SiLU behind them, gated linear units, and attention of one head. On NVIDIA's GPUs by kernels of our own.

torch's group norm gives each group of a picture to one block of threads, so 32 of a GPU's processors work and the rest
wait. Its gated unit reads halves of rows by single numbers. Its attention for fp32 with a head as wide as 512 finds no
tensor core. Figures: docs/benchmarks.md.
"""

from __future__ import annotations

import types
import weakref
from typing import Any

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch.nn.functional import linear, silu

from darkroom import kernels

# Scores of queries against all keys at a time, fp32: 256 MiB.
SCORES = 1 << 26

_suited: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()


def suit(network: torch.nn.Module, device: torch.device) -> None:
    """Has a network's group norms, gated units and attentions of one head computed as this module does it, on a GPU. On
    a CPU torch's own are as fast, and the bits are those of diffusers. Once for each; again is nothing."""
    if device.type != "cuda" or network in _suited:
        return
    _suited.add(network)
    for module in network.modules():
        if isinstance(module, torch.nn.GroupNorm):
            _give(module, group_norm)
        elif isinstance(module, GEGLU):
            _give(module, gated)
        elif isinstance(module, Transformer2DModel) and module.is_input_continuous:
            _give(module, _as_it_lies, "_get_output_for_continuous_inputs")
        elif isinstance(module, Attention) and module.heads == 1 and module.group_norm is not None:
            module.set_processor(Rows())  # pyrefly: ignore[bad-argument-type]
    for module in network.modules():
        if isinstance(module, ResnetBlock2D):
            _join(module)


def layout(device: torch.device) -> torch.memory_format:
    """How what a suited network takes is to lie: on a GPU convolutions want channels beside one another, and would copy
    planes to and fro."""
    return torch.contiguous_format if device.type == "cpu" else torch.channels_last


def _give(module: torch.nn.Module, method: Any, name: str = "forward") -> None:
    setattr(module, name, types.MethodType(method, module))


def _join(block: Any) -> None:
    """Has the norms of a residual block give what their SiLU makes of it."""
    if not isinstance(block.nonlinearity, torch.nn.SiLU) or block.time_embedding_norm != "default":
        return
    for norm in (block.norm1, block.norm2):
        if not isinstance(norm, torch.nn.GroupNorm):
            return
    _give(block.norm1, group_norm_silu)
    _give(block.norm2, group_norm_silu)
    # The block's SiLU stands before its projection of the time too.
    block.nonlinearity = torch.nn.Identity()
    if block.time_emb_proj is not None and not block.skip_time_act:
        _give(block.time_emb_proj, _after_silu)


def _after_silu(projection: torch.nn.Linear, given: torch.Tensor) -> torch.Tensor:
    return linear(silu(given), projection.weight, projection.bias)


def _as_it_lies(
    block: Transformer2DModel,
    hidden_states: torch.Tensor,
    residual: torch.Tensor,
    batch_size: int,
    height: int,
    width: int,
    inner_dim: int,
) -> torch.Tensor:
    """The end of a block of attention: tokens as the picture they are of, [rows, channels, height, width], whose
    channels lie beside one another already. diffusers copies them into planes."""
    if block.use_linear_projection:
        hidden_states = block.proj_out(hidden_states)
    states = hidden_states.reshape(batch_size, height, width, inner_dim).permute(0, 3, 1, 2)
    return (states if block.use_linear_projection else block.proj_out(states)) + residual


def group_norm(norm: torch.nn.GroupNorm, given: torch.Tensor) -> torch.Tensor:
    """`norm` of `given`, [rows, channels, …], in its dtype."""
    if _is_own(given, norm.weight):
        return kernels.group_norm(given, norm.num_groups, norm.weight, norm.bias, norm.eps)
    return torch.nn.functional.group_norm(given, norm.num_groups, norm.weight, norm.bias, norm.eps)


def group_norm_silu(norm: torch.nn.GroupNorm, given: torch.Tensor) -> torch.Tensor:
    """SiLU of `norm` of `given`, [rows, channels, …], in its dtype."""
    if _is_own(given, norm.weight):
        return kernels.group_norm(given, norm.num_groups, norm.weight, norm.bias, norm.eps, is_silu=True)
    return silu(group_norm(norm, given))


def gated(unit: GEGLU, given: torch.Tensor) -> torch.Tensor:
    """`unit` of `given`, [… , channels]."""
    projected = unit.proj(given)
    if _is_own(projected, None):
        return kernels.gated(projected)
    number, gate = projected.chunk(2, dim=-1)
    return number * torch.nn.functional.gelu(gate)


def _is_own(given: torch.Tensor, weight: torch.Tensor | None) -> bool:
    """Whether a kernel of our own computes it: none has a gradient, and what is compiled is joined with its
    neighbours instead."""
    return (
        kernels.are_there(given.device)
        and not torch.compiler.is_compiling()
        and given.dtype in kernels.ELEMENTS
        and (weight is None or weight.dtype == given.dtype)
        and not (torch.is_grad_enabled() and (given.requires_grad or (weight is not None and weight.requires_grad)))
    )


class Rows:
    """A diffusers attention processor for self-attention of one head over a picture: as many rows of queries at a time
    as `SCORES` has room for, by two products and a softmax."""

    def __call__(self, attention: Any, hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """`hidden_states`: [rows, channels, height, width], as is what is given back."""
        rows, channels, height, width = hidden_states.shape
        states = hidden_states.reshape(rows, channels, height * width)
        states = attention.group_norm(states).transpose(1, 2)
        query, key, value = attention.to_q(states), attention.to_k(states).transpose(1, 2), attention.to_v(states)
        at_a_time = max(1, SCORES // (rows * height * width))
        made = [((part * attention.scale) @ key).softmax(-1) @ value for part in query.split(at_a_time, 1)]
        states = attention.to_out[0](torch.cat(made, 1))
        states = states.transpose(1, 2).reshape(rows, channels, height, width)
        if attention.residual_connection:
            states = states + hidden_states
        return states / attention.rescale_output_factor
