"""`horinsight survey report`: means over pictures with intervals, by class, and against another survey."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from horinsight.cli.output import SHOWN_REFUSALS, Output, output_options, untrained_note
from horinsight.report import Column, Report, Row

if TYPE_CHECKING:
    from horinsight.stats import Estimate
    from horinsight.survey.survey_results import SurveyLine, SurveyTable

HEADINGS = {
    "order_at_least": "order",
    "input_adaptivity": "adapts to input",
    "location_adaptivity": "to location",
    "mean_distance": "distance (cells)",
    "mean_distance_pixels": "(pixels)",
    "effective_positions": "positions",
    "negative_share": "negative",
    "radius_50": "50 % (cells)",
    "radius_90": "90 %",
    "radius_99": "99 %",
    "radius_50_pixels": "50 % (pixels)",
    "radius_90_pixels": "90 %",
    "radius_99_pixels": "99 %",
    "total": "total",
}


@click.command("report")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--by", type=click.Choice(["class"]), help="A group of rows for each class.")
@click.option(
    "--compare",
    type=click.Path(path_type=Path),
    metavar="OTHER",
    help="Another survey's folder: differences, of effects ratios; by picture where both are of the same list.",
)
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw them by depth: .pdf, .png or .svg.")
@output_options
def command(folder: Path, by: str | None, compare: Path | None, plot: Path | None, output: Output) -> None:
    """Report the survey in a folder as far as it is finished; it may be running.

    Intervals are of 95 %, over pictures: all numbers of a picture are one draw.

    \b
    Examples:
      horinsight survey report effects/
      horinsight survey report mixing/ --by class --plot mixing.png
      horinsight survey report effects/ --compare others/ --output compared.csv
    """
    if plot is not None:
        from horinsight.figures.style import check_figure_path

        check_figure_path(plot)
    from horinsight.survey.survey_estimates import survey_table

    table = survey_table(folder, by="class" if by else None, compare=compare)
    output.emit(survey_report(table))
    if plot is not None:
        from horinsight.figures.style import save_figure
        from horinsight.figures.survey_depths import draw_survey_depths

        save_figure(draw_survey_depths(table), plot)
        click.echo(f"written: {plot}", err=True)


def survey_report(table: "SurveyTable") -> Report:
    """The table as text for people, JSON and CSV: of one survey a row for each block, of two a row for each number."""
    from horinsight.survey.survey_results import line_of_table

    lines = [{"model": table.model, "trained": table.trained, **line_of_table(line)} for line in table.lines]
    titles = {"ie": "Interaction effects", "mixing": "Mixing weights", "reach": "Reach"}
    grouped = len({line.group for line in table.lines}) > 1
    first = [Column("class", "group")] * grouped + [Column("block", "block"), Column("name", "name")]
    columns, shown = _side_by_side(table) if table.other is None else _compared(table)
    title = f"{titles[table.question]} of {table.model} over {table.num_pictures} pictures"
    return Report(
        title=title if table.other is None else f"{title}, against {table.other}",
        columns=[*first, *columns],
        rows=shown,
        notes=_notes(table),
        head={
            "question": table.question,
            "model": table.model,
            "weights": {"source": table.weights, "trained": table.trained},
            "other": table.other,
            "differing": list(table.differing),
            "paired": table.paired,
            "paired_pictures": table.num_paired,
            "pictures": {"done": table.num_pictures, "listed": table.num_listed, "unreadable": table.num_unreadable},
            "unreadable": dict(table.unreadable),
            "not_measured": dict(table.refused),
            "convention": dict(table.convention),
            "rows": lines,
        },
        rows_key=None,
        lines=lines,
    )


def _side_by_side(table: "SurveyTable") -> tuple[list[Column], list[Row]]:
    """A row for each group and block, a column for each quantity and k."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    keys: dict[str, str] = {}
    for line in _shown(table):
        key = line.quantity if line.k is None else f"k={line.k}"
        keys.setdefault(key, HEADINGS.get(line.quantity, line.quantity) if line.k is None else key)
        row = rows.setdefault((line.group, line.block), {"group": line.group, "block": line.block, "name": line.name})
        row[key] = _cell(line.estimate)
    order = [key for key in HEADINGS if key in keys] + sorted(key for key in keys if key not in HEADINGS)
    for row in rows.values():
        row |= {key: None for key in order if key not in row}
    return [Column(keys[key], key) for key in order], list(rows.values())


def _compared(table: "SurveyTable") -> tuple[list[Column], list[Row]]:
    """A row for each number: both, and the interval of what they differ by."""
    rows: list[Row] = []
    for line in _shown(table):
        assert line.contrast is not None
        low, high = line.contrast.interval
        ratio = line.quantity == "effect"
        rows.append(
            {
                "group": line.group,
                "block": line.block,
                "name": line.name,
                "quantity": f"effect_{line.k}" if ratio else HEADINGS.get(line.quantity, line.quantity),
                "value": _cell(line.estimate),
                "other": None if line.other is None else _cell(line.other),
                "contrast": None if line.contrast.value != line.contrast.value else f"{line.contrast.value:.3g}",
                "interval": None if low != low else f"{low:.3g} to {high:.3g}",
                "paired": line.num_paired,
            }
        )
    names = ("quantity", "value", "other")
    heading = "ratio" if table.question == "ie" else "difference"
    columns = [*(Column(name, name) for name in names), Column(heading, "contrast"), Column("95 %", "interval")]
    if table.paired:
        columns.append(Column("paired", "paired"))
    return columns, rows


def _shown(table: "SurveyTable") -> "Iterable[SurveyLine]":
    """Lines of the table for people: the others are in JSON and CSV."""
    return (line for line in table.lines if line.quantity == "effect" or line.quantity in HEADINGS)


def _cell(estimate: "Estimate") -> str | None:
    if estimate.value != estimate.value:
        return None
    return "0" if estimate.value == 0 and estimate.interval == (0.0, 0.0) else str(estimate)


def _notes(table: "SurveyTable") -> list[str]:
    done = f"pictures: {table.num_pictures} of {table.num_listed}"
    if table.num_pictures < table.num_listed:
        done += ", the survey is not finished"
    if table.num_unreadable:
        done += f"; {table.num_unreadable} could not be read:"
    notes = [untrained_note(table.trained, table.weights), done]
    notes += [f"  {name}: {reason}" for name, reason in list(table.unreadable.items())[:SHOWN_REFUSALS]]
    notes += [f"left out on {count} pictures: {reason}" for reason, count in _few(table.refused)]
    notes.append("± standard error over pictures. JSON and CSV have 95 % intervals and more quantities.")
    if table.question == "ie":
        notes.append('k=0, 1, ...: effect_k, pooled over pictures; "0" is exact. order: mean over pictures.')
    if table.question == "mixing":
        notes.append(
            "adapts to input, to location: shares of the variance of the weights over the pictures of a group."
        )
    if table.other is not None:
        notes.append(_how_compared(table))
    return notes + [f"differing: {line}" for line in table.differing]


def _how_compared(table: "SurveyTable") -> str:
    if table.paired:
        return (
            f"compared picture by picture: {table.num_paired} pictures that both have; adaptivity by parts of the same "
            "pictures. paired: pictures of each row."
        )
    return "compared as independent samples: they are not of the same list of pictures, or have too few in common yet."


def _few(refused: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(refused.items(), key=lambda item: -item[1])[:SHOWN_REFUSALS]
