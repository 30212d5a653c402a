"""gⁿConv, in any spelling: recursive gated convolution."""

from torch import nn

from horinsight.mixers.mixer_registry import MixerFamily, register_mixer
from horinsight.models.gnconv_parts import GnConvParts


def _order(module: nn.Module) -> int:
    parts = GnConvParts.of(module)
    assert parts is not None
    return parts.order


register_mixer(MixerFamily(kind="gnconv", recognises=lambda module: GnConvParts.of(module) is not None, order=_order))
