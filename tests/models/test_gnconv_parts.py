"""What a gnConv is: parts, widths, scale and the kinds of f, against the modules that they are told by."""

import pytest
import torch
from gnconv_look_alikes import GNCONVS, NO_GNCONVS, DetectorsGnConv, PublishedFilter
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import large_weights
from torch import nn

from horinsight import GnConv, named_blocks
from horinsight.models.depthwise_kinds import DepthwiseConv, GlobalLocal, MeanPool, depthwise_kind
from horinsight.models.gnconv_parts import GnConvParts, linear_over_channels


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", [*GNCONVS, *NO_GNCONVS])
def test_every_look_alike_is_listed_and_told_apart(name):
    layer = {**GNCONVS, **NO_GNCONVS}[name]()
    blocks = named_blocks(nn.Sequential(nn.Conv2d(3, layer.dims[-1], 1), layer))
    positions_meet = name != "f alone a batch norm"
    assert [(block.mixer, block.order, block.module) for block in blocks] == [
        ("gnconv", len(layer.dims), layer)
    ] * positions_meet
    parts = GnConvParts.of(layer)
    assert bool(parts.missing) is (name in NO_GNCONVS)
    if not parts.missing:
        assert list(parts.dims) == layer.dims


@pytest.mark.parametrize("order", [1, 2, 5])
@pytest.mark.parametrize("kind", ["conv", "pool", "gf"])
def test_the_parts_of_ours(order, kind):
    layer = GnConv(32, order, depthwise=kind)
    parts = GnConvParts.of(layer)
    assert (parts.missing, parts.order, list(parts.dims), parts.scale) == ("", order, layer.dims, 1 / 3)
    assert isinstance(parts.f, {"conv": DepthwiseConv, "pool": MeanPool, "gf": GlobalLocal}[kind])


@given(
    kernel=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    padding=st.one_of(st.sampled_from(["same", "valid"]), st.tuples(st.integers(0, 6), st.integers(0, 6))),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 3),
    mode=st.sampled_from(["zeros", "reflect", "circular"]),
    groups=st.sampled_from([1, 4]),
)
@settings(max_examples=200)
def test_convolutions_that_are_a_known_f(kernel, padding, stride, dilation, mode, groups):
    """Known are those that keep the map between zeros; what is known computes the same."""
    if padding == "same" and stride > 1:
        return  # which torch does not have
    conv = nn.Conv2d(4, 4, kernel, stride, padding, dilation, groups, padding_mode=mode).double()
    known = DepthwiseConv.of(conv)
    x = torch.randn(1, 4, 19, 20, dtype=torch.float64)
    keeps = conv(x).shape == x.shape if all(dilation * (k - 1) < 19 for k in kernel) else False
    plain = mode == "zeros" or kernel == (1, 1)
    odd = all(k % 2 for k in kernel)
    depthwise = groups == 4
    assert (known is not None) is bool(keeps and plain and odd and depthwise and stride == 1)
    if known is not None:
        torch.testing.assert_close(known(x), conv(x))
        assert (known.kernel_size, known.dilation) == (kernel, (dilation, dilation))


@given(
    size=st.tuples(st.sampled_from([1, 3, 5]), st.sampled_from([1, 3, 5])),
    map_size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    counted=st.booleans(),
    ceil=st.booleans(),
    divisor=st.sampled_from([None, 1, 5]),
)
def test_poolings_by_their_shares(size, map_size, counted, ceil, divisor):
    """A mean pooling is a sum over the window times a share; as a matrix, by its Jacobian."""
    padding = (size[0] // 2, size[1] // 2)
    pool = nn.AvgPool2d(size, 1, padding, ceil, counted, divisor)
    known, N = MeanPool.of(pool), map_size[0] * map_size[1]
    eye = torch.eye(N, dtype=torch.float64).view(N, 1, *map_size)
    matrix = pool(eye).view(N, N).T  # (i, j)
    torch.testing.assert_close(known(eye), pool(eye))
    share = known.share(*map_size).flatten()
    torch.testing.assert_close(matrix, (matrix != 0) * share[:, None])


@pytest.mark.parametrize(
    "layer",
    [
        nn.AvgPool2d(2, 1),
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d(3, 1),
        nn.MaxPool2d(3, 1, 1),
        nn.Conv3d(4, 4, 3),
        nn.ReLU(),
    ],
)
def test_other_layers_are_no_f(layer):
    assert depthwise_kind(layer) is None


def test_the_published_filter_is_known_by_its_parts():
    layer = large_weights(PublishedFilter(8))
    f = depthwise_kind(layer)
    assert isinstance(f, GlobalLocal)
    z = layer.pre_norm(torch.randn(1, 8, 6, 5))
    between = []
    layer.post_norm.register_forward_pre_hook(lambda _, inputs: between.append(inputs[0]))
    layer.pre_norm.register_forward_hook(lambda *_: z)
    layer(z)
    torch.testing.assert_close(f.interleaved(z), between[0], rtol=1e-4, atol=1e-4)
    assert f.source(torch.arange(8)).tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_linear_maps_of_every_spelling(groups):
    conv, x = nn.Conv2d(4, 8, 1, groups=groups), torch.randn(2, 4, 3, 5)
    found = linear_over_channels(conv)(x.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(found, conv(x))
    linear = nn.Linear(4, 8)
    torch.testing.assert_close(linear_over_channels(linear)(x.movedim(1, -1)), linear(x.movedim(1, -1)))
    assert linear_over_channels(nn.Conv2d(4, 8, 1, padding=1)) is None
    assert linear_over_channels(nn.Conv2d(4, 8, 1, stride=2)) is None
    assert linear_over_channels(nn.Conv2d(4, 8, 1, padding="same")) is not None


@pytest.mark.parametrize("module", [nn.Linear(3, 3), nn.Sequential(), object(), None])
def test_what_is_not_shaped_like_a_gnconv(module):
    assert GnConvParts.of(module) is None


def test_a_list_of_functions_is_no_list_of_linear_maps():
    layer = DetectorsGnConv()
    del layer.pws
    layer.pws = [torch.relu]
    assert GnConvParts.of(layer) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"proj_in": nn.Conv2d(8, 20, 1)}, r"do not split: .* 4 \+ 12 = 16, but it gives 20"),
        ({"proj_out": nn.Conv2d(6, 8, 1)}, "do not follow each other"),
        ({"pws": nn.ModuleList([nn.Identity()])}, "cannot be told: .* got Conv2d, Identity, Conv2d"),
        ({"scale": "1"}, "scale .* got str"),
        ({"scale": torch.ones(5)}, r"one for each of 12 channels, got Tensor of shape \(5,\)"),
        ({"dwconv": nn.Conv2d(6, 6, 3, padding=1, groups=6)}, "Conv2d is no f of a known kind"),
    ],
)
def test_what_is_missing_is_said(change, message):
    layer = DetectorsGnConv()
    for name, value in change.items():
        setattr(layer, name, value)
    with pytest.raises(ValueError, match=message):
        raise ValueError(GnConvParts.of(layer).missing)
