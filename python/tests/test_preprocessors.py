"""Networks that see what ControlNets are shown: what is drawn is what transformers makes of it, to the bit."""

import json
import shutil
from pathlib import Path

import numpy
import pytest
import torch
import transformers
from micro import make_control, make_model
from micro_preprocessors import MAKERS, make_preprocessor
from safetensors.torch import load_file, save_file
from test_pictures import noise, saved
from torch.nn import functional as F
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

from darkroom import control, preprocessors

# Threads that spin while they wait hold one another up on a busy machine.
torch.set_num_threads(1)

SIZES = [(64, 48), (97, 150)]
DEPTH = ("dpt", "dpt-hybrid", "depth-anything", "metric")
TASK = {name: "depth" if name in DEPTH else "segment" for name in MAKERS}


@pytest.fixture(scope="module")
def made(micro_folder):
    """Name → its reference."""
    found = {}

    def reference(name):
        if name not in found:
            found[name] = make_preprocessor(micro_folder / f"sees {name}", name, seed=80 + len(found))
        return found[name]

    return reference


def seen(child, reference, task, picture, **more):
    """The answer of a preprocess."""
    file, pin = saved(child, picture)
    height, width = picture.shape[:2]
    given = {"picture": pin, "preprocessor": {"name": task, "model": reference}, "width": width, "height": height, **more}
    folder = child.attempts / f"see-{child.process.pid}-{child.last}"
    folder.mkdir()
    data = {"session_id": "p", "dir": str(folder), "input": given, "files": {"picture": child.given(file)}, "checkpoint": None}
    return child.until(child.send("inference.preprocess", data))


def pixels_of(answer, width, height):
    assert answer["type"] == "result", answer
    return numpy.frombuffer(Path(answer["files"]["pixels"]["path"]).read_bytes(), numpy.uint8).reshape(height, width, 3)


def by_transformers(reference, picture):
    """What transformers' own processor, network and post-processing make of it: depth as its pipeline draws it, or the
    number of each pixel's class."""
    config = json.loads((Path(reference["path"]) / "config.json").read_text())
    network = getattr(transformers, config["architectures"][0]).from_pretrained(reference["path"]).eval()
    for tensor in network.parameters():
        # Out of the mapped file: on what address a matrix lies decides how a product of it is summed.
        tensor.data = tensor.data.clone()
    told = json.loads((Path(reference["path"]) / "preprocessor_config.json").read_text())
    # Segformer's own wants torchvision, and does the same with a picture.
    processor = DPTImageProcessorPil(**{name: value for name, value in told.items() if name != "image_processor_type"})
    size = picture.shape[:2]
    with torch.inference_mode():
        output = network(**processor(images=picture, return_tensors="pt"))
        if "logits" in output:
            return processor.post_process_semantic_segmentation(output, [size])[0].numpy()
        [found] = processor.post_process_depth_estimation(output, [size])
    values = found["predicted_depth"].numpy()
    return (values - values.min()) / (values.max() - values.min())


def test_classes_are_those_of_transformers():
    assert all(issubclass(getattr(transformers, name), transformers.PreTrainedModel) for name in preprocessors.TASKS)
    assert set(preprocessors.TASKS.values()) == {"depth", "segment"}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", MAKERS)
def test_what_is_drawn_is_what_transformers_makes_of_it(fresh, made, device, name, size):
    if device != "cpu":
        pytest.skip("the network beside it computes on the CPU")
    width, height = size
    picture = noise(width, height, seed=3)
    drawn = pixels_of(seen(fresh, made(name), TASK[name], picture), width, height)
    wanted = by_transformers(made(name), picture)
    if TASK[name] == "segment":
        assert len(numpy.unique(wanted)) > 3
        assert numpy.array_equal(drawn, preprocessors.PALETTE[wanted])
        return
    near = 1 - wanted if name == "metric" else wanted
    assert (drawn == drawn[..., :1]).all() and drawn.min() == 0 and drawn.max() == 255 and len(numpy.unique(drawn)) > 20
    assert numpy.array_equal(drawn[..., 0], (near * 255).astype(numpy.uint8))


@pytest.mark.parametrize("name", ["depth-anything", "segformer"])
def test_it_is_the_same_bytes_each_time_and_in_each_process(fresh, shared, made, name):
    picture = noise(64, 48, seed=4)
    answers = [seen(child, made(name), TASK[name], picture) for child in (fresh, fresh, shared)]
    assert len({answer["files"]["pixels"]["sha256"] for answer in answers}) == 1
    [resident] = [model for model in fresh.vitals()["models"] if model["id"] == made(name)["id"]]
    assert resident["family"] == "preprocessor" and resident["bytes"] > 100_000


def test_a_picture_is_resized_before_it_is_seen(fresh, made):
    answer = seen(fresh, made("dpt"), "depth", noise(90, 48), width=40, height=40, resize="crop")
    assert pixels_of(answer, 40, 40).max() == 255


def test_a_controlnet_is_shown_what_the_network_sees(fresh, made, micro_folder):
    model = make_model(micro_folder / "seen by", seed=91)
    steering = make_control(micro_folder / "control seen by", model, seed=92)
    picture = noise(64, 48, seed=5)
    file, pin = saved(fresh, picture)
    drawn = pixels_of(seen(fresh, made("depth-anything"), "depth", picture), 64, 48)
    other, other_pin = saved(fresh, drawn)
    said = {"model": steering, "resize": "crop", "weight": 1.0, "start": 0, "end": 1, "mode": "balanced"}
    preprocessor = {"name": "depth", "model": made("depth-anything")}
    request = {"prompt": "a star", "steps": 3, "seed": 11, "width": 64, "height": 48, "model": model}
    by_it = fresh.run("denoise", control=[{**said, "picture": pin, "preprocessor": preprocessor}], files={"control0": file}, **request)
    by_hand = fresh.run("denoise", control=[{**said, "picture": other_pin}], files={"control0": other}, **request)
    plain = fresh.run("denoise", control=[{**said, "picture": pin}], files={"control0": file}, **request)
    tensors = [load_file(answer["files"]["latents"]["path"])["latents"] for answer in (by_it, by_hand, plain)]
    assert torch.equal(tensors[0], tensors[1]) and not torch.equal(tensors[0], tensors[2])


def test_a_checkpoint_belongs_to_the_bytes_of_the_network_wherever_they_lie():
    told = {"model": {"body_hash": "c"}, "preprocessor": {"name": "depth", "model": {"id": "a", "path": "/x", "body_hash": "d"}}}
    assert control.pinned({"control": [told]}) == {"control": [{"model": "c", "preprocessor": {"name": "depth", "model": "d"}}]}
    plain = {"model": {"body_hash": "c"}, "preprocessor": {"name": "grey"}}
    assert control.pinned({"control": [plain]}) == {"control": [{"model": "c", "preprocessor": {"name": "grey"}}]}


def changed(reference, name, change):
    """A copy of its folder, changed."""
    folder = Path(reference["path"]).with_name(name)
    shutil.copytree(reference["path"], folder)
    change(folder)
    return {**reference, "id": name, "path": str(folder), "body_hash": f"{abs(hash(name)):064x}"[:64]}


def without_a_tensor(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(next(iter(tensors)))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def of_another_class(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["GLPNForDepthEstimation"]}))


def not_finite(folder):
    tensors = {name: torch.full_like(tensor, torch.nan) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def smaller_than_a_patch(folder):
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 4, "width": 4}}))


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (without_a_tensor, "model.corrupt", "lacks"),
        (of_another_class, "model.corrupt", "its class is GLPNForDepthEstimation"),
        (not_finite, "inference.preprocessor_broken", "not finite"),
        (smaller_than_a_patch, "inference.preprocessor_broken", "cannot look at the picture: RuntimeError"),
        (lambda folder: (folder / "preprocessor_config.json").write_text("[]"), "model.load_failed", "no JSON object"),
    ],
    ids=["lacks a tensor", "another class", "not finite", "does not fit", "no configuration"],
)
def test_a_folder_that_is_wrong_is_refused_and_no_picture_comes_of_it(fresh, made, change, code, said):
    answer = seen(fresh, changed(made("dpt"), f"wrong {code} {said}", change), "depth", noise())
    assert answer["type"] == "error" and answer["code"] == code and said in answer["message"]


def test_what_is_equally_far_everywhere_is_black():
    for is_distance in (False, True):
        assert not preprocessors.depth(torch.full((1, 1, 4, 4), 3.0), (9, 7), is_distance).any()


def test_classes_are_found_a_few_planes_at_a_time_as_among_all():
    logits = torch.randn(1, 150, 7, 9, generator=torch.Generator().manual_seed(2))
    # Equal ones: the first counts.
    logits[:, 40:60] = logits[:, 20:40]
    whole = F.interpolate(logits, size=(31, 45), mode="bilinear", align_corners=False)[0].argmax(0).numpy()
    assert numpy.array_equal(preprocessors.classes(logits, (31, 45)), preprocessors.PALETTE[whole])


def test_the_palette_is_ade20ks():
    assert preprocessors.PALETTE.shape == (150, 3)
    # Wall, building, sky, tree, person, flag.
    wanted = {0: (120, 120, 120), 1: (180, 120, 120), 2: (6, 230, 230), 4: (4, 200, 3), 12: (150, 5, 61), 149: (92, 0, 255)}
    assert {number: tuple(preprocessors.PALETTE[number].tolist()) for number in wanted} == wanted
