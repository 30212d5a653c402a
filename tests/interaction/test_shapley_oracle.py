"""An independent oracle: shapiq's exact Möbius transform of the game in which the tokens of a map are masked."""

import numpy as np
import pytest
import torch
from shapiq.game_theory import ExactComputer

from horinsight import GnConv, interaction_spectrum


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_largest_interaction_among_masked_tokens_has_order_plus_one_of_them(order):
    """A polynomial of degree n + 1 in the tokens has no Möbius coefficient on more than n + 1 of them.

    9 players, 512 coalitions, float64. Each coefficient is a signed sum of at most 512 values, whose rounding is below
    512 ε of the largest; what is above 1e-11 of it is there.
    """
    torch.manual_seed(order)
    operator = GnConv(8, order, kernel_size=3).double()
    x, u = torch.randn(1, 8, 3, 3, dtype=torch.float64), torch.randn(8, dtype=torch.float64)

    def output_at_the_centre(coalitions: np.ndarray) -> np.ndarray:
        kept = torch.from_numpy(np.asarray(coalitions, dtype=float)).reshape(-1, 1, 3, 3)
        with torch.no_grad():
            return (operator(x * kept)[:, :, 1, 1] @ u).numpy()

    coefficients = ExactComputer(output_at_the_centre, n_players=9)("Moebius", order=9)
    largest = dict.fromkeys(range(10), 0.0)
    for tokens, position in coefficients.interaction_lookup.items():
        largest[len(tokens)] = max(largest[len(tokens)], abs(coefficients.values[position]))
    threshold = 1e-11 * max(largest.values())
    assert [size for size, value in largest.items() if value > threshold] == list(range(order + 2))
    assert interaction_spectrum(operator, x, max_order=order + 2).location_order == order
