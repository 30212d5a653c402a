"""Spectra of pictures that come in batches: those of one batch where there is one, elsewhere those of sums by hand."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from horinsight import InteractionSpectrum, model_interaction_spectra
from horinsight.data.picture_batches import tensor_stream
from horinsight.interaction.block_points import block_points
from horinsight.interaction.effect_interval import effect_intervals, like_image_intervals
from horinsight.interaction.order import effect_sizes
from horinsight.interaction.point_scales import PointScales, RunningScales
from horinsight.interaction.prepared import prepared
from horinsight.interaction.spectrum_options import SpectrumOptions
from horinsight.interaction.streamed_block import _seed
from horinsight.interaction.streamed_spectra import streamed_spectra
from horinsight.mixers.blocks import MixingBlock, chosen_blocks
from horinsight.models.registry import create_model


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return create_model("hornet_test_iso").eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    scale = torch.tensor([0.2, 1, 3, 0.5, 2, 1]).view(-1, 1, 1, 1)
    return torch.randn(6, 3, 64, 64, generator=generator) * scale


def streamed(
    model: nn.Module, images: Tensor, batch_size: int, options: SpectrumOptions, indices: list[int] | None = None
) -> dict[str, InteractionSpectrum]:
    chosen = chosen_blocks(model, indices, image_size=(64, 64))
    found: dict[str, InteractionSpectrum] = {}

    def keep(block: MixingBlock, spectrum: InteractionSpectrum) -> None:
        found[block.name] = spectrum

    batches = list(tensor_stream(images, ("",) * len(images), batch_size))
    streamed_spectra(model, batches, len(images), chosen, options, keep, among=chosen, on_refusal=None)
    return found


@pytest.mark.parametrize("asked", [{}, {"method": "nested", "num_tuples": 2}, {"precision": 0.3}, {"scope": "block",
    "num_tuples": 2}])  # fmt: skip
def test_one_batch_gives_what_it_gave(model, images, asked):
    """Bit for bit but for σ and std(F), which are summed in float64."""
    options = SpectrumOptions(max_order=3, **asked)
    expected = model_interaction_spectra(model, images[:2], options=options, blocks=[1, 2])
    found = streamed(model, images[:2], 2, options, [1, 2])
    assert list(found) == list(expected)
    for name, spectrum in found.items():
        for field in ("effects", "ci_low", "ci_high", "max_share"):
            np.testing.assert_allclose(getattr(spectrum, field), getattr(expected[name], field), rtol=1e-5)
        for field in ("num_draws", "location_order", "degree_order", "at_least", "seed", "options"):
            assert getattr(spectrum, field) == getattr(expected[name], field), field
        assert spectrum.exact_zero.tolist() == expected[name].exact_zero.tolist()
        assert spectrum.convention == {
            key: value for key, value in expected[name].convention.items() if key != "zero_weights"
        }


def test_batches_are_strata_of_one_measurement(model, images):
    """By hand: σ and std(F) of all pictures, draws of each batch by its own seed, all of them in one mean."""
    options = SpectrumOptions(max_order=4, num_tuples=64)
    (spectrum,) = streamed(model, images, 2, options, [2]).values()
    chosen = chosen_blocks(model, [2], image_size=(64, 64))
    (whole,) = block_points(model, images, chosen, options).values()
    x = whole.x.double()
    with torch.no_grad():
        output = whole.operator(whole.x).double()
    scales = PointScales(x.transpose(0, 1).flatten(1).std(1, correction=0), float(output.std(correction=0)))
    values, pictures = [], []
    for batch in range(3):
        part = whole.x[2 * batch : 2 * batch + 2]
        with prepared(whole.operator, part, whole.positions, whole.alone, None, scales) as ready:
            generator = torch.Generator().manual_seed(_seed(0, batch, 0))
            draws = ready.chains.derivatives(ready.form, 64, generator, dense=False)
        values.append(draws.values)
        pictures.append(draws.images + 2 * batch)
    draws, image_of_draw = np.concatenate(values), np.concatenate(pictures)
    assert spectrum.num_draws == len(draws) == 6 * 64
    np.testing.assert_allclose(spectrum.effects, effect_sizes(draws), rtol=1e-5)
    low, high = effect_intervals(draws, image_of_draw)
    np.testing.assert_allclose(spectrum.ci_low, low, rtol=1e-4)
    np.testing.assert_allclose(spectrum.ci_high, high, rtol=1e-4)
    assert like_image_intervals(draws, image_of_draw) is None
    assert spectrum.like_low is None


def test_sizes_of_batches_change_draws_and_nothing_else(model, images):
    """Two estimates of the same effects: their logarithms differ by what their intervals allow."""
    options = SpectrumOptions(max_order=3, num_tuples=256)
    one, two, six = (streamed(model, images, size, options, [1])["blocks.0.gnconv"] for size in (1, 2, 6))
    assert one.num_draws == two.num_draws == six.num_draws == 6 * 256
    assert (one.location_order, one.degree_order) == (six.location_order, six.degree_order)
    for spectrum in (one, two):
        assert not np.array_equal(spectrum.effects, six.effects)
        widths = np.log(spectrum.ci_high / spectrum.ci_low) + np.log(six.ci_high / six.ci_low)
        assert (np.abs(np.log(spectrum.effects / six.effects)) < widths).all()


def test_the_mean_square_over_pictures_is_that_of_pictures_alone(model, images):
    """With σ and std(F) of all: E_b[D²] of one picture at a time, many draws; strata are pictures."""
    options = SpectrumOptions(max_order=2, num_tuples=2048, method="closed_form")
    (spectrum,) = streamed(model, images, 2, options, [1]).values()
    chosen = chosen_blocks(model, [1], image_size=(64, 64))
    running = RunningScales()
    (whole,) = block_points(model, images, chosen, options).values()
    whole.add_to(running)
    squares = []
    for number in range(len(images)):
        with replace(whole, x=whole.x[number : number + 1]).ready(running.compute()) as ready:
            generator = torch.Generator().manual_seed(100 + number)
            draws = ready.chains.derivatives(ready.form, 2048, generator, dense=False)
        squares.append(np.square(draws.values).mean(0))
    expected = np.sqrt(np.mean(squares, axis=0))
    width = np.log(spectrum.ci_high / spectrum.ci_low)
    assert (np.abs(np.log(spectrum.effects / expected)) < width).all(), "two standard errors of each, both ways"


def test_more_pictures_than_a_batch_are_streamed_whoever_asks(model, images):
    many = images.repeat(3, 1, 1, 1)
    options = SpectrumOptions(max_order=3, num_tuples=8)
    found = model_interaction_spectra(model, many, options=options, blocks=[1])
    (expected,) = streamed(model, many, 16, options, [1]).values()
    assert found["blocks.0.gnconv"].effects.tolist() == expected.effects.tolist()
    assert found["blocks.0.gnconv"].num_draws == 18 * 8
    assert found.provenance.images == ("18 given as a tensor",)
    assert found["blocks.0.gnconv"].like_low is not None, "enough images to say what others would give"


def test_a_precision_goes_on_in_further_passes(model, images):
    options = SpectrumOptions(max_order=3, precision=0.08, num_tuples=16)
    found = streamed(model, images, 2, options)
    draws = {spectrum.num_draws for spectrum in found.values()}
    first = len(images) * 16
    assert draws <= {first * 2**rounds for rounds in range(12)}
    assert min(draws) > first, "sixteen chains a picture are not enough"
    for spectrum in found.values():
        alive = ~spectrum.exact_zero
        assert (np.log(spectrum.ci_high[alive] / spectrum.ci_low[alive]) / 4 <= 0.08).all()


class Tiny(nn.Module):
    """Products that underflow in float32 and not in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.block = Squared()

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.conv(x)).mean((2, 3))


class Squared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 3, padding=1, groups=3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.mix(x) * 1e-25
        return x + y * y


def test_numbers_that_underflow_are_measured_again_in_float64(images):
    torch.manual_seed(0)
    model = Tiny()
    options = SpectrumOptions(max_order=2, num_tuples=4, scope="block")
    block = next(one for one in chosen_blocks(model, image_size=(64, 64)) if one.path == "block.mix")
    (alone,) = model_interaction_spectra(model, images[:2, :, :16, :16], options=options, blocks=[block.index]).values()
    assert alone.convention["dtype"] == "float64"
    found: list[InteractionSpectrum] = []
    batches = list(tensor_stream(images[:4, :, :16, :16], ("",) * 4, 2))
    keep = lambda _, spectrum: found.append(spectrum)  # noqa: E731
    streamed_spectra(model, batches, 4, [block], options, keep, among=[block], on_refusal=None)
    assert found[0].convention["dtype"] == "float64"
    assert found[0].exact_zero.tolist() == alone.exact_zero.tolist() == [False, False, True]


def test_what_is_declared_may_be_in_blocks_that_finish_at_different_times(images):
    """A block refused in the first pass takes its declared class with it; the others go on."""
    model = timm.create_model("test_vit", img_size=64)
    options = SpectrumOptions(max_order=2, num_tuples=2, nonlinear=("LayerNorm", "GELU"), scope="block")
    chosen = chosen_blocks(model, [1], image_size=(64, 64))
    found: list[InteractionSpectrum] = []
    batches = list(tensor_stream(images[:2], ("",) * 2, 1))
    streamed_spectra(
        model, batches, 2, chosen, options, lambda _, one: found.append(one), among=chosen, on_refusal=None
    )
    assert len(found) == 1


def test_a_block_that_fails_at_one_batch_is_left_out(model, images):
    broken = images[:4].clone()
    broken[3] = float("nan")
    refused: list[str] = []
    options = SpectrumOptions(max_order=2, num_tuples=2)
    chosen = chosen_blocks(model, image_size=(64, 64))
    batches = list(tensor_stream(broken, ("",) * 4, 2))
    found: list[str] = []
    streamed_spectra(
        model,
        batches,
        4,
        chosen,
        options,
        lambda block, _: found.append(block.name),
        among=chosen,
        on_refusal=lambda block, _: refused.append(block.name),
    )
    assert (found, refused) == ([], [block.name for block in chosen])
    with pytest.raises(ValueError, match="NaN or infinity"):
        streamed_spectra(model, batches, 4, chosen, options, lambda *_: None, among=chosen, on_refusal=None)
