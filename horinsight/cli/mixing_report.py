"""What `horinsight mixing` prints: how far weights adapt and reach, block by block."""

import functools
from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

from horinsight.cli.output import images_note, refusal_notes, skipped_notes, untrained_note
from horinsight.mixing.mixing_results import Adaptivity
from horinsight.report import Column, Report, Row
from horinsight.results import Provenance
from horinsight.stats import Estimate

COLUMNS = {
    "input_adaptivity": "adapts to input",
    "location_adaptivity": "to location",
    "mean_distance": "distance (cells)",
    "mean_distance_pixels": "(pixels)",
    "effective_positions": "positions",
    "negative_share": "negative",
}


def mixing_report(
    found: Mapping[str, Adaptivity],
    rows: Sequence[Row],
    origin: Provenance,
    *,
    step: int | None,
    refused: Mapping[str, str],
    skipped: Mapping[str, str],
) -> Report:
    """The report.

    Args:
        found: block name → its numbers.
        rows: of the blocks in their order, with `mixing_numbers`.
        origin: model, weights and pictures.
        step: of gnConvs; the last when None.
        refused: block name → why it has no mixing weights.
        skipped: name of a picture → why it cannot be read.
    """
    source = {"source": origin.weights, "trained": origin.trained}
    return Report(
        title=f"Mixing weights of {origin.model}",
        columns=[
            Column("block", "index"),
            Column("name", "name"),
            *(Column(heading, functools.partial(_estimate, found, key)) for key, heading in COLUMNS.items()),
        ],
        rows=rows,
        notes=[
            untrained_note(origin.trained, origin.weights),
            images_note(origin.images),
            *skipped_notes(skipped),
            "adapts to input, to location: shares of the variance of the weights; 0 for a plain convolution."
            + (" One image cannot tell the first: give two or more." if len(origin.images) < 2 else ""),
            "± standard error over images. distance: mean over |h|. positions: (Σ|h|)² / Σh². negative: share of |h|.",
            f"held fixed: {'; '.join(dict.fromkeys(one.convention['held'] for one in found.values()))}.",
            *refusal_notes(refused),
        ],
        head={
            "model": origin.model,
            "weights": source,
            "images": list(origin.images),
            "skipped": dict(skipped),
            "seed": origin.seed,
            "step": step,
            "declared": {name: {key: one.convention[key] for key in ("value", "held")} for name, one in found.items()},
            "not_measured": dict(refused),
        },
        rows_key="blocks",
        lines=[{"model": origin.model, "trained": origin.trained, **row} for row in rows],
    )


def mixing_numbers(found: Adaptivity) -> dict[str, Any]:
    """Of one block, for programs."""
    numbers: dict[str, Any] = {"num_images": found.num_images}
    for key in (*COLUMNS, "static_share", "input_deviation", "location_deviation"):
        estimate = getattr(found, key)
        numbers |= {key: estimate.value, f"{key}_se": estimate.standard_error}
    return numbers


def _estimate(found: Mapping[str, Adaptivity], key: str, row: Row) -> Estimate | None:
    estimate: Estimate = getattr(found[row["name"]], key)
    return None if isnan(estimate.value) else estimate
