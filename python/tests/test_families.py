"""Families with a UNet: what is drawn is what diffusers' own pipeline draws, to the bit, and a killed picture goes on
to the same bytes."""

import json
import signal
from pathlib import Path

import numpy
import pytest
import torch
from conftest import EVERY_CALL
from micro import UNET, V_PREDICTION, VAE, ZERO_SNR, make_model, make_refiner, make_sd2, make_sdxl, make_sdxl_inpainting
from test_pictures import Begun, latents_within, noise

from darkroom import samplers, tensors

# How the micro models of this page are made; `sd2` predicts velocity by itself.
MODELS = {
    "sd1": (make_model, {}),
    "sd1 zero-SNR": (make_model, {"scheduler": ZERO_SNR}),
    "sd2": (make_sd2, {}),
    "sdxl": (make_sdxl, {}),
    "sdxl v-prediction": (make_sdxl, {"scheduler": V_PREDICTION}),
    "sdxl zero-SNR": (make_sdxl, {"scheduler": ZERO_SNR}),
    "sdxl-refiner": (make_refiner, {}),
}
PAINTER = "sdxl-inpainting"
SCHEDULERS = {"Euler a": "EulerAncestralDiscreteScheduler", "DPM++ 2M": "DPMSolverMultistepScheduler", "DDIM": "DDIMScheduler"}


@pytest.fixture(scope="module")
def made(micro_folder):
    """Name → model, made when it is asked for first."""
    models = {}

    def model(name):
        if name not in models:
            make, options = {**MODELS, PAINTER: (make_sdxl_inpainting, {})}[name]
            models[name] = make(micro_folder / name, seed=30 + len(models), **options)
        return models[name]

    return model


@pytest.fixture(scope="module")
def pipelines():
    """Folder → diffusers' own pipeline, fp32 on the CPU, in one thread as the children."""
    from diffusers import DiffusionPipeline

    torch.set_num_threads(1)
    loaded = {}

    def pipeline(folder):
        if folder not in loaded:
            options = {"add_watermarker": False} if "XL" in (Path(folder) / "model_index.json").read_text() else {"safety_checker": None}
            loaded[folder] = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True, **options)
            loaded[folder].set_progress_bar_config(disable=True)
            # Out of the mapped files: on what address a matrix lies decides how a product of it is summed.
            for part in loaded[folder].components.values():
                for tensor in part.parameters() if isinstance(part, torch.nn.Module) else ():
                    tensor.data = tensor.data.clone()
        return loaded[folder]

    return pipeline


def latents_of(answer):
    assert answer["type"] == "result", answer
    return tensors.load(Path(answer["files"]["latents"]["path"]).read_bytes())[0]["latents"]


def expected(pipeline, sampler, request, **more):
    """Latents by diffusers, whose pipeline is asked for `more`; an empty negative prompt is one that is not given, as
    with us."""
    import diffusers

    config = diffusers.DDIMScheduler.load_config(f"{pipeline.config._name_or_path}/scheduler")
    pipeline.scheduler = getattr(diffusers, SCHEDULERS[sampler]).from_config(config)
    generator = torch.Generator("cpu").manual_seed(request["seed"])
    how = {
        "prompt": request["prompt"],
        "negative_prompt": request["negative_prompt"] or None,
        "num_inference_steps": request["steps"],
        "guidance_scale": request["guidance"],
        "generator": generator,
        "output_type": "latent",
    }
    width, height = request["width"], request["height"]
    if "Img2Img" not in type(pipeline).__name__:
        return pipeline(width=width, height=height, **how, **more).images
    # The refiner has only a pipeline that goes on from latents: from noise, as if the base had done nothing.
    pipeline.scheduler.set_timesteps(request["steps"])
    noise = torch.randn((1, 4, height // 4, width // 4), generator=generator) * pipeline.scheduler.init_noise_sigma
    return pipeline(image=noise, denoising_start=1e-9, original_size=(height, width), target_size=(height, width), **how).images


@pytest.mark.parametrize("guidance", [5.0, 1.0], ids=["guided", "unguided"])
@pytest.mark.parametrize("size", [(64, 48), (72, 96)], ids=["64x48", "72x96"])
@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M"])
@pytest.mark.parametrize("name", MODELS)
def test_the_loop_draws_the_bits_of_diffusers_own_pipeline(fresh, made, pipelines, device, name, sampler, size, guidance):
    model = made(name)
    request = {"prompt": "a star", "negative_prompt": "a square", "steps": 4, "guidance": guidance, "seed": 11}
    request |= {"width": size[0], "height": size[1]}
    drawn = latents_of(fresh.run("denoise", model=model, sampler=sampler, **request))
    wanted = expected(pipelines(model["path"]), sampler, request)
    assert float(wanted.std()) > 0.1
    if device == "cpu":
        assert torch.equal(drawn, wanted)
    else:
        # Half precision there, full precision in the pipeline here.
        assert float((drawn - wanted).abs().mean()) < 0.05 * float(wanted.std())


@pytest.mark.parametrize("name", ["sd2", "sdxl", "sdxl-refiner"])
def test_an_empty_negative_prompt_is_what_the_pipeline_makes_of_none(fresh, made, pipelines, name):
    """Zeros by SDXL's own configuration, and an empty text by the refiner's and in all other families."""
    model = made(name)
    request = {"prompt": "a star", "negative_prompt": "", "steps": 2, "guidance": 6.0, "seed": 5, "width": 64, "height": 48}
    assert torch.equal(
        latents_of(fresh.run("denoise", model=model, sampler="Euler a", **request)),
        expected(pipelines(model["path"]), "Euler a", request),
    )
    encoded = fresh.run("encode", model=model, prompt="a star", negative_prompt="")
    held = tensors.load(Path(encoded["files"]["conditioning"]["path"]).read_bytes())[0]
    assert bool(held["negative"].any()) == (name != "sdxl")
    assert encoded["stats"]["tokens"]["prompt"]["read"] == 5


@pytest.mark.parametrize(("index", "zeros"), [(None, True), ({}, True), ({"force_zeros_for_empty_prompt": False}, False)])
def test_zeros_for_an_empty_prompt_are_the_default(fresh, micro_folder, index, zeros):
    model = make_sdxl(micro_folder / f"index {index}", seed=50)
    path = Path(model["path"]) / "model_index.json"
    path.unlink() if index is None else path.write_text(json.dumps(index))
    held = tensors.load(Path(fresh.run("encode", model=model, prompt="a")["files"]["conditioning"]["path"]).read_bytes())[0]
    assert bool(held["negative"].any()) != zeros
    assert bool(held["negative_pooled"].any()) != zeros


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "model_index.json").write_text("[1"), "model_index.json cannot be read as a JSON object"),
        (
            lambda folder: (folder / "model_index.json").write_text('{"force_zeros_for_empty_prompt": 1}'),
            "force_zeros_for_empty_prompt must be true or false",
        ),
        (
            lambda folder: (folder / "tokenizer_2" / "tokenizer_config.json").write_text('{"model_max_length": 9}'),
            "its tokenizers read [9, 16] tokens",
        ),
    ],
    ids=["no JSON", "no truth", "windows"],
)
def test_a_model_of_sdxl_whose_parts_do_not_fit_is_refused_when_it_loads(fresh, micro_folder, request, spoil, words):
    model = make_sdxl(micro_folder / request.node.callspec.id, seed=51)
    spoil(Path(model["path"]))
    answer = fresh.until(fresh.send("model.ensure", {"model": model, "files": [], "weight_bytes": 0}))
    assert (answer["code"], answer["field"]) == ("model.corrupt", "model.path")
    assert words in answer["message"]


@pytest.mark.parametrize("name", ["cross_attention_dim", "projection_class_embeddings_input_dim"])
def test_a_unet_of_other_encoders_is_refused_when_it_loads(fresh, micro_folder, name):
    model = make_sdxl(micro_folder / f"other {name}", seed=52, unet={name: 96})
    answer = fresh.until(fresh.send("model.ensure", {"model": model, "files": [], "weight_bytes": 0}))
    assert answer["code"] == "model.corrupt"
    assert f"the UNet's {name} is 96, not {80 if name == 'cross_attention_dim' else 72}" in answer["message"]


@pytest.mark.parametrize("make", [make_model, make_sdxl])
def test_a_unet_for_inpainting_loads_and_draws_nothing_without_a_picture(fresh, micro_folder, make):
    model = make(micro_folder / f"inpainting {make.__name__}", seed=53, unet={"in_channels": 9})
    assert fresh.until(fresh.send("model.ensure", {"model": model, "files": [], "weight_bytes": 0}))["type"] == "result"
    answer = fresh.run("denoise", model=model)
    assert (answer["code"], answer["class"], answer["field"]) == ("model.unusable", "permanent", "model")
    assert "it takes a mask and a picture" in answer["message"]


def test_a_unet_for_inpainting_is_shown_mask_and_picture_behind_the_latents():
    """In the order of diffusers' StableDiffusionInpaintPipeline."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    from darkroom.families import Conditioning
    from darkroom.families.unet import UNetFamily

    torch.manual_seed(1)
    unet, vae = UNet2DConditionModel(**{**UNET, "in_channels": 9}).eval(), AutoencoderKL(**VAE)
    family = UNetFamily(unet, vae, None, torch.device("cpu"))
    assert family.paints
    latents, masked = torch.randn(2, 1, 4, 12, 16)
    mask, rows, t = torch.ones(1, 1, 12, 16), torch.randn(2, 16, 32), torch.tensor(7)
    with torch.inference_mode():
        drawn = family.predict(latents, t, Conditioning({"rows": rows, "painting": torch.cat([mask, masked], 1)}, 3.0))
        without, with_prompt = unet(torch.cat([torch.cat([latents] * 2), mask.repeat(2, 1, 1, 1), torch.cat([masked] * 2)], 1), t, rows)[0]
    assert torch.equal(drawn[0], without + 3.0 * (with_prompt - without))


def test_a_sampler_that_cannot_reach_zero_signal_is_refused_by_name(fresh, made):
    """The library would drop the setting and draw with another noise."""
    answer = fresh.run("denoise", model=made("sdxl zero-SNR"), sampler="Heun")
    assert (answer["code"], answer["field"]) == ("inference.schedule_unfit", "input.sampler")
    assert "rescale_betas_zero_snr" in answer["message"]
    assert {"Euler", "Euler a", "DPM++ 2M", "DDIM"} <= set(answer["details"]["samplers"]) < set(samplers.SAMPLERS)


# --- sizes ---


@pytest.mark.parametrize("negative", [None, {"original_width": 20, "original_height": 30, "crop_left": 1, "crop_top": 3}])
def test_the_sizes_that_are_told_are_those_of_diffusers_own_pipeline(fresh, made, pipelines, negative):
    sizes = {"original_width": 512, "original_height": 300, "crop_left": 7, "crop_top": 5, "target_width": 80, "target_height": 90}
    request = {"prompt": "a star", "negative_prompt": "a square", "steps": 2, "guidance": 6.0, "seed": 5, "width": 64, "height": 48}
    asked = {**sizes, "negative": negative} if negative else sizes
    drawn = latents_of(fresh.run("denoise", model=made("sdxl"), sampler="Euler a", sizes=asked, **request))
    told = {"original_size": (300, 512), "crops_coords_top_left": (5, 7), "target_size": (90, 80)}
    if negative:
        told |= {"negative_original_size": (30, 20), "negative_crops_coords_top_left": (3, 1), "negative_target_size": (90, 80)}
    pipeline = pipelines(made("sdxl")["path"])
    assert torch.equal(drawn, expected(pipeline, "Euler a", request, **told))
    assert not torch.equal(drawn, expected(pipeline, "Euler a", request))


# --- over a picture ---


def over(pipeline, kind, **options):
    """The same parts in another pipeline of diffusers."""
    import diffusers

    zeros = pipeline.config.force_zeros_for_empty_prompt
    parts = {**pipeline.components, "scheduler": diffusers.EulerDiscreteScheduler.from_config(pipeline.scheduler.config)}
    made = getattr(diffusers, kind)(**parts, force_zeros_for_empty_prompt=zeros, add_watermarker=False, **options)
    made.set_progress_bar_config(disable=True)
    return made


def asked(request):
    """Of either pipeline, which is given our latents: it would draw its own by chance."""
    return {
        "prompt": request["prompt"],
        "negative_prompt": None,
        "num_inference_steps": request["steps"],
        "guidance_scale": request["guidance"],
        "strength": request["strength"],
        "generator": torch.Generator("cpu").manual_seed(request["seed"]),
        "output_type": "latent",
        "original_size": (48, 64),
        "target_size": (48, 64),
    }


WANTED = {"prompt": "a star", "steps": 6, "guidance": 4.0, "seed": 11, "strength": 0.5, "sampler": "Euler"}


@pytest.mark.parametrize("name", ["sdxl", "sdxl-refiner"])
def test_over_a_picture_is_drawn_what_diffusers_own_pipeline_draws(fresh, made, pipelines, name):
    begun = Begun(fresh, noise(), model=made(name), **WANTED)
    pipeline = over(pipelines(made(name)["path"]), "StableDiffusionXLImg2ImgPipeline", requires_aesthetics_score=name == "sdxl-refiner")
    expected = pipeline(image=latents_within(begun.encoded())["latents"], **asked(WANTED)).images
    assert torch.equal(latents_of(begun.denoised()), expected)


@pytest.mark.parametrize("name", ["sdxl", PAINTER])
def test_inside_a_mask_is_drawn_what_diffusers_own_pipeline_draws(fresh, made, pipelines, name):
    mask = numpy.zeros((48, 64), bool)
    mask[16:40, 8:32] = True
    begun = Begun(fresh, noise(), mask, model=made(name), **WANTED)
    held = latents_within(begun.encoded())
    assert ("masked" in held) == (name == PAINTER)
    expected = over(pipelines(made(name)["path"]), "StableDiffusionXLInpaintPipeline")(
        image=held["latents"],
        mask_image=torch.from_numpy(mask).float()[None, None],
        masked_image_latents=held.get("masked", torch.zeros_like(held["latents"])),
        width=64,
        height=48,
        **asked(WANTED),
    ).images
    assert torch.equal(latents_of(begun.denoised()), expected)


# --- resume ---


@pytest.fixture(scope="module")
def whole(shared, made):
    """Model and sampler → (SHA-256 of the latents, checkpoints) of a picture that nobody disturbed."""
    drawn = {}

    def draw(name, sampler):
        if (name, sampler) not in drawn:
            request_id = shared.work("denoise", model=made(name), sampler=sampler, steps=6)
            latents = shared.until(request_id)["files"]["latents"]
            drawn[name, sampler] = latents["sha256"], shared.of(request_id, "checkpoint")
        return drawn[name, sampler]

    return draw


@pytest.mark.parametrize(
    ("name", "sampler"),
    [*((name, "DPM++ 2M") for name in MODELS), *(("sdxl", sampler) for sampler in samplers.SAMPLERS if sampler != "DPM++ 2M")],
)
def test_another_process_goes_on_from_a_checkpoint_to_the_same_bytes(fresh, made, whole, name, sampler):
    sha256, checkpoints = whole(name, sampler)
    assert [file["call"] for file in checkpoints][:5] == [1, 2, 3, 4, 5]
    resumed = fresh.run("denoise", model=made(name), sampler=sampler, steps=6, checkpoint=checkpoints[2])
    assert (resumed["stats"]["resumed_from"], resumed["stats"]["checkpoint_refused"]) == (3, None)
    assert resumed["files"]["latents"]["sha256"] == sha256
    assert fresh.run("decode", model=made(name), files=resumed["files"])["type"] == "result"


def test_a_killed_picture_of_sdxl_goes_on_in_another_process_to_the_same_bytes(fork, micro_folder, fresh, made, whole):
    model = made("sdxl zero-SNR")
    victim = fork(models=[micro_folder], checkpoint=EVERY_CALL)
    victim.ready()
    stall = victim.stall("denoise", 3, model=model, sampler="DPM++ 2M", steps=6)
    victim.process.kill()
    assert victim.ends() == -signal.SIGKILL
    last = victim.of(stall.request_id, "checkpoint")[-1]
    resumed = fresh.run("denoise", model=model, sampler="DPM++ 2M", steps=6, checkpoint=last)
    assert resumed["stats"]["resumed_from"] == last["call"] == 2
    assert resumed["files"]["latents"]["sha256"] == whole("sdxl zero-SNR", "DPM++ 2M")[0]
