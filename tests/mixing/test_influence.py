"""Influence equals dense Jacobians, is 0 where nothing leads, and its random estimates are what they say."""

import copy

import numpy as np
import oracles
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import t as student
from timm.models.vision_transformer import Attention
from torch import nn

from horinsight import GnConv, influence

EXACT = 1e-12  # relative to the largest: rounding of float64 in a few thousand terms


def float64(module: nn.Module) -> nn.Module:
    return oracles.large_weights(module.double().eval())


def agrees(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=0, atol=EXACT * expected.max())


class Channelwise(nn.Module):
    """Channels-last (B, H, W, C): each row looks at the row above, gated."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(3), nn.Linear(3, 4)

    def forward(self, x):
        return self.linear(self.norm(x).roll(1, 1) * x.mean((1, 2), keepdim=True))


class Patches(nn.Module):
    """From a map to tokens, after a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.token = nn.Conv2d(2, 3, 2, stride=2), nn.Parameter(torch.ones(1, 1, 3))
        self.mixing = nn.Linear(3, 3)

    def forward(self, x):
        tokens = torch.cat([self.token.expand(len(x), -1, -1), self.stem(x).flatten(2).mT], 1)
        return tokens + self.mixing(tokens.mean(1, keepdim=True)).tanh() * tokens


class Thinned(nn.Module):
    """Tokens of which every other is kept, after each has seen all."""

    def forward(self, x):
        return (torch.softmax(x @ x.mT, -1) @ x)[:, ::2]


MAPS = {
    "convolution": (nn.Conv2d(2, 3, 3, padding=1), (2, 5, 6)),
    "strided": (nn.Sequential(nn.Conv2d(2, 3, 3, 2, 1), nn.GELU(), nn.Conv2d(3, 2, 2, 2)), (2, 9, 8)),
    "enlarged": (nn.ConvTranspose2d(2, 3, 2, stride=2), (2, 3, 4)),
    "gnconv": (GnConv(4, 3, kernel_size=3), (4, 5, 7)),
    "pooling in place": (nn.Sequential(nn.ReLU(inplace=True), nn.MaxPool2d(3, 1, 1)), (2, 6, 5)),
}


@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("name", MAPS)
def test_influence_on_maps_is_that_of_the_whole_jacobian(name, explicit):
    module, shape = copy.deepcopy(MAPS[name])
    operator, x = float64(module), torch.randn(2, *shape, dtype=torch.float64)
    found = influence(operator, x, explicit=explicit)
    expected = oracles.influence(lambda z: operator(z.clone()), x)
    assert found.output_shape == expected.shape[1:3]
    agrees(found.maps, expected)
    assert (found.standard_errors == 0).all()
    assert found.queries.tolist() == [[*cell] for cell in np.ndindex(*found.output_shape)]


@settings(max_examples=12)
@given(st.integers(5, 9), st.integers(5, 9), st.integers(1, 3), st.integers(0, 2), st.integers(1, 7))
def test_sizes_strides_and_batches(rows, columns, stride, padding, batch_size):
    operator = float64(nn.Sequential(nn.Conv2d(2, 2, 3, stride, padding), nn.Tanh(), nn.Conv2d(2, 1, 2)))
    assume(min(rows, columns) + 2 * padding - 3 >= stride)  # the second convolution needs two cells
    x = torch.randn(2, 2, rows, columns, dtype=torch.float64)
    agrees(influence(operator, x, batch_size=batch_size).maps, oracles.influence(operator, x))


def test_other_layouts():
    x = torch.randn(2, 5, 4, 3, dtype=torch.float64)
    operator = float64(Channelwise())
    found = influence(operator, x, layout="channels_last")
    agrees(found.maps, oracles.influence(operator, x, channels=2))
    x, operator = torch.randn(2, 3, 7, dtype=torch.float64), float64(nn.Conv1d(3, 2, 3, padding=1))
    agrees(influence(operator, x, layout="channels_first").maps, oracles.influence(operator, x))


@pytest.mark.parametrize("explicit", [False, True])
def test_tokens_behind_a_prefix_lie_on_their_map(explicit):
    operator, x = float64(Attention(8, num_heads=2)), torch.randn(2, 2 + 12, 8, dtype=torch.float64)
    expected = oracles.influence(operator, x, channels=1)
    found = influence(operator, x, grid=(3, 4), queries=[(2, 1), (0, 3)], explicit=explicit)
    assert found.maps.shape == (2, 2, 3, 4)
    agrees(found.maps, expected[:, [2 + 9, 2 + 3], 2:])
    found = influence(operator, x, queries=[0, 13], explicit=explicit)  # without a grid all tokens are positions
    agrees(found.maps, expected[:, [0, 13]])


def test_from_a_map_to_tokens_and_to_fewer_tokens():
    operator, x = float64(Patches()), torch.randn(1, 2, 6, 4, dtype=torch.float64)
    expected = oracles.influence(operator, x, output_channels=1)
    agrees(influence(operator, x, output_grid=(3, 2)).maps, expected[:, 1:])
    agrees(influence(operator, x, queries=[0]).maps, expected[:, :1])
    x = torch.randn(1, 6, 3, dtype=torch.float64)
    agrees(influence(Thinned(), x, grid=(2, 3), output_grid=(1, 3)).maps, oracles.influence(Thinned(), x, channels=1))


def test_explicit_influence_goes_by_way_of_tangents():
    graphs = []

    def operator(x):
        y = torch.sigmoid(x) * x.mean((2, 3), keepdim=True)
        graphs.append(str(y.grad_fn and y.grad_fn.next_functions[0][0].name()))
        return y

    x = torch.randn(1, 2, 3, 3, dtype=torch.float64)
    found = {kind: influence(operator, x, explicit=kind) for kind in (False, True)}
    assert {name for name in graphs if "Sigmoid" in name or "LinearMap" in name} == {
        "SigmoidBackward0",
        "LinearMapBackward",
    }
    agrees(found[True].maps, found[False].maps)
    assert found[True].convention["kind"] == "explicit"


def receptive_field(cell: int, layers: list[tuple[int, int, int]]) -> tuple[int, int]:
    """First and last index along a side that (kernel, stride, padding) layers, the last first, see from a cell."""
    low = high = cell
    for kernel, stride, padding in layers:
        low, high = low * stride - padding, high * stride - padding + kernel - 1
    return low, high


@pytest.mark.parametrize("probes", [None, 2])
@pytest.mark.parametrize("cell", [(0, 0), (4, 6), (9, 9)])
def test_zero_outside_the_receptive_field_bit_for_bit(cell, probes):
    layers = [(3, 1, 1), (3, 2, 1), (3, 1, 1), (7, 2, 3)]  # the last first
    widths = [3, 8, 8, 16, 16]
    parts: list[nn.Module] = []
    for layer, (kernel, stride, padding) in enumerate(layers[::-1]):
        parts += [nn.Conv2d(widths[layer], widths[layer + 1], kernel, stride, padding), nn.GELU()]
    x = torch.randn(1, 3, 40, 40)
    found = influence(nn.Sequential(*parts), x, queries=[cell], probes=probes).squares[0, 0]
    inside = np.zeros((40, 40), dtype=bool)
    (top, bottom), (left, right) = (receptive_field(at, layers) for at in cell)
    inside[max(top, 0) : bottom + 1, max(left, 0) : right + 1] = True
    assert (found[~inside] == 0.0).all()
    assert (found[inside] > 0.0).all()


def test_random_signs_estimate_the_square_with_its_standard_error():
    """200 seeds, the Jacobian known; each bound is 3.5 standard errors of what it bounds, for nine cells at once."""
    seeds, probes = 200, 32
    operator, x = float64(nn.Conv2d(16, 32, 3, padding=1)), torch.randn(1, 16, 3, 3, dtype=torch.float64)
    truth = influence(operator, x, queries=[(1, 1)]).squares
    runs = [influence(operator, x, queries=[(1, 1)], probes=probes, seed=seed, batch_size=64) for seed in range(seeds)]
    squares, errors = np.stack([run.squares for run in runs]), np.stack([run.standard_errors for run in runs])
    # unbiased
    spread = squares.std(0, ddof=1)
    assert (np.abs((squares.mean(0) - truth) / (spread / seeds**0.5)) < 3.5).all()
    # the variance that a run tells is that between runs, which 200 runs tell to sqrt(2 / 200)
    assert (np.abs((errors**2).mean(0) / spread**2 - 1) < 3.5 * (2 / seeds) ** 0.5).all()
    # 95 % intervals hold the truth in 95 % of the runs
    covered = (np.abs(squares - truth) <= student.ppf(0.975, probes - 1) * errors).mean(0)
    assert (np.abs(covered - 0.95) < 3.5 * (0.95 * 0.05 / seeds) ** 0.5).all()


def test_one_probe_of_a_depthwise_operator_is_exact():
    """Σ_c s_c² |∂F_c/∂x_c|²: the signs square away, so that probes do not differ."""
    operator, x = float64(nn.Conv2d(5, 5, 3, padding=1, groups=5)), torch.randn(1, 5, 5, 5, dtype=torch.float64)
    truth = influence(operator, x)
    agrees(influence(operator, x, probes=1).squares, truth.squares)
    found = influence(operator, x, probes=3, seed=4)
    agrees(found.squares, truth.squares)
    assert found.standard_errors.max() <= 1e-15 * truth.squares.max()
    assert np.isnan(influence(operator, x, probes=1).standard_errors).all()


def test_seeds_and_batches():
    operator, x = float64(nn.Conv2d(2, 8, 3)), torch.randn(5, 2, 6, 6, dtype=torch.float64)
    found = influence(operator, x, probes=3, seed=7)
    for batch_size in (1, 2, 64):
        again = influence(operator, x, probes=3, seed=7, batch_size=batch_size)
        np.testing.assert_allclose(again.squares, found.squares, rtol=1e-12)
    assert (influence(operator, x, probes=3, seed=8).squares != found.squares).any()
    assert found.seed == 7
    before = torch.get_rng_state()
    influence(operator, x, probes=2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("num_images", "batch_size"), [(1, 4), (3, 7), (5, 2), (2, 64)])
def test_one_recorded_pass_a_batch_and_no_more_images_than_asked(num_images, batch_size):
    recorded = []

    def operator(x):
        recorded.extend([len(x)] * x.requires_grad)
        return x * x.mean((2, 3), keepdim=True)

    influence(operator, torch.randn(num_images, 3, 4, 4), queries=[(0, 0), (3, 1)], probes=5, batch_size=batch_size)
    assert max(recorded) <= batch_size
    assert len(recorded) == -(-num_images // batch_size), "backward passes share a forward pass"


def test_a_module_is_given_back_as_it_was():
    module = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    statistics = module[1].running_mean.clone()
    influence(module, torch.randn(2, 2, 4, 4), queries=[(1, 1)], explicit=True)
    assert module.training
    assert module[2].training
    assert all(weight.requires_grad and weight.grad is None for weight in module.parameters())
    assert torch.equal(module[1].running_mean, statistics)
    with pytest.raises(ValueError, match="3x3, counted from 0, got"):
        influence(module, torch.randn(2, 2, 3, 3), queries=[(3, 1)])
    assert module.training


def test_under_inference_mode_autocast_and_without_gradients():
    operator, x = nn.Conv2d(2, 3, 3), torch.randn(1, 2, 5, 5)
    expected = influence(operator, x).squares
    with torch.inference_mode():
        inside = influence(operator, x.clone()).squares
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = influence(operator, x).squares
    assert np.array_equal(inside, expected)
    assert np.array_equal(rounded, expected)


def mixes_samples(x):
    return x - x.mean(0, keepdim=True)


def cuts_the_graph(x):
    return x.detach() * 2


MAP = torch.zeros(2, 3, 4, 4)
BAD = {
    "a dict": (lambda x: {"features": x}, MAP, {}, "gives one tensor, got dict"),
    "no map": (lambda x: x.mean((2, 3)), MAP, {}, r"output has positions.*got \(2, 3\) for a batch of 2"),
    "another batch": (lambda x: torch.cat([x, x]), MAP, {}, "output has positions"),
    "half precision": (nn.Conv2d(3, 3, 1).bfloat16(), MAP.bfloat16(), {}, "float32 or float64, got torch.bfloat16"),
    "a half model": (nn.Conv2d(3, 3, 1).half(), MAP, {}, "float32 or float64, got torch.float16"),
    "whole numbers": (lambda x: x, MAP.long(), {}, "float32 or float64, got torch.int64"),
    "a row alone": (lambda x: x, MAP, {"queries": [(1,)]}, "a row and a column on the output's map of 4x4"),
    "off the map": (lambda x: x, MAP, {"queries": [(0, 4)]}, r"got \(0, 4\)"),
    "negative": (lambda x: x, MAP, {"queries": [(-1, 0)]}, r"got \(-1, 0\)"),
    "no query": (lambda x: x, MAP, {"queries": []}, "at least one query"),
    "a token": (lambda x: x, MAP[0], {"queries": [9]}, "one number on the output's map of 4"),
    "probes": (lambda x: x, MAP, {"probes": 0}, "probes expects a whole number of at least 1, got 0"),
    "batch size": (lambda x: x, MAP, {"batch_size": 0}, "batch_size expects a whole number of at least 1"),
    "samples": (mixes_samples, torch.randn(2, 3, 4, 4), {}, "each sample of a batch by itself"),
    "a cut": (cuts_the_graph, torch.randn(2, 3, 4, 4), {}, "carries no gradient"),
    "no derivative": (lambda x: x.sqrt(), MAP, {}, "Derivatives at x are NaN or infinite"),
    "NaN": (lambda x: x.log(), MAP - 1, {}, "output at x is NaN or infinite"),
    "channels": (nn.Conv2d(5, 3, 1), MAP, {}, "does not take images of shape"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_measured_is_one_line(case):
    operator, x, options, message = BAD[case]
    with pytest.raises(ValueError, match=message) as error:
        influence(operator, x, **options)
    assert "\n" not in str(error.value)


def test_x_is_one_tensor():
    with pytest.raises(TypeError, match="one tensor"):
        influence(lambda x: x, [MAP])
    assert (influence(lambda x: 0 * x.detach(), MAP).squares == 0).all(), "a constant has no influence"
