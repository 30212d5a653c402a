"""Counts a segmenter or a detector as the paper's Tables 2 and 3 do: layer by layer, regions of a fixed number."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from horinsight.capture import evaluation
from horinsight.complexity.cost_results import DenseCount
from horinsight.dry_run import check_image_size
from horinsight.hooks import watched_calls
from horinsight.mixers import families  # noqa: F401 (enters them)
from horinsight.mixers.mixer_registry import family_of
from horinsight.models.provenance import architecture_name
from horinsight.results import Provenance

PROPOSALS = 1000  # through each box head
DETECTIONS = 100  # through each mask head
BOX_SIDE, MASK_SIDE = 7, 14  # of the regions that they get
BATCH_NORM_COST, RELU_COST = 2, 1  # per element

_Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
_Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
_BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


@dataclass
class _Tally:
    macs: int = 0
    biases: int = 0
    batch_norms: int = 0
    relus: int = 0


def layer_macs(layer: nn.Module, inputs: Tensor, output: Tensor) -> int:
    """Multiply-accumulates of one call of a convolution or a linear layer, without biases; 0 of any other layer.

    Example:
        >>> layer_macs(nn.Linear(3, 5), torch.zeros(7, 3), torch.zeros(7, 5))
        105
    """
    if isinstance(layer, nn.Linear):
        return output.numel() * layer.in_features
    if isinstance(layer, _Convolution):
        return output.numel() * layer.weight[0].numel()
    if isinstance(layer, _Transposed):
        return inputs.numel() * layer.weight[0].numel()
    return 0


@contextmanager
def _counting(model: nn.Module) -> Iterator[_Tally]:
    """Adds up what the layers of a model compute while the context is open, each call of each layer."""
    tally = _Tally()
    entered: list[Tensor] = []

    def enter(layer: nn.Module, args: tuple[Any, ...]) -> None:
        entered.append(args[0])

    def leave(layer: nn.Module, kwargs: dict[str, Any], output: Tensor) -> None:
        tally.macs += layer_macs(layer, entered.pop(), output)
        if isinstance(layer, _Convolution | _Transposed) and layer.bias is not None:
            tally.biases += output.numel()
        tally.batch_norms += output.numel() * isinstance(layer, _BatchNorm)
        tally.relus += output.numel() * isinstance(layer, nn.ReLU)

    kinds = nn.Linear | _Convolution | _Transposed | _BatchNorm | nn.ReLU
    with watched_calls([layer for layer in model.modules() if isinstance(layer, kinds)], enter, leave):
        yield tally


def dense_count(model: nn.Module, image_size: tuple[int, int]) -> DenseCount:
    """What a segmenter or a detector computes for one picture, in the convention of the paper's Tables 2 and 3.

    Counted are convolutions and linear layers, each MAC as 1; 1 for each element that a convolution adds its bias to
    (not a linear layer, as the counter of these frameworks has it: with it eight of eight printed cascades come out
    truncated, without it five), 2 for each that a BatchNorm gives and 1 for each that a ReLU gives. Not counted:
    products of two features (of gating and of attention), LayerNorm, GELU, FFTs, pooling, resizing, RoIAlign, and an
    auxiliary head, which runs in training alone. A detector's picture goes through backbone, pyramid and the proposals'
    head, then 1000 regions through each box head and 100 through each mask head.

    Args:
        model: a `UperNet`, a `Detector`, or any network of images, built without weights
            (`horinsight.models.registry.without_weights`): nothing is computed.
        image_size: (H, W) in pixels.

    Raises:
        ValueError: the model has weights, or does not take images of this size.
        TypeError: the size is no pair of whole numbers.

    Example:
        >>> from horinsight.models.registry import without_weights
        >>> with without_weights():
        ...     layer = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.ReLU())
        >>> count = dense_count(layer, (32, 64))
        >>> count.macs == 8 * 16 * 8 * 3 * 16, count.relus
        (True, 1024)
    """
    check_image_size(image_size)
    if not all(weight.is_meta for weight in model.parameters()):
        raise ValueError(
            f"dense_count expects a model without weights, got a {type(model).__name__} with some: build it inside "
            "`with horinsight.models.registry.without_weights():`."
        )
    pictures = torch.empty(1, 3, *image_size, device="meta")
    operators = FlopCounterMode(display=False) if _has_attention(model) else None
    with _counting(model) as tally, evaluation(model), torch.no_grad(), operators or nullcontext():
        try:
            regions = _run(model, pictures)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(
                f"{type(model).__name__} does not take images of {image_size[0]}x{image_size[1]} pixels: {error}."
            ) from error
    return DenseCount(
        image_size=(int(image_size[0]), int(image_size[1])),
        regions=regions,
        params=sum(weight.numel() for weight in model.parameters()),
        macs=tally.macs,
        biases=tally.biases,
        batch_norms=tally.batch_norms,
        relus=tally.relus,
        attention=0 if operators is None else operators.get_total_flops() // 2 - tally.macs,
        macs_counted=tally.macs + tally.biases + BATCH_NORM_COST * tally.batch_norms + RELU_COST * tally.relus,
        provenance=Provenance(
            model=architecture_name(model),
            weights="not needed: counted on shapes alone",
            trained=None,
            weights_sha256="",
            images=("x".join(map(str, image_size)) + " pixels",),
            seed=0,
        ),
    )


def _has_attention(model: nn.Module) -> bool:
    found = (family_of(module) for module in model.modules())
    return any(family is not None and "attention" in family.kind for family in found)


def _run(model: nn.Module, pictures: Tensor) -> tuple[int, int]:
    """A forward pass on shapes, and how many regions each box head and each mask head got."""
    box_heads, mask_heads = (getattr(model, name, None) for name in ("box_heads", "mask_heads"))
    if box_heads is None or mask_heads is None:
        model(pictures)
        return 0, 0
    detector: Any = model  # its own forward needs numbers: which proposals are kept, where the regions lie
    maps = detector.backbone(pictures)
    detector.rpn.head(list(maps.values()))
    channels = detector.backbone.out_channels
    for head in box_heads:
        head(pictures.new_empty(PROPOSALS, channels, BOX_SIDE, BOX_SIDE))
    for head in mask_heads:
        head(pictures.new_empty(DETECTIONS, channels, MASK_SIDE, MASK_SIDE))
    return PROPOSALS, DETECTIONS
