"""Whether contributions add up to the whole difference of outputs; where they do not, which function is to blame."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import resolve_name

from horinsight.attribution.difference_mode import DifferenceRules
from horinsight.attribution.difference_rules import Function, activations, at
from horinsight.torch_private import tree_map_only

Ends = tuple[Tensor, Tensor]  # a tensor of inputs and baselines, and the same with the two exchanged


def missing_part(inputs: Sequence[Ends], outputs: Sequence[Ends]) -> float:
    """What is missing of a random combination of the output differences, as a fraction of all contributions' size.

    |Σ v Δy - Σ (Jᵀv) Δx| / (Σ |(Jᵀv) Δx| + Σ |v| (|y| + |y'|)), where J is the derivative that the rules give.

    Args:
        inputs: x and x', with a gradient.
        outputs: y and y'.
    """
    generator = torch.Generator().manual_seed(0)
    v = [torch.randn(y.shape, generator=generator, dtype=y.dtype, device="cpu").to(y.device) for y, _ in outputs]
    grads = torch.autograd.grad(
        [y for y, _ in outputs], [x for x, _ in inputs], v, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    with torch.no_grad():
        parts = [grad * (x - x_0) for grad, (x, x_0) in zip(grads, inputs, strict=True)]
        gap = sum(float((w * (y - y_0)).sum()) for w, (y, y_0) in zip(v, outputs, strict=True))
        gap -= sum(float(part.sum()) for part in parts)
        size = sum(float((w * (y.abs() + y_0.abs())).abs().sum()) for w, (y, y_0) in zip(v, outputs, strict=True))
        size += sum(float(part.abs().sum()) for part in parts)
    return abs(gap) / size if size else 0.0


class _Suspects(DifferenceRules):
    """Names what no rule knows: functions that are not affine, and values that have lost their gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.not_affine: list[str] = []
        self.without_gradient: list[str] = []

    def __torch_function__(self, func: Function, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        carries = bool(activations((args, kwargs or {})))
        result = super().__torch_function__(func, types, args, kwargs)
        if carries and isinstance(result, Tensor) and not result.requires_grad and not _is_a_question(func):
            self.without_gradient.append(_name(func))
        return result

    def unruled(self, func: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not _is_affine(func, args, kwargs):
            self.not_affine.append(_name(func))
        return func(*args, **kwargs)


def _is_a_question(func: Function) -> bool:
    return getattr(func, "__name__", "") in ("__get__", "size", "stride", "dim", "numel")


def _name(func: Function) -> str:
    try:
        return resolve_name(func) or str(getattr(func, "__name__", func))
    except Exception:  # of functions that are not torch's own
        return str(getattr(func, "__name__", func))


def _is_affine(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """f(x + h) + f(x - h) = 2 f(x), for a random h of the size of x."""
    found = [z.detach() for z in activations((args, kwargs))]
    generator = torch.Generator().manual_seed(0)
    steps = [
        torch.randn(z.shape, generator=generator, dtype=z.dtype, device="cpu").to(z) * (1 + z.abs()) for z in found
    ]

    def values(sign: float) -> list[Tensor]:
        points = [z + sign * h for z, h in zip(found, steps, strict=True)]
        first = points[0].clone()
        with torch.no_grad():
            result = at(func, args, kwargs, [first, *points[1:]])
        kept: list[Tensor] = []
        tree_map_only(Tensor, kept.append, first if result is None else result)
        return [z for z in kept if z.is_floating_point() or z.is_complex()]

    try:
        triples = list(zip(values(1.0), values(0.0), values(-1.0), strict=True))
    except (RuntimeError, TypeError, ValueError, IndexError):  # it does not bear other values
        return False
    tolerance = torch.finfo(found[0].dtype).eps ** 0.5
    for up, here, down in triples:
        finite = up.isfinite() & here.isfinite() & down.isfinite()
        bend, size = (up + down - 2 * here)[finite].abs().sum(), (up.abs() + down.abs() + here.abs())[finite].sum()
        if not bool(bend <= tolerance * size):
            return False
    return True


def _foreign_nodes(outputs: Sequence[Tensor]) -> list[str]:
    """Custom autograd functions, whose inside no mode sees."""
    waiting = [y.grad_fn for y in outputs if y.grad_fn is not None]
    met: set[Any] = set()
    names: list[str] = []
    while waiting:
        node = waiting.pop()
        if node in met:
            continue
        met.add(node)
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            names.append(type(node).__name__.removesuffix("Backward"))
        waiting += [following for following, _ in node.next_functions if following is not None]
    return names


def culprits(run: Callable[[DifferenceRules], Sequence[Tensor]]) -> str:
    """Which functions a network calls that have no rule and are not affine; or what else may have hidden a difference.

    Args:
        run: runs the network under a mode, on tensors that carry a gradient, and gives its outputs.

    Example:
        >>> def run(mode):
        ...     with mode:
        ...         return [torch.randn(4, 3, requires_grad=True).cumprod(1)]
        >>> culprits(run)
        'there is no rule for torch.Tensor.cumprod'
    """
    seen = _Suspects()
    foreign = [name for name in _foreign_nodes(run(seen)) if name != "_Given"]
    unknown = list(dict.fromkeys([*seen.not_affine, *foreign]))
    if unknown:
        return f"there is no rule for {', '.join(unknown)}"
    lost = list(dict.fromkeys(seen.without_gradient))
    if lost:
        return f"what depends on the input without a gradient: {', '.join(lost)}"
    return "no function in particular: rounding (use double precision), chance, or activation checkpointing"
