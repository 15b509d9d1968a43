"""Second passes and regions: how a picture is enlarged, what is drawn over it, and what keeps its bytes."""

import hashlib
import json
from pathlib import Path

import numpy
import pytest
import torch
from conftest import REQUEST
from PIL import Image
from test_pictures import latents_within, noise, saved

from darkroom import tensors

SMALL = {"width": 64, "height": 48}
LARGE = {"width": 128, "height": 96}
BOX = {"left": 20, "top": 8, "width": 16, "height": 12}


def raw(child, pixels):
    """(file, pin) of what was drawn so far, as `decode` hands it on."""
    content = pixels.tobytes()
    sha256 = hashlib.sha256(content).hexdigest()
    path = child.attempts / f"{sha256[:16]}.rgb"
    path.write_bytes(content)
    height, width = pixels.shape[:2]
    return {"path": str(path), "sha256": sha256, "bytes": len(content)}, {"sha256": sha256, "width": width, "height": height}


def drawn_small(child, model):
    return child.run("denoise", model=model, **SMALL)["files"]["latents"]


def latents_in(file):
    return tensors.load(Path(file["path"]).read_bytes())[0]["latents"]


def pixels_in(answer, width, height):
    return numpy.frombuffer(Path(answer["files"]["pixels"]["path"]).read_bytes(), numpy.uint8).reshape(height, width, 3)


@pytest.mark.parametrize(("upscaler", "mode"), [("latent", "bilinear"), ("latent-bicubic", "bicubic"), ("latent-nearest", "nearest-exact")])
def test_latents_are_stretched_as_torch_stretches_them(fresh, micro, upscaler, mode):
    small = drawn_small(fresh, micro)
    answer = fresh.run("enlarge", model=micro, files={"latents": small}, **LARGE, **{"from": SMALL}, upscaler=upscaler)
    expected = torch.nn.functional.interpolate(latents_in(small), scale_factor=2, mode=mode)
    assert torch.equal(latents_within(answer)["latents"], expected)


@pytest.mark.parametrize(("upscaler", "resample"), [("lanczos", "LANCZOS"), ("bicubic", "BICUBIC"), ("nearest", "NEAREST")])
def test_pixels_are_enlarged_as_a_picture_is(fresh, micro, upscaler, resample):
    small = drawn_small(fresh, micro)
    answer = fresh.run("enlarge", model=micro, files={"latents": small}, **LARGE, **{"from": SMALL}, upscaler=upscaler)
    picture = pixels_in(fresh.run("decode", model=micro, files={"latents": small}, **SMALL), 64, 48)
    larger = numpy.asarray(Image.fromarray(picture).resize((128, 96), Image.Resampling[resample]))
    file, pin = saved(fresh, larger)
    encoded = fresh.run("encode_picture", model=micro, files={"picture": file}, picture=pin, resize="stretch", **LARGE)
    assert torch.equal(latents_within(answer)["latents"], latents_within(encoded)["latents"])


def test_a_second_pass_draws_over_what_was_enlarged(fresh, micro):
    """As over a picture with the same latents: noise of the seed, at the strength's place in the schedule."""
    small = drawn_small(fresh, micro)
    enlarged = fresh.run("enlarge", model=micro, files={"latents": small}, **LARGE, **{"from": SMALL}, upscaler="lanczos")
    files = {"picture_latents": enlarged["files"]["picture_latents"]}
    answer = fresh.run("denoise", model=micro, files=files, enlarged=True, strength=0.5, **LARGE)
    assert answer["stats"]["calls"] == REQUEST["steps"] // 2
    picture = pixels_in(fresh.run("decode", model=micro, files={"latents": small}, **SMALL), 64, 48)
    file, pin = saved(fresh, numpy.asarray(Image.fromarray(picture).resize((128, 96), Image.Resampling.LANCZOS)))
    over = {"picture": pin, "resize": "stretch", **LARGE}
    encoded = fresh.run("encode_picture", model=micro, files={"picture": file}, **over)
    files = {"picture_latents": encoded["files"]["picture_latents"]}
    expected = fresh.run("denoise", model=micro, files=files, strength=0.5, **over)
    assert torch.equal(latents_in(answer["files"]["latents"]), latents_in(expected["files"]["latents"]))
    # And not as without it.
    alone = fresh.run("denoise", model=micro, **LARGE)
    assert not torch.equal(latents_in(answer["files"]["latents"]), latents_in(alone["files"]["latents"]))


def test_latents_of_another_size_are_made_again(fresh, micro):
    small = drawn_small(fresh, micro)
    error = failed(fresh, "enlarge", model=micro, files={"latents": small}, **LARGE, **{"from": LARGE}, upscaler="latent")
    assert (error["code"], error["field"]) == ("artifact.missing", "files.latents")
    error = failed(fresh, "denoise", model=micro, enlarged=True, strength=0.5, **LARGE)
    assert (error["code"], error["field"]) == ("artifact.missing", "files.picture_latents")


def failed(child, verb, **more):
    """What it was refused with."""
    answer = child.run(verb, **more)
    assert answer["type"] == "error"
    return answer


def region(child, model, pixels, source, files=None, **mask):
    """The picture with a region drawn again, [rows, columns, 3]."""
    file, pin = raw(child, pixels)
    given = {"invert": False, "grow": 0, "blur": 2, "fill": "original", "area": "masked", "padding": 4, **mask, "source": source}
    request = {"model": model, "picture": pin, "mask": given, **LARGE}
    files = {"picture": file, **(files or {})}
    encoded = child.run("encode_picture", files=files, drawn=True, **request)
    latents = child.run("denoise", files={"picture_latents": encoded["files"]["picture_latents"]}, strength=0.75, **request)
    answer = child.run("decode", files={**files, "latents": latents["files"]["latents"]}, drawn=True, **request)
    return pixels_in(answer, pixels.shape[1], pixels.shape[0])


def test_outside_of_a_box_every_pixel_keeps_its_bytes(fresh, micro):
    before = noise(80, 56)
    after = region(fresh, micro, before, BOX)
    inside = numpy.zeros((56, 80), bool)
    inside[8:20, 20:36] = True
    assert numpy.array_equal(after[~inside], before[~inside])
    assert (after[inside] != before[inside]).any(-1).mean() > 0.5


def test_a_box_is_the_mask_that_is_white_in_it(fresh, micro):
    before = noise(80, 56)
    painted = numpy.zeros((56, 80, 3), numpy.uint8)
    painted[8:20, 20:36] = 255
    file, pin = saved(fresh, painted)
    assert numpy.array_equal(region(fresh, micro, before, pin, {"mask": file}), region(fresh, micro, before, BOX))


def test_what_was_drawn_and_is_gone_is_drawn_again(fresh, micro):
    before = noise(80, 56)
    file, pin = raw(fresh, before)
    mask = {"invert": False, "grow": 0, "blur": 2, "fill": "original", "area": "masked", "padding": 4, "source": BOX}
    request = {"model": micro, "picture": pin, "mask": mask, "drawn": True, **LARGE}
    gone = failed(fresh, "encode_picture", **request)
    assert (gone["code"], gone["field"]) == ("artifact.missing", "files.picture")
    short, _ = raw(fresh, before[:-1])
    gone = failed(fresh, "encode_picture", files={"picture": short}, **request)
    assert (gone["code"], gone["field"]) == ("artifact.missing", "files.picture")
    assert file["sha256"] == pin["sha256"]


# --- what the judge sees ---


@pytest.mark.judge
def test_a_second_pass_doubles_the_side_and_keeps_the_scene(fresh, pytestconfig):
    """Things are where the first pass drew them, and most are as well drawn: darkroom-tiny has never seen so large a
    picture, and what it draws over one too heavily it draws wrong."""
    from test_pictures import scenes

    from training.judge import grade, look

    side = {"width": 128, "height": 128}
    twice = {"width": 256, "height": 256}
    moved, first, second = [], [], []
    for index, (scene, text, _) in enumerate(scenes(pytestconfig.getoption("--judged"), 20262)):
        request = {"prompt": text, "seed": 93_000 + index, "sampler": "DDIM"}
        small = fresh.run("denoise", steps=20, **request, **side)["files"]["latents"]
        before = pixels_in(fresh.run("decode", files={"latents": small}, **side), 128, 128)
        enlarged = fresh.run("enlarge", files={"latents": small}, **twice, **{"from": side}, upscaler="lanczos")
        files = {"picture_latents": enlarged["files"]["picture_latents"]}
        large = fresh.run("denoise", files=files, enlarged=True, strength=0.15, steps=40, **request, **twice)["files"]["latents"]
        after = pixels_in(fresh.run("decode", files={"latents": large}, **twice), 256, 256)
        seen = numpy.asarray(Image.fromarray(after).resize((128, 128), Image.Resampling.BOX))
        found = {thing.colour: thing for thing in reversed(look(seen).things)}
        for thing in look(before).things:
            other = found.get(thing.colour)
            moved.append(float("inf") if other is None else float(numpy.hypot(other.x - thing.x, other.y - thing.y)))
        first.append(grade(before, scene).marks["all"])
        second.append(grade(seen, scene).marks["all"])
    near = numpy.mean([each <= 4 for each in moved])
    print(json.dumps({"doubled": len(first), "first": numpy.mean(first), "second": numpy.mean(second), "near": near}))
    assert near >= 0.8
    assert numpy.mean(second) >= 0.7 * numpy.mean(first)
