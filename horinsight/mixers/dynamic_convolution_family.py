"""Convolutions whose weights are a mixture, computed from the mean over all positions."""

from horinsight.mixers.mixer_registry import MixerFamily, is_named, register_mixer

_CLASSES = frozenset({"timm.layers.cond_conv2d.CondConv2d"})

register_mixer(
    MixerFamily(
        kind="dynamic_convolution",
        value="the mixer's input",
        held="the kernel, which is made of the pooled map",
        recognises=lambda module: is_named(module, _CLASSES),
        order=lambda module: 1,
    )
)
