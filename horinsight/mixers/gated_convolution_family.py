"""A feature times a convolution, or two features of one convolution times each other (the star operation)."""

from horinsight.mixers.mixer_registry import MixerFamily, is_named, register_mixer

_CLASSES = frozenset({"timm.models.mambaout.GatedConvBlock", "timm.models.starnet.Block"})

register_mixer(
    MixerFamily(
        kind="gated_convolution",
        value="what the convolution mixes",
        held="what multiplies it, factors of activations, statistics of norms",
        recognises=lambda module: is_named(module, _CLASSES),
        order=lambda module: 1,
    )
)
