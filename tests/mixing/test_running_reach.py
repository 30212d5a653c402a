"""Reach over pictures in batches is that of all at once, and keeps the maps of those that are shown alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from horinsight import create_model, draw_reach_maps, influence_maps, model_influence, picture_stream
from horinsight.mixing.running_reach import RunningReach

COUNT = 7
ASKED = {"queries": 2, "probes": 3, "seed": 5, "blocks": [1, 3]}


@pytest.fixture(scope="module")
def model():
    return create_model("hornet_test_iso").double()


@pytest.fixture(scope="module")
def images():
    return torch.randn(COUNT, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(scope="module")
def whole(model, images):
    """Of a tensor that one batch holds."""
    return {scope: model_influence(model, images, scope=scope, **ASKED) for scope in ("block", "image")}


def in_batches(images, size):
    return picture_stream(TensorDataset(images), torch.nn.Identity(), batch_size=size)


@pytest.mark.parametrize("scope", ["block", "image"])
@pytest.mark.parametrize("size", [1, 3])
def test_batches_give_what_all_at_once_give(model, images, whole, scope, size):
    """The same signs at each picture; float64, so that other orders of summation are seen from 1e-13 on."""
    seen = []
    found = model_influence(
        model,
        in_batches(images, size),
        scope=scope,
        on_block=lambda block, reach: seen.append((block.name, reach)),
        **ASKED,
    )
    assert [name for name, _ in seen] == list(found) == list(whole[scope])
    for name, expected in whole[scope].items():
        reach = found[name]
        np.testing.assert_allclose(reach.influence.squares, expected.influence.squares, rtol=1e-11, atol=1e-20)
        np.testing.assert_allclose(
            reach.influence.standard_errors, expected.influence.standard_errors, rtol=1e-9, atol=1e-20
        )
        np.testing.assert_allclose(reach.totals, expected.totals, rtol=1e-11)
        np.testing.assert_array_equal(reach.radii, expected.radii)
        np.testing.assert_array_equal(reach.radii_pixels, expected.radii_pixels)
        for quantity, estimate in expected.estimates.items():
            assert reach.estimates[quantity].value == pytest.approx(estimate.value, rel=1e-9)
            assert reach.estimates[quantity].standard_error == pytest.approx(estimate.standard_error, rel=1e-9)


def test_maps_are_of_those_that_are_shown(model, images, whole):
    found = model_influence(model, in_batches(images, 3), scope="block", shown=[5, 1, 2], **ASKED)
    nothing = model_influence(model, in_batches(images, 3), scope="block", shown=[], **ASKED)
    for name, expected in whole["block"].items():
        reach = found[name]
        assert reach.shown == (1, 2, 5)
        np.testing.assert_allclose(reach.influence.squares, expected.influence.squares[[1, 2, 5]], rtol=1e-11)
        np.testing.assert_array_equal(reach.radii, expected.radii)
        assert nothing[name].influence.squares.size == 0
        np.testing.assert_array_equal(nothing[name].radii, expected.radii)
    pictures = np.zeros((3, 32, 32, 3), dtype=np.uint8)
    maps = influence_maps(found, pictures=pictures, image_names="abc", block_indices=[1, 3])
    assert [len(one) for one in maps.maps.values()] == [6, 6]
    figure = draw_reach_maps(found, pictures)
    numbers = [text.get_text() for text in (axes.xaxis.label for axes in figure.axes)]
    first, last = (", ".join(f"{r:.3g}" for r in found["blocks.0.gnconv"].radii_pixels[n, 0]) for n in (1, 5))
    assert numbers[1] == first
    assert numbers[3 * 4 + 1] == last
    with pytest.raises(ValueError, match="expects 3 pictures, got 7"):
        draw_reach_maps(found, np.zeros((7, 32, 32, 3), dtype=np.uint8))


def test_sums_refuse_what_does_not_belong_together(whole):
    reach = whole["block"]["blocks.0.gnconv"]
    running = RunningReach()
    with pytest.raises(ValueError, match="at least one picture"):
        running.compute()
    running.update(reach)
    assert running.compute() == reach
    moved = replace(reach.influence, queries=reach.influence.queries + 1)
    with pytest.raises(ValueError, match="on other positions"):
        running.update(replace(reach, influence=moved))
