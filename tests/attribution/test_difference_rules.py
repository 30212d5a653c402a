"""DeepLIFT's rules, one by one and in networks of functions: by definition, by brute force, and whole.

Scores of softmax stay below a thousand or so here: what they are rounded by is what its contributions are wrong by.
"""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from captum.attr import DeepLift, InputXGradient, LayerDeepLift
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from horinsight import GnConv
from horinsight.attribution.deep_lift_rules import deep_lift_rules

pytestmark = [
    pytest.mark.filterwarnings("ignore:Setting forward, backward hooks"),
    pytest.mark.filterwarnings("ignore:Input Tensor . did not already require gradients"),
]
EPS = torch.finfo(torch.float64).eps
WIDTH = 8
WEIGHTS = torch.randn(9, WIDTH, WIDTH, generator=torch.Generator().manual_seed(3), dtype=torch.float64) / 3
ends = st.integers(0, 10**6)


class Written(nn.Module):
    """A network that is a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def drawn(seed: int, *shape: int, distance: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x_0 = torch.randn(shape, generator=generator, dtype=torch.float64)
    return x_0 + distance * torch.randn(shape, generator=generator, dtype=torch.float64), x_0


def explained(function, x, x_0, target=3, **options):
    model = function if isinstance(function, nn.Module) else Written(function)
    with deep_lift_rules(model, **options):
        found = DeepLift(model).attribute(x, x_0, target=target)
    return found.detach() if isinstance(found, Tensor) else tuple(part.detach() for part in found)


def difference(function, x, x_0, target=3):
    with torch.no_grad():
        return (function(x) - function(x_0))[:, target]


def assert_whole(function, x, x_0):
    found = explained(function, x, x_0).flatten(1)
    # some ten functions of sums of at most a hundred terms; the difference itself is rounded at the size of the output
    room = 1e4 * EPS * found.abs().sum(1) + 1e2 * EPS * function(x).abs().amax()
    assert ((found.sum(1) - difference(function, x, x_0)).abs() <= room).all()


def gated(x):
    h = F.silu(x @ WEIGHTS[0]) * (x @ WEIGHTS[1])
    h = F.layer_norm(h, (WIDTH,), WEIGHTS[2][0], WEIGHTS[2][1])
    h *= torch.sigmoid(x @ WEIGHTS[3])
    h = h / (1 + h.abs()).sqrt()
    return h.add_(x).mul_(2).relu_().mean(1)


def cosine_attention(x):
    q, k, v = (x @ w for w in WEIGHTS[:3])
    a = torch.einsum("bnd,bmd->bnm", F.normalize(q, dim=-1), F.normalize(k, dim=-1)) * 3
    a = (a - a.amax(-1, keepdim=True)).exp()
    return torch.einsum("bnm,bmd->bnd", a / a.sum(-1, keepdim=True), v).mean(1)


def spectral_gate(x):
    z, f = torch.fft.rfft(x, dim=1), torch.fft.rfft(torch.tanh(x @ WEIGHTS[0]), dim=1)
    return torch.fft.irfft(z * f * WEIGHTS[1][0], n=x.shape[1], dim=1).mean(1)


def in_place(x):
    out = torch.zeros_like(x)
    out[:, :2] = x[:, :2] * x[:, 1:3]
    out[:, 2:] += x[:, 2:]
    out[:, 3].mul_(out[:, 2])
    out /= 1 + out**2
    out **= 3
    F.relu(out, inplace=True)
    F.hardswish(out, inplace=True)
    return out.mean(1)


def of_many_kinds(x):
    spread, mean = torch.var_mean(x, -1, keepdim=True)
    y = (x - mean) / torch.sqrt(spread + 1e-6)
    y = torch.clamp(y, -1, 1) + F.softplus(y) + y.std(1, keepdim=True) + 2**y + torch.where(WEIGHTS[0][0] > 0, y, 0)
    y = y + torch.maximum(y, x) * torch.minimum(x, y) + torch.max(x, y)
    y = torch.lerp(torch.addcmul(y, x, x, value=0.3), x, torch.sigmoid(y))
    y = F.glu(torch.cat([y, x], -1), -1) + F.cosine_similarity(x, y, -1)[..., None]
    y = y + y.logsumexp(-1, keepdim=True) + F.log_softmax(y, 1) + y.max(-1, keepdim=True).values
    y = y + y.amin(axis=1, keepdims=True) + y.norm(dim=-1, keepdim=True) + x.abs().clamp(min=0.1) ** torch.tanh(y)
    return (y + 1 / (1 + x.exp()) + x[:, :3].prod(1, keepdim=True)).mean(1)


def pooled(x):
    maps = x.view(-1, 2, 4, 10)
    return F.adaptive_max_pool2d(F.max_pool2d(maps, 2, 1, 1).sin(), 2).flatten(1) @ WEIGHTS[0]


def heads_before_the_batch(x):
    q, k, v = (torch.cat((x @ w).split(4, -1), 0) for w in WEIGHTS[:3])
    out = torch.softmax(q @ k.transpose(1, 2), -1) @ v
    return torch.cat(out.chunk(2, 0), -1).mean(1)


def causal_attention(x):
    q, k, v = (x @ w for w in WEIGHTS[:3])
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.7).mean(1)


def masked_attention(x):
    q, k, v = (x @ w for w in WEIGHTS[:3])
    mask = torch.zeros(10, 10, dtype=torch.float64).masked_fill(torch.eye(10).bool(), -math.inf)
    return F.scaled_dot_product_attention(q, k, v, mask).mean(1)


def dynamic_convolution(x):
    num = len(x)
    kernels = (x @ WEIGHTS[0]).mean(1).reshape(num * WIDTH, 1, 1)
    maps = F.conv1d(x.transpose(1, 2).reshape(1, num * WIDTH, -1), kernels, groups=num * WIDTH)
    return maps.view(num, WIDTH, -1).mean(2)


def grouped(x):
    return (F.group_norm(x.transpose(1, 2), 2) * F.instance_norm(x.transpose(1, 2)) + F.rms_norm(x, (8,)).mT).mean(2)


def batch_second(x):
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, activation=F.gelu, dtype=torch.float64).eval()
    torch.manual_seed(0)
    for parameter in layer.requires_grad_(False).parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer(x.permute(1, 0, 2)).mean(0)


NETWORKS = [gated, cosine_attention, spectral_gate, in_place, of_many_kinds, pooled, heads_before_the_batch,
            causal_attention, masked_attention, dynamic_convolution, grouped, batch_second]  # fmt: skip


@pytest.mark.parametrize("function", NETWORKS)
@pytest.mark.parametrize("distance", [1e-7, 1.0])
def test_a_network_of_functions_is_explained_whole(function, distance):
    x, x_0 = drawn(0, 2, 10, WIDTH, distance=distance)
    assert_whole(function, x, x_0)
    if distance == 1 and function is not in_place:  # whose copies captum's inputs cannot give without rules
        plain = DeepLift(Written(function)).attribute(x, x_0, target=3).flatten(1).sum(1)
        whole = difference(function, x, x_0)
        assert ((plain - whole).abs() > 1e-3 * whole.abs()).any(), "gradients in place of rules are not whole"


STEPS = {
    "gelu": F.gelu,
    "silu": F.silu,
    "sine": torch.sin,
    "relu": torch.relu,
    "hardtanh": F.hardtanh,
    "steps": lambda z: z.round(),
    "linear": lambda z: z @ WEIGHTS[4] + 0.1,
    "mixed": lambda z: torch.einsum("bnd,mn->bmd", z, torch.linspace(-1, 1, 16, dtype=torch.float64).view(4, 4)),
    "layer_norm": lambda z: F.layer_norm(z, (WIDTH,)),
    "rms_norm": lambda z: F.rms_norm(z, (WIDTH,), eps=1e-3),
    "response_norm": lambda z: z * z.norm(dim=1, keepdim=True) / (z.norm(dim=1, keepdim=True).mean(-1, True) + 1e-3),
    "square": lambda z: z * z / 8,
    "gate": lambda z: z * torch.sigmoid(z @ WEIGHTS[5]),
    "rolled": lambda z: z * z.roll(1, 1),
    "softmax": lambda z: z.softmax(1),
    "attention": lambda z: F.scaled_dot_product_attention(z, z @ WEIGHTS[6], z, scale=0.1),
    "quotient": lambda z: z / (1 + z.square()),
    "power": lambda z: (0.1 + z.abs()) ** 1.5 / 4,
    "pooled": lambda z: z + F.max_pool1d(z.transpose(1, 2), 3, 1, 1).transpose(1, 2),
}


@settings(max_examples=100, deadline=None)
@given(
    names=st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=6),
    distance=st.sampled_from([1e-6, 1e-2, 1.0, 4.0]),
    seed=ends,
)
@example(names=sorted(STEPS), distance=1.0, seed=0)
@example(names=["hardtanh"], distance=4.0, seed=1)
def test_random_networks_are_explained_whole(names, distance, seed):
    def network(x):
        z = x
        for name in names:
            y = STEPS[name](z)
            z = 0.5 * z + y
        return z.mean(1)

    x, x_0 = drawn(seed, 2, 4, WIDTH, distance=distance)
    assert_whole(network, x, x_0)


def test_of_a_linear_network_it_is_input_times_gradient():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 5)
    ).double()
    x, _ = drawn(1, 2, 3, 8, 8)
    expected = InputXGradient(model.eval()).attribute(x, target=1)
    torch.testing.assert_close(explained(model, x, 0 * x, 1), expected.detach(), rtol=1e-12, atol=1e-14)


def shapley(game, num: int) -> list[Tensor]:
    """Each player's value, by all orders."""
    values = [torch.zeros(()) for _ in range(num)]
    orders = list(itertools.permutations(range(num)))
    for order in orders:
        for place, player in enumerate(order):
            before = set(order[:place])
            values[player] = values[player] + (game(before | {player}) - game(before)) / len(orders)
    return values


@pytest.mark.parametrize("num", [2, 3, 4])
def test_of_a_product_each_factor_has_its_shapley_value(num):
    ends = [drawn(seed, 1, 5, 4) for seed in range(num)]
    equation = ",".join(["bnd"] * num) + "->bd"
    model = Written(lambda *factors: torch.einsum(equation, *factors))
    found = explained(model, tuple(x for x, _ in ends), tuple(x_0 for _, x_0 in ends))

    def game(players):
        return torch.einsum(equation, *[ends[k][k not in players] for k in range(num)])[0, 3]

    expected = torch.stack(shapley(game, num))
    torch.testing.assert_close(torch.stack([part.sum() for part in found]), expected, rtol=1e-11, atol=1e-12)


def test_softmax_by_the_definition_of_its_rule():
    x, x_0 = drawn(5, 1, 6)
    e, e_0, log_s, log_s_0 = x.exp(), x_0.exp(), x.logsumexp(1), x_0.logsumexp(1)
    w = (e - e_0) / (x - x_0) * (log_s - log_s_0) / (e.sum() - e_0.sum())
    z, z_0 = (x - log_s)[0, 2], (x_0 - log_s_0)[0, 2]
    slope = (z.exp() - z_0.exp()) / (z - z_0)
    expected = slope * (torch.eye(6, dtype=torch.float64)[2] - w) * (x - x_0)
    torch.testing.assert_close(explained(lambda z: z.softmax(1), x, x_0, 2), expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("shift", [0.0, 30.0, 2000.0])
def test_a_shift_of_all_scores_costs_softmax_nothing(shift):
    x, x_0 = drawn(6, 1, 6)
    found = explained(lambda z: z.softmax(1), x + shift, x_0, 2)
    assert float(found.sum()) == pytest.approx(
        float(difference(lambda z: z.softmax(1), x, x_0, 2)), abs=1e2 * EPS * max(shift, 1)
    )
    assert float(found.abs().sum()) <= 4 * (6 + shift), "no exponential of the shift"


def test_the_largest_element_hands_on_as_captums_own_rule_does():
    model = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 4)).double()
    x, x_0 = drawn(7, 3, 3, 6, 6)
    expected = DeepLift(model).attribute(x, x_0, target=3)
    torch.testing.assert_close(explained(model, x, x_0), expected.detach(), rtol=1e-9, atol=1e-12)


def factors_apart(order: int, *, bias: bool) -> GnConv:
    """A gⁿConv whose input channels are p_0 and what makes each f_k, in turn."""
    torch.manual_seed(order)
    layer = GnConv(16, order, kernel_size=3).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5 if parameter.ndim > 1 else 0.3 * bias)
    layer.proj_in = nn.Identity()
    return layer


@pytest.mark.parametrize("order", [1, 2, 4])
def test_fair_shares_of_a_gnconv_are_shapley_values(order):
    layer = factors_apart(order, bias=True)
    x, x_0 = drawn(8, 1, 32, 3, 3)
    model = nn.Sequential(layer, nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    widths = [layer.dims[0], *layer.dims]

    def game(players):
        both = zip(x.split(widths, 1), x_0.split(widths, 1), strict=True)
        with torch.no_grad():
            return model(torch.cat([end[k not in players] for k, end in enumerate(both)], 1))[0, 3]

    found = explained(model, x, x_0, gnconv_products="fair")
    shares = torch.stack([part.sum() for part in found.split(widths, 1)])
    torch.testing.assert_close(shares, torch.stack(shapley(game, order + 1)), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("products", "shares"), [("fair", [1 / 4] * 4), ("recursive", [1 / 8, 1 / 8, 1 / 4, 1 / 2])])
def test_shares_from_a_baseline_of_zero(products, shares):
    layer = factors_apart(3, bias=False)
    model = nn.Sequential(layer, nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    x, _ = drawn(9, 1, 32, 3, 3)
    found = explained(model, x, 0 * x, gnconv_products=products)
    parts = torch.stack([part.sum() for part in found.split([layer.dims[0], *layer.dims], 1)])
    expected = difference(model, x, 0 * x) * torch.tensor(shares, dtype=torch.float64)
    torch.testing.assert_close(parts, expected, rtol=1e-10, atol=1e-14)


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * ctx.saved_tensors[0] * grad


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells = nn.LSTM(WIDTH, WIDTH, batch_first=True, dtype=torch.float64)

    def forward(self, x):
        return self.cells(x)[0][:, -1]


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda x: x.cumprod(1).mean(1), "no rule for torch.Tensor.cumprod"),
        (lambda x: x.sort(1).values[:, 0], "no rule for torch.Tensor.sort"),
        (lambda x: F.dropout(x, 0.5, True).mean(1), "no rule for torch.dropout"),
        (lambda x: Square.apply(x @ WEIGHTS[0]).mean(1), "no rule for Square"),
        (Recurrent(), "no rule for torch.lstm"),
        (lambda x: (x * (x > 0)).mean(1), "without a gradient: torch.Tensor.gt"),
        (lambda x: (x * x.detach()).mean(1), "without a gradient: torch.Tensor.detach"),
        (lambda x: (x * torch.no_grad()(torch.sigmoid)(x)).mean(1), "without a gradient: torch.sigmoid"),
    ],
)
def test_what_has_no_rule_is_named(function, named):
    with pytest.raises(ValueError, match=named):
        explained(function, *drawn(10, 2, 10, WIDTH))


def test_a_layer_that_all_goes_through_is_explained_whole():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 5), nn.Softmax(-1)).double()
    x, x_0 = drawn(11, 3, WIDTH)
    for layer in model[:4]:
        with deep_lift_rules(model):
            found = LayerDeepLift(model, layer).attribute(x, x_0, target=3)
        torch.testing.assert_close(found.sum(1).detach(), difference(model, x, x_0), rtol=1e-11, atol=1e-13)


def test_a_module_used_twice_and_a_part_of_the_model():
    torch.manual_seed(0)
    act = nn.ReLU(inplace=True)
    model = nn.Sequential(nn.Linear(WIDTH, 6), act, nn.Linear(6, WIDTH), act, nn.Linear(WIDTH, 5)).double()
    x, x_0 = drawn(12, 3, WIDTH)
    with pytest.raises(RuntimeError, match="used more than once"):
        DeepLift(model).attribute(x, x_0, target=3)
    assert_whole(model, x, x_0)
    with deep_lift_rules(model):
        found = DeepLift(model[:2]).attribute(x, x_0, target=3)
        part = DeepLift(model[0]).attribute(x, x_0, target=3)
    torch.testing.assert_close(found.sum(1), difference(model[:2], x, x_0), rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(part.sum(1), difference(model[0], x, x_0), rtol=1e-11, atol=1e-13)


def test_values_gradients_and_flags_are_as_before():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, 6), nn.Dropout(), nn.Softmax(-1)).double().train()
    x = torch.randn(4, WIDTH, dtype=torch.float64, requires_grad=True)
    with deep_lift_rules(model):
        inside = model(x)
    assert all(part.training for part in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any({"forward", "apply"} & set(vars(part)) for part in model.modules())
    assert torch.equal(inside, model.eval()(x))


@pytest.mark.parametrize(
    ("model", "option", "message"),
    [
        (nn.ReLU(), "half", 'gnconv_products expects "recursive" or "fair", got \'half\''),
        (nn.ReLU(), "fair", "expects a model with a GnConv, got ReLU without"),
    ],
)
def test_options_are_checked(model, option, message):
    with pytest.raises(ValueError, match=message), deep_lift_rules(model, gnconv_products=option):
        pass
