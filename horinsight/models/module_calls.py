"""Which of its modules a network calls in one forward pass, and in which order."""

import threading
import weakref
from collections.abc import Mapping

from torch import nn

from horinsight.capture import capture
from horinsight.description import image_channels
from horinsight.dry_run import dry_run

DEFAULT_IMAGE_SIZE = (224, 224)

_Modules = list[tuple[str, "weakref.ref[nn.Module]"]]
_Known = tuple[_Modules, dict[tuple[int, int], tuple[str, ...]]]

_known: "weakref.WeakKeyDictionary[nn.Module, _Known]" = weakref.WeakKeyDictionary()
_known_lock = threading.Lock()  # never held while a model runs


def module_calls(
    model: nn.Module, modules: Mapping[str, nn.Module], image_size: tuple[int, int] | None = None
) -> tuple[str, ...]:
    """The names of some modules of a network in the order in which a forward pass calls them, each as often as it does.

    What was seen is kept as long as the network is made of the same modules.

    Args:
        model: any network.
        modules: parts of it by name, the same ones each time.
        image_size: (H, W) in pixels; see `usual_image_size` when None.

    Returns:
        One name a call; empty where the network cannot be run on shapes alone.

    Example:
        >>> layer = nn.Conv2d(3, 3, 1)
        >>> module_calls(nn.Sequential(layer, nn.ReLU(), layer), {"layer": layer})
        ('layer', 'layer')
    """
    size = image_size or usual_image_size(model)
    made_of = [(path, weakref.ref(module)) for path, module in model.named_modules()]
    with _known_lock:
        if model not in _known or _known[model][0] != made_of:
            _known[model] = made_of, {}
        sequences = _known[model][1]
    if size not in sequences:
        sequences[size] = _seen_calls(model, modules, size)
    return sequences[size]


def _seen_calls(model: nn.Module, modules: Mapping[str, nn.Module], size: tuple[int, int]) -> tuple[str, ...]:
    sequence: list[str] = []
    name_of = {module: name for name, module in modules.items()}
    in_chans = image_channels(model, size)  # may run the network itself: not to be seen
    with capture(modules, keep=lambda module, _: sequence.append(name_of[module])):
        try:
            dry_run(model, size, in_chans=in_chans)
        except ValueError:  # it does not take such images, or asks for numbers: said when it is to be measured
            return ()
    return tuple(sequence)


def usual_image_size(model: nn.Module) -> tuple[int, int]:
    """(H, W) in pixels that a network, or one inside it, says it is made for; else 224x224.

    Example:
        >>> import timm
        >>> usual_image_size(nn.Sequential(timm.create_model("hornet_test"))), usual_image_size(nn.ReLU())
        ((96, 96), (224, 224))
    """
    for part in model.modules():
        config = getattr(part, "pretrained_cfg", None)
        size = config.get("input_size") if isinstance(config, Mapping) else None
        if size is not None and len(size) == 3:
            return int(size[1]), int(size[2])
    return DEFAULT_IMAGE_SIZE
