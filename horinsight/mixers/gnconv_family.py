"""gⁿConv, in any spelling: recursive gated convolution."""

from horinsight.mixers.mixer_registry import MixerFamily, register_mixer
from horinsight.models.blocks import gnconv_linears

register_mixer(
    MixerFamily(
        kind="gnconv",
        recognises=lambda module: gnconv_linears(module) is not None,
        order=lambda module: len(gnconv_linears(module) or ()) + 1,
    )
)
