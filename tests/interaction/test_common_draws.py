"""Ratios of effects: intervals by hand, by repetition, along common draws and along independent ones."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import large_weights, mean_square_over_tuples
from scipy import stats
from torch import nn

from horinsight import (
    GnConv,
    SpectrumComparison,
    compare_spectra,
    compared_operators,
    create_model,
    interaction_spectrum,
    model_interaction_spectra,
    model_spectrum_comparisons,
)
from horinsight.interaction.effect_interval import effect_intervals
from horinsight.interaction.ratio_interval import Effects, mean_correlations, ratio_intervals


def least_covered(repetitions: int, nominal: float) -> int:
    """So few of the repetitions are covered with a chance of 1 in 1000 if the interval covers `nominal` of them."""
    return int(stats.binom.ppf(1e-3, repetitions, nominal))


@given(
    a=st.floats(0.01, 2),
    b=st.floats(0.01, 2),
    rho=st.floats(-1, 1),
    ratio=st.floats(1e-3, 1e3),
)
@settings(deadline=None)
def test_symmetric_intervals_have_the_closed_form(a, b, rho, ratio):
    """Δ ∓ sqrt(a² + b² - 2 ρ a b) in logarithms."""

    def effects(value: float, half: float) -> Effects:
        return Effects(*(np.array([value * np.exp(step)]) for step in (0, -half, half)))

    low, high = ratio_intervals(effects(ratio, a), effects(1.0, b), np.array([rho]))
    half = np.sqrt(max(a * a + b * b - 2 * rho * a * b, 0))
    np.testing.assert_allclose([np.log(low[0] / ratio), np.log(high[0] / ratio)], [-half, half], rtol=1e-4, atol=3e-5)


@given(below=st.floats(0, 2), above=st.floats(0, 2), rho=st.floats(-1, 1))
@settings(deadline=None)
def test_a_ratio_turned_round_has_its_interval_turned_round(below, above, rho):
    def effects(low: float, high: float) -> Effects:
        return Effects(np.array([1.0]), np.array([np.exp(-low)]), np.array([np.exp(high)]))

    one, other = effects(below, above), effects(above, 0.5)
    low, high = ratio_intervals(one, other, np.array([rho]))
    back_low, back_high = ratio_intervals(other, one, np.array([rho]))
    np.testing.assert_allclose([low[0] * back_high[0], high[0] * back_low[0]], 1, rtol=1e-3)
    assert low[0] <= 1 <= high[0]
    same = ratio_intervals(one, one, np.array([1.0]))
    np.testing.assert_allclose([same[0][0], same[1][0]], 1, rtol=1e-7)


def test_exact_zeros_and_what_is_not_known():
    zero, one = np.zeros(1), np.ones(1)
    dead, alive = Effects(zero, zero, zero), Effects(one, one / 2, 2 * one)
    unknown = Effects(one, one * np.nan, one * np.nan)
    assert [end.tolist() for end in ratio_intervals(dead, alive, zero)] == [[0.0], [0.0]]
    assert [end.tolist() for end in ratio_intervals(alive, dead, zero)] == [[np.inf], [np.inf]]
    assert all(np.isnan(end).all() for end in ratio_intervals(dead, dead, zero))
    assert all(np.isnan(end).all() for end in ratio_intervals(alive, unknown, zero))


def test_correlations_are_those_within_images():
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(3), 4000)
    z = rng.standard_normal((2, len(image), 1))
    scale = np.array([1.0, 10.0, 100.0])[image][:, None]  # what images differ by is no common error
    a, b = z[0], 0.6 * z[0] + 0.8 * z[1]
    assert mean_correlations(a, b, image)[0] == pytest.approx(0.36, abs=4 / np.sqrt(len(image)))
    expected = [np.corrcoef(np.square(a[image == i, 0]), np.square(b[image == i, 0]))[0, 1] for i in (2,)]
    assert mean_correlations(scale * a, scale * b, image)[0] == pytest.approx(expected[0], abs=0.01)
    assert mean_correlations(1e-200 * a, 1e-200 * a, image)[0] == pytest.approx(1)
    assert mean_correlations(0 * a, a, image)[0] == 0


@pytest.mark.parametrize("rho", [0.0, 0.9, 0.99])
@pytest.mark.parametrize("kind", ["log-normal", "1 normal", "3 normals"])
def test_ratios_cover_the_truth(kind, rho):
    """Draws of two operators, 32 of each of four images, of correlation ρ before they are squared: 1000 repetitions."""
    rng = np.random.default_rng(0)
    repetitions, image = 1000, np.repeat(np.arange(4), 32)
    shape = (3 if kind == "3 normals" else 1, len(image), repetitions)
    z, other = rng.standard_normal((2, *shape))
    pair = z, rho * z + np.sqrt(1 - rho**2) * other
    a, b = (np.exp(0.75 * part[0]) if kind == "log-normal" else part.prod(0) for part in pair)
    numerator, denominator = (
        Effects(np.sqrt(np.square(draws).mean(0)), *effect_intervals(draws, image)) for draws in (a, 3 * b)
    )
    correlations = mean_correlations(a, b, image)
    low, high = ratio_intervals(numerator, denominator, correlations)
    covered = int(((low <= 1 / 3) & (high >= 1 / 3)).sum())
    assert covered >= least_covered(repetitions, 0.95)
    wide = ratio_intervals(numerator, denominator, np.zeros(repetitions))
    if rho == 0.99:
        assert np.median(np.log(high / low)) < 0.35 * np.median(np.log(wide[1] / wide[0])), "what is common helps"


def perturbed(module: nn.Module, share: float) -> nn.Module:
    """The module with other weights: as after some more training."""
    changed = copy.deepcopy(module)
    for parameter in changed.parameters():
        parameter.data += share * parameter.data.std() * torch.randn_like(parameter)
    return changed


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.05, 1.0])
def test_ratios_of_operators_cover_brute_force(share):
    """4x4 map, float64, every tuple with every channel; 100 seeds of 32 chains along common draws."""
    torch.manual_seed(3)
    first = large_weights(GnConv(2, 2, kernel_size=3).double())
    second = perturbed(first, share)
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    sigma = x.transpose(0, 1).flatten(1).std(1, correction=0)
    truth = []
    for k in range(3):
        one, other = (mean_square_over_tuples(operator, x, sigma, k) for operator in (first, second))
        stds = [float(operator(x).std(correction=0)) for operator in (first, second)]
        truth.append((one / other) ** 0.5 * stds[1] / stds[0])
    repetitions, covered, widths = 100, np.zeros(3), []
    for seed in range(repetitions):
        found = compared_operators((first, second), (x, x), max_order=2, num_tuples=32, seed=seed)
        assert found.common_draws
        covered += (found.ci_low <= truth) & (truth <= found.ci_high)
        widths.append(np.log(found.ci_high / found.ci_low))
    assert (covered >= least_covered(repetitions, 0.95)).all()
    if share < 0.1:
        spectra = [interaction_spectrum(operator, x, max_order=2, num_tuples=32) for operator in (first, second)]
        apart = compare_spectra(*spectra)
        assert not apart.common_draws
        assert (np.median(widths, axis=0) < 0.3 * np.log(apart.ci_high / apart.ci_low)).all()


def test_an_operator_beside_itself_differs_by_nothing():
    operator, x = large_weights(GnConv(4, 2, kernel_size=3)), torch.randn(2, 4, 5, 5)
    found = compared_operators((operator, operator), (x, x), max_order=3, num_tuples=8)
    np.testing.assert_allclose(found.ci_low[:3], 1, rtol=1e-6)
    np.testing.assert_allclose(found.ci_high[:3], 1, rtol=1e-6)
    assert np.isnan(found.ratios[3]), "both are exact zeros"
    assert found.convention["draws"].startswith("common")


def test_maps_that_do_not_agree_are_drawn_apart():
    operator = large_weights(GnConv(4, 2, kernel_size=3))
    sizes = torch.randn(1, 4, 5, 5), torch.randn(1, 4, 6, 5)
    found = compared_operators((operator, operator), sizes, max_order=2, num_tuples=32)
    assert not found.common_draws
    assert found.convention["draws"] == "counted as independent"
    assert found.correlations.tolist() == [0.0] * 3
    alone = interaction_spectrum(operator, sizes[0], max_order=2, num_tuples=32)
    np.testing.assert_array_equal(found.first_effects, alone.effects)


def test_one_of_the_two_needs_more_draws():
    x = torch.randn(1, 4, 6, 6)
    rough, smooth = large_weights(GnConv(4, 3, kernel_size=3)), large_weights(GnConv(4, 3, kernel_size=3))
    with torch.no_grad():
        rough.proj_in.weight[1:] *= 0.05
    found = compared_operators((rough, smooth), (x, x), max_order=3, precision=0.06)
    assert len(set(found.num_draws)) == 2, "else it tells nothing"
    assert found.common_draws


def test_blocks_of_two_models():
    models = create_model("hornet_test_iso"), create_model("hornet_test_iso", seed=1)
    images = torch.randn(1, 3, 96, 96)
    found = model_spectrum_comparisons(models, (images, images), num_tuples=32)
    assert list(found) == [f"blocks.{i}.gnconv" for i in range(3)]
    one = found["blocks.1.gnconv"]
    assert isinstance(one, SpectrumComparison)
    assert one.common_draws
    assert (one.first_order, one.second_order) == (3, 3)
    assert one.provenance.weights_sha256 != one.second_provenance.weights_sha256
    assert one.convention["scope"] == "mixer"
    assert (one.ci_low[:4] <= one.ratios[:4]).all()
    assert (one.ratios[:4] <= one.ci_high[:4]).all()


def test_two_blocks_of_one_model():
    model, images = create_model("hornet_test_iso"), torch.randn(1, 3, 96, 96)
    found = model_spectrum_comparisons((model, model), (images, images), blocks=([1, 3], [2, 3]), num_tuples=4)
    assert list(found) == ["blocks.0.gnconv : blocks.1.gnconv", "blocks.2.gnconv"]
    np.testing.assert_allclose(found["blocks.2.gnconv"].ci_high[:4], 1, rtol=1e-6)
    with pytest.raises(ValueError, match="as many blocks of each model, got 2 and 1"):
        model_spectrum_comparisons((model, model), (images, images), blocks=([1, 3], [2]))
    with pytest.raises(ValueError, match="has blocks 1 to 3, got 7"):
        model_spectrum_comparisons((model, model), (images, images), blocks=([7], [2]))


def test_results_that_were_kept(tmp_path):
    model, images = create_model("hornet_test_iso"), torch.randn(1, 3, 96, 96)
    kept = model_interaction_spectra(model, images, num_tuples=16)
    kept.save(tmp_path / "kept.npz")
    one = type(kept).load(tmp_path / "kept.npz")["blocks.0.gnconv"]
    found = compare_spectra(one, kept["blocks.1.gnconv"], names=("a", "b"))
    assert (found.first, found.second, found.common_draws) == ("a", "b", False)
    np.testing.assert_allclose(found.ratios[:4], one.effects[:4] / kept["blocks.1.gnconv"].effects[:4])
    found.save(tmp_path / "comparison.json")
    assert SpectrumComparison.load(tmp_path / "comparison.json") == found
    frame = found.to_frame()
    assert list(frame["k"]) == list(range(6))
    assert {"ratio", "ci_low", "ci_high", "correlation", "first_effect", "second_effect"} <= set(frame.columns)
    other = replace(one, options=replace(one.options, scope="block"))
    with pytest.raises(ValueError, match="of one kind, got scope='mixer' and scope='block'"):
        compare_spectra(one, other)
    with pytest.raises(ValueError, match="images like these"):
        compare_spectra(one, replace(one, target="images like these"))


def test_what_must_be_said():
    x = torch.randn(1, 2, 4, 4)
    with pytest.raises(TypeError, match="expects max_order"):
        compared_operators((nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)), (x, x))
