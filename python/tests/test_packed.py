"""Files whose weights are packed draw what the weights draw that they stand for, to the last bit; what cannot be
unpacked is refused by name."""

import json
import struct
from pathlib import Path

import gguf_writer
import numpy as np
import pytest
import torch
from micro_flow import make_flow_model
from test_single_files import in_one_file, refused, tensors_of

from darkroom import ggml_blocks
from darkroom.errors import DarkroomError
from darkroom.families import packed
from darkroom.weight_files import WeightFiles

CPU = torch.device("cpu")
WIDE = {"attention_head_dim": 16, "num_attention_heads": 16, "axes_dims_rope": (4, 6, 6)}


@pytest.mark.parametrize("name", gguf_writer.REFERENCE)
def test_blocks_are_what_the_reference_makes_of_them(name):
    blocks = gguf_writer.random_blocks(name, 12, np.random.default_rng(5))
    wanted = gguf_writer.stands_for(name, blocks)
    raw = torch.from_numpy(blocks.reshape(-1))
    found = ggml_blocks.unpacked(raw, name, (4, wanted.size // 4), torch.float32)
    assert found.shape == (4, wanted.size // 4)
    assert found.numpy().tobytes() == wanted.tobytes()
    assert ggml_blocks.packed_bytes(name, found.shape) == len(raw)
    halved = ggml_blocks.unpacked(raw, name, (wanted.size,), torch.bfloat16)
    assert torch.equal(halved, torch.from_numpy(wanted.reshape(-1)).bfloat16())


def latents(child, model):
    asked = {"steps": 2, "width": 64, "height": 64, "sampler": "Euler", "negative_prompt": "", "guidance": 1.0}
    answer = child.run("denoise", model=model, **asked)
    assert answer["type"] == "result", answer
    return answer["files"]["latents"]["sha256"]


OF_T5 = {
    "SelfAttention.relative_attention_bias": "attn_rel_b",
    **{f"SelfAttention.{name}": f"attn_{name}" for name in "qkvo"},
    **{"DenseReluDense.wi_0": "ffn_gate", "DenseReluDense.wi_1": "ffn_up", "DenseReluDense.wo": "ffn_down"},
    **{"layer.0.layer_norm": "attn_norm", "layer.1.layer_norm": "ffn_norm"},
}
OF_QWEN = {
    **{f"self_attn.{name}_proj": f"attn_{name}" for name in "qkv"},
    **{"self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"},
    **{f"mlp.{name}_proj": f"ffn_{name}" for name in ("gate", "up", "down")},
    **{"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"},
}


def as_llama(name):
    """A tensor of T5's encoder or of Qwen3 as llama.cpp names it."""
    if name in ("shared.weight", "embed_tokens.weight"):
        return "token_embd.weight"
    if name in ("encoder.final_layer_norm.weight", "norm.weight"):
        return "enc.output_norm.weight" if name.startswith("encoder") else "output_norm.weight"
    parts = name.split(".")
    if parts[0] == "encoder":
        rest = ".".join(parts[3:-1])
        return f"enc.blk.{parts[2]}.{OF_T5.get(rest) or OF_T5[rest.split('.', 2)[2]]}.{parts[-1]}"
    return f"blk.{parts[1]}.{OF_QWEN['.'.join(parts[2:-1])]}.{parts[-1]}"


@pytest.mark.parametrize(
    ("family", "types", "encoder", "changes"),
    [
        ("flux1", ("Q8_0", "Q4_0", "Q5_0", "Q4_1", "Q5_1", "IQ4_NL"), "text_encoder_2", {}),
        ("flux1", ("Q4_K", "Q5_K", "Q6_K", "Q3_K", "Q2_K", "IQ4_XS", "Q8_0"), None, WIDE),
        ("z-image", ("Q8_0", "Q4_1"), "text_encoder", {}),
        ("qwen-image", ("Q5_0", "Q8_0"), None, {}),
    ],
)
def test_a_gguf_draws_what_its_weights_draw(fresh, micro_folder, family, types, encoder, changes):
    """The transformer in one file, an encoder in llama.cpp's names in another; beside it the folder of what they stand
    for."""
    from safetensors.torch import save_file

    name = f"gguf {family} {types[0]}"
    model = make_flow_model(micro_folder / name, family, seed=33, transformer=changes)
    folder, generator = Path(model["path"]), np.random.default_rng(7)
    one = in_one_file(make_flow_model(micro_folder / f"{name} in files", family, seed=33, transformer=changes))
    parts = {part["name"]: part for part in one["parts"]}
    for part in ("transformer", encoder) if encoder else ("transformer",):
        [file] = (folder / part).glob("*.safetensors")
        made, meant = gguf_writer.pack(tensors_of(folder / part), types, generator)
        assert {kind for kind, _, _ in made.values()} > {types[0]}
        save_file({name: tensor.contiguous() for name, tensor in meant.items()}, file, {"format": "pt"})
        if part == encoder:
            made = {as_llama(name): packed for name, packed in made.items()}
        path = gguf_writer.write(micro_folder / f"{name} {part}.gguf", made)
        parts[part]["weights"] = {"path": str(path), "prefix": ""}
    assert latents(fresh, one) == latents(fresh, model)


def test_a_tensor_of_many_dimensions_gets_its_shape_back(tmp_path):
    content = np.arange(64, dtype=np.float32).tobytes()
    path = gguf_writer.write(tmp_path / "flat.gguf", {"a": ("F32", (64,), content)}, [("comfy.gguf.orig_shape.a", [2, 2, 1, 4, 4])])
    found = WeightFiles(CPU).read(str(path))["a"]
    assert found.shape == (2, 2, 1, 4, 4)
    assert found.flatten().tolist() == list(range(64))


def broken(tmp_path, name):
    whole = {"a.weight": ("Q8_0", (2, 32), bytes(68)), "b.weight": ("F32", (2,), bytes(8))}
    path = tmp_path / f"{name}.gguf"
    gguf_writer.write(path, whole)
    content = bytearray(path.read_bytes())
    return path, content


@pytest.mark.parametrize(
    ("name", "tensors", "words"),
    [
        ("unknown type", {"a": (99, (32,), bytes(32))}, "tensor 'a' has the unknown type 99"),
        ("tables", {"a": ("IQ2_XXS", (256,), bytes(66))}, "packed as 'IQ2_XXS', which are not unpacked"),
        ("blocks", {"a": ("Q8_0", (33,), bytes(34))}, "[33] does not divide into blocks of 32"),
        ("too large", {"a": ("F32", (1 << 40, 1 << 40), b"")}, "tensor 'a' claims more than there can be"),
        ("behind the end", {"a": ("F32", (1 << 20,), bytes(32))}, "tensor 'a' ends at"),
        ("rank", {"a": ("F32", (1,) * 9, bytes(4))}, "tensor 'a' claims 9 dimensions"),
    ],
)
def test_a_header_that_lies_is_refused_by_name(fresh, micro_folder, micro, name, tensors, words):
    path = gguf_writer.write(micro_folder / f"{name}.gguf", tensors)
    names = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
    parts = [{"name": part, "folder": f"{micro['path']}/{part}", "weights": None} for part in names]
    parts[0]["weights"] = {"path": str(path), "prefix": ""}
    refused(fresh, {**micro, "id": name, "path": str(path), "parts": parts}, "model.corrupt", words)


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (lambda content: content[:30], "it ends in its header"),
        (lambda content: content[:4] + struct.pack("<I", 9) + content[8:], "it is of version 9"),
        (lambda content: content[:8] + struct.pack("<Q", 1 << 60) + content[16:], "it claims 1152921504606846976 entries"),
        (lambda content: content[:16] + struct.pack("<Q", 1 << 60) + content[24:], "it claims 1152921504606846976 entries"),
        (lambda content: content[:24] + struct.pack("<Q", 1 << 62) + content[32:], "it claims a text of"),
        (lambda content: content.replace(b"b.weight", b"a.weight"), "two of its tensors are named 'a.weight'"),
        (lambda content: content[:-40], "tensor 'b.weight' ends at"),
    ],
)
def test_a_file_that_is_no_whole_gguf_is_refused(tmp_path, alter, words):
    path, content = broken(tmp_path, "broken")
    path.write_bytes(bytes(alter(content)))
    with pytest.raises(DarkroomError) as refusal:
        WeightFiles(CPU).names(str(path))
    assert refusal.value.code == "model.corrupt"
    assert words in refusal.value.message


LEVELS = torch.tensor(
    [-1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0, 0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.723, 1.0]
)
NESTED = torch.linspace(-1, 1, 256)


def four_bits(name, shape, generator, size=64, is_nested=False):
    """(tensors as bitsandbytes saves them, the weight that they stand for, reckoned one by one)."""
    count = shape[0] * shape[1]
    packed = torch.randint(0, 256, (-(-count // 2), 1), dtype=torch.uint8, generator=generator)
    blocks = -(-count // size)
    largest = torch.rand(blocks, generator=generator) * 0.1
    state = {"quant_type": "nf4", "blocksize": size, "dtype": "bfloat16", "shape": list(shape)}
    made = {name: packed, f"{name}.quant_map": LEVELS.clone(), f"{name}.absmax": largest}
    if is_nested:
        eights = torch.randint(0, 256, (blocks,), dtype=torch.uint8, generator=generator)
        scales = torch.rand(-(-blocks // 256), generator=generator) * 0.1
        state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.05}
        made |= {f"{name}.absmax": eights, f"{name}.nested_absmax": scales, f"{name}.nested_quant_map": NESTED.clone()}
        largest = torch.stack([NESTED[int(eight)] * scales[index // 256] + 0.05 for index, eight in enumerate(eights)])
    made[f"{name}.quant_state.bitsandbytes__nf4"] = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    flat = packed.view(-1)
    levels = [int(flat[i // 2]) >> 4 if i % 2 == 0 else int(flat[i // 2]) & 15 for i in range(count)]
    return made, torch.stack([LEVELS[level] * largest[i // size] for i, level in enumerate(levels)]).view(shape)


@pytest.mark.parametrize("is_nested", [False, True])
def test_four_bits_draw_what_their_weights_draw(fresh, micro_folder, is_nested):
    from safetensors.torch import load_file, save_file

    generator = torch.Generator().manual_seed(3)
    model = make_flow_model(micro_folder / f"nf4 {is_nested}", "flux1", seed=34)
    meant_model = make_flow_model(micro_folder / f"nf4 {is_nested} meant", "flux1", seed=34)
    one = in_one_file(model)
    tensors, folder = load_file(one["path"]), Path(meant_model["path"]) / "transformer"
    meant = tensors_of(folder)
    [file] = folder.glob("*.safetensors")
    for name in [name for name in meant if meant[name].ndim == 2 and "norm" not in name][:6]:
        del tensors[f"transformer.{name}"]
        made, meant[name] = four_bits(f"transformer.{name}", tuple(meant[name].shape), generator, is_nested=is_nested)
        tensors |= made
    save_file(tensors, one["path"])
    save_file(meant, file, {"format": "pt"})
    assert latents(fresh, one) == latents(fresh, meant_model)


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (lambda all: all.pop("w.absmax"), "KeyError: 'w.absmax'"),
        (lambda all: all.update({"w.absmax": torch.ones(2)}), "2 largest values"),
        (lambda all: all.update({"w.quant_map": torch.ones(15)}), "of 15 levels"),
        (lambda all: all.update({"w.quant_state.bitsandbytes__nf4": torch.tensor([123], dtype=torch.uint8)}), "JSONDecodeError"),
        (lambda all: all.update({"w": torch.zeros(3, 1, dtype=torch.uint8)}), "is not 3 bytes"),
    ],
)
def test_four_bits_that_cannot_be_read_are_named(alter, words):
    made, _ = four_bits("w", (8, 32), torch.Generator().manual_seed(1))
    alter(made)
    with pytest.raises(DarkroomError) as refusal:
        packed.unpacked(made, "file.safetensors")
    assert refusal.value.code == "model.corrupt"
    assert refusal.value.message.startswith("file.safetensors: the packing of w cannot be read: ")
    assert words in refusal.value.message
