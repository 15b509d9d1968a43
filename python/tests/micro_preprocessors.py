"""Random networks of every class that preprocessors may have, as transformers saves them: `python
micro_preprocessors.py FOLDER NAME…` writes them."""

import json
import sys
from pathlib import Path

import torch
from transformers import (
    ConvNextConfig,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTConfig,
    DPTForDepthEstimation,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SwinConfig,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)

STAGES = ["stage1", "stage2", "stage3", "stage4"]
NECK = {"neck_hidden_sizes": [8, 8, 16, 16], "fusion_hidden_size": 8}
VIT = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
HEADS = {"num_labels": 150, "hidden_size": 16, "auxiliary_channels": 16, "auxiliary_in_channels": 16}
MEANS = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def dpt():
    config = DPTConfig(**VIT, **NECK, intermediate_size=64, image_size=64, patch_size=16, backbone_out_indices=[0, 1, 2, 3])
    return DPTForDepthEstimation(config), {"size": {"height": 64, "width": 64}, "resample": 3, "image_processor_type": "DPTImageProcessor"}


def dpt_hybrid():
    backbone = {"model_type": "bit", "embedding_size": 8, "hidden_sizes": [8, 8, 32], "depths": [1, 1, 1], "num_groups": 4}
    backbone |= {"layer_type": "bottleneck", "embedding_dynamic_padding": True, "global_padding": "same", "out_features": STAGES[:3]}
    config = DPTConfig(
        **VIT, **NECK, intermediate_size=64, image_size=64, patch_size=16, backbone_out_indices=[0, 1, 2, 3],
        is_hybrid=True, backbone_config=backbone, backbone_featmap_shape=[1, 32, 4, 4], neck_ignore_stages=[0, 1],
        readout_type="project",
    )  # fmt: skip
    return DPTForDepthEstimation(config), {"size": 64, "resample": 3, "image_processor_type": "DPTImageProcessor", **MEANS}


def depth_anything(**told):
    vit = Dinov2Config(**VIT, image_size=70, patch_size=14, out_indices=[1, 2, 3, 4], apply_layernorm=True, reshape_hidden_states=False)
    config = DepthAnythingConfig(backbone_config=vit, reassemble_hidden_size=32, head_hidden_size=4, **NECK, **told)
    size = {"size": {"height": 70, "width": 70}, "keep_aspect_ratio": True, "ensure_multiple_of": 14, "resample": 3}
    return DepthAnythingForDepthEstimation(config), {**size, **MEANS, "image_processor_type": "DPTImageProcessor"}


def metric():
    return depth_anything(depth_estimation_type="metric", max_depth=20)


def segformer():
    sizes = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16], "num_attention_heads": [1, 1, 2, 2], "decoder_hidden_size": 16}
    told = {"size": {"height": 64, "width": 64}, "resample": 2, "do_reduce_labels": True, "image_processor_type": "SegformerImageProcessor"}
    return SegformerForSemanticSegmentation(SegformerConfig(num_labels=150, **sizes)), {**told, **MEANS}


def upernet():
    backbone = ConvNextConfig(hidden_sizes=[4, 8, 16, 32], depths=[1, 1, 1, 1], out_features=STAGES)
    return UperNetForSemanticSegmentation(UperNetConfig(**HEADS, backbone_config=backbone)), {**segformer()[1], "size": 64}


def upernet_swin():
    backbone = SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, out_features=STAGES
    )  # fmt: skip
    config = UperNetConfig(**{**HEADS, "auxiliary_in_channels": 32}, backbone_config=backbone)
    return UperNetForSemanticSegmentation(config), {**segformer()[1], "size": 64}


MAKERS = {
    "dpt": dpt,
    "dpt-hybrid": dpt_hybrid,
    "depth-anything": depth_anything,
    "metric": metric,
    "segformer": segformer,
    "upernet": upernet,
    "upernet-swin": upernet_swin,
}


def make_preprocessor(folder, name, seed=1):
    """Writes the folder; returns it as a request names it."""
    torch.manual_seed(seed)
    network, told = MAKERS[name]()
    for parameter in network.parameters():
        # Those that networks begin with see the same everywhere.
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)
    folder = Path(folder)
    network.eval().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_resize": True, "do_rescale": True, "do_normalize": True, **told}))
    return {"id": folder.name, "path": str(folder), "body_hash": f"{seed:064x}", "family": "preprocessor"}


if __name__ == "__main__":
    for number, wanted in enumerate(sys.argv[2:]):
        make_preprocessor(Path(sys.argv[1]) / wanted, wanted, seed=number + 1)
