"""Pictures to begin from: what diffusers' own pipelines draw over them, what keeps its bytes, what the judge sees."""

import hashlib
import io
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
from conftest import REQUEST
from PIL import Image
from test_inference import SCHEDULERS, latents_of

from darkroom import pictures, tensors

SIDE = {"width": 64, "height": 48}
MASK = {"invert": False, "grow": 0, "blur": 0, "fill": "original", "area": "whole", "padding": 32}


def noise(width=64, height=48, channels=3, seed=1):
    return numpy.random.default_rng(seed).integers(0, 256, (height, width, channels), numpy.uint8)


def saved(child, pixels):
    """(file, pin) of a picture, as the node has it."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    content = stream.getvalue()
    sha256 = hashlib.sha256(content).hexdigest()
    path = child.attempts / f"{sha256[:16]}.png"
    path.write_bytes(content)
    height, width = pixels.shape[:2]
    return {"path": str(path), "sha256": sha256, "bytes": len(content)}, {"sha256": sha256, "width": width, "height": height}


class Begun:
    """A request that begins from a picture, step by step in one child."""

    def __init__(self, child, picture, painted=None, **request):
        self.child = child
        file, pin = saved(child, picture)
        self.files = {"picture": file}
        self.request = {"resize": "stretch", "strength": 0.5, **request, "picture": pin}
        if painted is not None:
            self.files["mask"], source = saved(child, numpy.repeat(painted[..., None].astype(numpy.uint8) * 255, 3, 2))
            self.request["mask"] = {**MASK, "source": source, **request.get("mask", {})}

    def encoded(self):
        return self.child.run("encode_picture", files=self.files, **self.request)

    def denoised(self, child=None, **more):
        files = {"picture_latents": self.encoded()["files"]["picture_latents"]}
        return (child or self.child).run("denoise", files=files, **self.request, **more)

    def drawn(self):
        """[rows, columns, 3] uint8."""
        files = {**(self.files if "mask" in self.request else {}), "latents": self.denoised()["files"]["latents"]}
        given = {name: value for name, value in self.request.items() if name != "strength" or "mask" in self.request}
        if "mask" not in given:
            given = {name: value for name, value in given.items() if name not in ("picture", "resize")}
        content = Path(self.child.run("decode", files=files, **given)["files"]["pixels"]["path"]).read_bytes()
        return numpy.frombuffer(content, numpy.uint8).reshape(-1, self.columns, 3)

    @property
    def columns(self):
        area = self.request.get("mask", {}).get("area")
        return self.request["picture"]["width"] if area == "masked" else self.request.get("width", REQUEST["width"])


def latents_within(answer):
    return tensors.load(Path(answer["files"]["picture_latents"]["path"]).read_bytes())[0]


@pytest.fixture(scope="module")
def painter(micro_folder):
    """A network for inpainting: nine channels in."""
    from micro import make_model

    return make_model(micro_folder / "painter", seed=9, unet={"in_channels": 9})


@pytest.fixture(scope="module")
def parts():
    """Model folder → the parts of diffusers' pipelines, fp32."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    made = {}

    def load(folder):
        if folder not in made:
            unet = UNet2DConditionModel.from_pretrained(f"{folder}/unet", torch_dtype=torch.float32)
            # Without one the pipelines fail; the size is told with each request.
            unet.register_to_config(sample_size=64)
            made[folder] = {
                "unet": unet,
                "vae": AutoencoderKL.from_pretrained(f"{folder}/vae", torch_dtype=torch.float32),
                "text_encoder": CLIPTextModel.from_pretrained(f"{folder}/text_encoder", dtype=torch.float32),
                "tokenizer": CLIPTokenizer.from_pretrained(f"{folder}/tokenizer"),
                "safety_checker": None,
                "feature_extractor": None,
                "requires_safety_checker": False,
            }
        return made[folder]

    torch.set_num_threads(1)
    return load


def scheduler_of(model, sampler):
    import diffusers

    class_name, options = SCHEDULERS[sampler]
    config = diffusers.DDIMScheduler.load_config(f"{model['path']}/scheduler")
    return getattr(diffusers, class_name).from_config(config, **options)


def asked(request):
    return {
        "prompt": request["prompt"],
        "num_inference_steps": request["steps"],
        "guidance_scale": request["guidance"],
        "strength": request["strength"],
        "generator": torch.Generator("cpu").manual_seed(request["seed"]),
        "output_type": "latent",
    }


def assert_near(drawn, expected):
    assert drawn.shape == expected.shape
    assert float((drawn - expected).abs().mean()) < 1e-4 * float(expected.std())


def test_a_picture_becomes_the_mean_of_what_the_autoencoder_says(fresh, micro, parts):
    picture = noise()
    latents = latents_within(Begun(fresh, picture, model=micro).encoded())["latents"]
    vae = parts(micro["path"])["vae"]
    with torch.inference_mode():
        mean = vae.encode(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1).latent_dist.mean
    assert_near(latents, mean * vae.config.scaling_factor)


@pytest.mark.parametrize("strength", [0.3, 0.75])
@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_over_a_picture_is_drawn_what_diffusers_own_pipeline_draws(fresh, micro, parts, device, sampler, strength):
    if device != "cpu":
        pytest.skip("the pipeline beside it draws in fp32, the networks of a GPU compute in fp16")
    from diffusers import StableDiffusionImg2ImgPipeline

    request = {"prompt": "a star", "steps": 7, "guidance": 4.0, "seed": 11, "strength": strength, "sampler": sampler}
    begun = Begun(fresh, noise(), model=micro, **request)
    pipeline = StableDiffusionImg2ImgPipeline(**parts(micro["path"]), scheduler=scheduler_of(micro, sampler))
    pipeline.set_progress_bar_config(disable=True)
    # It would draw its latents by chance: it is given ours.
    expected = pipeline(image=latents_within(begun.encoded())["latents"], **asked(request)).images
    assert_near(latents_of(begun.denoised()), expected)


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("sampler", ["DDIM", "Euler a", "DPM++ 2M", "Heun", "UniPC"])
@pytest.mark.parametrize("network", ["micro", "painter"])
def test_inside_a_mask_is_drawn_what_diffusers_own_pipeline_draws(request, fresh, parts, device, network, sampler, strength):
    if device != "cpu":
        pytest.skip("the pipeline beside it draws in fp32, the networks of a GPU compute in fp16")
    from diffusers import StableDiffusionInpaintPipeline

    model = request.getfixturevalue(network)
    wanted = {"prompt": "a star", "steps": 6, "guidance": 4.0, "seed": 11, "strength": strength, "sampler": sampler}
    mask = numpy.zeros((48, 64), bool)
    mask[16:40, 8:32] = True
    begun = Begun(fresh, noise(), mask, model=model, **wanted)
    held = latents_within(begun.encoded())
    assert ("masked" in held) == (network == "painter")
    pipeline = StableDiffusionInpaintPipeline(**parts(model["path"]), scheduler=scheduler_of(model, sampler))
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        image=held["latents"],
        mask_image=torch.from_numpy(mask).float()[None, None],
        masked_image_latents=held.get("masked", torch.zeros_like(held["latents"])),
        **SIDE,
        **asked(wanted),
    ).images
    assert_near(latents_of(begun.denoised()), expected)


def test_what_a_network_for_inpainting_is_shown_is_grey_where_the_mask_is(fresh, painter, parts):
    picture, mask = noise(), numpy.zeros((48, 64), bool)
    mask[8:24, 16:48] = True
    masked = latents_within(Begun(fresh, picture, mask, model=painter).encoded())["masked"]
    seen = (torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1) * torch.from_numpy(~mask)
    vae = parts(painter["path"])["vae"]
    with torch.inference_mode():
        assert_near(masked, vae.encode(seen).latent_dist.mean * vae.config.scaling_factor)


def test_at_full_strength_nothing_of_the_picture_is_left(fresh):
    plain = fresh.run("denoise")["files"]["latents"]["sha256"]
    assert Begun(fresh, noise(), strength=1.0).denoised()["files"]["latents"]["sha256"] == plain
    assert Begun(fresh, noise(), strength=0.9).denoised()["files"]["latents"]["sha256"] != plain


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M Karras", "Heun", "UniPC"])
@pytest.mark.parametrize("fill", ["original", "noise"])
def test_a_run_that_went_on_from_any_checkpoint_draws_the_same(shared, fresh, sampler, fill):
    mask = numpy.zeros((48, 64), bool)
    mask[:, 32:] = True
    begun = Begun(shared, noise(), mask, mask={"fill": fill}, sampler=sampler, steps=8, strength=0.75)
    files = {"picture_latents": begun.encoded()["files"]["picture_latents"]}
    request_id = shared.work("denoise", files=files, **begun.request)
    whole = shared.until(request_id)
    made = shared.of(request_id, "checkpoint")
    assert whole["stats"]["calls"] == (11 if sampler == "Heun" else 6)
    assert [each["call"] for each in made] == list(range(1, whole["stats"]["calls"]))
    for checkpoint in (made[0], made[len(made) // 2], made[-1]):
        went_on = fresh.run("denoise", files=files, checkpoint=checkpoint, **begun.request)
        assert went_on["stats"]["resumed_from"] == checkpoint["call"]
        assert went_on["files"]["latents"]["sha256"] == whole["files"]["latents"]["sha256"]


def test_a_checkpoint_of_another_strength_is_refused(shared):
    begun = Begun(shared, noise(), steps=8, strength=0.75)
    files = {"picture_latents": begun.encoded()["files"]["picture_latents"]}
    request_id = shared.work("denoise", files=files, **begun.request)
    shared.until(request_id)
    checkpoint = shared.of(request_id, "checkpoint")[2]
    other = shared.run("denoise", files=files, checkpoint=checkpoint, **{**begun.request, "strength": 0.5})
    assert "strength was 0.75, is 0.5" in other["stats"]["checkpoint_refused"]


@pytest.mark.parametrize("changes", [{"resize": "crop"}, {"width": 72}])
def test_latents_of_another_request_are_made_again(fresh, changes):
    begun = Begun(fresh, noise())
    files = {"picture_latents": begun.encoded()["files"]["picture_latents"]}
    for given in (files, {}):
        answer = fresh.run("denoise", files=given, **{**begun.request, **changes})
        assert (answer["code"], answer["field"]) == ("artifact.missing", "files.picture_latents")


@pytest.mark.parametrize("area", ["whole", "masked"])
@pytest.mark.parametrize("fill", ["original", "noise", "blur"])
@pytest.mark.parametrize("blur", [0, 4])
def test_outside_of_the_mask_every_byte_stays(fresh, area, fill, blur):
    picture, mask = noise(64, 48), numpy.zeros((48, 64), bool)
    mask[10:33, 7:41] = True
    mask[20:24, 50:52] = True
    drawn = Begun(fresh, picture, mask, mask={"area": area, "fill": fill, "blur": blur, "padding": 5}, strength=0.8).drawn()
    assert drawn.shape == picture.shape
    assert numpy.array_equal(drawn[~mask], picture[~mask])
    assert (drawn[mask] != picture[mask]).any(-1).mean() > 0.9


def test_a_region_drawn_larger_goes_back_into_a_picture_of_any_size(fresh):
    picture, mask = noise(211, 157), numpy.zeros((157, 211), bool)
    mask[100:131, 150:170] = True
    drawn = Begun(fresh, picture, mask, mask={"area": "masked", "padding": 8}).drawn()
    assert drawn.shape == picture.shape
    assert numpy.array_equal(drawn[~mask], picture[~mask])
    assert (drawn[mask] != picture[mask]).any(-1).mean() > 0.9


def test_around_a_picture_its_border_is_drawn(fresh):
    picture = noise(40, 48)
    begun = Begun(fresh, picture, resize="pad", mask={**MASK, "source": "border"})
    drawn = begun.drawn()
    assert drawn.shape == (48, 64, 3)
    assert numpy.array_equal(drawn[:, 12:52], picture)


def test_what_is_transparent_is_drawn(fresh):
    picture = noise(64, 48, 4)
    picture[..., 3] = 255
    picture[10:30, 20:50, 3] = 0
    drawn = Begun(fresh, picture, mask={**MASK, "source": "alpha"}).drawn()
    kept = picture[..., 3] == 255
    assert numpy.array_equal(drawn[kept], picture[..., :3][kept])
    assert (drawn[~kept] != 255).any(-1).mean() > 0.5


@pytest.mark.parametrize(("mask", "says"), [(numpy.zeros((48, 64), bool), {}), (numpy.ones((48, 64), bool), {"invert": True})])
def test_an_empty_mask_is_refused(fresh, mask, says):
    answer = Begun(fresh, noise(), mask, mask=says).encoded()
    assert (answer["code"], answer["class"], answer["field"]) == ("inference.mask_empty", "permanent", "mask")


def test_a_picture_whose_bytes_are_gone_or_others_is_refused(fresh):
    begun = Begun(fresh, noise())
    gone = fresh.run("encode_picture", **begun.request)
    assert (gone["code"], gone["field"]) == ("inference.picture_unreadable", "picture")
    begun.request["picture"] = {**begun.request["picture"], "width": 63}
    other = begun.encoded()
    assert other["code"] == "inference.picture_unreadable"
    assert "64 × 48" in other["message"]


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad", "latent"])
@pytest.mark.parametrize("size", [(1, 1), (64, 48), (200, 20), (7, 300)])
def test_every_picture_comes_to_the_size_that_is_drawn(fresh, resize, size):
    latents = latents_within(Begun(fresh, noise(*size), resize=resize).encoded())["latents"]
    assert latents.shape == latents_of(fresh.run("denoise", steps=1)).shape
    assert bool(latents.isfinite().all())


# --- what is made of pictures, without a child ---


def test_a_softened_edge_lies_inside_and_thin_parts_are_full():
    mask = numpy.zeros((60, 80), bool)
    mask[10:50, 10:60] = True
    mask[20:23, 65:78] = True
    soft = pictures.softened(mask, 4)
    assert (soft[~mask] == 0).all()
    assert (soft[20:23, 65:78] == 255).all()
    assert (soft[18:42, 18:52] == 255).all()
    middle = soft[30, 10:20].astype(int)
    assert (numpy.diff(middle) >= 0).all()
    assert 0 < middle[0] < 60


def test_a_filled_hole_has_the_colours_around_it():
    picture, mask = numpy.full((40, 60, 3), 10, numpy.uint8), numpy.zeros((40, 60), bool)
    picture[:, 30:] = 200
    mask[10:30, 20:40] = True
    picture[mask] = 99
    filled = pictures.filled(picture, mask)
    assert (filled[20, 21] < 60).all()
    assert (filled[20, 38] > 150).all()
    assert numpy.array_equal(filled[~mask], picture[~mask])


def test_a_cell_is_drawn_when_any_of_its_pixels_is():
    mask = numpy.zeros((16, 24), bool)
    mask[7, 8] = True
    assert pictures.cells(mask, 2, 3).tolist() == [[False, True, False], [False, False, False]]


# --- what the judge sees, on scenes that nobody tuned to ---


def scenes(count, seed):
    from training.captions import write
    from training.render import render_bytes, to_numpy
    from training.world import pack, random_scene

    rng = random.Random(seed)
    made = [random_scene(rng, 1 + index % 2) for index in range(count)]
    rendered = to_numpy(render_bytes(torch.from_numpy(pack(made))))
    return [(scene, write(rng, scene, full=True).text, picture) for scene, picture in zip(made, rendered, strict=True)]


@pytest.mark.judge
def test_at_half_strength_things_stay_where_they_are(fresh, pytestconfig):
    from training.judge import look

    moved = []
    count = pytestconfig.getoption("--judged")
    for index, (_, text, picture) in enumerate(scenes(count, 20260)):
        drawn = Begun(fresh, picture, prompt=text, seed=91_000 + index, steps=20, sampler="DDIM", width=128, height=128).drawn()
        found = {seen.colour: seen for seen in reversed(look(drawn).things)}
        for thing in look(picture).things:
            seen = found.get(thing.colour)
            moved.append(float("inf") if seen is None else float(numpy.hypot(seen.x - thing.x, seen.y - thing.y)))
    print(json.dumps({"moved_mean": numpy.mean(moved), "moved_most": max(moved), "things": len(moved)}))
    assert numpy.mean([each <= 8 for each in moved]) >= 0.95


@pytest.mark.judge
def test_at_full_strength_the_picture_holds_nothing(fresh, pytestconfig):
    """What is drawn are the bytes of a picture from the text alone, so its things stand wherever those do."""
    from training.judge import look

    near = []
    count = pytestconfig.getoption("--judged")
    for index, (_, text, picture) in enumerate(scenes(count, 20263)):
        request = {"prompt": text, "seed": 95_000 + index, "steps": 20, "sampler": "DDIM", "width": 128, "height": 128}
        begun = Begun(fresh, picture, strength=1.0, **request)
        drawn = begun.drawn()
        free = fresh.run("denoise", **request)["files"]["latents"]
        decoded = fresh.run("decode", files={"latents": free}, width=128, height=128)
        assert drawn.tobytes() == Path(decoded["files"]["pixels"]["path"]).read_bytes()
        found = {seen.colour: seen for seen in reversed(look(drawn).things)}
        for thing in look(picture).things:
            seen = found.get(thing.colour)
            near.append(seen is not None and float(numpy.hypot(seen.x - thing.x, seen.y - thing.y)) <= 8)
    print(json.dumps({"pictures": count, "near_by_chance": numpy.mean(near)}))
    # A caption says left or right of, and no place.
    assert numpy.mean(near) <= 0.4


@pytest.mark.judge
def test_behind_a_mask_what_is_asked_is_drawn_and_nothing_else_changes(fresh, pytestconfig):
    from training.captions import write
    from training.judge import grade
    from training.render import render_bytes, to_numpy
    from training.world import COLOURS, SHAPES, pack, random_scene

    rng = random.Random(20261)
    mask = numpy.zeros((128, 128), bool)
    mask[:, 64:] = True
    right = []
    while len(right) < pytestconfig.getoption("--judged"):
        scene = random_scene(rng, 2)
        left, other = sorted(scene.things, key=lambda thing: thing.x)
        if scene.relation not in ("left", "right") or left.x + left.radius >= 60 or other.x - other.radius <= 68:
            continue
        taken = {scene.background, left.colour, other.colour}
        colour = rng.choice([index for index in range(len(COLOURS)) if index not in taken])
        changed = replace(other, colour=colour, shape=(other.shape + rng.randrange(1, len(SHAPES))) % len(SHAPES))
        wanted = replace(scene, things=tuple(changed if thing is other else thing for thing in scene.things))
        picture = to_numpy(render_bytes(torch.from_numpy(pack([scene]))))[0]
        request = {"prompt": write(rng, wanted, full=True).text, "seed": 92_000 + len(right), "steps": 20, "sampler": "DDIM"}
        drawn = Begun(fresh, picture, mask, strength=1.0, width=128, height=128, **request).drawn()
        assert numpy.array_equal(drawn[~mask], picture[~mask])
        right.append(grade(drawn, wanted).marks["all"])
    print(json.dumps({"right": numpy.mean(right), "pictures": len(right)}))
    assert numpy.mean(right) >= 0.8
