"""ControlNets: networks that steer the one that draws by a picture, block by block.

Zhang, Rao and Agrawala 2023, "Adding Conditional Control to Text-to-Image Diffusion Models", arXiv 2302.05543. What is
done with them is what diffusers' pipelines for ControlNets do. Those of transformers act in one way, `balanced`, and
their families call them; the modes of those of UNets are AUTOMATIC1111's extension's (Mikubill/sd-webui-controlnet,
`soft_injection` and `cfg_injection`):

| mode | acts on | with |
| --- | --- | --- |
| `balanced` | both rows | the same weight in every block |
| `prompt` | both rows | a tenth of the weight in the first block, rising to all of it in the middle |
| `control` | the prompt's row alone, so that guidance amplifies it | the same; diffusers' "guess mode" |
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy
import torch
from diffusers import (
    ControlNetModel,
    ControlNetUnionModel,
    FluxControlNetModel,
    QwenImageControlNetModel,
    SD3ControlNetModel,
    ZImageControlNetModel,
)

from darkroom import exactness, memory, pictures, preprocessors
from darkroom.errors import DarkroomError
from darkroom.families import Family, tiles
from darkroom.families.parts import Parts, dtype_of, weight_bytes
from darkroom.families.suited import suit
from darkroom.graphs import Replayed
from darkroom.tools import Tools

Steering = tuple[torch.Tensor, ...]
"""What is added to a UNet: after each layer of its blocks on the way down, and last in the middle."""
OF_UNETS = {"ControlNetModel": ControlNetModel, "ControlNetUnionModel": ControlNetUnionModel}
OF_TRANSFORMERS = {
    "FluxControlNetModel": FluxControlNetModel,
    "SD3ControlNetModel": SD3ControlNetModel,
    "QwenImageControlNetModel": QwenImageControlNetModel,
    "ZImageControlNetModel": ZImageControlNetModel,
}
"""Classes by the name that a configuration gives."""
BORROWING = ("ZImageControlNetModel",)
"""Those that have no embedders of their own, and compute with those that the model lends."""
UNET_TASKS = ("pose", "depth", "soft", "line", "normal", "segment", "tile", "repaint")
"""Those of xinsir's ControlNet++ Union, as it numbers them; the last two are its ProMax's."""
FLUX_TASKS = ("line", "tile", "depth", "blur", "pose", "grey", "low")
"""Those of InstantX's FLUX.1-dev-Controlnet-Union, as it numbers them: line is Canny's, low is low quality."""


class ControlNet:
    """One resident ControlNet, beside the model that it steers."""

    parts: ClassVar[Sequence[str]] = ("",)
    """It is a folder by itself."""

    def __init__(self, network: Any, device: torch.device):
        config = network.config
        self.network = network
        self.dtype = dtype_of(network)
        """Of what it takes and gives."""
        self.kind = type(network).__name__
        """Its class."""
        self.bytes = weight_bytes(network)
        of_unet = self.kind in OF_UNETS
        self.hears: int | None = config.get("cross_attention_dim" if of_unet else "joint_attention_dim")
        """Numbers of a text vector that it listens to; None where it hears no text, or what the model makes of it."""
        # One that pools what it adds says nothing about places: it stands for a text, so it acts as one.
        self.pools = of_unet and config.global_pool_conditions
        count = getattr(config, "num_control_type" if of_unet else "num_mode", None) or 0
        self.tasks = (UNET_TASKS if of_unet else FLUX_TASKS)[:count]
        """Of a union, those that it was trained on, by number."""
        self._device = device
        suit(network, device)
        # The task is a number inside the forward, and no tensor: each has recordings of its own.
        self._forwards: dict[int | None, Replayed[Steering]] = {}

    @classmethod
    def load(cls, parts: Parts, device: torch.device) -> Self:
        """Takes it onto the device, in the precision of the UNet. Raises as `Family.load`."""
        kind: Any = ControlNetModel
        kinds = {**OF_UNETS, **OF_TRANSFORMERS}
        config = kind.load_config(parts.folder(""), local_files_only=True)
        name = config.get("_class_name")
        if name not in kinds:
            raise DarkroomError("model.corrupt", f"{parts.where}: its class is {name}, not {' or '.join(kinds)}", field="model.path")
        for field in ("extra_conditioning_channels", "extra_condition_channels"):
            if config.get(field):
                problem = f"{parts.where}: {field} is {config[field]}: it is a ControlNet for inpainting, which Darkroom does not steer by"
                raise DarkroomError("model.unusable", problem, field="model.path")
        said = exactness.precisions(device)
        dtype = said["dtype"] if name in OF_UNETS else said.get("transformer", said["dtype"])
        return cls(parts.network(kinds[name], "", getattr(torch, dtype)), device)

    def __call__(
        self,
        given: torch.Tensor,
        t: torch.Tensor,
        rows: torch.Tensor,
        picture: torch.Tensor,
        added: Sequence[torch.Tensor],
        task: int | None,
    ) -> Steering:
        """What one of a UNet adds to it at full weight.

        `given`: [rows, channels, rows, columns]; `rows`: [rows, tokens, width]; `picture`: [rows, 3, height, width], 0
        to 1; `added`: as SDXL's UNet is told, `text_embeds` and `time_ids`.
        """
        if task not in self._forwards:
            self._forwards[task] = Replayed(self.network, _forward_of(self.network, task), self._device)
        return self._forwards[task](given, t, rows, picture, *added)


def _forward_of(network: Any, task: int | None) -> Callable[..., Steering]:
    def forward(given: torch.Tensor, t: torch.Tensor, rows: torch.Tensor, picture: torch.Tensor, *more: torch.Tensor) -> Steering:
        how: dict[str, Any] = {"controlnet_cond": picture}
        if task is not None:
            kinds = torch.zeros(len(given), network.config.num_control_type, dtype=given.dtype, device=given.device)
            kinds[:, task] = 1
            how = {"controlnet_cond": [picture], "control_type": kinds, "control_type_idx": [task]}
        added = dict(zip(("text_embeds", "time_ids"), more, strict=False)) or None
        down, middle = network(
            given, t, encoder_hidden_states=rows, conditioning_scale=1.0, added_cond_kwargs=added, return_dict=False, **how
        )
        return (*down, middle)

    return forward


@dataclass(frozen=True)
class Control:
    """One ControlNet of a request at work. `picture`: as the model's family shows it, on the device in the network's
    dtype; [1, 3, height, width], 0 to 1, for UNets. It acts from the share `start` of the calls to the share `end`."""

    network: ControlNet
    picture: torch.Tensor
    weight: float
    start: float
    end: float
    mode: str
    task: int | None

    def acts(self, call: int, calls: int) -> bool:
        """In call number `call`, from 0, of `calls`: as in diffusers, the whole call must lie within."""
        return call / calls >= self.start and (call + 1) / calls <= self.end and self.weight != 0

    def steering(self, latents: torch.Tensor, t: torch.Tensor, rows: torch.Tensor, added: Mapping[str, torch.Tensor]) -> Steering:
        """What it adds to the UNet, for every row."""
        alone = self.mode == "control" or self.network.pools
        # The prompt's row is the last; where it is the only one, modes differ in their weights alone.
        kept = [tensor[-1:].clone() if alone else tensor for tensor in (rows, *added.values())]
        given = torch.cat([latents] * len(kept[0])).contiguous().to(self.network.dtype)
        picture = self.picture.repeat(len(given), 1, 1, 1)
        made = self.network(given, t, kept[0], picture, kept[1:], self.task)
        if self.mode == "balanced" or self.network.pools:
            weighed = tuple(tensor * self.weight for tensor in made)
        else:
            # Numbers, not tensors: the host need not wait for the device.
            scales = (torch.logspace(-1, 0, len(made)) * self.weight).tolist()
            weighed = tuple(tensor * scale for tensor, scale in zip(made, scales, strict=True))
        if len(kept[0]) == len(rows):
            return weighed
        return tuple(torch.cat([tensor.new_zeros(len(rows) - 1, *tensor.shape[1:]), tensor]) for tensor in weighed)


def steering(
    controls: Sequence[Control], latents: torch.Tensor, t: torch.Tensor, rows: torch.Tensor, added: Mapping[str, torch.Tensor]
) -> Steering:
    """What all of them together add to the UNet, summed in their order; nothing where there are none. `latents`: [1,
    channels, rows, columns] as the scheduler scales them; `rows` and `added`: of the conditioning."""
    total: Steering = ()
    for control in controls:
        made = control.steering(latents, t, rows, added)
        total = tuple(before + more for before, more in zip(total, made, strict=True)) if total else made
    return total


@contextmanager
def borrowing(network: Any, lender: Any) -> Generator[None]:
    """Within, a ControlNet of `BORROWING` computes with the embedders of that transformer; afterwards it holds nothing
    of them, so that each of both comes to the device and goes by itself."""
    own = [name for name, value in vars(network).items() if value is None]

    def lend(*_: Any) -> None:
        network.from_transformer(network, lender)

    # After the hook that brings the weights of both: a mark of padding is a tensor, and until then one without memory.
    hook = network.register_forward_pre_hook(lend)
    try:
        yield
    finally:
        hook.remove()
        for name in own:
            delattr(network, name)
            setattr(network, name, None)


def _unfit_to_borrow(own: Mapping[str, Any], lender: Mapping[str, Any]) -> str | None:
    """Why a ControlNet of this configuration cannot compute with that of a transformer; None where it can."""
    for name in ("dim", "n_heads"):
        if own[name] != lender[name]:
            return f"its {name} is {own[name]}, and the model's {lender[name]}"
    if own["control_in_dim"] < lender["in_channels"]:
        return f"it is shown {own['control_in_dim']} channels, and the model's pictures have {lender['in_channels']}"
    for places, layers in (("control_layers_places", "n_layers"), ("control_refiner_layers_places", "n_refiner_layers")):
        last = max(own[places] or [0])
        if last >= lender[layers]:
            return f"it adds to layer {last} by its {places}, and the model's {layers} is {lender[layers]}"
    return None


Added = list[torch.Tensor] | None
"""What is added to a transformer after each block of one kind."""


def acting(controls: Sequence[Control], call: Callable[[Control], Sequence[Sequence[torch.Tensor] | None]]) -> list[Added]:
    """Of a transformer's: what `call` makes of each, a list of tensors for each kind of block or None, summed in the
    order of the request."""
    total: list[Added] = []
    for control in controls:
        made = [None if some is None else list(some) for some in call(control)]
        total = [_summed(before, more) for before, more in zip(total, made, strict=True)] if total else made
    return total


def _summed(before: Added, more: Added) -> Added:
    if before is None or more is None:
        return before if more is None else more
    if len(before) != len(more):
        message = f"one ControlNet steers {len(before)} blocks and another {len(more)}: these do not act together"
        raise DarkroomError("inference.request_unfit", message, field="control")
    return [one + other for one, other in zip(before, more, strict=True)]


def pinned(request: Mapping[str, Any]) -> dict[str, Any]:
    """What of the request's `control` decides a picture: the bytes of each ControlNet, wherever they lie."""
    if "control" not in request:
        return {}
    return {"control": [{**each, "model": each["model"]["body_hash"], **preprocessors.pinned(each)} for each in request["control"]]}


def seen(tools: Tools) -> dict[int, numpy.ndarray]:
    """What networks see for the request's `control`, by its numbers. Before the model comes: they need no place beside
    it. Raises `inference.picture_unreadable`, and as `preprocessors.of`."""
    request = tools.input
    size = (request["width"], request["height"])
    made = {}
    for number, each in enumerate(request.get("control") or ()):
        network, _ = preprocessors.of(each, tools)
        if network is not None:
            made[number] = pictures.control(tools, f"control{number}", each, size, network)
    return made


def of_request(model: Family, tools: Tools, seen: Mapping[int, numpy.ndarray]) -> tuple[Control, ...]:
    """The request's `control`, with its ControlNets on the device beside the model, and as their pictures the files
    `control<n>` or what was `seen` of them.

    Raises `inference.request_unfit`, `inference.picture_unreadable`, and as `Models.get`.
    """
    request = tools.input
    wanted = request.get("control") or ()
    if wanted and model.hears is None:
        message = "models of this family are not steered by ControlNets: leave `control` out"
        raise DarkroomError("inference.request_unfit", message, field="control")
    if wanted and "references" in request:
        message = "edits with reference pictures are not steered by ControlNets: leave one of `control` and `references` out"
        raise DarkroomError("inference.request_unfit", message, field="control")
    size = (request["width"], request["height"])
    made = []
    for number, each in enumerate(wanted):
        field, name = f"control[{number}]", each["model"]["id"]
        network = tools.runtime.models.beside(each["model"], tools)
        if network.kind not in model.steered_by:
            message = f"{name} is a {network.kind}, and {' and '.join(model.steered_by)} steer the model: it is for another family"
            raise DarkroomError("inference.request_unfit", message, field=f"{field}.model")
        if network.hears not in (None, model.hears):
            message = f"{name} listens to texts of {network.hears} numbers, and the model to {model.hears}: it is for another family"
            raise DarkroomError("inference.request_unfit", message, field=f"{field}.model")
        if network.kind in BORROWING:
            problem = _unfit_to_borrow(network.network.config, model.lends.config)
            if problem:
                message = f"{name} does not fit the model: {problem}"
                raise DarkroomError("inference.request_unfit", message, field=f"{field}.model")
            tools.runtime.models.keep_together(network.network, model.lends)
        said = each.get("task")
        if (said is None) != (not network.tasks) or (said is not None and said not in network.tasks):
            message = f"{name} knows {', '.join(network.tasks) or 'one task alone'}, and {said} is asked for"
            raise DarkroomError("inference.request_unfit", message, field=f"{field}.task")
        if network.kind in OF_TRANSFORMERS and each["mode"] != "balanced":
            message = f"{name} steers a transformer, which knows one mode: it must be balanced, not {each['mode']}"
            raise DarkroomError("inference.request_unfit", message, field=f"{field}.mode")
        task = None if said is None else network.tasks.index(said)
        picture = seen[number] if number in seen else pictures.control(tools, f"control{number}", each, size)
        with tiles.tiling(memory.in_tiles(tools), tools.advance):
            shown = model.shown(network, picture).to(tools.runtime.device, network.dtype)
        made.append(Control(network, shown, each["weight"], each["start"], each["end"], each["mode"], task))
    return tuple(made)
