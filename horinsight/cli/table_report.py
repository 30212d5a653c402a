"""What `horinsight flops --table` prints: each row of a table of the paper, counted, beside what is printed."""

from collections.abc import Sequence
from typing import Any

from horinsight.cli.progress import step_progress
from horinsight.complexity.cost_results import TABLE_CONVENTIONS, TableRowCount
from horinsight.complexity.printed_tables import chosen_rows
from horinsight.report import Column, Report, Row

_FRAMEWORKS = {"upernet": "UperNet", "cascade_mask_rcnn": "Cascade", "mask_rcnn": "Mask R-CNN"}
_FPNS = {"fpn": "FPN", "horfpn_7x7": "HorFPN 7x7", "horfpn_gf": "HorFPN GF"}
_SHORT = {  # below the table; JSON has `TABLE_CONVENTIONS`
    "published": "p: MACs + norms + FFTs, as the script behind Table 1 has them.",
    "macs": "m: MACs alone, of convolutions, linear layers and attention.",
    "dense": "d: MACs of convolutions and linear layers + convolutions' biases\n"
    "   + 2 per BatchNorm element + 1 per ReLU element.",
    "dense_attention": "a: d + attention's products, as Swin's own paper counts its T, S and B.",
}
_LETTERS = {convention: text[0] for convention, text in _SHORT.items()}
_NOTES = {
    1: [
        "Swin-B and ConvNeXt-B: 87.8 M and 88.6 M are in their papers 88 M and 89 M, and here",
        "printed the other way round.",
    ],
    2: [
        "reproduced: parameters to within 1 M and FLOPs to within 0.5 %, because the table",
        "prints some values truncated and some rounded.",
        "UperNet on 512x2048, L and XL on 640x2560; its auxiliary head counts as parameters alone.",
        "Cascade Mask R-CNN on 800x1280, 1000 proposals through each box head, 100 through each mask",
        "head, RoIAlign not counted.",
    ],
    3: [
        "reproduced: parameters to within 1 M and FLOPs to within 0.5 %, because the table",
        "prints some values truncated and some rounded.",
        "HorFPN in place of FPN saves the same on every backbone, because nothing else depends on it;",
        "the paper prints another saving for the ResNets than for Swin-S and HorNet-S.",
        "UperNet on 512x2048; Mask R-CNN on 800x1280 with 1000 and 100 regions.",
    ],
    6: [
        "g1111 to g4444: the paper prints the same for all four, which Eq. 3.5 contradicts.",
        "ConvNeXt-T has 28.6 M parameters: 28 here, 29 in Table 1 of the same paper.",
        "The text leaves open what is around a plain depthwise convolution: two projections,",
        "C -> 2C -> C, are the reading that fits these digits (see horinsight/models/separable_net.py).",
    ],
}  # fmt: skip
_NOT_REPRODUCED = "not M, not G: parameters, FLOPs not reproduced; both numbers are those shown."


def table_report(table: int, *, model: str | None, fft: Any) -> Report:
    """The rows of a table, or those of one model, counted with progress on standard error."""
    from horinsight.complexity.table_counts import table_counts

    num_rows = len(chosen_rows(table, model))
    with step_progress(f"Table {table}", num_rows) as show:
        counts = table_counts(table, model=model, fft=fft, counted=lambda row: show(_name(row)))
    return _report(table, counts)


def _name(count: TableRowCount) -> str:
    return " ".join(filter(None, [_FRAMEWORKS.get(count.framework), count.label, _FPNS.get(count.fpn)]))


def _report(table: int, counts: Sequence[TableRowCount]) -> Report:
    rows = [_row(count) for count in counts]
    reproduced = sum(count.reproduced for count in counts)
    used = {row["convention"]: _SHORT[row["convention"]] for row in rows}
    notes = [line for text in used.values() for line in text.split("\n")]
    return Report(
        title=f"Table {table}: {reproduced} of {len(counts)} rows reproduced",
        columns=[*_row_columns(table), *_count_columns(2 if table == 6 else 1)],
        rows=rows,
        notes=[*notes, *_NOTES[table], *([] if reproduced == len(counts) else [_NOT_REPRODUCED])],
        head={"table": table, "convention": {name: TABLE_CONVENTIONS[name] for name in used}},
        lines=rows,
    )


def _row_columns(table: int) -> list[Column]:
    if table in (1, 6):
        which = [Column("size", "image_size")] if table == 1 else [Column("table", "table")]
        return [Column("model", "label"), *which]
    return [
        Column("framework", lambda row: _FRAMEWORKS[row["framework"]]),
        Column("backbone", "label"),
        *([Column("neck", lambda row: _FPNS[row["fpn"]])] if table == 3 else []),
    ]


def _count_columns(places: int) -> list[Column]:
    return [
        Column("M", lambda row: f"{row['params'] / 1e6:.2f}"),
        Column("printed", "printed_params_m"),
        Column("G", lambda row: f"{row['macs_counted'] / 1e9:.{places}f}"),
        Column("as", lambda row: _LETTERS[row["convention"]]),
        Column("printed", "printed_flops_g"),
        Column("reproduced", _verdict),
    ]


def _verdict(row: Row) -> str:
    wrong = [what for what, key in (("M", "params_reproduced"), ("G", "flops_reproduced")) if not row[key]]
    return f"not {', '.join(wrong)}" if wrong else "yes"


def _row(count: TableRowCount) -> dict[str, Any]:
    height, width = count.image_size
    fields = {name: value for name, value in vars(count).items() if name != "provenance"}
    return {
        **fields,
        "image_size": height if height == width else f"{height}x{width}",
        "reproduced": count.reproduced,
    }
