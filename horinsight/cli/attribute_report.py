"""What `horinsight attribute` writes: a line for each method and picture."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from horinsight.attribution.attribution_results import PositionAttributions, PredictionAttributions
from horinsight.cli.output import refusal_notes, skipped_notes, untrained_note
from horinsight.report import NOTHING, Column, Report
from horinsight.results import Provenance

Attributions = PredictionAttributions | PositionAttributions


def attribute_report(
    found: Mapping[str, Attributions],
    rows: Sequence[dict[str, Any]],
    origin: Provenance,
    *,
    skipped: Mapping[str, str],
    refused: Mapping[str, str],
    unfinished: Sequence[str] = (),
    settings: Mapping[str, Any],
) -> Report:
    """The report.

    Args:
        found: method → what it says of the pictures that are shown, of none perhaps; at least one method.
        rows: of all pictures, see `attribution_rows`.
        origin: model, weights and pictures.
        skipped: name of a picture → why it cannot be read.
        refused: method → why it is left out.
        unfinished: methods that were asked for when the command was interrupted.
        settings: what was asked for.
    """
    first = next(iter(found.values()))
    position = isinstance(first, PositionAttributions)
    what = f"positions of {first.block}" if isinstance(first, PositionAttributions) else "a class"
    convention = {key: words for one in found.values() for key, words in _convention(one).items()}
    return Report(
        title=f"Attributions of {what}, {origin.model}",
        columns=[
            Column("method", "method"),
            Column("picture", "image"),
            Column(
                "position" if position else "class", lambda row: _place(row["query"]) if position else row["target"]
            ),
            Column("explained", lambda row: _number(row["explained"])),
            Column("sum", lambda row: _number(row["sum"])),
            Column("gap", lambda row: _number(row["gap"])),
            Column("grid", lambda row: "x".join(map(str, row["grid"]))),
            Column("strongest", lambda row: _place(row["strongest"])),
            Column("seconds", lambda row: f"{row['seconds']:.2f}"),
        ],
        rows=rows,
        notes=[
            untrained_note(origin.trained, origin.weights),
            "explained: the number that is attributed; sum: of the map; gap: by how much the sum misses the difference "
            f'to the baseline, "{NOTHING}" where methods do not add up; strongest: row, column of the largest |value|.',
            *(f"{method}: {words}" for method, words in convention.items()),
            *skipped_notes(skipped),
            *refusal_notes(refused),
            *([f"interrupted: without {', '.join(unfinished)}"] if unfinished else []),
        ],
        head={
            "model": origin.model,
            "weights": {"source": origin.weights, "trained": origin.trained, "sha256": origin.weights_sha256},
            "images": list(origin.images),
            "skipped": dict(skipped),
            "convention": convention,
            "seed": first.seed,
            "not_run": dict(refused),
            "unfinished": list(unfinished),
            "versions": origin.versions,
            "settings": settings,
        },
        rows_key="attributions",
        lines=[
            {"model": origin.model, "trained": origin.trained, **{k: _flat(v) for k, v in row.items()}} for row in rows
        ],
    )


def attribution_rows(method: str, found: Attributions, names: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each picture, or picture and position, but for the seconds that the method took.

    Args:
        method: its name.
        found: what it says.
        names: of the pictures.
    """
    if isinstance(found, PositionAttributions):
        maps, gaps = found.maps, found.gaps
        places = [
            (image, query, found.queries[query].tolist())
            for image in range(len(maps))
            for query in range(maps.shape[1])
        ]
        return [
            {
                "method": method,
                "image": names[image],
                "query": place,
                "target": None,
                "explained": None if found.outputs is None else float(found.outputs[image, query]),
                **_numbers(maps[image, query], None if gaps is None else gaps[image, query]),
            }
            for image, query, place in places
        ]
    gap = found.gaps.get(method)
    return [
        {
            "method": method,
            "image": names[image],
            "query": None,
            "target": int(found.targets[image]),
            "explained": float(found.logits[image]),
            **_numbers(values, None if gap is None else gap[image]),
        }
        for image, values in enumerate(found.maps[method])
    ]


def _numbers(values: np.ndarray, gap: Any) -> dict[str, Any]:
    strongest = np.unravel_index(int(np.abs(values).argmax()), values.shape)
    return {
        "sum": float(values.sum()),
        "gap": None if gap is None else float(gap),
        "grid": list(values.shape),
        "strongest": [int(number) for number in strongest],
    }


def _convention(found: Attributions) -> dict[str, str]:
    if isinstance(found, PredictionAttributions):
        return dict(found.convention)
    return {found.method: "; ".join(f"{key}: {words}" for key, words in found.convention.items())}


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3g}"


def _place(value: Sequence[int]) -> str:
    return ",".join(map(str, value))


def _flat(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, list) else value


def shown_maps(found: Mapping[str, Attributions], query: int = 0) -> dict[str, np.ndarray]:
    """Method → (B, rows, columns), of one query where positions are explained."""
    return {
        method: one.maps[:, query] if isinstance(one, PositionAttributions) else one.maps[method]
        for method, one in found.items()
    }
