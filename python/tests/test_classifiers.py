"""Classifiers: darkroom-tiny's own by the truth of its world, what folders say of labels, and broken folders."""

import json
import math
import random
import shutil
import sys

import numpy
import pytest
import torch
from conftest import PYTHON, ROOT
from safetensors.torch import load_file, save_file

from darkroom.classifiers import CHECKER_SCALE, Classifiers
from darkroom.errors import DarkroomError
from darkroom.preparation import Preparation

sys.path.insert(0, str(PYTHON))

from training.render import render_bytes
from training.safety import LABELS, contrasting_scene, prepared, truth_of
from training.world import pack

SAFETY = ROOT / "models" / "darkroom-tiny" / "safety"


def reference(path):
    return {"id": path.name, "path": str(path), "body_hash": "a" * 64}


def classifiers(*roots):
    return Classifiers([str(root) for root in roots], torch.device("cpu"))


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "classifier"
    shutil.copytree(SAFETY, made)
    return made


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def broken(path):
    with pytest.raises(DarkroomError) as caught:
        classifiers(path.parent).get(reference(path)).scores(numpy.full((32, 32, 3), 127, numpy.uint8))
    assert caught.value.code == "safety.classifier_broken", caught.value.message
    return caught.value.message


def test_darkroom_tinys_classifier_knows_its_two_kinds_of_picture():
    found = classifiers(ROOT / "models").get(reference(SAFETY))
    rng = random.Random(5)
    scenes = [contrasting_scene(rng) for _ in range(120)]
    pictures = render_bytes(torch.from_numpy(pack(scenes)))
    truth = [truth_of(scene.background, scene.things) for scene in scenes]
    assert sum(first for first, _ in truth) > 5 and sum(second for _, second in truth) > 5
    for picture, expected in zip(pictures, truth, strict=True):
        scores = found.scores(picture.permute(1, 2, 0).numpy())
        assert [scores[LABELS[index]] >= 0.5 for index in range(2)] == list(expected)


def test_a_picture_is_prepared_as_in_training():
    picture = numpy.random.default_rng(3).integers(0, 256, (128, 96, 3), numpy.uint8)
    config = json.loads((SAFETY / "preprocessor_config.json").read_text())
    made = Preparation(config, torch.device("cpu"))(picture)
    expected = prepared(torch.from_numpy(picture).permute(2, 0, 1)[None])
    # Pillow rounds to eight bits between its two directions.
    assert made.shape == (1, 3, 64, 64) and (made - expected).abs().max() < 3 / 127.5


def test_the_shortest_edge_keeps_proportions_and_the_crop_is_the_middle():
    picture = numpy.zeros((40, 80, 3), numpy.uint8)
    picture[:, 20:60] = 255
    config = {
        "size": {"shortest_edge": 40},
        "do_center_crop": True,
        "crop_size": {"height": 40, "width": 40},
        "image_mean": [0.0] * 3,
        "image_std": [1.0] * 3,
    }
    made = Preparation(config, torch.device("cpu"))(picture)
    assert made.shape == (1, 3, 40, 40) and torch.allclose(made, torch.ones(()))


def test_labels_get_their_categories_from_the_folder(folder):
    change(folder / "config.json", id2label={"0": "bad", "1": "fine"}, label2id={"bad": 0, "fine": 1}, problem_type=None)
    assert "which category is its label bad" in broken(folder)
    (folder / "categories.json").write_text(json.dumps({"bad": "violence", "fine": None}))
    scores = classifiers(folder.parent).get(reference(folder)).scores(numpy.full((32, 32, 3), 127, numpy.uint8))
    assert list(scores) == ["violence"] and 0 <= scores["violence"] <= 1
    (folder / "categories.json").write_text(json.dumps({"bad": None, "fine": None}))
    assert "none of its labels is a category" in broken(folder)
    (folder / "categories.json").write_text(json.dumps({"bad": "violence", "fine": None, "other": None}))
    assert "speaks of other" in broken(folder)


def emptied(path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("config.json", lambda path: path.unlink()),
        ("config.json", lambda path: path.write_text("[]")),
        ("config.json", lambda path: change(path, architectures=["NoSuchForImageClassification"], model_type="nothing")),
        ("preprocessor_config.json", lambda path: path.unlink()),
        ("preprocessor_config.json", lambda path: path.write_text("{")),
        ("preprocessor_config.json", lambda path: change(path, size={"depth": 3})),
        ("model.safetensors", lambda path: path.unlink()),
        ("model.safetensors", emptied),
        ("model.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-1000])),
        ("model.safetensors", lambda path: save_file({k: v for k, v in load_file(path).items() if "classifier" not in k}, path)),
        (
            "model.safetensors",
            lambda path: save_file({k: v[:1].clone() if k == "classifier.1.bias" else v for k, v in load_file(path).items()}, path),
        ),
        (
            "model.safetensors",
            lambda path: save_file(
                {k: torch.full_like(v, math.nan) if k == "classifier.1.bias" else v for k, v in load_file(path).items()}, path
            ),
        ),
    ],
)
def test_a_broken_folder_gives_no_score(folder, name, how):
    how(folder / name)
    broken(folder)


def test_what_has_changed_on_disk_is_not_judged_by_what_was_read_before(folder):
    found = classifiers(folder.parent)
    picture = numpy.full((32, 32, 3), 127, numpy.uint8)
    before = found.get(reference(folder)).scores(picture)
    assert found.get(reference(folder)).scores(picture) == before
    weights = {
        name: tensor + 1 if name == "classifier.1.bias" else tensor for name, tensor in load_file(folder / "model.safetensors").items()
    }
    save_file(weights, folder / "model.safetensors")
    assert found.get(reference(folder)).scores(picture) != before


def test_nothing_outside_the_model_folders_is_read(folder, tmp_path):
    with pytest.raises(DarkroomError, match="is in no model folder"):
        classifiers(tmp_path / "elsewhere").get(reference(folder))
    (tmp_path / "outside.json").write_text((folder / "config.json").read_text())
    root = tmp_path / "root"
    root.mkdir()
    moved = folder.rename(root / "classifier")
    (moved / "config.json").unlink()
    (moved / "config.json").symlink_to(tmp_path / "outside.json")
    with pytest.raises(DarkroomError, match="leads out of the model folders"):
        classifiers(root).get(reference(moved))


def test_the_safety_checker_of_diffusers_blackens_what_has_a_score_of_a_half(tmp_path):
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig

    torch.manual_seed(1)
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
    }
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=16)).eval()
    for name in ("concept_embeds", "special_care_embeds"):
        getattr(checker, name).data = torch.randn_like(getattr(checker, name))
    pictures = [numpy.random.default_rng(seed).integers(0, 256, (32, 32, 3), numpy.uint8) for seed in range(8)]
    prepare = Preparation({"size": 32}, torch.device("cpu"))
    # Limits in the middle of what these pictures reach, so that some are blackened.
    with torch.no_grad():
        seen = torch.cat([checker.visual_projection(checker.vision_model(prepare(picture))[1]) for picture in pictures])
        cosines = torch.nn.functional.normalize(seen) @ torch.nn.functional.normalize(checker.concept_embeds).T
    checker.concept_embeds_weights.data = torch.full((17,), float(cosines.max(1).values.median()) - 2e-3)
    checker.special_care_embeds_weights.data = torch.full((3,), 2.0)
    folder = tmp_path / "checker"
    checker.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": 32}))
    found = classifiers(tmp_path).get(reference(folder))
    blackened = []
    for picture in pictures:
        _, flagged = checker(clip_input=prepare(picture), images=picture[None].astype(numpy.float32).copy())
        scores = found.scores(picture)
        assert list(scores) == ["sexual"]
        # Diffusers rounds cosines to three digits.
        if abs(scores["sexual"] - 0.5) > 0.25 * 0.001 / CHECKER_SCALE:
            assert (scores["sexual"] > 0.5) == flagged[0]
        blackened.append(flagged[0])
    assert 0 < sum(blackened) < len(blackened)
