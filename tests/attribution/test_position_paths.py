"""The gradient of a position is the path of the values, which mixing weights show, and that of the gates: by hand."""

import pytest
import torch
from torch import Tensor, nn

from horinsight import GlobalLocalFilter, GnConv, explicit_operators, mixing_weights
from horinsight.attribution.position_paths import position_paths


def layer_of(order: int, **options) -> GnConv:
    torch.manual_seed(order)
    layer = GnConv(8, order, **options).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer.requires_grad_(False)


def gates_by_hand(layer: GnConv, x: Tensor, row: int, col: int, channel: int) -> Tensor:
    """Product rule along the recursion (Eq. 3.3), dense: dp_n/dx at i with f_{n-1}(q_{n-1}) held, from matrices alone.

    f_k(q_k)_i = w_k * q_k around i + bias; every g_k is linear at i.
    """
    dims, n, s = layer.dims, layer.order, layer.scale
    W_in, b_in = layer.proj_in.weight[:, :, 0, 0], layer.proj_in.bias
    H, W = x.shape[2:]
    z = torch.einsum("ca,ahw->chw", W_in, x[0]) + b_in[:, None, None]
    p, q = z.split([dims[0], sum(dims)])
    taps = layer.dwconv.weight[:, 0]
    K = taps.shape[-1] // 2
    F, dF = torch.zeros(sum(dims), dtype=x.dtype), torch.zeros(sum(dims), *x.shape[1:], dtype=x.dtype)
    for dr in range(-K, K + 1):
        for dc in range(-K, K + 1):
            r, c = row + dr, col + dc
            if 0 <= r < H and 0 <= c < W:
                w = s * taps[:, dr + K, dc + K]
                F += w * q[:, r, c]
                dF[:, :, r, c] += w[:, None] * W_in[dims[0] :]
    F += s * layer.dwconv.bias
    P = p[:, row, col]
    dP = torch.zeros(dims[0], *x.shape[1:], dtype=x.dtype)
    dP[:, :, row, col] = W_in[: dims[0]]
    start = 0
    for k in range(n):
        if k:
            g = layer.pws[k - 1]
            weight = g.weight[:, :, 0, 0]
            P, dP = weight @ P + g.bias, torch.einsum("kc,cahw->kahw", weight, dP)
        f, df = F[start : start + dims[k]], dF[start : start + dims[k]]
        held = k == n - 1  # the value of the last step
        dP = dP * f[:, None, None, None] + (0 if held else P[:, None, None, None] * df)
        P, start = P * f, start + dims[k]
    return torch.einsum("c,cahw->ahw", layer.proj_out.weight[channel, :, 0, 0], dP)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("query", [(2, 2), (0, 4)])
def test_values_and_gates_are_the_gradient(order, query):
    layer = layer_of(order, kernel_size=3)
    x = torch.randn(1, 8, 4, 5, dtype=torch.float64)
    channel = 5
    z = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(layer(z)[0, channel, *query], z)
    h = mixing_weights(layer, x).at(*query)
    W_v = layer.proj_in.weight[-8:, :, 0, 0]
    values = torch.einsum("c,bchw,ca->bahw", layer.proj_out.weight[channel, :, 0, 0], h, W_v)
    gates = gates_by_hand(layer, x, *query, channel)[None]
    torch.testing.assert_close(values + gates, gradient, rtol=1e-6, atol=1e-12)
    found = position_paths(layer, x, query, channel)
    for ours, expected in ((found.values, values), (found.gates, gates), (found.gradient, gradient)):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)
    assert min(float(part.abs().max()) for part in (values, gates)) > 1e-2 * float(gradient.abs().max())
    assert all(parameter.requires_grad is False for parameter in layer.parameters())


def test_a_gate_of_order_one_lies_at_the_query_alone():
    layer = layer_of(1)
    found = position_paths(layer, torch.randn(2, 8, 4, 4, dtype=torch.float64), (1, 2), 0)
    elsewhere = torch.ones(4, 4, dtype=torch.bool)
    elsewhere[1, 2] = False
    assert (found.gates[..., elsewhere] == 0).all()
    assert (found.values[..., elsewhere] != 0).all()


def test_with_tangent_operators_it_is_the_same_identity():
    layer = layer_of(3, depthwise="pool")
    block = nn.Sequential(nn.GELU(), layer)
    x = torch.randn(1, 8, 4, 4, dtype=torch.float64)
    z = x.clone().requires_grad_()
    with explicit_operators(block):
        (gradient,) = torch.autograd.grad(block(z)[0, 2, 1, 1], z)
    paths = position_paths(layer, nn.functional.gelu(x), (1, 1), 2)
    z = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(nn.functional.gelu(z).sum(), z)
    torch.testing.assert_close((paths.values + paths.gates) * slope, gradient, rtol=1e-6, atol=1e-12)


def test_bad_input_is_one_line():
    x = torch.randn(1, 8, 4, 4)
    for layer in (nn.Conv2d(8, 8, 3), GnConv(8, 2, depthwise=lambda dim: GlobalLocalFilter(dim, h=4, w=3))):
        with pytest.raises(ValueError, match="expects a gnConv with a depthwise convolution or pooling"):
            position_paths(layer, x, (0, 0), 0)
    for query, channel in (((4, 0), 0), ((0, 0), 8), ((-1, 0), 0)):
        with pytest.raises(ValueError, match="target expects"):
            position_paths(GnConv(8, 2), x, query, channel)
