"""Global response normalisation: each channel times its share of the energy over all positions."""

from horinsight.mixers.mixer_registry import MixerFamily, is_named, register_mixer

_CLASSES = frozenset(
    {"timm.layers.grn.GlobalResponseNorm", "transformers.models.convnextv2.modeling_convnextv2.ConvNextV2GRN"}
)

register_mixer(
    MixerFamily(
        kind="response_norm",
        value="the mixer's input",
        held="the factor of each channel, from norms over positions",
        recognises=lambda module: is_named(module, _CLASSES),
        order=lambda module: 2,
    )
)
