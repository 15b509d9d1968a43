"""The difference that an adapter makes to one weight, by its algorithm.

| algorithm | the difference | source |
| --- | --- | --- |
| LoRA, LoCon | B·A · α/r; of a convolution A is one; a Tucker core may lie between | arXiv 2106.09685; LyCORIS |
| LoHa | (B₁·A₁) ⊙ (B₂·A₂) · α/r | arXiv 2108.06098; LyCORIS (arXiv 2309.14859) |
| LoKr | C ⊗ D · α/r, each whole or a product; without a product α means nothing | LyCORIS |
| DoRA | m · (W + Δ) / ‖W + Δ‖ − W, with Δ of one of the above | arXiv 2402.09353 |
| full | the difference itself | |

α that is absent is the rank, so that the factor is 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

Held = Mapping[str, torch.Tensor]
"""The tensors of one module by their words, see `adapter_keys`."""


class Unfit(Exception):
    """The tensors do not make a difference to this weight; the text says why."""


def is_whole(held: Held) -> bool:
    """Whether these tensors make a difference to the module's weight, by names alone."""
    return (
        ("up" in held and "down" in held)
        or all(f"hada_w{n}_{half}" in held for n in (1, 2) for half in ("a", "b"))
        or all(f"lokr_w{n}" in held or (f"lokr_w{n}_a" in held and f"lokr_w{n}_b" in held) for n in (1, 2))
        or "diff" in held
    )


def add(total: torch.Tensor, base: torch.Tensor, held: Held, strength: float, factor: float | None = None) -> None:
    """Adds the difference to `total`, fp32 in the shape of `base`, which stays; `strength`: the request's weight;
    `factor`: α/r where the file's metadata say it and no tensor does.

    Raises Unfit when the shapes do not fit.
    """
    try:
        if "up" in held and not held.keys() & {"mid", "magnitude", "row_magnitude"}:
            up, down = _matrix(held["up"]), _matrix(held["down"])
            _check(up.shape[0] * down.shape[1], base, up.shape[0])
            total.view(base.shape[0], -1).addmm_(up, down, alpha=strength * _factor(held, down.shape[0], factor))
            return
        made = _shaped(_difference(held, factor), base)
        if "row_magnitude" in held:
            made = _decomposed(base, made, held["row_magnitude"], 0) - base
        elif "magnitude" in held:
            made = _decomposed(base, made, held["magnitude"], _side(base, held["magnitude"])) - base
        total.add_(made, alpha=strength)
    except (RuntimeError, IndexError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise Unfit(_shapes(held, base)) from error


def _difference(held: Held, factor: float | None) -> torch.Tensor:
    """fp32, in the weight's own order of numbers."""
    if "up" in held:
        up, down = _matrix(held["up"]), _matrix(held["down"])
        scale = _factor(held, down.shape[0], factor)
        return (_tucker(held["mid"], down, up.T) if "mid" in held else up @ down) * scale
    if "hada_w1_a" in held:
        pairs = [(held[f"hada_w{n}_a"].float(), held[f"hada_w{n}_b"].float(), held.get(f"hada_t{n}")) for n in (1, 2)]
        first, second = (a @ b if core is None else _tucker(core, b, a) for a, b, core in pairs)
        return first * second * _factor(held, pairs[0][1].shape[0], factor)
    if "diff" in held:
        return held["diff"].float()
    rank = None
    factors = []
    for n in (1, 2):
        whole, core = held.get(f"lokr_w{n}"), held.get(f"lokr_t{n}")
        if whole is not None:
            factors.append(whole.float())
            continue
        a, b = held[f"lokr_w{n}_a"].float(), held[f"lokr_w{n}_b"].float()
        rank = b.shape[0]
        factors.append(a @ b if core is None else _tucker(core, b, a))
    first, second = factors
    # Of a convolution the second factor has its window.
    first = first.reshape(*first.shape, *([1] * (second.dim() - first.dim())))
    return torch.kron(first.contiguous(), second.contiguous()) * (1.0 if rank is None else _factor(held, rank, factor))


def _side(base: torch.Tensor, magnitude: torch.Tensor) -> int:
    """Rows or columns, by the shape: the first trainers had columns, [1, in, …], later ones rows, [out, …]."""
    is_columns = magnitude.dim() > 1 and magnitude.shape[0] == 1 and base.shape[0] != 1
    return 0 if magnitude.numel() == base.shape[0] and not is_columns else 1


def _decomposed(base: torch.Tensor, difference: torch.Tensor, magnitude: torch.Tensor, kept: int) -> torch.Tensor:
    """Direction and magnitude apart; `kept`: the side that has a magnitude each, 0 for rows, 1 for columns."""
    merged = base + difference
    if magnitude.numel() != base.shape[kept]:
        raise Unfit(f"its magnitudes are {list(magnitude.shape)}, and the weight is {list(base.shape)}")
    norm = torch.linalg.vector_norm(merged, dim=[each for each in range(base.dim()) if each != kept], keepdim=True)
    shape = [-1 if each == kept else 1 for each in range(base.dim())]
    return merged * (magnitude.float().reshape(shape) / (norm + torch.finfo(torch.float32).eps))


def _tucker(core: torch.Tensor, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """[out, in, rows, columns] of a core [r, r, rows, columns], `before` [r, in] and `after` [r, out]."""
    return torch.einsum("ijkl,jr,ip->prkl", core.float(), before, after)


def _matrix(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float().flatten(1)


def _factor(held: Held, rank: int, factor: float | None) -> float:
    alpha = held.get("alpha")
    if alpha is None:
        return 1.0 if factor is None else factor
    # Trainers write 0 for "as the rank".
    value = float(alpha)
    return value / rank if value and math.isfinite(value) else 1.0


def _shaped(difference: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """A linear layer and a convolution of one cell are one weight in two shapes."""
    _check(difference.numel(), base, difference.shape[0])
    return difference.reshape(base.shape)


def _check(count: int, base: torch.Tensor, rows: int) -> None:
    if count != base.numel() or rows != base.shape[0]:
        raise Unfit(f"it makes {rows} rows of {count} numbers, and the weight is {list(base.shape)}")


def _shapes(held: Held, base: Any) -> str:
    given = ", ".join(f"{word} {list(tensor.shape)}" for word, tensor in held.items() if word != "alpha")
    return f"it has {given}, and the weight is {list(base.shape)}"
