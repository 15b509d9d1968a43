"""How a picture is led: rescaled guidance, guidance in some calls alone, the noise that it begins with; equal to
diffusers where it has that, and the same from any checkpoint."""

import numpy
import pytest
import torch
from conftest import MODEL, REQUEST
from micro import V_PREDICTION, ZERO_SNR, make_model, make_sd2, make_sdxl
from micro_flow import make_flow_model
from test_inference import latents_of
from test_pictures import Begun
from test_pictures import noise as picture_of

from darkroom import noise

ASKED = {"prompt": "a star", "negative_prompt": "a square", "steps": 8, "guidance": 6.0, "seed": 11, "sampler": "Euler a"}
MAKERS = {
    "sd1": (make_model, {"scheduler": ZERO_SNR}),
    "sd2": (make_sd2, {}),
    "sdxl": (make_sdxl, {"scheduler": V_PREDICTION}),
}


@pytest.fixture(scope="module")
def made(micro_folder):
    """Name → model, made when it is asked for first."""
    models = {}

    def model(name):
        if name not in models:
            make, options = MAKERS[name]
            models[name] = make(micro_folder / f"guidance-{name}", seed=80 + len(models), **options)
        return models[name]

    return model


@pytest.fixture(scope="module")
def flow_model(micro_folder):
    """Family → its random model."""
    models = {}

    def model(family):
        if family not in models:
            models[family] = make_flow_model(micro_folder / f"guidance-{family}", family)
        return models[family]

    return model


@pytest.fixture
def pipeline(device, made):
    """Name → diffusers' own pipeline, fp32 on one thread, as the child."""
    from diffusers import DiffusionPipeline, EulerAncestralDiscreteScheduler

    if device != "cpu":
        pytest.skip("the pipeline beside it draws in fp32, the networks of a GPU compute in fp16")
    torch.set_num_threads(1)

    def load(name):
        options = {"add_watermarker": False} if name == "sdxl" else {"safety_checker": None}
        loaded = DiffusionPipeline.from_pretrained(made(name)["path"], torch_dtype=torch.float32, local_files_only=True, **options)
        loaded.set_progress_bar_config(disable=True)
        loaded.scheduler = EulerAncestralDiscreteScheduler.from_config(loaded.scheduler.config)
        # Out of the mapped files: on what address a matrix lies decides how a product of it is summed.
        for part in loaded.components.values():
            for tensor in part.parameters() if isinstance(part, torch.nn.Module) else ():
                tensor.data = tensor.data.clone()
        return loaded

    return load


def theirs(pipeline, **more):
    return pipeline(
        prompt=ASKED["prompt"],
        negative_prompt=ASKED["negative_prompt"],
        num_inference_steps=ASKED["steps"],
        generator=torch.Generator("cpu").manual_seed(ASKED["seed"]),
        width=REQUEST["width"],
        height=REQUEST["height"],
        output_type="latent",
        **{"guidance_scale": ASKED["guidance"], **more},
    ).images


@pytest.mark.parametrize("rescale", [0.7, 1.0])
@pytest.mark.parametrize("name", MAKERS)
def test_a_rescaled_guidance_has_the_bits_of_diffusers(fresh, made, pipeline, name, rescale):
    drawn = latents_of(fresh.run("denoise", model=made(name), guidance_rescale=rescale, **ASKED))
    assert torch.equal(drawn, theirs(pipeline(name), guidance_rescale=rescale))
    assert not torch.equal(drawn, theirs(pipeline(name)))


@pytest.mark.parametrize(("start", "end"), [(0, 0.5), (0.25, 0.8), (0.3, 1)])
@pytest.mark.parametrize("name", ["sd1", "sd2"])
def test_guidance_in_some_calls_has_the_bits_of_diffusers_whose_scale_is_changed_on_the_way(fresh, made, pipeline, name, start, end):
    model = pipeline(name)
    positive, negative = model.encode_prompt(ASKED["prompt"], "cpu", 1, True, ASKED["negative_prompt"])
    guided = [int(start * 8) <= call < int(end * 8) for call in range(9)]

    def turn(pipe, call, _, given):
        pipe._guidance_scale = ASKED["guidance"] if guided[call + 1] else 1.0
        return {"prompt_embeds": torch.cat([negative, positive]) if guided[call + 1] else positive}

    expected = theirs(
        model,
        guidance_scale=ASKED["guidance"] if guided[0] else 1.0,
        callback_on_step_end=turn,
        callback_on_step_end_tensor_inputs=["prompt_embeds"],
    )
    answer = fresh.run("denoise", model=made(name), guidance_interval={"start": start, "end": end}, **ASKED)
    assert torch.equal(latents_of(answer), expected)


@pytest.mark.parametrize("family", ["sdxl", "sd3", "z-image", "qwen-image", "flux2"])
def test_every_family_with_guidance_is_guided_in_some_calls(fresh, made, flow_model, family):
    model = made(family) if family == "sdxl" else flow_model(family)
    asked = {**ASKED, "sampler": "Euler", "model": model}

    def drawn(**more):
        answer = fresh.run("denoise", **{**asked, **more})
        assert answer["type"] == "result", answer
        return answer["files"]["latents"]["sha256"]

    assert drawn(guidance_interval={"start": 0, "end": 1}) == drawn()
    partly = {drawn(guidance_interval={"start": start, "end": end}) for start, end in ((0, 0.5), (0.5, 1), (0.25, 0.75))}
    assert len({*partly, drawn(), drawn(guidance=1)}) == 5


@pytest.mark.parametrize("steps", [8, 3])
def test_an_interval_without_a_call_is_refused(fresh, steps):
    answer = fresh.run("denoise", steps=steps, guidance_interval={"start": 0.4, "end": 0.45})
    assert (answer["code"], answer["class"], answer["field"]) == ("inference.request_unfit", "permanent", "input.guidanceInterval")
    assert f"none of the {steps} calls lies between 0.4 and 0.45 of them" in answer["message"]


@pytest.mark.parametrize(
    ("family", "changes", "field"),
    [
        ("flux1", {"guidance_interval": {"start": 0, "end": 0.5}, "negative_prompt": ""}, "input.guidanceInterval"),
        ("flux1", {"guidance_rescale": 0.5, "negative_prompt": ""}, "input.guidanceRescale"),
        ("sd3", {"guidance_rescale": 0.5}, "input.guidanceRescale"),
        ("z-image", {"guidance_rescale": 0.5}, "input.guidanceRescale"),
        ("z-image", {"clip_skip": 2}, "input.clipSkip"),
        ("sd3", {"prompt_syntax": "a1111"}, "input.promptSyntax"),
        ("flux1", {"prompt_syntax": "comfy", "negative_prompt": ""}, "input.promptSyntax"),
    ],
)
def test_what_a_family_has_not_is_refused_by_name(fresh, flow_model, family, changes, field):
    answer = fresh.run("denoise", model=flow_model(family), **{**ASKED, "sampler": "Euler", **changes})
    assert (answer["code"], answer["class"], answer["field"]) == ("inference.request_unfit", "permanent", field)


# --- variations ---


def slerp(low, high, share):
    """Column by column of [1, channels, rows, columns], in double precision, by numpy."""
    low, high = low.double().numpy(), high.double().numpy()
    cosine = (low * high).sum(2) / (numpy.linalg.norm(low, axis=2) * numpy.linalg.norm(high, axis=2))
    angle = numpy.arccos(cosine)[:, :, None]
    return (numpy.sin((1 - share) * angle) * low + numpy.sin(share * angle) * high) / numpy.sin(angle)


def drawn_by(seed, shape=(1, 4, 12, 16)):
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_the_first_noise_lies_on_the_arc_between_both(share):
    low, high = drawn_by(7), drawn_by(8)
    made = noise.first((1, 4, 12, 16), torch.Generator("cpu").manual_seed(7), {"seed": 8, "strength": share})
    assert float((made.double() - torch.from_numpy(slerp(low, high, share))).abs().max()) < 1e-6
    assert float((made.std() - 1).abs()) < 0.1


def test_the_arc_begins_and_ends_at_its_noises_and_needs_no_angle():
    low, high = drawn_by(7), drawn_by(8)
    assert torch.equal(noise.between(low, high, 0.0), low)
    assert torch.equal(noise.between(low, high, 1.0), high)
    assert torch.equal(noise.between(low, low, 0.3), low)


@pytest.mark.parametrize("masked", [None, False, True])
def test_at_full_strength_a_variation_is_the_picture_of_its_own_seed(fresh, masked):
    """Of noise alone, over a picture, and behind a mask, which puts the noisy picture back after each call."""
    if masked is None:
        drawn = lambda **more: fresh.run("denoise", sampler="DDIM", **more)  # noqa: E731
    else:
        mask = numpy.zeros((48, 64), bool)
        mask[:, 32:] = True
        drawn = lambda **more: Begun(fresh, picture_of(), mask if masked else None, sampler="DDIM", **more).denoised()  # noqa: E731
    end, start = (latents_of(drawn(seed=seed)) for seed in (8, 7))
    assert torch.equal(latents_of(drawn(seed=7, variation={"seed": 8, "strength": 1.0})), end)
    little = latents_of(drawn(seed=7, variation={"seed": 8, "strength": 0.1}))
    assert 0 < float((little - start).abs().mean()) < float((little - end).abs().mean())


# --- the same from wherever it goes on ---

EVERYTHING = {
    "prompt": "a (large:1.3) star, " * 12 + "BREAK on [black]",
    "negative_prompt": "a (square:1.2)",
    "prompt_syntax": "a1111",
    "clip_skip": 2,
    "variation": {"seed": 99, "strength": 0.3},
    "guidance_rescale": 0.6,
    "guidance_interval": {"start": 0.25, "end": 0.75},
}


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M Karras", "Heun"])
def test_a_run_that_went_on_from_any_checkpoint_draws_the_same(shared, fresh, sampler):
    request_id = shared.work("denoise", sampler=sampler, **EVERYTHING)
    whole = shared.until(request_id)
    assert whole["type"] == "result", whole
    for checkpoint in shared.of(request_id, "checkpoint"):
        went_on = fresh.run("denoise", sampler=sampler, checkpoint=checkpoint, **EVERYTHING)
        assert went_on["stats"]["resumed_from"] == checkpoint["call"]
        assert went_on["files"]["latents"]["sha256"] == whole["files"]["latents"]["sha256"]
    # Each of them moves the picture, and a checkpoint of another one is not gone on from.
    for field, value in EVERYTHING.items():
        if field in ("prompt", "negative_prompt", "prompt_syntax"):
            continue
        without = {name: kept for name, kept in EVERYTHING.items() if name != field}
        other = fresh.run("denoise", sampler=sampler, checkpoint=shared.of(request_id, "checkpoint")[2], **without)
        assert field in other["stats"]["checkpoint_refused"], value
        assert other["files"]["latents"]["sha256"] != whole["files"]["latents"]["sha256"]


def test_an_interval_records_nothing_on_shapes_that_were_drawn_before(fresh, device):
    if not device.startswith("cuda"):
        pytest.skip("needs a GPU: --device cuda")
    model = {**MODEL, "id": "interval"}
    for guidance in (3.0, 3.0, 1.0, 1.0):
        fresh.run("denoise", model=model, guidance=guidance)
    drawn = [
        fresh.run("denoise", model=model, guidance_interval={"start": start, "end": end}, guidance_rescale=rescale)
        for start, end, rescale in ((0, 0.5, 0.0), (0.25, 0.75, 0.5), (0.5, 1, 1.0), (0, 0.25, 0.3))
    ]
    assert [answer["stats"]["graph_captures"] for answer in drawn] == [0, 0, 0, 0]
    assert [answer["stats"]["graph_replays"] for answer in drawn] == [8, 8, 8, 8]
