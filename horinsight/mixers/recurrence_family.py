"""Recurrent networks over rows, columns or tokens; their order grows with the length."""

from torch import nn

from horinsight.mixers.mixer_registry import MixerFamily, register_mixer

register_mixer(
    MixerFamily(kind="recurrence", recognises=lambda module: isinstance(module, nn.RNNBase), order=lambda module: None)
)
