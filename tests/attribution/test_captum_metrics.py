"""captum's two numbers where they have a closed form: on a linear model, and from what a method was shown."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from horinsight.attribution.captum_metrics import CaptumSettings, captum_scores

EPS = np.finfo(np.float64).eps


class Linear(nn.Module):
    """Weights for each pixel of two classes, float64."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(2, 3, height, width, generator=generator, dtype=torch.float64)
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return (x[:, None] * self.weight).sum((2, 3, 4))


def logit(logits: Tensor, targets: Tensor) -> Tensor:
    return logits[torch.arange(len(logits)), targets]


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def model() -> Linear:
    return Linear(9, 8).eval()


def test_a_zero_map_scores_the_squared_differences(model):
    """8x8 squares have two places in 9x8 pixels: the mean is k of one and 64 - k of the other, k whole."""
    images, targets = drawn(2, 3, 9, 8), torch.tensor([0, 1])
    reference = torch.full((3, 1, 1), 0.3, dtype=torch.float64)
    settings = CaptumSettings(square=8, num_squares=64, num_draws=0, batch_size=7)
    zero = {"zero": (lambda x, t: torch.zeros(len(x), 3, 4), "gradient")}
    found = captum_scores(model, images, targets, zero, reference=reference, score=logit, settings=settings)
    for index in range(2):
        worth = (model.weight[targets[index]].detach() * (images[index] - 0.3)).sum(0)
        upper, lower = float(worth[:8].sum()) ** 2, float(worth[1:].sum()) ** 2
        k = (found.zero_infidelities[index] - lower) / (upper - lower) * 64
        rounding = 64 * 64 * 200 * EPS * float(worth.abs().sum()) ** 2 / abs(upper - lower)
        assert k == pytest.approx(round(k), rel=0, abs=rounding)
        assert 16 <= round(k) <= 48  # each place about as often as the other: 32 ± 4 standard errors
    np.testing.assert_array_equal(found.infidelities[0], found.zero_infidelities)
    np.testing.assert_allclose(found.scaled[0], found.zero_infidelities, rtol=1e-12)  # the same squares
    assert np.isnan(found.sensitivities).all()


def test_the_right_map_has_none_in_its_unit(model):
    images, targets, reference = drawn(2, 3, 9, 8), torch.tensor([0, 1]), drawn(3, 9, 8) + 5
    with torch.no_grad():
        model.weight[:] = model.weight[:, :1]  # the same in all channels: a map without channels can say it

    def gradient(x: Tensor, t: Tensor) -> Tensor:
        x.requires_grad_()
        return torch.autograd.grad(logit(model(x), t).sum(), x)[0].sum(1)

    def multiplied(x: Tensor, t: Tensor) -> Tensor:
        return gradient(x, t) / 3 * (x - reference).sum(1)

    methods = {
        "gradient": (gradient, "gradient"),
        "multiplied": (multiplied, "multiplied"),
        "twice": (lambda x, t: 2 * gradient(x, t), "gradient"),
        "wrong unit": (multiplied, "gradient"),
    }
    settings = CaptumSettings(square=3, num_squares=20, num_draws=0)
    found = captum_scores(model, images, targets, methods, reference=reference, score=logit, settings=settings)
    nothing = 1e4 * EPS * found.zero_infidelities.max()
    assert found.infidelities[:2].max() < nothing
    np.testing.assert_allclose(found.infidelities[2], found.zero_infidelities, rtol=1e-10)  # off by as much
    assert found.scaled[:3].max() < nothing
    assert (found.infidelities[3] > 10 * found.zero_infidelities).all()
    assert (found.scaled[3] <= found.zero_infidelities * (1 + 1e-10)).all()
    assert found.over_zero("gradient").value == pytest.approx(-found.zero_infidelities.mean(), rel=1e-10)
    frame = found.to_frame().set_index("map")
    assert frame.loc["zero", "infidelity"] == found.zero_infidelities.mean()
    assert frame.loc["zero", "sensitivity"] == 0


def test_sensitivity_is_the_largest_relative_change(model):
    images, targets = drawn(2, 3, 9, 8), torch.tensor([0, 1])
    shown: list[Tensor] = []

    def square(x: Tensor, t: Tensor) -> Tensor:
        shown.append(x.clone())
        return x.square().sum(1)

    settings = CaptumSettings(square=2, num_squares=1, num_draws=6, radius=0.1, batch_size=4)
    methods = {"square": (square, "gradient"), "same": (lambda x, t: torch.ones(len(x), 9, 8), "gradient")}
    found = captum_scores(model, images, targets, methods, reference=torch.zeros(3, 1, 1), settings=settings)
    for index in range(2):
        whole = images[index].square().sum(0)
        moved = [one for one in torch.cat(shown) if 0 < float((one - images[index]).abs().max()) <= 0.1]
        assert len(moved) == 6
        changes = [float((one.square().sum(0) - whole).norm() / whole.norm()) for one in moved]
        assert found.sensitivities[0, index] == pytest.approx(max(changes), rel=1e-12)
    assert found.sensitivities[1].tolist() == [0, 0]


def test_what_does_not_fit(model):
    images, targets = drawn(1, 3, 9, 8), torch.tensor([0])
    with pytest.raises(ValueError, match="at most 8 pixels, got 9"):
        captum_scores(model, images, targets, {}, reference=torch.zeros(3, 1, 1), settings=CaptumSettings(square=9))
    with pytest.raises(ValueError, match="'gradient' or 'multiplied', got 'pixels'"):
        captum_scores(model, images, targets, {"m": (lambda x, t: x.sum(1), "pixels")}, reference=torch.zeros(3, 1, 1))
    with pytest.raises(ValueError, match="radius expects a number above 0"):
        CaptumSettings(radius=0)
