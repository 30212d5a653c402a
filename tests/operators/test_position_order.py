"""Tokens in the order of the map, against tensors whose entries say where they belong."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from horinsight.mixers.labels import FIRST_CELL, Grids, Labels
from horinsight.mixers.map_layouts import layout_of
from horinsight.operators.position_order import PositionOrder


@st.composite
def arranged(draw):
    """(native tensor of B images, its layout for one image, batch axis, the map that it came from, held places)."""
    B, C = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    rows, columns, window = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    H, W = rows * window, columns * window
    held = draw(st.integers(0, 2))
    way = draw(st.sampled_from(["map", "last", "tokens", "shuffled", "windows", "sequence first", "heads"]))
    features = torch.arange(B * C * H * W, dtype=torch.float32).reshape(B, C, H, W) + 0.5
    grids = Grids()
    cells = grids.cells(H, W)
    tokens, flat = features.flatten(2).transpose(1, 2), cells.flatten()
    if way == "shuffled":
        order = torch.randperm(H * W, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
        tokens, flat = tokens[:, order], flat[order]
    batch_axis = 0
    if way == "map":
        held, native, plane = 0, features, cells[None, None]
    elif way == "last":
        held, native, plane = 0, features.permute(0, 2, 3, 1), cells[None, :, :, None]
    elif way == "windows":
        held = 0
        parts = features.reshape(B, C, rows, window, columns, window).permute(0, 2, 4, 3, 5, 1)
        native = parts.reshape(B * rows * columns, window * window, C)
        inside = cells.reshape(rows, window, columns, window).permute(0, 2, 1, 3)
        plane = inside.reshape(rows * columns, window * window, 1)
    else:
        native = torch.cat([torch.full((B, held, C), -1.0), tokens], 1)
        plane = torch.cat([torch.zeros(held), flat])[None, :, None]
        if way == "sequence first":
            native, plane, batch_axis = native.transpose(0, 1), plane.transpose(0, 1), 1
        elif way == "heads":  # (B, heads, N, d)
            native, plane = torch.stack([native, native + 0.25], 1), plane[:, None]
    shape = tuple(n // B if axis == batch_axis else n for axis, n in enumerate(native.shape))
    labels = Labels.of(plane, shape=shape)
    return native, labels, grids, batch_axis, features, held


@given(arranged())
def test_tokens_are_the_map_row_by_row(case):
    native, labels, grids, batch_axis, features, held = case
    if features[0, 0].numel() == 1:
        return  # a single cell lies along no axis
    order = PositionOrder.of(layout_of(labels, grids), batch_axis=batch_axis)
    tokens = order.tokens(native)
    C = features.shape[1]
    assert order.num_held == held
    assert torch.equal(tokens[:, held:, :C], features.flatten(2).transpose(1, 2))
    assert bool((tokens[:, :held, :C] == -1).all())
    assert torch.equal(order.native(tokens), native)
    several = tokens.repeat(2, 1, 1)  # another number of images
    assert torch.equal(order.tokens(order.native(several)), several)


def test_a_single_cell():
    grids = Grids()
    order = PositionOrder.of(layout_of(Labels.of(grids.cells(1, 1)[None, None], shape=(1, 4, 1, 1)), grids))
    x = torch.randn(2, 4, 1, 1)
    assert torch.equal(order.tokens(x), x.flatten(1)[:, None])
    assert torch.equal(order.native(order.tokens(x)), x)


def test_positions_that_are_no_map():
    grids = Grids()
    some = grids.cells(3, 3).flatten()[:5].reshape(1, 5, 1)
    with pytest.raises(ValueError, match="got 5 cells of a map of 3x3: leave this block out"):
        PositionOrder.of(layout_of(Labels.of(some), grids))
    both = torch.cat([grids.cells(3, 3).flatten(), grids.cells(2, 2).flatten()]).reshape(1, 13, 1)
    assert bool((both >= FIRST_CELL).all())
    with pytest.raises(ValueError, match="several maps"):
        PositionOrder.of(layout_of(Labels.of(both), grids))
