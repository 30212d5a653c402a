import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from horinsight.mixers.labels import FIRST_CELL, NONE, POOLED, Grids, Labels, tight


def test_maps_of_one_size_share_their_cells_and_others_do_not():
    grids = Grids()
    assert torch.equal(grids.cells(3, 4), grids.cells(3, 4))
    assert not torch.isin(grids.cells(3, 4), grids.cells(4, 3)).any()
    assert grids.cells(3, 4).min() >= FIRST_CELL > POOLED > NONE


@given(st.integers(4, 12), st.integers(4, 12), st.integers(2, 3), st.data())
def test_every_nth_row_and_column_is_the_coarser_map(height, width, step, data):
    """The oracle is the definition: cell (i, j) of the coarse map is cell (offset + i step, offset + j step)."""
    grids = Grids()
    offset = data.draw(st.integers(0, step - 1))
    fine = grids.cells(height, width)[offset::step, offset::step]
    covers = all(-(-side // count) == step for side, count in zip((height, width), fine.shape, strict=True))
    if covers and min(fine.shape) > 1:
        assert torch.equal(grids.thinned(fine), grids.cells(*fine.shape))


def test_a_shuffled_coarse_map_is_one_too():
    grids = Grids()
    fine = grids.cells(8, 8)[::2, ::2].flatten()
    order = torch.randperm(16)
    thinned = grids.thinned(torch.cat((torch.tensor([NONE]), fine[order])))
    assert torch.equal(thinned, torch.cat((torch.tensor([NONE]), grids.cells(4, 4).flatten()[order])))


@pytest.mark.parametrize(
    "part",
    [
        (slice(None), slice(0, 1)),  # a strip
        (slice(0, 4), slice(0, 4)),  # a corner
        (slice(0, 5, 2), slice(0, 5, 2)),  # a corner, thinned
        (slice(None), slice(None)),  # the map itself
    ],
)
def test_strips_corners_and_the_map_itself_are_no_coarser_map(part):
    grids = Grids()
    assert grids.thinned(grids.cells(8, 8)[part]) is None


def test_rows_and_columns():
    grids = Grids()
    grids.cells(5, 5)
    cells = grids.cells(2, 3)
    rows, columns = grids.rows_and_columns(torch.cat((torch.tensor([[NONE, POOLED, NONE]]), cells)), (2, 3))
    assert rows.tolist() == [[-1, -1, -1], [0, 0, 0], [1, 1, 1]]
    assert columns.tolist() == [[-1, -1, -1], [0, 1, 2], [0, 1, 2]]
    assert grids.size_of(torch.cat((cells.flatten(), grids.cells(5, 5).flatten()))) is None


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 2**31))
def test_tight_planes_broadcast_to_what_they_were(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    small = [side if torch.rand((), generator=generator) < 0.5 else 1 for side in shape]
    plane = torch.randint(0, 5, small, generator=generator).float().expand(shape)
    assert torch.equal(tight(plane.clone()).expand(shape), plane)
    assert all(side == 1 or not (plane == plane.narrow(i, 0, 1)).all() for i, side in enumerate(tight(plane).shape))


def test_labels_move_like_the_data():
    grids = Grids()
    labels = Labels.of(grids.cells(4, 4), shape=(1, 3, 4, 4))
    moved = labels.moved(lambda plane: plane.flatten(2).transpose(1, 2)[:, 1:])
    assert moved.shape == (1, 15, 3)
    assert moved.axes() == (1,)
    assert torch.equal(moved.cells.flatten(), grids.cells(4, 4).flatten()[1:])
    assert Labels.of(torch.full((2, 2), NONE)) is None
