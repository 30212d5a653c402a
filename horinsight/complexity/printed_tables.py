"""The rows of Tables 1, 2, 3 and 6 as the paper prints them, each with the network that it is about."""

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal, get_args

TableNumber = Literal[1, 2, 3, 6]
Framework = Literal["classifier", "upernet", "cascade_mask_rcnn", "mask_rcnn"]
Convention = Literal["published", "macs", "dense", "dense_attention"]

TIMM = {  # what the paper's data call it: what timm does; the 22k-trained Swin-L has windows of 12 at 384 alone
    "swin_t": "swin_tiny_patch4_window7_224",
    "swin_s": "swin_small_patch4_window7_224",
    "swin_b": "swin_base_patch4_window7_224",
    "swin_l": "swin_large_patch4_window7_224",
    "convnext_t": "convnext_tiny",
    "convnext_s": "convnext_small",
    "convnext_b": "convnext_base",
    "convnext_l": "convnext_large",
    "convnext_xl": "convnext_xlarge",
    "deit_s": "deit_small_patch16_224",
}
_AT_384 = {"swin_b": "swin_base_patch4_window12_384", "swin_l": "swin_large_patch4_window12_384"}
_OPERATIONS = {  # of Table 6c
    "dwconv3x3": "dwconv3x3_hornet_t",
    "gnconv_3x3": "gnconv3x3_hornet_t",
    "pool": "pool_hornet_t",
    "gnconv_pool": "gnconv_pool_hornet_t",
}
_LARGE = ("hornet_large_7x7", "hornet_large_gf", "swin_l", "convnext_l", "convnext_xl")  # trained on ImageNet-22k
_DETECTION_SIZE = (800, 1280)


@dataclass(frozen=True)
class PrintedRow:
    """What the paper prints of one network.

    Attributes:
        table: "1", "2", "3", "6a", "6b" or "6c".
        label: as the paper's data name it.
        model: name for `create_model`, of the backbone where there is a framework.
        framework: what the backbone is in.
        fpn: "fpn", "horfpn_7x7" or "horfpn_gf"; empty for a classifier.
        image_size: (H, W) in pixels.
        params_m: parameters in millions; None where the table has none.
        flops_g: "FLOPs" in units of 10⁹.
        convention: in which its FLOPs are counted: "published" (Table 1's, for HorNets), "macs" (of other classifiers),
            "dense" (those of the frameworks), "dense_attention" (with attention's products: what Swin's own paper
            prints for its T, S and B, copied into Tables 2 and 3).
    """

    table: str
    label: str
    model: str
    framework: Framework
    fpn: str
    image_size: tuple[int, int]
    params_m: int | None
    flops_g: float
    convention: Convention


def printed_rows(table: int) -> list[PrintedRow]:
    """The rows of a table that are about a network of this package or of timm, in the paper's order.

    Args:
        table: 1, 2, 3 or 6; Tables 4 and 5 print no costs.

    Raises:
        ValueError: another table.

    Example:
        >>> [row.label for row in printed_rows(6)][3:5]
        ['g1111', 'g2222']
    """
    if table not in get_args(TableNumber):
        raise ValueError(f"The paper prints costs in tables 1, 2, 3 and 6, got {table}.")
    tables = json.loads(files("horinsight.complexity").joinpath("paper_tables.json").read_text(encoding="utf-8"))
    printed = tables[f"table{table}"]
    if table == 1:
        return [_classifier("1", row) for row in printed["hornet"] + printed["baselines"]]
    if table == 6:
        return [_classifier(f"6{part}", row) for part in "abc" for row in printed[part]]
    frameworks: tuple[Framework, ...] = ("upernet", "cascade_mask_rcnn" if table == 2 else "mask_rcnn")
    return [_dense(str(table), framework, row) for framework in frameworks for row in printed["rows"]]


def chosen_rows(table: int, model: str | None) -> list[PrintedRow]:
    """The rows of a table that are about one model, as the paper's data or `create_model` name it; all when None.

    Raises:
        ValueError: another table, or one without this model.
    """
    rows = printed_rows(table)
    chosen = [row for row in rows if model in (None, row.label, row.model)]
    if not chosen:
        names = dict.fromkeys(row.label for row in rows)
        raise ValueError(f"Table {table} has no row of {model!r}: it has {', '.join(names)}.")
    return chosen


def _classifier(table: str, row: dict[str, Any]) -> PrintedRow:
    label = row.get("model") or row["operation"]
    side = row.get("image_size", 224)
    model = (_AT_384 if side == 384 else {}).get(label) or TIMM.get(label) or _OPERATIONS.get(label, label)
    return PrintedRow(
        table=table,
        label=label,
        model=model,
        framework="classifier",
        fpn="",
        image_size=(side, side),
        params_m=row.get("params_m"),
        flops_g=row["flops_g"],
        convention="published" if label.startswith("hornet") else "macs",
    )


def _dense(table: str, framework: Framework, row: dict[str, Any]) -> PrintedRow:
    label = row["backbone"]
    key = "cascade" if framework == "cascade_mask_rcnn" else framework
    side = 640 if label in _LARGE else 512
    neck = row.get("neck", "fpn")
    copied = label in ("swin_t", "swin_s", "swin_b") and neck == "fpn" and framework != "mask_rcnn"
    return PrintedRow(
        table=table,
        label=label,
        model=TIMM.get(label, label),
        framework=framework,
        fpn=neck,
        image_size=(side, 4 * side) if framework == "upernet" else _DETECTION_SIZE,
        params_m=row[f"{key}_params_m"],
        flops_g=row[f"{key}_flops_g"],
        convention="dense_attention" if copied else "dense",
    )
