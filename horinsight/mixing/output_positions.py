"""Where the positions of an operator's output lie, which may differ from its input in layout and number."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from horinsight.operators.positions import Layout, Positions, positions_of

Queries = Sequence[int | Sequence[int]]

NOT_FINITE = "NaN or infinite: are x and the weights finite, and does the operator have a derivative there?"


def check_output(output: Any) -> None:
    """Refuse an output of two samples that has no positions.

    Raises:
        ValueError: it is not one tensor of maps or tokens, finite.
    """
    if not isinstance(output, Tensor):
        raise ValueError(f"influence expects an operator that gives one tensor, got {type(output).__name__}.")
    if output.ndim not in (3, 4) or 0 in output.shape or len(output) != 2:
        raise ValueError(
            "influence expects an operator whose output has positions, (B, C, H, W), (B, H, W, C) or (B, N, C), got "
            f"{tuple(output.shape)} for a batch of 2: take the features before they are pooled."
        )
    if not output[0].isfinite().all():
        raise ValueError(f"The output at x is {NOT_FINITE}")


def output_positions(
    output: Tensor,
    positions: Positions,
    ndim: int,
    grid: tuple[int, int] | None,
    layout: Layout | None,
    output_grid: tuple[int, int] | None,
) -> tuple[Positions, tuple[int, ...]]:
    """How the positions of an output lie, and the shape of the map that they form without a prefix.

    Args:
        output: with positions.
        positions: of the input.
        ndim: of the input.
        grid: of the input's tokens.
        layout: of the output; that of the input, or by the number of dimensions where it differs, when None.
        output_grid: of the output's tokens; `grid` where there are as many tokens as in the input, when None.
    """
    layout = layout or (positions.layout if output.ndim == ndim else None)
    found = positions_of(output, layout)
    if output.ndim == 4:
        return found, found.shape
    output_grid = output_grid or (grid if found.num_total == positions.num_total else None)
    return positions_of(output, layout, output_grid), output_grid or found.shape


def query_cells(queries: Queries | None, shape: tuple[int, ...]) -> np.ndarray:
    """Queries as (queries, number of sides of the map); all positions when None.

    Args:
        queries: (row, column) each on a map, numbers for a row of tokens.
        shape: of the positions.

    Raises:
        ValueError: none, or one that is not on the map.

    Example:
        >>> query_cells([(1, 2)], (3, 3)).tolist(), query_cells(None, (2,)).tolist()
        ([[1, 2]], [[0], [1]])
    """
    if queries is None:
        return np.indices(shape).reshape(len(shape), -1).T
    size = "x".join(map(str, shape))
    cells = [(query,) if isinstance(query, int) else tuple(query) for query in queries]
    for cell in cells:
        inside = len(cell) == len(shape) and all(0 <= at < side for at, side in zip(cell, shape, strict=True))
        if not inside:
            what = "a row and a column" if len(shape) == 2 else "one number"
            raise ValueError(f"A query expects {what} on the output's map of {size}, counted from 0, got {cell}.")
    if not cells:
        raise ValueError("Expected at least one query, got none.")
    return np.array(cells, dtype=np.int64)
