"""Edits with reference pictures: what is drawn is what diffusers' own pipelines draw, to the last bit on the CPU; a
picture goes on to the same bytes; what a model cannot see is refused by name."""

from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import EVERY_CALL
from flow_pipelines import flux, flux2, load, qwen_image
from micro_flow import make_flow_model
from PIL import Image
from test_flow import asked, held
from test_pictures import noise, saved

KONTEXT, EDIT, PLUS = "FluxKontextPipeline", "QwenImageEditPipeline", "QwenImageEditPlusPipeline"
FAMILIES = {"kontext": ("flux1", KONTEXT), "klein": ("flux2", None), "edit": ("qwen-image", EDIT), "plus": ("qwen-image", PLUS)}
# Pictures, (width, height), as no model wants them.
SIZES = [(90, 70), (130, 66), (64, 97)]


@pytest.fixture(scope="session")
def editors(micro_folder):
    """Name → its random model, made when it is first asked for."""
    made = {}

    def model(name):
        if name not in made:
            family, pipeline = FAMILIES[name]
            made[name] = make_flow_model(micro_folder / f"editor-{name}", family, seed=70 + len(made), pipeline=pipeline)
        return made[name]

    return model


class Processor:
    """Qwen's, without the half for videos, which needs torchvision: what its pipelines ask of it."""

    def __init__(self, tokenizer):
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        self.tokenizer = tokenizer
        self.images = Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=12_845_056)

    def __call__(self, text, images, padding, return_tensors):
        from transformers import BatchFeature

        made = self.images(images, return_tensors="pt")
        [words] = text
        for grid in made["image_grid_thw"]:
            words = words.replace("<|image_pad|>", "<|place|>" * (int(grid.prod()) // 4), 1)
        return BatchFeature({**self.tokenizer([words.replace("<|place|>", "<|image_pad|>")], return_tensors="pt"), **made})


def pipeline_of(name, model):
    """diffusers' own. To Qwen's text encoder is said which tokens are a picture's: without that, which the pipeline
    leaves out, the pinned transformers does not reckon their places in rows and columns."""
    import diffusers

    family, kind = FAMILIES[name]
    parts = {"flux1": flux, "flux2": flux2, "qwen-image": qwen_image}[family](partial(load, model["path"])).components
    if family == "qwen-image":
        parts["processor"] = Processor(parts["tokenizer"])
        encoder = parts["text_encoder"]
        forward = encoder.forward
        encoder.forward = lambda input_ids, **more: forward(input_ids, mm_token_type_ids=(input_ids == 261).int(), **more)
    given = {name: part for name, part in parts.items() if name not in ("image_encoder", "feature_extractor")}
    pipeline = getattr(diffusers, kind or "Flux2KleinPipeline")(**given)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def drawn_by(name, request, pictures):
    """Its latents, unpacked."""
    from diffusers import FluxPipeline

    pictures = [Image.fromarray(picture) for picture in pictures]
    guided = {"negative_prompt": request["negative_prompt"], "true_cfg_scale": request["guidance"]}
    how = {
        "kontext": {"guidance_scale": request["guidance"], "max_area": request["width"] * request["height"]},
        "klein": {"guidance_scale": request["guidance"]},
        **dict.fromkeys(("edit", "plus"), guided),
    }[name]
    kept = {}
    torch.set_num_threads(1)
    pipeline_of(name, request["model"])(
        image=pictures if name in ("klein", "plus") else pictures[0],
        prompt=request["prompt"],
        width=request["width"],
        height=request["height"],
        num_inference_steps=request["steps"],
        generator=torch.Generator("cpu").manual_seed(request["seed"]),
        output_type="latent",
        callback_on_step_end=lambda _, __, ___, given: kept.update(given) or {},
        **how,
    )
    tokens = kept["latents"]
    if name == "klein":
        rows, columns = request["height"] // 16, request["width"] // 16
        return tokens.permute(0, 2, 1).reshape(1, tokens.shape[2], rows, columns)
    return FluxPipeline._unpack_latents(tokens, request["height"], request["width"], 8)


def edited(child, model, count, **changes):
    """(the request of an edit of so many pictures, the pictures)."""
    pictures = [noise(*SIZES[number % len(SIZES)], seed=50 + number) for number in range(count)]
    files, pins = {}, []
    for number, picture in enumerate(pictures):
        files[f"reference{number}"], pin = saved(child, picture)
        pins.append(pin)
    request = asked(model["family"], model=model, width=64, height=48, steps=2, **changes)
    return {**request, "references": pins, "files": files}, pictures


CASES = [("klein", 1), ("klein", 2), pytest.param("kontext", 1, marks=pytest.mark.long)]
CASES += [pytest.param(*case, marks=pytest.mark.long) for case in (("edit", 1), ("plus", 1), ("plus", 2))]


@pytest.mark.parametrize(("name", "count"), CASES)
def test_an_edit_draws_what_diffusers_own_pipeline_draws(fresh, editors, name, count):
    request, pictures = edited(fresh, editors(name), count)
    drawn = held(fresh.run("denoise", **request), "latents")["latents"]
    assert torch.equal(drawn, drawn_by(name, request, pictures))


@pytest.mark.long
def test_a_large_picture_is_made_smaller_as_diffusers_own_pipeline_does(fresh, editors):
    model = editors("klein")
    picture = noise(1500, 750, seed=3)
    file, pin = saved(fresh, picture)
    request = asked("flux2", model=model, width=64, height=48, steps=1)
    drawn = fresh.run("denoise", **request, references=[pin], files={"reference0": file})
    assert torch.equal(held(drawn, "latents")["latents"], drawn_by("klein", request, [picture]))


def test_each_picture_and_their_order_decide_and_nothing_is_left_afterwards(fresh, editors):
    request, _ = edited(fresh, editors("klein"), 2)
    first, second = request["references"]
    files = {"reference0": request["files"]["reference1"], "reference1": request["files"]["reference0"]}

    def drawn(**changes):
        return fresh.run("denoise", **{**request, **changes})["files"]["latents"]["sha256"]

    plain = {name: value for name, value in request.items() if name not in ("references", "files")}
    before = fresh.run("denoise", **plain)["files"]["latents"]["sha256"]
    both = drawn()
    assert len({before, both, drawn(references=[first]), drawn(references=[second, first], files=files)}) == 4
    assert drawn() == both
    assert fresh.run("denoise", **plain)["files"]["latents"]["sha256"] == before


def test_a_conditioning_of_other_pictures_is_made_again(fresh, editors):
    request, _ = edited(fresh, editors("klein"), 1)
    texts = {name: request[name] for name in ("model", "prompt", "negative_prompt", "references", "files")}
    made = fresh.run("encode", **texts)["files"]["conditioning"]
    kept = fresh.run("denoise", **{**request, "files": {**request["files"], "conditioning": made}})
    assert kept["stats"]["remade"] == []
    others, _ = edited(fresh, editors("klein"), 2)
    other = fresh.run("denoise", **{**others, "files": {**others["files"], "conditioning": made}})
    assert other["stats"]["remade"] == ["conditioning"]


@pytest.mark.parametrize("name", ["klein", *(pytest.param(name, marks=pytest.mark.long) for name in ("kontext", "edit", "plus"))])
def test_an_edit_goes_on_from_any_call_to_the_same_bytes(shared, fresh, editors, name):
    request, _ = edited(shared, editors(name), 1, sampler="Heun")
    first = shared.work("denoise", **request)
    whole = shared.until(first)
    made = shared.of(first, "checkpoint")
    assert [each["call"] for each in made] == list(range(1, whole["stats"]["calls"]))
    for checkpoint in made[-2:]:
        resumed = fresh.run("denoise", checkpoint=checkpoint, **{**request, **edited(fresh, editors(name), 1, sampler="Heun")[0]})
        assert (resumed["stats"]["resumed_from"], resumed["stats"]["checkpoint_refused"]) == (checkpoint["call"], None)
        assert resumed["files"]["latents"]["sha256"] == whole["files"]["latents"]["sha256"]
    file, pin = saved(fresh, noise(90, 70, seed=99))
    other = fresh.run("denoise", checkpoint=made[0], **{**request, "references": [pin], "files": {"reference0": file}})
    assert "references" in other["stats"]["checkpoint_refused"]


def test_an_edit_that_is_killed_in_the_middle_is_drawn_to_the_same_bytes(fork, fresh, micro_folder, editors):
    request, _ = edited(fresh, editors("klein"), 2, sampler="Heun")
    whole = fresh.run("denoise", **request)
    killed = fork(checkpoint=EVERY_CALL, models=[micro_folder])
    killed.ready()
    request_id = killed.work("denoise", **request)
    last = killed.until(request_id, "checkpoint")
    killed.process.kill()
    resumed = fresh.run("denoise", checkpoint=last, **request)
    assert resumed["stats"]["resumed_from"] == last["call"]
    assert resumed["files"]["latents"]["sha256"] == whole["files"]["latents"]["sha256"]


@pytest.mark.parametrize(
    ("name", "verb", "count", "changes", "words"),
    [
        ("kontext", "denoise", 2, {}, "this model takes at most 1 reference pictures, not 2"),
        ("edit", "encode", 0, {}, "edits pictures: send the ids of one or more in references"),
        ("plus", "encode", 4, {}, "this model takes at most 3 reference pictures, not 4"),
    ],
)
def test_what_a_model_does_not_see_is_refused_by_name(fresh, editors, name, verb, count, changes, words):
    request, _ = edited(fresh, editors(name), count, **changes)
    if count == 0:
        del request["references"]
    answer = fresh.run(verb, **request)
    assert (answer["code"], answer["field"]) == ("inference.request_unfit", "input.references")
    assert words in answer["message"]


def test_a_mark_of_the_template_in_a_prompt_is_refused(fresh, editors):
    request, _ = edited(fresh, editors("plus"), 1, prompt="a <|image_pad|> star")
    answer = fresh.run("encode", **request)
    assert (answer["code"], answer["field"]) == ("inference.request_unfit", "input.prompt")


def test_a_picture_without_a_whole_token_and_one_that_is_gone_are_refused(fresh, editors):
    request, _ = edited(fresh, editors("klein"), 0)
    file, pin = saved(fresh, noise(64, 8))
    answer = fresh.run("denoise", **{**request, "references": [pin], "files": {"reference0": file}})
    assert (answer["code"], answer["field"]) == ("inference.request_unfit", "input.references")
    assert "has 64 × 8: send a larger one" in answer["message"]
    gone = fresh.run("denoise", **{**request, "references": [pin], "files": {}})
    assert (gone["code"], gone["field"]) == ("inference.picture_unreadable", "reference0")


def test_a_family_that_sees_none_says_so(fresh, micro_folder):
    model = make_flow_model(micro_folder / "blind", "sd3", seed=79)
    request, _ = edited(fresh, model, 1)
    answer = fresh.run("denoise", **request)
    assert (answer["code"], answer["field"]) == ("inference.request_unfit", "input.references")
    assert "this model takes no reference pictures, not 1" in answer["message"]


@pytest.mark.long
def test_of_a_long_prompt_with_pictures_so_much_is_heard_as_without(fresh, editors):
    request, _ = edited(fresh, editors("plus"), 2, prompt="ab" * 600)
    heard = fresh.run("encode", **request)["stats"]["tokens"]["prompt"]
    assert (heard["read"], heard["dropped"]) == (1024, 176)
    assert Path(fresh.run("encode", **request)["files"]["conditioning"]["path"]).stat().st_size > 0
