"""Mixed derivatives of any operator on positions by nested reverse mode, on one scalar per sample.

Each derivative is taken of the one before, so that a chain i = j_0, j_1, …, j_K gives D_0..D_K at once. Once the scalar
no longer depends on x the graph is disconnected: this and all further derivatives are structural zeros.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from horinsight.cancellation import pause
from horinsight.operators.positions import Operator

Along = Callable[[int, Tensor], Tensor]  # (k, gradient (N, C, ...)) → the k-th direction applied to it, (N,)


@dataclass(frozen=True, eq=False)
class NestedDerivatives:
    """Derivatives of one scalar per sample, each of the one before.

    Attributes:
        values: (N, K + 1), float64.
        num_connected: how many of them, from the first, have a graph that leads to x. The others are structural zeros:
            the derivative before does not depend on x, whatever the numbers. A 0.0 among the connected ones is a number
            like any other: exact (weights of zero, a dead ReLU, cells that do not interact) or too small for its dtype.
    """

    values: Tensor
    num_connected: int


def receptive_field(operator: Operator, x: Tensor, outputs: Tensor, cotangents: Tensor) -> Tensor:
    """Ω_i: the positions that the output at one position depends on, to first order at x.

    Args:
        operator: maps (N, C, P) to (N, C', P').
        x: operating points (N, C, P); a map is flattened alike.
        outputs: (N,) position at which each sample's output is read.
        cotangents: (N, C') weights of the output channels.

    Returns:
        (N, P) bool.
    """
    x = x.clone().requires_grad_()
    s = _at(operator(x), outputs, cotangents)
    if not s.requires_grad:
        return torch.zeros(len(x), x[0, 0].numel(), dtype=torch.bool, device=x.device)
    (gradient,) = torch.autograd.grad(s.sum(), x, allow_unused=True, materialize_grads=True)
    return gradient.abs().sum(1).flatten(1) > 0


def mixed_derivatives(
    operator: Operator,
    x: Tensor,
    cells: Tensor,
    directions: Tensor,
    cotangents: Tensor,
    *,
    outputs: Tensor | None = None,
) -> Tensor:
    """u·D_k for k = 0..K of given chains, by nested reverse mode on one scalar per sample.

    D_k = ∂^{k+1} F(x + Σ_t ε_t e_{j_t}⊗v_t)_i / ∂ε_0 … ∂ε_k at ε = 0.

    Args:
        operator: F, maps (N, C, P) to (N, C', P'), or (N, C, H, W) to (N, C', H', W'), sample by sample.
        x: operating points, (N, C, P) or (N, C, H, W).
        cells: (N, K + 1) distinct locations j_0, …, j_K; on a map row * W + column.
        directions: (N, K + 1, C) channel directions v_t.
        cotangents: (N, C') weights u of the output channels.
        outputs: (N,) position i at which the output is read; j_0 when None.

    Returns:
        (N, K + 1), float64; 0.0 from the first structural zero on.
    """
    at = cells[:, 0] if outputs is None else outputs
    return nested_derivatives(operator, x, at, cotangents, along_cells(cells, directions), directions.shape[1]).values


def dense_derivatives(operator: Operator, x: Tensor, outputs: Tensor, directions: Tensor, cotangents: Tensor) -> Tensor:
    """(k + 1)-th derivatives for k = 0..K along directions that move all locations and channels at once.

    Args:
        operator: as in `mixed_derivatives`.
        x: operating points (N, C, P) or (N, C, H, W).
        outputs: (N,) where the output is read.
        directions: (N, K + 1, *x.shape[1:]).
        cotangents: (N, C') weights of the output channels.

    Returns:
        (N, K + 1), float64; column k vanishes for a polynomial of degree k or less.
    """
    along = along_everything(directions)
    return nested_derivatives(operator, x, outputs, cotangents, along, directions.shape[1]).values


def along_cells(cells: Tensor, directions: Tensor) -> Along:
    """Directions (N, K + 1, C) that each move one cell, (N, K + 1)."""
    rows = torch.arange(len(cells), device=cells.device)
    return lambda k, gradient: (gradient.flatten(2)[rows, :, cells[:, k]] * directions[:, k]).sum(1)


def along_everything(directions: Tensor) -> Along:
    """Directions (N, K + 1, C, ...) that move all cells at once."""
    return lambda k, gradient: (gradient * directions[:, k]).flatten(1).sum(1)


def _at(output: Tensor, cells: Tensor, cotangents: Tensor) -> Tensor:
    return (output.flatten(2)[torch.arange(len(output), device=output.device), :, cells] * cotangents).sum(1)


def nested_derivatives(
    operator: Operator,
    x: Tensor,
    outputs: Tensor,
    cotangents: Tensor,
    along: Along,
    num_derivatives: int,
    *,
    exactly: Along | None = None,
    after: Callable[[int], object] | None = None,
) -> NestedDerivatives:
    """Derivatives of u·F(x)_i along one direction after another, by nested reverse mode.

    Args:
        operator: F, as in `mixed_derivatives`.
        x: operating points (N, C, P) or (N, C, H, W).
        outputs: (N,) where the output is read.
        cotangents: (N, C') weights u of the output channels.
        along: the directions, `along_cells` or `along_everything`.
        num_derivatives: K + 1.
        exactly: what to keep of the k-th gradient in place of its component along the k-th direction.
        after: called after each derivative but the last, with k; what it raises ends them.
    """
    D = torch.zeros(len(x), num_derivatives, dtype=torch.float64)
    x = x.clone().requires_grad_()
    s = _at(operator(x), outputs, cotangents)
    for k in range(num_derivatives):
        pause()
        if not s.requires_grad:
            return NestedDerivatives(D, k)
        further = k + 1 < num_derivatives
        (gradient,) = torch.autograd.grad(s.sum(), x, create_graph=further, allow_unused=True)
        if gradient is None:
            return NestedDerivatives(D, k)
        if exactly is not None:
            D[:, k] = exactly(k, gradient)
        if further or exactly is None:
            s = along(k, gradient)
        if exactly is None:
            D[:, k] = s.detach()
        if further and after is not None:
            after(k)
    return NestedDerivatives(D, num_derivatives)
