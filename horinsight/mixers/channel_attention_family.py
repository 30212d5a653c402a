"""Attention between channels, whose scores are sums over all positions."""

from horinsight.mixers.mixer_registry import MixerFamily, is_named, register_mixer

_NORMALISED = frozenset({"timm.models.xcit.XCA", "timm.models.edgenext.CrossCovarianceAttn"})
_PLAIN = frozenset({"timm.models.davit.ChannelAttention", "timm.models.davit.ChannelAttentionV2"})

register_mixer(
    MixerFamily(
        kind="channel_attention",
        value="v, channel by channel",
        held="the attention between channels",
        recognises=lambda module: is_named(module, _NORMALISED | _PLAIN),
        order=lambda module: 2 if is_named(module, _NORMALISED) else 1,
    )
)
