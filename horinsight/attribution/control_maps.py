"""Maps that never see the model: what a method must beat before its map says anything about the model."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from horinsight.attribution.map_cells import CellGrid

CONTROLS = ("random", "blob", "intensity")
BLOB_SHARE = 1 / 4  # of each side: the blob's standard deviation; its order of cells does not depend on it
DRAW = 2  # of the numbers that seed a draw: which draw it is

CONTROLS_IN_WORDS = {
    "random": "a number for each cell, drawn with the seed and the picture's number",
    "blob": "a Gaussian at the picture's centre, as long and wide as the picture",
    "intensity": "mean over channels of |x - background|, where the model has not looked",
}


def random_map(grid: CellGrid, *, seed: int, index: int) -> Tensor:
    """(1, rows, columns), uniform, one for each picture.

    Example:
        >>> grid = CellGrid(2, 2, height=4, width=4)
        >>> torch.equal(random_map(grid, seed=0, index=3), random_map(grid, seed=0, index=3))
        True
    """
    drawn = np.random.default_rng([seed, DRAW, index]).random((1, grid.rows, grid.columns))
    return torch.from_numpy(drawn)


def centred_blob(grid: CellGrid) -> Tensor:
    """(1, rows, columns), exp(-d²/2σ²) with d from the centre and σ a quarter of each side.

    Example:
        >>> centred_blob(CellGrid(1, 3, height=4, width=6))[0, 0].round(decimals=3).tolist()
        [0.411, 1.0, 0.411]
    """
    row, col = (
        torch.arange(count, dtype=torch.float64, device="cpu") * 2 + 1 - count for count in (grid.rows, grid.columns)
    )
    # from whole numbers: cells at the same distance are ties, bit for bit
    numerator = (row[:, None] * grid.columns) ** 2 + (col[None] * grid.rows) ** 2
    squares = numerator / (2 * grid.rows * grid.columns) ** 2
    blob: Tensor = torch.exp(-squares / (2 * BLOB_SHARE**2))
    return blob[None]


def intensity_map(images: Tensor, background: Tensor) -> Tensor:
    """(B, H, W), mean over channels of |x - background|.

    Args:
        images: (B, C, H, W).
        background: (C,), the colour of nothing, black for digits; in the values that the model takes.

    Raises:
        ValueError: another number of channels.
    """
    if background.shape != images.shape[1:2]:
        raise ValueError(
            f"The background is expected as a number for each of {images.shape[1]} channels, got "
            f"{tuple(background.shape)}: give background=, in the values that the model takes."
        )
    return (images - background.to(images)[:, None, None]).abs().mean(1)


def control_maps(grid: CellGrid, background: Tensor, *, seed: int) -> dict[str, Callable[[Tensor, int], Tensor]]:
    """Name → control: from one picture (1, C, H, W) and its number to a map.

    Args:
        grid: the cells.
        background: (C,), see `intensity_map`.
        seed: of the random map.
    """
    blob = centred_blob(grid)
    return {
        "random": lambda _, index: random_map(grid, seed=seed, index=index),
        "blob": lambda image, index: blob,
        "intensity": lambda image, index: intensity_map(image, background),
    }
