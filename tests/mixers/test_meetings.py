import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from horinsight.mixers.labels import FIRST_CELL, NONE, POOLED, Grids, Labels, tight
from horinsight.mixers.meetings import gathered, linear_event, met, product


def cells_at(labels: Labels, place: tuple[int, ...]) -> float:
    return float(labels.cells.expand(labels.shape)[place])


@given(st.lists(st.integers(1, 3), min_size=2, max_size=3), st.integers(0, 2**31), st.data())
def test_a_sum_keeps_what_has_one_position(shape, seed, data):
    """The oracle: the set of cells in each group, by loops."""
    values = torch.randint(0, 6, shape, generator=torch.Generator().manual_seed(seed)).float()
    labels = Labels.of(values)
    if labels is None:
        return
    axes = tuple(data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1)))
    left, how = gathered(labels, axes)
    groups: dict[tuple[int, ...], set[float]] = {}
    for place in itertools.product(*(range(side) for side in shape)):
        kept = tuple(0 if axis in axes else i for axis, i in enumerate(place))
        groups.setdefault(kept, set()).add(float(values[place]))
    several = {place for place, group in groups.items() if sum(cell >= FIRST_CELL for cell in group) > 1}
    assert (how in ("all", "part")) == bool(several)
    for place, group in groups.items():
        cells = sorted(cell for cell in group if cell >= FIRST_CELL)
        if place not in several:
            assert cells_at(left, place) == (cells[0] if cells else max(group))
        else:
            assert cells_at(left, place) == (POOLED if how == "all" else cells[0])
    mixed = any(POOLED in group and max(group) >= FIRST_CELL for group in groups.values())
    assert (how == "pooled") == (mixed and not several)


def test_all_positions_or_some():
    cells = Labels.of(Grids().cells(3, 4), shape=(1, 2, 3, 4))
    assert gathered(cells, (1,))[1] == ""
    assert gathered(cells, (2, 3))[1] == "all"
    assert gathered(cells, (3,))[1] == "part"


@pytest.fixture
def grids() -> Grids:
    return Grids()


def tokens(grids: Grids, channels: int = 5) -> Labels:
    return Labels.of(grids.cells(2, 3).reshape(1, 6, 1), shape=(1, 6, channels))


def across(labels: Labels) -> Labels:
    return labels.moved(lambda plane: plane.transpose(1, 2))


def test_queries_times_keys_are_pairs_and_pairs_times_values_the_queries(grids):
    q = tokens(grids)
    scores, event, waits = product(q, across(q), (1, 6, 6), grids)
    assert (event, waits) == ("", "")
    assert torch.equal(scores.cells.flatten(), scores.partners.flatten())
    out, event, waits = product(scores, q, (1, 6, 5), grids)
    assert (event, waits) == ("attention", "")
    assert out.same_as(q)
    transposed, event, _ = product(across(q), across(scores), (1, 5, 6), grids)
    assert event == "attention"
    assert transposed.same_as(across(q))


def test_a_gram_matrix_waits_and_gates_what_it_meets(grids):
    k = tokens(grids)
    gram, event, waits = product(across(k), k, (1, 5, 5), grids)
    assert (float(gram.cells), event, waits) == (POOLED, "", "product")
    out, event, _ = product(k, gram, (1, 6, 5), grids)
    assert event == "gate"
    assert out.same_as(k)


def test_linear_maps_over_positions_channels_and_patches(grids):
    x = tokens(grids)
    assert product(x, None, (1, 6, 7), grids)[1:] == ("", "")
    assert product(across(x), None, (1, 5, 7), grids)[1:] == ("", "linear")
    cells = grids.cells(4, 4)
    rows = Labels.of(cells.reshape(1, 4, 1, 4), shape=(1, 4, 5, 4))
    assert product(rows, None, (1, 4, 5, 4), grids)[1] == "linear"
    patches = cells.reshape(2, 2, 2, 2).transpose(1, 2).reshape(4, 4, 1).expand(4, 4, 3).reshape(1, 4, 12)
    assert linear_event(Labels.of(patches), 2) == "patchify"
    neighbours = torch.nn.functional.unfold(cells[None, None], 3, padding=1).transpose(1, 2)
    overlapping = Labels.of(neighbours.repeat(1, 1, 2))
    assert linear_event(overlapping, 2) == "merge"


def test_what_meets_pointwise(grids):
    cells = grids.cells(4, 4)
    x = Labels.of(cells)
    shifted, pooled = Labels.of(cells.roll(1, 0)), Labels.of(torch.full((1, 1), POOLED))
    assert met([x, x], (4, 4), grids) == (x, "")
    assert met([x, shifted], (4, 4), grids)[1] == "cells"
    kept, how = met([pooled, x], (4, 4), grids)
    assert how == "pooled"
    assert torch.equal(kept.cells, cells)
    coarse, sampled = Labels.of(grids.cells(2, 2)), Labels.of(cells[1::2, 1::2])
    assert met([coarse, sampled], (2, 2), grids)[1] == ""
    assert met([Labels.of(grids.cells(2, 2)), Labels.of(cells[:2, :2])], (2, 2), grids)[1] == "cells"
    row = Labels.of(cells[:, :1], shape=(4, 1))
    gated, how = met([row, x], (4, 4), grids)
    assert how == "cells"
    assert torch.equal(gated.cells, cells)


def test_pairs_meet_their_own_positions_only(grids):
    line = grids.cells(1, 4).flatten()
    pairs, how = met([Labels.of(line[:, None]), Labels.of(line[None])], (4, 4), grids)
    assert how == ""
    assert pairs.partners is not None
    assert met([pairs, Labels.of(line[:, None], shape=(4, 1))], (4, 4), grids)[1] == ""
    assert met([Labels.of(line[None], shape=(1, 4)), pairs], (4, 4), grids)[1] == ""
    assert met([pairs, Labels.of(line.flip(0)[:, None], shape=(4, 1))], (4, 4), grids)[1] == "cells"
    left, how = gathered(pairs, (1,))
    assert how == "partners"
    assert torch.equal(tight(left.cells), line[:, None])
    assert NONE not in left.cells
