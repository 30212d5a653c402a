"""How alike two maps are: the order of their cells, and which cells are their highest."""

import numpy as np


def rank_correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each row of a with that of b: Pearson's of the ranks, ties with their mean rank.

    Args:
        a: (B, N).
        b: (B, N).

    Returns:
        (B,), NaN where one of the rows is constant: it has no order.

    Example:
        >>> rank_correlations(np.array([[1.0, 2.0, 9.0], [0.0, 0.0, 0.0]]), np.array([[1.0, 4.0, 5.0]] * 2)).tolist()
        [1.0, nan]
    """
    from scipy.stats import rankdata  # here: a start of the program is not to wait for it

    # twice the ranks from their middle: whole numbers, whose sums are exact
    u, v = (2 * rankdata(values, axis=-1) - (values.shape[-1] + 1) for values in (a, b))
    norms = np.square(u).sum(-1) * np.square(v).sum(-1)
    correlations: np.ndarray = np.where(norms > 0, (u * v).sum(-1) / np.sqrt(np.where(norms > 0, norms, 1)), np.nan)
    return correlations


def top_overlaps(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    """Which part of the highest cells of each row of a are among the highest of b: Σ w_a w_b / n.

    n = round(share · N), at least 1; w is 1 above the n-th highest value, 0 below it, and among the cells that tie with
    it each has the same part of what is left of n. This is what is expected where each map breaks its ties at random by
    itself: n / N with a constant map, as between two maps that know nothing of one another, and below 1 of a map with
    itself where its n-th highest value has ties.

    Args:
        a: (B, N).
        b: (B, N).
        share: of the cells.

    Raises:
        ValueError: a share that is not above 0 and at most 1.

    Example:
        >>> top_overlaps(np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[1.0, 3.0, 2.0, 4.0]]), 0.5).tolist()
        [0.5]
    """
    n = top_count(a.shape[-1], share)
    overlaps: np.ndarray = (_membership(a, n) * _membership(b, n)).sum(-1) / n
    return overlaps


def top_count(num_cells: int, share: float) -> int:
    """n = round(share · N), at least 1."""
    if not 0 < share <= 1:
        raise ValueError(f"The share of highest cells is expected above 0 and at most 1, got {share}.")
    return max(1, round(share * num_cells))


def _membership(values: np.ndarray, n: int) -> np.ndarray:
    threshold = np.partition(values, -n, axis=-1)[..., -n, None]
    above, tied = values > threshold, values == threshold
    weights: np.ndarray = above + tied * (n - above.sum(-1, keepdims=True)) / tied.sum(-1, keepdims=True)
    return weights
