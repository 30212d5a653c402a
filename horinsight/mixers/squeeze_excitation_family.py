"""Gates of channels, computed from the mean over all positions."""

from horinsight.mixers.mixer_registry import MixerFamily, is_named, register_mixer

_CLASSES = frozenset(
    {
        "timm.layers.squeeze_excite.SEModule",
        "timm.layers.squeeze_excite.EffectiveSEModule",
        "timm.layers.squeeze_excite.SqueezeExciteCl",
        "timm.layers.eca.EcaModule",
        "timm.layers.eca.CecaModule",
        "timm.models._efficientnet_blocks.SqueezeExcite",
        "timm.models.senet.SEModule",
        "torchvision.ops.misc.SqueezeExcitation",
        "transformers.models.efficientnet.modeling_efficientnet.EfficientNetSqueezeExciteLayer",
        "transformers.models.pp_lcnet.modeling_pp_lcnet.PPLCNetSqueezeExcitationModule",
        "transformers.models.regnet.modeling_regnet.RegNetSELayer",
    }
)

register_mixer(
    MixerFamily(
        kind="squeeze_excitation",
        value="the mixer's input",
        held="the gate of each channel, from the pooled map",
        recognises=lambda module: is_named(module, _CLASSES),
        order=lambda module: 1,
    )
)
