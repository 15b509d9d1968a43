"""ControlNets: what is drawn is what diffusers' own pipelines draw, to the bit; a killed picture goes on to the same
bytes; and the judge finds the edges that were asked for."""

import json
import signal
from pathlib import Path

import numpy
import pytest
import torch
from conftest import EVERY_CALL, MODEL, ROOT
from micro import make_control, make_model, make_sd2, make_sdxl
from PIL import Image
from test_families import SCHEDULERS, latents_of
from test_pictures import Begun, latents_within, noise, saved, scenes

PLAIN = {"weight": 1.0, "start": 0, "end": 1, "mode": "balanced"}
REQUEST = {"prompt": "a star", "negative_prompt": "a square", "steps": 5, "guidance": 4.0, "seed": 11, "width": 64, "height": 48}
MAKERS = {"sd1": make_model, "sd2": make_sd2, "sdxl": make_sdxl}
EDGES = {"id": "edges", "path": str(ROOT / "models/darkroom-tiny/controlnet-edge"), "body_hash": "e" * 64, "family": "controlnet"}


@pytest.fixture(scope="module")
def models(micro_folder):
    """Family → (model, two ControlNets; of SDXL the second is a union)."""
    made = {}

    def model(name):
        if name not in made:
            number = 60 + len(made)
            base = MAKERS[name](micro_folder / f"steered {name}", seed=number)
            first = make_control(micro_folder / f"control {name}", base, seed=number)
            second = make_control(micro_folder / f"other control {name}", base, seed=number + 10, union=name == "sdxl")
            made[name] = (base, first, second)
        return made[name]

    return model


def in_memory(network):
    """Out of the mapped files: on what address a matrix lies decides how a product of it is summed."""
    for tensor in network.parameters():
        tensor.data = tensor.data.clone()
    return network.eval()


@pytest.fixture(scope="module")
def networks():
    """Reference of a ControlNet → diffusers' own network."""
    from diffusers import ControlNetModel, ControlNetUnionModel

    loaded = {}

    def network(reference):
        path = reference["path"]
        if path not in loaded:
            kind = ControlNetUnionModel if "Union" in (Path(path) / "config.json").read_text() else ControlNetModel
            loaded[path] = in_memory(kind.from_pretrained(path, torch_dtype=torch.float32))
        return loaded[path]

    return network


@pytest.fixture(scope="module")
def pipeline_of():
    """(class of diffusers, model, its ControlNets) → such a pipeline, fp32 in one thread as the children."""
    import diffusers

    torch.set_num_threads(1)
    parts = {}

    def pipeline(kind, model, control, sampler="Euler a"):
        path = model["path"]
        if path not in parts:
            options = {"add_watermarker": False} if model["family"] == "sdxl" else {"safety_checker": None}
            whole = diffusers.DiffusionPipeline.from_pretrained(path, torch_dtype=torch.float32, local_files_only=True, **options)
            for part in whole.components.values():
                if isinstance(part, torch.nn.Module):
                    in_memory(part)
            parts[path] = whole.components
        config = diffusers.DDIMScheduler.load_config(f"{path}/scheduler")
        scheduler = getattr(diffusers, SCHEDULERS[sampler]).from_config(config)
        options = {"add_watermarker": False} if model["family"] == "sdxl" else {"requires_safety_checker": False}
        made = getattr(diffusers, kind)(**{**parts[path], "scheduler": scheduler}, controlnet=control, **options)
        made.set_progress_bar_config(disable=True)
        return made

    return pipeline


def asked(request, **more):
    how = {"num_inference_steps": request["steps"], "guidance_scale": request["guidance"], "output_type": "latent"}
    generator = torch.Generator("cpu").manual_seed(request["seed"])
    size = {"width": request["width"], "height": request["height"]}
    return {"prompt": request["prompt"], "negative_prompt": request["negative_prompt"], "generator": generator, **size, **how, **more}


def steered(child, *controls, model, begin=None, **request):
    """(answer of a denoise with these ControlNets, and the pictures that they are shown). `controls`: (reference, what
    is said of it)."""
    files, said, shown = {}, [], []
    for number, (reference, how) in enumerate(controls):
        shown.append(noise(request.get("width", 64), request.get("height", 48), seed=40 + number))
        files[f"control{number}"], pin = saved(child, shown[-1])
        said.append({**PLAIN, "model": reference, "picture": pin, "resize": "crop", **how})
    answer = child.run("denoise", model=model, control=said, files={**files, **(begin or {})}, **request)
    return answer, [Image.fromarray(picture) for picture in shown]


def control_class(name, kind=""):
    return f"StableDiffusion{'XL' if name == 'sdxl' else ''}ControlNet{kind}Pipeline"


@pytest.mark.parametrize("guidance", [4.0, 1.0], ids=["guided", "unguided"])
@pytest.mark.parametrize("mode", ["balanced", "control"])
@pytest.mark.parametrize("name", MAKERS)
def test_one_draws_the_bits_of_diffusers_own_pipeline(fresh, models, networks, pipeline_of, device, name, mode, guidance):
    if device != "cpu":
        pytest.skip("the pipeline beside it draws in fp32, the networks of a GPU compute in fp16")
    model, first, _ = models(name)
    request = {**REQUEST, "guidance": guidance, "sampler": "Euler a"}
    answer, [picture] = steered(fresh, (first, {"weight": 0.7, "start": 0.2, "end": 0.8, "mode": mode}), model=model, **request)
    how = {"controlnet_conditioning_scale": 0.7, "control_guidance_start": 0.2, "control_guidance_end": 0.8}
    expected = pipeline_of(control_class(name), model, networks(first))(
        image=picture, guess_mode=mode == "control", **asked(request, **how)
    ).images
    assert torch.equal(latents_of(answer), expected)
    assert not torch.equal(latents_of(fresh.run("denoise", model=model, **request)), expected)


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M"])
def test_two_draw_the_bits_of_diffusers_own_pipeline(fresh, models, networks, pipeline_of, device, sampler):
    if device != "cpu":
        pytest.skip("the pipeline beside it draws in fp32, the networks of a GPU compute in fp16")
    model, first, second = models("sd1")
    request = {**REQUEST, "sampler": sampler}
    controls = ((first, {"weight": 0.7, "end": 0.6}), (second, {"weight": 0.4, "start": 0.4}))
    answer, pictures = steered(fresh, *controls, model=model, **request)
    how = {"control_guidance_start": [0, 0.4], "control_guidance_end": [0.6, 1], "controlnet_conditioning_scale": [0.7, 0.4]}
    pipeline = pipeline_of(control_class("sd1"), model, [networks(first), networks(second)], sampler)
    assert torch.equal(latents_of(answer), pipeline(image=pictures, **asked(request, **how)).images)


@pytest.mark.parametrize("mode", ["balanced", "control"])
@pytest.mark.parametrize("tasks", [["line"], ["pose", "depth"]], ids=["one", "two"])
def test_a_union_draws_the_bits_of_diffusers_own_pipeline(fresh, models, networks, pipeline_of, device, tasks, mode):
    if device != "cpu":
        pytest.skip("the pipeline beside it draws in fp32, the networks of a GPU compute in fp16")
    from diffusers.models import MultiControlNetUnionModel

    model, _, union = models("sdxl")
    # Guess mode with guidance fails in diffusers' own pipeline, which gives each row the tasks of both.
    request = {**REQUEST, "sampler": "Euler a", "guidance": 1.0 if mode == "control" else 4.0}
    answer, pictures = steered(fresh, *((union, {"weight": 0.8, "task": task, "mode": mode}) for task in tasks), model=model, **request)
    numbers = [{"pose": 0, "depth": 1, "line": 3}[task] for task in tasks]
    control = networks(union) if len(tasks) == 1 else MultiControlNetUnionModel([networks(union)] * len(tasks))
    how = {"control_image": pictures, "control_mode": numbers, "controlnet_conditioning_scale": 0.8}
    pipeline = pipeline_of("StableDiffusionXLControlNetUnionPipeline", model, control)
    assert torch.equal(latents_of(answer), pipeline(guess_mode=mode == "control", **asked(request, **how)).images)


def test_the_prompt_counts_more_as_in_the_web_ui(fresh, models, networks, pipeline_of, device, monkeypatch):
    """diffusers has the weights of that mode, and gives them to the prompt's row alone."""
    if device != "cpu":
        pytest.skip("the pipeline beside it draws in fp32, the networks of a GPU compute in fp16")
    model, first, _ = models("sd1")
    request = {**REQUEST, "sampler": "Euler a"}
    answer, [picture] = steered(fresh, (first, {"mode": "prompt", "weight": 0.9}), model=model, **request)
    network = networks(first)
    forward = network.forward
    monkeypatch.setattr(network, "forward", lambda *given, **how: forward(*given, **{**how, "guess_mode": True}))
    pipeline = pipeline_of(control_class("sd1"), model, network)
    expected = pipeline(image=picture, **asked(request, controlnet_conditioning_scale=0.9)).images
    assert torch.equal(latents_of(answer), expected)


def test_over_a_picture_it_draws_what_diffusers_own_pipeline_draws(fresh, models, networks, pipeline_of, device):
    if device != "cpu":
        pytest.skip("the pipeline beside it draws in fp32, the networks of a GPU compute in fp16")
    model, first, _ = models("sd1")
    request = {**REQUEST, "sampler": "Euler a", "strength": 0.6}
    begun = Begun(fresh, noise(seed=3), model=model, **request)
    encoded = begun.encoded()
    begin = {"picture_latents": encoded["files"]["picture_latents"]}
    how = {"weight": 0.7, "end": 0.7}
    answer, [picture] = steered(fresh, (first, how), begin=begin, **begun.request)
    expected = pipeline_of(control_class("sd1", "Img2Img"), model, networks(first))(
        image=latents_within(encoded)["latents"],
        control_image=picture,
        strength=0.6,
        **asked(request, controlnet_conditioning_scale=0.7, control_guidance_end=0.7),
    ).images
    drawn = latents_of(answer)
    assert float((drawn - expected).abs().mean()) < 1e-4 * float(expected.std())


def test_without_weight_nothing_is_steered_and_afterwards_nothing_is_left(fresh, models):
    model, first, second = models("sd1")
    request = {**REQUEST, "sampler": "Euler a"}
    before = fresh.run("denoise", model=model, **request)["files"]["latents"]["sha256"]
    nothing, _ = steered(fresh, (first, {"weight": 0.0}), (second, {"end": 0.1}), model=model, **request)
    assert nothing["files"]["latents"]["sha256"] == before
    much, _ = steered(fresh, (first, {}), (second, {}), model=model, **request)
    assert much["files"]["latents"]["sha256"] != before
    assert fresh.run("denoise", model=model, **request)["files"]["latents"]["sha256"] == before
    assert {first["id"], second["id"], model["id"]} <= set(fresh.models())


@pytest.mark.long
def test_models_and_their_controls_that_do_not_fit_together_draw_the_same(fork, fresh, models, micro_folder):
    model, first, second = models("sd1")
    request = {**REQUEST, "sampler": "Euler a"}
    wanted, _ = steered(fresh, (first, {}), (second, {"mode": "control"}), model=model, **request)
    held = {each["id"]: each["bytes"] for each in fresh.vitals()["models"]}
    child = fork(models=[micro_folder], model_bytes=held[model["id"]] + held[first["id"]])
    child.ready()
    for _ in range(2):
        drawn, _ = steered(child, (first, {}), (second, {"mode": "control"}), model=model, **request)
        assert drawn["files"]["latents"]["sha256"] == wanted["files"]["latents"]["sha256"]


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_a_run_that_went_on_from_any_checkpoint_draws_the_same(shared, fresh, models, name):
    model, first, second = models(name)
    task = {"task": "segment"} if name == "sdxl" else {}
    controls = ((first, {"weight": 0.8, "start": 0.3}), (second, {"mode": "control", "end": 0.7, **task}))
    whole, _ = steered(shared, *controls, model=model, **REQUEST, sampler="DPM++ 2M")
    made = shared.of(str(shared.last), "checkpoint")
    assert [each["call"] for each in made] == [1, 2, 3, 4]
    for checkpoint in made:
        went_on, _ = steered(fresh, *controls, model=model, checkpoint=checkpoint, **REQUEST, sampler="DPM++ 2M")
        assert (went_on["stats"]["resumed_from"], went_on["stats"]["checkpoint_refused"]) == (checkpoint["call"], None)
        assert went_on["files"]["latents"]["sha256"] == whole["files"]["latents"]["sha256"]
    other, _ = steered(fresh, controls[0], model=model, checkpoint=made[1], **REQUEST, sampler="DPM++ 2M")
    assert "control was" in other["stats"]["checkpoint_refused"]


def test_a_killed_picture_goes_on_in_another_process_to_the_same_bytes(fork, micro_folder, fresh, models):
    model, first, second = models("sd1")
    file, pin = saved(fresh, noise(seed=40))
    said = [{**PLAIN, "model": each, "picture": pin, "resize": "crop", "weight": 0.6} for each in (first, second)]
    request = {**REQUEST, "sampler": "Euler a", "model": model, "control": said, "files": {"control0": file, "control1": file}}
    whole = fresh.run("denoise", **request)
    victim = fork(models=[micro_folder], checkpoint=EVERY_CALL)
    victim.ready()
    stall = victim.stall("denoise", 3, **request)
    victim.process.kill()
    assert victim.ends() == -signal.SIGKILL
    last = victim.of(stall.request_id, "checkpoint")[-1]
    resumed = fresh.run("denoise", checkpoint=last, **request)
    assert resumed["stats"]["resumed_from"] == last["call"] == 2
    assert resumed["files"]["latents"]["sha256"] == whole["files"]["latents"]["sha256"]


def test_one_of_another_family_is_refused_by_its_field(fresh, models):
    model, _, _ = models("sd1")
    _, first, _ = models("sdxl")
    answer, _ = steered(fresh, (first, {}), model=model, **REQUEST, sampler="Euler a")
    assert (answer["code"], answer["field"]) == ("inference.request_unfit", "control[0].model")
    assert "texts of 80 numbers, and the model to 32" in answer["message"]


@pytest.mark.parametrize("change", [lambda pin: {**pin, "width": 63}, lambda pin: {**pin, "sha256": "0" * 64}], ids=["others", "gone"])
def test_a_picture_whose_bytes_are_gone_or_others_is_refused(fresh, models, change):
    model, first, _ = models("sd1")
    file, pin = saved(fresh, noise())
    changed = change(pin)
    control = [{**PLAIN, "model": first, "picture": changed, "resize": "crop"}]
    files = {"control0": file} if changed["sha256"] == pin["sha256"] else {}
    answer = fresh.run("denoise", model=model, control=control, files=files, **REQUEST, sampler="Euler a")
    assert (answer["code"], answer["field"]) == ("inference.picture_unreadable", "control0")


def test_a_folder_that_is_no_controlnet_is_refused_when_it_loads(fresh, models):
    model, first, _ = models("sd1")
    unet = {**first, "id": "unet", "path": f"{model['path']}/unet", "body_hash": "d" * 64}
    answer = fresh.until(fresh.send("model.ensure", {"model": unet, "files": [], "weight_bytes": 0}))
    assert (answer["code"], answer["field"]) == ("model.corrupt", "model.path")
    assert "its class is UNet2DConditionModel" in answer["message"]


# --- what the judge sees, on scenes that nobody tuned to ---

CANNY = {"name": "canny", "low": 100, "high": 200}


def overlaps(child, count, **how):
    """Boundary overlaps of pictures with the edges that their ControlNet was shown, `canny` of other pictures with the
    same prompt."""
    from training.judge import boundaries, boundary_overlap, segment

    found = []
    for index, (_, text, picture) in enumerate(scenes(count, 20270)):
        file, pin = saved(child, picture)
        control = [{**PLAIN, **how, "model": EDGES, "picture": pin, "resize": "crop", "preprocessor": CANNY}]
        request = {"prompt": text, "seed": 93_000 + index, "steps": 10, "sampler": "DDIM", "width": 128, "height": 128, "model": MODEL}
        denoised = child.run("denoise", files={"control0": file}, control=control, **request)
        assert denoised["type"] == "result", denoised
        drawn = child.run("decode", files=denoised["files"], **request)
        pixels = numpy.frombuffer(Path(drawn["files"]["pixels"]["path"]).read_bytes(), numpy.uint8).reshape(128, 128, 3)
        found.append(boundary_overlap(boundaries(segment(picture)), pixels))
    return float(numpy.mean(found))


@pytest.mark.judge
def test_what_is_drawn_has_the_edges_that_it_is_shown(fresh, pytestconfig):
    count = pytestconfig.getoption("--judged")
    seen = {"full": overlaps(fresh, count), "none": overlaps(fresh, count, weight=0.0)}
    seen |= {"early": overlaps(fresh, count, end=0.4), "late": overlaps(fresh, count, start=0.5)}
    print(json.dumps({"pictures": count, **seen}))
    assert seen["full"] >= 0.9
    assert seen["none"] <= 0.2
    for between in ("early", "late"):
        assert seen["none"] < seen[between] < seen["full"]

