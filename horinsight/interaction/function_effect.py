"""Interaction effects of plain functions of feature vectors, on which published yardsticks are defined."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from horinsight.capture import evaluation
from horinsight.interaction.derivative_graph import operators_met
from horinsight.interaction.effect_interval import effect_intervals
from horinsight.interaction.graph_cuts import check_cuts
from horinsight.interaction.preconditions import missing_derivatives_explained
from horinsight.operators.differentiable import check_differentiable
from horinsight.stats import Estimate, RunningMean

Function = Callable[[Tensor], Tensor]


def mixed_partials(function: Function, inputs: Tensor, index_set: Sequence[int]) -> Tensor:
    """∂^|I| f / ∂x_I at each input.

    Args:
        function: maps (N, d) to (N,), row by row.
        inputs: (N, d), float64 or float32.
        index_set: I, distinct features.

    Returns:
        (N,); exactly 0 where the derivatives end before all of I is used. What lies on a kink of f (as of |x1 + x2|) is
        not seen; a network of layers with kinks is therefore refused.

    Raises:
        ValueError: wrong shapes; an index set that is empty, repeats a feature or names one that is not there; a
            network with kinks such as ReLU's, because its interactions lie on them, where no derivative sees them.

    Example:
        >>> mixed_partials(lambda x: x[:, 0] * x[:, 1] ** 2, torch.tensor([[1.0, 3.0]]), [0, 1])
        tensor([6.])
    """
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        kind = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
        raise ValueError(f"mixed_partials expects inputs as a tensor of float32 or float64, got {kind}.")
    if inputs.ndim != 2 or not len(inputs):
        raise ValueError(f"mixed_partials expects inputs of shape (N, d), N of at least 1, got {tuple(inputs.shape)}.")
    d = inputs.shape[1]
    if not index_set or len(set(index_set)) != len(index_set) or not all(0 <= index < d for index in index_set):
        raise ValueError(f"An index set expects distinct features from 0 to {d - 1}, got {list(index_set)}.")
    check_differentiable(function)
    lent = evaluation(function) if isinstance(function, nn.Module) else nullcontext()
    with torch.inference_mode(False), torch.enable_grad(), lent:
        x = inputs.detach().clone().requires_grad_()
        value = function(x)
        if value.shape != inputs.shape[:1]:
            raise ValueError(f"mixed_partials expects a function from (N, d) to (N,), got {tuple(value.shape)}.")
        check_cuts(function, x)
        met = operators_met(value)
        if len(index_set) > 1 and met.layers and (met.kinks or met.custom):
            raise ValueError(
                f"The network has kinks or custom operators ({', '.join(met.kinks + met.custom)}), and its "
                "interactions lie there, where no derivative sees them: use a smooth activation such as GELU or "
                "softplus."
            )
        with missing_derivatives_explained():
            for index in index_set:
                gradient = None
                if value.requires_grad:
                    (gradient,) = torch.autograd.grad(value.sum(), x, create_graph=True, allow_unused=True)
                if gradient is None:
                    return torch.zeros_like(inputs[:, 0])
                value = gradient[:, index]
    return value.detach()


def interaction_effects(
    function: Function | Sequence[Function], inputs: Tensor, index_sets: Sequence[Sequence[int]]
) -> dict[tuple[int, ...], Estimate]:
    """IE_I = E[(∂^|I| f / ∂x_I)²] over the inputs, for each index set I.

    Zero exactly when no derivative sees the features of I interact: no term of f holds all of them, or only a kink, a
    comparison or a rounding does (max(x1, x2) gives 0). The effects are functional: f as it is, a module in eval mode.
    Of one function the interval knows that squares are heavy-tailed and never negative (`effect_intervals`); Student's
    would hold the truth much less often. For several functions, such as networks trained from different seeds, the
    estimate is the mean of the products of
    two different ones, E[D_a D_b] with a ≠ b: what a single network gets wrong by itself averages out instead of adding
    up.

    Args:
        function: f, from (N, d) to (N,) row by row; or several.
        inputs: (N, d), drawn from the distribution that E is over.
        index_sets: the sets I.

    Returns:
        I (sorted) → estimate with its standard error over the inputs, and its interval over inputs like these.

    Raises:
        ValueError: see `mixed_partials`.

    Example:
        >>> x = torch.rand(100, 3, dtype=torch.float64)
        >>> effects = interaction_effects(lambda x: 2 * x[:, 0] * x[:, 1] + x[:, 2], x, [(0, 1), (0, 2)])
        >>> {I: estimate.value for I, estimate in effects.items()}
        {(0, 1): 4.0, (0, 2): 0.0}

    Sources: Ai and Norton 2003; Lerman et al. 2021 (arXiv 2006.08601).
    """
    functions = [function] if callable(function) else list(function)
    if not functions:
        raise ValueError("interaction_effects expects at least one function.")
    if any(isinstance(index_set, int) for index_set in index_sets):
        raise ValueError(f"interaction_effects expects a list of index sets such as [(0, 1)], got {index_sets}.")
    effects = {}
    for index_set in index_sets:
        D = np.stack([mixed_partials(f, inputs, index_set).double().numpy() for f in functions])
        n = len(functions)
        squares = np.square(D).sum(0)
        if not np.isfinite(D).all():
            raise ValueError(f"Derivatives for the set {tuple(index_set)} are NaN or infinite at some of the inputs.")
        products = squares / n if n == 1 else (np.square(D.sum(0)) - squares) / (n * (n - 1))
        mean = RunningMean()
        mean.update(products)
        effects[tuple(sorted(index_set))] = replace(mean.compute(), ends=_ends(D[0]) if n == 1 else None)
    return effects


def _ends(D: np.ndarray) -> tuple[float, float]:
    """Of the 95 % interval of E[D²], from draws (N,)."""
    low, high = effect_intervals(D[:, None], np.zeros(len(D)))
    return float(low[0]) ** 2, float(high[0]) ** 2
