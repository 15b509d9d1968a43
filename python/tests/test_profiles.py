"""Memory profiles: where networks are moves no bit, tiles do and are told, and what does not fit is refused by name."""

import signal

import pytest
import torch
from conftest import EVERY_CALL, PYTHON
from micro_flow import SCHEDULERS

from darkroom import schema
from darkroom.families import blocks, tiles
from darkroom.profiles import PROFILES

CONFIGS = PYTHON / "darkroom" / "configs"
FAMILIES = ["sd1", "sdxl", *SCHEDULERS]
FIELDS = {"steps": 2, "width": 64, "height": 48, "sampler": "Euler", "negative_prompt": ""}
# Of the micro models of Stable Diffusion a cell is 4 pixels wide: 128 × 96 cells, in 3 × 2 pieces of 64.
LARGE = {"steps": 1, "width": 512, "height": 384}


def drawn(child, model, profile=None, **changes):
    """(digests of conditioning, latents and pixels; stats of denoise and decode)."""
    asked = {**FIELDS, **changes, "model": model, **({"memory_profile": profile} if profile else {})}
    encoded = child.run("encode", **asked)
    denoised = child.run("denoise", files=encoded["files"], **asked)
    decoded = child.run("decode", files=denoised["files"], **asked)
    answers = (encoded, denoised, decoded)
    assert [answer["type"] for answer in answers] == ["result"] * 3, answers
    digests = [file["sha256"] for answer in answers for file in answer["files"].values()]
    return digests, denoised["stats"], decoded["stats"]


def resident(child, model):
    return [part["name"] for each in child.vitals()["models"] if each["id"] == model["id"] for part in each["parts"]]


@pytest.mark.parametrize("family", FAMILIES)
def test_where_the_networks_are_moves_no_bit(fresh, of_family, family):
    model = of_family(family)
    whole, stats, _ = drawn(fresh, model)
    assert stats["memory"] == {"profile": "auto", "offload": "none"}
    assert len(resident(fresh, model)) > 1
    one, stats, decoded = drawn(fresh, model, "balanced")
    assert stats["memory"] == decoded["memory"] == {"profile": "balanced", "offload": "component"}
    assert resident(fresh, model) == ["vae"]
    in_blocks, stats, decoded = drawn(fresh, model, "lowest-memory")
    assert stats["memory"] == {"profile": "lowest-memory", "offload": "blocks"}
    assert decoded["tiles"] == 0, "a picture no larger than a tile is whole"
    again, stats, _ = drawn(fresh, model, "highest-speed")
    assert stats["memory"] == {"profile": "highest-speed", "offload": "none"}
    assert len(resident(fresh, model)) > 1
    assert one == in_blocks == again == whole


@pytest.mark.parametrize("family", ["sdxl", "z-image"])
@pytest.mark.parametrize(("before", "after"), [("highest-speed", "lowest-memory"), ("lowest-memory", "highest-speed")])
def test_a_killed_picture_goes_on_where_its_networks_are_elsewhere(fork, fresh, micro_folder, of_family, device, family, before, after):
    """On a GPU a network that stays is replayed as a graph, and one that comes in blocks computes eagerly."""
    request = {**FIELDS, "model": of_family(family), "width": 128, "height": 128, "steps": 8}
    whole = fresh.run("denoise", memory_profile=before, **request)
    victim = fork(models=[micro_folder], checkpoint=EVERY_CALL)
    victim.ready()
    for _ in range(2):
        victim.run("denoise", memory_profile=before, **request)
    stall = victim.stall("denoise", 5, memory_profile=before, **request)
    victim.process.kill()
    assert victim.ends() == -signal.SIGKILL
    last = victim.of(stall.request_id, "checkpoint")[-1]
    resumed = fresh.run("denoise", checkpoint=last, memory_profile=after, **request)
    assert (resumed["stats"]["resumed_from"], resumed["stats"]["checkpoint_refused"]) == (4, None)
    assert resumed["stats"]["memory"]["profile"] == after
    assert resumed["files"]["latents"]["sha256"] == whole["files"]["latents"]["sha256"]
    if device.startswith("cuda") and family == "sdxl":
        replayed = {answer["stats"]["memory"]["profile"]: answer["stats"]["graph_replays"] > 0 for answer in (whole, resumed)}
        assert replayed == {"highest-speed": True, "lowest-memory": False}


def test_a_large_picture_of_the_lowest_memory_is_decoded_in_tiles_and_says_so(fresh, micro):
    whole, _, decoded = drawn(fresh, micro, **LARGE)
    assert decoded["tiles"] == 0
    tiled, _, decoded = drawn(fresh, micro, "lowest-memory", **LARGE)
    assert decoded["tiles"] == 6
    assert tiled[:2] == whole[:2], "latents are the same"
    assert tiled[2] != whole[2]
    assert drawn(fresh, micro, "lowest-memory", **LARGE)[0] == tiled


def test_a_model_that_must_stay_and_does_not_fit_is_refused_by_name(fork, micro_folder, micro):
    child = fork(models=[micro_folder], model_bytes=100_000)
    child.ready()
    refused = child.run("denoise", model=micro, memory_profile="highest-speed", **FIELDS)
    assert (refused["type"], refused["code"], refused["field"]) == ("error", "memory.exhausted", "input.memoryProfile"), refused
    assert "unet of micro takes" in refused["message"]
    assert child.models() == []
    drawn, _, _ = [child.run("denoise", model=micro, **{**FIELDS, **more}) for more in ({}, {"memory_profile": "balanced"}, {})]
    assert drawn["stats"]["memory"]["offload"] == "component"
    [note] = {note["text"] for note in (frame["data"] for frame in child.frames) if note.get("type") == "note"}
    assert note.startswith("memory: offloaded micro")


def test_profiles_and_packings_are_those_that_the_node_knows():
    from darkroom.ggml_blocks import PACKINGS

    said = schema.DOCUMENT["requests"]["inference.decode"]["properties"]["input"]["properties"]["memory_profile"]["enum"]
    assert said == list(PROFILES)
    assert sorted(schema.DOCUMENT["gguf_types"]) == sorted(PACKINGS)


@pytest.mark.parametrize(("rows", "columns", "count"), [(64, 64, 0), (65, 64, 2), (128, 96, 6), (200, 130, 12)])
def test_tiles_have_one_shape_and_join_without_a_seam(rows, columns, count):
    """What computes each cell by itself must come out as if it were whole, whatever the weights of the pieces are."""
    given = torch.randn(1, 4, rows, columns, generator=torch.Generator().manual_seed(1))
    shapes = set()

    def twice_as_large(piece):
        shapes.add(tuple(piece.shape[-2:]))
        return piece[:, :3].repeat_interleave(2, -1).repeat_interleave(2, -2)

    with tiles.tiling(True, lambda: None) as tiling:
        made = tiles.now().run(twice_as_large, given, 1)
    assert (tiling.count, len(shapes)) == (count, 1)
    assert torch.allclose(made, twice_as_large(given), atol=1e-5)
    # The other way, from pixels to cells.
    with tiles.tiling(True, lambda: None):
        back = tiles.now().run(lambda piece: piece[..., ::2, ::2], made, 2)
    assert torch.allclose(back, given[:, :3], atol=1e-5)


def sdxl_unet():
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(CONFIGS / "stable-diffusion-xl" / "unet"))


def flux_transformer():
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(guidance_embeds=True)


def t5():
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu"))


@pytest.mark.parametrize(("make", "share"), [(sdxl_unet, 0.9), (flux_transformer, 0.95), (t5, 0.94)])
def test_blocks_of_large_networks_are_small_and_nearly_all_of_it(make, share):
    from accelerate import init_empty_weights

    with init_empty_weights():
        network = make()
    found = blocks.modules_of(network)
    inside = {id(module) for block in found for module in block.modules()}
    assert sum(len(list(block.modules())) for block in found) == len(inside), "one lies within another"
    sizes = [sum(parameter.numel() for parameter in block.parameters()) for block in found]
    whole = sum(parameter.numel() for parameter in network.parameters())
    assert max(sizes) <= whole / 16
    assert sum(sizes) >= share * whole
