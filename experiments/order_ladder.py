"""The order ladder: the operators of Figure 1 and Table 6, with the orders that we measure. Random weights.

python experiments/order_ladder.py                                     # the table
python experiments/order_ladder.py --output ladder.json --plot ladder.png

Then the law of composition: gnConv of order a followed by gnConv of order b has order (a + 1)(b + 1) - 1.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import nn

from horinsight import GnConv, interaction_spectrum
from horinsight.figures.interaction_spectra import draw_interaction_spectra
from horinsight.figures.style import check_figure_path, save_figure
from horinsight.interaction.order_ladder import ladder, rung_spectra
from horinsight.report import AT_LEAST, NOTHING, Report, json_text, shown_order
from horinsight.results import plain
from horinsight.whole_file import whole_file


def composed_orders(a: int, b: int, *, seed: int = 0) -> tuple[int | None, int | None]:
    """Location and degree order of gnConv(a), then gnConv(b), measured in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(GnConv(8, a, kernel_size=3), GnConv(8, b, kernel_size=3)).double()
        x = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    spectrum = interaction_spectrum(network, x, max_order=(a + 1) * (b + 1), num_tuples=24, seed=seed)
    return spectrum.location_order, spectrum.degree_order


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=64, help="channels, divisible by 64")
    parser.add_argument("--side", type=int, default=14, help="rows and columns of the map")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="keep the spectra as JSON")
    parser.add_argument("--plot", type=Path, help="draw the explicit spectra: .pdf, .png, .svg")
    arguments = parser.parse_args()
    if arguments.plot:
        check_figure_path(arguments.plot)
    rows, explicit, kept = [], {}, {}
    for rung in ladder():
        first, second = rung_spectra(rung, dim=arguments.dim, side=arguments.side, seed=arguments.seed)
        explicit[rung.name], kept[rung.name] = first, {"explicit": plain(first), "functional": plain(second)}
        effects = [
            "0" if zero else f"{effect:.1e}" for effect, zero in zip(first.effects, first.exact_zero, strict=True)
        ]
        orders = [
            shown_order(first.location_order, len(first.effects) - 1),
            shown_order(first.degree_order, len(first.effects) - 1),
            shown_order(second.location_order, len(second.effects) - 1),
        ]
        rows.append([rung.name, *orders, *effects])
        print(f"[{len(rows)}/{len(ladder())}] {rung.name}", file=sys.stderr, flush=True)
    longest = max(map(len, rows))
    rows = [row + [NOTHING] * (longest - len(row)) for row in rows]
    columns = ["operator", "order", "degree", "functional", *(f"k={k}" for k in range(longest - 4))]
    notes = [
        "order, degree: location and degree order of the explicit operator, whose effects follow.",
        f'Random weights, float64. "0": exactly 0 in every draw. {AT_LEAST}',
    ]
    print(Report.of_cells("The order ladder", columns, rows, notes).text())
    pairs = [(1, 1), (1, 2), (2, 1), (2, 2), (1, 3)]
    compositions = [
        [f"g{a}Conv, g{b}Conv", str((a + 1) * (b + 1) - 1), *map(str, composed_orders(a, b))] for a, b in pairs
    ]
    headings = ["network", "(a+1)(b+1)-1", "location order", "degree order"]
    print(Report.of_cells("Composition", headings, compositions).text())
    if arguments.output:
        with whole_file(arguments.output) as file:
            file.write(json_text(kept))
    if arguments.plot:
        save_figure(draw_interaction_spectra(explicit), arguments.plot)


if __name__ == "__main__":
    main()
