"""Blocks of two models compared over pictures in batches: along common draws, as at once, and by hand."""

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from horinsight import SpectrumOptions, create_model, model_spectrum_comparisons, picture_stream
from horinsight.interaction.block_points import block_points
from horinsight.interaction.order import effect_sizes
from horinsight.interaction.point_scales import RunningScales
from horinsight.interaction.prepared import prepared
from horinsight.interaction.ratio_interval import mean_correlations
from horinsight.interaction.streamed_block import _seed
from horinsight.mixers.blocks import chosen_blocks

COUNT = 6
ASKED = {"options": SpectrumOptions(max_order=4, num_tuples=64), "blocks": ([2], [2])}


@pytest.fixture(scope="module")
def models():
    return create_model("hornet_test_iso").double(), create_model("hornet_test_iso", seed=1).double()


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(COUNT, 3, 64, 64, generator=generator, dtype=torch.float64) * torch.logspace(
        -0.5, 0.5, COUNT, dtype=torch.float64
    ).view(-1, 1, 1, 1)


def in_batches(images, size):
    return picture_stream(TensorDataset(images), torch.nn.Identity(), batch_size=size)


def test_one_batch_is_what_a_tensor_is(models, images):
    stream = in_batches(images, COUNT)
    (found,) = model_spectrum_comparisons(models, (stream, stream), **ASKED).values()
    (expected,) = model_spectrum_comparisons(models, (images, images), **ASKED).values()
    np.testing.assert_array_equal(found.ratios, expected.ratios)
    np.testing.assert_array_equal(found.ci_low, expected.ci_low)


def test_batches_are_strata_of_one_comparison(models, images):
    """By hand: σ and std(F) of all pictures, locations of each batch by the mean of both blocks' shares, one seed."""
    (found,) = model_spectrum_comparisons(models, (in_batches(images, 2), in_batches(images, 2)), **ASKED).values()
    assert found.common_draws
    assert found.num_draws == (COUNT * 64,) * 2
    options = ASKED["options"]
    wholes, scales = [], []
    for model in models:
        chosen = chosen_blocks(model, [2], image_size=(64, 64))
        (whole,) = block_points(model, images, chosen, options).values()
        running = RunningScales()
        whole.add_to(running)
        wholes.append(whole)
        scales.append(running.compute())
    draws: list[list[np.ndarray]] = [[], []]
    for batch in range(3):
        parts = [whole.x[2 * batch : 2 * batch + 2] for whole in wholes]
        shares = []
        for whole, part, scale in zip(wholes, parts, scales, strict=True):
            with prepared(whole.operator, part, whole.positions, whole.alone, None, scale) as ready:
                shares.append(ready.chains.location_shares())
        for side, (whole, part, scale) in enumerate(zip(wholes, parts, scales, strict=True)):
            with prepared(whole.operator, part, whole.positions, whole.alone, None, scale) as ready:
                chains = ready.chains
                object.__setattr__(chains, "shares", sum(shares) / 2)
                generator = torch.Generator().manual_seed(_seed(0, batch, 0))
                draws[side].append(chains.derivatives(ready.form, 64, generator, dense=False).values)
    first, second = (np.concatenate(one) for one in draws)
    np.testing.assert_allclose(found.first_effects, effect_sizes(first), rtol=1e-9)
    np.testing.assert_allclose(found.second_effects, effect_sizes(second), rtol=1e-9)
    expected = mean_correlations(first, second, np.repeat(np.arange(COUNT), 64))
    np.testing.assert_allclose(found.correlations, expected, rtol=1e-9)


def test_batches_and_all_at_once_agree_within_their_intervals(models, images):
    asked = {**ASKED, "options": SpectrumOptions(max_order=3, num_tuples=512)}
    (found,) = model_spectrum_comparisons(models, (in_batches(images, 4), in_batches(images, 4)), **asked).values()
    (whole,) = model_spectrum_comparisons(models, (images, images), **asked).values()
    widths = np.log(found.ci_high / found.ci_low) + np.log(whole.ci_high / whole.ci_low)
    assert (np.abs(np.log(found.ratios / whole.ratios)) < widths).all()


def test_a_model_beside_itself_differs_by_nothing(models, images):
    stream = in_batches(images, 4)
    seen = []
    found = model_spectrum_comparisons(
        (models[0], models[0]),
        (stream, stream),
        blocks=([1, 3], [2, 3]),
        num_tuples=8,
        on_block=lambda block, one: seen.append(block.index),
    )
    assert list(found) == ["blocks.0.gnconv : blocks.1.gnconv", "blocks.2.gnconv"]
    assert seen == [1, 3]
    np.testing.assert_allclose(found["blocks.2.gnconv"].ratios[:4], 1, rtol=1e-12)
    np.testing.assert_allclose(found["blocks.2.gnconv"].ci_high[:4], 1, rtol=1e-6)


def test_one_of_the_two_goes_on_alone_in_further_rounds(models, images):
    """To a precision: each has as many draws as it needs, the first of them in common."""
    asked = {"options": SpectrumOptions(max_order=3, precision=0.12, num_tuples=16), "blocks": ([1, 2], [2, 3])}
    found = model_spectrum_comparisons(models, (in_batches(images, 4), in_batches(images, 4)), **asked)
    assert any(len(set(one.num_draws)) == 2 for one in found.values()), "else it tells nothing"
    for one in found.values():
        assert one.common_draws
        assert {draws % (COUNT * 16) for draws in one.num_draws} == {0}


def test_unequal_numbers_of_pictures_are_refused(models, images):
    with pytest.raises(ValueError, match="as many pictures of both where they are more than a batch, got 6 and 5"):
        model_spectrum_comparisons(models, (in_batches(images, 4), in_batches(images[:5], 4)), **ASKED)
