"""Published yardsticks whose interaction effects are known in closed form."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import Tensor

from horinsight import interaction_effects
from horinsight.interaction.function_effect import mixed_partials

N = 40_000


def uniform(d: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(N, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def subsets(d: int) -> list[tuple[int, ...]]:
    return [s for size in range(1, d + 1) for s in itertools.combinations(range(d), size)]


def assert_estimates(effects, expected) -> None:
    for index_set, value in expected.items():
        estimate = effects[index_set]
        if value == 0:
            assert estimate.value == 0.0, index_set
        else:
            # three standard errors, as a sampling test of this size goes; the seed is fixed
            assert abs(estimate.value - value) < 3 * estimate.standard_error, (index_set, estimate, value)
            assert estimate.standard_error < 0.05 * value


def test_ishigami():
    """sin x1 + 7 sin² x2 + b x3⁴ sin x1 on U(-π, π)³: IE_13 = 8 b² π⁶ / 7, all other interactions 0."""
    b = 0.1

    def f(x):
        return x[:, 0].sin() + 7 * x[:, 1].sin() ** 2 + b * x[:, 2] ** 4 * x[:, 0].sin()

    pairs = [s for s in subsets(3) if len(s) > 1]
    effects = interaction_effects(f, uniform(3, -math.pi, math.pi), pairs)
    expected = dict.fromkeys(pairs, 0.0) | {(0, 2): 8 * b**2 * math.pi**6 / 7}
    assert_estimates(effects, expected)


def test_sobols_g():
    """Π (|4x_i - 2| + a_i)/(1 + a_i) on U(0, 1): IE_I = Π_I 16/(1+a_i)² · Π_not I (1 + 1/(3(1+a_i)²))."""
    a = torch.tensor([0.0, 1.0, 4.5], dtype=torch.float64)

    def g(x):
        return (((4 * x - 2).abs() + a) / (1 + a)).prod(dim=1)

    effects = interaction_effects(g, uniform(3, 0, 1), subsets(3))
    expected = {}
    for chosen in subsets(3):
        inside = math.prod(16 / (1 + float(a[i])) ** 2 for i in chosen)
        expected[chosen] = inside * math.prod(1 + 1 / (3 * (1 + float(a[i])) ** 2) for i in range(3) if i not in chosen)
    for chosen, value in expected.items():
        estimate = effects[chosen]
        # for all of a set |4x - 2|' = ±4 is constant in modulus, so that some estimates are exact
        assert abs(estimate.value - value) <= 3 * estimate.standard_error + 1e-12 * value, chosen


def test_ai_and_nortons_logit():
    """Λ(u), u = b1 x1 + b2 x2 + b12 x1 x2: ∂²/∂x1∂x2 = b12 Λ'(u) + (b1 + b12 x2)(b2 + b12 x1) Λ''(u)."""
    b1, b2, b12 = 0.7, -1.2, 0.5
    x = uniform(2, -2, 2)

    def logit(x):
        return torch.sigmoid(b1 * x[:, 0] + b2 * x[:, 1] + b12 * x[:, 0] * x[:, 1])

    L = logit(x)
    first, second = L * (1 - L), L * (1 - L) * (1 - 2 * L)
    expected = b12 * first + (b1 + b12 * x[:, 1]) * (b2 + b12 * x[:, 0]) * second
    torch.testing.assert_close(mixed_partials(logit, x, [0, 1]), expected, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(mixed_partials(logit, x, [1, 0]), expected, rtol=1e-10, atol=1e-13)
    effect = interaction_effects(logit, x, [(1, 0)])[(0, 1)]
    assert effect.value == pytest.approx(float(expected.square().mean()))


def test_the_interaction_is_there_without_a_product_term():
    """Ai and Norton's point: a logit without b12 interacts through Λ''."""
    effects = interaction_effects(lambda x: torch.sigmoid(x.sum(1)), uniform(2, -2, 2), [(0, 1)])
    assert effects[(0, 1)].value > 1e-3


def test_cross_products_remove_what_each_function_adds_by_itself():
    """f + noise_a: squares of one are biased by the noise's own curvature, products of two different ones are not."""
    generator = torch.Generator().manual_seed(1)
    x = uniform(2, 0, 1)

    def noisy(phase: Tensor):
        return lambda x: 2 * x[:, 0] * x[:, 1] + torch.cos(40 * x[:, 0] + 40 * x[:, 1] + phase) / 1600 * 3

    networks = [noisy(phase) for phase in 2 * math.pi * torch.rand(8, generator=generator, dtype=torch.float64)]
    alone = interaction_effects(networks[0], x, [(0, 1)])[(0, 1)].value
    crossed = interaction_effects(networks, x, [(0, 1)])[(0, 1)].value
    assert abs(alone - 4) > 3, "E[D²] = 4 + 9/2"
    assert abs(crossed - 4) < abs(alone - 4) / 3


@pytest.mark.parametrize("n", [1, 2, 5])
def test_several_functions_are_averaged_over_pairs_of_different_ones(n):
    """By loops, with the usual standard error of a mean over the inputs."""
    x = torch.rand(50, 3, dtype=torch.float64)
    slopes = torch.randn(n, dtype=torch.float64)
    functions = [lambda x, b=b: (b * x[:, 0] * x[:, 2] + x[:, 1]).sin() for b in slopes]
    D = torch.stack([mixed_partials(f, x, (0, 2)) for f in functions])
    pairs = [(a, b) for a in range(n) for b in range(n) if a != b] or [(0, 0)]
    expected = torch.stack([D[a] * D[b] for a, b in pairs]).mean(0)
    (found,) = interaction_effects(functions, x, [(2, 0)]).items()
    assert found[0] == (0, 2)
    assert found[1].value == pytest.approx(float(expected.mean()), rel=1e-9)
    assert found[1].standard_error == pytest.approx(float(expected.std() / 50**0.5), rel=1e-9)
    u = slopes[:, None] * x[:, 0] * x[:, 2] + x[:, 1]
    b = slopes[:, None]
    torch.testing.assert_close(D, b * u.cos() - b**2 * x[:, 0] * x[:, 2] * u.sin(), rtol=1e-11, atol=1e-13)


def test_what_does_not_depend_on_a_feature_has_derivatives_of_zero():
    x = torch.rand(4, 3)
    weight = torch.ones(1, requires_grad=True)
    for function in (
        lambda x: x[:, 0] ** 2,
        lambda x: weight.expand(len(x)),
        lambda x: torch.ones(len(x)),
    ):
        assert mixed_partials(function, x, (1, 2)).tolist() == [0.0] * 4
    with pytest.raises(ValueError, match="by way of detach, which gives no gradient"):
        mixed_partials(lambda x: x.detach()[:, 1], x, (1, 2))
    kinked = mixed_partials(lambda x: (x[:, 0] + x[:, 1]).abs(), x, (0, 1))
    assert kinked.tolist() == [0.0] * 4, "a plain function may have kinks"


@pytest.mark.parametrize(
    ("inputs", "index_set", "message"),
    [
        (torch.rand(5), [0], r"shape \(N, d\)"),
        (torch.rand(5, 2), [], "distinct features from 0 to 1"),
        (torch.rand(5, 2), [0, 0], "distinct features"),
        (torch.rand(5, 2), [2], r"got \[2\]"),
        (torch.rand(5, 2), [3], r"got \[3\]"),
        (torch.rand(5, 2), [-1], r"got \[-1\]"),
        (torch.rand(5, 2), [0, 2], r"got \[0, 2\]"),
        (torch.ones(5, 2, dtype=torch.int64), [0], "float32 or float64, got torch.int64"),
        ([[1.0, 2.0]], [0], "got list"),
        (torch.rand(0, 2), [0], "N of at least 1"),
    ],
)
def test_wrong_input(inputs, index_set, message):
    with pytest.raises(ValueError, match=message):
        mixed_partials(lambda x: x.sum(1), inputs, index_set)


def test_functions_of_another_shape():
    with pytest.raises(ValueError, match=r"from \(N, d\) to \(N,\), got \(5, 2\)"):
        mixed_partials(lambda x: x, torch.rand(5, 2), [0])
    with pytest.raises(ValueError, match="at least one function"):
        interaction_effects([], torch.rand(5, 2), [(0, 1)])
    with pytest.raises(ValueError, match="a list of index sets"):
        interaction_effects(lambda x: x.sum(1), torch.rand(5, 2), (0, 1))
    with pytest.raises(ValueError, match="NaN or infinite at some"):
        interaction_effects(lambda x: x.prod(1).sqrt(), torch.zeros(5, 2), [(0, 1)])


def test_modules_are_lent_in_eval_mode():
    network = torch.nn.Sequential(
        torch.nn.Linear(2, 8), torch.nn.BatchNorm1d(8), torch.nn.GELU(), torch.nn.Dropout(), torch.nn.Linear(8, 1),
        torch.nn.Flatten(0),
    )  # fmt: skip
    x = torch.rand(20, 2)
    first, second = (interaction_effects(network, x, [(0, 1)])[(0, 1)].value for _ in range(2))
    assert first == second > 0
    assert network.training


@pytest.mark.parametrize("rows", [32, 64])
def test_intervals_of_squares_hold_the_truth(rows):
    """x_0² x_1²: E[(4 x_0 x_1)²] = 16 over normal rows; of 400 repetitions Student's interval holds far fewer."""
    repetitions, covered, by_student = 400, 0, 0
    for seed in range(repetitions):
        x = torch.randn(rows, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        effect = interaction_effects(lambda z: z[:, 0] ** 2 * z[:, 1] ** 2, x, [(0, 1)])[(0, 1)]
        low, high = effect.interval
        assert 0 < low <= effect.value <= high
        covered += low <= 16 <= high
        low, high = replace(effect, ends=None).interval
        by_student += low <= 16 <= high
    least = stats.binom.ppf(1e-3, repetitions, 0.93)
    assert covered >= least > by_student


def test_intervals_of_what_is_the_same_everywhere():
    x = torch.rand(10, 3, dtype=torch.float64)
    effects = interaction_effects(lambda z: 2 * z[:, 0] * z[:, 1], x, [(0, 1), (0, 2)])
    assert effects[(0, 1)].interval == pytest.approx((4, 4))
    assert effects[(0, 2)].interval == (0.0, 0.0)
    several = interaction_effects([lambda z: z[:, 0] * z[:, 1], lambda z: 3 * z[:, 0] * z[:, 1]], x, [(0, 1)])
    assert several[(0, 1)].ends is None, "products of two may be negative"
