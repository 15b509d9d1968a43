"""Faces: found by the outputs of a detector, brought to their place and back, and restored by a network that is not
GFPGAN but takes its place."""

import sys
from types import ModuleType, SimpleNamespace

import numpy
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file

from darkroom import faces
from darkroom.errors import DarkroomError
from darkroom.faces import SIDE, TEMPLATE, Face, Faces, decoded, inverse, placed, restored, warped

CPU = torch.device("cpu")


def transform(angle, scale, shift):
    turn = scale * numpy.array([[numpy.cos(angle), -numpy.sin(angle)], [numpy.sin(angle), numpy.cos(angle)]])
    return numpy.column_stack([turn, shift])


def applied(matrix, points):
    return points @ matrix[:, :2].T + matrix[:, 2]


@pytest.mark.parametrize(("angle", "scale", "shift"), [(0, 0.3, (10, 20)), (0.7, 0.5, (-30, 5)), (-2.5, 1.7, (300, 100))])
def test_a_face_is_brought_to_where_faces_are_learned_and_back(angle, scale, shift):
    points = applied(transform(angle, scale, shift), TEMPLATE)
    there = placed(points)
    assert numpy.allclose(applied(there, points), TEMPLATE, atol=1e-6)
    assert numpy.allclose(applied(inverse(there), TEMPLATE), points, atol=1e-6)


def test_points_that_no_turn_explains_come_as_near_as_they_can_without_a_mirror():
    rng = numpy.random.default_rng(4)
    points = applied(transform(0.4, 0.6, (50, 60)), TEMPLATE) + rng.normal(0, 3, (5, 2))
    best = ((applied(placed(points), points) - TEMPLATE) ** 2).sum()
    for _ in range(200):
        other = placed(points) + rng.normal(0, 0.01, (2, 3)) * (1, 1, 20)
        # A similarity has two free numbers beside its shift.
        other[1, 0], other[1, 1] = -other[0, 1], other[0, 0]
        assert ((applied(other, points) - TEMPLATE) ** 2).sum() >= best - 1e-9
    assert numpy.linalg.det(placed(points * (-1, 1))[:, :2]) > 0


def test_what_is_brought_over_and_back_is_what_it_was():
    picture = numpy.asarray(Image.radial_gradient("L").resize((300, 200)).convert("RGB"))
    same = warped(picture, numpy.eye(2, 3), (300, 200), Image.Resampling.BICUBIC)
    assert numpy.array_equal(same, picture)
    matrix = transform(0.3, 1.5, (20, -10))
    there = warped(picture, inverse(matrix), (600, 600), Image.Resampling.BICUBIC)
    again = warped(there, matrix, (300, 200), Image.Resampling.BICUBIC)
    assert numpy.abs(again[60:140, 100:200].astype(int) - picture[60:140, 100:200]).max() <= 3


def heads(width, height, cells):
    """Outputs of YuNet. `cells`: (stride, column, row, score, dx, dy, log width, log height)."""
    made = {}
    for stride in faces.STRIDES:
        count = (width // stride) * (height // stride)
        for head, size in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            made[f"{head}_{stride}"] = numpy.zeros((1, count, size))
    for stride, column, row, score, *box in cells:
        at = row * (width // stride) + column
        made[f"cls_{stride}"][0, at] = made[f"obj_{stride}"][0, at] = score
        made[f"bbox_{stride}"][0, at] = box
        made[f"kps_{stride}"][0, at] = numpy.arange(10) / 10
    return made


def test_faces_are_read_off_the_outputs_as_opencv_reads_them():
    found = decoded(heads(64, 32, [(8, 3, 1, 0.9, 0.5, 0.25, numpy.log(2), numpy.log(3))]), 64)
    assert len(found) == 1 and found[0].score == pytest.approx(0.9)
    # (3 + 0.5) · 8 = 28 and (1 + 0.25) · 8 = 10 is the middle; 16 wide and 24 high.
    assert found[0].box == pytest.approx((20, -2, 36, 22))
    assert numpy.allclose(found[0].points[2], ((3 + 0.4) * 8, (1 + 0.5) * 8))


def test_a_face_that_several_cells_see_is_one_and_an_unsure_one_is_none():
    wide = numpy.log(4)
    same = [(8, 3, 1, 0.9, 0, 0, wide, wide), (8, 4, 1, 0.8, 0, 0, wide, wide), (16, 2, 1, 0.7, -0.5, -0.5, wide - 0.7, wide - 0.7)]
    other = [(8, 7, 3, 0.65, 0, 0, 0, 0), (32, 0, 0, 0.59, 0, 0, 0, 0)]
    assert [round(face.score, 2) for face in decoded(heads(64, 32, same + other), 64)] == [0.9, 0.65]


def grey():
    picture = Image.new("RGB", (320, 240), (90, 100, 110))
    ImageDraw.Draw(picture).ellipse((90, 60, 190, 180), fill=(200, 170, 150))
    return numpy.asarray(picture).copy()


def a_face(scale=0.2):
    return Face(0.9, (0, 0, 1, 1), applied(transform(0.1, scale, (90, 70)), TEMPLATE))


def test_only_the_face_changes_and_by_as_much_as_is_said():
    picture = grey()

    def inverted(given):
        assert given.shape == (1, 3, SIDE, SIDE) and float(given.min()) >= 0 and float(given.max()) <= 1
        return 1 - given

    whole, half = (restored(picture, a_face(), inverted, strength, CPU) for strength in (1.0, 0.5))
    middle = applied(transform(0.1, 0.2, (90, 70)), numpy.array([[256, 256]]))[0].astype(int)
    at = (middle[1], middle[0])
    assert numpy.abs(whole[at].astype(int) - (255 - picture[at])).max() <= 2
    assert numpy.abs(half[at].astype(int) - 127).max() <= 2
    far = numpy.ones(picture.shape[:2], bool)
    far[60:200, 70:220] = False
    assert numpy.array_equal(whole[far], picture[far])
    assert numpy.array_equal(restored(picture, a_face(), inverted, 0.0, CPU), picture)
    # What the restorer leaves as it is stays what it is, but for being brought over and back.
    assert numpy.abs(restored(picture, a_face(), lambda given: given, 1.0, CPU).astype(int) - picture).mean() < 1.5


def test_a_face_at_the_edge_of_the_picture_is_restored_as_far_as_it_is_there():
    points = applied(transform(0, 0.3, (-60, -60)), TEMPLATE)
    made = restored(grey(), Face(1, (0, 0, 1, 1), points), lambda given: 1 - given, 1.0, CPU)
    assert made.shape == (240, 320, 3) and (made != grey()).any()


def test_a_number_that_is_none_ends_it():
    with pytest.raises(DarkroomError) as caught:
        restored(grey(), a_face(), lambda given: given * torch.nan, 1.0, CPU)
    assert caught.value.code == "postprocessing.diverged"


# --- the packages that compute them ---


@pytest.fixture
def files(tmp_path):
    (tmp_path / "yunet").mkdir()
    (tmp_path / "yunet" / "model.onnx").write_bytes(b"graph")
    save_file({"toRGB.0.weight": torch.zeros(1)}, tmp_path / "gfpgan.safetensors")
    return tmp_path


def reference(path):
    return {"id": path.stem, "path": str(path), "body_hash": "a" * 64}


def code(body):
    with pytest.raises(DarkroomError) as caught:
        body()
    return caught.value.code


def test_without_the_packages_it_is_said_which_are_needed(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "spandrel", None)
    kept = Faces([str(files)], CPU)
    assert code(lambda: kept.detector(reference(files / "yunet"))) == "postprocessing.needs_onnxruntime"
    assert code(lambda: kept.restorer(reference(files / "gfpgan.safetensors"))) == "postprocessing.needs_spandrel"
    assert code(lambda: kept.detector(reference(files / "none"))) == "model.missing"
    assert code(lambda: Faces([str(files / "yunet")], CPU).restorer(reference(files / "gfpgan.safetensors"))) == "worker.path_refused"


def spandrel_of(monkeypatch, **descriptor):
    module = ModuleType("spandrel")
    found = SimpleNamespace(**({"purpose": "FaceSR", "input_channels": 3, "output_channels": 3} | descriptor))
    found.to = lambda device: found
    found.eval = lambda: found
    module.ModelLoader = lambda device: SimpleNamespace(load_from_state_dict=lambda tensors: found)
    monkeypatch.setitem(sys.modules, "spandrel", module)


def test_gfpgan_is_given_minus_one_to_one_and_the_same_noise_each_time(files, monkeypatch):
    def model(given):
        assert float(given.min()) == -1
        return given + torch.randn(()), []

    spandrel_of(monkeypatch, architecture=SimpleNamespace(name="GFPGAN"), model=model)
    kept = Faces([str(files)], CPU)
    restore = kept.restorer(reference(files / "gfpgan.safetensors"))
    given = torch.zeros(1, 3, SIDE, SIDE)
    state = torch.get_rng_state()
    assert torch.equal(restore(given), restore(given)) and torch.equal(torch.get_rng_state(), state)
    assert kept.restorer(reference(files / "gfpgan.safetensors")) is restore


def test_weights_that_restore_no_faces_are_refused(files, monkeypatch):
    spandrel_of(monkeypatch, architecture=SimpleNamespace(name="ESRGAN"), purpose="SR")
    assert code(lambda: Faces([str(files)], CPU).restorer(reference(files / "gfpgan.safetensors"))) == "postprocessing.weights_unfit"


def onnxruntime_of(monkeypatch, outputs, run):
    given = [SimpleNamespace(name="input", shape=[1, 3, 640, 640])]
    session = SimpleNamespace(get_inputs=lambda: given, get_outputs=lambda: [SimpleNamespace(name=name) for name in outputs], run=run)
    module = ModuleType("onnxruntime")
    module.InferenceSession, module.SessionOptions = lambda content, options, providers: session, SimpleNamespace
    monkeypatch.setitem(sys.modules, "onnxruntime", module)


def test_a_detector_sees_the_picture_whole_and_its_faces_lie_in_it(files, monkeypatch):
    def run(wanted, given):
        picture = given["input"]
        assert picture.shape == (1, 3, 640, 640) and picture.dtype == numpy.float32
        # 320 × 240 twice as large, blue first; nothing below.
        assert picture[0, :, 0, 0].tolist() == [110, 100, 90] and picture[0, :, 480:].max() == 0
        made = heads(640, 640, [(32, 8, 7, 0.9, 0, 0, 1, 1)])
        return [made[name].astype(numpy.float32) for name in wanted]

    onnxruntime_of(monkeypatch, list(heads(640, 640, [])), run)
    (face,) = Faces([str(files)], CPU).detector(reference(files / "yunet"))(grey())
    assert (face.box[0] + face.box[2]) / 2 == pytest.approx(8 * 32 / 2) and (face.box[1] + face.box[3]) / 2 == pytest.approx(7 * 32 / 2)


def test_another_graph_is_no_detector(files, monkeypatch):
    onnxruntime_of(monkeypatch, ["scores", "boxes"], None)
    assert code(lambda: Faces([str(files)], CPU).detector(reference(files / "yunet"))) == "postprocessing.weights_unfit"
