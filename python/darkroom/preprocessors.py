"""Networks that see in a picture what a ControlNet is shown of it: folders of transformers in the operator's models.

| task | what is drawn |
| --- | --- |
| `depth` | grey, near is white, from the least to the most of the picture, as transformers' pipeline has it |
| `segment` | each pixel in the colour of its class of ADE20K, as ControlNets of segmentation were trained |

A network computes on its device in fp32; all behind it is done on the CPU. Pictures are arrays [rows, columns, 3] of
uint8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import numpy
import torch
import transformers
from torch.nn import functional as F

from darkroom import exactness, faults, schema
from darkroom.errors import DarkroomError
from darkroom.families.parts import Parts, weight_bytes
from darkroom.preparation import Preparation, read_json
from darkroom.tools import Tools

TASKS: Mapping[str, str] = schema.DOCUMENT["preprocessors"]
"""What a network of a class sees."""
# Planes of a picture's size at a time, while the class of each pixel is looked for: 150 of 4096 · 4096 take 10 GB.
PLANES = 8
# ADE20K's 150 classes in their order, as MIT's scene parsing benchmark colours them.
PALETTE = numpy.frombuffer(
    bytes.fromhex(
        "787878 b47878 06e6e6 503232 04c803 787850 8c8c8c cc05ff e6e6e6 04fa07 e005ff ebff07 96053d 787846 08ff33 "
        "ff0652 8fff8c ccff04 ff3307 cc4603 0066c8 3de6fa ff0633 0b66ff ff0747 ff09e0 0907e6 dcdcdc ff095c 7009ff "
        "08ffd6 07ffe0 ffb806 0aff47 ff290a 07ffff e0ff08 6608ff ff3d06 ffc207 ff7a08 00ff14 ff0829 ff0599 0633ff "
        "eb0cff a09614 00a3ff 8c8c8c fa0a0f 14ff00 1fff00 ff1f00 ffe000 99ff00 0000ff ff4700 00ebff 00adff 1f00ff "
        "0bc8c8 ff5200 00fff5 003dff 00ff70 00ff85 ff0000 ffa300 ff6600 c2ff00 008fff 33ff00 0052ff 00ff29 00ffad "
        "0a00ff adff00 00ff99 ff5c00 ff00ff ff00f5 ff0066 ffad00 ff0014 ffb8b8 001fff 00ff3d 0047ff ff00cc 00ffc2 "
        "00ff52 000aff 0070ff 3300ff 00c2ff 007aff 00ffa3 ff9900 00ff0a ff7000 8fff00 5200ff a3ff00 ffeb00 08b8aa "
        "8500ff 00ff5c b800ff ff001f 00b8ff 00d6ff ff0070 5cff00 00e0ff 70e0ff 46b8a0 a300ff 9900ff 47ff00 ff00a3 "
        "ffcc00 ff008f 00ffeb 85ff00 ff00eb f500ff ff007a fff500 0abed4 d6ff00 00ccff 1400ff ffff00 0099ff 0029ff "
        "00ffcc 2900ff 29ff00 ad00ff 00f5ff 4700ff 7a00ff 00ffb8 005cff b8ff00 0085ff ffd600 19c2c2 66ff00 5c00ff "
    ),
    numpy.uint8,
).reshape(-1, 3)


class Preprocessor:
    """One resident network."""

    parts: ClassVar[tuple[str, ...]] = ("",)
    """It is a folder by itself."""

    def __init__(self, network: Any, prepare: Preparation, task: str, device: torch.device):
        self.bytes = weight_bytes(network)
        self._network, self._prepare, self._task, self._device = network, prepare, task, device
        # Most see how near things are; some, how many metres away.
        self._is_distance = getattr(network.config, "depth_estimation_type", "relative") == "metric"
        self._advance: Callable[[], None] = lambda: None
        for module in network.modules():
            module.register_forward_pre_hook(self._before_layer)

    @classmethod
    def load(cls, parts: Parts, device: torch.device) -> Self:
        """Takes it onto the device. Raises `model.corrupt`, and as `Family.load`."""
        name = (read_json(parts.folder(""), "config.json").get("architectures") or [None])[0]
        if name not in TASKS:
            raise DarkroomError("model.corrupt", f"{parts.where}: its class is {name}, not {' or '.join(TASKS)}", field="model.path")
        prepare = Preparation(read_json(parts.folder(""), "preprocessor_config.json"), device)
        return cls(parts.network(getattr(transformers, name), "", torch.float32), prepare, TASKS[name], device)

    def _before_layer(self, *_: Any) -> None:
        self._advance()

    def see(self, picture: numpy.ndarray, advance: Callable[[], None] = lambda: None) -> numpy.ndarray:
        """What it sees in a picture, drawn at its size. `advance`: called before each layer, for a picture may take a
        CPU longer than a watchdog waits.

        Raises `inference.preprocessor_broken` for a network that does not take the picture, and for one that makes a
        number which is not finite.
        """
        self._advance = advance
        height, width = picture.shape[:2]
        with torch.inference_mode():
            found = self._found(picture)
            if not bool(found.isfinite().all()):
                raise broken("it made a number that is not finite")
            return depth(found, (height, width), self._is_distance) if self._task == "depth" else classes(found, (height, width))

    def _found(self, picture: numpy.ndarray) -> torch.Tensor:
        try:
            with exactness.in_tf32():
                made = self._network(pixel_values=self._prepare(picture))
            return (made.predicted_depth[:, None] if self._task == "depth" else made.logits).float().cpu()
        except Exception as error:
            if isinstance(error, DarkroomError) or faults.is_out_of_memory(error) or faults.is_device_lost(error):
                raise
            # Whatever sizes that do not fit one another make the library throw.
            raise broken(f"it cannot look at the picture: {type(error).__name__}: {error}") from error


def broken(problem: str) -> DarkroomError:
    """The error of a preprocessor that cannot be used."""
    return DarkroomError("inference.preprocessor_broken", f"the preprocessor: {problem}", field="input.preprocessor")


def depth(found: torch.Tensor, size: tuple[int, int], is_distance: bool) -> numpy.ndarray:
    """[1, 1, rows, columns] as grey of `size` (height, width), near white: of nearness, or of distance."""
    large = F.interpolate(found, size=size, mode="bicubic", align_corners=False)[0, 0].numpy()
    # Of what is equally far everywhere interpolation makes noise of the last digit.
    if not bool(found.max() > found.min()):
        return numpy.zeros((*size, 3), numpy.uint8)
    share = (large - large.min()) / (large.max() - large.min())
    grey = ((1 - share if is_distance else share) * 255).astype(numpy.uint8)
    return numpy.repeat(grey[..., None], 3, 2)


def classes(found: torch.Tensor, size: tuple[int, int]) -> numpy.ndarray:
    """Logits, [1, classes, rows, columns], as colours of `size` (height, width): of the class with the highest."""
    best, which = torch.full(size, -torch.inf), torch.zeros(size, dtype=torch.int64)
    for first in range(0, found.shape[1], PLANES):
        planes = F.interpolate(found[:, first : first + PLANES], size=size, mode="bilinear", align_corners=False)[0]
        highest, at = planes.max(0)
        # Of equal ones the first, as `argmax` of all of them would have it.
        which = torch.where(highest > best, at + first, which)
        best = torch.maximum(highest, best)
    return PALETTE[which.numpy()]


def of(wanted: Mapping[str, Any], tools: Tools) -> tuple[Callable[[numpy.ndarray], numpy.ndarray] | None, float]:
    """What sees a picture for the `preprocessor` that is wanted, and the seconds that its load took; None for one that
    is no network. Raises as `Models.get`, and what it gives as `Preprocessor.see`."""
    reference = (wanted.get("preprocessor") or {}).get("model")
    if reference is None:
        return None, 0.0
    # Any: what draws nothing is no `Family`.
    models: Any = tools.runtime.models
    network, load_s = models.get(reference, tools)
    return lambda picture: network.see(picture, tools.advance), load_s


def pinned(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What of a ControlNet's `preprocessor` decides a picture: the bytes of its network, wherever they lie."""
    preprocessor = wanted.get("preprocessor") or {}
    if "model" not in preprocessor:
        return {}
    return {"preprocessor": {**preprocessor, "model": preprocessor["model"]["body_hash"]}}
