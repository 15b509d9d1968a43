"""The judge must be right every time on pictures that are right: its misses are then the model's."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training import captions, judge, world


def rendered(asked: list[captions.Prompt], worn: bool = False) -> np.ndarray:
    torch = pytest.importorskip("torch")
    from training import evaluate, render

    scene = asked[0].scene
    packed = torch.from_numpy(world.pack(prompt.scene for prompt in asked))
    pictures = render.render(packed, scene.width, scene.height)
    return render.to_numpy(render.to_bytes(evaluate.worn(pictures) if worn else pictures))


@pytest.mark.parametrize("worn", [False, True], ids=["plain", "blurred and noisy"])
@pytest.mark.parametrize(("width", "height"), [(128, 128), (192, 128), (128, 192)])
def test_judge_is_always_right_on_ground_truth(width: int, height: int, worn: bool) -> None:
    asked = captions.prompts(11, 150, 150, 10, width, height)
    table = judge.tabulate(judge.grade_all(rendered(asked, worn), asked))
    assert {count: judge.share(table, count) for count in table} == {0: 1, 1: 1, 2: 1}
    if not worn:
        assert judge.share(table, 1, "size") == judge.share(table, 2, "size") == 1


def test_judge_sees_each_kind_of_mistake() -> None:
    asked = captions.prompts(12, 60, 60)
    pictures = rendered(asked)
    for prompt, picture in zip(asked, pictures, strict=True):
        scene = prompt.scene
        first = scene.things[0]
        free = next(i for i in range(8) if i not in {scene.background, *(thing.colour for thing in scene.things)})
        recoloured = replace(scene, things=(replace(first, colour=free), *scene.things[1:]))
        reshaped = replace(scene, things=(replace(first, shape=(first.shape + 1) % 6), *scene.things[1:]))
        marks = judge.grade(picture, recoloured).marks
        assert not marks["colour"] and not marks["all"]
        assert not judge.grade(picture, reshaped).marks["binding"]
        assert not judge.grade(picture, replace(scene, background=free)).marks["background"]
        assert not judge.grade(picture, replace(scene, things=())).marks["count"]
        if scene.relation:
            turned = replace(scene, relation=world.INVERSE[scene.relation])
            assert not judge.grade(picture, turned).marks["relation"]


def test_judge_and_world_import_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['transformers'] = None\n"
        "from training import captions, judge, world; assert judge.look and captions.FIXED"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_measures() -> None:
    flat = np.full((64, 64, 3), (220, 38, 38), np.uint8)
    assert judge.saturation(flat) == pytest.approx((220 - 38) / 220, abs=1e-3)
    assert judge.rim_share(flat) == 0
    assert judge.psnr(flat, flat) > 70
    assert judge.psnr(flat, flat + np.uint8(1)) == pytest.approx(48.13, abs=0.01)
    scores, truth = np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, False, True, True])
    assert judge.area_under_curve(scores, truth) == pytest.approx(0.875)
    with pytest.raises(ValueError, match="both classes"):
        judge.area_under_curve(scores, np.ones(4, bool))


def test_boundary_overlap_tolerates_two_pixels() -> None:
    picture = np.full((64, 64, 3), PALE := world.PALETTE[6], np.uint8)
    assert PALE.min() > 200
    picture[20:40, 20:40] = world.PALETTE[4]
    edges = judge.boundaries(judge.segment(picture))
    assert judge.boundary_overlap(edges, picture) == 1
    assert judge.boundary_overlap(np.roll(edges, 2, 1), picture) == 1
    assert judge.boundary_overlap(np.roll(edges, 12, (0, 1)), picture) < 0.2


def test_scenes_keep_their_distance() -> None:
    import random

    rng = random.Random(5)
    for _ in range(500):
        scene = world.random_scene(rng, 2, 192, 128)
        for thing in scene.things:
            left, right, top, bottom = (part * thing.radius for part in world.EXTENTS[world.SHAPES[thing.shape]])
            assert thing.x - left >= world.MARGIN - 1e-6 and thing.x + right <= 192 - world.MARGIN + 1e-6
            assert thing.y - top >= world.MARGIN - 1e-6 and thing.y + bottom <= 128 - world.MARGIN + 1e-6
        assert len({scene.background, *(thing.colour for thing in scene.things)}) == 3
