"""Tables of surveys from what `horinsight survey report` wrote, as JSON or as CSV."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from horinsight.stats import Estimate
from horinsight.survey.survey_results import SurveyLine, SurveyTable

QUESTIONS = {"effect": "ie", "order_at_least": "ie", "location_adaptivity": "mixing", "radius_50": "reach"}
MOST_LINES = 100_000
LONGEST = 200  # letters of a name


def table_of_report(content: Mapping[str, Any]) -> SurveyTable:
    """The table of a report in JSON.

    Raises:
        ValueError: it is none.
    """
    try:
        weights, pictures = content["weights"], content["pictures"]
        return SurveyTable(
            question=content["question"],
            model=content["model"],
            weights=weights["source"],
            trained=weights["trained"],
            lines=_lines(content["rows"]),
            num_pictures=pictures["done"],
            num_listed=pictures["listed"],
            unreadable=content["unreadable"],
            num_unreadable=pictures["unreadable"],
            refused=content["not_measured"],
            other=content["other"],
            differing=tuple(content["differing"]),
            paired=content["paired"],
            convention=content["convention"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it is not a whole report of a survey ({error})") from error


def table_of_lines(rows: Sequence[Mapping[str, Any]]) -> SurveyTable:
    """The table of a report in CSV, which says less of the survey.

    Raises:
        ValueError: it is none.
    """
    if not rows or not {"model", "block", "quantity", "value"} <= rows[0].keys():
        raise ValueError("it is CSV, but no report of a survey")
    question = next((QUESTIONS[row["quantity"]] for row in rows if row["quantity"] in QUESTIONS), None)
    if question is None:
        raise ValueError("it is CSV, but none of its quantities is a survey's")
    lines = _lines(rows)
    counts = [line.estimate.count or 0 for line in lines]
    return SurveyTable(
        question=question,
        model=str(rows[0]["model"])[:LONGEST],
        weights="not said in a CSV",
        trained={"True": True, "False": False}.get(str(rows[0].get("trained"))),
        lines=lines,
        num_pictures=max(counts),
        num_listed=max(counts),
        unreadable={},
        num_unreadable=0,
        refused={},
    )


def _lines(rows: Sequence[Mapping[str, Any]]) -> tuple[SurveyLine, ...]:
    if not isinstance(rows, list) or not 0 < len(rows) <= MOST_LINES:
        raise ValueError(f"it has no rows, or more than {MOST_LINES}")
    try:
        return tuple(_line(row) for row in rows)
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"a row is not one of a survey's ({error})") from error


def _line(row: Mapping[str, Any]) -> SurveyLine:
    k = row.get("k")
    compared = row.get("contrast") not in (None, "")
    return SurveyLine(
        group=str(row["group"])[:LONGEST],
        block=int(row["block"]),
        name=str(row["name"])[:LONGEST],
        quantity=str(row["quantity"])[:LONGEST],
        k=None if k in (None, "") else int(k),
        estimate=_estimate(row, ""),
        other=_estimate(row, "other_") if compared else None,
        contrast=_estimate(row, "contrast_") if compared else None,
    )


def _estimate(row: Mapping[str, Any], start: str) -> Estimate:
    count = row.get(f"{start}pictures")
    low, high = (_number(row.get(f"{start}{end}")) for end in ("low", "high"))
    return Estimate(
        _number(row[f"{start}value"]),
        _number(row.get(f"{start}standard_error")),
        None if count in (None, "") else int(float(count)),
        None if math.isnan(low) else (low, high),
    )


def _number(value: Any) -> float:
    return math.nan if value in (None, "") else float(value)
