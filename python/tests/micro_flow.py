"""Models of random weights, made by seed in the layouts of the transformers with flow matching, and the files of their
tokenizers: one token a byte or letter."""

import json
import sys
from pathlib import Path

# Qwen's own template, as far as a single prompt meets it.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}
# As the models are published.
SCHEDULERS = {
    "z-image": {**FLOW, "shift": 3.0, "use_dynamic_shifting": False},
    "flux1": {
        **FLOW,
        **{"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15},
        **{"base_image_seq_len": 256, "max_image_seq_len": 4096},
    },
    "qwen-image": {
        **FLOW,
        **{"shift": 1.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 0.9, "shift_terminal": 0.02},
        **{"base_image_seq_len": 256, "max_image_seq_len": 8192, "time_shift_type": "exponential"},
    },
    "sd3": {**FLOW, "shift": 3.0},
    "flux2": {
        **FLOW,
        **{"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15},
        **{"base_image_seq_len": 256, "max_image_seq_len": 4096, "time_shift_type": "exponential"},
    },
}
VAE = {
    "block_out_channels": (8, 8, 16, 16),
    "latent_channels": 4,
    "norm_num_groups": 8,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
}
QWEN = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "vocab_size": 259,
}
CLIP = {
    **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"max_position_embeddings": 77, "vocab_size": 514, "bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513},
}
T5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "vocab_size": 128, "feed_forward_proj": "gated-gelu"}


def make_flow_model(folder, family, seed=1, scheduler=None, transformer=None, pipeline=None):
    """Writes a diffusers folder of that family and returns it as a request names it. `scheduler` and `transformer`
    change their configurations; `pipeline`: the class that its index names, where that is one for edits."""
    import torch

    folder = Path(folder)
    torch.manual_seed(seed)
    make, tokenizers = FAMILIES["qwen-image-edit" if family == "qwen-image" and pipeline else family]
    parts = make(transformer or {})
    for name, part in parts.items():
        with torch.no_grad():
            for tensor in part.parameters():
                # Some layers begin as zero, and would hide whatever comes before them.
                tensor.add_(torch.randn(tensor.shape) * 0.05)
        part.save_pretrained(folder / name)
    for name, write in tokenizers.items():
        write(folder / name)
    config = {**SCHEDULERS[family], **(scheduler or {})}
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    index = {"_class_name": pipeline or PIPELINES[family], "scheduler": ["diffusers", config["_class_name"]]}
    for name, part in parts.items():
        index[name] = ["transformers" if name.startswith("text") else "diffusers", type(part).__name__]
    for name in tokenizers:
        index[name] = ["transformers", json.loads((folder / name / "tokenizer_config.json").read_text())["tokenizer_class"]]
    (folder / "model_index.json").write_text(json.dumps(index))
    # Headers of so small networks tell no family.
    (folder / "manifest.json").write_text(json.dumps({"family": family, "recommended": {"width": 64, "height": 64}}))
    return {"id": folder.name, "path": str(folder), "body_hash": f"{seed:064x}", "family": family}


def z_image(changes):
    from diffusers import AutoencoderKL, ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    config = {
        **{"in_channels": 4, "dim": 32, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": 32},
        **{"axes_dims": [4, 6, 6], "axes_lens": [1024, 64, 64]},
    }
    return {
        "transformer": ZImageTransformer2DModel(**{**config, **changes}),
        "vae": AutoencoderKL(**VAE),
        "text_encoder": Qwen3Model(Qwen3Config(**QWEN)),
    }


def flux(changes):
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    config = {
        **{"in_channels": 16, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2},
        **{"joint_attention_dim": 32, "pooled_projection_dim": 32, "guidance_embeds": True, "axes_dims_rope": (4, 6, 6)},
    }
    return {
        "transformer": FluxTransformer2DModel(**{**config, **changes}),
        "vae": AutoencoderKL(**VAE),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**CLIP)),
        "text_encoder_2": T5EncoderModel(T5Config(**T5)),
    }


def qwen_image(changes, **more):
    from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    config = {
        **{"in_channels": 16, "out_channels": 4, "num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2},
        **{"joint_attention_dim": 32, "axes_dims_rope": (4, 6, 6)},
    }
    words = {name: value for name, value in QWEN.items() if name != "head_dim"}
    eyes = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    return {
        "transformer": QwenImageTransformer2DModel(**{**config, **changes}),
        "vae": AutoencoderKLQwenImage(
            base_dim=8, z_dim=4, num_res_blocks=1, latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.5, 2.0, 0.7, 1.1]
        ),
        "text_encoder": Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(text_config={**words, "rope_parameters": rope, **more}, vision_config=eyes, **more)
        ),
    }


def qwen_image_edit(changes):
    """Its text encoder knows the marks of a picture."""
    return qwen_image(changes, vocab_size=262, vision_start_token_id=259, vision_end_token_id=260, image_token_id=261)


def sd3(changes):
    from diffusers import AutoencoderKL, SD3Transformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

    config = {
        **{"sample_size": 16, "in_channels": 4, "out_channels": 4, "num_layers": 2, "attention_head_dim": 16},
        **{"num_attention_heads": 2, "joint_attention_dim": 80, "caption_projection_dim": 32, "pooled_projection_dim": 40},
        **{"pos_embed_max_size": 12, "qk_norm": "rms_norm", "dual_attention_layers": (0,)},
    }
    clips = [CLIPTextModelWithProjection(CLIPTextConfig(**CLIP, projection_dim=width)) for width in (16, 24)]
    return {
        "transformer": SD3Transformer2DModel(**{**config, **changes}),
        "vae": AutoencoderKL(**VAE),
        "text_encoder": clips[0],
        "text_encoder_2": clips[1],
        "text_encoder_3": T5EncoderModel(T5Config(**{**T5, "d_model": 80})),
    }


def flux2(changes):
    from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    config = {
        **{"in_channels": 16, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2},
        **{"joint_attention_dim": 48, "timestep_guidance_channels": 32, "axes_dims_rope": (4, 4, 4, 4), "guidance_embeds": False},
    }
    vae = {name: value for name, value in VAE.items() if name not in ("scaling_factor", "shift_factor")}
    words = {**QWEN, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 28, "head_dim": 8}
    parts = {
        "transformer": Flux2Transformer2DModel(**{**config, **changes}),
        "vae": AutoencoderKLFlux2(**vae),
        "text_encoder": Qwen3Model(Qwen3Config(**words)),
    }
    norm = parts["vae"].bn
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    return parts


def make_flow_control(folder, family, seed=1, **changes):
    """A ControlNet that steers models of that family, as a request names it; `changes` are of its configuration."""
    import torch
    from diffusers import FluxControlNetModel, QwenImageControlNetModel, SD3ControlNetModel, ZImageControlNetModel

    torch.manual_seed(seed)
    heads = {"attention_head_dim": 16, "num_attention_heads": 2}
    texts = {"joint_attention_dim": 32, "axes_dims_rope": (4, 6, 6)}
    kind, config = {
        "flux1": (
            FluxControlNetModel,
            {"in_channels": 16, "num_layers": 1, "num_single_layers": 1, "pooled_projection_dim": 32, "guidance_embeds": True, **texts},
        ),
        "sd3": (
            SD3ControlNetModel,
            {
                **{"sample_size": 16, "in_channels": 4, "out_channels": 4, "num_layers": 1, "joint_attention_dim": 80},
                **{"caption_projection_dim": 32, "pooled_projection_dim": 40, "pos_embed_max_size": 12, "qk_norm": "rms_norm"},
            },
        ),
        "qwen-image": (QwenImageControlNetModel, {"in_channels": 16, "out_channels": 4, "num_layers": 1, **texts}),
        "z-image": (ZImageControlNetModel, {"control_in_dim": 4, "dim": 32, "n_refiner_layers": 1, "control_layers_places": [0]}),
    }[family]
    # This one counts heads by other names.
    heads = {"n_heads": 2, "n_kv_heads": 2} if family == "z-image" else heads
    network = kind(**{**heads, **config, **changes})
    with torch.no_grad():
        for tensor in network.parameters():
            # Much of it begins as zeros, so that an untrained one changes nothing.
            tensor.add_(torch.randn(tensor.shape) * 0.05)
    network.save_pretrained(folder)
    return {"id": Path(folder).name, "path": str(folder), "body_hash": f"{seed + 8192:064x}", "family": "controlnet"}


def clip_tokenizer(folder):
    from micro import write_tokenizer

    write_tokenizer(folder, 77)


def seeing_tokenizer(folder):
    """As `qwen_tokenizer`, with the marks of a picture."""
    qwen_tokenizer(folder, ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>"))


def qwen_tokenizer(folder, more=()):
    """Bytes and three marks, with a chat template; then `more` marks."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *more]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({word: index for index, word in enumerate([*letters, *marks])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(marks)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "Qwen2Tokenizer", "pad_token": marks[0], "eos_token": marks[2], "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 131072}))


def t5_tokenizer(folder):
    """Letters of ASCII, a space, and the end."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((chr(code), -3.0) for code in range(33, 127))]
    tokenizer = Tokenizer(models.Unigram(words, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "T5Tokenizer", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "extra_ids": 0}
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 512}))


PIPELINES = {
    **{"z-image": "ZImagePipeline", "flux1": "FluxPipeline", "qwen-image": "QwenImagePipeline"},
    **{"sd3": "StableDiffusion3Pipeline", "flux2": "Flux2KleinPipeline"},
}
# Family: (its networks, its tokenizers by part).
FAMILIES = {
    "z-image": (z_image, {"tokenizer": qwen_tokenizer}),
    "flux1": (flux, {"tokenizer": clip_tokenizer, "tokenizer_2": t5_tokenizer}),
    "qwen-image": (qwen_image, {"tokenizer": qwen_tokenizer}),
    "qwen-image-edit": (qwen_image_edit, {"tokenizer": seeing_tokenizer}),
    "sd3": (sd3, {"tokenizer": clip_tokenizer, "tokenizer_2": clip_tokenizer, "tokenizer_3": t5_tokenizer}),
    "flux2": (flux2, {"tokenizer": qwen_tokenizer}),
}


if __name__ == "__main__":
    make_flow_model(sys.argv[2], sys.argv[1])
