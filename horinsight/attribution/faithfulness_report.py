"""What `Faithfulness` says, as a table: a line for each map under each baseline."""

from collections.abc import Mapping
from typing import Any

from horinsight.attribution.faithfulness_results import Faithfulness
from horinsight.attribution.faithfulness_sums import FaithfulnessSums
from horinsight.attribution.faithfulness_table import SUPPORT, USELESS
from horinsight.report import NOTHING, Column, Report, Row

SIGNS = {"yes": "yes", "no": "no", "undecided": "?"}


def faithfulness_report(
    result: Faithfulness | FaithfulnessSums, *, settings: Mapping[str, Any] | None = None
) -> Report:
    """The report.

    Args:
        result: of at least one picture.
        settings: what was asked for, as JSON is to have it.
    """
    origin, convention = result.provenance, result.convention
    count = result.num_pictures
    words = [
        f"{name}: {convention.get(f'baseline {name}', '')}, leaves {result.left(name):.2g}" for name in result.baselines
    ]
    head: dict[str, Any] = {
        "images": [] if origin is None else list(origin.images),
        "convention": convention,
        "seed": result.seed,
        "left": {name: result.left(name) for name in result.baselines},
        "warnings": list(result.warnings),
        "ranking": [list(group) for group in result.ranking()],
        "ranking_in_words": result.ranking_in_words,
    }
    if origin is not None:
        weights = {"source": origin.weights, "trained": origin.trained, "sha256": origin.weights_sha256}
        head = {"model": origin.model, "weights": weights} | head | {"versions": origin.versions}
    return Report(
        title=f"Insertion - deletion of maps{'' if origin is None else f' of {origin.model}'}, {count} pictures",
        columns=[
            Column("map", lambda row: row["map"] + (" (control)" if row["control"] else "")),
            Column("baseline", "baseline"),
            Column("area", lambda row: _with_interval(row, "area")),
            *(Column(f"over {name}", _Over(name)) for name in result.controls),
        ],
        rows=[dict(line) for line in result.lines()],
        notes=[
            f"ranking: {result.ranking_in_words}",
            *(f"warning: {words}" for words in result.warnings),
            "Brackets: 95 %, Student's over pictures, for pictures like these, each by itself. over: the difference to "
            "the control on the same pictures; yes: above 0, no: below 0, ?: undecided.",
            f"Baselines, and what each leaves of the score: {'; '.join(words)}.",
            f"A ranking holds under {SUPPORT} baselines and more that leave at most {USELESS:.0%}, and against none.",
        ],
        head=head | ({} if settings is None else {"settings": settings}),
    )


class _Over:
    """The cell of a difference to a control."""

    def __init__(self, control: str) -> None:
        self.control = control

    def __call__(self, row: Row) -> str:
        said = row[f"beats_{self.control}"]
        return NOTHING if said is None else f"{_with_interval(row, f'over_{self.control}')} {SIGNS[said]}"


def _with_interval(row: Row, name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    ends = "" if low != low else f" [{low:.3f}, {high:.3f}]"
    return f"{row[name]:.3f}{ends}"
