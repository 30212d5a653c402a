"""Several inputs and further arguments of a model, as captum takes them, for analyses that know of one input alone."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class HeldInputs(nn.Module):
    """A model as a function of one of its inputs, the others held as they are for one example.

    Args:
        model: called as `model(*inputs, *additional_forward_args)`.
        arguments: for one example, tensors with a batch of 1.
        index: of the input that is free.

    Example:
        >>> shifted = HeldInputs(nn.Bilinear(2, 2, 1), (torch.ones(1, 2), torch.ones(1, 2)), 1)
        >>> shifted(torch.zeros(5, 2)).shape
        torch.Size([5, 1])
    """

    def __init__(self, model: Callable[..., Tensor], arguments: tuple[Any, ...], index: int) -> None:
        super().__init__()
        if isinstance(model, nn.Module):
            self.model = model
        else:
            self._called = model
        self.arguments, self.index = arguments, index

    def forward(self, x: Tensor) -> Tensor:
        held = [
            value.expand(len(x), *value.shape[1:]) if isinstance(value, Tensor) and value.ndim else value
            for value in self.arguments
        ]
        held[self.index] = x
        model = self.model if "model" in self._modules else self._called
        output: Tensor = model(*held)
        return output


Explain = Callable[[Any, Tensor, int], Tensor]  # model of one input, that input (B, ...), first example → attributions


def explained_inputs(
    model: Callable[..., Tensor],
    inputs: Tensor | tuple[Tensor, ...],
    additional_forward_args: Any,
    explain: Explain,
    *,
    every: bool,
) -> Tensor | tuple[Tensor, ...]:
    """Attributions by `explain`, in captum's form: a tensor for a tensor, a tuple for a tuple.

    A model of one input is explained as it is, all examples at once; one of several, or with further arguments, example
    by example, with all but one input held.

    Args:
        model: any.
        inputs: (B, ...), or several of them.
        additional_forward_args: one, or a tuple; tensors with an entry for each example.
        explain: of one input.
        every: whether each input is explained, not the first alone.

    Raises:
        ValueError: no tensors, or batches of different lengths.
    """
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    if not given or not all(isinstance(x, Tensor) and x.ndim for x in given):
        kinds = ", ".join(type(x).__name__ for x in given) or "none"
        raise ValueError(f"inputs expects a tensor (B, ...), or a tuple of them, got {kinds}.")
    further = () if additional_forward_args is None else additional_forward_args
    further = further if isinstance(further, tuple) else (further,)
    lengths = {len(x) for x in (*given, *further) if isinstance(x, Tensor) and x.ndim}
    if len(lengths) > 1:
        raise ValueError(f"inputs and additional_forward_args expect one batch, got {sorted(lengths)} examples.")
    asked = range(len(given)) if every else range(1)
    if len(given) == 1 and not further:
        found = [explain(model, given[0], 0)]
    else:
        found = [_one_by_one(model, (*given, *further), index, explain) for index in asked]
    contiguous = tuple(attributions.contiguous() for attributions in found)  # captum views them by samples
    return contiguous if isinstance(inputs, tuple) else contiguous[0]


def _one_by_one(model: Callable[..., Tensor], values: tuple[Any, ...], index: int, explain: Explain) -> Tensor:
    parts = []
    for example in range(len(values[index])):
        one = tuple(
            value[example : example + 1] if isinstance(value, Tensor) and value.ndim else value for value in values
        )
        parts.append(explain(HeldInputs(model, one, index), one[index], example))
    return torch.cat(parts)
