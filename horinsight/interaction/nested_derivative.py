"""Mixed derivatives of any operator on maps by nested reverse mode, on one scalar per sample.

Each derivative is taken of the one before, so that a chain i = j_0, j_1, …, j_K gives D_0..D_K at once. Once the scalar
no longer depends on x the graph is disconnected: this and all further derivatives are structural zeros.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Operator = Callable[[Tensor], Tensor]


def receptive_field(operator: Operator, x: Tensor, cells: Tensor, cotangents: Tensor) -> Tensor:
    """Ω_i: the cells that the output at one position depends on, to first order at x.

    Args:
        operator: maps (N, C, H, W) to (N, C', H, W).
        x: operating points (N, C, H, W).
        cells: (N,) position i of each sample, row * W + column.
        cotangents: (N, C') weights of the output channels.

    Returns:
        (N, H * W) bool.
    """
    x = x.clone().requires_grad_()
    s = _at(operator(x), cells, cotangents)
    if not s.requires_grad:
        return torch.zeros(len(x), x[0, 0].numel(), dtype=torch.bool)
    (gradient,) = torch.autograd.grad(s.sum(), x)
    return gradient.abs().sum(1).flatten(1) > 0


def mixed_derivatives(operator: Operator, x: Tensor, cells: Tensor, directions: Tensor, cotangents: Tensor) -> Tensor:
    """u·D_k for k = 0..K of given chains, by nested reverse mode on one scalar per sample.

    D_k = ∂^{k+1} F(x + Σ_t ε_t e_{j_t}⊗v_t)_{j_0} / ∂ε_0 … ∂ε_k at ε = 0.

    Args:
        operator: F, maps (N, C, H, W) to (N, C', H, W), sample by sample.
        x: operating points (N, C, H, W).
        cells: (N, K + 1) distinct locations j_0, …, j_K, row * W + column; the output is read at j_0 = i.
        directions: (N, K + 1, C) channel directions v_t.
        cotangents: (N, C') weights u of the output channels.

    Returns:
        (N, K + 1), float64; 0.0 from the first structural zero on.
    """
    rows = torch.arange(len(x))

    def along(k: int, gradient: Tensor) -> Tensor:
        return (gradient.flatten(2)[rows, :, cells[:, k]] * directions[:, k]).sum(1)

    return _nested(operator, x, cells[:, 0], cotangents, along, directions.shape[1])


def dense_derivatives(operator: Operator, x: Tensor, cells: Tensor, directions: Tensor, cotangents: Tensor) -> Tensor:
    """(k + 1)-th derivatives for k = 0..K along directions that move all locations and channels at once.

    Args:
        operator: as in `mixed_derivatives`.
        x: operating points (N, C, H, W).
        cells: (N,) where the output is read.
        directions: (N, K + 1, C, H, W).
        cotangents: (N, C') weights of the output channels.

    Returns:
        (N, K + 1), float64; column k vanishes for a polynomial of degree k or less.
    """

    def along(k: int, gradient: Tensor) -> Tensor:
        return (gradient * directions[:, k]).flatten(1).sum(1)

    return _nested(operator, x, cells, cotangents, along, directions.shape[1])


def _at(output: Tensor, cells: Tensor, cotangents: Tensor) -> Tensor:
    return (output.flatten(2)[torch.arange(len(output)), :, cells] * cotangents).sum(1)


def _nested(
    operator: Operator,
    x: Tensor,
    cells: Tensor,
    cotangents: Tensor,
    along: Callable[[int, Tensor], Tensor],
    num_derivatives: int,
) -> Tensor:
    D = torch.zeros(len(x), num_derivatives, dtype=torch.float64)
    x = x.clone().requires_grad_()
    s = _at(operator(x), cells, cotangents)
    for k in range(num_derivatives):
        if not s.requires_grad:
            break  # s does not depend on x any more: this and all further derivatives are structural zeros
        (gradient,) = torch.autograd.grad(s.sum(), x, create_graph=True, allow_unused=True)
        if gradient is None:
            break
        s = along(k, gradient)
        D[:, k] = s.detach()
    return D
