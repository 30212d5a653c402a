"""What influence and reach answer, as values: they are read, drawn and reported without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from horinsight.results import Provenance, Result
from horinsight.stats import Estimate, RunningMean

SHARES = (0.5, 0.9, 0.99)  # of the influence, whose radii are given


@dataclass(frozen=True, eq=False, repr=False)
class Influence(Result):
    """How strongly an operator's output at i answers to its input at j: I_ij, the root mean square over channel pairs.

    Attributes:
        squares: I_ij², float64: (B, queries, rows, columns) over the input positions j, (B, queries, N) for tokens that
            form no map. A random estimate of it has no bias.
        standard_errors: of `squares`, of the same shape: 0 where they are exact, NaN where one probe gives none.
        queries: (queries, 2), row and column of each i on the output's map; (queries, 1) for tokens that form no map.
        output_shape: (rows, columns) of the output's map, or (N,).
        num_probes: random sign vectors for each image and query; None where I is exact.
        seed: of the signs.
        convention: what was computed, in words.
        provenance: model, weights and images, where known.
    """

    squares: np.ndarray
    standard_errors: np.ndarray
    queries: np.ndarray
    output_shape: tuple[int, ...]
    num_probes: int | None
    seed: int
    convention: Mapping[str, str] = field(default_factory=dict)
    provenance: Provenance | None = None

    @property
    def maps(self) -> np.ndarray:
        """I_ij, of the shape of `squares`."""
        roots: np.ndarray = np.sqrt(self.squares)
        return roots

    def _columns(self) -> dict[str, Any]:
        """A row per picture, query and position j."""
        image, query, *place = (index.ravel() for index in np.indices(self.squares.shape))
        names = ("row", "col") if len(place) == 2 else ("position",)
        of_query = {f"query_{name}": self.queries[query, axis] for axis, name in enumerate(names)}
        return {
            "image": image,
            **of_query,
            **dict(zip(names, place, strict=True)),
            "influence": self.maps.ravel(),
            "square": self.squares.ravel(),
            "square_se": self.standard_errors.ravel(),
        }


@dataclass(frozen=True, eq=False, repr=False)
class Reach(Result):
    """How far the influence on one block's positions reaches, over pictures and queries.

    A radius is the least distance from the query within which lies a share of Σ_j I_ij². The query lies at the middle
    of its cell of the map, off which a field may lie by up to half a cell where strides are padded to one side;
    distances are to the middles of cells.

    Attributes:
        influence: the maps behind it, of the pictures that are shown.
        radii: (B, queries, 3), in cells of the block's map, of 50, 90 and 99 % (`SHARES`); NaN where nothing has
            influence.
        radii_pixels: the same in pixels of the image.
        totals: (B, queries), sqrt(Σ_j I_ij²): the spread of the output's change over that of an input of white noise,
            times sqrt(1/C) for C input channels.
        convention: what was computed, in words.
        provenance: model, weights and images, where known.
        shown: numbers, from 0, of the pictures whose maps are kept; all when None.
    """

    influence: Influence
    radii: np.ndarray
    radii_pixels: np.ndarray
    totals: np.ndarray
    convention: Mapping[str, str] = field(default_factory=dict)
    provenance: Provenance | None = None
    shown: tuple[int, ...] | None = None

    def number_of(self, place: int) -> int:
        """The number of a picture among all, by its place among those that are shown."""
        return place if self.shown is None else self.shown[place]

    @property
    def estimates(self) -> dict[str, Estimate]:
        """Quantity → mean over queries and pictures, with its standard error over pictures.

        "radius_50", "radius_90" and "radius_99" in cells, the same with "_pixels", and "total".
        """
        names = [f"radius_{100 * share:.0f}" for share in SHARES]
        radii = {name: self.radii[..., place] for place, name in enumerate(names)}
        pixels = {f"{name}_pixels": self.radii_pixels[..., place] for place, name in enumerate(names)}
        return {name: _over_pictures(values) for name, values in {**radii, **pixels, "total": self.totals}.items()}

    def _columns(self) -> dict[str, Any]:
        """A row per quantity."""
        found = self.estimates
        return {
            "quantity": list(found),
            "value": [estimate.value for estimate in found.values()],
            "standard_error": [estimate.standard_error for estimate in found.values()],
            "num_images": len(self.totals),
            "num_queries": self.totals.shape[1],
        }


def _over_pictures(values: np.ndarray) -> Estimate:
    """From (B, queries) to the mean over both."""
    running = RunningMean()
    running.update(values.mean(1))
    return running.compute()
