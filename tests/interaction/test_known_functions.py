"""Published yardsticks: estimates against closed forms, and pairs of features against published interactions."""

import math
from itertools import combinations

import pytest
import sympy
import torch
from scipy.integrate import quad
from torch import nn

from horinsight import interaction_effects
from horinsight.interaction.function_effect import mixed_partials
from horinsight.interaction.known_functions import ishigami, pairwise_auc, sobol_g, tsang_functions

PAIRS = list(combinations(range(10), 2))
# A pair that interacts only on a kink has an effect of 0, as the pairs that do not interact: it counts half.
EXPECTED_AUC = {"F5": 1 - 0.5 / 8, "F7": 1 - 0.5 / 14}


@pytest.mark.parametrize("known", [ishigami(), ishigami(b=0.3), sobol_g(), sobol_g((0.0, 0.5))], ids=lambda k: k.name)
def test_effects_in_closed_form(known):
    effects = interaction_effects(known.function, known.inputs(40_000), list(known.effects))
    for group, value in known.effects.items():
        assert abs(effects[group].value - value) <= 3 * effects[group].standard_error + 1e-12 * value, group
        assert effects[group].standard_error <= 0.05 * value


def test_sobols_factors_by_quadrature():
    """E[(d/dx)²] and E[g²] of one factor, on the smooth side of the kink."""
    a = 1.5
    half = (
        quad(lambda x: ((2 - 4 * x + a) / (1 + a)) ** 2, 0, 0.5)[0]
        + quad(lambda x: ((4 * x - 2 + a) / (1 + a)) ** 2, 0.5, 1)[0]
    )
    known = sobol_g((a, a))
    assert known.effects[(0,)] == pytest.approx(16 / (1 + a) ** 2 * half)


@pytest.mark.parametrize("name", [f"F{number}" for number in range(1, 11)])
def test_the_ten_functions_of_tsang(name):
    known = tsang_functions()[name]
    x = known.inputs(1500, seed=3)
    assert known.function(x).isfinite().all()
    effects = interaction_effects(known.function, x, PAIRS)
    strengths = {pair: effect.value for pair, effect in effects.items()}
    assert pairwise_auc(strengths, known.interacting_pairs()) == pytest.approx(EXPECTED_AUC.get(name, 1.0))
    assert all(strengths[pair] == 0.0 for pair in PAIRS if pair not in known.interacting_pairs())


@pytest.mark.parametrize("name", [f"F{number}" for number in range(1, 11)])
def test_published_interactions_by_differences_of_values(name):
    """Independent of derivatives: f(x) - f(x_i moved) - f(x_j moved) + f(both moved), kinks included."""
    known = tsang_functions()[name]
    x, other = known.inputs(3000, seed=1), known.inputs(3000, seed=2)
    for i, j in PAIRS:
        values = []
        for moved in ((), (i,), (j,), (i, j)):
            point = x.clone()
            point[:, list(moved)] = other[:, list(moved)]
            values.append(known.function(point))
        difference = values[0] - values[1] - values[2] + values[3]
        interacts = bool(difference.abs().max() > 1e-9 * values[0].abs().max())
        assert interacts == ((i, j) in known.interacting_pairs()), (i, j)


TABLE_1 = {
    "F1": "pi**(x1*x2)*sqrt(2*x3) - asin(x4) + log(x3 + x5) - x9/x10*sqrt(x7/x8) - x2*x7",
    "F2": "pi**(x1*x2)*sqrt(2*Abs(x3)) - asin(x4/2) + log(Abs(x3 + x5) + 1)"
    " + x9/(1 + Abs(x10))*sqrt(Abs(x7)/(1 + Abs(x8))) - x2*x7",
    "F3": "exp(Abs(x1 - x2)) + Abs(x2*x3) - (x3**2)**Abs(x4) + log(x4**2 + x5**2 + x7**2 + x8**2) + x9"
    " + 1/(1 + x10**2)",
    "F4": "exp(Abs(x1 - x2)) + Abs(x2*x3) - (x3**2)**Abs(x4) + (x1*x4)**2 + log(x4**2 + x5**2 + x7**2 + x8**2) + x9"
    " + 1/(1 + x10**2)",
    "F5": "1/(1 + x1**2 + x2**2 + x3**2) + sqrt(exp(x4 + x5)) + Abs(x6 + x7) + x8*x9*x10",
    "F6": "exp(Abs(x1*x2) + 1) - exp(Abs(x3 + x4) + 1) + cos(x5 + x6 - x8) + sqrt(x8**2 + x9**2 + x10**2)",
    "F7": "(atan(x1) + atan(x2))**2 + Max(x3*x4 + x6, 0) - 1/(1 + (x4*x5*x6*x7*x8)**2) + (Abs(x7)/(1 + Abs(x9)))**5"
    " + x1 + x2 + x3 + x4 + x5 + x6 + x7 + x8 + x9 + x10",
    "F8": "x1*x2 + 2**(x3 + x5 + x6) + 2**(x3 + x4 + x5 + x7) + sin(x7*sin(x8 + x9)) + acos(9*x10/10)",
    "F9": "tanh(x1*x2 + x3*x4)*sqrt(Abs(x5)) + exp(x5 + x6) + log((x6*x7*x8)**2 + 1) + x9*x10 + 1/(1 + Abs(x10))",
    "F10": "sinh(x1 + x2) + acos(tanh(x3 + x5 + x7)) + cos(x4 + x5) + sec(x7*x9)",
}


@pytest.mark.parametrize("name", TABLE_1)
def test_values_are_those_of_the_printed_formulas(name):
    """As printed in Table 1, evaluated by sympy; and inputs fill their ranges, feature by feature."""
    known = tsang_functions()[name]
    symbols = sympy.symbols("x1:11")
    x = known.inputs(500, seed=4)
    expected = sympy.lambdify(symbols, sympy.sympify(TABLE_1[name]), "numpy")(*x.numpy().T)
    torch.testing.assert_close(known.function(x), torch.from_numpy(expected), rtol=1e-12, atol=1e-12)
    low = [-1.0] * 10 if name != "F1" else [0.6 if feature in (4, 5, 8, 10) else 0.0 for feature in range(1, 11)]
    assert known.low == tuple(low)
    assert known.high == (1.0,) * 10
    span = 1 - x.new_tensor(low)
    assert ((x.min(0).values - x.new_tensor(low)) / span).abs().max() < 0.03, "the smallest of 500: 1/501 in the mean"
    assert ((1 - x.max(0).values) / span).abs().max() < 0.03
    assert (x >= x.new_tensor(low)).all()
    assert (x <= 1).all()
    assert torch.equal(x, known.inputs(500, seed=4))
    assert not torch.equal(x, known.inputs(500))


def test_values_of_ishigamis_and_sobols_functions():
    """By sympy, on the ranges that their effects are over."""
    x1, x2, x3 = symbols = sympy.symbols("x1:4")
    known = ishigami(b=0.3)
    x = known.inputs(50)
    formula = sympy.sin(x1) + 7 * sympy.sin(x2) ** 2 + sympy.Rational(3, 10) * x3**4 * sympy.sin(x1)
    expected = torch.from_numpy(sympy.lambdify(symbols, formula, "numpy")(*x.numpy().T))
    torch.testing.assert_close(known.function(x), expected, rtol=1e-12, atol=1e-12)
    assert known.interacting_pairs() == {(0, 2)}
    assert set(known.effects) == {(0, 1), (0, 2), (1, 2), (0, 1, 2)}
    for group, effect in known.effects.items():
        integral = sympy.diff(formula, *(symbols[i] for i in group)) ** 2
        for symbol in symbols:
            integral = sympy.integrate(integral, (symbol, -sympy.pi, sympy.pi)) / (2 * sympy.pi)
        assert effect == pytest.approx(float(integral), rel=1e-12)
    assert (known.low, known.high) == ((-math.pi,) * 3, (math.pi,) * 3)
    known = sobol_g((0.5, 0.0, 3.0))
    x = known.inputs(50)
    factors = [(abs(4 * s - 2) + a) / (1 + a) for s, a in zip(symbols, (0.5, 0, 3), strict=True)]
    expected = torch.from_numpy(sympy.lambdify(symbols, sympy.prod(factors), "numpy")(*x.numpy().T))
    torch.testing.assert_close(known.function(x), expected, rtol=1e-12, atol=1e-12)
    assert known.interacting_pairs() == {(0, 1), (0, 2), (1, 2)}
    assert (known.low, known.high) == ((0.0,) * 3, (1.0,) * 3)
    for group, effect in known.effects.items():  # E over each factor, or over its derivative, exactly
        parts = []
        for i, (factor, symbol) in enumerate(zip(factors, symbols, strict=True)):
            upper = factor.subs(abs(4 * symbol - 2), 4 * symbol - 2)  # symmetric about 1/2
            integrand = sympy.diff(upper, symbol) ** 2 if i in group else upper**2
            parts.append(2 * sympy.integrate(integrand, (symbol, sympy.Rational(1, 2), 1)))
        assert effect == pytest.approx(float(sympy.prod(parts)), rel=1e-12)


def test_area_under_the_curve():
    interacting = frozenset({(0, 1), (0, 2)})
    assert pairwise_auc({(0, 1): 0.0, (0, 2): 0.0, (1, 2): 0.0}, interacting) == 0.5
    assert pairwise_auc({(0, 1): 0.0, (0, 2): 0.0, (1, 2): 1.0}, interacting) == 0.0
    assert pairwise_auc({(0, 1): 2.0, (0, 2): 0.5, (1, 2): 1.0}, interacting) == 0.5
    with pytest.raises(ValueError, match="pairs that do not"):
        pairwise_auc({(0, 1): 1.0}, interacting)


def network(activation: nn.Module, *, last: nn.Module | None = None) -> nn.Module:
    layers = [nn.Linear(4, 16), activation, nn.Linear(16, 16), activation, nn.Linear(16, 1), nn.Flatten(0)]
    return nn.Sequential(*layers, *([last] if last else []))


def test_networks_with_kinks_are_refused_and_smooth_ones_are_not():
    x = torch.randn(20, 4)
    for kinked in (network(nn.ReLU()), network(nn.LeakyReLU()), network(nn.ReLU(), last=nn.Sigmoid())):
        with pytest.raises(ValueError, match="smooth activation such as GELU"):
            interaction_effects(kinked, x, [(0, 1)])
    hidden = network(nn.ReLU())
    with pytest.raises(ValueError, match="smooth activation such as GELU"):
        interaction_effects(lambda x: hidden(x), x, [(0, 1)])
    for smooth in (network(nn.GELU()), network(nn.Softplus()), network(nn.Tanh())):
        assert interaction_effects(smooth, x, [(0, 1)])[(0, 1)].value > 0
    assert mixed_partials(network(nn.ReLU()), x, [0]).abs().sum() > 0, "a first derivative needs no second"


@pytest.mark.slow
def test_a_trained_network_finds_the_pairs_of_f8():
    """One function of `experiments/tsang_networks.py`; its table has all ten."""
    from tsang_networks import areas, trained_network

    known = tsang_functions()["F10"]
    model, r2 = trained_network(known, seed=0, epochs=60)
    assert r2 > 0.99
    (alone,), crossed = areas(known, [model], num_inputs=3000)
    assert alone == crossed
    assert alone > 0.93
