"""What a network says of itself, whatever it is wrapped in: its configuration, its channels, where its weights are.

A wrapper is `DistributedDataParallel`, `torch.compile`, an average of weights, `nn.Sequential(normalise, model)`, a
feature extractor of timm, or anybody's module around a model. Each fact is the one that the outermost part which
states it states; what two parts state differently is nobody's.
"""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import timm.data
import torch
from timm.utils import ModelEmaV2, ModelEmaV3
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from horinsight.capture import called_through, evaluation, wrapped_forward
from horinsight.dry_run import dry_run

PICTURE_CHANNELS = 3
ENTRANCES = ("forward", "forward_features", "forward_intermediates")  # by which a wrapper calls a model of timm
SAME = 1e-5  # of the largest, by which two float32 numbers that stand for one may differ


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside wrappers that compute nothing: parallel, compiled, averaged, a Sequential of one.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> unwrapped(nn.Sequential(nn.DataParallel(model))) is model
        True
    """
    inner = called_through(model)
    if isinstance(model, AveragedModel | ModelEmaV2 | ModelEmaV3):
        inner = model.module
    elif type(model) is nn.Sequential and len(model) == 1:
        inner = model[0]
    return model if inner is None else unwrapped(inner)


def stating_parts(model: nn.Module, *facts: str) -> list[nn.Module]:
    """The outermost parts of a network that have one of the given attributes (and not None or an empty one).

    Example:
        >>> import timm
        >>> model = timm.create_model("hornet_test")
        >>> stating_parts(nn.Sequential(nn.Identity(), model), "pretrained_cfg") == [model]
        True
    """

    def parts(module: nn.Module) -> Iterator[nn.Module]:
        module = unwrapped(module)  # a compiled module has the attributes of what it wraps
        if any(getattr(module, fact, None) for fact in facts):
            yield module
        else:
            for child in module.children():
                yield from parts(child)

    return list(dict.fromkeys(parts(model)))


def stating_part(model: nn.Module, *facts: str) -> nn.Module | None:
    """The one part of `stating_parts` that holds every weight of a network; None where there is none such."""
    parts = stating_parts(model, *facts)
    if len(parts) != 1:
        return None
    held = {id(weight) for weight in parts[0].parameters()}
    return parts[0] if all(id(weight) in held for weight in model.parameters()) else None


def weighted_part(model: nn.Module) -> nn.Module:
    """The part of a network that is a model by itself and holds all weights; what is `unwrapped` where none is.

    Example:
        >>> import timm
        >>> model = timm.create_model("hornet_test")
        >>> weighted_part(nn.Sequential(nn.Identity(), model)) is model
        True
    """
    return stating_part(model, "pretrained_cfg", "weights_origin") or unwrapped(model)


def data_configuration(model: nn.Module) -> dict[str, Any]:
    """Input size (C, H, W), mean, std, crop and interpolation, by timm's names; ImageNet's where nothing states them.

    Raises:
        ValueError: parts that state different ones.

    Example:
        >>> data_configuration(nn.Sequential(nn.Identity(), timm.create_model("hornet_test")))["input_size"]
        (3, 96, 96)
    """
    stated = stating_parts(model, "pretrained_cfg")
    found = [timm.data.resolve_data_config(pretrained_cfg=configuration_fields(part.pretrained_cfg)) for part in stated]
    if any(configuration != found[0] for configuration in found):
        names = ", ".join(type(part).__name__ for part in stated)
        raise ValueError(
            f"The parts of this {type(model).__name__} are made for different pictures ({names}): ask one of them."
        )
    usual = {"input_size": (3, 224, 224)}
    configuration: dict[str, Any] = found[0] if found else timm.data.resolve_data_config(pretrained_cfg=usual)
    return configuration


def configuration_fields(configuration: Any) -> dict[str, Any]:
    """A configuration of timm's by its names, which it keeps as a dictionary or as a data class."""
    return configuration if isinstance(configuration, dict) else configuration.to_dict()


def image_channels(model: nn.Module, image_size: tuple[int, int]) -> int:
    """How many channels the images of a network have.

    What the network itself states, or the first convolution that it names; else the first of what its parts state,
    three, and what its convolutions take, with which it runs on shapes alone.

    Args:
        model: any image network.
        image_size: (H, W) in pixels, of the images that are tried.

    Example:
        >>> image_channels(nn.Sequential(nn.Conv2d(1, 3, 1), timm.create_model("hornet_test")), (96, 96))
        1
    """
    stated = [part.in_chans for part in stating_parts(model, "in_chans") if isinstance(part.in_chans, int)]
    network = unwrapped(model)
    if isinstance(getattr(network, "in_chans", None), int):
        return int(stated[0])
    first = _first_convolution(network)
    if first is not None:
        return first.in_channels
    convolutions = [part.in_channels for part in model.modules() if isinstance(part, nn.Conv2d)]
    candidates = list(dict.fromkeys([*stated, PICTURE_CHANNELS, *convolutions]))
    return next((count for count in candidates if _runs(model, image_size, count)), candidates[0])


def _first_convolution(network: nn.Module) -> nn.Conv2d | None:
    """The one that a network of timm names in its configuration; None where it names none or several."""
    configuration = getattr(network, "pretrained_cfg", None)
    name = configuration_fields(configuration).get("first_conv") if configuration else None
    parts = dict(network.named_modules()) if isinstance(name, str) else {}
    found = parts.get(name) if isinstance(name, str) else None
    return found if isinstance(found, nn.Conv2d) else None


def _runs(model: nn.Module, image_size: tuple[int, int], in_chans: int) -> bool:
    try:
        dry_run(model, image_size, in_chans=in_chans)
    except Exception:  # of whatever kind: the forward pass that is asked for afterwards says it
        return False
    return True


class _ArrivedError(Exception):
    """Stops a forward pass where the described part begins."""


def normalisation_before(model: nn.Module) -> tuple[Tensor, Tensor]:
    """What a wrapper makes of pictures before its model sees them: z = (x - m) / s in each channel.

    Found by what it does to pictures of one colour, which are run up to the model. Where something else comes before
    the model (other colours, a border), or the model is not reached, it is taken for nothing: m = 0, s = 1.

    Args:
        model: a network whose configuration is that of a part of it.

    Returns:
        m and s, float64, (3,) or (), the same for all channels.

    Example:
        >>> class Normalise(nn.Module):
        ...     def forward(self, x):
        ...         return (x - 0.5) / 0.25
        >>> normalisation_before(nn.Sequential(Normalise(), timm.create_model("hornet_test")))[1].tolist()
        [0.25, 0.25, 0.25]
    """
    zero = torch.zeros((), dtype=torch.float64, device="cpu")
    nothing = zero, zero + 1
    stated = stating_parts(model, "pretrained_cfg")
    inside = unwrapped(model)
    if len(stated) != 1 or stated[0] is inside or next(inside.parameters(), torch.empty(0, device="meta")).is_meta:
        return nothing
    size = data_configuration(model)["input_size"][1:]
    colours = torch.tensor([[0.0, 0.0, 0.0], [0.25, 0.5, 1.0], [1.0, 0.75, 0.25]])
    arrived = [_arriving(inside, stated[0], colour[:, None, None].expand(1, 3, *size)) for colour in colours]
    z = [None if picture is None else _colour(picture) for picture in arrived]
    if any(colour is None for colour in z):
        return nothing
    black, first, second = (colour.double().cpu() for colour in z)  # type: ignore[union-attr]
    slope = (first - black) / colours[1]
    predicted = black + slope * colours[2]
    largest = float(torch.stack([black, first, second]).abs().max())
    if not bool((slope.abs() > 0).all()) or float((second - predicted).abs().max()) > SAME * largest:
        return nothing
    return -black / slope, 1 / slope


def _arriving(model: nn.Module, part: nn.Module, picture: Tensor) -> Tensor | None:
    """What a part is called with when a network is shown a picture; None where it is not reached."""
    arrived: list[Any] = []

    def stop(*args: Any, **kwargs: Any) -> Any:
        arrived.extend([*args, *kwargs.values()][:1])
        raise _ArrivedError

    with ExitStack() as stack:
        for context in (evaluation(model), torch.no_grad(), suppress(Exception)):
            stack.enter_context(context)  # a wrapper that was not made for a plain picture tells nothing, like the stop
        for method in ENTRANCES:
            if hasattr(part, method):
                stack.enter_context(wrapped_forward(part, lambda _: stop, method=method))
        model(picture.to(next(model.parameters())))
    return arrived[0] if arrived and isinstance(arrived[0], Tensor) else None


def _colour(picture: Tensor) -> Tensor | None:
    """(3,) the colour of a picture that has one; None for others."""
    if picture.ndim != 4 or picture.shape[:2] != (1, 3):
        return None
    colour = picture[0].flatten(1)
    spread = (colour.amax(1) - colour.amin(1)).max()
    return colour[:, 0] if float(spread) <= SAME * float(colour.abs().max()) else None
