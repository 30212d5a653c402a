"""What `horinsight reach` and `horinsight mixing --influence` write: a table over blocks."""

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from horinsight.cli.output import images_note, skipped_notes, untrained_note
from horinsight.mixing.reach_results import SHARES, Reach
from horinsight.report import Column, Report, Row
from horinsight.stats import Estimate

if TYPE_CHECKING:
    from horinsight.mixers.blocks import MixingBlock

SCOPES = {
    "mixer": "Influence within each mixer",
    "block": "Influence within each block",
    "image": "Effective receptive field of each block",
}


def reach_report(
    reaches: "Mapping[MixingBlock, Reach]", *, settings: Mapping[str, Any], skipped: Mapping[str, str]
) -> Report:
    """The report.

    Args:
        reaches: in the order of the network; at least one.
        settings: what was asked for, with "scope".
        skipped: name of a picture → why it cannot be read.
    """
    first = next(iter(reaches.values()))
    origin, convention = first.provenance, first.convention
    assert origin is not None
    names = [f"radius_{100 * share:.0f}" for share in SHARES]
    percents = [name.removeprefix("radius_") for name in names]
    probes, num_queries = first.influence.num_probes, first.totals.shape[1]
    return Report(
        title=f"{SCOPES[settings['scope']]} of {origin.model}",
        columns=[
            Column("block", "index"),
            Column("name", "name"),
            Column("map", lambda row: "x".join(map(str, row["map"]))),
            *(
                Column(f"{percent} % ({unit})", functools.partial(_cell, f"{name}{suffix}"))
                for unit, suffix in (("cells", ""), ("pixels", "_pixels"))
                for name, percent in zip(names, percents, strict=True)
            ),
            Column("total", functools.partial(_cell, "total")),
        ],
        rows=[_row(block, reach) for block, reach in reaches.items()],
        notes=[
            untrained_note(origin.trained, origin.weights),
            f"{images_note(origin.images)}; {num_queries} {'query' if num_queries == 1 else 'queries'} each",
            *skipped_notes(skipped),
            f"{', '.join(percents)} %: {convention['radius']}, from the query; cells of the block's own map.",
            f"{convention['influence']}; {convention['estimator']}. total: {convention['total']}.",
            "± standard error over images.",
        ],
        head={
            "model": origin.model,
            "weights": {"source": origin.weights, "trained": origin.trained, "sha256": origin.weights_sha256},
            "images": list(origin.images),
            "skipped": dict(skipped),
            "convention": {**convention, "probes": "all channels" if probes is None else str(probes)},
            "seed": first.influence.seed,
            "versions": origin.versions,
            "settings": settings,
        },
        rows_key="blocks",
        lines=[
            {"model": origin.model, "trained": origin.trained, "block": block.index, "name": block.name, **line}
            for block, reach in reaches.items()
            for line in _lines(reach)
        ],
    )


def query_choice(queries: list[tuple[int, int]], num_queries: int | None) -> int | list[tuple[int, int]] | None:
    """What --query and --queries say together; None for the middle of the map.

    Raises:
        click.UsageError: both are given.
    """
    if queries and num_queries is not None:
        raise click.UsageError("--query ROW,COL and --queries N exclude each other: these positions, or N drawn ones.")
    return queries or num_queries


def _row(block: "MixingBlock", reach: Reach) -> dict[str, Any]:
    row: dict[str, Any] = {
        "index": block.index,
        "name": block.name,
        "mixer": block.mixer,
        "map": list(reach.influence.output_shape),
        "queries": reach.influence.queries.tolist(),
        "num_images": len(reach.totals),
    }
    for name, estimate in reach.estimates.items():
        row |= {name: estimate.value, f"{name}_se": estimate.standard_error}
    return row


def _lines(reach: Reach) -> list[dict[str, Any]]:
    return [
        {"quantity": name, "value": estimate.value, "standard_error": estimate.standard_error}
        for name, estimate in reach.estimates.items()
    ]


def _cell(name: str, row: Row) -> Estimate | None:
    return None if row[name] != row[name] else Estimate(row[name], row[f"{name}_se"])
