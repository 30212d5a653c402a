"""Vision models of `transformers`, each from a small configuration of its own classes, with random weights.

Nothing is downloaded. `transformers` is what the tests and the table of mixers use it for: foreign networks in great
number, which return dataclasses and dictionaries, and which nobody wrote with horinsight in mind. horinsight itself
does not need it.

Sizes are such that every network has at least two cells in its last map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import transformers
from torch import nn

TOKENS: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
VIT: dict[str, Any] = dict(**TOKENS, image_size=64, patch_size=16)
SWIN: dict[str, Any] = {
    "image_size": 64,
    "patch_size": 4,
    "embed_dim": 16,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "window_size": 4,
    "num_channels": 3,
}
CONVNEXT: dict[str, Any] = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "num_channels": 3}
RESNET: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
STAGES: dict[str, Any] = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 2]}
DETECTOR: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_queries": 5,
}


@dataclass(frozen=True)
class Recipe:
    """How a network is built.

    Attributes:
        model: name of its class; config: of its configuration's.
        options: of the configuration.
        backbone: name of the class of the configuration of the network inside, and its options; None for none.
        image_size: in pixels; None for what the configuration says.
    """

    model: str
    config: str
    options: dict[str, Any]
    backbone: tuple[str, dict[str, Any]] | None = None
    image_size: int | None = None

    def build(self) -> nn.Module:
        """The network, in eval mode."""
        options = dict(self.options)
        if self.backbone is not None:
            config, inside = self.backbone
            options["backbone_config"] = getattr(transformers, config)(**inside)
        model: nn.Module = getattr(transformers, self.model)(getattr(transformers, self.config)(**options))
        return model.eval()


RESNET_INSIDE = ("ResNetConfig", {**RESNET, "out_features": ["stage2", "stage3", "stage4"]})
SWIN_INSIDE = (
    "SwinConfig",
    {
        **SWIN,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 2, 2, 2],
        "image_size": 128,
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    },
)
DINO_INSIDE = (
    "Dinov2Config",
    {
        **VIT,
        "patch_size": 14,
        "image_size": 56,
        "num_hidden_layers": 4,
        "out_indices": [1, 2, 3, 4],
        "reshape_hidden_states": False,
    },
)

RECIPES: dict[str, Recipe] = {
    "aimv2": Recipe("Aimv2VisionModel", "Aimv2VisionConfig", VIT),
    "beit": Recipe("BeitForImageClassification", "BeitConfig", {**VIT, "use_relative_position_bias": True}),
    "bit": Recipe("BitForImageClassification", "BitConfig", {**RESNET, "num_groups": 4}, image_size=64),
    "clip": Recipe("CLIPVisionModel", "CLIPVisionConfig", VIT),
    "conditional_detr": Recipe("ConditionalDetrModel", "ConditionalDetrConfig", DETECTOR, RESNET_INSIDE, 96),
    "convnext": Recipe("ConvNextForImageClassification", "ConvNextConfig", CONVNEXT, image_size=64),
    "convnextv2": Recipe("ConvNextV2ForImageClassification", "ConvNextV2Config", CONVNEXT, image_size=64),
    "cvt": Recipe(
        "CvtForImageClassification",
        "CvtConfig",
        {"embed_dim": [16, 16, 32], "num_heads": [1, 2, 2], "depth": [1, 2, 3]},
        image_size=64,
    ),
    "data2vec": Recipe("Data2VecVisionModel", "Data2VecVisionConfig", {**VIT, "use_relative_position_bias": True}),
    "deformable_detr": Recipe(
        "DeformableDetrModel", "DeformableDetrConfig", {**DETECTOR, "num_feature_levels": 3}, RESNET_INSIDE, 96
    ),
    "deit": Recipe("DeiTForImageClassificationWithTeacher", "DeiTConfig", VIT),
    "depth_anything": Recipe(
        "DepthAnythingForDepthEstimation",
        "DepthAnythingConfig",
        {
            "reassemble_hidden_size": 32,
            "neck_hidden_sizes": [8, 8, 16, 16],
            "fusion_hidden_size": 8,
            "head_hidden_size": 8,
        },
        DINO_INSIDE,
        56,
    ),
    "detr": Recipe("DetrForObjectDetection", "DetrConfig", DETECTOR, RESNET_INSIDE, 96),
    "dinov2": Recipe("Dinov2ForImageClassification", "Dinov2Config", VIT),
    "dinov2_with_registers": Recipe("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", VIT),
    "dinov2_swiglu": Recipe("Dinov2Model", "Dinov2Config", {**VIT, "use_swiglu_ffn": True}),
    "dinov3_convnext": Recipe("DINOv3ConvNextModel", "DINOv3ConvNextConfig", CONVNEXT, image_size=64),
    "dinov3_vit": Recipe("DINOv3ViTModel", "DINOv3ViTConfig", {**VIT, "num_register_tokens": 4}),
    "donut_swin": Recipe("DonutSwinModel", "DonutSwinConfig", SWIN),
    "dpt": Recipe(
        "DPTForDepthEstimation",
        "DPTConfig",
        {
            **VIT,
            "num_hidden_layers": 4,
            "backbone_out_indices": [0, 1, 2, 3],
            "neck_hidden_sizes": [8, 8, 16, 16],
            "fusion_hidden_size": 8,
        },
    ),
    "efficientnet": Recipe(
        "EfficientNetForImageClassification",
        "EfficientNetConfig",
        {"width_coefficient": 0.25, "depth_coefficient": 0.5, "hidden_dim": 320},
        image_size=96,
    ),
    "eomt": Recipe(
        "EomtForUniversalSegmentation",
        "EomtConfig",
        {**VIT, "num_hidden_layers": 3, "num_blocks": 1, "num_queries": 4},
    ),
    "focalnet": Recipe(
        "FocalNetForImageClassification",
        "FocalNetConfig",
        {
            "image_size": 64,
            "embed_dim": 16,
            "hidden_sizes": [16, 32],
            "depths": [1, 2],
            "focal_levels": [2, 2],
            "focal_windows": [3, 3],
        },
    ),
    "glpn": Recipe(
        "GLPNForDepthEstimation",
        "GLPNConfig",
        {**STAGES, "sr_ratios": [4, 2, 1, 1], "decoder_hidden_size": 8},
        image_size=64,
    ),
    "hgnet_v2": Recipe(
        "HGNetV2ForImageClassification",
        "HGNetV2Config",
        {
            "stem_channels": [3, 8, 8],
            "stage_in_channels": [8, 16, 16, 16],
            "stage_mid_channels": [8, 8, 8, 8],
            "stage_out_channels": [16, 16, 16, 16],
            "stage_num_blocks": [1, 1, 1, 1],
            "stage_numb_of_layers": [2, 2, 2, 2],
            "embedding_size": 8,
            "hidden_sizes": [16, 16, 16, 16],
        },
        image_size=64,
    ),
    "hiera": Recipe(
        "HieraForImageClassification",
        "HieraConfig",
        {
            "image_size": [64, 64],
            "embed_dim": 16,
            "depths": [1, 1, 2],
            "num_heads": [1, 2, 2],
            "num_query_pool": 2,
            "masked_unit_size": [4, 4],
            "masked_unit_attention": [True, True, False],
        },
    ),
    "ijepa": Recipe("IJepaModel", "IJepaConfig", VIT),
    "levit": Recipe(
        "LevitForImageClassification",
        "LevitConfig",
        {
            "image_size": 64,
            "hidden_sizes": [16, 24, 32],
            "num_attention_heads": [2, 2, 2],
            "depths": [1, 1, 1],
            "key_dim": [8, 8, 8],
            "down_ops": [["Subsample", 8, 2, 4, 2, 2], ["Subsample", 8, 3, 4, 2, 2]],
        },
    ),
    "mask2former": Recipe(
        "Mask2FormerForUniversalSegmentation",
        "Mask2FormerConfig",
        {
            "feature_size": 32,
            "mask_feature_size": 32,
            "hidden_dim": 32,
            "encoder_feedforward_dim": 32,
            "encoder_layers": 1,
            "decoder_layers": 2,
            "num_attention_heads": 2,
            "dim_feedforward": 32,
            "num_queries": 5,
        },
        SWIN_INSIDE,
        128,
    ),
    "maskformer": Recipe(
        "MaskFormerForInstanceSegmentation",
        "MaskFormerConfig",
        {
            "fpn_feature_size": 32,
            "mask_feature_size": 32,
            "decoder_config": transformers.DetrConfig(
                d_model=32,
                decoder_layers=1,
                encoder_layers=1,
                decoder_attention_heads=2,
                encoder_attention_heads=2,
                decoder_ffn_dim=32,
                num_queries=5,
            ),
        },
        SWIN_INSIDE,
        128,
    ),
    "mobilenet_v1": Recipe(
        "MobileNetV1ForImageClassification", "MobileNetV1Config", {"depth_multiplier": 0.25, "image_size": 96}
    ),
    "mobilenet_v2": Recipe(
        "MobileNetV2ForImageClassification", "MobileNetV2Config", {"depth_multiplier": 0.25, "image_size": 96}
    ),
    "mobilevit": Recipe(
        "MobileViTForSemanticSegmentation",
        "MobileViTConfig",
        {
            "image_size": 64,
            "hidden_sizes": [16, 16, 16],
            "neck_hidden_sizes": [8, 8, 8, 8, 16, 16, 32],
            "num_attention_heads": 2,
            "aspp_out_channels": 8,
        },
    ),
    "mobilevitv2": Recipe(
        "MobileViTV2ForImageClassification",
        "MobileViTV2Config",
        {"image_size": 64, "width_multiplier": 0.25, "n_attn_blocks": [1, 1, 1]},
    ),
    "pixio": Recipe("PixioModel", "PixioConfig", VIT),
    "poolformer": Recipe(
        "PoolFormerForImageClassification",
        "PoolFormerConfig",
        {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]},
        image_size=64,
    ),
    "pp_lcnet": Recipe("PPLCNetForImageClassification", "PPLCNetConfig", {"scale": 0.25}, image_size=64),
    "pvt": Recipe(
        "PvtForImageClassification",
        "PvtConfig",
        {**STAGES, "image_size": 64, "sequence_reduction_ratios": [4, 2, 1, 1]},
    ),
    "pvt_v2": Recipe(
        "PvtV2ForImageClassification", "PvtV2Config", {**STAGES, "image_size": 64, "sr_ratios": [4, 2, 1, 1]}
    ),
    "pvt_v2_linear": Recipe(
        "PvtV2ForImageClassification",
        "PvtV2Config",
        {**STAGES, "image_size": 64, "sr_ratios": [4, 2, 1, 1], "linear_attention": True},
    ),
    "regnet": Recipe(
        "RegNetForImageClassification", "RegNetConfig", {**RESNET, "groups_width": 8, "layer_type": "y"}, image_size=64
    ),
    "resnet": Recipe("ResNetForImageClassification", "ResNetConfig", RESNET, image_size=64),
    "rt_detr_resnet": Recipe("RTDetrResNetBackbone", "RTDetrResNetConfig", RESNET, image_size=64),
    "sam": Recipe(
        "SamVisionModel",
        "SamVisionConfig",
        {**VIT, "mlp_dim": 64, "output_channels": 16, "window_size": 2, "global_attn_indexes": [1]},
    ),
    "sam2": Recipe(
        "Sam2HieraDetModel",
        "Sam2HieraDetConfig",
        {
            "image_size": [128, 128],
            "hidden_size": 16,
            "blocks_per_stage": [1, 1, 2, 1],
            "embed_dim_per_stage": [16, 32, 48, 64],
            "num_attention_heads_per_stage": [1, 2, 2, 2],
            "window_size_per_stage": [8, 4, 4, 2],
            "global_attention_blocks": [3],
        },
    ),
    "segformer": Recipe(
        "SegformerForSemanticSegmentation",
        "SegformerConfig",
        {**STAGES, "sr_ratios": [4, 2, 1, 1], "decoder_hidden_size": 16},
        image_size=64,
    ),
    "siglip": Recipe("SiglipVisionModel", "SiglipVisionConfig", VIT),
    "superpoint": Recipe(
        "SuperPointForKeypointDetection", "SuperPointConfig", {"encoder_hidden_sizes": [8, 8, 16, 16]}, image_size=64
    ),
    "swiftformer": Recipe(
        "SwiftFormerForImageClassification",
        "SwiftFormerConfig",
        {"image_size": 64, "depths": [1, 1, 1, 1], "embed_dims": [8, 16, 16, 32]},
    ),
    "swin": Recipe("SwinForImageClassification", "SwinConfig", SWIN),
    "swin2sr": Recipe(
        "Swin2SRForImageSuperResolution",
        "Swin2SRConfig",
        {"image_size": 16, "embed_dim": 16, "depths": [2], "num_heads": [2], "window_size": 4},
    ),
    "swinv2": Recipe("Swinv2ForImageClassification", "Swinv2Config", SWIN),
    "textnet": Recipe(
        "TextNetForImageClassification",
        "TextNetConfig",
        {"stem_out_channels": 8, "hidden_sizes": [8, 8, 16, 16, 16]},
        image_size=64,
    ),
    "upernet": Recipe(
        "UperNetForSemanticSegmentation",
        "UperNetConfig",
        {"hidden_size": 16, "auxiliary_channels": 8, "auxiliary_in_channels": 64, "pool_scales": [1, 2]},
        SWIN_INSIDE,
        128,
    ),
    "vit": Recipe("ViTForImageClassification", "ViTConfig", VIT),
    "vit_mae": Recipe("ViTMAEModel", "ViTMAEConfig", {**VIT, "mask_ratio": 0.0}),
    "vit_msn": Recipe("ViTMSNModel", "ViTMSNConfig", VIT),
    "vitdet": Recipe(
        "VitDetModel",
        "VitDetConfig",
        {**VIT, "window_block_indices": [0], "window_size": 2, "use_relative_position_embeddings": True},
    ),
    "vitpose": Recipe(
        "VitPoseBackbone", "VitPoseBackboneConfig", {**VIT, "image_size": [64, 48], "patch_size": [16, 16]}
    ),
    "yolos": Recipe(
        "YolosForObjectDetection", "YolosConfig", {**VIT, "image_size": [64, 96], "num_detection_tokens": 4}
    ),
    "zoedepth": Recipe(
        "ZoeDepthForDepthEstimation",
        "ZoeDepthConfig",
        {
            "neck_hidden_sizes": [8, 8, 16, 16],
            "fusion_hidden_size": 16,
            "bottleneck_features": 16,
            "bin_embedding_dim": 8,
        },
        ("BeitConfig", {**VIT, "num_hidden_layers": 4, "out_indices": [1, 2, 3, 4], "reshape_hidden_states": False}),
        64,
    ),
}


def build(name: str) -> tuple[nn.Module, tuple[int, int] | None]:
    """A network, and the images it is looked at with (None: as it says)."""
    recipe = RECIPES[name]
    return recipe.build(), None if recipe.image_size is None else (recipe.image_size, recipe.image_size)
