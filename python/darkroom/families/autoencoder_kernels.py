"""What an autoencoder spends a GPU's time on, computed in another order than torch does: group norms and the attention
in its middle. On an H200 they take 58 of the 114 ms that SDXL's takes for 1024², and 5 after this (bench/gpu/vae.py).

torch's group norm gives each group of a picture to one block of threads, so 32 of a GPU's processors work and the rest
wait. Its attention for fp32 with a head as wide as 512 finds no tensor core. Both are the same sums here, added in
another order: no bit is promised to be torch's, only to be the same at each run.
"""

from __future__ import annotations

import types
import weakref
from typing import Any

import torch
from diffusers.models.attention_processor import Attention

# Scores of queries against all keys at a time, fp32: 256 MiB.
SCORES = 1 << 26

_suited: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()


def suit(network: torch.nn.Module) -> None:
    """Has the group norms of a network, and its attentions of one head, computed as this module does it. Once for each;
    again is nothing."""
    if network in _suited:
        return
    _suited.add(network)
    for module in network.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.forward = types.MethodType(group_norm, module)  # pyrefly: ignore[method-assign]
        elif isinstance(module, Attention) and module.heads == 1:
            module.set_processor(Rows())  # pyrefly: ignore[bad-argument-type]


def group_norm(norm: torch.nn.GroupNorm, given: torch.Tensor) -> torch.Tensor:
    """`norm` of `given`, [rows, channels, …], in its dtype. Moments of each channel first, in fp32 by Welford's
    algorithm, then those of a group from its channels', which are equally many numbers each (Chan, Golub and LeVeque
    1979, "Updating formulae and a pairwise algorithm for computing sample variances")."""
    rows, channels = given.shape[:2]
    shape = (rows, channels, *(1,) * (given.dim() - 2))
    variances, means = torch.var_mean(given.float(), tuple(range(2, given.dim())), correction=0)
    grouped = (rows, norm.num_groups, channels // norm.num_groups)
    means, variances = means.view(grouped), variances.view(grouped)
    mean = means.mean(2, keepdim=True)
    variance = (variances + (means - mean).square()).mean(2, keepdim=True)
    scale = (variance + norm.eps).rsqrt().expand(grouped).reshape(rows, channels)
    shift = -mean.expand(grouped).reshape(rows, channels) * scale
    if norm.affine:
        weight, bias = norm.weight.float(), norm.bias.float()
        scale, shift = scale * weight, shift * weight + bias
    return torch.addcmul(shift.view(shape).to(given.dtype), given, scale.view(shape).to(given.dtype))


class Rows:
    """A diffusers attention processor for self-attention of one head over a picture: as many rows of queries at a time
    as `SCORES` has room for, by two products and a softmax."""

    def __call__(self, attention: Any, hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """`hidden_states`: [rows, channels, height, width], as is what is given back."""
        rows, channels, height, width = hidden_states.shape
        states = hidden_states.view(rows, channels, height * width)
        states = attention.group_norm(states).transpose(1, 2)
        query, key, value = attention.to_q(states), attention.to_k(states).transpose(1, 2), attention.to_v(states)
        at_a_time = max(1, SCORES // (rows * height * width))
        made = [((part * attention.scale) @ key).softmax(-1) @ value for part in query.split(at_a_time, 1)]
        states = attention.to_out[0](torch.cat(made, 1))
        states = states.transpose(1, 2).reshape(rows, channels, height, width)
        if attention.residual_connection:
            states = states + hidden_states
        return states / attention.rescale_output_factor
