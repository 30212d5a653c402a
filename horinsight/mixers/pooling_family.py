"""Pooling in windows that overlap or keep the map, and timm's token mixers that consist of it."""

from torch import nn

from horinsight.mixers.mixer_registry import MixerFamily, is_named, register_mixer

_TIMM = frozenset({"timm.models.metaformer.Pooling", "timm.models.efficientformer.Pooling"})
_TORCH = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)

register_mixer(
    MixerFamily(
        kind="pooling",
        value="the mixer's input",
        held="of maxima the position where each is taken, else nothing",
        recognises=lambda module: isinstance(module, _TORCH) or is_named(module, _TIMM),
        order=lambda module: 0,
    )
)
