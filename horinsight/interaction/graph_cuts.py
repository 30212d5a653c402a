"""Where a derivative silently stops: functions that torch does not differentiate, `detach`, `torch.no_grad`.

What such a function gives is a constant to autograd, so that a factor that depends on x would look like a weight, and
an operator's order would come out too low, as an exact zero.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from horinsight.operators.positions import Operator
from horinsight.torch_private import SET_GRAD_ENABLED

# Give new tensors of a shape, whatever the values are.
_VALUE_FREE = ("_like", "new_", "empty", "zeros", "ones", "full", "rand", "size", "shape")
# Of their further tensors they take the shape, dtype or device.
_OF_THE_FIRST = frozenset({"to", "type_as", "expand_as", "view_as", "reshape_as"})
MOVED = 2**-4  # share by which the values of cuts are moved: little enough for an exponential after them
ROUNDING = 64  # units of rounding that an output may move where a cut drops out of it (as a softmax's maximum does)


class _Cuts(TorchFunctionMode):
    """Names the functions that take a tensor with a gradient and give real numbers without one.

    Args:
        moved: whether to give other numbers in their place.
    """

    def __init__(self, *, moved: bool) -> None:
        super().__init__()
        self.moved = moved
        self.names: dict[str, None] = {}
        self.switched_off = False  # by the operator; inside a custom autograd function torch itself does it
        self.generator = torch.Generator("cpu").manual_seed(0)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is SET_GRAD_ENABLED:
            self.switched_off = not args[0]
        name = getattr(func, "__name__", str(func))
        if name == "__get__":  # of a property such as .data
            name = f".{getattr(func.__self__, '__name__', 'property')}"
        real = isinstance(result, Tensor) and (result.is_floating_point() or result.is_complex())
        looked_at = args[:1] if name in _OF_THE_FIRST else args
        carries = any(isinstance(value, Tensor) and value.requires_grad for value in looked_at)
        if not real or not carries or result.requires_grad or any(part in name for part in _VALUE_FREE):
            return result
        if not torch.is_grad_enabled():
            if not (self.switched_off or torch.is_inference_mode_enabled()):
                return result
            name = f"{name} under torch.no_grad"
        self.names[name] = None
        if not self.moved:
            return result
        noise = torch.rand(result.shape, generator=self.generator, dtype=torch.float64, device="cpu")
        return result * (1 + MOVED * noise).to(result)


def check_cuts(operator: Operator, x: Tensor) -> None:
    """Refuse an operator whose derivatives stop where its value goes on.

    Raises:
        ValueError: names the functions.
    """
    names = graph_cuts(operator, x)
    if names:
        raise ValueError(
            f"The output changes with x by way of {', '.join(names)}, which gives no gradient, so that its derivatives "
            "are not those of the operator: replace it by something that torch differentiates."
        )


def graph_cuts(operator: Operator, x: Tensor) -> tuple[str, ...]:
    """The functions at which the derivatives of an operator stop although its value goes on, by their names.

    They are named only where they matter: where the output is another one once other numbers stand in their place.

    Args:
        operator: any function of x, as it is: not inside `explicit_operators`, whose tangents are constants by design.
        x: (N, ...), an operating point, float32 or float64.

    Returns:
        Names, in the order of the calls; empty for most operators.

    Example:
        >>> x = torch.tensor([[0.5, 1.0]])
        >>> graph_cuts(lambda x: x * x.detach(), x), graph_cuts(lambda x: x * x, x)
        (('detach',), ())
    """
    outputs = []
    for moved in (False, True):
        leaf = x.detach().clone().requires_grad_()
        with torch.enable_grad(), _Cuts(moved=moved) as cuts:
            output = operator(leaf)
        outputs.append(output.detach())
        if not cuts.names:
            return ()
    as_is, other = outputs
    rounding = ROUNDING * torch.finfo(as_is.dtype).eps * float(as_is.abs().max())
    return tuple(cuts.names) if float((other - as_is).abs().max()) > rounding else ()
