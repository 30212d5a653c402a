"""Ranks and highest cells against scipy and against sets, and what a map says of a cell."""

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from horinsight.attribution.map_agreement import map_agreement
from horinsight.attribution.map_cells import CellGrid, cell_values, spread_maps
from horinsight.attribution.rank_correlations import rank_correlations, top_overlaps


@given(st.integers(0, 10_000), st.integers(2, 5))
def test_rank_correlations_are_those_of_scipy_also_with_ties(seed, values):
    generator = np.random.default_rng(seed)
    a, b = generator.integers(0, values, (2, 3, 20)).astype(float)
    a[0, 0], b[0, 0] = -1, -2  # not constant
    for row, found in enumerate(rank_correlations(a, b)):
        if len(set(a[row])) > 1 and len(set(b[row])) > 1:
            assert found == pytest.approx(scipy.stats.spearmanr(a[row], b[row])[0], rel=0, abs=1e-13)
        else:
            assert np.isnan(found)


@given(st.integers(0, 10_000), st.floats(0.01, 1))
def test_overlaps_are_those_of_sets_where_nothing_ties(seed, share):
    generator = np.random.default_rng(seed)
    a, b = generator.permuted(np.broadcast_to(np.arange(30.0), (2, 30)), axis=1)
    n = max(1, round(share * 30))
    sets = [{int(cell) for cell in np.argsort(-values)[:n]} for values in (a, b)]
    assert top_overlaps(a[None], b[None], share)[0] == pytest.approx(len(sets[0] & sets[1]) / n, rel=1e-12)


def test_overlaps_of_ties():
    a = np.array([[3.0, 1, 1, 1, 0]])  # two highest: the first, and each of three others by a third
    generator = np.random.default_rng(0)
    broken = [set(np.lexsort((generator.permutation(5), -a[0]))[:2].tolist()) for _ in range(4000)]
    drawn = np.mean([len(first & second) / 2 for first, second in zip(broken[::2], broken[1::2], strict=True)])
    assert top_overlaps(a, a, 0.4)[0] == pytest.approx(2 / 3, rel=1e-15)
    assert drawn == pytest.approx(2 / 3, rel=0, abs=4 * (1 / 3 * 2 / 3 / 4 / 2000) ** 0.5)
    assert top_overlaps(a, np.array([[9.0, 8, 0, 0, 0]]), 0.4)[0] == pytest.approx((1 + 1 / 3) / 2, rel=1e-15)
    assert top_overlaps(a, np.zeros((1, 5)), 0.4)[0] == pytest.approx(2 / 5, rel=1e-15)


def test_maps_that_know_nothing_of_one_another_overlap_by_chance():
    generator = torch.Generator().manual_seed(0)
    maps = {name: torch.rand(400, 6, 6, generator=generator) for name in "ab"}
    found = map_agreement(maps, share=0.25)
    assert found.chance == 9 / 36
    overlap, correlation = found.overlap("a", "b"), found.correlation("a", "b")
    assert abs(overlap.value - found.chance) < 4 * overlap.standard_error
    assert abs(correlation.value) < 4 * correlation.standard_error
    assert correlation.standard_error == pytest.approx((1 / 35 / 400) ** 0.5, rel=0.2)  # 1 / (N - 1) a picture
    assert found.correlation("a", "a").value == 1


def test_agreement_of_maps_of_different_sizes():
    fine = torch.rand(2, 8, 8)
    coarse = F.avg_pool2d(fine[:, None], 4)[:, 0]
    constant = torch.ones(2, 8, 8)
    found = map_agreement({"fine": fine, "coarse": coarse, "constant": constant}, grid=(2, 2), share=0.25)
    assert found.correlation("fine", "coarse").value == 1
    assert np.isnan(found.correlation("fine", "constant").value)
    frame = found.to_frame()
    assert list(zip(frame["map"], frame["other"], strict=True)) == [
        ("fine", "coarse"), ("fine", "constant"), ("coarse", "constant"),
    ]  # fmt: skip
    for maps, message in (
        ({}, "none"),
        ({"a": fine, "b": fine[:1]}, "2, 1"),
        ({"a": fine[0]}, "as \\(B, H, W\\)"),
        ({"a": fine / 0}, "not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            map_agreement(maps)
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        map_agreement({"a": fine}, share=0)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(5, 9), st.integers(5, 9))
def test_cells_are_means_of_pixels(rows, columns, height, width):
    grid = CellGrid(rows, columns, height=height, width=width)
    maps = torch.rand(2, height, width, dtype=torch.float64)
    found = cell_values(maps, grid)
    cells: dict[int, list[torch.Tensor]] = {}
    for r in range(height):
        for c in range(width):
            cells.setdefault((r * rows // height) * columns + c * columns // width, []).append(maps[:, r, c])
    assert len(cells) == len(grid)
    expected = torch.stack([torch.stack(cells[cell]).mean(0) for cell in range(len(grid))], dim=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=81 * 2.3e-16)
    flat = torch.full((1, height, width), 0.1, dtype=torch.float64)
    assert (cell_values(flat, grid) == 0.1).all(), "ties stay ties, whatever the size of a cell"


def test_coarser_maps_are_spread():
    maps = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    assert spread_maps(maps, (3, 4))[0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4]]
    assert spread_maps(maps, (4, 4), "bilinear")[0, 0].tolist() == [1.0, 1.25, 1.75, 2.0]
    grid = CellGrid(2, 2, height=5, width=5)
    assert cell_values(maps, grid, "bilinear").tolist() == [[1, 2, 3, 4]]  # it says a number a cell already
