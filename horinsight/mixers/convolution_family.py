"""Convolutions that are wider than a cell, depthwise ones apart."""

from torch import nn

from horinsight.mixers.mixer_registry import MixerFamily, register_mixer

_Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d


def _depthwise(module: nn.Module) -> bool:
    return isinstance(module, _Convolution) and 1 < module.groups == module.in_channels


register_mixer(
    MixerFamily(kind="convolution", recognises=lambda module: isinstance(module, _Convolution), order=lambda module: 0)
)
register_mixer(MixerFamily(kind="depthwise_conv", recognises=_depthwise, order=lambda module: 0))
