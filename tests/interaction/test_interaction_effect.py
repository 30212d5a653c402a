import copy

import numpy as np
import oracles
import pytest
import torch
import torchvision
from oracles import large_weights
from torch import nn

from horinsight import GnConv, explicit_operators, interaction_spectrum
from horinsight.interaction.nested_derivative import dense_derivatives, mixed_derivatives, receptive_field
from horinsight.models.hornet import HorNetBlock

KINDS = {
    "7x7": {"kernel_size": 7},
    "3x3": {"kernel_size": 3},
    "pool": {"depthwise": "pool", "kernel_size": 3},
    "gf": {"depthwise": "gf", "gf_size": (5, 3)},
}


def chains(num: int, num_cells: int, length: int, channels: int):
    cells = torch.stack([torch.randperm(num_cells)[:length] for _ in range(num)])
    return cells, torch.randn(num, length, channels, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["7x7", "3x3", "pool"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_nested_reverse_mode_forward_mode_and_differences_agree(kind, order):
    operator = large_weights(GnConv(8, order, **KINDS[kind]).double())
    x = torch.randn(3, 8, 4, 4, dtype=torch.float64)
    cells, directions = chains(3, 16, order + 2, 8)
    cotangents = torch.randn(3, 8, dtype=torch.float64)
    found = mixed_derivatives(operator, x, cells, directions, cotangents).numpy()
    scale = np.abs(found).max(axis=0, keepdims=True)
    np.testing.assert_allclose(found, oracles.nested_jvp(operator, x, cells, directions, cotangents), rtol=1e-10)
    differences = oracles.mixed_differences(operator, x, cells, directions, cotangents)
    np.testing.assert_allclose(found, differences, rtol=0, atol=1e-7 * max(scale.max(), 1.0))
    assert (found[:, order + 1] == 0.0).all(), "beyond the order: 0.0 bit for bit"


@pytest.mark.parametrize("order", [1, 2])
def test_gf_with_frozen_norms_by_dense_jacobians(order):
    operator = large_weights(GnConv(8, order, **KINDS["gf"]).double())
    x = torch.randn(2, 8, 5, 4, dtype=torch.float64)
    cells, directions = chains(2, 20, order + 2, 8)
    cotangents = torch.randn(2, 8, dtype=torch.float64)
    with explicit_operators():
        found = mixed_derivatives(operator, x, cells, directions, cotangents).numpy()

    frozen = copy.deepcopy(operator)
    recorded = {}
    for name in ("pre_norm", "post_norm"):
        getattr(operator.dwconv, name).register_forward_pre_hook(
            lambda module, inputs, name=name: recorded.__setitem__(name, inputs[0].detach())
        )
    operator(x)
    for name, z in recorded.items():
        setattr(frozen.dwconv, name, oracles.TangentNorm(getattr(operator.dwconv, name), z))
    torch.testing.assert_close(frozen(x), operator(x))
    expected = oracles.nested_jvp(frozen, x, cells, directions, cotangents)
    np.testing.assert_allclose(found[:, : order + 1], expected[:, : order + 1], rtol=1e-8)
    differences = oracles.mixed_differences(frozen, x, cells, directions, cotangents)
    np.testing.assert_allclose(found, differences, rtol=0, atol=1e-7 * max(np.abs(found).max(), 1.0))
    assert (found[:, order + 1] == 0.0).all()


def test_dense_derivatives_of_a_known_polynomial():
    """F = (x ⊙ x) ⊙ x, cell by cell: along v, w, z the third derivative is 6 v w z."""
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    directions = torch.randn(2, 4, 3, 2, 2, dtype=torch.float64)
    cotangents = torch.randn(2, 3, dtype=torch.float64)
    cells = torch.tensor([0, 3])
    found = dense_derivatives(lambda z: z**3, x, cells, directions, cotangents)
    at = [torch.stack([part[n].flatten(1)[:, cells[n]] for n in range(2)]) for part in directions.unbind(1)]
    z = torch.stack([x[n].flatten(1)[:, cells[n]] for n in range(2)])
    torch.testing.assert_close(found[:, 0], (3 * z**2 * at[0] * cotangents).sum(1))
    torch.testing.assert_close(found[:, 2], (6 * at[0] * at[1] * at[2] * cotangents).sum(1))
    assert (found[:, 3] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("weights", ["initial", "large"])
@pytest.mark.parametrize("method", ["nested", "closed_form"])
def test_the_order_of_gnconv_is_n(kind, order, dtype, weights, method):
    operator = GnConv(32, order, **KINDS[kind]).to(dtype)
    if weights == "large":
        large_weights(operator)
    x = torch.randn(1, 32, 5, 5, dtype=dtype)
    spectrum = interaction_spectrum(operator, x, max_order=order + 2, num_tuples=3, method=method)
    assert (spectrum.location_order, spectrum.degree_order, spectrum.at_least) == (order, order, None)
    assert (spectrum.effects[: order + 1] > 0).all()
    assert (spectrum.effects[order + 1 :] == 0.0).all()
    assert spectrum.exact_zero.tolist() == [False] * (order + 1) + [True] * 2
    assert (spectrum.ci_low <= spectrum.effects).all()
    assert (spectrum.effects <= spectrum.ci_high).all()


@pytest.mark.parametrize(
    ("operator", "location", "degree"),
    [
        (nn.Conv2d(8, 8, 3, padding=1), 0, 0),
        (nn.AvgPool2d(3, 1, 1), 0, 0),
        (nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 4, 1)), 0, 0),
        (nn.Sequential(GnConv(8, 1), GnConv(8, 2)), 5, 5),
        (HorNetBlock(8, 3), 3, 3),
        (lambda x: x * x.mean(dim=(2, 3), keepdim=True).sigmoid(), 1, 1),
        (lambda x: x**3, 0, 2),
    ],
    ids=["conv", "pool", "conv gelu conv", "gConv then g2Conv", "HorNet block", "squeeze and excite", "cube"],
)
def test_orders_of_other_operators(operator, location, degree):
    if isinstance(operator, nn.Module):
        large_weights(operator)
    spectrum = interaction_spectrum(operator, torch.randn(2, 8, 4, 4), max_order=7, num_tuples=8)
    assert (spectrum.location_order, spectrum.degree_order) == (location, degree)


def test_functional_non_linearities_have_no_finite_order():
    operator = large_weights(HorNetBlock(8, 2).double())
    x = torch.randn(1, 8, 4, 4, dtype=torch.float64)
    spectrum = interaction_spectrum(operator, x, max_order=4, num_tuples=2, explicit=False)
    assert spectrum.location_order is None
    assert spectrum.degree_order is None
    assert spectrum.at_least == 4
    assert spectrum.convention["kind"] == "functional"


def test_effects_equal_their_definition_on_a_bilinear_operator():
    """F_i = x_i · mean of the map: D_1 = v_0 v_1 / N for any neighbour, effect_1 = sqrt(E[v_0² v_1²]) / (N std F)."""
    x = torch.randn(4, 1, 5, 5, dtype=torch.float64)

    def operator(z):
        return z * z.mean(dim=(2, 3), keepdim=True)

    spectrum = interaction_spectrum(operator, x, max_order=2, num_tuples=3000, batch_size=3000)
    sigma2, spread = float(x.var(correction=0)), float(operator(x).std(correction=0))
    expected = sigma2 / 25 / spread
    # D_1² / expected² is a product of two chi-squares: mean 1, variance 8; the root halves the relative error
    assert spectrum.effects[1] == pytest.approx(expected, rel=4 * np.sqrt(8 / 12000) / 2)
    assert spectrum.ci_low[1] <= expected <= spectrum.ci_high[1]
    assert spectrum.location_order == 1


@pytest.mark.parametrize("factor", [1e-12, 1e6])
def test_scaling_the_output_changes_nothing(factor):
    operator = GnConv(8, 3)
    x = torch.randn(1, 8, 5, 5)
    plain = interaction_spectrum(operator, x, max_order=5, num_tuples=4, method="nested")
    scaled = interaction_spectrum(lambda z: factor * operator(z), x, max_order=5, num_tuples=4)
    np.testing.assert_allclose(scaled.effects, plain.effects, rtol=1e-4)
    assert scaled.location_order == plain.location_order == 3


@pytest.mark.parametrize("method", ["nested", "closed_form"])
def test_results_do_not_depend_on_the_batch_size(method):
    operator = GnConv(8, 2)
    x = torch.randn(2, 8, 6, 6)
    one = interaction_spectrum(operator, x, max_order=3, num_tuples=5, batch_size=1, method=method)
    many = interaction_spectrum(operator, x, max_order=3, num_tuples=5, batch_size=64, method=method)
    np.testing.assert_allclose(one.effects, many.effects, rtol=1e-4)
    assert one.num_draws == many.num_draws == 10


def test_seeds():
    operator, x = GnConv(8, 2), torch.randn(1, 8, 6, 6)
    before = torch.get_rng_state()
    spectra = [interaction_spectrum(operator, x, max_order=3, num_tuples=4, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(spectra[0].effects, spectra[1].effects)
    assert (spectra[0].effects[:3] != spectra[2].effects[:3]).all()
    assert (spectra[0].seed, spectra[2].seed) == (0, 1)


def test_receptive_fields():
    conv = nn.Conv2d(4, 4, 3, padding=1)
    fields = receptive_field(conv, torch.randn(2, 4, 5, 5), torch.tensor([0, 12]), torch.randn(2, 4))
    corner, centre = fields.reshape(2, 5, 5).int()
    assert corner.sum() == 4
    assert corner[:2, :2].all()
    assert centre.sum() == 9
    assert centre[1:4, 1:4].all()
    constant = receptive_field(
        lambda z: torch.ones_like(z), torch.randn(1, 4, 5, 5), torch.tensor([0]), torch.ones(1, 4)
    )
    assert not constant.any()


def test_neighbours_are_found_on_a_large_map():
    """A 3x3 neighbourhood on a 40x40 map: drawn over the whole map, neighbours would nearly always miss it."""
    spectrum = interaction_spectrum(GnConv(8, 3, kernel_size=3), torch.randn(1, 8, 40, 40), max_order=5, num_tuples=2)
    assert spectrum.location_order == 3
    assert (spectrum.effects[:4] > 0).all()


def test_a_constant_operator_has_no_effects():
    spectrum = interaction_spectrum(lambda z: torch.ones_like(z), torch.randn(1, 2, 3, 3), max_order=2, num_tuples=2)
    assert spectrum.effects.tolist() == [0, 0, 0]
    assert (spectrum.location_order, spectrum.degree_order) == (0, 0)


def test_modules_are_left_as_they_were():
    operator = nn.Sequential(GnConv(8, 2), nn.Dropout(0.5)).train()
    operator[0].proj_in.bias.requires_grad_(False)
    spectrum = interaction_spectrum(operator, torch.randn(1, 8, 4, 4), max_order=3, num_tuples=2)
    assert spectrum.location_order == 2
    assert operator.training
    assert operator[1].training
    assert [p.requires_grad for p in operator.parameters()].count(False) == 1
    assert all(p.grad is None for p in operator.parameters())


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (torch.randn(8, 4), {}, r"shape \(B, C, H, W\), .* got \(8, 4\)"),
        (torch.randn(1, 8, 4, 4).half(), {}, "half"),
        (torch.randn(1, 8, 1, 2), {}, "needs 4 distinct positions, got a map of 1x2"),
        (torch.randn(1, 8, 4, 4), {"max_order": -1}, "max_order expects"),
        (torch.randn(1, 8, 4, 4), {"num_tuples": 0}, "num_tuples expects"),
        (torch.randn(1, 8, 4, 4), {"batch_size": 0}, "batch_size expects"),
    ],
)
def test_wrong_input_is_refused(x, options, message):
    with pytest.raises(ValueError, match=message):
        interaction_spectrum(GnConv(8, 2), x, **{"max_order": 3, **options})


def test_inference_mode():
    with torch.inference_mode():
        x = torch.randn(1, 8, 5, 5)
        spectrum = interaction_spectrum(lambda z: z * z.mean(dim=(2, 3), keepdim=True), x, max_order=3, num_tuples=2)
    assert (spectrum.location_order, spectrum.degree_order) == (1, 1)


def test_operators_that_cut_the_graph_are_refused():
    operator = torch.no_grad()(lambda z: z * z.mean(dim=(2, 3), keepdim=True))
    with pytest.raises(ValueError, match=r"under torch.no_grad, which gives no gradient"):
        interaction_spectrum(operator, torch.randn(1, 8, 5, 5), max_order=3)


def test_inputs_that_do_not_vary_are_refused():
    for method in ("nested", "closed_form"):
        with pytest.raises(ValueError, match="got a constant x"):
            interaction_spectrum(GnConv(8, 2), torch.ones(1, 8, 5, 5), max_order=3, method=method)
    with pytest.raises(ValueError, match="NaN"):
        interaction_spectrum(GnConv(8, 2), torch.full((1, 8, 5, 5), torch.nan), max_order=3)


def test_underflow_is_never_taken_for_a_zero():
    x = torch.randn(1, 32, 7, 7) * 1e-8
    operator = GnConv(32, 6)
    closed = interaction_spectrum(operator, x, max_order=8, num_tuples=4)
    assert (closed.location_order, closed.degree_order) == (6, 6), "the closed form goes to float64 by itself"
    assert closed.convention["dtype"] == "float64"
    nested = interaction_spectrum(operator, x, max_order=8, num_tuples=4, method="nested")
    assert (nested.location_order, nested.convention["dtype"]) == (6, "float64"), "so does nested reverse mode"
    with pytest.raises(ValueError, match="underflows and zeros prove nothing"):
        interaction_spectrum(lambda z: operator(z), x, max_order=8, num_tuples=4)
    seeded = interaction_spectrum(operator, x, max_order=8, num_tuples=4, seed=3, method="nested")
    double = interaction_spectrum(operator.double(), x.double(), max_order=8, num_tuples=4, method="nested")
    assert (double.location_order, double.degree_order) == (6, 6)
    again = interaction_spectrum(operator, x.double(), max_order=8, num_tuples=4, seed=3, method="nested")
    np.testing.assert_array_equal(seeded.effects, again.effects)
    assert seeded.seed == 3


def test_a_gate_without_second_derivative():
    spectrum = interaction_spectrum(
        lambda z: z * torch.nn.functional.hardsigmoid(z.mean(dim=(2, 3), keepdim=True)),
        torch.randn(2, 8, 5, 5),
        max_order=3,
        num_tuples=4,
    )
    assert (spectrum.location_order, spectrum.degree_order) == (1, 1)


def test_operators_that_enlarge_the_map_are_refused():
    with pytest.raises(ValueError, match="keeps the layout and the positions of its input"):
        interaction_spectrum(nn.ConvTranspose2d(8, 8, 2, stride=2), torch.randn(1, 8, 4, 4), max_order=1)


class Scaled(torch.autograd.Function):
    """2 x², with a second derivative that autograd does not see."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return 2 * x * x

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * 4 * x.detach()


class OnceDifferentiable(Scaled):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * 4 * x


class Custom(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function.apply(x)


def test_custom_functions_never_give_a_silent_wrong_number():
    x = torch.randn(1, 4, 5, 5)
    with pytest.raises(ValueError, match=r"custom autograd functions \(Scaled\).*declare the modules"):
        interaction_spectrum(Custom(Scaled), x, max_order=2, num_tuples=2)
    with pytest.raises(ValueError, match=r"custom autograd functions \(OnceDifferentiable\)"):
        interaction_spectrum(Custom(OnceDifferentiable), x, max_order=2, num_tuples=2)


def test_declared_modules_are_tangents():
    class Square(nn.Module):
        def forward(self, x):
            return x * x.mean((2, 3), keepdim=True)

    x = torch.randn(1, 4, 5, 5)
    operator = nn.Sequential(Square(), nn.Conv2d(4, 4, 1))
    assert interaction_spectrum(operator, x, max_order=2, num_tuples=2).location_order == 1
    declared = interaction_spectrum(operator, x, max_order=2, num_tuples=2, nonlinear=[Square])
    assert declared.location_order == 0
    assert declared.convention["declared"] == "Square"
    with pytest.raises(ValueError, match="nonlinear declares tangents"):
        interaction_spectrum(operator, x, max_order=2, nonlinear=[Square], explicit=False)


def test_derivatives_that_do_not_end_name_the_operator():
    def listed(x):
        return x * torch.exp(x.mean((2, 3), keepdim=True))

    x = torch.randn(1, 4, 5, 5, dtype=torch.float64)
    assert interaction_spectrum(listed, x, max_order=3, num_tuples=4).unlisted == ()

    def products(x):
        return x * x.mean((2, 3), keepdim=True).cumprod(1)

    spectrum = interaction_spectrum(products, x, max_order=2, num_tuples=4)
    assert spectrum.location_order is None
    assert spectrum.at_least == 2
    assert spectrum.unlisted == ("Cumprod",)

    def unlisted(x):
        return x * torch.special.i1(x.mean((2, 3), keepdim=True))

    assert interaction_spectrum(unlisted, x, max_order=1, num_tuples=4).unlisted == ("SpecialI1",)

    def once(x):
        offsets = torch.zeros(len(x), 2, 5, 5, dtype=x.dtype)
        return x * torchvision.ops.deform_conv2d(x, offsets, torch.ones(4, 4, 1, 1, dtype=x.dtype))

    with pytest.raises(ValueError, match=r"cannot be differentiated as often .*deform_conv2d.*--nonlinear"):
        interaction_spectrum(once, x, max_order=3, num_tuples=4)


GATES = {
    "comparison": lambda x: x * (x.mean((2, 3), keepdim=True) > 0),
    "mask": lambda x: x * (x.mean((2, 3), keepdim=True) * (x.mean((2, 3), keepdim=True) > 0)),
    "remainder": lambda x: x * torch.remainder(x.mean((2, 3), keepdim=True) * 9, 1),
    "rounding": lambda x: x * torch.div(x.mean((2, 3), keepdim=True) * 30, 1, rounding_mode="floor"),
    "detach": lambda x: x * x.mean((2, 3), keepdim=True).detach(),
    "relu": lambda x: x * x.mean((2, 3), keepdim=True).relu(),
}


@pytest.mark.parametrize("name", GATES)
def test_functional_orders_of_discontinuous_operators_are_refused(name):
    torch.manual_seed(0)
    x = torch.randn(2, 6, 4, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"kinks|none along a line|detach, which gives no gradient"):
        interaction_spectrum(GATES[name], x, max_order=3, num_tuples=4, explicit=False)


def test_functional_orders_of_polynomials_are_kept():
    x = torch.randn(2, 6, 4, 4)
    for function, order in (
        (lambda z: z * z.mean((2, 3), keepdim=True), 1),
        (lambda z: z.roll(1, 2) * z * z.roll(1, 3), 2),
    ):
        assert interaction_spectrum(function, x, max_order=4, num_tuples=24, explicit=False).location_order == order


def test_operators_that_mix_samples_or_draw_are_refused():
    x = torch.randn(2, 6, 4, 4)
    for function in (
        lambda z: z * z.mean((0, 2, 3), keepdim=True),
        lambda z: torch.nn.functional.dropout(z, 0.5, training=True),
    ):
        with pytest.raises(ValueError, match="each sample of a batch by itself"):
            interaction_spectrum(function, x, max_order=1, num_tuples=2)


def test_transforms_and_complex_gates_have_the_derivatives_of_their_tangents():
    """ifft2 of fft2(x) times the tangent of 1/(5 + z), against the tangent written out."""
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    points = torch.fft.fft2(x)

    def with_division(z):
        spectrum = torch.fft.fft2(z)
        return torch.fft.ifft2(spectrum / (5 + spectrum)).real

    def written_out(z, at):
        spectrum = torch.fft.fft2(z)
        return torch.fft.ifft2(spectrum * (1 / (5 + at) - (spectrum - at) / (5 + at) ** 2)).real

    cells = torch.stack([torch.randperm(25)[:3] for _ in range(2)])
    directions, u = torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    with explicit_operators():
        found = mixed_derivatives(with_division, x, cells, directions, u)
    expected = mixed_derivatives(lambda z: written_out(z, points), x, cells, directions, u)
    torch.testing.assert_close(found[:, :2], expected[:, :2], rtol=1e-9, atol=1e-12)
    assert expected[:, 1].abs().min() > 0
    magnitude = interaction_spectrum(
        lambda z: torch.fft.irfft2(torch.fft.rfft2(z) * torch.fft.rfft2(z).abs(), s=(5, 5)),
        x,
        max_order=3,
        num_tuples=2,
    )
    assert magnitude.degree_order == 1


def test_beginners_mistakes_are_explained():
    x = torch.randn(1, 4, 5, 5)
    with pytest.raises(ValueError, match="method expects one of auto, nested, closed_form, got 'closedform'"):
        interaction_spectrum(GnConv(4, 1), x, max_order=1, method="closedform")
    with pytest.raises(ValueError, match="gives one tensor, got tuple"):
        interaction_spectrum(lambda z: (z, z), x, max_order=1)
    with pytest.raises(ValueError, match=r"got torch.int64: convert x with \.float"):
        interaction_spectrum(lambda z: z, torch.ones(1, 4, 5, 5, dtype=torch.int64), max_order=1)
    with pytest.raises(ValueError, match="not in the operator: GELU"):
        interaction_spectrum(GnConv(4, 1), x, max_order=1, nonlinear="GELU")


def test_an_order_that_is_merely_higher_than_k_names_nothing():
    spectrum = interaction_spectrum(GnConv(8, 3), torch.randn(1, 8, 5, 5), max_order=2, num_tuples=2, method="nested")
    assert (spectrum.location_order, spectrum.at_least, spectrum.unlisted) == (None, 2, ())


def test_functional_derivatives_of_kinks_are_refused():
    network = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))
    x = torch.randn(2, 4, 5, 5)
    with pytest.raises(ValueError, match=r"kinks \(Relu\) on which its functional interactions lie"):
        interaction_spectrum(network, x, max_order=2, num_tuples=2, explicit=False)
    assert interaction_spectrum(network, x, max_order=2, num_tuples=2).location_order == 0
    smooth = nn.Sequential(network[0], nn.GELU(), network[2])
    assert interaction_spectrum(smooth, x, max_order=2, num_tuples=8, explicit=False).at_least == 2


def test_in_place_operators_do_not_disturb_the_points():
    class InPlace(nn.Module):
        def forward(self, x):
            return x.relu_().mul_(2)

    x = torch.randn(1, 4, 5, 5)
    before = x.clone()
    spectrum = interaction_spectrum(InPlace(), x, max_order=1, num_tuples=4)
    assert torch.equal(x, before)
    assert spectrum.location_order == 0


def test_few_chains_are_differentiated_together_when_their_graphs_are_large(monkeypatch):
    """The draws and the numbers are the same; only how many go together changes."""
    from horinsight.interaction import graph_meter, nested_draws

    sizes = []
    nested = nested_draws.nested_derivatives
    monkeypatch.setattr(
        nested_draws,
        "nested_derivatives",
        lambda operator, x, *a, **kw: sizes.append(len(x)) or nested(operator, x, *a, **kw),
    )
    operator, x = GnConv(8, 2, kernel_size=3).double(), torch.randn(1, 8, 5, 5, dtype=torch.float64)
    spectra = []
    for limit in (1, 10**9):
        monkeypatch.setattr(graph_meter, "GRAPH_BYTES", limit)
        spectra.append(interaction_spectrum(operator, x, max_order=3, num_tuples=5, method="nested"))
    assert sizes == [1] * (5 + 2) + [1, 4] + [1, 1], "of five chains, then of two dense directions"
    np.testing.assert_allclose(spectra[0].effects, spectra[1].effects, rtol=1e-12)


def test_effects_are_in_units_of_the_spread_over_all_positions():
    """A multiple of the identity on two positions: E[D_0²] is the variance over both, which is what std(F)² is."""
    x = torch.tensor([[[[1.0, 2.0]]]], dtype=torch.float64)
    spectrum = interaction_spectrum(lambda z: 3 * z + 5, x, max_order=1, num_tuples=2000, batch_size=2000)
    assert spectrum.effects[0] == pytest.approx(1, rel=4 * np.sqrt(2 / 2000) / 2)
    assert spectrum.effects[1] == 0


def test_how_many_chains_are_drawn():
    operator, x = large_weights(GnConv(8, 2, kernel_size=3)), torch.randn(2, 8, 5, 5)
    by_itself = interaction_spectrum(operator, x, max_order=3)
    assert by_itself.num_draws == 2 * 2048
    assert "cheap" in by_itself.convention["chains"]
    nested = interaction_spectrum(operator, x, max_order=3, method="nested")
    assert nested.num_draws == 2 * 256
    assert nested.convention["chains"].startswith("32 an image, doubled where effects are known less well than 0.25")
    assert (np.log(nested.ci_high[:3] / nested.ci_low[:3]) / 2 <= 0.25).all()
    well_known = interaction_spectrum(operator, x, max_order=3, precision=0.02)
    assert well_known.num_draws >= 2 * 2048
    assert (np.log(well_known.ci_high[:3] / well_known.ci_low[:3]) / 4 <= 0.02).all()
    assert well_known.shortfalls == ()
    hardly = interaction_spectrum(operator, x, max_order=3, num_tuples=2)
    assert hardly.shortfalls[0] == "not enough draws: 4 do not tell how well effects are known; --tuples 16 would"
    in_time = interaction_spectrum(operator, x, max_order=3, precision=1e-6, seconds=0.2, num_tuples=2)
    assert in_time.num_draws > hardly.num_draws
    assert len(in_time.shortfalls) == 3, "and the zero of order 3 is known"
    with pytest.raises(ValueError, match="precision expects a number above 0, got 0"):
        interaction_spectrum(operator, x, max_order=3, precision=0)
