"""Attention of every position to every other: softmax of scores of pairs, times values."""

from torch import nn

from horinsight.mixers.mixer_registry import MixerFamily, is_named, register_mixer

_CLASSES = frozenset(
    f"timm.{name}"
    for name in (
        "layers.attention.Attention",
        "layers.attention.AttentionRope",
        "layers.diff_attention.DiffAttention",
        "layers.attention2d.Attention2d",
        "layers.attention2d.MultiQueryAttention2d",
        "layers.attention2d.MultiQueryAttentionV2",
        "layers.attention_pool.AttentionPoolLatent",
        "layers.attention_pool2d.AttentionPool2d",
        "layers.attention_pool2d.RotAttentionPool2d",
        "layers.bottleneck_attn.BottleneckAttn",
        "layers.non_local_attn.NonLocalAttn",
        "models.vision_transformer.Attention",
        "models.vision_transformer_relpos.RelPosAttention",
        "models.vision_transformer_sam.Attention",
        "models.beit.Attention",
        "models.eva.EvaAttention",
        "models.gemma4_vit.Gemma4Attention",
        "models.cpubone.ConvAttention",
        "models.lowformer.ConvAttention",
        "models.iformer.SHMA",
        "models.cait.ClassAttn",
        "models.cait.TalkingHeadAttn",
        "models.convit.GPSA",
        "models.convit.MHSA",
        "models.crossvit.CrossAttention",
        "models.efficientformer.Attention",
        "models.efficientformer_v2.Attention2d",
        "models.efficientformer_v2.Attention2dDownsample",
        "models.efficientvit_msra.CascadedGroupAttention",
        "models.fastvit.Attention",
        "models.hiera.MaskUnitAttention",
        "models.hieradet_sam2.MultiScaleAttention",
        "models.levit.Attention",
        "models.levit.AttentionDownsample",
        "models.maxxvit.Attention2d",
        "models.maxxvit.AttentionCl",
        "models.metaformer.Attention",
        "models.mvitv2.MultiScaleAttention",
        "models.mvitv2.MultiScaleAttentionPoolFirst",
        "models.nest.Attention",
        "models.nextvit.EfficientAttention",
        "models.pvt_v2.Attention",
        "models.shvit.SHSA",
        "models.tiny_vit.Attention",
        "models.tnt.Attention",
        "models.twins.GlobalSubSampleAttn",
        "models.visformer.Attention",
        "models.volo.Attention",
        "models.volo.ClassAttention",
        "models.xcit.ClassAttention",
    )
)


def _recognised(module: nn.Module) -> bool:
    return isinstance(module, nn.MultiheadAttention) or is_named(module, _CLASSES)


def _order(module: nn.Module) -> int | None:
    """2; open where a head's features feed the next head."""
    return None if is_named(module, frozenset({"timm.models.efficientvit_msra.CascadedGroupAttention"})) else 2


register_mixer(MixerFamily(kind="attention", recognises=_recognised, order=_order))
