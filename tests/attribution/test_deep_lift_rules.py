"""DeepLIFT through our modules: by hand in float64, against integrated gradients, and on the trained model."""

import pytest
import torch
import torch.nn.functional as F
from captum.attr import DeepLift, DeepLiftShap, IntegratedGradients
from captum.attr._core import deep_lift
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import LayerNorm2d
from timm.models import create_model as timm_model
from torch import Tensor, nn

from horinsight import GnConv, create_model, image_batch
from horinsight.attribution.deep_lift_rules import deep_lift_rules
from horinsight.data.handwritten_digits import sample_digit
from horinsight.models.elementwise import Product
from horinsight.models.hornet import HorNetBlock

pytestmark = [
    pytest.mark.filterwarnings("ignore:Setting forward, backward hooks"),
    pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients"),
]
EPS = torch.finfo(torch.float64).eps


def pooled(*layers: nn.Module) -> nn.Sequential:
    """The channel means of the last layer's map, so that a channel is a class; float64."""
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()


def contributions(model: nn.Module, x: Tensor, x_0: Tensor, target: int) -> Tensor:
    with deep_lift_rules(model):
        return DeepLift(model).attribute(x, x_0, target=target)


class Parts:
    """A value, its baseline, and what each input feature contributes to the difference, carried forward by hand."""

    def __init__(self, value: Tensor, baseline: Tensor, parts: Tensor) -> None:
        self.value, self.baseline, self.parts = value, baseline, parts

    def linear(self, function, bias=0.0):
        return Parts(function(self.value) + bias, function(self.baseline) + bias, function(self.parts))

    def times(self, other):
        mean = [(z.value + z.baseline) / 2 for z in (self, other)]
        return Parts(
            self.value * other.value,
            self.baseline * other.baseline,
            self.parts * mean[1] + other.parts * mean[0],
        )

    def rescaled(self, function):
        y, y_0 = function(self.value), function(self.baseline)
        return Parts(y, y_0, self.parts * (y - y_0) / (self.value - self.baseline))

    def plus(self, other):
        return Parts(self.value + other.value, self.baseline + other.baseline, self.parts + other.parts)


def conv(z: Parts, layer: nn.Conv2d) -> Parts:
    options = layer.stride, layer.padding, layer.dilation, layer.groups
    return z.linear(lambda t: F.conv2d(t, layer.weight, None, *options), layer.bias[:, None, None])


def norm(z: Parts, layer: nn.LayerNorm) -> Parts:
    """(B, C, H, W), normed over C: the centred map times the inverse root of the mean of its square plus ε."""
    centred = z.linear(lambda t: t - t.mean(1, keepdim=True))
    variance = centred.times(centred).linear(lambda t: t.mean(1, keepdim=True))
    inverse = variance.rescaled(lambda t: (t + layer.eps) ** -0.5)
    return centred.times(inverse).linear(lambda t: t * layer.weight[:, None, None], layer.bias[:, None, None])


def gnconv(z: Parts, layer: GnConv) -> Parts:
    both = conv(z, layer.proj_in)
    p = both.linear(lambda t: t[:, : layer.dims[0]])
    f = conv(both.linear(lambda t: t[:, layer.dims[0] :]), layer.dwconv)
    start = 0
    for k, width in enumerate(layer.dims):
        here = f.linear(lambda t, a=start, b=start + width: t[:, a:b] * layer.scale)
        p = (conv(p, layer.pws[k - 1]) if k else p).times(here)
        start += width
    return conv(p, layer.proj_out)


def block(z: Parts, layer: HorNetBlock) -> Parts:
    z = z.plus(gnconv(norm(z, layer.norm1), layer.gnconv).linear(lambda t: t * layer.gamma1[:, None, None]))
    hidden = norm(z, layer.norm2).linear(
        lambda t: torch.einsum("oc,bchw->bohw", layer.pwconv1.weight, t), layer.pwconv1.bias[:, None, None]
    )
    out = hidden.rescaled(F.gelu).linear(
        lambda t: torch.einsum("oc,bchw->bohw", layer.pwconv2.weight, t), layer.pwconv2.bias[:, None, None]
    )
    return z.plus(out.linear(lambda t: t * layer.gamma2[:, None, None]))


@pytest.mark.parametrize(
    ("layer", "by_hand"),
    [(GnConv(8, 1), gnconv), (GnConv(8, 4), gnconv), (HorNetBlock(4, 3, layer_scale_init_value=0.7), block)],
    ids=["g1Conv", "g4Conv", "block"],
)
def test_equals_contributions_carried_forward_by_hand(layer, by_hand):
    torch.manual_seed(0)
    layer = layer.double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    channels = 8 if by_hand is gnconv else 4
    x, x_0 = torch.randn(2, 1, channels, 3, 4, dtype=torch.float64)
    start = torch.diag((x - x_0).flatten()).reshape(-1, *x.shape[1:])
    with torch.no_grad():
        expected = by_hand(Parts(x, x_0, start), layer)
    found = contributions(pooled(layer), x, x_0, 2)
    torch.testing.assert_close(found.flatten(), expected.parts.mean((2, 3))[:, 2], rtol=1e-9, atol=1e-11)


def test_of_one_product_integrated_gradients_give_the_same_feature_by_feature():
    # the factors are linear along the straight path, whose mean gradient is the gradient at their mean
    model = pooled(GnConv(8, 1))
    x, x_0 = torch.randn(2, 3, 8, 5, 4, dtype=torch.float64)
    expected = IntegratedGradients(model).attribute(x, x_0, target=1, n_steps=4)
    torch.testing.assert_close(contributions(model, x, x_0, 1), expected, rtol=1e-10, atol=1e-12)


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x


class ByCaptum(nn.Module):
    """GELU(W_1 x) ⊙ W_2 x, with the product as a difference of two squares, which captum's rescale rule can handle."""

    def __init__(self, squares: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 5), nn.Linear(6, 5)
        self.act, self.product = nn.GELU(), Product()
        if squares:
            self.plus, self.minus = Square(), Square()

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.act(self.first(x)), self.second(x)
        return (self.plus(a + b) - self.minus(a - b)) / 4 if hasattr(self, "plus") else self.product(a, b)


def test_equals_captums_own_rescale_rule_of_squares(monkeypatch):
    torch.manual_seed(1)
    ours, theirs = ByCaptum(False).double(), ByCaptum(True).double()
    theirs.load_state_dict(ours.state_dict())
    x, x_0 = torch.randn(2, 3, 6, dtype=torch.float64)
    with monkeypatch.context() as patch:
        patch.setitem(deep_lift.SUPPORTED_NON_LINEAR, Square, deep_lift.nonlinear)
        patch.setitem(deep_lift.SUPPORTED_NON_LINEAR, nn.GELU, deep_lift.nonlinear)
        expected = DeepLift(theirs).attribute(x, x_0, target=3)
        both = contributions(ours, x, x_0, 3)  # captum's rule for GELU as well as ours: no harm
    torch.testing.assert_close(contributions(ours, x, x_0, 3), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(both, expected, rtol=1e-10, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(
    order=st.integers(1, 5),
    kind=st.sampled_from(["conv", "pool", "gf"]),
    size=st.tuples(st.integers(2, 6), st.integers(2, 6)),
    distance=st.sampled_from([1e-9, 1e-4, 1.0, 10.0]),
    seed=st.integers(0, 99),
)
def test_contributions_add_up_to_the_difference(order, kind, size, distance, seed):
    torch.manual_seed(seed)
    layer = HorNetBlock(32, order, layer_scale_init_value=0.5, depthwise=kind)
    model = pooled(layer, LayerNorm2d(32))
    x_0 = torch.randn(2, 32, *size, dtype=torch.float64)
    x = x_0 + distance * torch.randn_like(x_0)
    with torch.no_grad():
        difference = (model(x) - model(x_0))[:, 5]
    found = contributions(model, x, x_0, 5)
    # sums of at most 1e4 terms in each of some ten layers; the difference itself is rounded at the size of the output
    tolerance = 1e4 * EPS * (found.abs().sum((1, 2, 3)).clamp(min=1))
    assert ((found.sum((1, 2, 3)) - difference).abs() <= tolerance).all()


def test_the_trained_model_is_explained_whole_and_without_rules_it_is_not():
    model = create_model("hornet_digits_iso").double()
    digits = [3]
    x = image_batch(model, [sample_digit(digit) for digit in digits]).double()
    black = image_batch(model, [sample_digit(0)]).double().amin((0, 2, 3), keepdim=True).expand_as(x[:1])
    with torch.no_grad():
        target = model(x).argmax(1)
        difference = (model(x) - model(black)).gather(1, target[:, None])[:, 0]
    assert target.tolist() == list(digits)
    _, without = DeepLift(model).attribute(x, black, target=target, return_convergence_delta=True)
    with deep_lift_rules(model):
        found, delta = DeepLift(model).attribute(x, black, target=target, return_convergence_delta=True)
    assert (without.abs() > 0.1 * difference.abs()).any(), "the gradient in place of rules explains something else"
    size = found.abs().sum((1, 2, 3))
    assert (delta.abs() <= 1e4 * EPS * size).all()
    assert ((found.sum((1, 2, 3)) - difference).abs() <= 1e4 * EPS * size).all()


def test_of_the_trained_model_a_fair_split_is_another_one_and_as_whole():
    model = create_model("hornet_digits_iso").double()
    x = image_batch(model, [sample_digit(3)]).double()
    with torch.no_grad():
        difference = float((model(x) - model(x * 0))[0, 3])
    found = {}
    for products in ("recursive", "fair"):
        with deep_lift_rules(model, gnconv_products=products):
            found[products] = DeepLift(model).attribute(x, x * 0, target=3).detach()
            values = model(torch.cat([x, x * 0]).requires_grad_())
        assert torch.equal(values, model(torch.cat([x, x * 0]))), "the values are the model's own"
        assert float(found[products].sum()) == pytest.approx(difference, rel=1e-10)
    apart = (found["fair"] - found["recursive"]).abs().sum()
    assert apart > 0.01 * found["fair"].abs().sum()


def test_integrated_gradients_of_the_trained_model_have_the_same_sum():
    model = create_model("hornet_digits_iso").requires_grad_(False)
    x = image_batch(model, [sample_digit(3)])
    found = contributions(model, x, x * 0, 3).detach()
    path, gap = IntegratedGradients(model).attribute(x, x * 0, target=3, n_steps=16, return_convergence_delta=True)
    path = path.detach()
    assert abs(float(gap)) < 0.01 * abs(float(path.sum())), "the quadrature has converged"
    assert float(path.sum()) == pytest.approx(float(found.sum()), rel=0.01)


@pytest.mark.parametrize(
    ("name", "options"), [("hornet_test", {}), ("hornet_test_gf", {}), ("dwconv_digits_iso", {"depth": 3})]
)
def test_other_models_and_many_baselines(name, options):
    torch.manual_seed(0)
    model = create_model(name, **options).double()
    for key, parameter in model.named_parameters():
        nn.init.constant_(parameter, 0.5) if "gamma" in key else None
    x, baselines = torch.randn(2, 3, 64, 64, dtype=torch.float64), torch.randn(3, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        difference = model(x)[:, 1] - model(baselines)[:, 1].mean()
    with deep_lift_rules(model):
        found = DeepLiftShap(model).attribute(x, baselines, target=1)
    size = found.abs().sum((1, 2, 3))
    assert ((found.sum((1, 2, 3)) - difference).abs() <= 1e4 * EPS * size.clamp(min=1)).all()


def test_a_foreign_network_of_known_parts_is_explained_whole():
    model = timm_model("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 8, 16, 16), num_classes=5).eval().double()
    for key, parameter in model.named_parameters():
        nn.init.constant_(parameter, 0.5) if "gamma" in key else None
    x, x_0 = torch.randn(2, 1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        difference = float((model(x) - model(x_0))[0, 3])
    found = contributions(model, x, x_0, 3).detach()
    assert float(found.sum()) == pytest.approx(difference, abs=1e4 * EPS * float(found.abs().sum().clamp(min=1)))


def test_single_precision_is_whole_up_to_its_rounding():
    model = create_model("hornet_digits_iso")
    x = image_batch(model, [sample_digit(7)])
    with deep_lift_rules(model):
        found, delta = DeepLift(model).attribute(x, x * 0, target=7, return_convergence_delta=True)
    assert abs(float(delta)) <= 1e3 * torch.finfo(torch.float32).eps * float(found.abs().sum())


def test_what_is_borrowed_is_returned():
    model = create_model("hornet_test_iso")
    table = dict(deep_lift.SUPPORTED_NON_LINEAR)
    x = torch.randn(2, 3, 64, 64)
    expected = model(x)
    with deep_lift_rules(model):
        assert torch.equal(model(x), expected), "the values are the model's own"
        with torch.no_grad():
            assert model(x[:1]).shape == (1, 1000), "without gradients any batch will do"
        with pytest.raises(ValueError, match="got a batch of 3"):
            model(torch.randn(3, 3, 64, 64))
    assert not any("forward" in vars(part) for part in model.modules())
    with pytest.raises(ValueError, match="got a batch of 1"), deep_lift_rules(model):
        model(x[:1])
    assert not any("forward" in vars(part) for part in model.modules())
    assert table == deep_lift.SUPPORTED_NON_LINEAR
    torch.testing.assert_close(model(x[:1]), expected[:1])
