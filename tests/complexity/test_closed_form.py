"""Eq. 3.6: closed form against counting, and the bound by algebra and by search."""

import dataclasses
import json
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import sympy
import timm
import torch
from gnconv_look_alikes import GNCONVS, NO_GNCONVS, DetectorsGnConv
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from horinsight import GnConv, attention_macs, count_macs, gnconv_bounds, gnconv_macs, gnconv_terms, macs_bound
from horinsight.complexity.bound import count_and_bounds
from horinsight.complexity.growth import order_growth, size_growth
from horinsight.mixers.blocks import named_blocks
from horinsight.models.registry import list_models, model_without_weights

SIZES = st.tuples(st.integers(1, 8), st.integers(1, 6), st.integers(0, 15), st.integers(1, 96), st.integers(1, 96))


class OnMaps(nn.Module):
    """A gnConv that takes images: `count_macs` gives them the channels of the first convolution."""

    def __init__(self, gnconv: nn.Module, dim: int) -> None:
        super().__init__()
        self.stem, self.gnconv = nn.Conv2d(dim, dim, 1, groups=dim, bias=False), gnconv

    def forward(self, x):
        return self.gnconv(self.stem(x))


@settings(max_examples=60)
@given(SIZES)
def test_closed_form_is_what_a_forward_pass_does(sizes):
    order, multiple, half_kernel, height, width = sizes
    dim, kernel_size = multiple * 2 ** (order - 1), 2 * half_kernel + 1
    with torch.device("meta"):
        model = OnMaps(GnConv(dim, order, kernel_size=kernel_size), dim)
    (check,) = gnconv_bounds(model, (height, width))
    terms = gnconv_terms(dim, order, kernel_size, height, width)
    assert check.macs == check.closed_form == terms.macs == gnconv_macs(dim, order, kernel_size, height, width)
    assert check.with_scale_and_biases == terms.with_scale_and_biases
    assert (check.height, check.width, check.kernel_size, check.dim) == (height, width, kernel_size, dim)
    assert check.holds
    assert check.ratio < 1
    spent = count_macs(model, (height, width)).by_module["gnconv"]
    assert spent["products"] == terms.gates
    assert spent["scaling"] == terms.scale
    assert spent["biases"] == terms.biases


@given(SIZES)
def test_terms_sum_to_the_formula_and_stay_below_the_bound(sizes):
    n, multiple, half_kernel, H, W = sizes
    C, K = multiple * 2 ** (n - 1), 2 * half_kernel + 1
    quarter, half = Fraction(1, 4 ** (n - 1)), Fraction(1, 2**n)
    formula = H * W * C * (3 * C + Fraction(2, 3) * C * (1 - quarter) + 2 * K**2 * (1 - half) + 2 - 2 * half)
    found = gnconv_macs(C, n, K, H, W)
    assert found == formula
    bound = macs_bound(C, K, H, W)
    assert found < bound
    assert bound - found == H * W * C * (Fraction(2, 3) * C * quarter + 2 * K**2 * half + 2 * half), "the docstring's"


def test_the_inequality_for_every_order_by_algebra():
    C, K, H, W, n = sympy.symbols("C K H W n", positive=True)
    k = sympy.symbols("k", integer=True)
    m = sympy.symbols("m", integer=True, positive=True)  # n as an integer, for the sums
    widths = C / 2 ** (m - 1 - k)
    total = sympy.summation(widths, (k, 0, m - 1))
    steps = sympy.summation(widths.subs(k, k - 1) * widths, (k, 1, m - 1))
    cost = H * W * (3 * C**2 + steps + (K**2 + 1) * total)
    bound = H * W * C * (2 * K**2 + sympy.Rational(11, 3) * C + 2)
    margin = H * W * C * (sympy.Rational(2, 3) * C * 4 ** (1 - m) + (K**2 + 1) * 2 ** (1 - m))
    t = sympy.symbols("t", positive=True)  # 2^m: what is left is rational in it
    assert sympy.simplify((bound - cost - margin).subs(m, sympy.log(t, 2))) == 0
    assert margin.subs(m, n).is_positive, "for every n, and so strict"
    assert sympy.limit(margin.subs(m, n), n, sympy.oo) == 0, "and tight"


@pytest.mark.parametrize("name", [n for n in list_models("hornet_*") if "gf" not in n])
def test_every_gnconv_of_every_7x7_model(name):
    model = model_without_weights(name)
    size = 384 if "384" in name else 96 if "test" in name else 224
    checks = gnconv_bounds(model, size)
    assert len(checks) == len(named_blocks(model))
    for check in checks:
        assert check.applicable
        assert check.holds
        assert check.macs == check.closed_form < check.bound
        assert check.margin == pytest.approx(check.bound - check.macs)


def test_stage_ratios_of_hornet_tiny():
    checks = {check.dim: check for check in gnconv_bounds(model_without_weights("hornet_tiny_7x7"), 224)}
    assert [round(check.ratio, 3) for check in checks.values()] == [0.893, 0.969, 0.991, 0.998]
    last = checks[512]
    assert round(last.with_scale_and_biases / last.bound, 3) == 1.002
    assert last.holds, "another convention, not a violation"
    assert round(2 * last.macs / last.bound, 2) == 2.0


def test_gf_and_pooling_are_not_covered_by_the_bound():
    checks = gnconv_bounds(model_without_weights("hornet_test_gf"), 96)
    assert [check.applicable for check in checks] == [True, True, False, False]
    for check in checks[2:]:
        assert (check.holds, check.bound, check.closed_form, check.ratio, check.kernel_size) == (None,) * 5
        assert check.macs > 0
    with torch.device("meta"):
        pooled = OnMaps(GnConv(8, 2, depthwise="pool"), 8)
    assert gnconv_bounds(pooled, 12)[0].applicable is False


class SomebodysGnConv(nn.Module):
    """Published widths under other names, or widths, kernels and sums of one's own."""

    def __init__(self, dims, kernel=(5, 5), groups=None, combine="product"):
        super().__init__()
        self.dims, self.combine = dims, combine
        C, total = dims[-1], sum(dims)
        self.proj_in = nn.Conv2d(C, dims[0] + total, 1, bias=False)
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.dwconv = nn.Conv2d(total, total, kernel, padding=padding, groups=groups or total)
        self.projs = nn.ModuleList([nn.Conv2d(a, b, 1) for a, b in pairwise(dims)])
        self.proj_out = nn.Conv2d(C, C, 1)

    def forward(self, x):
        p, q = self.proj_in(x).split([self.dims[0], sum(self.dims)], 1)
        f = self.dwconv(q).split(self.dims, 1)
        p = p + f[0] if self.combine == "sum" else p * f[0]
        for g, f_k in zip(self.projs, f[1:], strict=True):
            p = g(p) * f_k
        return self.proj_out(p * p) if self.combine == "square" else self.proj_out(p)


def somebodys_bound(dims, **options):
    with torch.device("meta"):
        model = OnMaps(SomebodysGnConv(dims, **options), dims[-1])
    (check,) = gnconv_bounds(model, (9, 7))
    return check


def test_anybodys_gnconv():
    check = somebodys_bound([4, 8, 16])
    assert check.macs == check.closed_form == gnconv_macs(16, 3, 5, 9, 7)
    assert check.holds is True


@pytest.mark.parametrize(
    ("dims", "options"),
    [
        ([8, 8, 16], {}),
        ([4, 8, 18], {}),
        ([4, 8, 16], {"kernel": (3, 5)}),
        ([4, 8, 16], {"kernel": (5, 3)}),
        ([4, 8, 16], {"groups": 1}),
        ([4, 8, 16], {"groups": 14}),
    ],
    ids=["its own widths", "widths that no order gives", "wide", "high", "dense", "grouped"],
)
def test_what_the_bound_is_not_about(dims, options):
    check = somebodys_bound(dims, **options)
    assert check.applicable is False
    assert (check.closed_form, check.bound, check.ratio, check.margin, check.holds) == (None,) * 5
    assert check.macs > 0


@pytest.mark.parametrize(("combine", "difference"), [("sum", -4), ("square", 16)])
def test_the_bound_is_not_about_what_computes_something_else(combine, difference):
    """A gate too few or a product too many stays below the bound, and is no gnConv."""
    check = somebodys_bound([4, 8, 16], combine=combine)
    assert check.macs == gnconv_macs(16, 3, 5, 9, 7) + difference * 9 * 7
    assert check.macs < macs_bound(16, 5, 9, 7)
    assert (check.applicable, check.closed_form, check.bound, check.holds) == (False, None, None, None)


class Squared(GnConv):
    """Calls itself a gnConv, and multiplies once more."""

    def forward(self, x):
        y = super().forward(x)
        return y * y


def test_a_gnconv_that_costs_more_than_its_closed_form_does_not_hold():
    with torch.device("meta"):
        model = OnMaps(Squared(16, 3), 16)
    (check,) = gnconv_bounds(model, (9, 7))
    assert check.applicable
    assert check.macs - check.closed_form == 16 * 9 * 7
    assert check.macs < check.bound
    assert check.holds is False


@pytest.mark.parametrize("name", ["convnext_atto", "test_vit"])
def test_networks_without_gnconv_have_no_bound_to_check(name):
    """Their mixers are called "depthwise_conv" and "attention"."""
    with torch.device("meta"):
        model = timm.create_model(name)
    assert gnconv_bounds(model, model.default_cfg["input_size"][-1]) == []


def test_count_and_bounds_are_those_of_the_two_functions():
    model = model_without_weights("hornet_test_gf")
    for fft in ("published", "exact"):
        count, checks = count_and_bounds(model, 96, fft=fft)
        assert count == count_macs(model, 96, fft=fft)
        assert checks == gnconv_bounds(model, 96)
        plain = {**dataclasses.asdict(checks[0]), "provenance": None}
        assert json.loads(json.dumps(plain)) == plain, "plain numbers"


COVERED = {  # by Eq. 3.6: a square depthwise convolution, full 1x1 maps of the published widths, nothing else
    *("a YOLO's", "a YOLO's, order 1", "mmpretrain's", "linear layers", "a scale a channel", "one learned scale"),
    *("no biases", "dilated", "padding by name", "a weight norm"),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", [*GNCONVS, *NO_GNCONVS])
def test_look_alikes_raise_no_false_alarm(name):
    layer = {**GNCONVS, **NO_GNCONVS}[name]()
    if name == "a scale a channel, no parameter":  # which has no shape without its numbers
        layer.scale = nn.Parameter(layer.scale)
    dim, n = layer.dims[-1], len(layer.dims)
    (check,) = gnconv_bounds(OnMaps(layer, dim), (7, 5))
    assert (check.dim, check.order, check.height, check.width) == (dim, n, 7, 5)
    assert check.macs > 0
    assert check.holds is (True if name in COVERED | {"a scale a channel, no parameter"} else None)
    assert check.applicable is (check.holds is not None)
    if check.holds:
        K = layer.dwconv.kernel_size[0]
        assert check.macs == check.closed_form == gnconv_macs(dim, n, K, 7, 5) < check.bound
        scaling = 0 if name == "linear layers" else sum(layer.dims) * 35
        biases = 0 if name == "no biases" else gnconv_terms(dim, n, K, 7, 5).biases
        assert check.with_scale_and_biases == check.macs + scaling + biases


class Further(DetectorsGnConv):
    """A gnConv that does more than one."""

    def __init__(self):
        super().__init__()
        self.further = nn.Conv2d(8, 8, 7, padding=3)

    def forward(self, x):
        return super().forward(self.further(x))


class Twice(OnMaps):
    def forward(self, x):
        return self.gnconv(self.gnconv(self.stem(x))[:, :, ::2])


def test_what_costs_more_than_a_gnconv_is_none_and_each_call_is_checked():
    (check,) = gnconv_bounds(OnMaps(Further(), 8), (7, 5))
    assert (check.applicable, check.holds, check.closed_form) == (False, None, None)
    checks = gnconv_bounds(Twice(GnConv(8, 2), 8), (8, 5))
    assert [(check.name, check.height, check.width) for check in checks] == [("gnconv", 8, 5), ("gnconv#2", 4, 5)]
    for check in checks:
        assert check.holds
        assert check.macs == gnconv_macs(8, 2, 7, check.height, 5)
        assert check.bound == float(macs_bound(8, 7, check.height, 5))


class Tokens(nn.Module):
    """A gnConv on tokens (B, N, C), or on channels-last maps."""

    def __init__(self, *, flat: bool):
        super().__init__()
        self.stem, self.gnconv, self.flat = nn.Conv2d(8, 8, 1, groups=8, bias=False), OnTokens(), flat

    def forward(self, x):
        x = self.stem(x).permute(0, 2, 3, 1)
        return self.gnconv(x.flatten(1, 2) if self.flat else x)


class OnTokens(DetectorsGnConv):
    def __init__(self):
        super().__init__(linear=nn.Linear)

    def forward(self, x):
        p, q = self.proj_in(x).split((4, 12), dim=-1)
        q = q.reshape(-1, 7, 5, 12).permute(0, 3, 1, 2)
        f = self.dwconv(q).permute(0, 2, 3, 1).reshape(*x.shape[:-1], 12).split((4, 8), dim=-1)
        return self.proj_out(self.pws[0](p * f[0]) * f[1])


@pytest.mark.parametrize("flat", [False, True])
def test_gnconvs_on_other_layouts(flat):
    (check,) = gnconv_bounds(Tokens(flat=flat), (7, 5))
    assert (check.dim, check.height, check.width) == ((8, 35, 1) if flat else (8, 7, 5))
    assert check.holds
    assert check.macs == gnconv_macs(8, 2, 3, 7, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((64, 2, 0, 7, 7), "kernel_size of at least 1, got 0"),
        ((64, 2, 7, 0, 7), "height of at least 1"),
        ((64, 2, 7, 7, -1), "width of at least 1"),
        ((63, 2, 7, 7, 7), r"divisible by 2\^1"),
        ((64, 0, 7, 7, 7), "order >= 1"),
    ],
)
def test_sizes_that_are_none(arguments, message):
    with pytest.raises(ValueError, match=message):
        gnconv_macs(*arguments)


def test_bounds_and_growth_of_nothing():
    with pytest.raises(ValueError, match="sizes of at least 1"):
        macs_bound(64, 0, 7, 7)
    with pytest.raises(ValueError, match="at least 1, got 64 and 0"):
        order_growth(64, max_order=0)


def test_growth_with_the_order_is_monotone_towards_the_bound():
    growth = order_growth(512, kernel_size=7)
    assert growth.orders.tolist() == list(range(1, 11))
    assert (growth.macs[1:] > growth.macs[:-1]).all()
    assert growth.macs[-1] < growth.bound
    assert growth.macs[-1] / growth.bound > 0.9999
    assert order_growth(96).orders.tolist() == [1, 2, 3, 4, 5, 6], "96 = 3 x 32"


@pytest.mark.parametrize("max_order", [None, 2, 3, 9])
def test_growth_is_made_of_the_closed_forms(max_order):
    growth = order_growth(12, kernel_size=5, side=9, max_order=max_order)
    assert (growth.dim, growth.kernel_size, growth.height, growth.width) == (12, 5, 9, 9)
    orders = [n for n in (1, 2, 3) if max_order is None or n <= max_order]
    assert growth.orders.tolist() == orders, "12 = 3 · 2²"
    assert growth.macs.tolist() == [gnconv_macs(12, n, 5, 9, 9) for n in orders]
    assert growth.bound == macs_bound(12, 5, 9, 9)
    sizes = size_growth(12, 3, sides=[4, 6], kernel_size=5)
    assert (sizes.dim, sizes.order, sizes.kernel_size, sizes.sides.tolist()) == (12, 3, 5, [4, 6])
    assert sizes.gnconv.tolist() == [gnconv_macs(12, 3, 5, side, side) for side in (4, 6)]
    assert sizes.bound.tolist() == [macs_bound(12, 5, side, side) for side in (4, 6)]
    assert sizes.attention.tolist() == [attention_macs(12, side, side) for side in (4, 6)]
    assert {result.dtype for result in (growth.macs, sizes.gnconv, sizes.bound, sizes.attention)} == {np.dtype(float)}


def test_growth_is_that_of_the_papers_kernel_and_map_when_nothing_is_said():
    assert order_growth(12).macs.tolist() == [gnconv_macs(12, n, 7, 14, 14) for n in (1, 2, 3)]
    assert size_growth(12, 3, sides=[4]).gnconv.tolist() == [gnconv_macs(12, 3, 7, 4, 4)]
    assert order_growth(1).orders.tolist() == [1]
    assert order_growth(2, max_order=1).orders.tolist() == [1]
    with pytest.raises(ValueError, match="at least 1, got 0 and None"):
        order_growth(0)


def test_growth_with_the_map_is_linear_in_positions_and_attentions_is_not():
    growth = size_growth(384, 5, sides=[14, 28, 56])
    assert (growth.gnconv[1:] == 4 * growth.gnconv[:-1]).all()
    assert (growth.attention[1:] > 4 * growth.attention[:-1]).all()
    with torch.device("meta"):
        from timm.models.vision_transformer import Attention

        class Tokens(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem, self.attention = nn.Conv2d(48, 48, 1, groups=48, bias=False), Attention(48, num_heads=4)

            def forward(self, x):
                return self.attention(self.stem(x).flatten(2).transpose(1, 2))

        counted = count_macs(Tokens(), (6, 5))
    assert sum(counted.by_module["attention"][c] for c in ("linear", "matmul", "attention")) == attention_macs(48, 6, 5)


def test_each_call_of_a_gnconv_is_counted_and_bounded():
    """A head on two levels: the same module, on a map of 8x8 and on one of 4x4."""

    class Levels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 8, 1), GnConv(8, 2)

        def forward(self, x):
            x = self.stem(x)
            return self.head(x), self.head(x=nn.functional.avg_pool2d(x, 2))

    model = Levels()
    checks = gnconv_bounds(model, 8)
    assert [(check.index, check.name, check.height, check.width) for check in checks] == [
        (1, "head", 8, 8),
        (2, "head#2", 4, 4),
    ]
    assert [check.macs for check in checks] == [gnconv_macs(8, 2, 7, 8, 8), gnconv_macs(8, 2, 7, 4, 4)]
    assert all(check.holds for check in checks)
    count = count_macs(model, 8)
    assert count.by_module["head"]["convolution"] == sum(
        count.by_call[name]["convolution"] for name in ("head", "head#2")
    )
