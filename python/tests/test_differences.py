"""What the tensors of an adapter make of a weight: as peft's own layers have it, and as the papers do."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from micro import UNET

from darkroom import differences
from darkroom.adapter_keys import DENOISER, key_of, modules_of
from darkroom.patch import Patch, Patched

LINEAR, CONVOLUTION = {"linear": True}, {"linear": False}


def layer(linear):
    torch.manual_seed(3)
    return torch.nn.Linear(12, 18) if linear else torch.nn.Conv2d(12, 18, 3)


def configs():
    from peft import LoHaConfig, LoKrConfig, LoraConfig

    sizes = {"r": 4, "target_modules": ["0"]}
    return {
        "lora": LoraConfig(lora_alpha=4, **sizes),
        "dora": LoraConfig(lora_alpha=4, use_dora=True, **sizes),
        "loha": LoHaConfig(alpha=4, **sizes),
        "loha tucker": LoHaConfig(alpha=4, use_effective_conv2d=True, **sizes),
        "lokr": LoKrConfig(alpha=4, **sizes),
        "lokr both": LoKrConfig(alpha=4, decompose_both=True, decompose_factor=3, **sizes),
        "lokr tucker": LoKrConfig(alpha=4, use_effective_conv2d=True, decompose_factor=3, **sizes),
    }


def merged(total, base, held, weight):
    differences.add(total, base, held, weight)
    return total


@pytest.mark.parametrize("linear", [True, False], ids=["linear", "convolution"])
@pytest.mark.parametrize("name", ["lora", "dora", "loha", "loha tucker", "lokr", "lokr both", "lokr tucker"])
def test_a_difference_is_the_one_that_pefts_layer_merges(name, linear):
    from peft import get_peft_model, get_peft_model_state_dict

    network = torch.nn.Sequential(layer(linear))
    base = network[0].weight.detach().clone()
    adapted = get_peft_model(network, configs()[name])
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter_name, parameter in adapted.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn_like(parameter) * 0.6 + (1.0 if "magnitude" in parameter_name else 0.0))
        saved = {key: tensor.clone() for key, tensor in get_peft_model_state_dict(adapted).items()}
        held = {key_of(key).word: tensor for key, tensor in saved.items()}
        assert differences.is_whole(held)
        assert {key_of(key).module for key in saved} == {"0"}
        wanted = adapted.merge_and_unload()[0].weight.detach()
    made = merged(base.clone(), base, held, 1.0)
    assert float((wanted - base).abs().max()) > 0.1
    assert torch.allclose(made, wanted, atol=1e-4)
    # Half of it is half the way, for those that turn a direction too.
    half = merged(base.clone(), base, held, 0.5)
    assert torch.allclose(half, base + (wanted - base) / 2, atol=1e-4)


def test_alpha_is_a_share_of_the_rank_and_without_one_all_of_it():
    base = torch.zeros(6, 5)
    held = {"up": torch.randn(6, 2), "down": torch.randn(2, 5)}
    whole = held["up"] @ held["down"]
    for alpha, factor, share in ((None, None, 1.0), (1.0, None, 0.5), (4.0, None, 2.0), (0.0, None, 1.0), (None, 0.25, 0.25)):
        given = held if alpha is None else {**held, "alpha": torch.tensor(alpha)}
        made = torch.zeros(6, 5)
        differences.add(made, base, given, 0.8, factor)
        assert torch.allclose(made, 0.8 * share * whole, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1)], ids=["columns", "rows"])
def test_magnitudes_of_a_square_weight_are_of_the_side_that_their_shape_says(shape):
    torch.manual_seed(6)
    base, up, down = torch.randn(5, 5), torch.randn(5, 2), torch.randn(2, 5)
    scale = torch.rand(shape) + 0.5
    made = merged(base.clone(), base, {"up": up, "down": down, "magnitude": scale}, 1.0)
    norms = made.norm(dim=1 if shape[1] == 1 else 0)
    assert torch.allclose(norms, scale.flatten(), atol=1e-5)


def test_a_full_difference_and_a_tucker_core_of_a_lora_are_added():
    torch.manual_seed(7)
    base = torch.randn(6, 5, 3, 3)
    diff = torch.randn_like(base)
    assert torch.allclose(merged(base.clone(), base, {"diff": diff}, -0.5), base - 0.5 * diff)
    up, core, down = torch.randn(6, 2, 1, 1), torch.randn(2, 2, 3, 3), torch.randn(2, 5, 1, 1)
    # Three convolutions, one after the other, are one.
    made = merged(torch.zeros_like(base), base, {"up": up, "mid": core, "down": down}, 1.0)
    given = torch.randn(1, 5, 7, 7)
    wanted = torch.conv2d(torch.conv2d(torch.conv2d(given, down), core), up)
    assert torch.allclose(torch.conv2d(given, made), wanted, atol=1e-4)


def test_a_linear_layer_and_a_convolution_of_one_cell_are_one_weight():
    held = {"up": torch.randn(6, 2), "down": torch.randn(2, 5)}
    made = merged(torch.zeros(6, 5, 1, 1), torch.zeros(6, 5, 1, 1), held, 1.0)
    assert torch.allclose(made.flatten(1), held["up"] @ held["down"], atol=1e-6)


@pytest.mark.parametrize(
    "held",
    [
        {"up": torch.ones(6, 2), "down": torch.ones(2, 4)},
        {"up": torch.ones(5, 2), "down": torch.ones(2, 6)},
        {"up": torch.ones(6, 2), "down": torch.ones(3, 5)},
        {"diff": torch.ones(5, 6)},
        {"up": torch.ones(6, 2), "down": torch.ones(2, 5), "magnitude": torch.ones(7)},
    ],
)
def test_tensors_of_another_weight_are_refused_with_their_shapes(held):
    with pytest.raises(differences.Unfit, match=r"and the weight is \[6, 5\]"):
        merged(torch.zeros(6, 5), torch.zeros(6, 5), held, 1.0)


# --- names ---

QUERY = "down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_q"
DOTTED = "down_blocks.1.attentions.0.transformer_blocks.0.attn2"
LAYER = "text_model_encoder_layers_3_self_attn_q_proj"


@pytest.mark.parametrize(
    ("name", "part", "module", "word"),
    [
        (f"lora_unet_{QUERY}.lora_down.weight", DENOISER, QUERY, "down"),
        (f"lora_unet_{QUERY}.alpha", DENOISER, QUERY, "alpha"),
        (f"lycoris_{QUERY}.hada_w1_a", DENOISER, QUERY, "hada_w1_a"),
        (f"lora_unet_{QUERY}.lokr_w2_b", DENOISER, QUERY, "lokr_w2_b"),
        (f"lora_unet_{QUERY}.dora_scale", DENOISER, QUERY, "magnitude"),
        (f"lora_unet_{QUERY}.diff_b", DENOISER, QUERY, "diff_b"),
        (f"unet.{DOTTED}.to_q.lora_A.weight", DENOISER, QUERY, "down"),
        (f"unet.{DOTTED}.to_q.lora_magnitude_vector.weight", DENOISER, QUERY, "row_magnitude"),
        (f"unet.{DOTTED}.processor.to_q_lora.up.weight", DENOISER, QUERY, "up"),
        (f"unet.{DOTTED}.to_q.lora.down.weight", DENOISER, QUERY, "down"),
        (f"base_model.model.{DOTTED}.to_q.lora_B.default_0.weight", DENOISER, QUERY, "up"),
        (f"base_model.model.unet.{DOTTED}.to_q.lora_B.bias", DENOISER, QUERY, "up_bias"),
        (f"{DOTTED}.to_q.lora_A.default.weight", DENOISER, QUERY, "down"),
        ("diffusion_model.input_blocks.4.1.proj_in.lora_A.weight", DENOISER, "input_blocks_4_1_proj_in", "down"),
        ("transformer.single_transformer_blocks.3.attn.to_q.lora_A.weight", DENOISER, "single_transformer_blocks_3_attn_to_q", "down"),
        (f"lora_te_{LAYER}.lora_up.weight", "text_encoder", LAYER, "up"),
        (f"lora_te1_{LAYER}.lora_up.weight", "text_encoder", LAYER, "up"),
        (f"lora_te2_{LAYER}.alpha", "text_encoder_2", LAYER, "alpha"),
        ("text_encoder.text_model.encoder.layers.3.self_attn.q_proj.lora_linear_layer.up.weight", "text_encoder", LAYER, "up"),
        ("text_encoder_2.text_model.encoder.layers.3.self_attn.q_proj.lora_B.weight", "text_encoder_2", LAYER, "up"),
        ("base_model.model.text_model.encoder.layers.3.self_attn.q_proj.lora_A.weight", "text_encoder", LAYER, "down"),
        ("text_encoders.clip_l.transformer.text_model.encoder.layers.3.self_attn.q_proj.lora_A.weight", "text_encoder", LAYER, "down"),
    ],
)
def test_the_dialects_name_one_tensor(name, part, module, word):
    key = key_of(name)
    assert (key.part, key.module, key.word) == (part, module, word)


@pytest.mark.parametrize(
    "name", [f"unet.{DOTTED}.to_q.weight", "emb_params", "bundle_emb.x.string_to_param.*", "lora_unet_x.oft_blocks", f"{DOTTED}.to_q.bias"]
)
def test_what_is_no_part_of_an_adapter_is_told_apart(name):
    assert key_of(name) is None


@pytest.fixture(scope="module")
def sizes():
    """The networks of SD1.5 and SDXL, without weights."""
    torch.set_default_device("meta")
    sdxl = {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    }
    try:
        return {"sd1": UNet2DConditionModel(cross_attention_dim=768), "sdxl": UNet2DConditionModel(**sdxl)}
    finally:
        torch.set_default_device("cpu")


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_ldm_names_are_those_of_the_library_that_converts_checkpoints(sizes, family):
    """Every weight of the network, through diffusers' own conversion of a whole checkpoint."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    network = sizes[family]
    ours = modules_of(DENOISER, [name for name, _ in network.named_modules() if name], network.config)
    originals = {
        flat: module for flat, module in ours.items() if flat.startswith(("input_", "middle_", "output_", "time_embed_", "label_", "out_"))
    }
    dots = {}
    for flat, module in originals.items():
        weight = network.get_submodule(module)
        if getattr(weight, "weight", None) is not None:
            dots[flat] = module
    checkpoint = {f"model.diffusion_model.{dotted(flat)}.{leaf}": module for flat, module in dots.items() for leaf in ("weight", "bias")}
    theirs = convert_ldm_unet_checkpoint(checkpoint, dict(network.config))
    # What goes in under LDM's name comes out under the name that we have for the module.
    assert theirs == {f"{module}.{leaf}": module for module in dots.values() for leaf in ("weight", "bias")}
    leaves = [name for name, module in network.named_modules() if getattr(module, "weight", None) is not None]
    assert sorted(dots.values()) == sorted(leaves)


def dotted(flat):
    """`_` of kohya's names back to LDM's dots: those inside a word are in these."""
    words = ("input_blocks", "middle_block", "output_blocks", "time_embed", "label_emb", "in_layers", "emb_layers", "out_layers")
    words += ("skip_connection", "transformer_blocks", "proj_in", "proj_out", "to_q", "to_k", "to_v", "to_out")
    for word in words:
        flat = flat.replace(word, word.replace("_", "-"))
    return flat.replace("_", ".").replace("-", "_")


# --- in place, and back ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_come_back_to_the_byte_whatever_was_in_force(dtype):
    torch.manual_seed(8)
    weights = {"a": torch.randn(64, 32).to(dtype), "b": torch.randn(16).to(dtype), "c": torch.randn(8, 8).to(dtype)}
    before = {name: weight.clone() for name, weight in weights.items()}
    places = [weight.data_ptr() for weight in weights.values()]
    patched = Patched(weights, torch.device("cpu"))

    def patch(number, *names):
        return Patch((("hash", number),), {name: [lambda total, base, n=number: total.add_(base, alpha=n)] for name in names})

    first, second = patch(0.3, "a", "b"), patch(-1.7, "b", "c")
    patched.apply(first)
    changed = {name: weight.clone() for name, weight in weights.items()}
    assert not torch.equal(changed["a"], before["a"])
    assert torch.equal(changed["c"], before["c"])
    for _ in range(20):
        patched.apply(second)
        assert torch.equal(weights["a"], before["a"])
        patched.apply(first)
        assert all(torch.equal(weights[name], changed[name]) for name in weights)
    patched.apply(Patch())
    assert all(torch.equal(weights[name], before[name]) for name in weights)
    assert [weight.data_ptr() for weight in weights.values()] == places


def test_a_patch_that_fails_in_the_middle_leaves_nothing():
    weights = {"a": torch.ones(4), "b": torch.ones(4)}
    patched = Patched(weights, torch.device("cpu"))

    def fail(total, base):
        raise differences.Unfit("no")

    with pytest.raises(differences.Unfit):
        patched.apply(Patch((("hash", 1.0),), {"a": [lambda total, base: total.add_(1)], "b": [fail]}))
    assert weights["a"].tolist() == [1, 1, 1, 1]
    assert patched.key == ()


def test_the_micro_unet_has_no_two_modules_of_one_name():
    network = UNet2DConditionModel(**UNET)
    names = [name for name, _ in network.named_modules() if name]
    assert len({name.replace(".", "_") for name in names}) == len(names)
