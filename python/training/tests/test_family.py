"""The family as committed: whole, small, in the layouts others read, and right."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from training import captions, judge, lora, models, package, safety  # noqa: E402
from training.diffusion import Family, draw  # noqa: E402
from training.render import to_numpy  # noqa: E402

FOLDER = Path(__file__).parents[3] / "models" / "darkroom-tiny"


def test_manifest_names_every_file_and_its_hash() -> None:
    files = json.loads((FOLDER / "manifest.json").read_text())["files"]
    present = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file()}
    assert present == {*files, "manifest.json"}
    for name, entry in files.items():
        content = (FOLDER / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry["bytes"], entry["sha256"]), name
    assert sum((FOLDER / name).stat().st_size for name in present) <= 12_000_000


def test_weights_are_half_precision_with_modelspec_metadata() -> None:
    for path in FOLDER.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        assert kinds <= {"F16", "I64"}, path
        assert metadata["modelspec.architecture"].startswith("darkroom-tiny-v1/")
        content = path.read_bytes()
        body = content[8 + int.from_bytes(content[:8], "little") :]
        assert metadata["modelspec.hash_sha256"] == "0x" + hashlib.sha256(body).hexdigest()


def test_kohya_copy_holds_the_same_lora() -> None:
    plain = {name.removeprefix("unet."): tensor for name, tensor in load_file(FOLDER / "lora/pastel.safetensors").items()}
    kohya = load_file(FOLDER / "lora/pastel-kohya.safetensors")
    expected = package.kohya_layout(plain, lora.STYLES["pastel"].rank)
    assert kohya.keys() == expected.keys()
    assert all(torch.equal(kohya[name].float(), expected[name].float()) for name in kohya)


def test_upscaler_doubles_a_picture() -> None:
    network = models.Compact()
    network.load_state_dict(load_file(FOLDER / "upscaler/x2-compact.safetensors"))
    with torch.no_grad():
        assert network(torch.rand(1, 3, 10, 12)).shape == (1, 3, 20, 24)


def test_classifier_says_that_it_is_a_test() -> None:
    labels = json.loads((FOLDER / "safety/config.json").read_text())["id2label"]
    assert list(labels.values()) == list(safety.LABELS.values())
    assert all(label.startswith("custom/plumbing-test") and label.endswith("not-nudity") for label in labels.values())


def test_draws_what_the_prompt_says() -> None:
    asked = captions.prompts(31, 1, 2)
    pictures = draw(Family.open(FOLDER, "cpu"), [prompt.text for prompt in asked], seed=31)
    table = judge.tabulate(judge.grade_all(to_numpy(pictures), asked))
    assert judge.share(table, 1) == judge.share(table, 2) == 1
