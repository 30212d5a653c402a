"""Attributions of some pictures of many: cut out of a batch's, and those of batches put together."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from horinsight.attribution.attribution_results import PositionAttributions, PredictionAttributions

Attributions = PredictionAttributions | PositionAttributions


def attributions_of_some(found: Attributions, places: Sequence[int]) -> Attributions:
    """Those of some of the pictures, by their places; none leaves what the numbers are, without any.

    Args:
        found: of all.
        places: from 0.
    """
    kept = list(places)
    origin = found.provenance
    if origin is not None:
        origin = replace(origin, images=tuple(origin.images[place] for place in kept))
    if isinstance(found, PredictionAttributions):
        return replace(
            found,
            attributions={name: values[kept] for name, values in found.attributions.items()},
            targets=found.targets[kept],
            logits=found.logits[kept],
            gaps={name: values[kept] for name, values in found.gaps.items()},
            provenance=origin,
        )
    return replace(
        found,
        attributions=found.attributions[kept],
        gaps=None if found.gaps is None else found.gaps[kept],
        outputs=None if found.outputs is None else found.outputs[kept],
        provenance=origin,
    )


def attributions_of_batches(parts: Sequence[Attributions]) -> Attributions:
    """Those of batches, one after the other, measured alike; at least one.

    Raises:
        ValueError: of other methods, or on other grids.
    """
    first = parts[0]
    origin = first.provenance
    if origin is not None:
        names = tuple(name for part in parts if part.provenance is not None for name in part.provenance.images)
        origin = replace(origin, images=names)
    if isinstance(first, PredictionAttributions):
        alike = [part for part in parts if isinstance(part, PredictionAttributions)]
        if any(part.attributions.keys() != first.attributions.keys() for part in alike):
            raise ValueError("Expected batches of the same methods, got others.")
        return replace(
            first,
            attributions={name: _joined([part.attributions[name] for part in alike]) for name in first.attributions},
            targets=_joined([part.targets for part in alike]),
            logits=_joined([part.logits for part in alike]),
            gaps={name: _joined([part.gaps[name] for part in alike]) for name in first.gaps},
            provenance=origin,
        )
    places = [part for part in parts if isinstance(part, PositionAttributions)]
    gaps = [part.gaps for part in places if part.gaps is not None]
    outputs = [part.outputs for part in places if part.outputs is not None]
    return replace(
        first,
        attributions=_joined([part.attributions for part in places]),
        gaps=_joined(gaps) if gaps else None,
        outputs=_joined(outputs) if outputs else None,
        provenance=origin,
    )


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    if len({array.shape[1:] for array in arrays}) > 1:
        raise ValueError(f"Expected batches on one grid, got shapes {', '.join(str(one.shape) for one in arrays)}.")
    joined: np.ndarray = np.concatenate(arrays)
    return joined
