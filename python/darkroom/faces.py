"""Faces of a picture, drawn anew one by one by a network that was trained to, and put back into their places.

A detector finds each face with five points. By them it is turned and scaled to where the restorer has learned faces to
be, restored at 512 × 512, and laid back through a soft mask; what is no face keeps its bytes.

Both networks are an operator's. The detector is YuNet as OpenCV's zoo publishes it (a graph of ONNX, by onnxruntime),
the restorer GFPGAN or RestoreFormer (by spandrel). Neither was run with published weights here.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import safetensors.torch
import torch
from PIL import Image

from darkroom import exactness, faults, onnx_graphs
from darkroom.errors import DarkroomError
from darkroom.tools import inside

SIDE = 512
"""Of a face as restorers take it, pixels."""
TEMPLATE = numpy.array(
    [[192.98138, 239.94708], [318.90277, 240.1936], [256.63416, 314.01935], [201.26117, 371.41043], [313.08905, 371.15118]]
)
"""Where eyes, nose and corners of the mouth lie in it, from the left of the picture: FFHQ's, as in facexlib's
`FaceRestoreHelper` (utils/face_restoration_helper.py, `face_template`)."""
# Of YuNet: the fewest a score may be, and how much of two boxes may be shared (OpenCV's demo of FaceDetectorYN).
SCORE, OVERLAP = 0.6, 0.3
# The most faces of one picture, the surest first.
MOST = 64
STRIDES = (8, 16, 32)
# A face's edge goes over into the picture within so many pixels of its square.
SOFT = 48
# Restorers and detectors that are kept on the device.
KEPT = 2

Key = tuple[str, str]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Face:
    """`score`, 0 to 1; `points`: eyes, nose, corners of the mouth, [5, 2] pixels of the picture, x and y."""

    score: float
    box: Box
    points: numpy.ndarray


Detect = Callable[[numpy.ndarray], list[Face]]
"""RGB8, [rows, columns, 3], to its faces, the surest first."""
Restore = Callable[[torch.Tensor], torch.Tensor]
"""[1, 3, 512, 512] fp32 in 0 to 1 on the device, to the same of a restored face."""


class Faces:
    """The detectors and restorers of one child. `roots`: folders that models may lie in."""

    def __init__(self, roots: Sequence[str], device: torch.device):
        self._roots, self._device = list(roots), device
        self._kept: OrderedDict[Key, Any] = OrderedDict()

    def clear(self) -> None:
        """Lets go of all of them."""
        self._kept.clear()

    def detector(self, reference: Mapping[str, Any]) -> Detect:
        """`reference`: {id, path, body_hash}, a folder. Raises `postprocessing.needs_onnxruntime`,
        `worker.path_refused`, `model.missing`, and `postprocessing.weights_unfit` for a graph that is no YuNet."""
        return self._get(reference, "detector", lambda path: detector(path))

    def restorer(self, reference: Mapping[str, Any]) -> Restore:
        """The same of a file. Raises `postprocessing.needs_spandrel` besides, and `postprocessing.weights_unfit` for
        weights that restore no faces."""
        return self._get(reference, "restorer", lambda path: restorer(path, self._device))

    def _get(self, reference: Mapping[str, Any], what: str, load: Callable[[str], Any]) -> Any:
        path = inside(reference["path"], self._roots)
        field = f"input.{what}"
        if path is None:
            raise DarkroomError("worker.path_refused", f"{reference['path']} is in no model folder", field=field)
        if not os.path.exists(path):
            raise DarkroomError("model.missing", f"{path} is not there now", field=field)
        key = (path, reference["body_hash"])
        if key not in self._kept:
            while len(self._kept) >= KEPT:
                self._kept.popitem(last=False)
            try:
                self._kept[key] = load(path)
            except Exception as error:
                if isinstance(error, DarkroomError) or faults.is_out_of_memory(error) or faults.is_device_lost(error):
                    raise
                problem = f"the {what} {reference['id']} cannot be used: {type(error).__name__}: {error}"
                raise DarkroomError("postprocessing.weights_unfit", problem, field=field) from error
        self._kept.move_to_end(key)
        return self._kept[key]


# --- the networks ---


def restorer(path: str, device: torch.device) -> Restore:
    """GFPGAN or RestoreFormer. Raises as `Faces.restorer`."""
    try:
        import spandrel  # pyrefly: ignore[missing-import]
    # RuntimeError: a torchvision that does not fit torch.
    except (ImportError, RuntimeError) as error:
        problem = f"{path} restores faces, and that needs spandrel: {error}"
        raise DarkroomError("postprocessing.needs_spandrel", problem, field="input.restorer") from error
    descriptor = spandrel.ModelLoader(device).load_from_state_dict(safetensors.torch.load_file(path))
    name = descriptor.architecture.name
    if getattr(descriptor, "purpose", None) != "FaceSR" or (descriptor.input_channels, descriptor.output_channels) != (3, 3):
        raise ValueError(f"it is {name}, which restores no faces in colour")
    descriptor.to(device).eval()

    def restore(face: torch.Tensor) -> torch.Tensor:
        # GFPGAN adds noise that it draws: from a seed of its own, so that the same face comes out.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            if name == "GFPGAN":
                # As published it takes and makes -1 to 1, and a list of smaller pictures besides.
                return (descriptor.model(2 * face - 1)[0] + 1) / 2
            return descriptor(face)

    return restore


def detector(path: str) -> Detect:
    """YuNet. Raises as `Faces.detector`."""
    session = onnx_graphs.session(path, "input.detector", "postprocessing.needs_onnxruntime")
    outputs = [each.name for each in session.get_outputs()]
    wanted = [f"{head}_{stride}" for head in ("cls", "obj", "bbox", "kps") for stride in STRIDES]
    if sorted(outputs) != sorted(wanted):
        raise ValueError(f"its outputs are {', '.join(outputs)}, and a YuNet of 2023 has {', '.join(wanted)}")
    (given,) = session.get_inputs()
    rows, columns = (size if isinstance(size, int) else 640 for size in given.shape[2:])

    def detect(picture: numpy.ndarray) -> list[Face]:
        scale = min(columns / picture.shape[1], rows / picture.shape[0])
        size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        canvas = numpy.zeros((rows, columns, 3), numpy.float32)
        canvas[: size[1], : size[0]] = numpy.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
        # Blue first, 0 to 255, as OpenCV hands it over.
        made = session.run(wanted, {given.name: numpy.ascontiguousarray(canvas[..., ::-1].transpose(2, 0, 1))[None]})
        heads = {name: numpy.asarray(values, numpy.float64) for name, values in zip(wanted, made, strict=True)}
        found = decoded(heads, columns)
        return [Face(each.score, scaled(each.box, 1 / scale), each.points / scale) for each in found]

    return detect


def scaled(box: Box, by: float) -> Box:
    """Each of its sides."""
    left, top, right, bottom = box
    return left * by, top * by, right * by, bottom * by


def decoded(heads: Mapping[str, numpy.ndarray], width: int) -> list[Face]:
    """Faces of YuNet's outputs over a picture of that width, the surest first, none twice. Each stride has a grid of
    cells, row by row: `cls` and `obj`, [1, cells, 1]; `bbox`, [1, cells, 4]; `kps`, [1, cells, 10]. Source: OpenCV's
    modules/objdetect/src/face_detect.cpp, `FaceDetectorYNImpl::postProcess`."""
    all: list[Face] = []
    for stride in STRIDES:
        sizes = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
        cls, obj, bbox, kps = (heads[f"{head}_{stride}"].reshape(-1, size) for head, size in sizes.items())
        scores = numpy.sqrt(cls[:, 0].clip(0, 1) * obj[:, 0].clip(0, 1))
        for cell in numpy.flatnonzero(scores >= SCORE):
            place = numpy.array([cell % (width // stride), cell // (width // stride)], numpy.float64)
            centre = (place + bbox[cell, :2]) * stride
            half = numpy.exp(bbox[cell, 2:]) * stride / 2
            points = (kps[cell].reshape(5, 2) + place) * stride
            (left, top), (right, bottom) = (centre - half).tolist(), (centre + half).tolist()
            all.append(Face(float(scores[cell]), (left, top, right, bottom), points))
    kept: list[Face] = []
    for face in sorted(all, key=lambda each: -each.score):
        if len(kept) < MOST and all_apart(face, kept):
            kept.append(face)
    return kept


def all_apart(face: Face, others: Sequence[Face]) -> bool:
    """Whether it shares little with each of them."""

    def shared(other: Face) -> float:
        left, top, right, bottom = (pick(a, b) for pick, a, b in zip((max, max, min, min), face.box, other.box, strict=True))
        common = max(0.0, right - left) * max(0.0, bottom - top)
        whole = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (face.box, other.box)) - common
        return common / whole if whole > 0 else 0.0

    return all(shared(other) <= OVERLAP for other in others)


# --- from a picture and back ---


def placed(points: numpy.ndarray) -> numpy.ndarray:
    """The turn, scale and shift, [2, 3], that brings a face's points nearest to `TEMPLATE` (Umeyama, 1991, without a
    mirror)."""
    centre, aim = points.mean(0), TEMPLATE.mean(0)
    given, wanted = points - centre, TEMPLATE - aim
    variance = (given**2).sum()
    # As complex numbers: a turn and a scale are one factor.
    factor = ((wanted[:, 0] + 1j * wanted[:, 1]) * (given[:, 0] - 1j * given[:, 1])).sum() / max(variance, 1e-12)
    turn = numpy.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return numpy.column_stack([turn, aim - turn @ centre])


def inverse(transform: numpy.ndarray) -> numpy.ndarray:
    """The way back, [2, 3]."""
    turn = numpy.linalg.inv(transform[:, :2])
    return numpy.column_stack([turn, -turn @ transform[:, 2]])


def warped(picture: numpy.ndarray, back: numpy.ndarray, size: tuple[int, int], by: Image.Resampling) -> numpy.ndarray:
    """A picture of `size` (width, height) whose pixel p shows what lies at `back` · p; black beyond the edges."""
    # Pillow asks for the middle of a pixel at its half.
    shifted = back.copy()
    shifted[:, 2] += back[:, :2] @ (-0.5, -0.5) + 0.5
    return numpy.asarray(Image.fromarray(picture).transform(size, Image.Transform.AFFINE, shifted.reshape(-1).tolist(), by))


def mask() -> numpy.ndarray:
    """How much of a restored face is laid back, [512, 512] 0 to 255: none at its edges, all within."""
    ramp = numpy.minimum(numpy.arange(SIDE), numpy.arange(SIDE)[::-1]).clip(0, SOFT) / SOFT
    return (255 * numpy.minimum.outer(ramp, ramp)).round().astype(numpy.uint8)


def restored(picture: numpy.ndarray, face: Face, restore: Restore, strength: float, device: torch.device) -> numpy.ndarray:
    """RGB8, [rows, columns, 3], with this face restored. Raises `postprocessing.diverged`."""
    there = placed(face.points)
    back = inverse(there)
    size = (picture.shape[1], picture.shape[0])
    cut = warped(picture, back, (SIDE, SIDE), Image.Resampling.BICUBIC)
    given = torch.from_numpy(cut.copy()).permute(2, 0, 1)[None].to(device, torch.float32) / 255
    with torch.inference_mode(), exactness.in_tf32():
        made = restore(given)
    if not bool(made.isfinite().all()):
        raise DarkroomError("postprocessing.diverged", "the restorer made a number that is not finite", field="input.restorer")
    face_again = (made[0] * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
    laid = warped(face_again, there, size, Image.Resampling.BICUBIC).astype(numpy.float32)
    share = warped(mask(), there, size, Image.Resampling.BILINEAR).astype(numpy.float32)[..., None] / 255 * strength
    mixed = (picture + (laid - picture) * share).round().clip(0, 255).astype(numpy.uint8)
    return numpy.where(share > 0, mixed, picture)
