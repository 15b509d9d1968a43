"""`npm run test:exact`: every family with every pair of a sampler and a schedule that it takes. One process draws them
all, with a checkpoint a call, and is killed in the middle of another; a second one goes on from the middle of each to
the same bytes."""

import signal

import pytest
from conftest import EVERY_CALL, Child
from micro import make_sdxl_inpainting
from micro_flow import SCHEDULERS, make_flow_model
from test_families import MODELS, PAINTER
from test_flow import REQUESTS
from test_pictures import Begun, noise

from darkroom import flow_schedule, samplers

UNETS = {**MODELS, PAINTER: (make_sdxl_inpainting, {})}
AUTOMATIC = samplers.AUTOMATIC
PAIRS = [
    *((name, *pair) for name in UNETS for pair in samplers.PAIRS),
    *((family, sampler, AUTOMATIC) for family in SCHEDULERS for sampler in flow_schedule.SAMPLERS),
]
STEPS = 6


def make(folder, name):
    if name in UNETS:
        maker, options = UNETS[name]
        return maker(folder, **options)
    return make_flow_model(folder, name)


def request_of(model, name, sampler, schedule):
    more = {"prompt": "a star", "negative_prompt": "a square", **REQUESTS.get(name, {})}
    spread = {} if schedule == AUTOMATIC else {"schedule": schedule}
    return {"model": model, "sampler": sampler, "steps": STEPS, "seed": 11, **more, **spread}


@pytest.fixture(scope="module")
def dead(tmp_path_factory, micro_folder, device):
    """Name → (model, files, by pair its undisturbed answer and checkpoints), of a process that was killed since."""
    models, drawn = {}, {}

    def draw(name):
        if name in drawn:
            return drawn[name]
        # The one before may have failed: where it did, its model is there.
        if name not in models:
            models[name] = make(micro_folder / f"every-{name}", name)
        model = models[name]
        victim = Child(tmp_path_factory.mktemp("victim"), device=device, models=[micro_folder], checkpoint=EVERY_CALL).greet()
        try:
            victim.ready()
            files = picture_of(victim, model) if name == PAINTER else {}
            answers = {}
            for _, sampler, schedule in [pair for pair in PAIRS if pair[0] == name]:
                request_id = victim.work("denoise", **files, **request_of(model, name, sampler, schedule))
                answers[sampler, schedule] = victim.until(request_id), victim.of(request_id, "checkpoint")
            victim.stall("denoise", 3, **files, **request_of(model, name, "Euler", AUTOMATIC))
            victim.process.kill()
            assert victim.ends() == -signal.SIGKILL
        finally:
            victim.close()
        drawn[name] = model, files, answers
        return drawn[name]

    return draw


def picture_of(child, model):
    """What a network for inpainting is shown: a picture and the half of it that is drawn."""
    painted = noise()[..., 0] > 255
    painted[:, :32] = True
    begun = Begun(child, noise(), painted, model=model)
    shown = {name: begun.request[name] for name in ("picture", "resize", "mask")}
    return {"files": {"picture_latents": begun.encoded()["files"]["picture_latents"]}, "strength": 1.0, **shown}


@pytest.mark.parametrize(("name", "sampler", "schedule"), PAIRS)
def test_it_goes_on_to_the_same_bytes(fresh, dead, name, sampler, schedule):
    model, files, answers = dead(name)
    whole, checkpoints = answers[sampler, schedule]
    if whole["type"] == "error":
        # Some samplers would draw another noise than that of a model with zero terminal SNR.
        assert "zero-SNR" in name and not samplers.knows_zero_snr(sampler), whole
        assert whole["code"] == "inference.schedule_unfit"
        return
    assert whole["type"] == "result", whole
    # Of samplers with two calls a step one of the first, so in the middle of it.
    kept = checkpoints[len(checkpoints) // 2 // 2 * 2]
    resumed = fresh.run("denoise", checkpoint=kept, **files, **request_of(model, name, sampler, schedule))
    assert (resumed["stats"]["resumed_from"], resumed["stats"]["checkpoint_refused"]) == (kept["call"], None)
    assert resumed["files"]["latents"]["sha256"] == whole["files"]["latents"]["sha256"]
