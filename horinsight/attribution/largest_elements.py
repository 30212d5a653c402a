"""Maxima over axes and windows: functions of torch in the words of DeepLIFT's rule for the largest element."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from horinsight.attribution.difference_rules import Function, Pairs, Rule, selected

_POOLS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    **{f"max_pool{n}d": getattr(torch.nn.functional, f"max_pool{n}d_with_indices") for n in (1, 2, 3)},
    **{
        f"adaptive_max_pool{n}d": getattr(torch.nn.functional, f"adaptive_max_pool{n}d_with_indices") for n in (1, 2, 3)
    },
}


def _among_cells(x: Tensor, index: Tensor) -> Tensor:
    return x.flatten(2).gather(2, index.flatten(2)).reshape(index.shape)


def _pool(num_axes: int, pool: Callable[..., tuple[Tensor, Tensor]], with_indices: bool) -> Rule:
    def rule(pairs: Pairs, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x = args[0] if args else kwargs["input"]
        if x.ndim != num_axes + 2:
            return NotImplemented
        with torch.no_grad():
            found = pool(*args, **{name: value for name, value in kwargs.items() if name != "return_indices"})
        largest = selected(pairs, x, found[1], _among_cells)
        return (largest, found[1]) if with_indices else largest

    return rule


def _along(pairs: Pairs, x: Tensor, dims: Sequence[int], keepdim: bool) -> tuple[Tensor, Tensor]:
    """The largest along some axes, and where it is."""
    dims = sorted(dim % x.ndim for dim in dims)
    last = x.movedim(dims, list(range(-len(dims), 0))).flatten(-len(dims))
    index = last.detach().max(-1, keepdim=True).indices
    largest = selected(pairs, last, index, lambda z, i: z.gather(-1, i)).squeeze(-1)
    index = index.squeeze(-1)
    if keepdim:
        for dim in dims:
            largest, index = largest.unsqueeze(dim), index.unsqueeze(dim)
    return largest, index


def _extreme(sign: int) -> Rule:
    """max(dim) and min(dim), with their indices; of two tensors, and of all elements, it is not for this."""

    def rule(pairs: Pairs, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        def extreme(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
            if not isinstance(dim, int):
                return NotImplemented
            largest, index = _along(pairs, sign * input, [dim], keepdim)
            return (torch.return_types.max if sign > 0 else torch.return_types.min)((sign * largest, index))

        return NotImplemented if "other" in kwargs else extreme(*args, **kwargs)

    return rule


def _extreme_values(sign: int) -> Rule:
    def rule(pairs: Pairs, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        def extreme(input: Tensor, dim: Any = (), keepdim: bool = False) -> Any:
            dims = [dim] if isinstance(dim, int) else list(dim)
            return sign * _along(pairs, sign * input, dims, keepdim)[0] if dims else NotImplemented

        return extreme(*args, **kwargs)

    return rule


LARGEST_ELEMENTS: dict[str, Rule] = {
    "max": _extreme(1),
    "min": _extreme(-1),
    "amax": _extreme_values(1),
    "amin": _extreme_values(-1),
    **{name: _pool(int(name[-2]), pool, False) for name, pool in _POOLS.items()},
    **{f"{name}_with_indices": _pool(int(name[-2]), pool, True) for name, pool in _POOLS.items()},
}
