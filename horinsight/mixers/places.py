"""Where in a network a mixer stands: stem, block, downsampling or head; and which residual block is around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from horinsight.mixers.call_tree import ModuleCall
from horinsight.mixers.map_layouts import MapLayout

Place = Literal["stem", "block", "downsampling", "head"]
_STEMS = ("convolution", "depthwise_conv", "pooling")
_ATTENTION = ("attention", "window_attention", "channel_attention")


def residual_call(call: ModuleCall) -> ModuleCall | None:
    """The residual block around a call: its own forward adds what the call made to what came before.

    It is the module that calls the mixer, looking through containers, or the mixer itself, or the next one around them;
    where no sum is around it the innermost call of its parent, None where that is not called.
    """
    around = list(call.ancestors())
    caller = next((one for one in around if not isinstance(one.module, nn.Sequential)), None)
    for one in (*([] if caller is None else [caller]), call, *around):
        if any(low <= call.start < high for low, high in one.sums):
            return one
    parent = call.path.rpartition(".")[0]
    return next((one for one in around if one.path == parent), None)


def residual_path(call: ModuleCall) -> str:
    """Path of the residual block around a call; of the parent where no sum is around it, "" for the network itself."""
    block = residual_call(call)
    if block is not None:
        return block.path
    return "" if call.parent is None else call.path.rpartition(".")[0]


def places_of(
    root: ModuleCall,
    calls: Sequence[tuple[ModuleCall, MapLayout | None, MapLayout | None, str]],
    image_size: tuple[int, int],
) -> dict[ModuleCall, tuple[Place, int]]:
    """Place and stride of each mixer.

    The stem is the first mixer that reads the pixels, if it is a convolution or a pooling outside of residual blocks,
    with the modules around it as far as they hold no residual block
    and are not the whole network. What thins the map elsewhere is downsampling, unless it is attention, and so is what
    a network's own forward does between its modules. A mixer out of
    which no position comes belongs to the head.

    Args:
        root: the network's call.
        calls: for each mixer its call, how its input and its output lie, and its kind.
        image_size: (H, W) in pixels.
    """
    stem = _stem(root, calls, image_size)
    places: dict[ModuleCall, tuple[Place, int]] = {}
    for call, source, target, kind in calls:
        stride = _stride(call.module, source, target)
        if stem is not None and (call is stem or stem in call.ancestors()):
            place: Place = "stem"
        elif target is None:
            place = "head"
        elif (stride > 1 and kind not in _ATTENTION) or (call is root and len(calls) > 1):
            place = "downsampling"
        else:
            place = "block"
        places[call] = (place, stride)
    return places


def _stride(module: nn.Module, source: MapLayout | None, target: MapLayout | None) -> int:
    """By how much a mixer thins the map: as it says, or by the sizes of its maps."""
    if source is None or target is None or not source.size or not target.size or source.size == target.size:
        return 1
    ratio = max(1, round(source.size[0] / target.size[0]), round(source.size[1] / target.size[1]))
    said = getattr(module, "stride", None)
    said = max(said) if isinstance(said, tuple) and said else said
    return said if isinstance(said, int) and said <= ratio else ratio


def _stem(
    root: ModuleCall,
    calls: Sequence[tuple[ModuleCall, MapLayout | None, MapLayout | None, str]],
    image_size: tuple[int, int],
) -> ModuleCall | None:
    if not calls:
        return None
    call, source, target, kind = min(calls, key=lambda entry: entry[0].start)
    if source is None or source.size != image_size or call is root or kind not in _STEMS:
        return None
    if any(low <= call.start < high for one in (call, *call.ancestors()) for low, high in one.sums):
        return None  # it is in a residual block
    stem = call
    residual = any(inner.sums for inner in root.walk())
    while residual and stem.parent not in (None, root):
        around = stem.parent
        assert around is not None
        if any(inner.sums for inner in around.walk()) or all(around in c.ancestors() for c, *_ in calls):
            break
        stem = around
    thins = target is not None and target.size != source.size
    return stem if residual or thins else None
