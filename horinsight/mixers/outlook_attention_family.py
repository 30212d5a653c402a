"""Outlook attention: weights of a neighbourhood, computed from its centre alone."""

from horinsight.mixers.mixer_registry import MixerFamily, is_named, register_mixer

_CLASSES = frozenset({"timm.models.volo.OutlookAttention"})

register_mixer(
    MixerFamily(
        kind="outlook_attention",
        value="v, what the weights of each window multiply",
        held="the weights of each window, after their softmax",
        recognises=lambda module: is_named(module, _CLASSES),
        order=lambda module: 1,
    )
)
