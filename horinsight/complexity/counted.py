"""Counts what a forward pass of any model multiplies, on the meta device: no weights, no arithmetic, any size."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from horinsight.capture import dry_run

CONVENTION = "multiply-accumulates of convolutions, linear layers and matrix products, without biases"
# what reads, views or moves values without arithmetic is not worth a line in `not_counted`
_MOVES = ("view", "reshape", "permute", "transpose", "expand", "slice", "split", "select", "squeeze", "clone", "copy",
          "contiguous", "empty", "detach", "alias", "_to_copy", "cat", "stack", "t.default", "as_strided", "unbind",
          "roll", "index", "zeros", "ones", "full", "arange", "lift_fresh", "new_", "chunk", "constant_pad",
          "_unsafe_view", "unsqueeze", "rand", "bernoulli")  # fmt: skip


@dataclass(frozen=True)
class MacCount:
    """Multiply-accumulates of one forward pass.

    Attributes:
        model: class of the model.
        image_size: (H, W) in pixels.
        params: number of parameters.
        macs: multiply-accumulates for one image.
        by_operator: the same, by ATen operator.
        not_counted: ATen operators that compute something and were not counted → number of calls.
        convention: what one unit is.
    """

    model: str
    image_size: tuple[int, int]
    params: int
    macs: int
    by_operator: Mapping[str, int]
    not_counted: Mapping[str, int]
    convention: str = CONVENTION


class _Calls(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket not in flop_registry:
            self.calls[str(func).removeprefix("aten.")] += 1
        return func(*args, **(kwargs or {}))


def count_macs(model: nn.Module, image_size: int | tuple[int, int]) -> MacCount:
    """Multiply-accumulates of a forward pass over one image, as torch's own counter sees them at dispatch.

    Args:
        model: any image model, with or without weights.
        image_size: pixels, one number or (H, W).

    Returns:
        The count (one multiply-accumulate counts 1, unlike FLOPs), with what was not counted: element-wise products,
        norms, activations, FFTs.

    Raises:
        ValueError: the model does not take images of this size.

    Example:
        >>> count_macs(nn.Conv2d(3, 8, 4, stride=4, bias=False), 32).macs == 8 * 8 * 8 * 3 * 16
        True
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    with _Calls() as seen, FlopCounterMode(display=False) as counter:
        dry_run(model, size)
    counted = {str(op).removeprefix("aten."): flops // 2 for op, flops in counter.get_flop_counts()["Global"].items()}
    return MacCount(
        model=type(model).__name__,
        image_size=size,
        params=sum(parameter.numel() for parameter in model.parameters()),
        macs=sum(counted.values()),
        by_operator=counted,
        not_counted={op: calls for op, calls in sorted(seen.calls.items()) if not op.startswith(_MOVES)},
    )
