"""What is drawn: what diffusers' own pipeline draws, what the prompt says, and the same in whatever company."""

import hashlib
from pathlib import Path

import numpy
import pytest
import torch
from conftest import MODEL, REQUEST

from darkroom import tensors
from darkroom.samplers import SAMPLERS

# As the field's programs name them: diffusers' documentation, api/schedulers/overview.
SCHEDULERS = {
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}),
    "DPM++ 2M Karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "DDIM": ("DDIMScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "LCM": ("LCMScheduler", {}),
}


@pytest.fixture(scope="module")
def pipelines():
    """Model folder → diffusers' own pipeline, fp32 on the CPU."""
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
    from diffusers.schedulers import DDIMScheduler
    from transformers import CLIPTextModel, CLIPTokenizer

    made = {}

    def pipeline(folder):
        if folder not in made:
            made[folder] = StableDiffusionPipeline(
                unet=UNet2DConditionModel.from_pretrained(f"{folder}/unet", torch_dtype=torch.float32),
                vae=AutoencoderKL.from_pretrained(f"{folder}/vae", torch_dtype=torch.float32),
                text_encoder=CLIPTextModel.from_pretrained(f"{folder}/text_encoder", dtype=torch.float32),
                tokenizer=CLIPTokenizer.from_pretrained(f"{folder}/tokenizer"),
                scheduler=DDIMScheduler.from_pretrained(f"{folder}/scheduler"),
                safety_checker=None,
                feature_extractor=None,
                requires_safety_checker=False,
            )
            made[folder].set_progress_bar_config(disable=True)
        return made[folder]

    torch.set_num_threads(1)
    return pipeline


def latents_of(answer):
    return tensors.load(Path(answer["files"]["latents"]["path"]).read_bytes())[0]["latents"]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_the_loop_draws_what_diffusers_own_pipeline_draws(fresh, pipelines, micro, device, sampler, prediction):
    import diffusers

    model = micro if prediction == "epsilon" else MODEL
    request = {"steps": 5, "guidance": 4.0, "seed": 11, "negative_prompt": "a square", "prompt": "a star"}
    drawn = latents_of(fresh.run("denoise", model=model, sampler=sampler, **request))

    pipeline = pipelines(model["path"])
    class_name, options = SCHEDULERS[sampler]
    config = diffusers.DDIMScheduler.load_config(f"{model['path']}/scheduler")
    assert config["prediction_type"] == prediction
    pipeline.scheduler = getattr(diffusers, class_name).from_config(config, **options)
    expected = pipeline(
        request["prompt"],
        negative_prompt=request["negative_prompt"],
        width=REQUEST["width"],
        height=REQUEST["height"],
        num_inference_steps=request["steps"],
        guidance_scale=request["guidance"],
        generator=torch.Generator("cpu").manual_seed(request["seed"]),
        output_type="latent",
    ).images
    assert drawn.shape == expected.shape
    # Two programs may sum in another order; half precision on a GPU is coarser still.
    assert float((drawn - expected).abs().mean()) < (1e-4 if device == "cpu" else 0.05) * float(expected.std())


@pytest.mark.parametrize(
    ("prompt", "background", "colour", "shape"),
    [("a large red circle on a blue background", "blue", "red", "circle"), ("a large green star on black", "black", "green", "star")],
)
def test_the_picture_is_what_the_prompt_says(fresh, prompt, background, colour, shape):
    from training.judge import look
    from training.world import COLOURS, SHAPES

    size = {"width": 128, "height": 128}
    denoised = fresh.run("denoise", prompt=prompt, steps=20, sampler="DPM++ 2M Karras", **size)
    decoded = fresh.run("decode", files=denoised["files"], **size)
    picture = numpy.frombuffer(Path(decoded["files"]["pixels"]["path"]).read_bytes(), numpy.uint8).reshape(128, 128, 3)
    sight = look(picture)
    assert COLOURS[sight.background] == background
    assert [(COLOURS[thing.colour], SHAPES[thing.shape]) for thing in sight.things] == [(colour, shape)]


def test_an_image_is_the_same_alone_and_among_others(shared, fresh):
    """Four images from seed 7, of one session, between those of others with another prompt, size, sampler and number of
    steps."""
    wanted = {}
    for seed in range(7, 11):
        wanted[shared.work("denoise", seed=seed, session="four")] = {"seed": seed}
        other = {"seed": seed, "sampler": list(SAMPLERS)[seed % 8], "width": 72, "height": 64, "prompt": "a star", "steps": seed - 3}
        wanted[shared.work("denoise", session=f"other {seed}", **other)] = other
    answers = {request_id: shared.until(request_id) for request_id in wanted}
    decodes = {
        request_id: shared.work("decode", files=answers[request_id]["files"], **size_of(changes)) for request_id, changes in wanted.items()
    }
    for request_id, changes in wanted.items():
        among = shared.until(decodes[request_id])["files"]["pixels"]["sha256"]
        denoised = fresh.run("denoise", **changes)
        assert denoised["files"]["latents"]["sha256"] == answers[request_id]["files"]["latents"]["sha256"]
        assert fresh.run("decode", files=denoised["files"], **size_of(changes))["files"]["pixels"]["sha256"] == among


def size_of(changes):
    return {name: changes[name] for name in ("width", "height") if name in changes}


def test_another_seed_is_another_image(fresh):
    assert len({fresh.run("denoise", seed=seed)["files"]["latents"]["sha256"] for seed in (7, 8, 2**53 - 1)}) == 3


def test_guidance_of_one_or_less_leaves_the_negative_prompt_out(fresh):
    def drawn(**changes):
        return fresh.run("denoise", **changes)["files"]["latents"]["sha256"]

    assert len({drawn(guidance=guidance, negative_prompt=text) for guidance in (1, 0.5, 0) for text in ("", "a square")}) == 1
    assert len({drawn(guidance=3, negative_prompt=text) for text in ("", "a square")}) == 2


@pytest.mark.parametrize("prompt", ["", "ein Kreis, café 🎨 圆", "\n\t\0 <|endoftext|>"])
def test_every_text_is_a_prompt(fresh, prompt):
    assert fresh.run("denoise", prompt=prompt, steps=1)["type"] == "result"


@pytest.fixture(scope="module")
def diverging(micro_folder):
    from micro import make_model

    return make_model(micro_folder / "diverging", seed=3, alter=lambda unet: unet.conv_out.weight.fill_(float("inf")))


@pytest.mark.parametrize("calls", ["shared", "fresh"])
def test_latents_that_are_no_numbers_fail_clearly(request, diverging, calls):
    """With a checkpoint every call, none of which may hold them, and without checkpoints."""
    child = request.getfixturevalue(calls)
    request_id = child.work("denoise", model=diverging)
    answer = child.until(request_id)
    assert (answer["code"], answer["class"]) == ("inference.diverged", "permanent")
    assert "not finite" in answer["message"]
    assert child.of(request_id, "checkpoint") == []
    assert child.vitals()["sessions"] == {}


def test_a_picture_that_is_no_numbers_fails_clearly(fresh):
    latents = fresh.run("denoise", steps=1)["files"]["latents"]
    path = Path(latents["path"])
    held, metadata = tensors.load(path.read_bytes())
    content = tensors.save({"latents": held["latents"] * float("inf")}, metadata)
    request = fresh.data("decode", files={"latents": latents})
    given = request["files"]["latents"]
    Path(given["path"]).write_bytes(content)
    given["sha256"] = hashlib.sha256(content).hexdigest()
    assert fresh.until(fresh.send("inference.decode", request))["code"] == "inference.diverged"


def test_progress_counts_up_to_the_last_call_and_is_sparing(shared):
    request_id = shared.work("denoise", steps=40)
    stats = shared.until(request_id)["stats"]
    told = shared.of(request_id, "progress")
    calls = [frame["call"] for frame in told if "call" in frame]
    assert calls == sorted(set(calls))
    assert calls[-1] == stats["calls"] == 40
    for frame in told:
        if "call" in frame:
            assert frame["calls"] == 40
            assert frame["rate"] > 0
            assert frame["eta_s"] == pytest.approx((40 - frame["call"]) / frame["rate"], rel=0.05, abs=0.01)
    # Five a second, and the beginning and the end at once.
    assert len(told) <= 5 * stats["seconds"] + 3


def test_progress_of_a_resumed_step_goes_on_where_it_was(shared):
    first = shared.work("denoise")
    shared.until(first)
    resumed = shared.work("denoise", checkpoint=shared.of(first, "checkpoint")[4])
    shared.until(resumed)
    assert next(frame["call"] for frame in shared.of(resumed, "progress") if "call" in frame) > 5
