"""Networks that enlarge pictures: which one a file holds, by the names and shapes of its tensors, and how it computes.

| network | published as | enlarges |
| --- | --- | --- |
| `Rrdb` | ESRGAN, Wang et al. 2018, arXiv 1809.00219; BasicSR's `RRDBNet` | ×1 to ×8 |
| `Compact` | Real-ESRGAN, Wang et al. 2021, arXiv 2107.10833; its `SRVGGNetCompact` | ×1 and more |
| all others | what the package `spandrel` knows, where Python has it | as it says |

Two arithmetics. `plain` is fp32, on a GPU with TF32's digits: how a sum is split follows from the shape, so the last
bits do too. `on_grid` is fp64 whose inputs and weights are whole multiples of powers of two, small enough that no sum
is ever rounded: it is the same in every order, so a pixel has the same value in a tile of any shape, on every device.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

import numpy
import safetensors
import torch
from torch import nn
from torch.nn import functional as F

from darkroom import exactness
from darkroom.errors import DarkroomError
from darkroom.families.parts import Parts, weight_bytes

Convolve = Callable[[nn.Conv2d, torch.Tensor], torch.Tensor]
"""(layer, what goes in) → what comes out: one of the two arithmetics."""
Shapes = Mapping[str, tuple[int, ...]]
"""Of a file's tensors, by their names."""

# Files keep weights under these, the averaged ones, which draw better, first.
PREFIXES = ("params_ema.", "params.", "module.", "")
# Weights are multiples of 2^-20 and what goes into a layer of 2^-16: a product is one of 2^-36, and a sum of fp64's 53
# bits is exact below 2^17.
WEIGHT_BITS, INPUT_BITS, SUM = 20, 16, 2.0**17


def plain(layer: nn.Conv2d, given: torch.Tensor) -> torch.Tensor:
    """As torch has it."""
    return layer(given)


def on_grid(layer: nn.Conv2d, given: torch.Tensor) -> torch.Tensor:
    """Exact, of fp64. What goes in is kept within what no sum can leave; networks that were trained come nowhere near.
    """
    weight = _rounded(layer.weight.double(), WEIGHT_BITS)
    bias = None if layer.bias is None else _rounded(layer.bias.double(), WEIGHT_BITS + INPUT_BITS)
    most = (SUM / 2 / weight.abs().sum((1, 2, 3)).max()).clamp(max=SUM)
    held = torch.minimum(torch.maximum(given, -most), most)
    return F.conv2d(_rounded(held, INPUT_BITS), weight, bias, padding=layer.padding)


def _rounded(tensor: torch.Tensor, bits: int) -> torch.Tensor:
    """To multiples of 2^-bits: scaling by a power of two rounds nothing."""
    return (tensor * 2.0**bits).round() * 2.0**-bits


class Compact(nn.Module):
    """Convolutions and their PReLUs in one sequence; what the last one makes is unfolded, and added to the picture."""

    fold = 1

    def __init__(self, features: int, inner: int, scale: int):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, features, 3, padding=1), nn.PReLU(features)]
        for _ in range(inner):
            layers += [nn.Conv2d(features, features, 3, padding=1), nn.PReLU(features)]
        layers.append(nn.Conv2d(features, 3 * scale**2, 3, padding=1))
        # No ModuleList, here and below: a layer is used without being called, so none may come as a block.
        self.body = nn.Sequential(*layers)
        self.scale, self.reach = scale, inner + 2

    def forward(self, picture: torch.Tensor, convolve: Convolve) -> torch.Tensor:
        """[1, 3, rows, columns], 0 to 1, to [1, 3, scale · rows, scale · columns]."""
        hidden = picture
        for layer in self.body:
            if isinstance(layer, nn.Conv2d):
                hidden = convolve(layer, hidden)
            elif isinstance(layer, nn.PReLU):
                hidden = F.prelu(hidden, layer.weight.to(hidden.dtype))
        return F.pixel_shuffle(hidden, self.scale) + _doubled(picture, self.scale)


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees what those before it made."""

    def __init__(self, features: int, growth: int):
        super().__init__()
        for index in range(4):
            setattr(self, f"conv{index + 1}", nn.Conv2d(features + index * growth, growth, 3, padding=1))
        self.conv5 = nn.Conv2d(features + 4 * growth, features, 3, padding=1)

    def forward(self, given: torch.Tensor, convolve: Convolve) -> torch.Tensor:
        """What it adds to, [1, features, rows, columns]."""
        seen = given
        for index in range(1, 5):
            made = F.leaky_relu(convolve(getattr(self, f"conv{index}"), seen), 0.2)
            seen = torch.cat([seen, made], 1)
        return _added(given, convolve(self.conv5, seen))


class Rrdb(nn.Module):
    """Residual-in-residual dense blocks, then doublings by nearest neighbour with a convolution behind each. The
    picture goes in folded, `fold` by `fold` pixels as channels of one."""

    def __init__(self, features: int, growth: int, blocks: int, doublings: int, fold: int):
        super().__init__()
        self.conv_first = nn.Conv2d(3 * fold**2, features, 3, padding=1)
        dense = [nn.ModuleDict({f"rdb{index}": DenseBlock(features, growth) for index in (1, 2, 3)}) for _ in range(blocks)]
        self.body = nn.Sequential(*dense)
        self.conv_body = nn.Conv2d(features, features, 3, padding=1)
        for index in range(doublings):
            setattr(self, f"conv_up{index + 1}", nn.Conv2d(features, features, 3, padding=1))
        self.conv_hr = nn.Conv2d(features, features, 3, padding=1)
        self.conv_last = nn.Conv2d(features, 3, 3, padding=1)
        self.fold, self._doublings = fold, doublings
        self.scale = 2**doublings // fold
        # In folded pixels the blocks with what is around them, less than one for each convolution behind a doubling,
        # and two at most for the last ones.
        self.reach = fold * (15 * blocks + doublings + 4)

    def forward(self, picture: torch.Tensor, convolve: Convolve) -> torch.Tensor:
        """[1, 3, rows, columns], 0 to 1, both multiples of `fold`, to [1, 3, scale · rows, scale · columns]."""
        first = convolve(self.conv_first, F.pixel_unshuffle(picture, self.fold))
        hidden = first
        for block in self.body:
            inner = hidden
            for dense in block.values():  # pyrefly: ignore[not-callable]
                inner = dense(inner, convolve)
            hidden = _added(hidden, inner)
        hidden = first + convolve(self.conv_body, hidden)
        for index in range(1, self._doublings + 1):
            hidden = F.leaky_relu(convolve(getattr(self, f"conv_up{index}"), _doubled(hidden)), 0.2)
        return convolve(self.conv_last, F.leaky_relu(convolve(self.conv_hr, hidden), 0.2))


def _added(given: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
    # Two roundings wherever it runs: a fused one has a rounding less.
    return given + made * 0.2


def _doubled(given: torch.Tensor, scale: int = 2) -> torch.Tensor:
    """By nearest neighbour."""
    return given.repeat_interleave(scale, 2).repeat_interleave(scale, 3)


# --- which one a file holds ---


@dataclass(frozen=True)
class Plan:
    """A network that a file holds all tensors of, and nothing besides: `names` are the file's, by the network's own."""

    make: Callable[[], Compact | Rrdb]
    names: Mapping[str, str]


class FromFile:
    """What a network's class is to a `Shell`: its configuration is the names and shapes of the one file."""

    @staticmethod
    def load_config(path: str, local_files_only: bool = True) -> Plan:
        """Raises ValueError for a file that holds another network."""
        plan = plan_of(shapes_in(path))
        if plan is None:
            raise ValueError(f"{path} holds neither an ESRGAN nor a Compact network")
        return plan

    @staticmethod
    def from_config(plan: Plan) -> Compact | Rrdb:
        """The network; its weights come by themselves."""
        return plan.make()


def shapes_in(path: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a safetensors file. Raises `model.corrupt`."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise DarkroomError("model.corrupt", f"{path} is no whole safetensors file: {error}", field="input.upscaler") from error


def plan_of(shapes: Shapes) -> Plan | None:
    """The network whose tensors these are, all of them; None for one that is not known here."""
    prefix = next(each for each in PREFIXES if any(name.startswith(each) for name in shapes))
    bare = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
    for read in (_compact, _rrdb):
        found = read(bare)
        if found is None:
            continue
        make, names = found
        with torch.device("meta"):
            wanted = {name: tuple(tensor.shape) for name, tensor in make().state_dict().items()}
        if set(names.values()) == set(bare) and wanted == {ours: bare[theirs] for ours, theirs in names.items()}:
            return Plan(make, {ours: prefix + theirs for ours, theirs in names.items()})
    return None


Reading = tuple[Callable[[], Compact | Rrdb], dict[str, str]]


def _compact(shapes: Shapes) -> Reading | None:
    first = shapes.get("body.0.weight", ())
    indices = [int(match[1]) for name in shapes if (match := re.fullmatch(r"body\.(\d{1,3})\.weight", name))]
    last = shapes.get(f"body.{max(indices, default=0)}.weight", ())
    if len(first) != 4 or len(last) != 4 or max(indices) < 2 or max(indices) % 2 or last[0] < 3:
        return None
    features, inner, scale = first[0], max(indices) // 2 - 1, math.isqrt(last[0] // 3)
    return lambda: Compact(features, inner, scale), {name: name for name in shapes}


# Names of the parts of an RRDB network: BasicSR's, and those of ESRGAN's second publication.
WORDS = (
    {"first": "conv_first", "block": "body.{}.rdb{}.conv{}", "body": "conv_body", "up": "conv_up{}", "hr": "conv_hr"},
    {"first": "conv_first", "block": "RRDB_trunk.{}.RDB{}.conv{}", "body": "trunk_conv", "up": "upconv{}", "hr": "HRconv"},
)


def _rrdb(shapes: Shapes) -> Reading | None:
    parts = _numbered(shapes) or next(filter(None, (_worded(shapes, words) for words in WORDS)), None)
    if parts is None:
        return None
    first, last = shapes.get(f"{parts['conv_first']}.weight", ()), shapes.get(f"{parts['conv_last']}.weight", ())
    grown = shapes.get(f"{parts['body.0.rdb1.conv1']}.weight", ())
    blocks = sum(name.endswith(".rdb1.conv1") for name in parts)
    doublings = sum(name.startswith("conv_up") for name in parts)
    if not (len(first) == len(last) == len(grown) == 4):
        return None
    fold = math.isqrt(first[1] // 3)
    if fold == 0 or 2**doublings % fold:
        return None
    names = {f"{ours}.{leaf}": f"{theirs}.{leaf}" for ours, theirs in parts.items() for leaf in ("weight", "bias")}
    if not all(name in shapes for name in names.values()):
        return None
    return lambda: Rrdb(first[0], grown[0], blocks, doublings, fold), names


def _worded(shapes: Shapes, words: Mapping[str, str]) -> dict[str, str] | None:
    """Layers of the network, by its own names."""
    blocks, ups = 0, 0
    while f"{words['block'].format(blocks, 1, 1)}.weight" in shapes:
        blocks += 1
    while f"{words['up'].format(ups + 1)}.weight" in shapes:
        ups += 1
    if blocks == 0:
        return None
    return {
        "conv_first": words["first"],
        **{
            f"body.{block}.rdb{dense}.conv{conv}": words["block"].format(block, dense, conv)
            for block in range(blocks)
            for dense in (1, 2, 3)
            for conv in range(1, 6)
        },
        "conv_body": words["body"],
        **{f"conv_up{index}": words["up"].format(index) for index in range(1, ups + 1)},
        "conv_hr": words["hr"],
        "conv_last": "conv_last",
    }


def _numbered(shapes: Shapes) -> dict[str, str] | None:
    """The same in ESRGAN's first publication: one sequence, the blocks a sequence in its second place, and behind them
    a convolution for each doubling and the last two."""
    numbers = sorted(int(match[1]) for name in shapes if (match := re.fullmatch(r"model\.(\d{1,2})\.weight", name)))
    blocks = 0
    while f"model.1.sub.{blocks}.RDB1.conv1.0.weight" in shapes:
        blocks += 1
    if blocks == 0 or len(numbers) < 3:
        return None
    *ups, hr, last = numbers[1:]
    return {
        "conv_first": "model.0",
        **{
            f"body.{block}.rdb{dense}.conv{conv}": f"model.1.sub.{block}.RDB{dense}.conv{conv}.0"
            for block in range(blocks)
            for dense in (1, 2, 3)
            for conv in range(1, 6)
        },
        "conv_body": f"model.1.sub.{blocks}",
        **{f"conv_up{index + 1}": f"model.{number}" for index, number in enumerate(ups)},
        "conv_hr": f"model.{hr}",
        "conv_last": f"model.{last}",
    }


# --- in use ---


class Network(Protocol):
    """What enlarges one tile."""

    scale: int
    fold: int
    """Tiles begin at multiples of so many pixels."""

    def __call__(self, picture: torch.Tensor, convolve: Convolve) -> torch.Tensor: ...


class Upscaler:
    """One resident network."""

    parts: ClassVar[tuple[str, ...]] = ()
    """It is a file by itself."""

    def __init__(self, network: Network, weights: nn.Module, device: torch.device, reach: int | None, name: str):
        self.bytes = weight_bytes(weights)
        self.scale, self.fold = network.scale, network.fold
        self.reach = reach
        """How many pixels around it one of the result follows from; None where nobody says."""
        self.name = name
        """Of its architecture."""
        self._network, self._device = network, device
        self._advance: Callable[[], None] = lambda: None
        for module in weights.modules():
            module.register_forward_pre_hook(lambda *_: self._advance())

    @classmethod
    def load(cls, parts: Parts, device: torch.device) -> Self:
        """Takes it onto the device. Raises `model.corrupt`, `postprocessing.needs_spandrel` and
        `postprocessing.upscaler_unfit`."""
        if plan_of(shapes_in(parts.where)) is None:
            from darkroom import other_upscalers

            network, name = other_upscalers.load(parts, device)
            return cls(network, network.module, device, None, name)
        network = parts.network_of_file(FromFile, torch.float32)
        return cls(network, network, device, network.reach, type(network).__name__)

    def enlarge(self, tile: numpy.ndarray, is_exact: bool, advance: Callable[[], None] = lambda: None) -> numpy.ndarray:
        """RGB8, [rows, columns, 3], `scale` times larger. `is_exact`: on the grid. `advance`: called before each
        layer, for a tile may take a CPU longer than a watchdog waits.

        Raises `postprocessing.diverged`.
        """
        self._advance = advance
        dtype = torch.float64 if is_exact else torch.float32
        given = torch.from_numpy(tile).permute(2, 0, 1)[None].contiguous().to(self._device, dtype) / 255
        with torch.inference_mode(), exactness.in_tf32():
            made = self._network(given, self._on_grid if is_exact else plain)
        if not bool(made.isfinite().all()):
            raise DarkroomError("postprocessing.diverged", "the upscaler made a number that is not finite", field="input.upscaler")
        return (made[0] * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()

    def _on_grid(self, layer: nn.Conv2d, given: torch.Tensor) -> torch.Tensor:
        # It uses the layer without calling it.
        self._advance()
        return on_grid(layer, given)
