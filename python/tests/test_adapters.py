"""LoRA and its kin through the real child: what is drawn is what diffusers draws with the same sum in its weights, and
nothing of an adapter stays behind."""

import hashlib
import json
import signal
from itertools import pairwise
from pathlib import Path

import numpy
import pytest
import torch
from conftest import EVERY_CALL, MODEL
from micro import make_model, make_sdxl
from safetensors.torch import load_file, save_file
from test_families import expected, latents_of, pipelines  # noqa: F401
from test_pictures import scenes

TINY = Path(MODEL["path"]) / "lora"
REQUEST = {"prompt": "a star", "negative_prompt": "a square", "steps": 4, "guidance": 5.0, "seed": 11, "width": 64, "height": 48}
ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0.attn2"


def body_hash(path):
    content = Path(path).read_bytes()
    return hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()


def adapter(path, weight=1.0, **more):
    """As a request on the wire names it."""
    return {"model": {"id": Path(path).stem, "path": str(path), "body_hash": body_hash(path)}, "weight": weight, **more}


def tiny(name, weight=1.0):
    return adapter(TINY / f"{name}.safetensors", weight)


@pytest.fixture(scope="module")
def written(micro_folder):
    """Writes tensors as a file in a model folder; returns its path."""

    def write(name, tensors, metadata=None):
        path = micro_folder / f"{name}.safetensors"
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata or {"format": "pt"})
        return path

    return write


@pytest.fixture(scope="module")
def models(micro_folder):
    return {"sd1": make_model(micro_folder / "with adapters", seed=71), "sdxl": make_sdxl(micro_folder / "xl with adapters", seed=72)}


def random_lora(network, names, rank=3, seed=5):
    """Module → (up, down) for these modules of a network."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name in names:
        weight = network.get_submodule(name).weight
        down = torch.randn((rank, *weight.shape[1:]), generator=generator) * 0.3
        up = torch.randn((weight.shape[0], rank, *([1] * (weight.dim() - 2))), generator=generator) * 0.3
        made[name] = (up, down)
    return made


UNET_MODULES = (f"{ATTENTION}.to_q", f"{ATTENTION}.to_out.0", "down_blocks.0.resnets.0.conv1", "mid_block.attentions.0.proj_in")
TEXT_MODULE = "encoder.layers.1.self_attn.q_proj"


def in_place(network, pairs, weight):
    """The sum, worked out here."""
    with torch.no_grad():
        for name, (up, down) in pairs.items():
            held = network.get_submodule(name).weight
            held += weight * (up.flatten(1) @ down.flatten(1)).view_as(held)


def kohya(prefix, pairs, alpha):
    flat = {f"{prefix}_{name.replace('.', '_')}": pair for name, pair in pairs.items()}
    tensors = {}
    for name, (up, down) in flat.items():
        tensors |= {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down, f"{name}.alpha": torch.tensor(float(alpha))}
    return tensors


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_networks_and_text_encoders_are_changed_as_the_sum_says(fresh, models, written, pipelines, family):  # noqa: F811
    """kohya's names, of the network and of every text encoder, with alphas and weights apart."""
    model, pipeline = models[family], pipelines(models[family]["path"])
    encoders = {"sd1": {"lora_te": "text_encoder"}, "sdxl": {"lora_te1": "text_encoder", "lora_te2": "text_encoder_2"}}[family]
    unet = random_lora(pipeline.unet, UNET_MODULES)
    tensors = kohya("lora_unet", unet, alpha=1.5)
    texts = {}
    for prefix, part in encoders.items():
        network = getattr(pipeline, part)
        name = next(each for each, _ in network.named_modules() if each.endswith(TEXT_MODULE))
        texts[part] = random_lora(network, [name], seed=6)
        # As trainers name it, whatever this version of the library does.
        said = {f"text_model.{name.removeprefix('text_model.')}": pair for name, pair in texts[part].items()}
        tensors |= kohya(prefix, said, alpha=3)
    path = written(f"kohya {family}", tensors)
    request = {"model": model, "sampler": "Euler a", **REQUEST}
    plain = latents_of(fresh.run("denoise", **request))
    worn = adapter(path, 0.8, text_weight=-0.5)
    drawn = latents_of(fresh.run("denoise", adapters=[worn], **request))
    parts = next(each for each in fresh.vitals()["models"] if each["id"] == model["id"])["parts"]
    said = {part["name"]: [(each["id"], each["weight"]) for each in part["patched_by"]] for part in parts}
    name = worn["model"]["id"]
    assert said == {"vae": [], "unet": [(name, 0.8)], **{part: [(name, -0.5)] for part in encoders.values()}}
    kept = {part: {name: tensor.clone() for name, tensor in getattr(pipeline, part).state_dict().items()} for part in ("unet", *texts)}
    try:
        in_place(pipeline.unet, unet, 0.8 * 1.5 / 3)
        for part, pairs in texts.items():
            in_place(getattr(pipeline, part), pairs, -0.5)
        wanted = expected(pipeline, "Euler a", REQUEST)
    finally:
        for part, state in kept.items():
            getattr(pipeline, part).load_state_dict(state)
    assert float((plain - wanted).abs().max()) > 0.05
    assert torch.allclose(drawn, wanted, atol=1e-3)
    assert torch.equal(latents_of(fresh.run("denoise", **request)), plain)
    assert not any(part["patched_by"] for each in fresh.vitals()["models"] for part in each["parts"])


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_the_librarys_own_loader_draws_the_same(fresh, models, written, pipelines, family):  # noqa: F811
    """diffusers' names, and peft's, of one LoRA; the library loads it with peft."""
    model, pipeline = models[family], pipelines(models[family]["path"])
    pairs = random_lora(pipeline.unet, UNET_MODULES[:2], seed=9)
    dialects = {
        "diffusers": {
            f"unet.{name}.lora_{half}.weight": each for name, pair in pairs.items() for half, each in zip("BA", pair, strict=True)
        },
        "peft": {
            f"base_model.model.{name}.lora_{half}.default.weight": each
            for name, pair in pairs.items()
            for half, each in zip("BA", pair, strict=True)
        },
        "kohya": kohya("lora_unet", pairs, alpha=3),
    }
    paths = {name: written(f"{name} {family}", tensors) for name, tensors in dialects.items()}
    request = {"model": model, "sampler": "DPM++ 2M", **REQUEST}
    drawn = {name: latents_of(fresh.run("denoise", adapters=[adapter(path, 0.7)], **request)) for name, path in paths.items()}
    # One LoRA in three dialects is one picture, to the byte.
    assert torch.equal(drawn["diffusers"], drawn["peft"])
    assert torch.equal(drawn["diffusers"], drawn["kohya"])
    pipeline.load_lora_weights(str(paths["diffusers"]), adapter_name="one")
    try:
        pipeline.set_adapters(["one"], [0.7])
        wanted = expected(pipeline, "DPM++ 2M", REQUEST)
    finally:
        pipeline.unload_lora_weights()
    assert torch.allclose(drawn["diffusers"], wanted, atol=1e-3)
    assert not torch.allclose(drawn["diffusers"], latents_of(fresh.run("denoise", **request)), atol=0.05)


def test_metadata_of_diffusers_say_alpha_where_no_tensor_does(fresh, models, written, pipelines):  # noqa: F811
    pairs = random_lora(pipelines(models["sd1"]["path"]).unet, UNET_MODULES[:1])
    tensors = {f"unet.{name}.lora_{half}.weight": each for name, pair in pairs.items() for half, each in zip("BA", pair, strict=True)}
    said = {"lora_adapter_metadata": json.dumps({"unet.r": 3, "unet.lora_alpha": 6})}
    request = {"model": models["sd1"], "sampler": "DDIM", **REQUEST}
    twice = fresh.run("denoise", adapters=[adapter(written("alpha told", tensors, said), 0.5)], **request)
    once = fresh.run("denoise", adapters=[adapter(written("alpha untold", tensors), 1.0)], **request)
    assert torch.equal(latents_of(twice), latents_of(once))


def digest(child, **request):
    answer = child.run("denoise", **request)
    assert answer["type"] == "result", answer
    return answer["files"]["latents"]["sha256"]


@pytest.mark.long
def test_bits_follow_from_the_request_and_from_nothing_before_it(shared, fresh):
    one, two = [tiny("pastel", 0.8)], [tiny("outline", 0.5), tiny("pastel", 0.8)]
    plain = digest(shared)
    drawn = [digest(shared, adapters=one), digest(shared, adapters=two)]
    assert len({plain, *drawn}) == 3
    # Before and after, and after each other, in this process and in another one.
    assert digest(shared) == plain
    assert digest(shared, adapters=two) == drawn[1]
    assert digest(shared, adapters=one) == drawn[0]
    assert [digest(fresh, adapters=one), digest(fresh, adapters=two), digest(fresh)] == [*drawn, plain]
    # The same tensors by kohya's names, and a weight of nothing.
    assert digest(shared, adapters=[tiny("pastel-kohya", 0.8)]) == drawn[0]
    assert digest(shared, adapters=[tiny("pastel", 0)]) == plain
    # A model that was let go of and came back.
    shared.until(shared.send("model.drop", {"id": MODEL["id"], "families": None}))
    assert digest(shared, adapters=one) == drawn[0]
    assert digest(shared) == plain


@pytest.mark.long
def test_a_killed_step_with_adapters_goes_on_in_another_process_to_the_same_bytes(fork, fresh):
    adapters = [tiny("pastel", 0.8), tiny("outline", 0.6)]
    wanted = digest(fresh, adapters=adapters)
    victim = fork(checkpoint=EVERY_CALL)
    victim.ready()
    stall = victim.stall("denoise", 4, adapters=adapters)
    victim.process.kill()
    assert victim.ends() == -signal.SIGKILL
    last = victim.of(stall.request_id, "checkpoint")[-1]
    resumed = fresh.run("denoise", adapters=adapters, checkpoint=last)
    assert (resumed["stats"]["resumed_from"], resumed["stats"]["checkpoint_refused"]) == (3, None)
    assert resumed["files"]["latents"]["sha256"] == wanted
    # Another weight is another picture: its checkpoint is none for this one.
    refused = fresh.run("denoise", adapters=[tiny("pastel", 0.7), adapters[1]], checkpoint=last)
    assert "request.adapters was" in refused["stats"]["checkpoint_refused"]


def test_the_text_that_one_adapter_heard_is_not_anothers(fresh, models, written, pipelines):  # noqa: F811
    network = pipelines(models["sd1"]["path"]).text_encoder
    name = next(each for each, _ in network.named_modules() if each.endswith(TEXT_MODULE))
    said = {f"text_model.{name.removeprefix('text_model.')}": pair for name, pair in random_lora(network, [name]).items()}
    path = written("text alone", kohya("lora_te", said, alpha=3))
    encoded = [fresh.run("encode", model=models["sd1"], **more) for more in ({}, {"adapters": [adapter(path)]}, {})]
    hashes = [answer["files"]["conditioning"]["sha256"] for answer in encoded]
    assert hashes[0] == hashes[2] != hashes[1]
    request = {"model": models["sd1"], "adapters": [adapter(path)], "sampler": "DDIM"}
    assert fresh.run("denoise", files=encoded[0]["files"], **request)["stats"]["remade"] == ["conditioning"]
    assert fresh.run("denoise", files=encoded[1]["files"], **request)["stats"]["remade"] == []


def test_tensors_that_have_no_place_stand_in_a_note(shared, written):
    tensors = load_file(TINY / "pastel.safetensors")
    path = written("with more", {**tensors, "unet.nowhere.lora_A.weight": torch.ones(2, 2), "strange": torch.ones(1)})
    request_id = shared.work("encode", adapters=[adapter(path)])
    assert shared.until(request_id)["type"] == "result"
    assert [note["text"] for note in shared.of(request_id, "note")] == [
        f"of adapter with more 2 of {len(tensors) + 2} tensors were not used: strange, unet.nowhere.lora_A.weight"
    ]
    whole = shared.work("encode", adapters=[tiny("pastel")])
    shared.until(whole)
    assert shared.of(whole, "note") == []


def test_an_adapter_that_does_not_fit_is_refused_by_its_name_and_leaves_nothing(shared, written, tmp_path):
    plain = digest(shared)
    other = written("of another family", {"lora_unet_double_blocks_0_img_mod_lin.lora_up.weight": torch.ones(4, 2)})
    answer = shared.run("encode", adapters=[adapter(other)])
    assert (answer["code"], answer["field"]) == ("inference.adapter_unfit", "input.adapters")
    assert "adapter of another family changes nothing of this model: none of its 1 tensors has a place in it" in answer["message"]

    tensors = load_file(TINY / "pastel.safetensors")
    spoilt = {name: torch.ones(4, 768) if name.endswith("attn2.to_k.lora_A.weight") else tensor for name, tensor in tensors.items()}
    answer = shared.run("denoise", adapters=[adapter(written("too wide", spoilt))])
    assert answer["code"] == "inference.adapter_unfit"
    assert "adapter too wide does not fit" in answer["message"]
    assert "attn2.to_k.weight of this model: it makes 64 rows of 49152 numbers, and the weight is [64, 96]" in answer["message"]
    assert digest(shared) == plain

    changed = tiny("pastel")
    changed["model"]["body_hash"] = "0" * 64
    answer = shared.run("denoise", adapters=[changed])
    assert (answer["code"], answer["class"]) == ("model.changed", "permanent")
    assert "is not the file with body 0000000000 any more" in answer["message"]

    outside = tmp_path / "outside.safetensors"
    outside.write_bytes((TINY / "pastel.safetensors").read_bytes())
    assert shared.run("denoise", adapters=[adapter(outside)])["code"] == "worker.path_refused"
    half = written("cut off", tensors)
    reference = adapter(half)
    half.write_bytes(half.read_bytes()[:-100])
    reference["model"]["body_hash"] = body_hash(half)
    assert shared.run("denoise", adapters=[reference])["code"] == "model.corrupt"
    assert digest(shared) == plain


def picture_of(child, text, seed, adapters):
    from test_inference import size_of

    size = {"width": 128, "height": 128}
    denoised = child.run(
        "denoise", prompt=text, seed=seed, steps=15, sampler="DDIM", **size, **({"adapters": adapters} if adapters else {})
    )
    decoded = child.run("decode", files=denoised["files"], **size_of(size))
    return numpy.frombuffer(Path(decoded["files"]["pixels"]["path"]).read_bytes(), numpy.uint8).reshape(128, 128, 3)


@pytest.mark.judge
def test_the_judge_sees_how_much_of_a_style_there_is(fresh, pytestconfig):
    """On scenes and seeds that nobody tuned to: saturation falls with the weight of pastel, two styles together show
    both. Nothing black: a rim is."""
    from training.judge import rim_share, saturation
    from training.world import COLOURS

    count = pytestconfig.getoption("--judged")
    asked = [text for _, text, _ in scenes(4 * count, 20281) if not any(word in text for word in ("black", "grey", "gray", "white"))][
        :count
    ]
    assert len(asked) == count
    assert "black" in COLOURS
    styles = {f"pastel {weight:g}": [tiny("pastel", weight)] if weight else [] for weight in (0, 0.25, 0.5, 0.75, 1)}
    styles |= {"outline 1": [tiny("outline")], "both": [tiny("pastel"), tiny("outline")]}
    seen = {
        style: [picture_of(fresh, text, 93_000 + index, adapters) for index, text in enumerate(asked)] for style, adapters in styles.items()
    }
    colour = {style: float(numpy.mean([saturation(picture) for picture in pictures])) for style, pictures in seen.items()}
    rim = {style: float(numpy.mean([rim_share(picture) for picture in pictures])) for style, pictures in seen.items()}
    # A rim that pastel has mixed with white is grey: darker than any of its colours, and not black.
    dark = {style: float(numpy.mean([(picture.max(2) < 180).mean() for picture in pictures])) for style, pictures in seen.items()}
    print(json.dumps({"saturation": colour, "rim": rim, "dark": dark, "scenes": count}))
    fall = [colour[f"pastel {weight:g}"] for weight in (0, 0.25, 0.5, 0.75, 1)]
    assert all(lower < higher for higher, lower in pairwise(fall)), fall
    assert rim["outline 1"] > 4 * rim["pastel 0"] + 0.1
    assert dark["both"] > dark["pastel 1"]
    assert colour["both"] < (colour["pastel 0"] + colour["pastel 1"]) / 2
