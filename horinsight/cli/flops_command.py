"""`horinsight flops`: what a model costs, and Eq. 3.6 for each of its gnConvs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from horinsight.cli.output import chosen_format, emit, format_options
from horinsight.complexity.cost_results import COLUMNS, CONVENTIONS, GnConvBound, MacCount, bound_row
from horinsight.complexity.published import PublishedRow, published_rows
from horinsight.report import NOTHING, Column, Format, Report, Row

VIOLATED = 1  # exit status


@click.command("flops")
@click.option("--model", "model_name", metavar="NAME", help="See `horinsight models`.")
@click.option(
    "--all", "every", is_flag=True, help="Every HorNet of Tables 1 and 6b, and their rivals (without --image-size)."
)
@click.option(
    "--table",
    type=click.Choice(["1", "2", "3", "6"]),
    help="Every row of this table of the paper, or with --model those of one, beside what is printed.",
)
@click.option(
    "--image-size", type=click.IntRange(min=1), metavar="S", help="Side in pixels.  [default: the model's, the paper's]"
)
@click.option(
    "--fft",
    type=click.Choice(["published", "exact"]),
    default="published",
    show_default=True,
    help="What Table 1's convention adds for an FFT: as the published script has it, or with log2(H W).",
)
@format_options
def command(
    model_name: str | None,
    every: bool,
    table: str | None,
    image_size: int | None,
    fft: Any,
    fmt: Format | None,
    output: Path | None,
) -> int:
    """Count what a model computes, and check Eq. 3.6 for each gnConv: cost < HWC (2K² + 11/3 C + 2).

    Nothing is computed for it: the model runs without weights on shapes alone. Counts are multiply-accumulates of
    convolutions, linear layers and matrix products; those of a gnConv include its gating products, as in the paper's
    bound, and leave out scale and biases. "published" is the convention of the paper's Table 1.

    With --table the convention is that of each row, and rows that come out otherwise are told as not reproduced.

    Exit status 1 if a bound that applies does not hold.

    \b
    Examples:
      horinsight flops --model hornet_tiny_7x7
      horinsight flops --model hornet_base_gf --image-size 512 --format json
      horinsight flops --all
      horinsight flops --table 2
      horinsight flops --table 3 --model hornet_small_7x7
    """
    if table is not None:
        from horinsight.cli.table_report import table_report

        _check_alone(int(table), every=every, image_size=image_size, fft=fft)
        fmt = chosen_format(fmt, output)
        emit(table_report(int(table), model=model_name, fft=fft), fmt, output)
        return 0
    if every == (model_name is not None):
        raise click.UsageError("say what to count: --model NAME, or --all, or --table N.")
    fmt = chosen_format(fmt, output)
    if every:
        rows = published_rows()
        if image_size is not None:  # Swin and DeiT take one size
            rows = list({row.model: row for row in rows if row.model.startswith("hornet")}.values())
        found = [_counted(row.model, image_size or row.image_size, fft) for row in rows]
        emit(_table_report(rows, found, comparable=image_size is None), fmt, output)
        return _status([bound for _, bounds in found for bound in bounds])
    assert model_name is not None
    count, bounds = _counted(model_name, image_size, fft)
    emit(_model_report(model_name, count, bounds), fmt, output)
    return _status(bounds)


def _check_alone(table: int, *, every: bool, image_size: int | None, fft: str) -> None:
    """Refuse what would have no effect beside --table."""
    if every:
        raise click.UsageError("--table and --all both say what to count: leave one out.")
    if image_size is not None:
        raise click.UsageError("--table counts at the paper's image sizes: leave --image-size out.")
    if fft != "published" and table in (2, 3):
        raise click.UsageError(f"--fft {fft} has no effect on Table {table}, which counts no FFTs: leave it out.")


def _status(bounds: list[GnConvBound]) -> int:
    return VIOLATED if any(bound.holds is False for bound in bounds) else 0


def _counted(name: str, image_size: int | None, fft: Any) -> tuple[MacCount, list[GnConvBound]]:
    from horinsight.complexity.bound import count_and_bounds
    from horinsight.models.registry import input_size, model_without_weights

    model = model_without_weights(name)
    size = input_size(model) if image_size is None else (image_size, image_size)
    return count_and_bounds(model, size, fft=fft)


def _content(name: str, count: MacCount, bounds: list[GnConvBound]) -> dict[str, Any]:
    height, width = count.image_size
    return {
        "model": name,
        "image_size": height if height == width else [height, width],
        "params": count.params,
        "macs": count.macs,
        "macs_published": count.macs_published,
        "flops": count.flops,
        "columns": count.by_column,
        "convention": CONVENTIONS,
        "not_counted": list(count.not_counted),
        "gnconvs": [bound_row(bound) for bound in bounds],
    }


def _model_report(name: str, count: MacCount, bounds: list[GnConvBound]) -> Report:
    """What one model costs: a line per gnConv, or per kind of operation where there is none."""
    content = _content(name, count, bounds)
    keys = ("model", "params", "macs", "macs_published", "flops")
    total = {f"model_{key}".replace("model_model", "model"): content[key] for key in keys}
    size = "x".join(map(str, count.image_size))
    notes = [
        f"parameters {count.params / 1e6:.2f} M; MACs {count.macs / 1e9:.3f} G; as Table 1 counts "
        f"{count.macs_published / 1e9:.3f} G; FLOPs {count.flops / 1e9:.3f} G",
        "all of it: " + ", ".join(f"{column} {_short(count.by_column[column])}" for column in COLUMNS),
        "not counted: " + (", ".join(f"{op} ({calls})" for op, calls in count.not_counted.items()) or "nothing"),
    ]
    if not bounds:
        return Report(
            title=f"{name} at {size}: no gnConv",
            columns=[Column("column", "column"), Column("count", lambda row: f"{row['count']:,}")],
            rows=[{"column": column, "count": count.by_column[column]} for column in COLUMNS],
            notes=notes[:1] + notes[2:],
            head=content,
            rows_key=None,
            lines=[{**total, **count.by_column}],
        )
    remarks = ["MACs of a gnConv with its gating products, without scale and biases: what Eq. 3.6 bounds."]
    if not all(bound.applicable for bound in bounds):
        remarks.append(
            f'"{NOTHING}": Eq. 3.6 is about a K x K depthwise convolution: not applicable to GF and pooling.'
        )
    if any(bound.bound and bound.with_scale_and_biases > bound.bound for bound in bounds):
        remarks.append(
            '"with all": with scale and biases too, another convention than the bound\'s: above 1 is no violation.'
        )
    return Report(
        title=f"Eq. 3.6 for {name} at {size}",
        columns=[
            Column("block", "index"),
            Column("name", "name"),
            Column("order", "order"),
            Column("C", "dim"),
            Column("K", "kernel_size"),
            Column("map", lambda row: f"{row['height']}x{row['width']}"),
            Column("MACs counted", lambda row: f"{row['macs']:,}"),
            Column("closed form", _number("closed_form", ",")),
            Column("bound", _number("bound", ",.0f")),
            Column("ratio", _number("ratio", ".3f")),
            Column("with all", lambda row: row["bound"] and format(row["with_scale_and_biases"] / row["bound"], ".3f")),
            Column("holds", _verdict),
        ],
        rows=content["gnconvs"],
        notes=remarks + notes,
        head=content,
        rows_key=None,
        lines=[{**total, **row} for row in content["gnconvs"]],
    )


def _number(key: str, form: str) -> Callable[[Row], str | None]:
    """A cell that shows a row's number in a form; None where there is none."""
    return lambda row: None if row[key] is None else format(row[key], form)


def _verdict(row: Row) -> str | None:
    return {None: None, True: "yes", False: "NO"}[row["holds"]]


def _short(value: int) -> str:
    return f"{value / 1e9:.3f} G" if value >= 1e8 else f"{value / 1e6:.2f} M" if value >= 1e4 else str(value)


def _table_report(
    rows: list[PublishedRow], found: list[tuple[MacCount, list[GnConvBound]]], *, comparable: bool
) -> Report:
    """Every model beside what the paper prints, where it prints that size."""
    models = [
        _beside_the_paper(row, count, bounds, comparable=comparable)
        for row, (count, bounds) in zip(rows, found, strict=True)
    ]
    return Report(
        title="What the models of the paper cost",
        columns=[
            Column("model", "model"),
            Column("image", "image_size"),
            Column("M params", lambda row: f"{row['params'] / 1e6:.1f}"),
            Column("printed", lambda row: row["printed"] and row["printed"]["params_m"]),
            Column("G as published", lambda row: f"{row['macs_published'] / 1e9:.2f}"),
            Column("printed", lambda row: row["printed"] and f"{row['printed']['flops_g']:.1f}"),
            Column("same", lambda row: {None: None, True: "yes", False: "no"}[row["prints_as_published"]]),
            Column("G MACs", lambda row: f"{row['macs'] / 1e9:.3f}"),
            Column("+ norms", lambda row: f"{row['published_norms'] / 1e9:.3f}"),
            Column("+ FFTs", lambda row: f"{row['published_ffts'] / 1e9:.3f}"),
            Column("attention", lambda row: f"{(row['columns']['matmul'] + row['columns']['attention']) / 1e9:.3f}"),
            Column("ratio", _number("largest_ratio", ".4f")),
            Column("Eq. 3.6", _verdict),
        ],
        rows=models,
        notes=[
            "as published: Table 1's convention, MACs + norms + FFTs. printed: Tables 1 and 6b of the paper.",
            "norms: 5 per element of LayerNorms over the last dimension. FFTs: as the published script has them "
            "(--fft).",
            "attention: q k^T and its product with v, which are among the MACs. The papers of Swin, ConvNeXt and DeiT "
            "print MACs, without norms.",
            "ratio: the largest cost of a gnConv over its bound. Eq. 3.6 does not apply to the gnConvs with GF.",
        ],
        head={"convention": CONVENTIONS},
        rows_key="models",
        lines=[_flat(model) for model in models],
    )


def _beside_the_paper(
    row: PublishedRow, count: MacCount, bounds: list[GnConvBound], *, comparable: bool
) -> dict[str, Any]:
    applicable = [bound for bound in bounds if bound.applicable]
    content = _content(row.model, count, bounds)
    del content["convention"]  # said once
    printed = {"table": row.table, "params_m": row.params_m, "flops_g": row.flops_g}
    agrees = row.prints_params(count.params) and row.prints_flops(count.macs_published)
    return {
        **content,
        "published_norms": count.published_norms,
        "published_ffts": count.published_ffts,
        "printed": printed if comparable else None,
        "prints_as_published": agrees if comparable else None,
        "largest_ratio": max((bound.ratio or 0 for bound in applicable), default=None),
        "holds": all(bound.holds for bound in applicable) if applicable else None,
    }


def _flat(model: Row) -> dict[str, Any]:
    """A model's line of CSV."""
    nested = ("columns", "not_counted", "gnconvs", "printed")
    flat = {key: value for key, value in model.items() if key not in nested}
    printed = model["printed"] or {"table": None, "params_m": None, "flops_g": None}
    return {**flat, **{f"printed_{key}": value for key, value in printed.items()}, **model["columns"]}
