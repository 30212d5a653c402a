import pytest
import torch
import torch.nn.functional as F
from timm.layers import GroupNorm1, LayerNorm2d, RmsNorm2d, SEModule, SimpleNorm2d
from timm.layers.grn import GlobalResponseNorm
from torch import nn

from horinsight import explicit_operators
from horinsight.operators.nonlinear_functions import NONLINEAR_FUNCTIONS
from horinsight.operators.normalisation import is_norm
from horinsight.operators.tangent import tangent

FUNCTIONS = {
    "softmax": lambda z: torch.softmax(z, dim=1),
    "method softmax": lambda z: z.softmax(dim=-1),
    "sigmoid": torch.sigmoid,
    "tanh": lambda z: z.tanh(),
    "gelu": F.gelu,
    "gelu tanh": lambda z: F.gelu(z, approximate="tanh"),
    "silu": F.silu,
    "relu": F.relu,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "atan": torch.atan,
    "layer_norm": lambda z: F.layer_norm(z, (6,), torch.arange(6.0).double(), torch.ones(6).double()),
    "group_norm": lambda z: F.group_norm(z.reshape(4, 6, 1), 3).reshape(4, 6),
    "normalize": lambda z: F.normalize(z, dim=1),
    "nn.GELU": nn.GELU(),
    "nn.Softmax": nn.Softmax(dim=1),
    "nn.ReLU in place": lambda z: nn.ReLU(inplace=True)(z * 1),
    "positional in place": lambda z: F.relu(z * 1, True),
    "leaky in place": lambda z: F.leaky_relu(z * 1, 0.1, True),
    "sigmoid_": lambda z: (z * 1).sigmoid_(),
    "torch.tanh_": lambda z: torch.tanh_(z * 1),
    "exp2": torch.exp2,
    "reciprocal by division": lambda z: 1 / (z + 9),
    "root by power": lambda z: (z + 9) ** 0.5,
    "exponential by power": lambda z: 2**z,
    "power in place": lambda z: (z + 9).pow_(-1.5),
    "batch norm": nn.BatchNorm1d(6).double().eval(),
    "batch norm in training": nn.BatchNorm1d(6).double(),
    "std": lambda z: z.std(dim=1),
    "logsumexp": lambda z: torch.logsumexp(z, 1),
    "RMSNorm": nn.RMSNorm(6).double(),
    "PReLU": nn.PReLU().double().requires_grad_(False),
    "softsign": F.softsign,
    "clamp": lambda z: z.clamp(-0.5, 0.5),
    "hardtanh": F.hardtanh,
}


def derivative(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor | None:
    """dy/dx, or None where y is disconnected from x: a structural zero."""
    return torch.autograd.grad(y, x, create_graph=True, allow_unused=True)[0] if y.requires_grad else None


@pytest.mark.parametrize("name", FUNCTIONS)
def test_value_and_first_derivative_are_kept_and_all_others_vanish(name):
    function = FUNCTIONS[name]
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    expected = function(x)
    weights = torch.randn_like(expected)
    slope = torch.autograd.grad((expected * weights).sum(), x)[0]
    with explicit_operators():
        found = function(x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    (first,) = torch.autograd.grad((found * weights).sum(), x, create_graph=True)
    torch.testing.assert_close(first, slope, rtol=1e-11, atol=1e-12)
    assert derivative(first.sum(), x) is None, "a structural zero"


def test_products_keep_their_degree():
    x = torch.tensor([0.3, -0.7], dtype=torch.float64, requires_grad=True)
    with explicit_operators():
        y = (x * torch.sigmoid(x) * torch.tanh(x)).sum()
    orders = 0
    while True:
        gradient = derivative(y, x)
        if gradient is None:
            break
        orders += 1
        y = gradient.sum()
    assert orders == 3


def test_tangent_of_a_known_function():
    z = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    y = tangent(torch.exp, z)
    (slope,) = torch.autograd.grad(y, z)
    assert y.item() == pytest.approx(torch.e**2)
    assert slope.item() == pytest.approx(torch.e**2)


def test_without_gradients_nothing_is_replaced():
    x = torch.randn(5)
    with explicit_operators():
        assert torch.equal(torch.sigmoid(x), x.sigmoid())
        assert not torch.sigmoid(x).requires_grad


def test_the_context_ends_also_after_an_error():
    x = torch.randn(3, requires_grad=True)
    with pytest.raises(RuntimeError, match="stop"), explicit_operators():
        raise RuntimeError("stop")
    (first,) = torch.autograd.grad(torch.sigmoid(x).sum(), x, create_graph=True)
    assert torch.autograd.grad(first.sum(), x)[0].abs().sum() > 0


def test_the_list_has_the_names_of_the_specification():
    for function in (torch.softmax, torch.sigmoid, F.gelu, F.relu, F.silu, torch.tanh, F.layer_norm):
        assert function in NONLINEAR_FUNCTIONS


def degree(function, x: torch.Tensor, highest: int = 6) -> int:
    """Degree of the polynomial that is left of a function, by derivatives along one direction."""
    x = x.clone().requires_grad_()
    y = (function(x) * torch.randn_like(function(x))).sum()
    for k in range(highest + 1):
        gradient = derivative(y, x)
        if gradient is None or not gradient.abs().sum() > 0:
            return k
        y = (gradient * torch.randn_like(gradient)).sum()
    raise AssertionError(f"above {highest}")


class HandWrittenLayerNorm(nn.Module):
    """A norm that calls no function of the list but sqrt and a division."""

    def forward(self, z):
        centred = z - z.mean(-1, keepdim=True)
        return centred / torch.sqrt((centred * centred).mean(-1, keepdim=True) + 1e-6)


class Standardised(HandWrittenLayerNorm):
    """The same under a name that tells nothing."""


DEGREES = {
    "x^3": (lambda x: x**3, 3),
    "x^2.0": (lambda x: x**2.0, 2),
    "square": (lambda x: torch.square(x) * x, 3),
    "quotient of features": (lambda x: x[:, :3] / (x[:, 3:] + 9), 2),
    "division in place": (lambda x: (x[:, :3] * 1).div_(x[:, 3:] + 9), 2),
    "division by a constant": (lambda x: x / 3, 1),
    "constant / feature": (lambda x: torch.div(2.0, x + 9), 1),
    "glu": (lambda x: F.glu(x, dim=1), 2),
    "nn.GLU": (nn.GLU(dim=1), 2),
    "attention": (lambda x: F.scaled_dot_product_attention(*x.reshape(1, 4, 3, 2).unbind(2)), 3),
    "masked attention": (
        lambda x: F.scaled_dot_product_attention(*x.reshape(1, 4, 3, 2).unbind(2), is_causal=True, scale=0.3),
        3,
    ),
    "tanh tanh": (lambda x: torch.tanh(torch.tanh(x)), 1),
    "gated": (lambda x: x * torch.sigmoid(x) * F.gelu(x), 3),
}


@pytest.mark.parametrize("name", DEGREES)
def test_what_is_left_is_a_polynomial_of_the_right_degree(name):
    torch.manual_seed(0)
    function, expected = DEGREES[name]
    x = torch.randn(4, 6, dtype=torch.float64)
    plain = function(x)
    with explicit_operators():
        torch.testing.assert_close(function(x.clone().requires_grad_()), plain, rtol=1e-12, atol=1e-12)
        assert degree(function, x) == expected


@pytest.mark.parametrize(
    "options", [{}, {"is_causal": True}, {"scale": 0.2}, {"bias": True}, {"mask": True}, {"gqa": True}]
)
def test_opened_attention_equals_torchs(options):
    q = torch.randn(2, 4, 5, 3, dtype=torch.float64, requires_grad=True)
    heads = 2 if "gqa" in options else 4
    k, v = (torch.randn(2, heads, 5, 3, dtype=torch.float64) for _ in range(2))
    kwargs = {key: value for key, value in options.items() if key in ("is_causal", "scale")}
    if "bias" in options:
        kwargs["attn_mask"] = torch.randn(5, 5, dtype=torch.float64)
    if "mask" in options:
        kwargs["attn_mask"] = torch.rand(2, 1, 5, 5) + torch.eye(5) > 0.4
    if "gqa" in options:
        kwargs["enable_gqa"] = True
    expected = F.scaled_dot_product_attention(q, k, v, **kwargs)
    weights = torch.randn_like(expected)
    (slope,) = torch.autograd.grad((expected * weights).sum(), q)
    with explicit_operators():
        found = F.scaled_dot_product_attention(q, k, v, **kwargs)
    (first,) = torch.autograd.grad((found * weights).sum(), q)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(first, slope)


@pytest.mark.parametrize("need_weights", [False, True])
def test_multihead_attention_is_seen_through(need_weights):
    """nn.MultiheadAttention calls its softmax or its fused kernel inside one function of torch."""
    layer = nn.MultiheadAttention(6, 2, batch_first=True).double().eval().requires_grad_(False)
    x = torch.randn(1, 4, 6, dtype=torch.float64)
    with explicit_operators():
        assert degree(lambda z: layer(z, z, z, need_weights=need_weights)[0], x) == 3


class LayerNormMixer(nn.Module):
    """Attention under a name that promises a norm."""

    def forward(self, z):
        z = (z - z.mean(-1, keepdim=True)) / z.std(-1, keepdim=True)
        return torch.softmax(z @ z.transpose(-2, -1), -1) @ z


class AlmostNorm(HandWrittenLayerNorm):
    """A norm plus a product that is a millionth of it."""

    def forward(self, z):
        y = super().forward(z)
        return y + 1e-6 * y * y.mean(-2, keepdim=True)


def test_norms_written_by_hand_are_one_tangent_whatever_their_name():
    x = torch.randn(3, 6, dtype=torch.float64)
    for operator in (HandWrittenLayerNorm(), Standardised(), nn.Sequential(nn.Identity(), Standardised())):
        with explicit_operators(operator) as names:
            assert degree(operator, x) == 1
            torch.testing.assert_close(operator(x.clone().requires_grad_()), operator(x))
        assert names & {"HandWrittenLayerNorm", "Standardised"}
        assert not any("forward" in module.__dict__ for module in operator.modules())


def test_a_name_does_not_make_a_norm():
    x = torch.randn(1, 4, 6, dtype=torch.float64)
    for operator in (LayerNormMixer(), AlmostNorm()):
        with explicit_operators(operator) as names:
            assert degree(operator, x) > 1
        assert not names


@pytest.mark.parametrize("norm", [nn.LayerNorm(6), HandWrittenLayerNorm()])
def test_a_norm_whose_forward_pass_was_patched_is_what_it_computes(norm):
    norm, own = norm.double(), norm.forward
    norm.forward = lambda z: own(z) * own(z).mean(-2, keepdim=True)
    x = torch.randn(1, 4, 6, dtype=torch.float64)
    with explicit_operators(norm) as names:
        assert degree(norm, x) > 1
    assert not names


class Statistics(nn.Module):
    """A norm over any axes or groups, with scale and shift, on maps or tokens; float32 parameters."""

    def __init__(self, shape, axes, *, centred, groups=1):
        super().__init__()
        self.axes, self.centred, self.groups = axes, centred, groups
        self.weight = nn.Parameter(torch.randn(shape[1:]))
        self.bias = nn.Parameter(torch.randn(shape[1:]))

    def forward(self, z):
        shape = z.shape
        z = z.unflatten(1, (self.groups, -1)).flatten(2) if self.groups > 1 else z
        axes = (2,) if self.groups > 1 else self.axes
        z = z - z.mean(axes, keepdim=True) if self.centred else z
        z = z / torch.sqrt((z * z).mean(axes, keepdim=True) + 1e-5)
        return z.reshape(shape) * self.weight + self.bias


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize(
    ("shape", "axes", "groups"),
    [
        ((2, 6, 4, 5), (1,), 1),
        ((2, 6, 4, 5), (2, 3), 1),
        ((2, 6, 4, 5), (1, 2, 3), 1),
        ((2, 4, 5, 6), (3,), 1),
        ((2, 5, 6), (2,), 1),
        ((2, 6, 4, 5), (), 3),
        ((2, 8), (1,), 1),
    ],
)
def test_any_normalisation_is_told(shape, axes, groups, centred):
    torch.manual_seed(0)
    module = Statistics(shape, axes, centred=centred, groups=groups)
    assert is_norm(module, (torch.randn(shape),), {})
    assert is_norm(module, (), {"z": torch.randn(shape)})


@pytest.mark.parametrize(
    "module",
    [
        nn.Sigmoid(), nn.Softmax(1), nn.Identity(), nn.Dropout(), GlobalResponseNorm(6, channels_last=False),
        SEModule(6, rd_channels=3), nn.Conv2d(6, 6, 1),
    ],
    ids=lambda module: type(module).__name__,
)  # fmt: skip
def test_what_is_no_norm_is_not_taken_for_one(module):
    assert not is_norm(module, (torch.randn(2, 6, 4, 5),), {})


class Refusing(nn.Module):
    """A norm of one image, which takes nothing else."""

    def forward(self, z):
        if len(z) > 1:
            raise RuntimeError("one image, please")
        return nn.functional.layer_norm(z, z.shape[1:])


def test_what_cannot_be_asked_is_no_norm():
    norm = Statistics((2, 6), (1,), centred=True, groups=1)
    assert is_norm(norm, (torch.randn(2, 6),), {})
    for args in ((), (3,), (torch.randn(6),), (torch.ones(2, 6, dtype=torch.int64),), (torch.randn(2, 0),)):
        assert not is_norm(norm, args, {})
    assert not is_norm(Refusing(), (torch.randn(1, 6, 4),), {})


@pytest.mark.parametrize(
    "norm", [LayerNorm2d(6), RmsNorm2d(6), SimpleNorm2d(6), GroupNorm1(6), nn.LocalResponseNorm(2)]
)
def test_timms_norms_have_degree_one(norm):
    x = torch.randn(1, 6, 4, 5, dtype=torch.float64)
    norm = norm.double().eval().requires_grad_(False)
    with explicit_operators(norm):
        assert degree(norm, x) == 1


def test_declared_modules_are_one_tangent():
    class Gate(nn.Module):
        def forward(self, z):
            return z * z.mean(-1, keepdim=True)

    x = torch.randn(3, 6, dtype=torch.float64)
    operator = nn.Sequential(nn.Identity(), Gate())
    with explicit_operators(operator):
        assert degree(operator, x) == 2
    for what in (Gate, "Gate", operator[1]):
        with explicit_operators(operator, nonlinear=[what]):
            assert degree(operator, x) == 1
            torch.testing.assert_close(operator(x.clone().requires_grad_()), operator(x))
    assert "forward" not in operator[1].__dict__


def test_a_declared_module_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match=r"not in the operator: PReLU\. It is made of Linear"):
        explicit_operators(nn.Linear(2, 2), nonlinear=[nn.PReLU]).__enter__()


def test_forward_passes_go_home_after_an_error():
    layer = nn.Sequential(nn.LayerNorm(3))
    with pytest.raises(RuntimeError, match="normalized_shape"), explicit_operators(layer):
        layer(torch.zeros(2, 4, requires_grad=True))
    assert "forward" not in layer[0].__dict__
