"""ControlNets of transformers: what is drawn is what diffusers' own pipelines draw, to the bit on the CPU; a picture
goes on to the same bytes; what does not fit is refused by its field.

Where a pipeline draws the picture's latents from what the autoencoder says, the test has it take their mean: Darkroom
draws no random number for a picture."""

from functools import partial
from itertools import count

import pytest
import torch
from conftest import EVERY_CALL
from flow_pipelines import flux, load, qwen_image, sd3, words_of, z_image
from micro_flow import make_flow_control, make_flow_model
from PIL import Image
from test_flow import asked, held, unpacked
from test_pictures import noise, saved

PLAIN = {"weight": 1.0, "start": 0, "end": 1, "mode": "balanced"}
MAKERS = {"flux1": flux, "sd3": sd3, "qwen-image": qwen_image, "z-image": z_image}
PIPELINES = {
    **{"flux1": "FluxControlNetPipeline", "sd3": "StableDiffusion3ControlNetPipeline"},
    **{"qwen-image": "QwenImageControlNetPipeline", "z-image": "ZImageControlNetPipeline"},
}
KINDS = {
    **{"flux1": "FluxControlNetModel", "sd3": "SD3ControlNetModel"},
    **{"qwen-image": "QwenImageControlNetModel", "z-image": "ZImageControlNetModel"},
}
# Name → the family that it steers, and its configuration.
NETWORKS = {
    "flux": ("flux1", {}),
    "flux deeper": ("flux1", {"guidance_embeds": False}),
    "flux union": ("flux1", {"num_mode": 7}),
    "flux of pixels": ("flux1", {"conditioning_embedding_channels": 4, "patch_size": 2, "num_single_layers": 0}),
    "sd3 InstantX": ("sd3", {}),
    "sd3 shifted": ("sd3", {"force_zeros_for_pooled_projection": False}),
    "sd3 textless": (
        "sd3",
        {"joint_attention_dim": None, "use_pos_embed": False, "force_zeros_for_pooled_projection": False, "qk_norm": None},
    ),
    "qwen": ("qwen-image", {}),
    # As Z-Image's were published, one version after the other.
    "z-image 1": ("z-image", {"control_layers_places": [0, 1]}),
    "z-image 2.0": (
        "z-image",
        {"control_in_dim": 9, "control_refiner_layers_places": [0], "add_control_noise_refiner": "control_layers"},
    ),
    "z-image 2.1": (
        "z-image",
        {"control_in_dim": 9, "control_refiner_layers_places": [0], "add_control_noise_refiner": "control_noise_refiner"},
    ),
}


@pytest.fixture(scope="session")
def steered_models(micro_folder):
    """Name of a model's family or of a ControlNet → it, made when it is first asked for."""
    made = {}

    def model(name):
        if name not in made:
            folder, seed = micro_folder / f"steered-{name.replace(' ', '-')}", 120 + len(made)
            if name in NETWORKS:
                family, changes = NETWORKS[name]
                made[name] = make_flow_control(folder, family, seed, **changes)
            else:
                made[name] = make_flow_model(folder, name, seed)
        return made[name]

    return model


@pytest.fixture
def mean_latents(monkeypatch, device):
    if device != "cpu":
        pytest.skip("the pipeline beside it draws in fp32, the networks of a GPU compute in bf16")
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())


def drawn_by(family, request, networks, pictures, **how):
    """What diffusers' own pipeline draws, unpacked."""
    import diffusers

    parts = MAKERS[family](partial(load, request["model"]["path"])).components
    loaded = [load(network["path"], getattr(diffusers, KINDS[family]), "") for network in networks]
    if family == "z-image":
        end = how["control_guidance_end"]
        how = {"controlnet_conditioning_scale": how["controlnet_conditioning_scale"]}
        _act_until(loaded[0], request["steps"], end)
    several = {"flux1": "FluxMultiControlNetModel", "sd3": "SD3MultiControlNetModel"}
    control = loaded[0] if len(loaded) == 1 else getattr(diffusers, several[family])(loaded)
    torch.set_num_threads(1)
    pipeline = getattr(diffusers, PIPELINES[family])(**parts, controlnet=control)
    pipeline.set_progress_bar_config(disable=True)
    shown = [Image.fromarray(picture) for picture in pictures]
    made = pipeline(
        prompt=request["prompt"],
        control_image=shown[0] if len(shown) == 1 else shown,
        width=request["width"],
        height=request["height"],
        num_inference_steps=request["steps"],
        generator=torch.Generator("cpu").manual_seed(request["seed"]),
        output_type="latent",
        **words_of(family, request),
        **how,
    ).images
    return unpacked(made, family, request)


def _act_until(network, steps, end):
    """Its pipeline knows no share of the calls in which it acts."""
    forward, calls = network.forward, count(1)
    network.forward = lambda *given, **more: forward(*given, **more) if next(calls) / steps <= end else None


def steered(child, model, *controls, **request):
    """(answer of a denoise with these ControlNets, the request, the pictures that they are shown)."""
    files, said, shown = {}, [], []
    for number, (reference, how) in enumerate(controls):
        shown.append(noise(64, 48, seed=40 + number))
        files[f"control{number}"], pin = saved(child, shown[-1])
        said.append({**PLAIN, "model": reference, "picture": pin, "resize": "crop", **how})
    whole = asked(model["family"], model=model, width=64, height=48, **{"steps": 3, **request})
    return child.run("denoise", **whole, control=said, files=files), whole, shown


@pytest.mark.parametrize("name", NETWORKS)
def test_one_draws_the_bits_of_diffusers_own_pipeline(fresh, steered_models, mean_latents, name):
    family = NETWORKS[name][0]
    model, network = steered_models(family), steered_models(name)
    task = {"task": "blur"} if name == "flux union" else {}
    # Guided, this pipeline has the autoencoder see the picture twice in one go, which sums in another order.
    alone = {"guidance": 1.0} if family == "sd3" else {}
    answer, request, pictures = steered(fresh, model, (network, {"weight": 0.7, "end": 0.7, **task}), **alone)
    how = {"controlnet_conditioning_scale": 0.7, "control_guidance_end": 0.7, **({"control_mode": 3} if task else {})}
    expected = drawn_by(family, request, [network], pictures, **how)
    assert torch.equal(held(answer, "latents")["latents"], expected)
    if alone:
        guided, request, _ = steered(fresh, model, (network, {"weight": 0.7, "end": 0.7}))
        expected = drawn_by(family, request, [network], pictures, **how)
        assert float((held(guided, "latents")["latents"] - expected).abs().max()) < 1e-4
    assert not torch.equal(held(fresh.run("denoise", **request), "latents")["latents"], expected)


@pytest.mark.parametrize(("one", "other"), [("flux", "flux deeper"), ("sd3 InstantX", "sd3 InstantX")])
def test_two_draw_the_bits_of_diffusers_own_pipeline(fresh, steered_models, mean_latents, one, other):
    family = NETWORKS[one][0]
    alone = {"guidance": 1.0} if family == "sd3" else {}
    model, networks = steered_models(family), [steered_models(one), steered_models(one if family == "flux1" else other)]
    answer, request, pictures = steered(fresh, model, (networks[0], {"weight": 0.7}), (networks[1], {"weight": 0.4, "start": 0.3}), **alone)
    how = {"controlnet_conditioning_scale": [0.7, 0.4], "control_guidance_start": [0.0, 0.3], "control_guidance_end": [1.0, 1.0]}
    expected = drawn_by(family, request, networks, pictures, **how)
    assert torch.equal(held(answer, "latents")["latents"], expected)


@pytest.mark.parametrize("name", ["flux", "sd3 InstantX", "qwen", "z-image 2.1"])
def test_without_weight_nothing_is_steered_and_afterwards_nothing_is_left(fresh, steered_models, name):
    model, network = steered_models(NETWORKS[name][0]), steered_models(name)
    nothing, request, _ = steered(fresh, model, (network, {"weight": 0.0}))
    before = fresh.run("denoise", **request)["files"]["latents"]["sha256"]
    assert nothing["files"]["latents"]["sha256"] == before
    much, _, _ = steered(fresh, model, (network, {}))
    assert much["files"]["latents"]["sha256"] != before
    assert fresh.run("denoise", **request)["files"]["latents"]["sha256"] == before


@pytest.mark.parametrize("name", ["flux", "sd3 InstantX", "qwen", "z-image 2.1"])
def test_a_run_that_went_on_from_any_checkpoint_draws_the_same(shared, fresh, steered_models, name):
    model, network = steered_models(NETWORKS[name][0]), steered_models(name)
    control = (network, {"weight": 0.8, "start": 0.3})
    whole, request, _ = steered(shared, model, control, sampler="Heun")
    made = shared.of(str(shared.last), "checkpoint")
    assert [each["call"] for each in made] == list(range(1, whole["stats"]["calls"]))
    file, pin = saved(fresh, noise(64, 48, seed=40))
    said = [{**PLAIN, "model": network, "picture": pin, "resize": "crop", **control[1]}]
    for checkpoint in made:
        went_on = fresh.run("denoise", checkpoint=checkpoint, control=said, files={"control0": file}, **request)
        assert (went_on["stats"]["resumed_from"], went_on["stats"]["checkpoint_refused"]) == (checkpoint["call"], None)
        assert went_on["files"]["latents"]["sha256"] == whole["files"]["latents"]["sha256"]


@pytest.mark.parametrize("name", ["flux", "z-image 1"])
def test_a_killed_picture_goes_on_in_another_process_to_the_same_bytes(fork, fresh, micro_folder, steered_models, name):
    model, network = steered_models(NETWORKS[name][0]), steered_models(name)
    whole, request, _ = steered(fresh, model, (network, {}), steps=5)
    file, pin = saved(fresh, noise(64, 48, seed=40))
    request = {**request, "control": [{**PLAIN, "model": network, "picture": pin, "resize": "crop"}], "files": {"control0": file}}
    killed = fork(checkpoint=EVERY_CALL, models=[micro_folder])
    killed.ready()
    request_id = killed.work("denoise", **request)
    last = killed.until(request_id, "checkpoint")
    killed.process.kill()
    resumed = fresh.run("denoise", checkpoint=last, **request)
    assert resumed["stats"]["resumed_from"] == last["call"]
    assert resumed["files"]["latents"]["sha256"] == whole["files"]["latents"]["sha256"]


@pytest.mark.parametrize(
    ("family", "name", "how", "field", "words"),
    [
        ("flux1", "sd3 InstantX", {}, "control[0].model", "is a SD3ControlNetModel, and FluxControlNetModel steer the model"),
        ("qwen-image", "flux", {}, "control[0].model", "it is for another family"),
        ("z-image", "flux", {}, "control[0].model", "is a FluxControlNetModel, and ZImageControlNetModel steer the model"),
        ("flux2", "flux", {}, "control", "are not steered by ControlNets"),
        ("flux1", "flux", {"mode": "control"}, "control[0].mode", "it must be balanced, not control"),
        ("flux1", "flux union", {}, "control[0].task", "knows line, tile, depth, blur, pose, grey, low, and None is asked for"),
        ("flux1", "flux union", {"task": "normal"}, "control[0].task", "and normal is asked for"),
        ("flux1", "flux", {"task": "line"}, "control[0].task", "knows one task alone, and line is asked for"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_field(fresh, steered_models, family, name, how, field, words):
    answer, _, _ = steered(fresh, steered_models(family), (steered_models(name), how))
    assert (answer["code"], answer["field"]) == ("inference.request_unfit", field)
    assert words in answer["message"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dim": 64}, "its dim is 64, and the model's 32"),
        ({"n_heads": 4, "n_kv_heads": 4}, "its n_heads is 4, and the model's 2"),
        ({"control_in_dim": 2}, "it is shown 2 channels, and the model's pictures have 4"),
        ({"control_layers_places": [0, 2]}, "it adds to layer 2 by its control_layers_places, and the model's n_layers is 2"),
        ({"control_refiner_layers_places": [1]}, "it adds to layer 1 by its control_refiner_layers_places"),
    ],
)
def test_one_that_cannot_compute_with_this_transformer_is_refused(fresh, micro_folder, steered_models, changes, words):
    network = make_flow_control(micro_folder / f"unfit {words}", "z-image", 191, **changes)
    answer, _, _ = steered(fresh, steered_models("z-image"), (network, {}))
    assert (answer["code"], answer["field"]) == ("inference.request_unfit", "control[0].model")
    assert words in answer["message"]


def test_two_of_z_image_add_up_each_in_its_own_layers(fresh, steered_models):
    model = steered_models("z-image")
    one, other = (steered_models("z-image 1"), {"weight": 0.6}), (steered_models("z-image 2.1"), {"weight": 0.4})
    both, request, _ = steered(fresh, model, one, other)
    digests = {steered(fresh, model, *some)[0]["files"]["latents"]["sha256"] for some in ([one], [other])}
    digests |= {both["files"]["latents"]["sha256"], fresh.run("denoise", **request)["files"]["latents"]["sha256"]}
    assert len(digests) == 4


@pytest.mark.parametrize("profile", ["balanced", "lowest-memory"])
def test_it_lends_its_embedders_wherever_its_weights_are(fresh, steered_models, profile):
    model, network = steered_models("z-image"), steered_models("z-image 2.1")
    apart, _, _ = steered(fresh, model, (network, {}), memory_profile=profile)
    assert apart["stats"]["memory"]["offload"] == ("component" if profile == "balanced" else "blocks")
    whole, _, _ = steered(fresh, model, (network, {}))
    assert apart["files"]["latents"]["sha256"] == whole["files"]["latents"]["sha256"]


def test_one_for_inpainting_and_one_beside_reference_pictures_are_refused(fresh, micro_folder, steered_models):
    model = steered_models("qwen-image")
    network = make_flow_control(micro_folder / "painting control", "qwen-image", 190, extra_condition_channels=4)
    answer, _, _ = steered(fresh, model, (network, {}))
    assert (answer["code"], answer["field"]) == ("model.unusable", "model.path")
    assert "it is a ControlNet for inpainting" in answer["message"]
    _, pin = saved(fresh, noise())
    both, _, _ = steered(fresh, steered_models("flux1"), (steered_models("flux"), {}), references=[pin])
    assert (both["code"], both["field"]) == ("inference.request_unfit", "control")
