import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from horinsight.interaction.derivative_graph import operators_met, polynomial_degree
from horinsight.operators.tangent import explicit_operators


def met(function, *, explicit: bool = False):
    x = torch.rand(1, 4, 6, 6).add_(0.1).requires_grad_()
    if not explicit:
        return operators_met(function(x))
    with explicit_operators(function):
        return operators_met(function(x.clone()))


@pytest.mark.parametrize(
    "function",
    [
        nn.Conv2d(4, 4, 3),
        nn.BatchNorm2d(4).eval(),
        nn.AvgPool2d(2),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        lambda x: torch.fft.irfft2(torch.fft.rfft2(x)),
        lambda x: torch.einsum("bchw,bdhw->bcd", x, x) ** 2 / 3,
        lambda x: F.pad(x, (1, 1)).roll(1, 2).flip(3).unfold(2, 2, 1).mean(1).cumsum(0),
    ],
)
def test_sums_and_products_are_nothing_special(function):
    found = met(function)
    assert (found.kinks, found.unlisted, found.custom) == ((), (), ())


@pytest.mark.parametrize(
    ("function", "kink"),
    [
        (F.relu, "Relu"),
        (torch.abs, "Abs"),
        (lambda x: x.clamp(min=0.2), "Clamp"),
        (lambda x: torch.maximum(x, x.flip(2)), "Maximum"),
        (lambda x: torch.where(x > 0.5, x, 0), "Where"),
        (nn.MaxPool2d(2), "MaxPool2DWithIndices"),
        (nn.Hardswish(), "Hardswish"),
        (nn.PReLU(), "PreluKernel"),
    ],
)
def test_kinks(function, kink):
    assert kink in met(function).kinks


def test_what_is_not_listed():
    assert met(torch.exp).unlisted == ("Exp",)
    assert met(lambda x: 1 / x).unlisted == ("Reciprocal",)
    assert met(lambda x: x / x.sum()).unlisted == ("Div",)
    assert met(lambda x: x**0.5).unlisted == ("Pow",)
    assert met(lambda x: x.cumprod(1), explicit=True).unlisted == ("Cumprod",)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, g):
        return 2 * g


def test_layers_tell_a_network():
    assert met(nn.Conv2d(4, 4, 3)).layers == ("Convolution",)
    assert met(lambda x: nn.Linear(6, 2)(x)).layers != ()
    assert met(lambda x: x.prod(1).sin()).layers == ()


def test_custom_functions():
    assert met(Doubled.apply, explicit=True).custom == ("Doubled",)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "hornet_test_gf", "deit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_atto", "seresnet18",
        "focalnet_tiny_srf", "mixer_s16_224", "gmlp_ti16_224", "poolformer_s12", "efficientnet_b0", "caformer_s18",
        "coatnet_nano_rw_224", "xcit_nano_12_p16_224", "vit_tiny_patch16_224", "regnety_002", "resmlp_12_224",
    ],
)  # fmt: skip
def test_nothing_unlisted_is_left_of_timms_networks(name):
    """Whole networks: everything that is neither linear nor a product is replaced by its tangent."""
    model = timm.create_model(name).eval().requires_grad_(False)
    x = torch.randn(1, *model.default_cfg["input_size"]).requires_grad_()
    with explicit_operators(model):
        found = operators_met(model(x))
    assert (found.unlisted, found.custom) == ((), ())


DEGREES = {
    "linear": (lambda x: F.conv2d(x, torch.ones(2, 2, 3, 3), torch.ones(2), padding=1) + 1, 1),
    "a product of powers": (lambda x: 1e-200 * x**3 * x.square(), 5),
    "matrices": (lambda x: torch.addmm(x[0, 0], x[0, 0] @ x[0, 0], x[0, 0]), 3),
    "a kernel of features": (lambda x: F.conv2d(x, x[:, :, :3, :3].transpose(0, 1), groups=2), 2),
    "in place": (lambda x: (x * x).mul_(x).add_(x), 3),
    "detached": (lambda x: x * x.detach(), 1),
    "an exponential": (lambda x: x.exp(), float("inf")),
    "a division by a feature": (lambda x: 1 / x, float("inf")),
    "a division": (lambda x: x / 3, 1),
    "a sum of degrees": (lambda x: torch.cat([x, x * x, x.mean((2, 3), keepdim=True).expand_as(x)]), 2),
}


@pytest.mark.parametrize("name", DEGREES)
def test_the_degree_of_a_polynomial_by_its_graph(name):
    function, degree = DEGREES[name]
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    assert polynomial_degree(function(x), x) == degree


def test_names_come_in_order_whatever_the_order_of_the_graph():
    x = torch.randn(5, requires_grad=True)
    parts = [x.relu(), x.abs(), x.clamp(min=0), x.sign(), x.floor(), x.frac(), x.cummax(0).values, x.sort().values]
    for graph in (sum(parts), sum(parts[::-1])):
        kinks = operators_met(graph).kinks
        assert len(kinks) >= 4
        assert kinks == tuple(sorted(set(kinks)))
