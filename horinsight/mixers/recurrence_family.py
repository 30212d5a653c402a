"""Recurrent networks over rows, columns or tokens; their order grows with the length."""

from torch import nn

from horinsight.mixers.registry import MixerFamily, register_mixer

register_mixer(
    MixerFamily(kind="recurrence", recognises=lambda module: isinstance(module, nn.RNNBase), order=lambda module: None)
)
