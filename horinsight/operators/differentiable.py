"""What must hold of an operator before its derivatives say anything, whatever is asked of them."""

import torch
from torch import Tensor, nn

from horinsight.operators.positions import Operator


def check_finite(output: Tensor) -> None:
    """Refuse what an operator makes of its points where some of it is no number.

    Raises:
        ValueError: it is NaN or infinite.
    """
    if not output.isfinite().all():
        raise ValueError(
            "An operator is expected whose output is finite, got NaN or infinity: are its weights whole, and is the "
            "precision wide enough for them?"
        )


def check_samples(operator: Operator, x: Tensor, output: Tensor) -> None:
    """An operator that mixes the samples of a batch, or draws at random, has no derivatives of its own."""
    with torch.no_grad():
        check_apart(output_of_two(operator, x), output)


def output_of_two(operator: Operator, x: Tensor) -> Tensor:
    """What an operator makes of `two_samples`.

    Raises:
        ValueError: it takes one sample alone.
    """
    try:
        return operator(two_samples(x))
    except (RuntimeError, IndexError) as error:
        if len(x) > 1 or isinstance(error, torch.OutOfMemoryError):
            raise
        raise ValueError(
            "An operator is expected that takes several samples in one batch, but with two instead of one it fails "
            f"({str(error).splitlines()[0]}): is there a batch size of 1 in its shapes?"
        ) from error


def two_samples(x: Tensor) -> Tensor:
    """The first point of x, and another one beside it."""
    return torch.cat([x[:1], 0.5 * x[:1] + 0.25])


def check_apart(beside: Tensor, output: Tensor) -> None:
    """Refuse an operator whose first output in `two_samples` is not that in another batch that begins with the point.

    Raises:
        ValueError: they differ, or are no numbers.
    """
    check_finite(output)
    if not torch.allclose(beside[:1], output[:1], rtol=1e-3, atol=1e-3 * float(output.abs().max())):
        raise ValueError(
            "An operator is expected that treats each sample of a batch by itself and draws nothing at random, but the "
            "output for one sample changes with the others: is there a mean over the batch, a norm in training mode or "
            "a dropout in it?"
        )


def check_gradients(operator: Operator, x: Tensor, output: Tensor) -> None:
    """An operator that cuts the graph (`torch.no_grad` inside) would look like a constant: of order 0."""
    if operator(x.clone().requires_grad_()).requires_grad:
        return
    with torch.no_grad():
        moved = operator(1.25 * x + 0.5)
    if not torch.equal(moved, output):
        raise ValueError(
            "The operator's output changes with x but carries no gradient: is there a torch.no_grad or a detach in it?"
        )


def check_differentiable(operator: object) -> None:
    """Quantised arithmetic cuts the graph: what passes through it would count as a constant.

    Raises:
        ValueError: the operator holds quantised weights.
    """
    state = operator.state_dict() if isinstance(operator, nn.Module) else {}
    values = [part for value in state.values() for part in (value if isinstance(value, tuple) else (value,))]
    if any(isinstance(value, Tensor) and value.is_quantized for value in values):
        raise ValueError(
            f"{type(operator).__name__} holds quantised weights, through which nothing can be differentiated: measure "
            "the model as it was before it was quantised."
        )
