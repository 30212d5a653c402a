"""Autocast around a measurement, and models in half precision."""

import numpy as np
import pytest
import torch
from oracles import large_weights

from horinsight import GnConv, create_model, interaction_spectrum, model_interaction_spectra
from horinsight.interaction.gnconv_effect import closed_form_of

HALVES = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("method", ["closed_form", "nested"])
@pytest.mark.parametrize("kind", ["conv", "gf"])
def test_a_surrounding_autocast_changes_nothing(dtype, method, kind):
    operator, x = large_weights(GnConv(8, 2, depthwise=kind)), torch.randn(2, 8, 6, 6)
    options = {"max_order": 4, "num_tuples": 4, "method": method}
    plain = interaction_spectrum(operator, x, **options)
    with torch.autocast("cpu", dtype=dtype):
        inside = interaction_spectrum(operator, x, **options)
        assert torch.is_autocast_enabled("cpu")
    np.testing.assert_array_equal(inside.effects, plain.effects)
    assert inside.convention == plain.convention
    assert inside.convention["dtype"] == "float32"


def test_a_closed_form_made_outside_and_used_inside():
    operator, x = large_weights(GnConv(8, 2)), torch.randn(1, 8, 6, 6)
    cells, directions = torch.tensor([[14, 15, 20]]), torch.randn(1, 3, 8)
    form = closed_form_of(operator, x, explicit=True)
    plain = form.mixed(x, cells, directions), form.dense(x, cells[:, 0], torch.ones(1, 3, 8, 6, 6))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = form.mixed(x, cells, directions), form.dense(x, cells[:, 0], torch.ones(1, 3, 8, 6, 6))
    assert all(torch.equal(a, b) for a, b in zip(plain, inside, strict=True))


@pytest.mark.parametrize("dtype", HALVES)
def test_whole_models(dtype):
    model, images = create_model("hornet_test_gf"), torch.randn(1, 3, 96, 96)
    options = {"num_tuples": 2, "blocks": [1, 3]}
    plain = model_interaction_spectra(model, images, **options)
    with torch.autocast("cpu", dtype=dtype):
        inside = model_interaction_spectra(model, images, **options)
    for name, spectrum in plain.items():
        np.testing.assert_array_equal(inside[name].effects, spectrum.effects)
    narrow = model_interaction_spectra(model.to(dtype), images.to(dtype), **options)
    for name, spectrum in plain.items():
        assert narrow[name].convention["dtype"] == "float32"
        assert narrow[name].location_order == narrow[name].degree_order == spectrum.location_order


@pytest.mark.parametrize("dtype", HALVES)
def test_an_operator_in_half_precision_is_refused_in_one_line(dtype):
    operator = GnConv(8, 2).to(dtype)
    for x in (torch.randn(1, 8, 5, 5), torch.randn(1, 8, 5, 5).to(dtype)):
        with pytest.raises(ValueError, match=rf"got .*{dtype}: high derivatives vanish in half precision"):
            interaction_spectrum(operator, x, max_order=3, num_tuples=2)
