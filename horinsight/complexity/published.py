"""What the paper prints: parameters, FLOPs and accuracies of Tables 1 and 6b, as data beside our counts."""

import json
from dataclasses import dataclass
from importlib.resources import files

from horinsight.results import Result

_TIMM = {
    "swin_t": "swin_tiny_patch4_window7_224",
    "swin_s": "swin_small_patch4_window7_224",
    "swin_b": "swin_base_patch4_window7_224",
    "convnext_t": "convnext_tiny",
    "convnext_s": "convnext_small",
    "convnext_b": "convnext_base",
    "deit_s": "deit_small_patch16_224",
}


@dataclass(frozen=True, eq=False, repr=False)
class PublishedRow(Result):
    """One row of a table of the paper.

    Attributes:
        table: "Table 1" or "Table 6b".
        label: as the paper's data name it.
        model: name for `create_model`.
        image_size: pixels.
        params_m: parameters in millions, as printed; None where the table has none.
        flops_g: "FLOPs" in units of 10⁹, as printed: multiply-accumulates.
        top1: ImageNet accuracy in percent, as printed.
        pretrain: "in1k" or "in22k".
    """

    table: str
    label: str
    model: str
    image_size: int
    params_m: int | None
    flops_g: float
    top1: float
    pretrain: str = "in1k"

    def prints_params(self, params: int) -> bool:
        """Whether a count rounds to the printed millions; True where nothing is printed."""
        return self.params_m is None or round(params / 1e6) == self.params_m

    def prints_flops(self, macs: int) -> bool:
        """Whether a count rounds to the printed tenth of 10⁹."""
        return f"{macs / 1e9:.1f}" == f"{self.flops_g:.1f}"


def published_rows() -> list[PublishedRow]:
    """HorNet's rows of Tables 1 and 6b, then those of Swin, ConvNeXt (T, S, B at 224) and DeiT-S that timm has.

    Example:
        >>> rows = published_rows()
        >>> len([row for row in rows if row.table == "Table 1" and "hornet" in row.model])
        12
    """
    tables = json.loads(files("horinsight.complexity").joinpath("paper_tables.json").read_text(encoding="utf-8"))
    first, second = tables["table1"], tables["table6"]["b"]
    rows = [("Table 1", row) for row in first["hornet"]]
    rows += [("Table 6b", row) for row in second if row["model"].startswith("hornet")]
    rows += [("Table 1", row) for row in first["baselines"] if row["model"] in _TIMM and row["image_size"] == 224]
    rows += [("Table 6b", row) for row in second if row["model"] in _TIMM]
    return [
        PublishedRow(
            table=table,
            label=row["model"],
            model=_TIMM.get(row["model"], row["model"]),
            image_size=row.get("image_size", 224),
            params_m=row.get("params_m"),
            flops_g=row["flops_g"],
            top1=row["top1"],
            pretrain=row.get("pretrain", "in1k"),
        )
        for table, row in rows
    ]
