"""Models of random weights, made by seed in the layout of each family's folders: they draw nothing, but always the same
nothing.

`python micro.py FAMILY FOLDER` writes one for tests in other languages.
"""

import json
import sys
from pathlib import Path

SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "epsilon",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
V_PREDICTION = {"prediction_type": "v_prediction"}
ZERO_SNR = {**V_PREDICTION, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "cross_attention_dim": 32,
    "attention_head_dim": 2,
    "norm_num_groups": 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}
VAE = {
    "block_out_channels": (8, 16, 16),
    "latent_channels": 4,
    "norm_num_groups": 8,
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
}
# Tokens that a text may have, the two special ones included.
LENGTH = 16
FIRST_ENCODER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
# As OpenCLIP's are: another activation.
SECOND_ENCODER = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "hidden_act": "gelu",
    "projection_dim": 24,
}
END, LETTER = "<|endoftext|>", "!"


def make_model(folder, seed=1, unet=None, scheduler=None, alter=lambda unet: None):
    """Stable Diffusion 1. Writes a diffusers folder and returns it as a request names it.

    `unet` and `scheduler` change their configurations; `alter` may change the weights.
    """
    folder = Path(folder)
    write_networks(folder, seed, {**UNET, **(unet or {})}, VAE, alter)
    write_encoder(folder / "text_encoder", FIRST_ENCODER)
    write_tokenizer(folder / "tokenizer")
    return finish(folder, seed, "sd1", "StableDiffusionPipeline", scheduler)


def make_sd2(folder, seed=1, unet=None, scheduler=V_PREDICTION):
    """Stable Diffusion 2, as `make_model`: another encoder, whose tokenizer fills up with a letter."""
    folder = Path(folder)
    linear = {"cross_attention_dim": 48, "attention_head_dim": (2, 4), "use_linear_projection": True}
    write_networks(folder, seed, {**UNET, **linear, **(unet or {})}, VAE)
    write_encoder(folder / "text_encoder", SECOND_ENCODER)
    write_tokenizer(folder / "tokenizer", pad=LETTER)
    return finish(folder, seed, "sd1", "StableDiffusionPipeline", scheduler)


def make_sdxl(folder, seed=1, unet=None, scheduler=None, index=None):
    """Stable Diffusion XL, as `make_model`; `index` changes what the pipeline's own configuration says."""
    folder = Path(folder)
    write_networks(folder, seed, {**UNET, **_told(32 + 48, 6), **(unet or {})}, VAE)
    write_encoder(folder / "text_encoder", FIRST_ENCODER)
    write_tokenizer(folder / "tokenizer")
    write_encoder(folder / "text_encoder_2", SECOND_ENCODER, projects=True)
    write_tokenizer(folder / "tokenizer_2", pad=LETTER)
    return finish(folder, seed, "sdxl", "StableDiffusionXLPipeline", scheduler, {"force_zeros_for_empty_prompt": True, **(index or {})})


def make_refiner(folder, seed=1, unet=None, scheduler=None):
    """The refiner of Stable Diffusion XL, as `make_model`."""
    folder = Path(folder)
    write_networks(folder, seed, {**UNET, **_told(48, 5), **(unet or {})}, VAE)
    write_encoder(folder / "text_encoder_2", SECOND_ENCODER, projects=True)
    write_tokenizer(folder / "tokenizer_2", pad=LETTER)
    index = {"requires_aesthetics_score": True, "force_zeros_for_empty_prompt": False}
    return finish(folder, seed, "sdxl-refiner", "StableDiffusionXLImg2ImgPipeline", scheduler, index)


def make_sdxl_inpainting(folder, seed=1):
    """Stable Diffusion XL for inpainting, as `make_model`."""
    return make_sdxl(folder, seed, unet={"in_channels": 9})


def make_control(folder, model, seed=1, union=False):
    """A ControlNet that steers `model`, as `make_model`; a `union` knows several tasks."""
    import torch
    from diffusers import ControlNetModel, ControlNetUnionModel, UNet2DConditionModel

    folder = Path(folder)
    torch.manual_seed(seed)
    config = dict(UNet2DConditionModel.load_config(f"{model['path']}/unet"))
    kind = ControlNetUnionModel if union else ControlNetModel
    steered = UNet2DConditionModel.from_config({**config, "in_channels": 4})
    made = kind.from_unet(steered, conditioning_embedding_out_channels=(8, 8, 16), load_weights_from_unet=False)
    sizes = {"num_trans_channel": 16, "num_trans_head": 2, "num_proj_channel": 16} if union else {}
    # As if every size had been said: those of the class's own would be its defaults again.
    said = {name: value for name, value in made.config.items() if name != "_use_default_values"}
    network = kind.from_config({**said, **sizes})
    with torch.no_grad():
        # Made of zeros, so that an untrained one changes nothing.
        for part in (network.controlnet_down_blocks, network.controlnet_mid_block, network.controlnet_cond_embedding.conv_out):
            for parameter in part.parameters():
                parameter.normal_(std=0.3)
    network.save_pretrained(folder)
    return {"id": folder.name, "path": str(folder), "body_hash": f"{seed + 4096:064x}", "family": "controlnet"}


MAKERS = {
    "sd1": make_model,
    "sd2": make_sd2,
    "sdxl": make_sdxl,
    "sdxl-inpainting": make_sdxl_inpainting,
    "sdxl-refiner": make_refiner,
}


def _told(context, figures):
    """What a UNet of SDXL has besides: texts of `context` numbers, `figures` numbers beside them."""
    return {
        "cross_attention_dim": context,
        "attention_head_dim": (2, 4),
        "transformer_layers_per_block": (1, 2),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": SECOND_ENCODER["projection_dim"] + 8 * figures,
    }


def write_networks(folder, seed, unet, vae, alter=lambda unet: None):
    """UNet and autoencoder, the beginning of every folder here: `seed` holds for all weights that follow."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    torch.manual_seed(seed)
    network = UNet2DConditionModel(**unet)
    with torch.no_grad():
        alter(network)
    network.save_pretrained(folder / "unet")
    AutoencoderKL(**vae).save_pretrained(folder / "vae")


def write_encoder(folder, config, length=LENGTH, projects=False):
    """A CLIP text encoder for the words of `write_tokenizer`."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    words = {"vocab_size": 514, "bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
    kind = CLIPTextModelWithProjection if projects else CLIPTextModel
    kind(CLIPTextConfig(**config, **words, max_position_embeddings=length)).save_pretrained(folder)


def write_tokenizer(folder, length=LENGTH, pad=END):
    """One token a byte, inside a word and at its end; no merges. `pad` fills a text up to `length`."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", END]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    config = {"model_max_length": length, "tokenizer_class": "CLIPTokenizer", **({} if pad == END else {"pad_token": pad})}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def finish(folder, seed, family, pipeline, scheduler=None, index=None):
    """Scheduler and index of a folder with all its networks; returns it as a request names it."""
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({**SCHEDULER, **(scheduler or {})}))
    kinds = {
        "unet": ("diffusers", "UNet2DConditionModel"),
        "vae": ("diffusers", "AutoencoderKL"),
        "scheduler": ("diffusers", "DDIMScheduler"),
        "text_encoder": ("transformers", "CLIPTextModel"),
        "tokenizer": ("transformers", "CLIPTokenizer"),
        "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
        "tokenizer_2": ("transformers", "CLIPTokenizer"),
    }
    parts = {name: kind for name, kind in kinds.items() if (folder / name).is_dir()}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline, **(index or {}), **parts}))
    return {"id": folder.name, "path": str(folder), "body_hash": f"{seed:064x}", "family": family}


if __name__ == "__main__":
    MAKERS[sys.argv[1]](sys.argv[2])
