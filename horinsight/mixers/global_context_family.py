"""A softmax over all positions pools a context, which is added or gates."""

from horinsight.mixers.mixer_registry import MixerFamily, is_named, register_mixer

_CLASSES = frozenset({"timm.layers.global_context.GlobalContext"})

register_mixer(
    MixerFamily(
        kind="global_context",
        value="the mixer's input",
        held="the weights by softmax, the gate of each channel",
        recognises=lambda module: is_named(module, _CLASSES),
        order=lambda module: 2,
    )
)
