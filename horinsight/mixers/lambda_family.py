"""Lambda layers: keys and values make a linear map, which each query applies."""

from horinsight.mixers.mixer_registry import MixerFamily, is_named, register_mixer

_CLASSES = frozenset({"timm.layers.lambda_layer.LambdaLayer"})

register_mixer(
    MixerFamily(
        kind="lambda",
        value="v",
        held="the queries, the keys after their softmax",
        recognises=lambda module: is_named(module, _CLASSES),
        order=lambda module: 2,
    )
)
