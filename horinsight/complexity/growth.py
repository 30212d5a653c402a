"""How the cost of a gⁿConv grows: with its order, towards the bound, and with the map, beside self-attention."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from horinsight.complexity.bound import macs_bound
from horinsight.complexity.closed_form import attention_macs, gnconv_macs
from horinsight.results import Result


@dataclass(frozen=True, eq=False, repr=False)
class OrderGrowth(Result):
    """Cost of a gⁿConv over its bound (Eq. 3.6), by order.

    Attributes:
        dim: C.
        kernel_size: K.
        height: H.
        width: W.
        orders: (N,) n.
        macs: (N,) multiply-accumulates.
        bound: what they approach from below.
    """

    dim: int
    kernel_size: int
    height: int
    width: int
    orders: np.ndarray
    macs: np.ndarray
    bound: float


@dataclass(frozen=True, eq=False, repr=False)
class SizeGrowth(Result):
    """Cost on square maps of growing side: a gⁿConv, its bound, and global self-attention of the same width.

    Attributes:
        dim: C.
        order: n.
        kernel_size: K.
        sides: (N,) H = W.
        gnconv: (N,) multiply-accumulates, linear in the number of positions.
        bound: (N,) right side of Eq. 3.6.
        attention: (N,) 4HWC² + 2(HW)²C, quadratic in the number of positions.
    """

    dim: int
    order: int
    kernel_size: int
    sides: np.ndarray
    gnconv: np.ndarray
    bound: np.ndarray
    attention: np.ndarray


def order_growth(dim: int, *, kernel_size: int = 7, side: int = 14, max_order: int | None = None) -> OrderGrowth:
    """Cost for n = 1, 2, …, as long as 2^{n-1} divides C.

    Args:
        dim: C.
        kernel_size: K.
        side: H = W.
        max_order: highest n; as far as C goes when None.

    Example:
        >>> growth = order_growth(64)
        >>> growth.orders.tolist(), bool((growth.macs < growth.bound).all())
        ([1, 2, 3, 4, 5, 6, 7], True)
    """
    if dim < 1 or (max_order is not None and max_order < 1):
        raise ValueError(f"order_growth expects dim and max_order of at least 1, got {dim} and {max_order}.")
    limit = max_order or dim.bit_length()
    orders = [n for n in range(1, limit + 1) if dim % 2 ** (n - 1) == 0]
    macs = [gnconv_macs(dim, n, kernel_size, side, side) for n in orders]
    bound = float(macs_bound(dim, kernel_size, side, side))
    return OrderGrowth(dim, kernel_size, side, side, np.array(orders), np.array(macs, dtype=float), bound)


def size_growth(dim: int, order: int, *, sides: Sequence[int], kernel_size: int = 7) -> SizeGrowth:
    """Cost on maps of several sizes.

    Args:
        dim: C.
        order: n.
        sides: H = W, one or more.
        kernel_size: K.

    Example:
        >>> growth = size_growth(384, 5, sides=[14, 28])
        >>> (growth.gnconv[1] / growth.gnconv[0]).round(2), (growth.attention[1] / growth.attention[0]).round(2)
        (np.float64(4.0), np.float64(6.44))
    """
    return SizeGrowth(
        dim,
        order,
        kernel_size,
        np.array(sides),
        np.array([gnconv_macs(dim, order, kernel_size, side, side) for side in sides], dtype=float),
        np.array([float(macs_bound(dim, kernel_size, side, side)) for side in sides]),
        np.array([attention_macs(dim, side, side) for side in sides], dtype=float),
    )
