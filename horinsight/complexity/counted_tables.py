"""Rows of a table of the paper, counted, beside what is printed: as the command line and the viewer show them."""

from collections.abc import Sequence
from typing import Any

from horinsight.complexity.cost_results import TABLE_CONVENTIONS, TableRowCount
from horinsight.report import Column, Report, Row

_FRAMEWORKS = {"upernet": "UperNet", "cascade_mask_rcnn": "Cascade", "mask_rcnn": "Mask"}
_FPNS = {"fpn": "FPN", "horfpn_7x7": "Hor 7x7", "horfpn_gf": "Hor GF"}
_LETTERS = {"published": "p", "macs": "m", "dense": "d", "dense_attention": "a"}
_SHORT = {  # below the table; JSON has `TABLE_CONVENTIONS`
    "published": "p: MACs + norms + FFTs, as the script behind Table 1 has them.",
    "macs": "m: MACs alone, of convolutions, linear layers and attention.",
    "dense": "d: MACs of convolutions and linear layers + biases of convolutions + 2 per BatchNorm element + 1 per "
    "ReLU element, as the counter of these frameworks has them.",
    "dense_attention": "a: d + attention's products, as Swin's own paper counts its T, S and B.",
}
_DENSE = "same: to within 1 M and 0.5 %, because the table prints some values truncated and some rounded."
_UPERNET = "UperNet: 512x2048, L and XL 640x2560; its auxiliary head counts as parameters alone."
_REGIONS = "800x1280, 1000 proposals through each box head, 100 through each mask head; RoIAlign is not counted."
_NOTES = {
    1: [
        "Swin-B and ConvNeXt-B: 88 M and 89 M in their papers, 89 M and 88 M here, which their own layers contradict.",
    ],
    2: [_DENSE, _UPERNET, f"Cascade Mask R-CNN: {_REGIONS}"],
    3: [
        _DENSE,
        _UPERNET,
        f"Mask R-CNN: {_REGIONS}",
        "Hor: HorFPN. It saves the same on every backbone, but the paper prints another saving for the ResNets.",
    ],
    6: [
        "g1111 to g4444: the paper prints the same for all four, which Eq. 3.5 contradicts.",
        "convnext_t: the paper prints 28 M here and 29 M in Table 1.",
        "dwconv, se, pool: the text leaves open what is around a plain depthwise operator; two projections, C to 2C "
        "to C, are the reading that fits (horinsight/models/separable_net.py).",
    ],
}
_NOT_REPRODUCED = "not M, not G: the paper's parameters or FLOPs are not reproduced; both numbers are shown."


def row_name(count: TableRowCount) -> str:
    """What a row is called: its framework, backbone and neck."""
    return " ".join(filter(None, [_FRAMEWORKS.get(count.framework), count.label, _FPNS.get(count.fpn)]))


def counted_table(table: int, counts: Sequence[TableRowCount]) -> Report:
    """The rows of a table, "not reproduced" where the paper prints something else.

    Args:
        table: 1, 2, 3 or 6.
        counts: of its rows, in their order.
    """
    rows = [_row(count) for count in counts]
    reproduced = sum(count.reproduced for count in counts)
    used = {count.convention for count in counts}
    notes = [text for convention, text in _SHORT.items() if convention in used]
    return Report(
        title=f"Table {table}: {reproduced} of {len(counts)} rows reproduced",
        columns=[*_row_columns(table), *_count_columns(2 if table == 6 else 1)],
        rows=rows,
        notes=[*notes, *_NOTES[table], *([_NOT_REPRODUCED] if reproduced < len(counts) else [])],
        head={"table": table, "convention": {name: text for name, text in TABLE_CONVENTIONS.items() if name in used}},
        lines=rows,
    )


def _row_columns(table: int) -> list[Column]:
    if table in (1, 6):
        return [Column("model", "label"), Column("size", "image_size") if table == 1 else Column("table", "table")]
    return [
        Column("in", lambda row: _FRAMEWORKS[row["framework"]]),
        Column("backbone", "label"),
        *([Column("neck", lambda row: _FPNS[row["fpn"]])] if table == 3 else []),
    ]


def _count_columns(places: int) -> list[Column]:
    return [
        Column("M", lambda row: f"{row['params'] / 1e6:.2f}"),
        Column("paper", "printed_params_m"),
        Column("G", lambda row: f"{row['macs_counted'] / 1e9:.{places}f}{_LETTERS[row['convention']]}"),
        Column("paper", "printed_flops_g"),
        Column("same", _verdict),
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
