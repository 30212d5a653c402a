"""Whether methods agree on what matters in a picture, which does not say that they are right."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from horinsight.attribution.faithfulness_options import Spread
from horinsight.attribution.map_cells import CellGrid, cell_values
from horinsight.attribution.map_comparison_results import MapAgreement
from horinsight.attribution.rank_correlations import rank_correlations, top_count, top_overlaps
from horinsight.results import Provenance


def map_agreement(
    maps: Mapping[str, Tensor],
    *,
    share: float = 0.1,
    image_size: tuple[int, int] | None = None,
    grid: tuple[int, int] | None = None,
    spread: Spread = "nearest",
    provenance: Provenance | None = None,
) -> MapAgreement:
    """Spearman's correlation and the overlap of the highest cells, for each two methods and each picture.

    Args:
        maps: name → (B, h, w), of the same pictures.
        share: of the cells that count as the highest.
        image_size: (H, W), which coarser maps are spread over; that of the largest map when None.
        grid: (rows, columns) of cells whose means are compared; every pixel by itself when None.
        spread: how coarser maps are spread, see `spread_maps`.
        provenance: of the result.

    Raises:
        ValueError: no map, maps of different numbers of pictures, values that are not finite, a share or grid off.

    Example:
        >>> import torch
        >>> a = torch.rand(5, 8, 8)
        >>> found = map_agreement({"a": a, "twice": 2 * a, "minus": -a})
        >>> found.correlation("a", "twice").value, found.correlation("a", "minus").value
        (1.0, -1.0)
    """
    checked = [_checked(name, values) for name, values in maps.items()]
    if not checked or len({len(values) for values in checked}) > 1:
        counts = ", ".join(str(len(values)) for values in checked) or "none"
        raise ValueError(f"map_agreement expects maps of the same pictures, got numbers of pictures: {counts}.")
    height, width = image_size or tuple(max(values.shape[axis] for values in checked) for axis in (1, 2))
    cells = CellGrid(*(grid or (height, width)), height, width)
    values = [cell_values(one, cells, spread).cpu().numpy() for one in checked]
    return MapAgreement(
        methods=tuple(maps),
        share=share,
        chance=top_count(len(cells), share) / len(cells),
        correlations=np.array([[rank_correlations(a, b) for b in values] for a in values]),
        overlaps=np.array([[top_overlaps(a, b, share) for b in values] for a in values]),
        convention={
            "correlation": "Spearman's, of the maps with their signs, ties with their mean rank",
            "overlap": f"of the highest {share:.3g} of the cells; ties at the border broken at random, on average",
            "cells": f"{cells.rows}x{cells.columns} of {height}x{width} pixels; coarser maps spread: {spread}",
            "interval": "95 % for images like these: Student's over pictures",
        },
        provenance=provenance,
    )


def _checked(name: str, values: Tensor) -> Tensor:
    if not isinstance(values, Tensor) or values.ndim != 3 or not values.is_floating_point():
        what = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"The map {name!r} is expected as (B, H, W) in floating point, got {what}.")
    if not bool(values.isfinite().all()):
        raise ValueError(f"The map {name!r} has values that are not finite: mend the method, or set them to 0.")
    return values.detach()
