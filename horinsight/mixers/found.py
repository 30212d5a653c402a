"""The spatial mixers of any vision network, found by what it computes in one forward pass."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import isqrt

import torch
from torch import Tensor, nn

from horinsight.capture import call_name, first_line, misfits_explained
from horinsight.description import image_channels
from horinsight.dry_run import check_image_size
from horinsight.mixers import families  # noqa: F401 - enters the known kinds
from horinsight.mixers.call_tree import UNMIXED, ModuleCall
from horinsight.mixers.labels import Grids
from horinsight.mixers.map_layouts import MapLayout
from horinsight.mixers.mixer_registry import family_of
from horinsight.mixers.places import Place, places_of, residual_call, residual_path
from horinsight.mixers.seen_calls import SeenCall, seen_calls
from horinsight.mixers.seen_kinds import events_inside, seen_kind, seen_order
from horinsight.mixers.watch import watched

# what a container may do beside its mixers: it is listed for it and hides nothing, nor does one that holds whole blocks
_WEAK = frozenset({"convolution", "pooling", "merge"})


@dataclass(frozen=True, eq=False)
class FoundMixer:
    """One call of a module in which positions meet.

    Attributes:
        here: its call, and how positions lie in what goes in and comes out.
        block_path: path of the innermost residual block around it, of its parent where there is none.
        block: the call of that block; None where it is not called.
        class_name: the module's class.
        kind: a family's name where the class is known ("gnconv", "attention", "window_attention", "convolution", ...),
            else what was seen in it: "attention", "window_attention", "linear_attention", "gate", "token_mlp", "fft",
            "recurrence", "sampling", "shift", "context" (something pooled is added), "convolution", "pooling", "other".
        kind_known: whether a family recognised the module.
        order: its design order; None where it is open.
        place: "stem", "block", "downsampling" (it thins the map and is no attention), "head" (no position comes out).
        stride: by how much it thins the map.
        seen: all ways in which positions met in it.
        holds_others: whether mixers of their own are called inside it: only what its own forward does beside them is
            listed here.
    """

    here: SeenCall
    block_path: str
    block: SeenCall | None
    class_name: str
    kind: str
    kind_known: bool
    order: int | None
    place: Place
    stride: int
    seen: tuple[str, ...]
    holds_others: bool = False

    @property
    def path(self) -> str:
        """Of the module in the network; "" for the network itself."""
        return self.here.path

    @property
    def call(self) -> int:
        """Which call of the module it is, from 1."""
        return self.here.number

    @property
    def name(self) -> str:
        """The path, with the number of the call where it is not the first."""
        return call_name(self.path, self.call)

    @property
    def input(self) -> MapLayout | None:
        """How the positions of its argument lie; None where a map is too small to tell."""
        return self.here.input

    @property
    def output(self) -> MapLayout | None:
        """The same of its result; None where no position comes out."""
        return self.here.output

    @property
    def num_inputs(self) -> int:
        """How many of its arguments depend on the image."""
        return sum(self.here.depends)


def _is_norm(call: ModuleCall) -> bool:
    """Whether a module is a norm over positions, written out: told by its class's name and by what it does."""
    does = {event.what for event in call.events}
    return "norm" in type(call.module).__name__.lower() and does <= {"bias", "gate", "shift", "pooling", "all pooling"}


def _mixing_calls(call: ModuleCall) -> Iterator[tuple[ModuleCall, bool]]:
    """The calls that are mixers, and whether they hold others."""
    events = events_inside(call)
    if not events:
        return
    own = {event.what for event in call.events} - UNMIXED
    if family_of(call.module) is not None and call.input is not None:
        yield call, False
        return
    inner = [found for child in call.children for found in _mixing_calls(child)]
    if _is_norm(call):
        own = set()
    blocks = inner and any(around.is_residual() for child in call.children for around in child.walk())
    if own - _WEAK and not blocks and (call.parent is not None or not inner):
        yield call, False
        return
    if own:
        yield call, bool(inner)
    yield from inner


def default_image_size(model: nn.Module) -> tuple[int, int]:
    """The size of images that a network says it takes, (224, 224) where it says none."""
    size = _input_size(model)
    if size is not None:
        return size[1:]
    for part in model.modules():
        for holder, name in itertools.product((part, getattr(part, "config", None)), ("image_size", "img_size")):
            side = getattr(holder, name, None)
            if isinstance(side, int):
                return side, side
            if isinstance(side, tuple | list) and len(side) == 2:
                return int(side[0]), int(side[1])
    return 224, 224


def _input_size(model: nn.Module) -> tuple[int, int, int] | None:
    """(C, H, W) as timm writes it down."""
    for part in model.modules():
        config = getattr(part, "pretrained_cfg", None)
        size = config.get("input_size") if isinstance(config, dict) else None
        if isinstance(size, tuple) and len(size) == 3:
            return int(size[0]), int(size[1]), int(size[2])
    return None


def _images(model: nn.Module, size: tuple[int, int]) -> Tensor:
    """Noise that the network takes."""
    check_image_size(size)
    channels = image_channels(model, size)
    weight = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros((), device="cpu"))
    noise = torch.randn(1, channels, *size, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    return noise.to(weight.device, weight.dtype)


def found_mixers(
    model: nn.Module, *, image_size: tuple[int, int] | None = None, images: Tensor | None = None
) -> list[FoundMixer]:
    """The spatial mixers of a network: the modules in whose own forward positions of the image meet.

    The network is run once, in eval mode and without gradients, while every element of every tensor knows which
    position it stands for. A convolution wider than a cell, a pooling, a product or linear map over positions, a
    Fourier transform, a shift, a gate from something pooled: each belongs to the innermost module whose own forward
    runs it, and what is called inside a mixer belongs to it. Patch embeddings, patch merging by a stride, global pools,
    norms, resizing and permutations are no mixers.

    Args:
        model: any network that takes images alone; it is given back as it was.
        image_size: (H, W) in pixels; the network's own where it says one, else 224 × 224. At least two cells must be
            left in the last map: what mixes nothing at this size is not found.
        images: images to look with instead of noise, (B, C, H, W); the first one is taken.

    Returns:
        One entry for each call of a mixer, in the order in which the network registers the modules; none for a network
        without positions.

    Raises:
        TypeError: something that is no module.
        ValueError: the network cannot be run on one image of this size, is scripted or traced, or both a
            size and images were given.

    Example:
        >>> import timm
        >>> mixers = found_mixers(timm.create_model("hornet_test_iso"), image_size=(64, 64))
        >>> [(mixer.name, mixer.kind, mixer.order, mixer.input.size) for mixer in mixers[:2]]
        [('blocks.0.gnconv', 'gnconv', 3, (4, 4)), ('blocks.1.gnconv', 'gnconv', 3, (4, 4))]
    """
    _check_request(model, image_size, images)
    if images is None:
        images = _images(model, image_size or default_image_size(model))
    root, grids = _watched(model, images)
    return _listed(root, grids, (int(images.shape[-2]), int(images.shape[-1])), model)


def mixers_at(model: nn.Module, image_size: tuple[int, int], known: Sequence[FoundMixer]) -> list[FoundMixer]:
    """What is known of a network's mixers, at another size of the images: their calls and how their positions lie.

    Args:
        model: the network that they were found in.
        image_size: (H, W) in pixels.
        known: its mixers, as `found_mixers` gives them at a size where no map is a single cell.

    Returns:
        One entry a call of a mixer, as those that are known are ordered; none for one that is not called at this size.

    Raises:
        ValueError: the network cannot be run on one image of this size.
    """
    root, grids = _watched(model, _images(model, image_size))
    of_path = {mixer.path: mixer for mixer in reversed(known)}
    seen = seen_calls(root, grids)
    entries = [
        replace(of_path[call.path], here=seen(call), block_path=residual_path(call), block=seen(residual_call(call)))
        for call in root.walk()
        if call.path in of_path
    ]
    order = {path: index for index, path in enumerate(dict.fromkeys(mixer.path for mixer in known))}
    return sorted(entries, key=lambda mixer: (order[mixer.path], mixer.call))


def _watched(model: nn.Module, images: Tensor) -> tuple[ModuleCall, Grids]:
    try:
        return watched(model, images[:1])
    except Exception as error:  # whatever a foreign network raises
        raise ValueError(
            f"{type(model).__name__} does not take images of {images.shape[-2]}x{images.shape[-1]} pixels, one by one "
            f"and alone: {type(error).__name__}: {first_line(error)}."
        ) from error


def _check_request(model: nn.Module, image_size: tuple[int, int] | None, images: Tensor | None) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"found_mixers expects a module, got {type(model).__name__}: wrap a function in one.")
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError(
            f"{type(model).__name__} is scripted or traced, and its parts cannot be watched: give the module that it "
            "was made from."
        )
    if images is not None and image_size is not None:
        raise ValueError("found_mixers expects image_size or images, got both: the images have a size of their own.")
    if image_size is not None and not (isinstance(image_size, tuple | list) and len(image_size) == 2):
        raise ValueError(f"found_mixers expects image_size as (height, width) in pixels, got {image_size!r}.")
    if images is not None and images.ndim != 4:
        raise ValueError(f"found_mixers expects images of shape (B, C, H, W), got {tuple(images.shape)}.")


def _listed(root: ModuleCall, grids: Grids, image_size: tuple[int, int], model: nn.Module) -> list[FoundMixer]:
    calls = [(call, holds) for call, holds in _mixing_calls(root) if call.input is not None]
    seen = seen_calls(root, grids)
    here = {call: seen(call) for call, _ in calls}
    kinds = {call: _kind(call, holds, pools=here[call].output is None) for call, holds in calls}
    mapped = [(call, here[call].input, here[call].output, kinds[call][0]) for call, _ in calls]
    places = places_of(root, mapped, image_size)
    registered = {path: index for index, (path, _) in enumerate(model.named_modules())}
    mixers: list[FoundMixer] = []
    for call, holds in calls:
        kind, known, order, events = kinds[call]
        mixers.append(
            FoundMixer(
                here=here[call],
                block_path=residual_path(call),
                block=seen(residual_call(call)),
                class_name=type(call.module).__name__,
                kind=kind,
                kind_known=known,
                order=order,
                place=places[call][0],
                stride=places[call][1],
                seen=events,
                holds_others=holds,
            )
        )
    return sorted(mixers, key=lambda mixer: (registered.get(mixer.path, len(registered)), mixer.call))


def _kind(call: ModuleCall, holds_others: bool, *, pools: bool) -> tuple[str, bool, int | None, tuple[str, ...]]:
    """Kind, whether a family knows it, order, and what was seen."""
    own = tuple(dict.fromkeys(event.what for event in call.events if event.what not in UNMIXED))
    events = own if holds_others else events_inside(call)
    family = family_of(call.module)
    if family is not None:
        return family.kind, True, family.order(call.module), events
    kind = "recurrence" if "recurrence" in events else seen_kind(own, pools=pools)
    softmax = any(event.what == "weights" for inner in call.walk() for event in inner.events)
    return kind, False, seen_order(kind, events, softmax), events


def seen_alone(module: nn.Module, x: Tensor) -> tuple[SeenCall, tuple[str, ...]]:
    """What is seen of one call of a mixer by itself, on one image, and all ways in which positions met in it.

    Args:
        module: a mixer.
        x: its input for one image: a map (1, C, H, W), or tokens (1, N, C) of a square map without a prefix.

    Raises:
        ValueError: another shape, or the module cannot be run on it.
    """
    side = isqrt(x.shape[1]) if x.ndim == 3 else 0
    if x.ndim not in (3, 4) or (x.ndim == 3 and side * side != x.shape[1]):
        raise ValueError(
            f"A mixer by itself expects a map (B, C, H, W), or tokens (B, N, C) of a square map, got {tuple(x.shape)}: "
            "measure it in its network, where its positions are known (model_mixing_weights)."
        )
    cells = None if x.ndim == 4 else lambda grids: grids.cells(side, side).reshape(1, side * side, 1)
    with misfits_explained(module, x):
        root, grids = watched(module, x, cells=cells)
    return seen_calls(root, grids)(root), events_inside(root)
