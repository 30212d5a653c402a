"""The mixers of a network, found once for each size of images and kept as long as it is made of the same modules."""

from __future__ import annotations

import threading
import weakref
from collections import Counter

from torch import nn

from horinsight.mixers.found import FoundMixer, default_image_size, found_mixers, mixers_at
from horinsight.mixers.mixer_registry import registry_version

_Found = dict[tuple[int, int], list[FoundMixer]]
_MadeOf = tuple[int, tuple["weakref.ref[nn.Module]", ...]]

_known: weakref.WeakKeyDictionary[nn.Module, tuple[_MadeOf, _Found]] = weakref.WeakKeyDictionary()
_known_lock = threading.Lock()  # never held while a model runs


def network_mixers(model: nn.Module, image_size: tuple[int, int] | None = None) -> list[FoundMixer]:
    """All mixers of a network, wherever they stand; see `found_mixers`.

    Which modules are mixers, and so the list's order, is found at the network's own size and does not depend on the
    size that is asked for: a map of a single cell, on which nothing can be seen to mix, keeps its place.

    Args:
        model: any network that takes images.
        image_size: (H, W) in pixels at which calls and maps are wanted; the network's own when None.

    Raises:
        ValueError: the network cannot be run on one image of this size.

    Example:
        >>> layer = nn.Conv2d(3, 3, 3, padding=1)
        >>> [mixer.name for mixer in network_mixers(nn.Sequential(layer, nn.ReLU(), layer))]
        ['0', '0#2']
    """
    made_of = registry_version(), tuple(map(weakref.ref, model.modules()))
    with _known_lock:
        if model not in _known or _known[model][0] != made_of:
            _known[model] = made_of, {}
        found = _known[model][1]
    usual = default_image_size(model)
    size = image_size or usual
    if size not in found:
        if usual not in found:
            found[usual] = _at_usual_size(model, usual, size)
        if size != usual:
            found[size] = _in_order(mixers_at(model, size, found[usual]))
    return found[size]


def _at_usual_size(model: nn.Module, usual: tuple[int, int], size: tuple[int, int]) -> list[FoundMixer]:
    try:
        return _in_order(found_mixers(model, image_size=usual))
    except ValueError:
        if size == usual:
            raise
    return _in_order(found_mixers(model, image_size=size))  # it takes no images of the size that it seems made for


def _in_order(mixers: list[FoundMixer]) -> list[FoundMixer]:
    """As they are registered; in the order of all calls where one is called several times."""
    calls = Counter(mixer.path for mixer in mixers)
    return sorted(mixers, key=lambda mixer: mixer.here.start) if max(calls.values(), default=1) > 1 else mixers
