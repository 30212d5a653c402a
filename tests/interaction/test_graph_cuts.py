"""A derivative that silently stops is told by differences of values, and refused."""

import pytest
import torch
from torch import nn

from horinsight import GnConv, create_model, interaction_effects, interaction_spectrum, model_interaction_spectra
from horinsight.interaction.graph_cuts import graph_cuts


def pooled(x):
    return x.mean((2, 3), keepdim=True)


def detached(x):
    return x * pooled(x).detach()


def by_data(x):
    return x * pooled(x).data


def without_gradients(x):
    with torch.no_grad():
        gate = pooled(x).sigmoid()
    return x * gate


def through_numpy(x):
    return x * torch.from_numpy(pooled(x).detach().numpy().copy())


def by_numbers(x):
    gate = x.new_tensor([float(value) for value in pooled(x.detach()).flatten()])
    return x * gate.view(len(x), -1, 1, 1)


CUT = {
    "detach": (detached, "detach"),
    ".data": (by_data, r"\.data"),
    "no_grad": (without_gradients, "mean under torch.no_grad"),
    "numpy": (through_numpy, "detach"),
    "numbers": (by_numbers, "detach"),
}


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CUT)
def test_a_gate_that_autograd_does_not_see_is_refused(name, dtype, explicit):
    operator, words = CUT[name]
    x = torch.randn(2, 4, 5, 5, dtype=dtype) + 0.5
    with pytest.raises(ValueError, match=rf"by way of .*{words}.*gives no gradient"):
        interaction_spectrum(operator, x, max_order=2, num_tuples=4, explicit=explicit)


def test_functions_without_a_derivative_are_told_on_every_release():
    """Whether torch differentiates a Bessel function depends on its release: an order is named, or the function is."""

    def gated(x):
        return x * torch.special.bessel_j0(2 * pooled(x))

    x = torch.randn(1, 4, 5, 5, dtype=torch.float64) + 0.5
    if torch.special.bessel_j0(x.clone().requires_grad_()).requires_grad:
        assert interaction_spectrum(gated, x, max_order=2, num_tuples=4).location_order is None
    else:
        with pytest.raises(ValueError, match="special_bessel_j0"):
            interaction_spectrum(gated, x, max_order=2, num_tuples=4)


def test_cuts_that_change_nothing_are_none():
    class Logged(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GnConv(8, order=2)
            self.register_buffer("seen", torch.zeros(8))

        def forward(self, x):
            with torch.no_grad():
                self.seen = x.mean((0, 2, 3))  # only looked at
            return self.conv(x + torch.zeros_like(x)) + 0 * x.detach()

    x = torch.randn(2, 8, 6, 6)
    spectrum = interaction_spectrum(Logged(), x, max_order=3, num_tuples=4, method="nested")
    assert (spectrum.location_order, spectrum.degree_order) == (2, 2)
    assert graph_cuts(lambda x: torch.relu(x) + x.round(), x) == ()  # differentiated, if only to 0
    weight = torch.ones(1, dtype=torch.float64)
    assert graph_cuts(lambda x: x * weight.to(x) + weight.type_as(x).expand_as(x), x) == ()  # of x, only the dtype


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_cut_whose_value_drops_out_is_none(scale, dtype):
    """The maximum that a hand-written softmax takes off, and what is added and taken away again."""

    def operator(x):
        z = x.flatten(2)
        e = (z - z.amax(-1, keepdim=True).detach()).exp()
        return x * (e / e.sum(-1, keepdim=True)).view_as(x) + (x - x).detach()

    assert graph_cuts(operator, scale * torch.randn(1, 4, 6, 6, dtype=dtype)) == ()


def test_however_little_a_cut_does():
    x = torch.randn(1, 4, 14, 14)
    assert graph_cuts(lambda x: x * (1 + 3e-2 * pooled(x).detach()), x) == ("detach",)
    assert graph_cuts(lambda x: x * (1 + 1e-9 * pooled(x).detach()), x.double()) == ("detach",)


def test_plain_functions_are_refused_as_well():
    x = torch.rand(20, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="detach"):
        interaction_effects(lambda x: x[:, 0] * x[:, 1].detach(), x, [(0, 1)])


def test_known_networks_have_none():
    for name in ("hornet_test_gf", "test_vit", "test_convnext2"):
        model = create_model(name)
        spectra = model_interaction_spectra(
            model, torch.randn(1, 3, *(96, 96) if "hornet" in name else (160, 160)),
            blocks=[1], max_order=1, num_tuples=1, method="nested", scope="block",
        )  # fmt: skip
        assert len(spectra) == 1
