"""Tables 1, 2, 3 and 6 counted again, row by row, on shapes alone."""

from collections.abc import Callable, Mapping
from typing import Any, cast

from torch import nn

from horinsight.complexity.cost_results import TableRowCount
from horinsight.complexity.counted import Fft, count_macs
from horinsight.complexity.dense_counted import dense_count
from horinsight.complexity.printed_tables import PrintedRow, chosen_rows
from horinsight.models.dense.cascade_rcnn import cascade_mask_rcnn
from horinsight.models.dense.mask_rcnn import mask_rcnn
from horinsight.models.dense.uper_net import upernet
from horinsight.models.registry import model_without_weights, without_weights

DENSE_TOLERANCE = 0.005  # of FLOPs; Tables 2 and 3 print whole numbers, most of them truncated
LARGE_FILTERS = {"hornet_large_gf": "hornet_large_gf_img384"}  # whose filters the published L detector stores
HORFPN = {"fpn": None, "horfpn_7x7": "conv", "horfpn_gf": "gf"}  # f of the gnConv in UperNet's head


def table_counts(
    table: int,
    *,
    model: str | None = None,
    fft: Fft = "published",
    counted: Callable[[TableRowCount], None] | None = None,
) -> list[TableRowCount]:
    """Every row of one of the paper's tables, counted, beside what is printed.

    A row of Tables 1 and 6 is reproduced where its count rounds to the printed digits; one of Tables 2 and 3, which
    print some values truncated and some rounded, where parameters differ by less than one million and FLOPs by no more
    than half a per cent. Nothing is computed: models are built and run on torch's meta device.

    Args:
        table: 1, 2, 3 or 6.
        model: only the rows of this model, as the paper's data or `create_model` name it.
        fft: what an FFT adds in Table 1's convention, see `count_macs`.
        counted: called with each row after it.

    Raises:
        ValueError: another table, or one without this model.

    Example:
        >>> (row,) = table_counts(6, model="g2222")
        >>> row.params, row.macs, row.reproduced
        (27524104, 4282123008, True)

    Source: Rao et al. 2022 (arXiv 2207.14284), Tables 1, 2, 3 and 6.
    """
    counts = []
    for row in chosen_rows(table, model):
        counts.append(row_count(row, fft=fft))
        if counted is not None:
            counted(counts[-1])
    return counts


def row_count(row: PrintedRow, *, fft: Fft = "published") -> TableRowCount:
    """One row, counted in the convention that it is printed in."""
    if row.framework == "classifier":
        count = count_macs(model_without_weights(row.model), row.image_size, fft=fft)
        counted = count.macs_published if row.convention == "published" else count.macs
        params, macs, provenance = count.params, count.macs, count.provenance
        params_reproduced = row.params_m is None or round(params / 1e6) == row.params_m
        flops_reproduced = f"{counted / 1e9:.1f}" == f"{row.flops_g:.1f}"
    else:
        dense = dense_count(row_model(row), row.image_size)
        params, macs, provenance = dense.params, dense.macs, dense.provenance
        counted = dense.macs_counted + dense.attention * (row.convention == "dense_attention")
        params_reproduced = row.params_m is None or abs(params / 1e6 - row.params_m) < 1
        flops_reproduced = abs(counted / 1e9 - row.flops_g) <= DENSE_TOLERANCE * row.flops_g
    return TableRowCount(
        table=row.table,
        label=row.label,
        model=row.model,
        framework=row.framework,
        fpn=row.fpn,
        image_size=row.image_size,
        params=params,
        macs=macs,
        macs_counted=counted,
        printed_params_m=row.params_m,
        printed_flops_g=row.flops_g,
        params_reproduced=params_reproduced,
        flops_reproduced=flops_reproduced,
        convention=row.convention,
        provenance=provenance,
    )


def row_model(row: PrintedRow) -> nn.Module:
    """The segmenter or detector of a row, without weights, as its published configuration has it.

    UperNet stores GF filters of (24, 13) and (12, 7) in stages 3 and 4 whatever its size, detectors the classifier's.
    """
    options: Mapping[str, Any] = {"strict_img_size": False} if row.model.startswith("swin") else {}
    with without_weights():
        if row.framework == "upernet":
            return cast(nn.Module, upernet(row.model, horfpn=cast(Any, HORFPN[row.fpn]), **options))
        build = cascade_mask_rcnn if row.framework == "cascade_mask_rcnn" else mask_rcnn
        backbone = LARGE_FILTERS.get(row.model, row.model)
        return build(backbone, backbone_options=options, fpn=cast(Any, row.fpn))
