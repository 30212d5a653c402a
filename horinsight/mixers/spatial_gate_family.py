"""gMLP's gate: half of the channels times a linear map over positions of the other half."""

from horinsight.mixers.mixer_registry import MixerFamily, is_named, register_mixer

_CLASSES = frozenset({"timm.models.mlp_mixer.SpatialGatingUnit"})

register_mixer(
    MixerFamily(
        kind="spatial_gate",
        value="what is mixed over positions",
        held="what multiplies it, statistics of norms",
        recognises=lambda module: is_named(module, _CLASSES),
        order=lambda module: 1,
    )
)
