"""What attributions answer, as values: they are read, drawn and reported without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from horinsight.results import Provenance, Result


@dataclass(frozen=True, eq=False, repr=False)
class PositionAttributions(Result):
    """What a block computes at some positions, attributed to the cells of its input or of the image.

    Attributes:
        attributions: (B, queries, rows, columns, C) by channel of what is explained in; C is 1 where a method has none.
        queries: (queries, 2), row and column of each position on the block's map.
        output_size: (rows, columns) of the block's map.
        method: by which it was attributed.
        block: name of the block.
        of: what it is explained in.
        over_channels: how `maps` go over channels, "sum" or "mean".
        gaps: (B, queries) by how much the sum misses the output's difference to that at the baseline, of LRP the output
            (biases take relevance, and so do residual sums that are no modules); None for methods that do not add up.
        outputs: (B, queries) the number that is explained; None for methods that explain none.
        seed: of all that was drawn.
        convention: what was computed, in words.
        provenance: model, weights and images, where known.
    """

    attributions: np.ndarray
    queries: np.ndarray
    output_size: tuple[int, int]
    method: str
    block: str
    of: str
    over_channels: str = "sum"
    gaps: np.ndarray | None = None
    outputs: np.ndarray | None = None
    seed: int = 0
    convention: Mapping[str, str] = field(default_factory=dict)
    provenance: Provenance | None = None

    @property
    def maps(self) -> np.ndarray:
        """(B, queries, rows, columns), channels summed or averaged."""
        return _over_channels(self.attributions, self.over_channels)

    def _columns(self) -> dict[str, Any]:
        """A row per picture, query and cell."""
        maps = self.maps
        image, query, row, col = (index.ravel() for index in np.indices(maps.shape))
        at = {"query_row": self.queries[query, 0], "query_col": self.queries[query, 1]}
        return {
            "block": self.block,
            "method": self.method,
            "image": image,
            **at,
            "row": row,
            "col": col,
            "value": maps.ravel(),
        }


@dataclass(frozen=True, eq=False, repr=False)
class PredictionAttributions(Result):
    """What a class's logit is made of, cell by cell, by several methods.

    Attributes:
        attributions: method → (B, rows, columns, C) by channel, on the grid of the picture or a coarser one.
        targets: (B,) the class that is explained.
        logits: (B,) of it.
        gaps: method → (B,) by how much the sum misses the logit's difference to that at the baseline, of LRP the logit;
            of those methods whose attributions should add up.
        seed: of all that was drawn.
        convention: what was computed, in words.
        provenance: model, weights and images, where known.
    """

    attributions: Mapping[str, np.ndarray]
    targets: np.ndarray
    logits: np.ndarray
    gaps: Mapping[str, np.ndarray] = field(default_factory=dict)
    seed: int = 0
    convention: Mapping[str, str] = field(default_factory=dict)
    provenance: Provenance | None = None

    @property
    def maps(self) -> dict[str, np.ndarray]:
        """Method → (B, rows, columns), channels summed."""
        return {method: _over_channels(values, "sum") for method, values in self.attributions.items()}

    def _columns(self) -> dict[str, Any]:
        """A row per method, picture and cell."""
        columns: dict[str, list[Any]] = {name: [] for name in ("method", "image", "target", "row", "col", "value")}
        for method, maps in self.maps.items():
            image, row, col = (index.ravel() for index in np.indices(maps.shape))
            found: tuple[Any, ...] = ([method] * maps.size, image, self.targets[image], row, col, maps.ravel())
            for name, values in zip(columns, found, strict=True):
                columns[name].extend(values)
        return columns


@dataclass(frozen=True, eq=False, repr=False)
class InteractionPlaces(Result):
    """Expected squares of the k-th mixed derivative at i with the neighbour j among the k, by place j.

    Attributes:
        squares: M_k(j), float64, (B, rows, columns), (B, N) for tokens that form no map; 0 at i and outside Ω_i.
        standard_errors: over orderings; NaN where there is one.
        query: i, (row, column) or (number,).
        order: k.
        num_orderings: random orderings of the neighbours, each used k times.
        seed: of the orderings, signs and directions.
        convention: what was computed, in words.
        provenance: model, weights and images, where known.
    """

    squares: np.ndarray
    standard_errors: np.ndarray
    query: tuple[int, ...]
    order: int
    num_orderings: int
    seed: int
    convention: Mapping[str, str] = field(default_factory=dict)
    provenance: Provenance | None = None

    @property
    def maps(self) -> np.ndarray:
        """The roots of `squares`: effects by place, in units of the output."""
        roots: np.ndarray = np.sqrt(self.squares)
        return roots

    def _columns(self) -> dict[str, Any]:
        """A row per picture and position j."""
        image, *place = (index.ravel() for index in np.indices(self.squares.shape))
        names = ("row", "col") if len(place) == 2 else ("position",)
        where = dict(zip(names, place, strict=True))
        return {"image": image, **where, "square": self.squares.ravel(), "square_se": self.standard_errors.ravel()}


def _over_channels(attributions: np.ndarray, how: str) -> np.ndarray:
    found: np.ndarray = attributions.mean(-1) if how == "mean" else attributions.sum(-1)
    return found
