"""Cells of a picture: what is taken away or put back together, and what a map says of each."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from horinsight.attribution.faithfulness_options import Spread


@dataclass(frozen=True)
class CellGrid:
    """A picture parted into cells: pixel (r, c) lies in the cell (⌊r · rows / H⌋, ⌊c · columns / W⌋).

    Cells need not divide the picture: they are then of different sizes, and each pixel still lies in exactly one.

    Attributes:
        rows: of cells.
        columns: of cells.
        height: H, pixels.
        width: W, pixels.

    Raises:
        ValueError: more cells than pixels on a side, or none.

    Example:
        >>> CellGrid(2, 1, height=3, width=2).cell_of_pixel.tolist()
        [[0, 0], [0, 0], [1, 1]]
    """

    rows: int
    columns: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if not (1 <= self.rows <= self.height and 1 <= self.columns <= self.width):
            raise ValueError(
                f"Cells expect a grid of at least 1x1 and at most {self.height}x{self.width}, the pixels, got "
                f"{self.rows}x{self.columns}."
            )

    def __len__(self) -> int:
        return self.rows * self.columns

    @property
    def cell_of_pixel(self) -> Tensor:
        """(H, W), the number of each pixel's cell, row by row."""
        row, col = _places(self.height, self.rows), _places(self.width, self.columns)
        return row[:, None] * self.columns + col[None]

    def means(self, maps: Tensor) -> Tensor:
        """Mean of maps over each cell: (B, H, W) to (B, cells), float64; a cell of equal values has exactly theirs."""
        cell = self.cell_of_pixel.flatten().to(maps.device)
        flat = maps.flatten(1).double()
        row, col = _first_pixels(self.height, self.rows), _first_pixels(self.width, self.columns)
        start = flat[:, (row[:, None] * self.width + col[None]).flatten().to(maps.device)]
        rest = torch.zeros_like(start).index_add_(1, cell, flat - start[:, cell])
        return start + rest / torch.bincount(cell, minlength=len(self))


def _places(pixels: int, cells: int) -> Tensor:
    return torch.arange(pixels, device="cpu") * cells // pixels


def _first_pixels(pixels: int, cells: int) -> Tensor:
    return -(-torch.arange(cells, device="cpu") * pixels // cells)  # rounded up


def spread_maps(maps: Tensor, size: tuple[int, int], spread: Spread = "nearest") -> Tensor:
    """Maps on a coarser grid, spread over a picture: (B, h, w) to (B, H, W).

    Args:
        maps: (B, h, w).
        size: (H, W).
        spread: "nearest", a pixel has the value of the cell it lies in (`CellGrid`), or "bilinear" between the middles
            of cells.

    Example:
        >>> spread_maps(torch.tensor([[[1.0, 2.0]]]), (1, 4)).tolist()
        [[[1.0, 1.0, 2.0, 2.0]]]
    """
    if maps.shape[1:] == size:
        return maps
    if spread == "bilinear":
        return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    row, col = _places(size[0], maps.shape[1]), _places(size[1], maps.shape[2])
    return maps[:, row[:, None], col[None]]


def checked_maps(maps: object, images: Tensor, name: str) -> Tensor:
    """What a method gave for a batch of images, detached, if it is a map.

    Args:
        maps: what came.
        images: (B, C, H, W) that it is for.
        name: of the method, for errors.

    Raises:
        TypeError: no tensor of floating point.
        ValueError: not (B, h, w) with at most a value a pixel, or a value that is not finite.
    """
    if not isinstance(maps, Tensor) or not maps.is_floating_point():
        what = str(maps.dtype) if isinstance(maps, Tensor) else type(maps).__name__
        raise TypeError(f"The map {name!r} is expected as one tensor (B, H, W) in floating point, got {what}.")
    B, _, H, W = images.shape
    if maps.ndim != 3 or len(maps) != B or not (1 <= maps.shape[1] <= H and 1 <= maps.shape[2] <= W):
        advice = ": sum or take the largest over channels" if maps.ndim == 4 else ""
        raise ValueError(
            f"The map {name!r} is expected as ({B}, h, w) of at most {H}x{W}, got {tuple(maps.shape)}{advice}."
        )
    maps = maps.detach()
    if not bool(maps.isfinite().all()):
        raise ValueError(f"The map {name!r} has values that are not finite: mend the method, or set them to 0.")
    return maps


def cell_values(maps: Tensor, grid: CellGrid, spread: Spread = "nearest") -> Tensor:
    """What a map says of each cell: its mean there, (B, h, w) to (B, cells), float64.

    Args:
        maps: a value a pixel, or on a coarser grid, which is spread over the picture first; one on the grid of the
            cells is taken as it is.
        grid: the cells.
        spread: how a coarser one is spread.

    Example:
        >>> maps = torch.arange(9.0).reshape(1, 3, 3)
        >>> cell_values(maps, CellGrid(1, 3, height=3, width=3)).tolist()
        [[3.0, 4.0, 5.0]]
    """
    if maps.shape[1:] == (grid.rows, grid.columns):
        return maps.flatten(1).double()
    return grid.means(spread_maps(maps.double(), (grid.height, grid.width), spread))
