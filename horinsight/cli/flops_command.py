"""`horinsight flops`: what a model costs, and Eq. 3.6 for each of its gnConvs."""

from pathlib import Path
from typing import Any

import click

from horinsight.cli.output import chosen_format, emit, format_options, json_text, text_table
from horinsight.complexity.cost_results import COLUMNS, CONVENTIONS, GnConvBound, MacCount
from horinsight.complexity.published import PublishedRow, published_rows
from horinsight.results import csv_text

VIOLATED = 1  # exit status


@click.command("flops")
@click.option("--model", "model_name", metavar="NAME", help="See `horinsight models`.")
@click.option(
    "--all", "every", is_flag=True, help="Every HorNet of Tables 1 and 6b, and their rivals (without --image-size)."
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
    model_name: str | None, every: bool, image_size: int | None, fft: Any, fmt: str | None, output: Path | None
) -> int:
    """Count what a model computes, and check Eq. 3.6 for each gnConv: cost < HWC (2K² + 11/3 C + 2).

    Nothing is computed for it: the model runs without weights on shapes alone. Counts are multiply-accumulates of
    convolutions, linear layers and matrix products; those of a gnConv include its gating products, as in the paper's
    bound, and leave out scale and biases. "published" is the convention of the paper's Table 1.

    Exit status 1 if a bound that applies does not hold.

    \b
    Examples:
      horinsight flops --model hornet_tiny_7x7
      horinsight flops --model hornet_base_gf --image-size 512 --format json
      horinsight flops --all
    """
    if every == (model_name is not None):
        raise click.UsageError("say what to count: --model NAME, or --all.")
    fmt = chosen_format(fmt, output)
    if every:
        rows = published_rows()
        if image_size is not None:  # Swin and DeiT take one size
            rows = list({row.model: row for row in rows if row.model.startswith("hornet")}.values())
        found = [_counted(row.model, image_size or row.image_size, fft) for row in rows]
        emit(_all_text(fmt, rows, found, image_size=image_size, to_file=output is not None), output)
        return _status([bound for _, bounds in found for bound in bounds])
    assert model_name is not None
    count, bounds = _counted(model_name, image_size, fft)
    emit(_one_text(fmt, model_name, count, bounds, to_file=output is not None), output)
    return _status(bounds)


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
        "gnconvs": bounds,
    }


def _one_text(fmt: str, name: str, count: MacCount, bounds: list[GnConvBound], *, to_file: bool) -> str:
    content = _content(name, count, bounds)
    if fmt == "json":
        return json_text(content)
    if fmt == "csv":
        keys = ("model", "params", "macs", "macs_published", "flops")
        total = {f"model_{key}".replace("model_model", "model"): content[key] for key in keys}
        return csv_text([{**total, **vars(bound)} for bound in bounds] or [{**total, **count.by_column}])
    size = "x".join(map(str, count.image_size))
    notes = [
        f"parameters {count.params / 1e6:.2f} M; MACs {count.macs / 1e9:.3f} G; as Table 1 counts "
        f"{count.macs_published / 1e9:.3f} G; FLOPs {count.flops / 1e9:.3f} G",
        "all of it: " + ", ".join(f"{column} {_short(count.by_column[column])}" for column in COLUMNS),
        "not counted: " + (", ".join(f"{op} ({calls})" for op, calls in count.not_counted.items()) or "nothing"),
    ]
    if not bounds:
        return text_table(
            f"{name} at {size}: no gnConv", ["column", "count"], _column_rows(count), notes[:1] + notes[2:]
        )
    notes.insert(0, "MACs of a gnConv with its gating products, without scale and biases: what Eq. 3.6 bounds.")
    if any(bound.bound and bound.with_scale_and_biases > bound.bound for bound in bounds):
        notes.insert(
            1,
            '"with all": with scale and biases too, another convention than the bound\'s: above 1 is no violation.',
        )
    if not all(bound.applicable for bound in bounds):
        notes.insert(1, '"·": Eq. 3.6 is about a K x K depthwise convolution: not applicable to GF and pooling.')
    columns = [
        "block",
        "name",
        "order",
        "C",
        "K",
        "map",
        "MACs counted",
        "closed form",
        "bound",
        "ratio",
        "with all",
        "holds",
    ]
    rows = [_bound_row(bound) for bound in bounds]
    return text_table(f"Eq. 3.6 for {name} at {size}", columns, rows, notes, to_file=to_file)


def _column_rows(count: MacCount) -> list[list[str]]:
    return [[column, f"{count.by_column[column]:,}"] for column in COLUMNS]


def _bound_row(bound: GnConvBound) -> list[str]:
    def maybe(value: float | None, form: str) -> str:
        return "·" if value is None else format(value, form)

    extra = None if bound.bound is None else bound.with_scale_and_biases / bound.bound
    holds = "·" if bound.holds is None else "yes" if bound.holds else "NO"
    return [
        str(bound.index),
        bound.name,
        str(bound.order),
        str(bound.dim),
        "·" if bound.kernel_size is None else str(bound.kernel_size),
        f"{bound.height}x{bound.width}",
        f"{bound.macs:,}",
        maybe(bound.closed_form, ","),
        maybe(bound.bound, ",.0f"),
        maybe(bound.ratio, ".3f"),
        maybe(extra, ".3f"),
        holds,
    ]


def _short(value: int) -> str:
    return f"{value / 1e9:.3f} G" if value >= 1e8 else f"{value / 1e6:.2f} M" if value >= 1e4 else str(value)


def _all_text(
    fmt: str,
    rows: list[PublishedRow],
    found: list[tuple[MacCount, list[GnConvBound]]],
    *,
    image_size: int | None,
    to_file: bool,
) -> str:
    comparable = image_size is None
    models = []
    for row, (count, bounds) in zip(rows, found, strict=True):
        applicable = [bound for bound in bounds if bound.applicable]
        models.append(
            {
                **_content(row.model, count, bounds),
                "published_norms": count.published_norms,
                "published_ffts": count.published_ffts,
                "printed": {"table": row.table, "params_m": row.params_m, "flops_g": row.flops_g}
                if comparable
                else None,
                "prints_as_published": row.prints_params(count.params) and row.prints_flops(count.macs_published)
                if comparable
                else None,
                "largest_ratio": max((bound.ratio or 0 for bound in applicable), default=None),
                "holds": all(bound.holds for bound in applicable) if applicable else None,
            }
        )
    if fmt == "json":
        for model in models:
            del model["convention"]
        return json_text({"convention": CONVENTIONS, "models": models})
    if fmt == "csv":
        nested = ("columns", "convention", "not_counted", "gnconvs", "printed")
        lines = []
        for model in models:
            flat = {key: value for key, value in model.items() if key not in nested}
            printed = model["printed"] or {"table": None, "params_m": None, "flops_g": None}
            lines.append({**flat, **{f"printed_{key}": value for key, value in printed.items()}, **model["columns"]})
        return csv_text(lines)
    cells = []
    for row, model in zip(rows, models, strict=True):
        ratio = model["largest_ratio"]
        cells.append(
            [
                row.model,
                str(model["image_size"]),
                f"{model['params'] / 1e6:.1f}",
                "·" if row.params_m is None or not comparable else str(row.params_m),
                f"{model['macs_published'] / 1e9:.2f}",
                f"{row.flops_g:.1f}" if comparable else "·",
                {None: "·", True: "yes", False: "no"}[model["prints_as_published"]],
                f"{model['macs'] / 1e9:.3f}",
                f"{model['published_norms'] / 1e9:.3f}",
                f"{model['published_ffts'] / 1e9:.3f}",
                f"{(model['columns']['matmul'] + model['columns']['attention']) / 1e9:.3f}",
                "·" if ratio is None else f"{ratio:.4f}",
                "·" if model["holds"] is None else "yes" if model["holds"] else "NO",
            ]
        )
    columns = ["model", "image", "M params", "printed", "G as published", "printed", "same", "G MACs", "+ norms",
               "+ FFTs", "attention", "ratio", "Eq. 3.6"]  # fmt: skip
    notes = [
        "as published: Table 1's convention, MACs + norms + FFTs. printed: Tables 1 and 6b of the paper.",
        "norms: 5 per element of LayerNorms over the last dimension. FFTs: as the published script has them (--fft).",
        "attention: q k^T and its product with v, which are among the MACs. The papers of Swin, ConvNeXt and DeiT "
        "print MACs, without norms.",
        "ratio: the largest cost of a gnConv over its bound. Eq. 3.6 does not apply to the gnConvs with GF.",
    ]
    return text_table("What the models of the paper cost", columns, cells, notes, to_file=to_file)
