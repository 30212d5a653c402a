"""Comparisons of maps over batches of pictures, put together: many pictures, one batch in memory."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from horinsight.attribution.map_comparison_results import CaptumScores, MapAgreement, RandomizedMaps
from horinsight.result_fields import fields_of, same

M = TypeVar("M", bound=MapAgreement | RandomizedMaps | CaptumScores)
PICTURES: dict[type, dict[str, int]] = {  # of each result the arrays that have a number for each picture, and the axis
    MapAgreement: {"correlations": 2, "overlaps": 2},
    RandomizedMaps: {"correlations": 2, "magnitudes": 2},
    CaptumScores: {"infidelities": 1, "scaled": 1, "zero_infidelities": 0, "sensitivities": 1},
}


def merged_comparisons(parts: Sequence[M]) -> M:
    """One result of several, over other pictures each, in the order in which they come.

    What is drawn by `map_agreement` and `randomized_maps` does not depend on how pictures come in batches; captum's
    numbers are drawn by the number of a picture, so that `captum_scores` of a stream is the way to have those of all.

    Args:
        parts: results of `map_agreement`, `randomized_maps` or `captum_scores`, at least one, measured alike.

    Raises:
        ValueError: none, or parts that were measured otherwise.

    Example:
        >>> import torch
        >>> from horinsight.attribution.map_agreement import map_agreement
        >>> a, b = torch.rand(4, 8, 8), torch.rand(4, 8, 8)
        >>> parts = [map_agreement({"a": a[some], "b": b[some]}) for some in ([0, 1], [2, 3])]
        >>> merged_comparisons(parts).correlation("a", "b") == map_agreement({"a": a, "b": b}).correlation("a", "b")
        True
    """
    if not parts:
        raise ValueError("merged_comparisons expects at least one result, got none.")
    first = parts[0]
    axes: dict[str, int] = PICTURES[type(first)]
    known = fields_of(first)
    for part in parts[1:]:
        other = [
            name
            for name, value in fields_of(part).items()
            if type(part) is not type(first) or (name not in (*axes, "provenance") and not same(value, known[name]))
        ]
        if other:
            raise ValueError(f"merged_comparisons expects parts measured alike, got other {', '.join(other)}.")
    origin = first.provenance
    if origin is not None:
        names = tuple(name for part in parts if part.provenance is not None for name in part.provenance.images)
        origin = replace(origin, images=names)
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts], axis=axis) for name, axis in axes.items()
    }
    return replace(first, **joined, provenance=origin)
