"""gnConvs with GF on maps so large that a table of all pairs of cells has no place in memory: 34 GB at 128 x 512."""

import pytest
import torch
from oracles import large_weights

from horinsight import GnConv, interaction_spectrum, mixing_weights
from horinsight.interaction.gf_groups import cells_at_offsets
from horinsight.interaction.response_squares import sums_at_offsets


@pytest.mark.parametrize("kind", [{"kernel_size": 3}, {"depthwise": "gf", "gf_size": (5, 4)}])
def test_the_targets_of_one_query_are_its_row_of_the_table(kind):
    weights = mixing_weights(GnConv(4, 1, **kind), torch.randn(1, 4, 5, 7))
    for part in getattr(weights, "parts", (weights,)):
        for row, col in [(0, 0), (2, 3), (4, 6)]:
            assert torch.equal(part.targets_from(row, col), part.targets()[row * 7 + col])


def test_cells_and_sums_at_offsets_by_counting():
    size, H, W = (3, 5), 3, 5
    amount, kernel = torch.rand(2, 15, dtype=torch.float64), torch.rand(15, 4, dtype=torch.float64)
    cells = cells_at_offsets(size, torch.tensor([0, 7, 14]))
    sums = sums_at_offsets(amount, kernel, size)
    for place, i in enumerate((0, 7, 14)):
        moved = [(i // W + d // W) % H * W + (i % W + d % W) % W for d in range(15)]
        assert cells[place].tolist() == moved
        torch.testing.assert_close(sums[:, i], amount[:, moved] @ kernel)


@torch.no_grad()
def test_mixing_weights_and_orders_on_128x512():
    gnconv = large_weights(GnConv(4, 2, depthwise="gf", gf_size=(32, 17), scale=1.0))
    x = torch.randn(1, 4, 128, 512)
    weights = mixing_weights(gnconv, x)
    assert weights.reconstruction_error < 1e-5
    assert weights.at(127, 511).shape == (1, 4, 128, 512)
    spectrum = interaction_spectrum(gnconv, x, max_order=3, num_tuples=2)
    assert (spectrum.location_order, spectrum.degree_order) == (2, 2)
