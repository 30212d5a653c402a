"""The networks of Table 6 that no code was published for: written out, their costs term by term, their orders."""

from itertools import pairwise

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from horinsight import create_model, interaction_spectrum, list_models, named_blocks
from horinsight.models.registry import model_without_weights
from horinsight.models.separable_net import SeparableMixer, SeparableNet

SWIN_T = ((96, 192, 384, 768), (2, 2, 6, 2))
HORNET_T = ((64, 128, 256, 512), (2, 3, 18, 2))
TINY = ["g1234_test", "se_dwconv_test", "convnext_test_iso"]


def open_branches(model: nn.Module) -> nn.Module:
    """Weights of a size at which every branch counts."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.double().eval()


def separable_block(x: Tensor, w: dict[str, Tensor], pool: bool = False) -> Tensor:
    """A block of a `SeparableNet`, on channels-last maps, with plain functions."""
    C = x.shape[-1]
    z = F.layer_norm(x, (C,), w["norm1.weight"], w["norm1.bias"], 1e-6).permute(0, 3, 1, 2)
    z = F.conv2d(z, w["mixer.proj_in.weight"], w["mixer.proj_in.bias"])
    if pool:
        z = F.avg_pool2d(z, 3, 1, 1, count_include_pad=False)
    else:
        z = F.conv2d(z, w["mixer.dwconv.weight"], w["mixer.dwconv.bias"], padding=3, groups=2 * C)
    if "mixer.se.fc1.weight" in w:
        s = z.mean((2, 3), keepdim=True)
        s = F.conv2d(s, w["mixer.se.fc1.weight"], w["mixer.se.fc1.bias"]).relu()
        z = z * F.conv2d(s, w["mixer.se.fc2.weight"], w["mixer.se.fc2.bias"]).sigmoid()
    z = F.conv2d(z, w["mixer.proj_out.weight"], w["mixer.proj_out.bias"]).permute(0, 2, 3, 1)
    x = x + w["gamma1"] * z
    z = F.layer_norm(x, (C,), w["norm2.weight"], w["norm2.bias"], 1e-6)
    z = F.linear(F.gelu(F.linear(z, w["pwconv1.weight"], w["pwconv1.bias"])), w["pwconv2.weight"], w["pwconv2.bias"])
    return x + w["gamma2"] * z


@pytest.mark.parametrize("options", [{"se_reduction": 4}, {"depthwise": "pool", "kernel_size": 3}, {}], ids=str)
def test_a_separable_block_written_out(options):
    model = open_branches(SeparableNet(8, depths=(1, 1, 1, 1), num_classes=3, **options))
    block = model.stages[1][0]
    x = torch.randn(2, 9, 7, 16, dtype=torch.float64)
    expected = separable_block(x, dict(block.named_parameters()), pool="depthwise" in options)
    found = block(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * float(expected.detach().abs().max()))


def test_an_isotropic_convnext_written_out():
    model = open_branches(create_model("convnext_test_iso"))
    x = torch.randn(1, 3, 48, 64, dtype=torch.float64)
    z = F.conv2d(x, model.stem.weight, model.stem.bias, stride=16)
    for block in model.blocks:
        w = dict(block.named_parameters())
        assert "gamma" not in w, "published without layer scale at this size"
        y = F.conv2d(z, w["conv_dw.weight"], w["conv_dw.bias"], padding=3, groups=16).permute(0, 2, 3, 1)
        y = F.layer_norm(y, (16,), w["norm.weight"], w["norm.bias"], 1e-6)
        y = F.linear(y, w["mlp.fc1.weight"], w["mlp.fc1.bias"])
        z = z + F.linear(F.gelu(y), w["mlp.fc2.weight"], w["mlp.fc2.bias"]).permute(0, 3, 1, 2)
    pooled = F.layer_norm(z.mean((2, 3)), (16,), model.norm.weight, model.norm.bias, 1e-6)
    expected = F.linear(pooled, model.head.weight, model.head.bias)
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-12 * float(expected.detach().abs().max()))


def gnconv_params(C: int, n: int, taps: int) -> int:
    dims = [C // 2 ** (n - 1 - k) for k in range(n)]
    return 3 * C * C + 3 * C + sum(a * b + b for a, b in pairwise(dims)) + taps * sum(dims)


def separable_params(C: int, taps: int, reduction: int = 0) -> int:
    r = 2 * C // reduction if reduction else 0
    return 4 * C * C + 3 * C + taps * 2 * C + (2 * 2 * C * r + r + 2 * C) * bool(reduction)


def network_params(layout: tuple[tuple[int, ...], tuple[int, ...]], mixers: list[int]) -> int:
    """Stem, downsampling, norms, FFNs, layer scale and head, with the mixers' own."""
    dims, depths = layout
    total = 48 * dims[0] + 3 * dims[0] + 2 * dims[-1] + 1000 * dims[-1] + 1000
    total += sum(2 * a + 4 * a * b + b for a, b in pairwise(dims))
    for C, depth, mixer in zip(dims, depths, mixers, strict=True):
        total += depth * (mixer + 4 * C + 8 * C * C + 5 * C + 2 * C)
    return total


ORDERS = {
    "g1111": (1, 1, 1, 1),
    "g2222": (2, 2, 2, 2),
    "g3333": (3, 3, 3, 3),
    "g4444": (4, 4, 4, 4),
    "g1234": (1, 2, 3, 4),
    "g2345": (2, 3, 4, 5),
}


@pytest.mark.parametrize(
    ("name", "layout", "mixers"),
    [
        *[
            (name, SWIN_T, [gnconv_params(C, n, 50) for C, n in zip(SWIN_T[0], orders, strict=True)])
            for name, orders in ORDERS.items()
        ],
        ("dwconv7x7_swin_t", SWIN_T, [separable_params(C, 50) for C in SWIN_T[0]]),
        ("se_dwconv7x7_swin_t", SWIN_T, [separable_params(C, 50, 16) for C in SWIN_T[0]]),
        ("dwconv3x3_hornet_t", HORNET_T, [separable_params(C, 10) for C in HORNET_T[0]]),
        ("pool_hornet_t", HORNET_T, [separable_params(C, 0) for C in HORNET_T[0]]),
        ("gnconv3x3_hornet_t", HORNET_T, [gnconv_params(C, n + 2, 10) for n, C in enumerate(HORNET_T[0])]),
        ("gnconv_pool_hornet_t", HORNET_T, [gnconv_params(C, n + 2, 0) for n, C in enumerate(HORNET_T[0])]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_parameters_term_by_term(name, layout, mixers):
    model = model_without_weights(name)
    assert sum(weight.numel() for weight in model.parameters()) == network_params(layout, mixers)
    orders = ORDERS.get(name)
    if orders is not None:
        assert [block.gnconv.order for stage in model.stages for block in stage] == [
            n for n, depth in zip(orders, layout[1], strict=True) for _ in range(depth)
        ]


def test_isotropic_convnext_parameters_term_by_term():
    C = 384
    block = 50 * C + 2 * C + 8 * C * C + 5 * C
    expected = 768 * C + C + 18 * block + 2 * C + 1000 * C + 1000
    assert sum(weight.numel() for weight in model_without_weights("convnext_s_iso").parameters()) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("g1234_test", [("gnconv", n) for n in (1, 2, 3, 4)]),
        ("se_dwconv_test", [("depthwise_conv", 0), ("squeeze_excitation", 1)] * 4),
        ("convnext_test_iso", [("depthwise_conv", 0)] * 3),
    ],
)
def test_named_blocks_know_their_orders(name, expected):
    assert [(block.mixer, block.order) for block in named_blocks(model_without_weights(name))] == expected


@pytest.mark.parametrize(("reduction", "order"), [(0, 0), (4, 1)])
def test_the_measured_order_of_a_mixer(reduction, order):
    torch.manual_seed(0)
    mixer = SeparableMixer(4, se_reduction=reduction).eval()
    spectrum = interaction_spectrum(mixer, torch.randn(2, 4, 5, 5), max_order=2, num_tuples=4, explicit=True)
    assert spectrum.location_order == order


@pytest.mark.parametrize("name", TINY)
def test_a_backbone_an_unpooled_and_a_trained_network(name):
    features = timm.create_model(name, features_only=True)
    maps = features(torch.zeros(1, 3, 64, 96))
    reductions = features.feature_info.reduction()
    assert [level.shape[2:] for level in maps] == [(64 // r, 96 // r) for r in reductions]
    assert [level.shape[1] for level in maps] == features.feature_info.channels()
    model = timm.create_model(name, num_classes=7).train()
    model(torch.randn(2, 3, 64, 64)).square().mean().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []
    cfg = model.default_cfg
    assert model.get_submodule(cfg["first_conv"]).weight.shape[1] == 3
    assert model.forward_features(torch.zeros(1, *cfg["input_size"])).shape[2:] == cfg["pool_size"]


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("dwconv7x7_swin_t", {"orders": 3}, TypeError, "has no orders"),
        ("se_dwconv_test", {"gf_sizes": [None] * 4}, TypeError, "has no gf_sizes"),
        ("se_dwconv_test", {"se_reduction": 17}, ValueError, "from 1 to 2 . dim = 16"),
        ("convnext_test_iso", {"order": 2}, TypeError, "has no order"),
        ("g2345", {"base_dim": 9}, ValueError, "divisible by 2"),
    ],
)
def test_refuses_what_it_does_not_have(name, options, error, message):
    with pytest.raises(error, match=message):
        create_model(name, **options)


def test_all_are_listed():
    assert {*ORDERS, *TINY, "dwconv7x7_swin_t", "pool_hornet_t", "convnext_s_iso"} <= set(list_models())
