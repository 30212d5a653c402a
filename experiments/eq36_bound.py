"""Eq. 3.6 for every 7x7 HorNet of Table 1, stage by stage, and the growth of the cost: figure and table.

python experiments/eq36_bound.py                          # the table
python experiments/eq36_bound.py --output eq36.pdf        # the figure too
"""

import argparse
import sys
from pathlib import Path

from horinsight import draw_complexity_curves, gnconv_bounds, order_growth, published_rows, save_figure, size_growth
from horinsight.figures.style import check_figure_path
from horinsight.models.registry import model_without_weights
from horinsight.report import Report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="the figure: .pdf, .png or .svg")
    arguments = parser.parse_args()
    if arguments.output:
        check_figure_path(arguments.output)
    cells, holds = [], True
    for row in published_rows():
        if not row.model.startswith("hornet") or "gf" in row.model:
            continue
        bounds = gnconv_bounds(model_without_weights(row.model), row.image_size)
        stages = {(bound.dim, bound.height): bound for bound in bounds}
        holds &= all(bool(bound.holds) for bound in bounds)
        ratios = [f"{bound.ratio:.3f}" for bound in stages.values()]
        extra = [f"{bound.with_scale_and_biases / bound.bound:.3f}" for bound in stages.values() if bound.bound]
        cells.append([row.model, str(row.image_size), " ".join(ratios), " ".join(extra), "yes" if holds else "NO"])
    columns = ["model", "image", "MACs / bound, by stage", "with scale and biases", "holds"]
    notes = ["The second is another convention than the bound's: above 1 is no violation."]
    print(Report.of_cells("Eq. 3.6", columns, cells, notes).text())
    if arguments.output:
        figure = draw_complexity_curves(
            [order_growth(dim) for dim in (64, 128, 256, 512)], size_growth(384, 5, sides=[7, 14, 28, 56, 112, 224])
        )
        save_figure(figure, arguments.output)
        print(f"written: {arguments.output}", file=sys.stderr)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
