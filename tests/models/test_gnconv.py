import re
from itertools import pairwise

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from horinsight import GlobalLocalFilter, GnConv
from horinsight.models.gnconv import depthwise_operator, gnconv_dims, pointwise_conv

KINDS = [
    {"depthwise": "conv", "kernel_size": 3},
    {"depthwise": "conv", "kernel_size": 7},
    {"depthwise": "pool", "kernel_size": 3},
    {"depthwise": "gf", "gf_size": (5, 4)},
]


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_equals_the_equations_written_out(order, kind):
    layer = GnConv(32, order, scale=0.7, **kind).double()
    x = torch.randn(2, 32, 5, 6, dtype=torch.float64)
    expected = oracles.gnconv(x, layer)
    # rounding of float64 grows with the number of terms, here below 1e4
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("size", [(5, 6), (5, 7), (1, 1), (9, 2), (3, 11)])
def test_gf_at_other_map_sizes_than_its_own(size):
    layer = GlobalLocalFilter(6, h=5, w=4).double()
    nn.init.normal_(layer.complex_weight)
    nn.init.normal_(layer.pre_norm.bias)
    nn.init.normal_(layer.post_norm.weight)
    x = torch.randn(2, 6, *size, dtype=torch.float64)
    expected = oracles.global_local_filter(x.numpy(), layer)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=0, atol=1e-11 * np.abs(expected).max())


def test_any_function_of_dim_can_be_the_depthwise_operator():
    layer = GnConv(8, 3, depthwise=lambda dim: nn.Conv2d(dim, dim, 3, padding=2, dilation=2, groups=dim))
    assert layer.dwconv.dilation == (2, 2)
    assert layer.dwconv.in_channels == 14
    assert layer(torch.zeros(1, 8, 9, 9)).shape == (1, 8, 9, 9)


@given(exponent=st.integers(0, 5), odd=st.integers(0, 3).map(lambda m: 2 * m + 1), order=st.integers(1, 7))
def test_dims_fill_the_projection_or_are_refused(exponent, odd, order):
    dim = odd * 2**exponent
    if exponent >= order - 1:
        dims = gnconv_dims(dim, order)
        assert len(dims) == order
        assert dims[-1] == dim
        assert all(2 * a == b for a, b in pairwise(dims))
        assert sum(dims) + dims[0] == 2 * dim
    else:
        with pytest.raises(ValueError, match=rf"divisible by 2\^{order - 1} = {2 ** (order - 1)}.*got dim={dim}"):
            gnconv_dims(dim, order)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 12, "order": 4}, "use dim=8 or 16"),
        ({"dim": 2, "order": 3}, "use dim=4"),
        ({"dim": 8, "order": 0}, "order >= 1"),
        ({"dim": 8, "order": 2, "kernel_size": 4}, "odd"),
        ({"dim": 8, "order": 2, "depthwise": "gf", "kernel_size": 3}, "kernel_size applies"),
        ({"dim": 8, "order": 2, "gf_size": (4, 3)}, "gf_size applies"),
        ({"dim": 8, "order": 2, "depthwise": "fourier"}, "fourier"),
        ({"dim": 1, "order": 1, "depthwise": "gf"}, "divisible by 2^1 = 2"),
        ({"dim": 16, "order": 5, "depthwise": "gf"}, "divisible by 2^5 = 32"),
    ],
)
def test_wrong_options_are_refused_with_what_to_do(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        GnConv(options.pop("dim"), options.pop("order"), **options)


def test_defaults_of_the_depthwise_operator():
    assert depthwise_operator(4, "conv").kernel_size == (7, 7)
    assert depthwise_operator(4, "pool").kernel_size == 3
    assert depthwise_operator(4, "gf").complex_weight.shape == (2, 14, 8, 2)


@settings(max_examples=20, deadline=None)
@given(
    channels=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    channels_last=st.booleans(),
)
def test_pointwise_conv_is_the_convolution(channels, size, channels_last):
    layer = pointwise_conv(*channels).double()
    x = torch.randn(2, channels[0], *size, dtype=torch.float64)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    torch.testing.assert_close(layer(x), nn.functional.conv2d(x, layer.weight, layer.bias), rtol=1e-12, atol=1e-12)


def test_gf_needs_an_even_number_of_channels():
    with pytest.raises(ValueError, match="even number of channels to halve, got dim=5"):
        GlobalLocalFilter(5)
    with pytest.raises(ValueError, match="at least 1x1"):
        GlobalLocalFilter(4, h=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_dtypes_in_and_out(dtype, kind):
    layer = GnConv(8, 2, **kind).to(dtype)
    assert layer(torch.randn(1, 8, 5, 6, dtype=dtype)).dtype == dtype
