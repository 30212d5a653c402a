"""Focal modulation: a query times a context gathered at several scales."""

from horinsight.mixers.mixer_registry import MixerFamily, is_named, register_mixer

_CLASSES = frozenset(
    {
        "timm.models.focalnet.FocalModulation",
        "transformers.models.focalnet.modeling_focalnet.FocalNetModulation",
    }
)

register_mixer(
    MixerFamily(
        kind="focal_modulation",
        value="the context that is gathered at several scales",
        held="the query, the gates of the scales, factors of GELU",
        recognises=lambda module: is_named(module, _CLASSES),
        order=lambda module: 1,
    )
)
