"""diffusers' own pipelines of the families with flow matching, to compare with: of a folder's parts, or of parts that
are there already."""

import torch


def pipeline_of(family, load):
    """The pipeline; `load(kind, part)` gives its parts."""
    return PIPELINES[family][0](load)


def words_of(family, request):
    """Guidance and negative prompt of a request as the pipeline has them."""
    return PIPELINES[family][1](request)


def load(folder, kind, part):
    """A part of a folder. Weights in memory of their own, as the child has them: in a mapped file a tensor begins
    anywhere, and kernels sum in another order by that."""
    loaded = kind.from_pretrained(f"{folder}/{part}")
    if isinstance(loaded, torch.nn.Module):
        for tensor in (*loaded.parameters(), *loaded.buffers()):
            tensor.data = tensor.data.clone()
    return loaded


def z_image(load):
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
    from transformers import Qwen2Tokenizer, Qwen3Model

    return ZImagePipeline(
        scheduler=load(FlowMatchEulerDiscreteScheduler, "scheduler"),
        vae=load(AutoencoderKL, "vae"),
        text_encoder=load(Qwen3Model, "text_encoder"),
        tokenizer=load(Qwen2Tokenizer, "tokenizer"),
        transformer=load(ZImageTransformer2DModel, "transformer"),
    )


def flux(load):
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer

    return FluxPipeline(
        scheduler=load(FlowMatchEulerDiscreteScheduler, "scheduler"),
        vae=load(AutoencoderKL, "vae"),
        text_encoder=load(CLIPTextModel, "text_encoder"),
        tokenizer=load(CLIPTokenizer, "tokenizer"),
        text_encoder_2=load(T5EncoderModel, "text_encoder_2"),
        tokenizer_2=load(T5Tokenizer, "tokenizer_2"),
        transformer=load(FluxTransformer2DModel, "transformer"),
    )


def qwen_image(load):
    from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler, QwenImagePipeline, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

    return QwenImagePipeline(
        scheduler=load(FlowMatchEulerDiscreteScheduler, "scheduler"),
        vae=load(AutoencoderKLQwenImage, "vae"),
        text_encoder=load(Qwen2_5_VLForConditionalGeneration, "text_encoder"),
        tokenizer=load(Qwen2Tokenizer, "tokenizer"),
        transformer=load(QwenImageTransformer2DModel, "transformer"),
    )


def sd3(load):
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5Tokenizer

    return StableDiffusion3Pipeline(
        scheduler=load(FlowMatchEulerDiscreteScheduler, "scheduler"),
        vae=load(AutoencoderKL, "vae"),
        text_encoder=load(CLIPTextModelWithProjection, "text_encoder"),
        tokenizer=load(CLIPTokenizer, "tokenizer"),
        text_encoder_2=load(CLIPTextModelWithProjection, "text_encoder_2"),
        tokenizer_2=load(CLIPTokenizer, "tokenizer_2"),
        text_encoder_3=load(T5EncoderModel, "text_encoder_3"),
        tokenizer_3=load(T5Tokenizer, "tokenizer_3"),
        transformer=load(SD3Transformer2DModel, "transformer"),
    )


def flux2(load):
    from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline, Flux2Transformer2DModel
    from transformers import Qwen2Tokenizer, Qwen3Model

    return Flux2KleinPipeline(
        scheduler=load(FlowMatchEulerDiscreteScheduler, "scheduler"),
        vae=load(AutoencoderKLFlux2, "vae"),
        text_encoder=load(Qwen3Model, "text_encoder"),
        tokenizer=load(Qwen2Tokenizer, "tokenizer"),
        transformer=load(Flux2Transformer2DModel, "transformer"),
    )


# Family: (its pipeline, the words of a request as the pipeline has them).
PIPELINES = {
    "z-image": (
        z_image,
        lambda request: {"negative_prompt": request["negative_prompt"], "guidance_scale": max(0.0, request["guidance"] - 1)},
    ),
    "flux1": (flux, lambda request: {"guidance_scale": request["guidance"]}),
    "qwen-image": (
        qwen_image,
        lambda request: {"negative_prompt": request["negative_prompt"], "true_cfg_scale": request["guidance"]},
    ),
    "sd3": (sd3, lambda request: {"negative_prompt": request["negative_prompt"], "guidance_scale": request["guidance"]}),
    "flux2": (flux2, lambda request: {"guidance_scale": request["guidance"]}),
}
