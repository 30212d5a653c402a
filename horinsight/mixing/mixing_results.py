"""What `mixing` answers, as values: they are read, drawn and reported without torch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from horinsight.results import Provenance, Result
from horinsight.stats import Estimate

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False, repr=False)
class QueryMaps(Result):
    """Mixing weights of some queries over j: averaged over channels (or heads), (1/C) Σ_c h_ij^c, or of one of them.

    Or influence in their place, I_ij (`influence_maps`); the convention says which.

    One entry is one query on one picture.

    Attributes:
        maps: block name → (entries, H, W).
        queries: block name → (entries, 2), row and column of the query on that block's map.
        pictures: (images, height, width, 3) uint8, as the model sees them.
        picture_of_entry: (entries,) index into `pictures`.
        block_indices: the blocks, from 1, in the order of `maps`.
        image_names: of the pictures.
        reconstruction_errors: of each block, relative to its largest |p_n|; none of influence.
        convention: what is shown, in words.
        provenance: model, weights and images.
    """

    maps: Mapping[str, np.ndarray]
    queries: Mapping[str, np.ndarray]
    pictures: np.ndarray
    picture_of_entry: np.ndarray
    block_indices: tuple[int, ...]
    image_names: tuple[str, ...]
    reconstruction_errors: tuple[float, ...]
    convention: Mapping[str, str] = field(default_factory=dict)
    provenance: Provenance | None = None

    def to_frame(self) -> "pandas.DataFrame":
        """A row per block, entry and position j, see `map_rows`."""
        import pandas

        return pandas.DataFrame(map_rows(self))


def map_rows(result: QueryMaps) -> Iterator[dict[str, Any]]:
    """Maps as lines of a table: picture, block, query, position j and h_ij."""
    origin = result.provenance
    for index, (block, maps) in zip(result.block_indices, result.maps.items(), strict=True):
        for entry, values in enumerate(maps):
            row, col = result.queries[block][entry].tolist()
            start = {
                "model": origin.model if origin else None,
                "trained": origin.trained if origin else None,
                "image": result.image_names[result.picture_of_entry[entry]],
                "block": index,
                "name": block,
                "step": result.convention.get("step"),
                "channel": result.convention.get("channel"),
                "query_row": row,
                "query_col": col,
            }
            for (j_row, j_col), value in np.ndenumerate(values):
                yield {**start, "row": j_row, "col": j_col, "h": float(value)}


@dataclass(frozen=True, eq=False, repr=False)
class Adaptivity(Result):
    """How the mixing weights of one block adapt and reach, over images; see `mixing/adaptivity.py` for the definitions.

    Attributes:
        input_adaptivity: share of the variance that comes with the image, at a fixed query; NaN for a single image.
        location_adaptivity: share of the variance that comes with the query, for a fixed image.
        static_share: share of the variance that is a fixed kernel.
        input_deviation: root mean square by which a weight differs from its mean over the images; NaN for one image.
        location_deviation: root mean square by which a weight differs from its mean over the queries.
        mean_distance: mean mixing distance in cells of the map.
        mean_distance_pixels: the same in pixels of the image; NaN when the image size is not known.
        effective_positions: participation ratio of a row of weights.
        negative_share: share of negative weight.
        num_images: B. Standard errors are over images: jackknife for the shares and deviations, of their value at as
            many images (with more of them the input adaptivity rises by up to 1/B); of the mean for the others.
        convention: what was computed, in words.
        provenance: model, weights and images, where known.
    """

    input_adaptivity: Estimate
    location_adaptivity: Estimate
    static_share: Estimate
    input_deviation: Estimate
    location_deviation: Estimate
    mean_distance: Estimate
    mean_distance_pixels: Estimate
    effective_positions: Estimate
    negative_share: Estimate
    num_images: int
    convention: Mapping[str, str] = field(default_factory=dict)
    provenance: Provenance | None = None

    def _columns(self) -> dict[str, Any]:
        """A row per quantity."""
        found = {name: value for name, value in vars(self).items() if isinstance(value, Estimate)}
        return {
            "quantity": list(found),
            "value": [estimate.value for estimate in found.values()],
            "standard_error": [estimate.standard_error for estimate in found.values()],
            "num_images": self.num_images,
        }


@dataclass(frozen=True, eq=False, repr=False)
class PictureAdaptivity(Result):
    """What each picture of a batch gives by itself; shares and deviations are those of its own weights alone.

    Attributes:
        location_adaptivity: (B,) share of the variance that comes with the query.
        static_share: (B,) the rest, a kernel that is the same for all queries of the picture.
        location_deviation: (B,) root mean square by which a weight differs from its mean over the queries.
        mean_distance: (B,) in cells of the map.
        mean_distance_pixels: (B,) in pixels of the image; NaN when the image size is not known.
        effective_positions: (B,) participation ratio of a row of weights.
        negative_share: (B,) share of negative weight.
    """

    location_adaptivity: np.ndarray
    static_share: np.ndarray
    location_deviation: np.ndarray
    mean_distance: np.ndarray
    mean_distance_pixels: np.ndarray
    effective_positions: np.ndarray
    negative_share: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Rollout(Result):
    """Mixing rolled out over blocks.

    Attributes:
        weights: (B, N_out, N_in), rows sum to 1: how much each position of the last block owes to each position of the
            first one's map. Prefix tokens of ViT come first on both sides.
        out_size: (rows, columns) of the last block's map.
        in_size: (rows, columns) of the first block's map.
        branch_shares: block name → mean of a, the share of what is mixed against the residual path.
        convention: what was computed, in words.
        provenance: model, weights and images, where known.
    """

    weights: np.ndarray
    out_size: tuple[int, int]
    in_size: tuple[int, int]
    branch_shares: Mapping[str, float]
    convention: Mapping[str, str] = field(default_factory=dict)
    provenance: Provenance | None = None

    def _columns(self) -> dict[str, Any]:
        """A row per picture, position of the last block and position of the first."""
        image, position, source = (index.ravel() for index in np.indices(self.weights.shape))
        return {"image": image, "position": position, "source": source, "weight": self.weights.ravel()}


@dataclass(frozen=True, eq=False, repr=False)
class FilterKernels(Result):
    """Global filters of a GF layer, centred.

    Attributes:
        magnitude: (C/2, H, W) |W| over all frequencies, zero frequency in the middle.
        kernel: (C/2, H, W) the equivalent circular kernel in space, offset 0 in the middle.
        name: which layer.
        provenance: model and weights, where known.
        convention: what was computed, in words.
    """

    magnitude: np.ndarray
    kernel: np.ndarray
    name: str
    provenance: Provenance | None = None
    convention: Mapping[str, str] = field(default_factory=dict)

    def _columns(self) -> dict[str, Any]:
        """A row per channel and cell, frequency or offset."""
        channel, row, col = (index.ravel() for index in np.indices(self.kernel.shape))
        place = {"name": self.name, "channel": channel, "row": row, "col": col}
        return place | {"magnitude": self.magnitude.ravel(), "kernel": self.kernel.ravel()}
