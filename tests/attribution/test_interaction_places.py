"""Interactions by place against every tuple of neighbours, from dense derivatives in float64."""

from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from horinsight import GnConv
from horinsight.attribution.attribution_results import InteractionPlaces
from horinsight.attribution.interaction_places import interaction_places
from horinsight.results import load_result

COPIES = 1000  # of one operating point: draws side by side


def dense_places(operator, x: Tensor, cell: int, sigma: Tensor, order: int) -> Tensor:
    """M_k(j) from the (k + 1)-th derivatives with respect to all positions and channels at once."""
    C, P = x.shape[1], x[0, 0].numel()

    def at(flat: Tensor) -> Tensor:
        return operator(flat.view(1, C, *x.shape[2:]))[0].flatten(1)[:, cell]

    def own(flat: Tensor) -> Tensor:  # (C', C): along the position itself
        return torch.func.jacrev(at)(flat).unflatten(1, (C, P))[:, :, cell]

    derivative = own
    for _ in range(order):
        derivative = torch.func.jacfwd(derivative)
    squares = derivative(x.flatten()).square()  # (C', C, C P, ...)
    squares = (squares.movedim(1, -1) * sigma.square()).sum(-1).mean(0)
    for _ in range(order):  # each time the next axis of channels and positions; positions go last
        squares = (squares.unflatten(0, (C, P)).movedim(0, -1) * sigma.square()).sum(-1).movedim(0, -1)
    field = torch.func.jacrev(at)(x.flatten()).unflatten(1, (C, P)).abs().sum((0, 1)) > 0
    inside = [j for j in range(P) if field[j] and j != cell]
    found = torch.zeros(P, dtype=x.dtype)
    for j in inside:
        others = list(permutations([o for o in inside if o != j], order - 1))
        values = [squares[(j, *tuple_of)] for tuple_of in others]
        found[j] = torch.stack(values).mean() if values else 0.0
    return found


def estimated(operator, x: Tensor, query: tuple[int, int], sigma: Tensor, order: int, orderings: int):
    many = x.expand(COPIES, -1, -1, -1)
    found = interaction_places(operator, many, query, order=order, num_orderings=orderings, sigma=sigma)
    squares = found.squares.reshape(COPIES, -1)
    total = squares.sum(1)
    return squares.mean(0), squares.std(0) / COPIES**0.5, total.mean(), total.std() / COPIES**0.5


CASES = {
    "pairs, all in the field": (3, (3, 3), (1, 1), 1, 24),
    "triples, all in the field": (3, (3, 3), (1, 1), 2, 32),
    "a corner with three neighbours": (3, (4, 4), (0, 0), 2, 32),
    "three at a corner that has three": (3, (3, 3), (0, 0), 3, 32),
    "an edge": (2, (3, 4), (0, 1), 2, 32),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_every_tuple_of_neighbours(case):
    n, size, query, order, orderings = CASES[case]
    torch.manual_seed(0)
    layer = GnConv(4, n, kernel_size=3).double().requires_grad_(False)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.7)
    x = torch.randn(1, 4, *size, dtype=torch.float64)
    sigma = torch.tensor([1.0, 0.5, 2.0, 0.1], dtype=torch.float64)
    expected = dense_places(layer, x, query[0] * size[1] + query[1], sigma, order).numpy()
    mean, error, total, total_error = estimated(layer, x, query, sigma, order, orderings)
    assert (expected > 0).sum() >= 3
    assert np.array_equal(mean > 0, expected > 0), "zeros are exact"
    kept = expected > 0
    # 1000 independent means of heavy-tailed squares each: of the t statistics none of up to 8 lies beyond 4.5
    assert (np.abs(mean - expected)[kept] < 4.5 * error[kept]).all()
    assert abs(total - expected.sum()) < 4 * total_error
    assert total_error < 0.025 * expected.sum(), "so that a tenth too much would be seen"


def test_neighbours_are_told_apart():
    """One neighbour interacts with the middle and another: their product, whatever the rest is."""

    class Product(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            left, up = x.roll(1, 3), x.roll(1, 2)
            return x * left * up + x.roll(-1, 3)

    x = torch.randn(1, 1, 3, 3, dtype=torch.float64)
    found = interaction_places(Product(), x, (1, 1), order=2, num_orderings=32, sigma=torch.ones(1))
    # M_2(left) = E(d_i d_left d_up)^2 over the two other neighbours of the field, of which one is up
    assert found.squares[0, 1, 0] > 0
    assert found.squares[0, 0, 1] > 0
    others = np.ones((3, 3), bool)
    others[1, 0] = others[0, 1] = False
    assert (found.squares[0][others] == 0).all()
    expected = dense_places(Product(), x, 4, torch.ones(1).double(), 2)
    assert float(expected[3]) == pytest.approx(0.5)


def test_beyond_the_order_nothing_takes_part_and_tangents_count_once():
    torch.manual_seed(0)
    layer = nn.Sequential(nn.GELU(), GnConv(8, 2, kernel_size=3)).double()
    x = torch.randn(1, 8, 4, 4, dtype=torch.float64)
    explicit = interaction_places(layer, x, (1, 1), order=3, num_orderings=2)
    assert not explicit.squares.any()
    assert interaction_places(layer, x, (1, 1), order=2, num_orderings=2).squares.any()
    functional = interaction_places(
        nn.Sequential(layer, nn.GELU()), x, (1, 1), order=3, num_orderings=2, explicit=False
    )
    assert functional.squares.any()


def test_is_reproducible_leaves_random_numbers_and_is_kept(tmp_path):
    layer, x = GnConv(8, 2, kernel_size=3), torch.randn(1, 8, 4, 4)
    state = torch.random.get_rng_state()
    first, second = (interaction_places(layer, x, (1, 1), num_orderings=2, seed=3) for _ in range(2))
    assert first == second
    assert torch.equal(state, torch.random.get_rng_state())
    assert first != interaction_places(layer, x, (1, 1), num_orderings=2, seed=4)
    first.save(tmp_path / "places.npz")
    assert load_result(InteractionPlaces, tmp_path / "places.npz") == first
    assert len(first.to_frame()) == 16
    assert np.isnan(interaction_places(layer, x, (1, 1), num_orderings=1).standard_errors).all()


def test_channels_last_maps():
    layer = GnConv(8, 2, kernel_size=3)
    x = torch.randn(1, 8, 4, 5)
    last = interaction_places(
        lambda y: layer(y.movedim(-1, 1)).movedim(1, -1), x.movedim(1, -1), (1, 2), layout="channels_last"
    )
    first = interaction_places(layer, x, (1, 2))
    np.testing.assert_allclose(last.squares, first.squares, rtol=1e-4)


def test_tokens_of_a_map_and_those_before_it():
    layer, x = GnConv(8, 2, kernel_size=3).double(), torch.randn(1, 8, 4, 5).double()

    def tokens(y: Tensor) -> Tensor:
        maps = layer(y[:, 2:].transpose(1, 2).unflatten(2, (4, 5)))
        return torch.cat([y[:, :2], maps.flatten(2).transpose(1, 2) + y[:, :1] ** 3], 1)

    y = torch.cat([torch.randn(1, 2, 8).double(), x.flatten(2).transpose(1, 2)], 1)
    options = {"order": 2, "num_orderings": 400}
    found = interaction_places(tokens, y, (1, 2), grid=(4, 5), **options)
    expected = interaction_places(layer, x, (1, 2), **options)
    assert found.squares.shape == (1, 4, 5)
    assert np.array_equal(found.squares > 0, expected.squares > 0)
    kept = expected.squares > 0  # others are drawn: the tokens before are in the shuffle
    error = np.hypot(found.standard_errors, expected.standard_errors)
    assert (np.abs(found.squares - expected.squares)[kept] < 4.5 * error[kept]).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"order": 0}, "order expects a whole number of at least 1, got 0"),
        ({"num_orderings": 0}, "num_orderings expects"),
        ({"query": (4, 0)}, "position on the map of 4x4, counted from 0, got"),
        ({"query": (-1, 0)}, "got .-1, 0"),
        ({"query": (0,)}, "query expects"),
    ],
)
def test_bad_input_is_one_line(options, said):
    with pytest.raises(ValueError, match=said) as error:
        interaction_places(GnConv(8, 2), torch.randn(1, 8, 4, 4), **{"query": (0, 0), **options})
    assert "\n" not in str(error.value)
