import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import large_weights
from torch import nn

from horinsight import GnConv, create_model, explicit_operators, interaction_spectrum, model_interaction_spectra
from horinsight.interaction.gnconv_effect import closed_form_of
from horinsight.interaction.nested_derivative import dense_derivatives, mixed_derivatives, receptive_field

KINDS = {
    "7x7": {"kernel_size": 7},
    "3x3": {"kernel_size": 3},
    "pool": {"depthwise": "pool", "kernel_size": 3},
    "gf": {"depthwise": "gf", "gf_size": (5, 3)},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [(5, 6), (9, 9)])
def test_equals_nested_derivatives_entry_by_entry(kind, order, size):
    operator = large_weights(GnConv(32, order, scale=0.7, **KINDS[kind]).double())
    x = torch.randn(2, 32, *size, dtype=torch.float64)
    image = torch.tensor([0, 1, 1, 0, 1])
    K, num_cells = order + 1, size[0] * size[1]
    form = closed_form_of(operator, x, explicit=True)
    i = torch.tensor([0, num_cells - 1, num_cells // 2, 3, num_cells // 3])
    with explicit_operators():
        fields = receptive_field(operator, x[image], i, torch.randn(5, 32, dtype=torch.float64))
    assert torch.equal(form.field(i, size), fields)
    keys = torch.rand(5, num_cells) + fields
    keys[torch.arange(5), i] = 9
    cells = keys.argsort(dim=1, descending=True)[:, : K + 1]
    directions = torch.randn(5, K + 1, 32, dtype=torch.float64)
    dense = torch.randn(5, K + 1, 32, *size, dtype=torch.float64)
    D, D_dense = form.mixed(x, cells, directions, image=image), form.dense(x, i, dense, image=image)
    assert (D[:, order + 1 :] == 0).all()
    assert (D_dense[:, order + 1 :] == 0).all()
    for c in (0, 13, 31):  # single output channels
        u = torch.zeros(5, 32, dtype=torch.float64)
        u[:, c] = 1
        with explicit_operators():
            nested = mixed_derivatives(operator, x[image], cells, directions, u)
            nested_dense = dense_derivatives(operator, x[image], i, dense, u)
        for found, expected in [(D[..., c], nested), (D_dense[..., c], nested_dense)]:
            # rounding of sums of up to 2^6 products, relative to the largest entry of the order
            scale = expected[:, : order + 1].abs().amax(0)
            assert ((found - expected)[:, : order + 1].abs() <= 1e-11 * scale).all()


@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    half_kernel=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    pool=st.booleans(),
)
@settings(deadline=None, max_examples=40)
def test_windows_of_any_kernel_on_any_map(size, half_kernel, dilation, pool):
    """One chain at a time, where f is computed on its window alone, at every cell: values, field and responses."""
    kernel_size = (2 * half_kernel[0] + 1, 2 * half_kernel[1] + 1)

    def depthwise(dim: int) -> nn.Module:
        if pool:
            return nn.AvgPool2d(kernel_size, stride=1, padding=half_kernel, count_include_pad=False)
        padding = (half_kernel[0] * dilation[0], half_kernel[1] * dilation[1])
        return nn.Conv2d(dim, dim, kernel_size, padding=padding, dilation=dilation, groups=dim)

    operator = large_weights(GnConv(4, 2, depthwise=depthwise).double())
    x = torch.randn(1, 4, *size, dtype=torch.float64)
    form = closed_form_of(operator, x, explicit=True)
    image = torch.zeros(1, dtype=torch.long)
    with torch.no_grad():
        output = operator(x).flatten(2)[0].T
    jacobian = torch.func.jacrev(lambda z: operator(z).flatten(2)[0].T)(x)[:, :, 0].flatten(3)  # (i, c', c, j)
    num_cells = len(output)
    for i in range(num_cells):
        value = form.value(x, image, torch.tensor([i]))[0]
        torch.testing.assert_close(value, output[i], rtol=1e-11, atol=1e-11)  # rounding of sums of up to 49 products
    every = torch.arange(num_cells)
    field = form.field(every, size)
    assert torch.equal(field, (jacobian != 0).any(1).any(1))
    if num_cells == 1:
        return
    pairs = torch.cartesian_prod(every, every)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    v = torch.randn(4, dtype=torch.float64)
    D = form.mixed(x, pairs, v.expand(len(pairs), 2, 4), image=image.expand(len(pairs)))
    torch.testing.assert_close(D[:, 0], jacobian[pairs[:, 0], :, :, pairs[:, 0]] @ v)
    assert torch.equal((D[:, 1] != 0).any(1), field[pairs[:, 0], pairs[:, 1]])


def test_its_derivatives_are_tensors_like_any_other():
    operator, x = GnConv(8, 2), torch.randn(1, 8, 5, 5)
    form = closed_form_of(operator, x, explicit=True)
    D = form.mixed(x, torch.tensor([[12, 13]]), torch.randn(1, 2, 8))
    weight = torch.ones(8, requires_grad=True)
    (D * weight).sum().backward()
    assert torch.equal(weight.grad, D.sum((0, 1)))


class LookAlike(nn.Module):
    """mmpretrain's spelling, no scale, dilated."""

    def __init__(self, gate=lambda p: p) -> None:
        super().__init__()
        self.proj_in = nn.Conv2d(8, 16, 1, bias=False)
        self.dwconv = nn.Conv2d(12, 12, 3, padding=2, dilation=2, groups=12)
        self.projs = nn.ModuleList([nn.Conv2d(4, 8, 1)])
        self.proj_out = nn.Conv2d(8, 8, 1)
        self.gate = gate

    def forward(self, x):
        p, q = self.proj_in(x).split([4, 12], dim=1)
        f = self.dwconv(q).split([4, 8], dim=1)
        return self.proj_out(self.projs[0](p * f[0]) * self.gate(f[1]))


def test_look_alikes_have_a_closed_form_if_they_compute_the_same():
    x = torch.randn(2, 8, 7, 7)
    same = large_weights(LookAlike())
    assert closed_form_of(same, x, explicit=True) is not None
    spectrum = interaction_spectrum(same, x, max_order=4, num_tuples=4)
    assert spectrum.convention["estimator"] == "closed form"
    assert spectrum.location_order == spectrum.degree_order == 2


def test_look_alikes_that_compute_something_else_do_not():
    x = torch.randn(2, 8, 7, 7)
    other = large_weights(LookAlike(gate=lambda p: p * p))
    assert closed_form_of(other, x, explicit=True) is None
    spectrum = interaction_spectrum(other, x, max_order=5, num_tuples=4)
    assert spectrum.convention["estimator"].startswith("nested")
    assert spectrum.location_order == spectrum.degree_order == 3
    with pytest.raises(ValueError, match="LookAlike has no closed form here"):
        interaction_spectrum(other, x, max_order=5, num_tuples=4, method="closed_form")


def test_a_nearly_linear_activation_is_not_taken_for_none():
    """tanh of tiny features equals them to rounding, and still gives every order when it is left as it is."""
    x = torch.randn(1, 8, 5, 5, dtype=torch.float64)
    operator = large_weights(LookAlike(gate=torch.tanh).double(), std=1e-3)
    functional = interaction_spectrum(operator, x, max_order=4, num_tuples=8, explicit=False)  # few cells see four
    assert (functional.location_order, functional.at_least) == (None, 4)
    explicit = interaction_spectrum(operator, x, max_order=4, num_tuples=2)
    assert explicit.location_order == 2, "its tangent is linear"


@pytest.mark.parametrize(
    "operator",
    [
        nn.Conv2d(8, 8, 3, padding=1),
        lambda x: x,
        GnConv(8, 2, depthwise=lambda dim: nn.Conv2d(dim, dim, 3, padding=1, groups=dim, padding_mode="circular")),
        GnConv(8, 2, depthwise=lambda dim: nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1, groups=dim), nn.GELU())),
    ],
)
def test_other_operators_have_none(operator):
    assert closed_form_of(operator, torch.randn(1, 8, 6, 6), explicit=True) is None


def test_gf_has_one_only_with_tangents():
    operator = GnConv(8, 2, depthwise="gf")
    x = torch.randn(1, 8, 6, 6)
    assert closed_form_of(operator, x, explicit=True) is not None
    assert closed_form_of(operator, x, explicit=False) is None


class HandWrittenNorm(nn.Module):
    """A channels-first LayerNorm in primitive operations, as the published code has it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim)), 1e-6

    def forward(self, x):
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


def test_the_published_gf_with_its_hand_written_norms():
    """Its norms are products of roots and quotients; as the tangents that they are declared to be, the order is n."""
    operator, copied = GnConv(8, 2, depthwise="gf", gf_size=(5, 3)), GnConv(8, 2, depthwise="gf", gf_size=(5, 3))
    copied.dwconv.pre_norm, copied.dwconv.post_norm = HandWrittenNorm(12), HandWrittenNorm(12)
    copied.load_state_dict(operator.state_dict())
    x = torch.randn(2, 8, 5, 5)
    spectra = [interaction_spectrum(module, x, max_order=4, num_tuples=4) for module in (operator, copied)]
    assert [s.location_order for s in spectra] == [s.degree_order for s in spectra] == [2, 2]
    np.testing.assert_allclose(spectra[0].effects, spectra[1].effects, rtol=1e-3)


@pytest.mark.parametrize("kind", ["3x3", "gf"])
def test_both_methods_estimate_the_same_effects(kind):
    operator = large_weights(GnConv(8, 2, **KINDS[kind]).double())
    x = torch.randn(2, 8, 5, 5, dtype=torch.float64)
    options = {"max_order": 3, "num_tuples": 600, "batch_size": 600}
    closed, nested = (interaction_spectrum(operator, x, method=m, **options) for m in ("closed_form", "nested"))
    assert closed.location_order == nested.location_order == 2
    for k in range(3):
        # the 95 % intervals of two estimates of one number overlap but for about 0.6 % of the cases
        assert closed.ci_low[k] <= nested.ci_high[k]
        assert nested.ci_low[k] <= closed.ci_high[k]
    assert (closed.effects[3], nested.effects[3]) == (0, 0)


def test_whole_models_use_it_and_agree_with_nesting():
    model = create_model("hornet_test_gf")
    images = torch.randn(2, 3, 96, 96)
    closed = model_interaction_spectra(model, images, num_tuples=4)
    nested = model_interaction_spectra(model, images, num_tuples=4, method="nested")
    for name, spectrum in closed.items():
        assert spectrum.convention["estimator"] == "closed form"
        assert spectrum.location_order == nested[name].location_order
        np.testing.assert_array_equal(spectrum.exact_zero, nested[name].exact_zero)


def test_the_module_is_not_changed():
    operator = GnConv(16, 3, depthwise="gf").train()
    before = copy.deepcopy(operator.state_dict())
    interaction_spectrum(operator, torch.randn(1, 16, 6, 6), max_order=4, num_tuples=2)
    assert operator.training
    assert all(torch.equal(value, before[key]) for key, value in operator.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in operator.parameters())
