"""Published yardsticks: estimates against closed forms, and pairs of features against published interactions."""

from itertools import combinations

import pytest
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
