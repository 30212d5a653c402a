"""Attention inside windows of the map, or inside neighbourhoods."""

from horinsight.mixers.mixer_registry import MixerFamily, is_named, register_mixer

_CLASSES = frozenset(
    {
        "timm.models.swin_transformer.WindowAttention",
        "timm.models.swin_transformer_v2.WindowAttention",
        "timm.models.swin_transformer_v2_cr.WindowMultiHeadAttention",
        "timm.models.gcvit.WindowAttentionGlobal",
        "timm.models.davit.WindowAttention",
        "timm.models.twins.LocallyGroupedAttn",
        "timm.layers.halo_attn.HaloAttn",
        "torchvision.models.maxvit.RelativePositionalMultiHeadAttention",
        "torchvision.models.swin_transformer.ShiftedWindowAttention",
        "torchvision.models.swin_transformer.ShiftedWindowAttentionV2",
    }
)

register_mixer(
    MixerFamily(kind="window_attention", recognises=lambda module: is_named(module, _CLASSES), order=lambda module: 2)
)
