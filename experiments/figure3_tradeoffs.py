"""Figure 3: parameters, multiply-accumulates and measured latency of Swin, ConvNeXt and HorNet 7x7, T, S and B.

python experiments/figure3_tradeoffs.py --output figure3.pdf                    # this machine's processor, one image
python experiments/figure3_tradeoffs.py --device cuda --batch 128 --half        # as the paper, on a GPU

The accuracies are the paper's, as printed; nothing is trained here. All nine models run alternately, so that a machine
that slows down slows all of them. The paper measured latency on an NVIDIA RTX 3090 with batch 128.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from benchmark import alternate, machine

from horinsight import count_macs, create_model, draw_tradeoffs, published_rows, save_figure
from horinsight.figures.style import check_figure_path
from horinsight.figures.tradeoffs import Tradeoff
from horinsight.models.registry import model_without_weights
from horinsight.report import Report
from horinsight.results import plain
from horinsight.whole_file import whole_file

FAMILIES = {
    "Swin": ("swin_t", "swin_s", "swin_b"),
    "ConvNeXt": ("convnext_t", "convnext_s", "convnext_b"),
    "HorNet 7x7": ("hornet_tiny_7x7", "hornet_small_7x7", "hornet_base_7x7"),
}


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("figure3.pdf"), help="the figure: .pdf, .png or .svg")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--batch", type=int, default=1, help="images at once")
    parser.add_argument("--half", action="store_true", help="float16 (GPU)")
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    check_figure_path(arguments.output)
    dtype = torch.float16 if arguments.half else torch.float32
    rows = {row.label: row for row in published_rows() if row.image_size == 224 and row.table == "Table 1"}
    x = torch.randn(arguments.batch, 3, 224, 224).to(arguments.device, dtype)
    sides: dict[str, Callable[[], object]] = {}
    for label in (label for family in FAMILIES.values() for label in family):
        model = create_model(rows[label].model).to(arguments.device, dtype)
        sides[label] = partial(model, x)
        print(f"built {rows[label].model}", file=sys.stderr, flush=True)
    start = time.monotonic()
    seconds = alternate(sides, arguments.repeats, arguments.device)
    print(f"measured in {time.monotonic() - start:.0f} s", file=sys.stderr)
    families: dict[str, list[Tradeoff]] = {}
    cells = []
    for family, labels in FAMILIES.items():
        for size, label in zip("TSB", labels, strict=True):
            row = rows[label]
            count = count_macs(model_without_weights(row.model), 224)
            quartiles = statistics.quantiles([1e3 * s / arguments.batch for s in seconds[label]], n=4)
            tradeoff = Tradeoff(
                size, row.top1, count.params / 1e6, count.macs / 1e9, quartiles[1], quartiles[0], quartiles[2]
            )
            families.setdefault(family, []).append(tradeoff)
            cells.append(
                [row.model, f"{row.top1:.1f}", f"{tradeoff.params_m:.1f}", f"{tradeoff.macs_g:.2f}",
                 f"{quartiles[1]:.1f}", f"{quartiles[0]:.1f} to {quartiles[2]:.1f}"]
            )  # fmt: skip
    where = f"{machine()}, batch {arguments.batch}, {'float16' if arguments.half else 'float32'}"
    columns = ["model", "top-1, published", "M params", "G MACs", "ms an image", "quartiles"]
    print(Report.of_cells("Figure 3", columns, cells, [where]).text())
    save_figure(draw_tradeoffs(families, machine=where), arguments.output)
    with whole_file(arguments.output.with_suffix(".json")) as file:
        json.dump(plain({"machine": where, "families": families}), file, indent=1)
    print(f"written: {arguments.output}, {arguments.output.with_suffix('.json')}", file=sys.stderr)


if __name__ == "__main__":
    main()
