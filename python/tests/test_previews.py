"""How pictures look while they are drawn: what the network takes the noise for, and its colours without a decoder."""

import itertools
import json
import time
from pathlib import Path

import numpy
import pytest
import torch
from conftest import EVERY_CALL, PYTHON, ROOT, lasting

from darkroom import samplers, tensors
from darkroom.families import latent_rgb
from darkroom.flow_schedule import FlowSchedule
from darkroom.schedule import Schedule

TINY = ROOT / "models" / "darkroom-tiny"
REQUEST = {"prompt": "a large red star on yellow", "width": 128, "height": 128, "steps": 30, "sampler": "Euler a"}


@pytest.mark.long
def test_the_matrix_of_darkroom_tiny_is_fitted_to_its_autoencoder():
    from diffusers import AutoencoderKL

    from darkroom.families.fit_latent_rgb import fit

    fitted = fit(AutoencoderKL.from_pretrained(TINY, subfolder="vae").eval())
    numpy.testing.assert_allclose(fitted.factors, latent_rgb.TINY.factors, atol=1e-3)
    numpy.testing.assert_allclose(fitted.bias, latent_rgb.TINY.bias, atol=1e-3)


@pytest.mark.parametrize(
    ("config", "space"),
    [
        *((PYTHON / "darkroom" / "configs" / f"stable-diffusion-{of}" / "vae" / "config.json", getattr(latent_rgb, space))
          for of, space in (("1", "SD1"), ("2", "SD1"), ("xl", "SDXL"))),
        (TINY / "vae" / "config.json", latent_rgb.TINY),
        # As the families' authors publish them.
        ({"latent_channels": 16, "scaling_factor": 1.5305}, latent_rgb.SD3),
        ({"latent_channels": 16, "scaling_factor": 0.3611}, latent_rgb.FLUX1),
    ],
)  # fmt: skip
def test_an_autoencoder_has_the_colours_of_its_space(config, space):
    known = json.loads(config.read_text()) if isinstance(config, Path) else config
    assert latent_rgb.of_autoencoder(known) is space
    assert len(space.factors) == known["latent_channels"]


def test_one_of_no_known_space_has_none():
    assert latent_rgb.of_autoencoder({"latent_channels": 4, "scaling_factor": 0.5}) is None


def test_squares_of_cells_lie_side_by_side():
    space = latent_rgb.LatentRgb(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)), (0.0, 0.0, 1.0), square=2)
    # Channel 0 of the first cell: 2 × 2 cells of their own, from dark to light.
    latents = torch.zeros(1, 8, 1, 2)
    latents[0, :4, 0, 0] = torch.tensor([-1.0, -0.5, 0.5, 1.0])
    shown = space.pixels(latents)
    assert shown.shape == (2, 4, 3)
    assert shown[..., 0].tolist() == [[0, 64, 128, 128], [191, 255, 128, 128]]
    assert shown[..., 1].unique().tolist() == [128] and shown[..., 2].unique().tolist() == [255]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("sampler", ["Euler", "DDIM", "DPM++ 2M", "DPM2", "UniPC"])
def test_what_is_seen_is_the_picture_that_the_network_predicts(tmp_path, sampler, kind):
    path = tmp_path / "scheduler_config.json"
    known = json.loads((TINY / "scheduler" / "scheduler_config.json").read_text())
    path.write_text(json.dumps({**known, "prediction_type": kind}))
    schedule = Schedule(str(path), 4)
    scheduler = schedule.scheduler(sampler, 10)
    generator = torch.Generator().manual_seed(1)
    picture, noise = torch.randn(2, 1, 4, 3, 3, generator=generator)
    at = len(scheduler.timesteps) // 2
    t = scheduler.timesteps[at]
    table = scheduler_alphas(known)
    # Timesteps of the middle may be fractions: those of the whole number below and above bracket it.
    alpha = float(numpy.interp(float(t), numpy.arange(len(table)), table))
    signal, deviation = alpha**0.5, (1 - alpha) ** 0.5
    given = signal * picture + deviation * noise
    predicted = {"epsilon": noise, "v_prediction": signal * noise - deviation * picture, "sample": picture}[kind]
    torch.testing.assert_close(schedule.clean(given, float(t), predicted), picture, atol=1e-2, rtol=1e-2)


def scheduler_alphas(config):
    return samplers.make_scheduler("DDIM", config, 10).alphas_cumprod.double().numpy()


def test_so_it_is_with_flow_matching(tmp_path):
    path = tmp_path / "scheduler_config.json"
    path.write_text(json.dumps({"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}))
    picture, noise = torch.randn(2, 1, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    given = 0.3 * picture + 0.7 * noise
    torch.testing.assert_close(FlowSchedule(str(path), 4).clean(given, 700.0, noise - picture), picture)


def test_latents_of_other_channels_than_it_has_colours_for_have_no_preview():
    assert latent_rgb.FLUX2.of(32) is latent_rgb.FLUX2
    assert latent_rgb.FLUX2.of(4) is None


# Least seconds between two previews of `shows`; `shared` makes none.
EVERY = 0.2


@pytest.fixture(scope="module")
def shows(tmp_path_factory, device, nursery):
    yield from lasting(tmp_path_factory, "shows", device=device, nursery=nursery, checkpoint=EVERY_CALL, preview_s=EVERY)


def test_a_preview_resembles_the_picture_as_no_other_matrix_would_show_it_and_moves_no_bit(shows, shared):
    # What is shown at a call is what its checkpoint keeps of it.
    request = shows.work("denoise", **REQUEST)
    kept = {}
    while (frame := shows.until(request, "preview", "checkpoint", "result"))["type"] != "result":
        path = Path(frame["path"])
        if frame["type"] == "preview":
            assert (frame["width"], frame["height"], frame["bytes"]) == (32, 32, 32 * 32 * 3)
            kept[frame["call"]] = numpy.frombuffer(path.read_bytes(), numpy.uint8).reshape(32, 32, 3)
        else:
            draft = tensors.load(path.read_bytes())[0]["draft"].numpy()
            if frame["call"] in kept:
                assert (kept[frame["call"]] == draft).all()
    assert len(kept) > 1
    hiding = shared.work("denoise", **REQUEST)
    hidden = shared.until(hiding)
    assert hidden["files"]["latents"]["sha256"] == frame["files"]["latents"]["sha256"]
    assert "draft" not in tensors.load(Path(shared.of(hiding, "checkpoint")[-1]["path"]).read_bytes())[0]

    pixels = shared.run("decode", files={"latents": hidden["files"]["latents"]}, width=128, height=128)["files"]["pixels"]
    drawn = numpy.frombuffer(Path(pixels["path"]).read_bytes(), numpy.uint8).reshape(32, 4, 32, 4, 3).mean((1, 3))
    latents = tensors.load(Path(hidden["files"]["latents"]["path"]).read_bytes())[0]["latents"]
    assert numpy.corrcoef(draft.astype(float).ravel(), drawn.ravel())[0, 1] > 0.9
    assert distance(draft, drawn) < 24
    for other in (latent_rgb.SD1, latent_rgb.SDXL):
        assert distance(other.pixels(latents).numpy(), drawn) > 2 * distance(draft, drawn)
    # Early on it is a guess.
    assert distance(kept[min(kept)], drawn) > distance(draft, drawn)


def distance(one, other):
    """Mean difference of a colour, of 255."""
    return numpy.abs(one.astype(float) - other).mean()


@pytest.mark.long
def test_no_two_come_within_the_interval_and_short_work_makes_none(shows):
    times = []
    began = time.monotonic()
    request = shows.work("denoise", **{**REQUEST, "steps": 100})
    while shows.until(request, "preview", "result")["type"] != "result":
        times.append(time.monotonic() - began)
    assert 1 < len(times) <= (time.monotonic() - began) / EVERY
    # A reader may be late with one, and not with all.
    assert sorted(later - earlier for earlier, later in itertools.pairwise(times))[len(times) // 2] > 0.8 * EVERY
    short = shows.work("denoise", **{**REQUEST, "width": 16, "height": 16, "steps": 2})
    assert shows.until(short, "preview", "result")["type"] == "result"
