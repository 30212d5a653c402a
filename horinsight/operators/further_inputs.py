"""A mixer that is called with more than its features (a mask, a size, a table) as a function of these alone."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class _Here:
    """Stands in a call for what is differentiated; the class itself, which deep copies leave as it is."""


class _HeldInputs(nn.Module):
    """The module on another first tensor, everything else of a call as it was."""

    def __init__(self, module: nn.Module, first: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        super().__init__()
        self.module = module
        self.args = tuple(_Here if value is first else value for value in args)
        self.kwargs = {name: _Here if value is first else value for name, value in kwargs.items()}

    def forward(self, x: Tensor) -> Any:
        return self.module(
            *(_filled(value, x) for value in self.args),
            **{name: _filled(value, x) for name, value in self.kwargs.items()},
        )


def _filled(value: Any, x: Tensor) -> Any:
    """x in its place; numbers in its precision, indices and masks of bits as they are."""
    if value is _Here:
        return x
    return value.to(x.dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def as_function_of_first_tensor(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> nn.Module:
    """A module with everything but its first tensor, wherever that stands in the call, held as it was.

    Args:
        module: any module.
        args: positional arguments of the call.
        kwargs: keyword arguments of the call.

    Returns:
        The module itself where it was called with one tensor, and otherwise with its defaults.

    Raises:
        ValueError: a further tensor has an entry for each image of the batch, so that it cannot be held for all.

    Example:
        >>> import torch
        >>> as_function_of_first_tensor(nn.Bilinear(2, 2, 1), (torch.zeros(1, 2), torch.ones(1, 2)), {})(
        ...     torch.zeros(1, 2)
        ... ).shape
        torch.Size([1, 1])
    """
    if len(args) == 1 and not kwargs:
        return module
    everything = [*args, *kwargs.values()]
    first = next(value for value in everything if isinstance(value, Tensor))
    for value in everything:
        if value is not first and isinstance(value, Tensor) and value.ndim and len(value) == len(first) > 1:
            raise ValueError(
                f"{type(module).__name__} is called with a further tensor of shape {tuple(value.shape)}, which has an "
                "entry for each image and cannot be held fixed: give one image at a time."
            )
    signature = inspect.signature(type(module).forward)
    given = signature.bind(module, *args, **kwargs).arguments
    said = [name for name, value in given.items() if value is not signature.parameters[name].default]
    takes_it_first = list(signature.parameters)[1:2] == said[1:]
    by_place = takes_it_first and signature.parameters[said[1]].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    return module if by_place else _HeldInputs(module, first, args, kwargs)
