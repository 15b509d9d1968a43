"""What a ControlNet is shown: each preprocessor by pictures whose edges and colours are known."""

import hashlib
from pathlib import Path

import numpy
import pytest
from PIL import Image
from test_pictures import noise, saved

from darkroom import preprocess


def square(width=40, height=30, box=(10, 8, 30, 22)):
    """White on black."""
    picture = numpy.zeros((height, width, 3), numpy.uint8)
    left, top, right, bottom = box
    picture[top:bottom, left:right] = 255
    return picture


def smooth(width=48, height=36, seed=5):
    small = Image.fromarray(noise(8, 6, seed=seed))
    return numpy.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def plain_canny(picture, low, high):
    """The same, pixel by pixel, as the paper and OpenCV's documentation have it."""
    height, width = picture.shape[:2]
    wide = numpy.pad(picture.astype(int), ((1, 1), (1, 1), (0, 0)), mode="edge")
    slopes = numpy.zeros((height, width, 2), int)
    size = numpy.zeros((height + 2, width + 2), int)
    for y in range(height):
        for x in range(width):
            for channel in range(3):
                near = wide[y : y + 3, x : x + 3, channel]
                dx = int((near[:, 2] - near[:, 0]) @ (1, 2, 1))
                dy = int((near[2] - near[0]) @ (1, 2, 1))
                if abs(dx) + abs(dy) > size[y + 1, x + 1] or channel == 0:
                    slopes[y, x], size[y + 1, x + 1] = (dx, dy), abs(dx) + abs(dy)
    ridge = numpy.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            (dx, dy), here = slopes[y, x], size[y + 1, x + 1]
            if abs(dy) * 32768 < abs(dx) * 13573:
                ridge[y, x] = here > size[y + 1, x] and here >= size[y + 1, x + 2]
            elif abs(dy) * 32768 > abs(dx) * 79109:
                ridge[y, x] = here > size[y, x + 1] and here >= size[y + 2, x + 1]
            else:
                side = -1 if (dx < 0) != (dy < 0) else 1
                ridge[y, x] = here > size[y, x + 1 - side] and here > size[y + 2, x + 1 + side]
    strength = size[1:-1, 1:-1]
    edges, waiting = numpy.zeros((height, width), bool), list(zip(*numpy.nonzero(ridge & (strength > high)), strict=True))
    while waiting:
        y, x = waiting.pop()
        if edges[y, x]:
            continue
        edges[y, x] = True
        for v in range(max(0, y - 1), min(height, y + 2)):
            for u in range(max(0, x - 1), min(width, x + 2)):
                if ridge[v, u] and strength[v, u] > low and not edges[v, u]:
                    waiting.append((v, u))
    return edges


@pytest.mark.parametrize(("low", "high"), [(100, 200), (20, 60), (0, 0), (50, 50)])
@pytest.mark.parametrize("picture", [smooth(), smooth(seed=9), noise(30, 20), square()], ids=["smooth", "another", "noise", "square"])
def test_canny_is_what_its_definition_makes_pixel_by_pixel(picture, low, high):
    made = preprocess.canny(picture, low, high)
    assert set(numpy.unique(made)) <= {0, 255}
    assert numpy.array_equal(made[..., 0] > 0, plain_canny(picture, low, high))
    assert (made[..., :1] == made).all()


def test_cannys_edges_are_thin_closed_and_where_the_square_is():
    edges = preprocess.canny(square(), 100, 200)[..., 0] > 0
    rows, columns = numpy.nonzero(edges)
    assert abs(rows.min() - 8) <= 1 and abs(rows.max() - 21) <= 1
    assert abs(columns.min() - 10) <= 1 and abs(columns.max() - 29) <= 1
    assert edges[15].sum() == 2
    assert edges[:, 20].sum() == 2
    assert not preprocess.canny(numpy.full((20, 20, 3), 90, numpy.uint8), 0, 0).any()


def test_what_is_weak_stays_where_it_hangs_together_with_what_is_strong():
    picture = numpy.zeros((30, 60, 3), numpy.uint8)
    # A step that fades along its way, and one that was never steep.
    for column in range(60):
        picture[10:, column] = max(40, 255 - 6 * column)
    picture[22:, :] = numpy.minimum(255, picture[22:, :].astype(int) + 30)
    loose = preprocess.canny(picture, 100, 500)[..., 0] > 0
    strict = preprocess.canny(picture, 500, 500)[..., 0] > 0
    assert strict[8:12].sum() < loose[8:12].sum()
    assert not loose[18:26, :10].any()


@pytest.mark.parametrize("operator", ["sobel", "scharr"])
def test_a_step_from_black_to_white_is_the_brightest_edge(operator):
    picture = numpy.zeros((20, 20, 3), numpy.uint8)
    picture[:, 10:] = 255
    made = preprocess.edge(picture, operator)
    assert (made[:, 9:11] == 255).all()
    assert not made[:, :9].any() and not made[:, 11:].any()
    assert (preprocess.edge(picture // 2, operator)[:, 9:11] == 127).all()


def test_a_soft_edge_is_wider_than_a_hard_one_and_as_bright():
    hard, soft = preprocess.edge(square(), "sobel")[15, :, 0], preprocess.soft(square())[15, :, 0]
    assert preprocess.soft(square()).max() == 255
    assert (soft > 0).sum() > 2 * (hard > 0).sum()
    assert not preprocess.soft(numpy.full((9, 9, 3), 77, numpy.uint8)).any()


def test_tile_blur_grey_and_invert():
    picture = noise(64, 48)
    tile = preprocess.tile(picture, 8)
    assert tile.shape == picture.shape
    assert abs(float(tile.mean()) - float(picture.mean())) < 3
    assert float(tile.std()) < 0.3 * float(picture.std())
    assert preprocess.tile(picture[:5, :3], 64).shape == (5, 3, 3)
    blurred = [float(preprocess.blur(picture, radius).std()) for radius in (1, 4, 16)]
    assert blurred == sorted(blurred, reverse=True)
    grey = preprocess.grey(picture)
    assert (grey[..., :1] == grey).all()
    assert numpy.array_equal(grey[..., 0], numpy.asarray(Image.fromarray(picture).convert("L")))
    assert numpy.array_equal(preprocess.invert(preprocess.invert(picture)), picture)
    assert (preprocess.invert(square())[15, 20] == 0).all()


def test_a_pose_has_its_joints_and_limbs_in_openposes_colours():
    joints = [None] * 18
    joints[1], joints[2], joints[3] = [0.5, 0.25], [0.25, 0.25], [0.25, 0.75]
    made = preprocess.run(None, {"name": "pose", "people": [joints]}, (256, 512))
    assert made.shape == (512, 256, 3)
    # Neck, right shoulder, right elbow; the limbs between them.
    assert made[128, 128].tolist() == [255, 85, 0]
    assert made[128, 64].tolist() == [255, 170, 0]
    assert made[384, 64].tolist() == [255, 255, 0]
    assert made[128, 96].tolist() == [153, 0, 0]
    assert made[256, 64].tolist() == [153, 102, 0]
    assert not made[256, 128].any()
    assert (made.any(-1)).mean() < 0.05


def test_every_preprocessor_makes_the_same_bytes_everywhere():
    """Whole numbers: a change of one of these moves what pictures are steered by."""
    wanted = [
        {"name": "canny", "low": 100, "high": 200},
        {"name": "edge", "operator": "sobel"},
        {"name": "edge", "operator": "scharr"},
        {"name": "soft"},
        {"name": "tile", "factor": 8},
        {"name": "blur", "radius": 8},
        {"name": "grey"},
        {"name": "invert"},
        {"name": "pose", "people": [[[0.1 + 0.04 * n, 0.9 - 0.03 * n * (n % 3)] for n in range(18)]]},
    ]
    made = [hashlib.sha256(preprocess.run(smooth(), each, (48, 36)).tobytes()).hexdigest()[:8] for each in wanted]
    assert made == DIGESTS


DIGESTS = ["9de06916", "6931aa41", "9603664b", "51779c15", "f8f388ac", "8e6ef592", "8a4c4b2f", "4c68c21b", "340d351e"]


@pytest.mark.parametrize(("resize", "size"), [(None, (64, 48)), ("crop", (40, 40)), ("pad", (96, 48)), ("stretch", (8, 120))])
def test_the_child_makes_it_of_a_file(fresh, resize, size):
    file, pin = saved(fresh, noise())
    width, height = size
    given = {"picture": pin, "preprocessor": {"name": "invert"}, "width": width, "height": height, **({"resize": resize} if resize else {})}
    folder = fresh.attempts / f"preprocess-{fresh.last}"
    folder.mkdir()
    data = {"session_id": "p", "dir": str(folder), "input": given, "files": {"picture": fresh.given(file)}, "checkpoint": None}
    answer = fresh.until(fresh.send("inference.preprocess", data))
    assert answer["type"] == "result", answer
    made = numpy.frombuffer(Path(answer["files"]["pixels"]["path"]).read_bytes(), numpy.uint8).reshape(height, width, 3)
    if resize is None:
        assert numpy.array_equal(made, 255 - noise())
    assert fresh.vitals()["sessions"] == {}
