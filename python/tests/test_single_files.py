"""Networks from the tensors of one file: converted to the names of their class, whole or refused."""

import hashlib
import json
from pathlib import Path

import pytest
from conftest import PYTHON

CONFIGS = PYTHON / "darkroom" / "configs"
PARTS = ("unet", "vae", "text_encoder")


def tensors_of(folder):
    from safetensors.torch import load_file

    [file] = Path(folder).glob("*.safetensors")
    return load_file(file)


@pytest.fixture
def one_file(micro, micro_folder, request):
    """The random model in one file, each part under its own name: how a request names it, and its tensors to alter."""
    from safetensors.torch import save_file

    made = []

    def make(name, alter=lambda tensors: None):
        folder = Path(micro["path"])
        path = micro_folder / f"{name}.safetensors"
        tensors = {f"{part}.{key}": tensor for part in PARTS for key, tensor in tensors_of(folder / part).items()}
        alter(tensors)
        save_file(tensors, path)
        made.append(path)
        weights = {part: {"path": str(path), "prefix": f"{part}."} for part in PARTS}
        parts = [
            {"name": part, "folder": str(folder / part), "weights": weights.get(part)} for part in (*PARTS, "tokenizer", "scheduler")
        ]
        return {
            "id": name,
            "path": str(path),
            "body_hash": hashlib.sha256(name.encode()).hexdigest(),
            "family": "sd1",
            "parts": parts,
        }

    yield make
    for path in made:
        path.unlink()


def pixels(child, model):
    latents = child.run("denoise", model=model)["files"]
    return child.run("decode", model=model, files=latents)["files"]["pixels"]["sha256"]


def test_a_file_draws_what_its_folder_draws(fresh, one_file, micro):
    assert pixels(fresh, one_file("one file")) == pixels(fresh, micro)


def in_one_file(model):
    """Any model of a folder as one file beside its folders without weights, each network under the part's name."""
    from safetensors.torch import save_file

    folder, tensors, parts = Path(model["path"]), {}, []
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = list(place.glob("*.safetensors"))
        weights = {"path": f"{folder}.safetensors", "prefix": f"{place.name}."} if files else None
        for file in files:
            tensors |= {f"{place.name}.{key}": tensor for key, tensor in tensors_of(file.parent).items()}
            file.unlink()
        parts.append({"name": place.name, "folder": str(place), "weights": weights})
    parts.append({"name": "", "folder": str(folder), "weights": None})
    save_file(tensors, f"{folder}.safetensors")
    return {**model, "id": f"{model['id']} in one file", "path": f"{folder}.safetensors", "parts": parts}


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux1", "flux2", "qwen-image", "z-image"])
def test_every_family_draws_from_one_file_what_it_draws_from_its_folder(fresh, micro_folder, family):
    from micro import make_sdxl
    from micro_flow import make_flow_model

    folder = micro_folder / f"{family} to be one file"
    # An empty negative prompt that is no zeros tells whether the pipeline's own configuration was read.
    sdxl = {"index": {"force_zeros_for_empty_prompt": False}}
    model = make_sdxl(folder, seed=77, **sdxl) if family == "sdxl" else make_flow_model(folder, family, seed=78)

    def drawn(model):
        changes = {"steps": 2, "width": 64, "height": 64, "sampler": "Euler", "negative_prompt": ""}
        return fresh.run("denoise", model=model, **changes)["files"]["latents"]["sha256"]

    of_folder = drawn(model)
    assert drawn(in_one_file(model)) == of_folder


def refused(child, model, code, words):
    answer = child.until(child.send("model.ensure", {"model": model, "files": [], "weight_bytes": 0}))
    assert (answer["type"], answer.get("code"), answer.get("field")) == ("error", code, "model.path"), answer
    assert words in answer["message"], answer["message"]
    assert model["id"] not in child.models()


def test_what_is_missing_or_does_not_fit_is_named(fresh, one_file):
    refused(fresh, one_file("lacks one", lambda all: all.pop("unet.conv_in.bias")), "model.corrupt", "conv_in.bias")
    no_vae = one_file("lacks all", lambda all: [all.pop(key) for key in list(all) if key.startswith("vae.")])
    refused(fresh, no_vae, "model.corrupt", "vae.*")
    model = one_file("text", lambda all: all.pop(next(key for key in all if key.endswith("position_embedding.weight"))))
    refused(fresh, model, "model.corrupt", "position_embedding.weight")
    wrong = one_file("wrong shape", lambda all: all.update({"unet.conv_in.weight": all["unet.conv_in.weight"][:, :3].contiguous()}))
    refused(fresh, wrong, "model.corrupt", "conv_in.weight is [16, 3, 3, 3], by its configuration [16, 4, 3, 3]")


def test_parts_outside_of_the_model_folders_are_refused(fresh, one_file, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for place in ("folder", "weights"):
        model = one_file(f"outside by {place}")
        part = model["parts"][0]
        if place == "folder":
            part["folder"] = str(tmp_path)
        else:
            (tmp_path / "x.safetensors").write_bytes(Path(model["path"]).read_bytes())
            part["weights"]["path"] = str(tmp_path / "x.safetensors")
        refused(fresh, model, "worker.path_refused", str(tmp_path))
    model = one_file("no vae")
    model["parts"] = [part for part in model["parts"] if part["name"] != "vae"]
    refused(fresh, model, "model.corrupt", "has no vae/")


def test_open_clip_becomes_what_transformers_has(micro):
    """The attention of OpenCLIP has q, k and v in one matrix; its position table and projection have no `.weight`."""
    import torch
    from transformers import CLIPTextModel

    from darkroom.families import single_file

    folder = Path(micro["path"]) / "text_encoder"
    theirs = {key.removeprefix("text_model."): tensor for key, tensor in tensors_of(folder).items()}
    original = {
        "token_embedding.weight": theirs["embeddings.token_embedding.weight"],
        "positional_embedding": theirs["embeddings.position_embedding.weight"],
        "text_projection": torch.eye(32),
        "ln_final.weight": theirs["final_layer_norm.weight"],
        "ln_final.bias": theirs["final_layer_norm.bias"],
    }
    names = {
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "self_attn.out_proj": "attn.out_proj",
    }
    for layer in range(2):
        ours, its = f"transformer.resblocks.{layer}.", f"encoder.layers.{layer}."
        for kind in ("weight", "bias"):
            original[f"{ours}attn.in_proj_{kind}"] = torch.cat([theirs[f"{its}self_attn.{name}_proj.{kind}"] for name in "qkv"])
            original |= {f"{ours}{new}.{kind}": theirs[f"{its}{old}.{kind}"] for old, new in names.items()}
    found = single_file.converted(CLIPTextModel, str(folder), original)
    found = {key.removeprefix("text_model."): tensor for key, tensor in found.items()}
    assert all(torch.equal(found[key], tensor) for key, tensor in theirs.items())


def test_eight_bits_are_multiplied_by_their_scales():
    import torch

    from darkroom.families import packed

    weight = torch.tensor([[1.0, 2.0], [4.0, 8.0]]).to(torch.float8_e4m3fn)
    tensors = {
        "a.weight": weight,
        "a.scale_weight": torch.tensor(0.5),
        "b.weight": weight,
        "b.weight_scale": torch.tensor([1.0, 10.0]),
        "c.weight": weight,
        "d.weight": torch.ones(2, dtype=torch.float16),
    }
    found = packed.unpacked(tensors, "a file")
    assert found["a.weight"].tolist() == [[0.5, 1.0], [2.0, 4.0]]
    assert found["b.weight"].tolist() == [[1.0, 2.0], [40.0, 80.0]]
    assert found["c.weight"].tolist() == [[1.0, 2.0], [4.0, 8.0]]
    assert (sorted(found), found["d.weight"].dtype) == (["a.weight", "b.weight", "c.weight", "d.weight"], torch.float16)


def test_an_encoder_saved_with_its_head_is_the_one_without(micro_folder):
    """Z-Image and FLUX.2 klein publish Qwen3 as a model of language, `model.layers…` beside `lm_head`."""
    import torch
    from micro_flow import QWEN
    from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model

    from darkroom.families.parts import ModelParts
    from darkroom.weight_files import WeightFiles

    folder = micro_folder / "with a head"
    whole = Qwen3ForCausalLM(Qwen3Config(**QWEN)).eval()
    whole.save_pretrained(folder / "text_encoder")
    [file] = (folder / "text_encoder").glob("*.safetensors")
    weights = {"path": str(file), "prefix": ""}
    alone = [{"name": "text_encoder", "folder": str(folder / "text_encoder"), "weights": weights}]
    device = torch.device("cpu")
    tokens = torch.arange(5)[None]
    with torch.inference_mode():
        wanted = whole.model(tokens).last_hidden_state
        for parts in ((), alone):
            reference = {"path": str(folder), "parts": parts}
            read = ModelParts(reference, device, WeightFiles(device), lambda shell: shell.fill(), lambda: None)
            assert torch.equal(read.network(Qwen3Model, "text_encoder", torch.float32)(tokens).last_hidden_state, wanted)


# Numbers of weights as they were published, by set, part and class.
PUBLISHED = [
    ("stable-diffusion-1", "unet", "UNet2DConditionModel", 859_520_964),
    ("stable-diffusion-1", "unet_2", "UNet2DConditionModel", 859_535_364),
    ("stable-diffusion-1", "vae", "AutoencoderKL", 83_653_863),
    ("stable-diffusion-2", "unet", "UNet2DConditionModel", 865_910_724),
    ("stable-diffusion-2", "unet_2", "UNet2DConditionModel", 865_925_124),
    ("stable-diffusion-xl", "unet", "UNet2DConditionModel", 2_567_463_684),
    ("stable-diffusion-xl", "unet_2", "UNet2DConditionModel", 2_567_478_084),
    ("stable-diffusion-xl", "vae", "AutoencoderKL", 83_653_863),
    ("clip", "text_encoder", "CLIPTextModel", 123_060_480),
    ("clip", "text_encoder_2", "CLIPTextModelWithProjection", 694_659_840),
    ("clip", "text_encoder_3", "CLIPTextModel", 340_387_840),
]


@pytest.mark.parametrize(("name", "part", "kind", "count"), PUBLISHED)
def test_our_configurations_are_those_of_the_models(name, part, kind, count):
    import diffusers
    import transformers
    from accelerate import init_empty_weights

    folder = CONFIGS / name / part
    with init_empty_weights():
        if hasattr(diffusers, kind):
            network = getattr(diffusers, kind).from_config(json.loads((folder / "config.json").read_text()))
        else:
            kind = getattr(transformers, kind)
            network = kind(kind.config_class.from_pretrained(folder))
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*/scheduler*/*.json")), ids=lambda file: f"{file.parts[-3]} {file.parts[-2]}")
def test_our_schedulers_take_samplers(file):
    from darkroom.schedule import Schedule

    Schedule(str(file), 4)


RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0"}
RESNET |= {"conv2": "out_layers.3", "conv_shortcut": "skip_connection"}


def original_name(name, layers, hints):
    """A ControlNet's tensor as Stable Diffusion's first trainers name it. `layers`: of a block; `hints`: of the
    embedding of its picture."""
    part, *rest = name.split(".")
    if part == "time_embedding":
        return f"time_embed.{0 if rest[0] == 'linear_1' else 2}.{rest[1]}"
    if part == "conv_in":
        return f"input_blocks.0.0.{rest[0]}"
    if part == "controlnet_down_blocks":
        return f"zero_convs.{rest[0]}.0.{rest[1]}"
    if part == "controlnet_mid_block":
        return f"middle_block_out.0.{rest[0]}"
    if part == "controlnet_cond_embedding":
        place = {"conv_in": 0, "conv_out": 2 * hints + 2}.get(rest[0])
        return f"input_hint_block.{2 + 2 * int(rest[1]) if place is None else place}.{rest[-1]}"
    if part == "mid_block":
        kind, number, *inner = rest
        place = f"middle_block.{1 if kind == 'attentions' else 2 * int(number)}"
    else:
        block, kind, number, *inner = rest
        at = 1 + int(block) * (layers + 1)
        if kind == "downsamplers":
            return f"input_blocks.{at + layers}.0.op.{rest[-1]}"
        place = f"input_blocks.{at + int(number)}.{1 if kind == 'attentions' else 0}"
    return ".".join([place, RESNET.get(inner[0], inner[0]), *inner[1:]])


@pytest.mark.parametrize("prefix", ["control_model.", ""])
def test_a_controlnet_of_one_file_becomes_what_diffusers_has(tmp_path, prefix):
    import torch
    from diffusers import ControlNetModel
    from micro import UNET

    from darkroom.families import single_file

    gone = ("out_channels", "up_block_types")
    network = ControlNetModel(
        **{name: value for name, value in UNET.items() if name not in gone}, conditioning_embedding_out_channels=(8, 8, 8, 16)
    )
    for number, parameter in enumerate(network.parameters()):
        torch.nn.init.normal_(parameter, mean=float(number))
    network.save_config(tmp_path)
    theirs = network.state_dict()
    tensors = {prefix + original_name(name, UNET["layers_per_block"], hints=6): tensor for name, tensor in theirs.items()}
    assert len(tensors) == len(theirs)
    ours = single_file.converted(ControlNetModel, str(tmp_path), tensors)
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    assert single_file.converted(ControlNetModel, str(tmp_path), dict(theirs)).keys() == theirs.keys()


@pytest.mark.parametrize(
    ("name", "millions"),
    [("stable-diffusion-1", 361), ("stable-diffusion-2", 364), ("stable-diffusion-xl", 1251), ("z-image", 1551)],
)
def test_configurations_of_controlnets_have_the_published_sizes(name, millions):
    from accelerate import init_empty_weights
    from diffusers import ControlNetModel, ZImageControlNetModel

    kind = ZImageControlNetModel if name == "z-image" else ControlNetModel
    with init_empty_weights():
        network = kind.from_config(kind.load_config(str(CONFIGS / "controlnet" / name)))
    assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6) == millions
