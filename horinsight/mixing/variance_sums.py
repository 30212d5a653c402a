r"""Sums over pictures that the analysis of variance of mixing weights is made of, whatever the number of pictures.

Of B pictures, with cells (c, d) of n queries each and h[b, c, i, d] (`mixing/adaptivity.py`), a bar for a cell's mean:

    M = mean_b h         S = Σ_b |h_b - M|²         T = Σ_b Σ_cells n (h̄_b - M̄)²

Then SS_image + SS_both = S, SS_image = T, SS_location = B V and SS_static = B Q with

    V = Σ_cells Σ_i (M_i - M̄)²                 Q = Σ_cells n (M̄ - its mean)²

each of them a sum of squares of deviations. Two groups of pictures together (Chan, Golub and LeVeque 1979), with
δ = M_2 - M_1 and β = B_1 B_2 / B:

    M = M_1 + δ B_2 / B      S = S_1 + S_2 + β |δ|²      T = T_1 + T_2 + β Σ_cells n δ̄²

and the same the other way round takes a group of b pictures out again: with δ = M_out - M and B' = B - b

    M' = M - δ b / B'        S' = S - S_out - |δ|² b B / B'        T' = T - T_out - Σ_cells n δ̄² b B / B'

of which one picture, with S_out = T_out = 0, is what the jackknife asks for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from horinsight.mixing.weight_cells import WeightCells


@dataclass(frozen=True, eq=False)
class VarianceSums:
    """The sums of weights of one kind, over some pictures.

    Attributes:
        cells: what the numbers stand for.
        count: B.
        mean: M, (C, X), or (..., C, X) for several groups of pictures.
        images: S, of the shape before (C, X).
        image: T, likewise.
    """

    cells: WeightCells
    count: int
    mean: Tensor
    images: Tensor
    image: Tensor

    @classmethod
    def of_batch(cls, cells: WeightCells, x: Tensor) -> "VarianceSums":
        """Of the pictures of a batch together, x (B, C, X)."""
        mean = x[0] + (x - x[:1]).mean(0)  # exact where all are the same
        rest = x - mean
        of_cells = cells.means(rest)
        return cls(cells, len(x), mean, cells.inner(rest, rest).sum(), cells.cell_inner(of_cells, of_cells).sum())

    @classmethod
    def of_each(cls, cells: WeightCells, x: Tensor) -> "VarianceSums":
        """Of each picture of a batch by itself: B groups of one."""
        nothing = x.new_zeros(len(x))
        return cls(cells, 1, x, nothing, nothing)

    def with_others(self, other: "VarianceSums") -> "VarianceSums":
        """Of the pictures of both.

        Raises:
            ValueError: their cells are others.
        """
        self.cells.check(other.cells)
        total = self.count + other.count
        moved = other.mean - self.mean
        between, of_cells = self._squares(moved)
        beta = self.count * other.count / total
        return VarianceSums(
            self.cells,
            total,
            self.mean + moved * (other.count / total),
            self.images + other.images + beta * between,
            self.image + other.image + beta * of_cells,
        )

    def without(self, other: "VarianceSums") -> "VarianceSums":
        """Of the pictures that are not in `other`, which are among these; for each of several groups."""
        left = self.count - other.count
        moved = other.mean - self.mean
        between, of_cells = self._squares(moved)
        beta = self.count * other.count / left
        return VarianceSums(
            self.cells,
            left,
            self.mean - moved * (other.count / left),
            (self.images - other.images - beta * between).clamp(min=0),
            (self.image - other.image - beta * of_cells).clamp(min=0),
        )

    def _squares(self, moved: Tensor) -> tuple[Tensor, Tensor]:
        of_cells = self.cells.means(moved)
        return self.cells.inner(moved, moved), self.cells.cell_inner(of_cells, of_cells)


def variance_shares(parts: Sequence[VarianceSums]) -> dict[str, Tensor]:
    """Shares of the total sum of squares, and deviations, of weights of one or several kinds; (...) each.

    Args:
        parts: of the same pictures, one for each kind of channels.

    Returns:
        By the names of the fields of `Adaptivity`.
    """
    B = parts[0].count
    means = [part.cells.factor * part.cells.means(part.mean) for part in parts]
    counts = [part.cells.queries for part in parts]
    pairs = sum(float(n.sum()) * mean.shape[-2] for n, mean in zip(counts, means, strict=True))
    images, image, location, total = (torch.zeros((), dtype=torch.float64, device="cpu") for _ in range(4))
    for part, n, mean in zip(parts, counts, means, strict=True):
        images, image = images + part.images, image + part.image
        location = location + B * part.cells.spread(part.mean)
        total = total + (n * mean).sum((-2, -1))
    grand = (total / pairs)[..., None, None]
    static = torch.zeros((), dtype=torch.float64, device="cpu")
    for n, mean in zip(counts, means, strict=True):
        static = static + B * (n * (mean - grand).square()).sum((-2, -1))
    by_location = location + (images - image).clamp(min=0)
    everything = static + images + location
    there_is = everything > 0
    safe = torch.where(there_is, everything, torch.ones_like(everything))
    return {
        "static_share": torch.where(there_is, static / safe, torch.ones_like(safe)),
        "input_adaptivity": images / safe,
        "location_adaptivity": by_location / safe,
        "input_deviation": (images / (B * pairs)).sqrt(),
        "location_deviation": (by_location / (B * pairs)).sqrt(),
    }
