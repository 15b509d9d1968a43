"""Families with flow matching draw what diffusers' own pipelines draw, to the last bit on the CPU, and hear of a
request what they can."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import EVERY_CALL, REQUEST
from flow_pipelines import load, pipeline_of, words_of
from micro_flow import SCHEDULERS, make_flow_model

from darkroom import tensors

FAMILIES = list(SCHEDULERS)
SIZES = [(64, 48), (96, 128)]
HEARD = {"prompt": "a star, café 圆", "negative_prompt": "a square"}
# What a request of each family says where the pipeline has another word or another count.
REQUESTS = {
    "z-image": {**HEARD, "guidance": 5.0},
    "flux1": {"prompt": HEARD["prompt"], "negative_prompt": "", "guidance": 3.5},
    "qwen-image": {**HEARD, "guidance": 4.0},
    "sd3": {**HEARD, "guidance": 7.0},
    # Its pipeline hears no negative prompt; ours does, and with the empty one both are the same.
    "flux2": {"prompt": HEARD["prompt"], "negative_prompt": "", "guidance": 4.0},
}


@pytest.fixture(scope="session")
def flow_models(micro_folder):
    """Family → its random model, made when it is first asked for."""
    made = {}

    def model(family, name="", **options):
        name = name or family
        if name not in made:
            made[name] = make_flow_model(micro_folder / f"flow-{name}", family, **options)
        return made[name]

    return model


@pytest.fixture(scope="session")
def pipelines(device):
    """(family, folder) → diffusers' own pipeline, fp32 on the CPU, on one thread as the child is."""
    if device != "cpu":
        pytest.skip("the networks of a GPU compute in bf16")
    made = {}

    def pipeline(family, folder):
        if folder not in made:
            made[folder] = pipeline_of(family, partial(load, folder))
            made[folder].set_progress_bar_config(disable=True)
        return made[folder]

    torch.set_num_threads(1)
    return pipeline


def drawn_by(pipeline, family, request, output="latent"):
    """What the pipeline draws of a request; `latent`: as it was after the last call."""
    import diffusers

    generator = torch.Generator("cpu").manual_seed(request["seed"])
    kinds = {"Euler": "FlowMatchEulerDiscreteScheduler", "LCM": "FlowMatchLCMScheduler", "Heun": "FlowMatchHeunDiscreteScheduler"}
    pipeline.scheduler = getattr(diffusers, kinds[request["sampler"]]).from_config(load_config(request["model"]))
    # The pipelines hand no generator to a sampler that draws noise.
    step = pipeline.scheduler.step
    pipeline.scheduler.step = partial(packed_step if family in (*PACKED, "flux2") else plain_step, step, family, request, generator)
    kept = {}
    images = pipeline(
        prompt=request["prompt"],
        width=request["width"],
        height=request["height"],
        num_inference_steps=request["steps"],
        generator=generator,
        output_type=output,
        callback_on_step_end=lambda _, __, ___, given: kept.update(given) or {},
        **words_of(family, request),
    ).images
    return unpacked(kept["latents"], family, request) if output == "latent" else images


def load_config(model):
    return json.loads((Path(model["path"]) / "scheduler" / "scheduler_config.json").read_text())


# Families whose pipelines keep latents as tokens: theirs and ours hold the same numbers in another order.
PACKED = ("flux1", "qwen-image")


def unpacked(tokens, family, request):
    """Latents as they are when nobody packs them."""
    from diffusers import FluxPipeline

    if family == "flux2":
        rows, columns = request["height"] // 16, request["width"] // 16
        return tokens.permute(0, 2, 1).reshape(1, tokens.shape[2], rows, columns)
    return FluxPipeline._unpack_latents(tokens, request["height"], request["width"], 8) if family in PACKED else tokens


def plain_step(step, family, request, generator, predicted, t, latents, **options):
    return step(predicted, t, latents, generator=generator, **options)


def packed_step(step, family, request, generator, predicted, t, latents, **options):
    """A step on latents that nobody packs, so that noise is drawn in the same order."""
    from diffusers import Flux2KleinPipeline, FluxPipeline

    given = (unpacked(each, family, request) for each in (predicted, latents))
    (stepped,) = step(next(given), t, next(given), generator=generator, **options)
    if family == "flux2":
        return (Flux2KleinPipeline._pack_latents(stepped),)
    return (FluxPipeline._pack_latents(stepped, *stepped.shape),)


def asked(family, **changes):
    return {**REQUEST, **REQUESTS[family], "steps": 4, "seed": 11, "sampler": "Euler", **changes}


def held(answer, name):
    return tensors.load(Path(answer["files"][name]["path"]).read_bytes())[0]


@pytest.mark.parametrize("sampler", ["Euler", "LCM"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_loop_draws_what_diffusers_own_pipeline_draws(fresh, flow_models, pipelines, family, size, sampler):
    model = flow_models(family)
    request = asked(family, model=model, width=size[0], height=size[1], sampler=sampler)
    drawn = held(fresh.run("denoise", **request), "latents")["latents"]
    assert torch.equal(drawn, drawn_by(pipelines(family, model["path"]), family, request))


def test_heun_draws_what_a_pipeline_that_takes_it_draws(fresh, flow_models, pipelines):
    """Of these pipelines one alone takes it."""
    model = flow_models("sd3")
    request = asked("sd3", model=model, sampler="Heun")
    drawn = held(fresh.run("denoise", **request), "latents")["latents"]
    assert torch.equal(drawn, drawn_by(pipelines("sd3", model["path"]), "sd3", request))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_picture_is_the_one_that_diffusers_own_pipeline_decodes(fresh, flow_models, pipelines, family):
    model = flow_models(family)
    request = asked(family, model=model)
    denoised = fresh.run("denoise", **request)
    size = {"model": model, "width": request["width"], "height": request["height"]}
    pixels = Path(fresh.run("decode", files=denoised["files"], **size)["files"]["pixels"]["path"]).read_bytes()
    [picture] = drawn_by(pipelines(family, model["path"]), family, request, output="pil")
    assert (picture.width, picture.height) == (request["width"], request["height"])
    assert pixels == picture.convert("RGB").tobytes()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sampler", ["Euler", "Heun", "LCM"])
def test_a_picture_goes_on_from_any_call_to_the_same_bytes(shared, fresh, flow_models, family, sampler):
    """In another process, from the checkpoint of each call; Heun keeps what its first half found."""
    request = asked(family, model=flow_models(family), sampler=sampler, steps=3)
    first = shared.work("denoise", **request)
    whole = shared.until(first)
    made = shared.of(first, "checkpoint")
    assert [each["call"] for each in made] == list(range(1, whole["stats"]["calls"]))
    for checkpoint in made:
        resumed = fresh.run("denoise", checkpoint=checkpoint, **request)
        assert (resumed["stats"]["resumed_from"], resumed["stats"]["checkpoint_refused"]) == (checkpoint["call"], None)
        assert resumed["files"]["latents"]["sha256"] == whole["files"]["latents"]["sha256"]


def test_a_child_that_is_killed_in_the_middle_is_followed_by_one_that_draws_the_same(fork, fresh, micro_folder, flow_models):
    request = asked("flux1", model=flow_models("flux1"), sampler="Heun", steps=6)
    whole = fresh.run("denoise", **request)
    killed = fork(checkpoint=EVERY_CALL, models=[micro_folder])
    killed.ready()
    request_id = killed.work("denoise", **request)
    for _ in range(3):
        last = killed.until(request_id, "checkpoint")
    killed.process.kill()
    resumed = fresh.run("denoise", checkpoint=last, **request)
    assert resumed["stats"]["resumed_from"] == 3
    assert resumed["files"]["latents"]["sha256"] == whole["files"]["latents"]["sha256"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_prompt_decides_and_so_does_the_guidance(fresh, flow_models, family):
    def drawn(**changes):
        return fresh.run("denoise", **asked(family, model=flow_models(family), **changes))["files"]["latents"]["sha256"]

    assert len({drawn(), drawn(prompt="a square"), drawn(guidance=2.0), drawn(guidance=1.0), drawn(seed=12)}) == 5


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "flux1"])
def test_the_negative_prompt_is_heard_where_there_is_guidance(fresh, flow_models, family):
    def drawn(**changes):
        return fresh.run("denoise", **asked(family, model=flow_models(family), **changes))["files"]["latents"]["sha256"]

    assert drawn(negative_prompt="a") != drawn(negative_prompt="b")
    assert len({drawn(negative_prompt=text, guidance=guidance) for text in "ab" for guidance in (0, 0.5, 1)}) == 1


@pytest.mark.parametrize(
    ("family", "verb", "changes", "field", "words"),
    [
        ("flux1", "encode", {"negative_prompt": "a square"}, "input.negativePrompt", "FLUX.1 hears no negative prompt"),
        ("flux1", "denoise", {"width": 72}, "input.width", "width must be a multiple of 16, not 72"),
        ("sd3", "denoise", {"width": 208}, "input.width", "width must be at most 192, not 208"),
        ("qwen-image", "denoise", {"width": 72}, "input.width", "width must be a multiple of 16, not 72"),
        ("flux2", "denoise", {"width": 72}, "input.width", "width must be a multiple of 16, not 72"),
        ("z-image", "denoise", {"height": 56}, "input.height", "height must be a multiple of 16, not 56"),
    ],
)
def test_what_a_family_cannot_draw_is_refused_by_name(fresh, flow_models, family, verb, changes, field, words):
    answer = fresh.run(verb, **asked(family, model=flow_models(family), **changes))
    assert (answer["code"], answer["field"]) == ("inference.request_unfit", field)
    assert words in answer["message"]


def test_schnell_has_no_guidance_and_refuses_one(fresh, flow_models, pipelines):
    model = flow_models("flux1", "schnell", transformer={"guidance_embeds": False}, scheduler={"use_dynamic_shifting": False, "shift": 1.0})
    refused = fresh.run("denoise", **asked("flux1", model=model))
    assert (refused["code"], refused["field"]) == ("inference.request_unfit", "input.guidance")
    assert "guidance must be 1, not 3.5" in refused["message"]
    request = asked("flux1", model=model, guidance=1.0)
    expected = drawn_by(pipelines("flux1", model["path"]), "flux1", request)
    assert torch.equal(held(fresh.run("denoise", **request), "latents")["latents"], expected)


@pytest.mark.parametrize("family", ["z-image", "qwen-image", "sd3", "flux2"])
def test_a_negative_prompt_that_no_call_asks_for_is_not_encoded(fresh, flow_models, family):
    """What was encoded without one is no use to a picture that is guided, and that one is the same as with its own."""
    request = asked(family, model=flow_models(family))
    alone = fresh.run("encode", **{**request, "guidance": 1.0})
    assert not any("negative" in name for name in held(alone, "conditioning"))
    assert any("negative" in name for name in held(fresh.run("encode", **request), "conditioning"))
    plain = {**request, "guidance": 1.0}
    given = {"conditioning": alone["files"]["conditioning"]}
    drawn = fresh.run("denoise", files=given, **plain)
    assert drawn["stats"]["remade"] == []
    assert drawn["files"]["latents"]["sha256"] == fresh.run("denoise", **plain)["files"]["latents"]["sha256"]
    guided = fresh.run("denoise", files=given, **request)
    assert guided["stats"]["remade"] == ["conditioning"]
    assert guided["files"]["latents"]["sha256"] == fresh.run("denoise", **request)["files"]["latents"]["sha256"]


@pytest.mark.parametrize(("family", "template"), [("z-image", 19), ("flux1", 1)])
def test_what_of_a_long_prompt_is_not_heard_is_told(fresh, flow_models, family, template):
    """512 tokens, some of them the template's or a mark's; T5 also reads a space before the first word."""
    room = 512 - (template if family == "z-image" else 2)
    answers = [
        fresh.run("encode", **asked(family, model=flow_models(family), prompt=text))["stats"]["tokens"]["prompt"]
        for text in ("a" * 400, "a" * 510 + " bcd")
    ]
    assert answers[0]["dropped"] == 0
    # Letters that the template has too.
    short = fresh.run("encode", **asked(family, model=flow_models(family), prompt="assistant"))["stats"]["tokens"]["prompt"]
    assert (short["read"], short["dropped"]) == (9 if family == "z-image" else 10, 0)
    assert answers[1]["dropped_text"].endswith(" bcd" if family == "z-image" else "bcd")
    assert room - 20 < answers[1]["read"] <= 512
    assert answers[1]["read"] + answers[1]["dropped"] in (514, 515)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "cannot be read"),
        ('{"chat_template": "hello"}', "has a chat template that does not hold the prompt"),
    ],
)
def test_a_tokenizer_that_would_not_hear_a_prompt_is_refused(fresh, micro_folder, text, words):
    model = make_flow_model(micro_folder / f"deaf-{abs(hash(text))}", "z-image")
    (Path(model["path"]) / "tokenizer" / "tokenizer_config.json").write_text(text)
    answer = fresh.run("encode", **asked("z-image", model=model))
    assert answer["code"] == "model.corrupt"
    assert words in answer["message"]
