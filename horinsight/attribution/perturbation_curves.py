"""Insertion and deletion: what a model still says while cells of a picture go, or come, in a map's order."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from horinsight.attribution.map_cells import CellGrid
from horinsight.cancellation import pause

Score = Callable[[Tensor, Tensor], Tensor]  # logits (n, classes), targets (n,) → (n,)
DRAW = 3  # of the numbers that seed a draw: which draw it is


def probability(logits: Tensor, targets: Tensor) -> Tensor:
    """(n,), softmax of the target.

    Example:
        >>> probability(torch.zeros(1, 4), torch.tensor([2])).item()
        0.25
    """
    return logits.softmax(1).gather(1, targets[:, None])[:, 0]


def cell_order(values: np.ndarray, *, seed: int, index: int) -> np.ndarray:
    """Cells from the highest value to the lowest; ties in an order that is drawn for the picture.

    The draw knows the seed and the picture, not the map: two maps with the same ties break them alike.

    Args:
        values: (cells,).
        seed: of the draw.
        index: number of the picture.

    Example:
        >>> cell_order(np.array([0.0, 2.0, 1.0]), seed=0, index=0).tolist()
        [1, 2, 0]
    """
    ties = np.random.default_rng([seed, DRAW, index]).permutation(len(values))
    return np.lexsort((ties, -values))


def step_counts(num_cells: int, steps: int) -> np.ndarray:
    """(steps + 1,), how many cells have gone after each step: round(k · cells / steps).

    Raises:
        ValueError: more steps than cells.

    Example:
        >>> step_counts(10, 4).tolist()
        [0, 2, 5, 8, 10]
    """
    if steps > num_cells:
        raise ValueError(f"Curves expect at most a step a cell, {num_cells}, got {steps} steps: take a finer grid.")
    counts: np.ndarray = np.rint(np.arange(steps + 1) * num_cells / steps).astype(np.int64)
    return counts


def perturbation_curves(
    scores: Callable[[Tensor], Tensor],
    picture: Tensor,
    baseline: Tensor,
    orders: np.ndarray,
    *,
    grid: CellGrid,
    counts: np.ndarray,
    batch_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of one picture while the first n of each order are put into the baseline, or taken from the picture.

    insertion_k = s(the baseline with the first n_k cells of the picture), deletion_k = s(the picture with the first n_k
    cells of the baseline): they start and end at the same two scores, the other way round.

    Args:
        scores: from pictures (n, C, H, W) to (n,).
        picture: (C, H, W).
        baseline: (C, H, W).
        orders: (maps, cells), each a permutation.
        grid: the cells.
        counts: (steps + 1,), n_k from 0 to all.
        batch_size: pictures in one call of `scores`.

    Returns:
        insertion and deletion, (maps, steps + 1) each, float64.

    Example:
        >>> grid = CellGrid(1, 3, height=1, width=3)
        >>> insertion, deletion = perturbation_curves(
        ...     lambda x: x.sum((1, 2, 3)), torch.tensor([[[1.0, 2.0, 4.0]]]), torch.zeros(1, 1, 3),
        ...     np.array([[2, 1, 0]]), grid=grid, counts=np.arange(4), batch_size=2)
        >>> insertion.tolist(), deletion.tolist()
        ([[0.0, 4.0, 6.0, 7.0]], [[7.0, 3.0, 1.0, 0.0]])
    """
    step_of_cell = np.searchsorted(counts, np.argsort(orders, axis=1), side="right")  # with which each cell goes
    # maps that go alike are one: measured twice, in other batches, they would differ by rounding
    step_of_cell, same_as = np.unique(step_of_cell, axis=0, return_inverse=True)
    step_of_pixel = torch.from_numpy(step_of_cell).to(picture.device)[:, grid.cell_of_pixel.to(picture.device)]
    M, inner = len(step_of_cell), len(counts) - 2
    whole, nothing = _in_batches(scores, lambda k: (picture, baseline)[k], 2, batch_size)

    def composite(number: int) -> Tensor:
        m, k, deletes = number // (2 * inner), number // 2 % inner + 1, number % 2
        gone = step_of_pixel[m] <= k
        return torch.where(gone, baseline, picture) if deletes else torch.where(gone, picture, baseline)

    found = _in_batches(scores, composite, 2 * M * inner, batch_size).reshape(M, inner, 2)
    ends = np.full((M, 1), whole), np.full((M, 1), nothing)
    insertion = np.concatenate([ends[1], found[..., 0], ends[0]], axis=1)
    deletion = np.concatenate([ends[0], found[..., 1], ends[1]], axis=1)
    return insertion[same_as.ravel()], deletion[same_as.ravel()]


def _in_batches(
    scores: Callable[[Tensor], Tensor], picture: Callable[[int], Tensor], count: int, batch_size: int
) -> np.ndarray:
    """Scores of so many pictures, of which only a batch is held at a time."""
    parts = []
    for start in range(0, count, batch_size):
        pause(start / count)
        parts.append(scores(torch.stack([picture(i) for i in range(start, min(start + batch_size, count))])))
    return np.concatenate([part.detach().double().cpu().numpy() for part in parts]) if parts else np.zeros(0)
