import dataclasses

import numpy as np
import pytest
import timm
import torch
from gnconv_look_alikes import GNCONVS, NO_GNCONVS
from oracles import large_weights
from timm.layers import SEModule
from timm.models.beit import Attention as BeitAttention
from timm.models.maxxvit import Attention2d
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from horinsight import GnConv, mixing_weights, model_mixing_weights
from horinsight.mixing.factored_weights import CircularWeights, DepthwiseWeights, InterleavedWeights
from horinsight.mixing.matrix_weights import AttentionWeights
from horinsight.mixing.weights import MixingWeights

KINDS = {
    "3x3": {"kernel_size": 3},
    "5x5": {"kernel_size": 5},
    "7x7": {"kernel_size": 7},
    "pool": {"depthwise": "pool", "kernel_size": 3},
    "gf": {"depthwise": "gf", "gf_size": (6, 4)},
}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}  # of the largest |p_n|, as the identity is required


def recursion(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """p_1, …, p_n, from hooks of the test's own."""
    found: list[Tensor] = []
    handles = [
        module.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].detach().clone()))
        for module in [*layer.pws, layer.proj_out]
    ]
    layer(x)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("order", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_the_identity_holds_for_every_step_and_map(kind, order, dtype):
    layer = large_weights(GnConv(64, order, scale=0.4, **KINDS[kind]).to(dtype))
    for size in [(6, 6), (6, 7), (9, 4), (2, 3)]:  # the filter's own size, others, and maps smaller than the kernel
        x = torch.randn(3, 64, *size, dtype=dtype)
        p = recursion(layer, x)
        for step in [None, *range(order)]:
            weights = mixing_weights(layer, x, step=step)
            target = p[-1 if step is None else step]
            assert float((weights.apply() - target).abs().max()) <= TOLERANCE[dtype] * float(target.abs().max())
            assert weights.reconstruction_error <= TOLERANCE[dtype]


def test_the_identity_needs_the_offset():
    layer = large_weights(GnConv(16, 3).double())
    weights = mixing_weights(layer, torch.randn(1, 16, 5, 5, dtype=torch.float64))
    without = float((weights.apply() - weights.offset - weights.mixed).abs().max() / weights.mixed.abs().max())
    assert without > 1e-2


def frozen_operator(layer: GnConv, x: Tensor, step: int):
    """v → p_{step+1} with the gate and the statistics of both norms frozen at x; and v. No package code."""
    dims = layer.dims
    p_0, q = layer.proj_in(x).split([dims[0], sum(dims)], dim=1)
    f = layer.dwconv
    channels = slice(sum(dims[:step]), sum(dims[: step + 1]))
    p = p_0
    parts = (f(q) * layer.scale).split(dims, dim=1)
    gates = [p_0]
    for k in range(step):
        p = p * parts[k]
        p = layer.pws[k](p)
        gates.append(p)
    gate = gates[-1].detach()
    if isinstance(f, nn.Conv2d | nn.AvgPool2d):

        def operator(v: Tensor) -> Tensor:
            whole = torch.zeros_like(q)
            whole[:, channels] = v
            return gate * layer.scale * f(whole)[:, channels]

        return operator, q[:, channels].detach(), list(range(dims[step]))

    z = f.pre_norm(q).detach()
    C, H, W = z.shape[1:]

    def interleaved(z: Tensor) -> Tensor:
        local = f.dw(z[:, : C // 2])
        weight = torch.view_as_complex(f.complex_weight)
        circular = torch.fft.irfft2(torch.fft.rfft2(z[:, C // 2 :], norm="ortho") * weight, s=(H, W), norm="ortho")
        return torch.stack([local, circular], dim=2).flatten(1, 2)

    y = interleaved(z).detach()
    mean, sigma = y.mean(1, keepdim=True), torch.sqrt(y.var(1, correction=0, keepdim=True) + 1e-6)
    gamma, beta = f.post_norm.weight[:, None, None], f.post_norm.bias[:, None, None]

    def operator(z: Tensor) -> Tensor:
        normalised = gamma * (interleaved(z) - mean) / sigma + beta
        return gate * layer.scale * normalised[:, channels]

    source = [m // 2 if m % 2 == 0 else C // 2 + m // 2 for m in range(C)][channels]
    return operator, z, source


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("order", "step"), [(1, 0), (2, 0), (2, 1), (3, 1)])
def test_dense_is_the_jacobian_with_gate_and_statistics_frozen(kind, order, step):
    options = {**KINDS[kind], **({"gf_size": (3, 3)} if kind == "gf" else {})}
    layer = large_weights(GnConv(8, order, **options).double()).requires_grad_(False)
    x = torch.randn(1, 8, 3, 4, dtype=torch.float64)
    operator, v, source = frozen_operator(layer, x, step)
    weights = mixing_weights(layer, x, step=step)
    torch.testing.assert_close(operator(v), weights.mixed, rtol=1e-11, atol=1e-12)
    J = torch.autograd.functional.jacobian(operator, v)[0, :, :, :, 0].flatten(1, 2).flatten(3)  # (C_k, N, C, N)
    dense = weights.dense()[0]
    for c, s in enumerate(source):
        torch.testing.assert_close(dense[c], J[c, :, s], rtol=1e-10, atol=1e-13)
        J[c, :, s] = 0
    assert float(J.abs().max()) == 0.0, "no other channel is mixed in"


@pytest.mark.parametrize("kind", KINDS)
def test_at_channel_mean_and_dense_agree(kind):
    layer = large_weights(GnConv(16, 2, **KINDS[kind]).double())
    weights = mixing_weights(layer, torch.randn(3, 16, 5, 6, dtype=torch.float64))
    dense = weights.dense()
    assert dense.shape == (3, 16, 30, 30)
    torch.testing.assert_close(weights.channel_mean(), dense.mean(1), rtol=1e-12, atol=1e-15)
    for row, col in [(0, 0), (2, 3), (4, 5), (0, 5)]:
        torch.testing.assert_close(weights.at(row, col), dense[:, :, row * 6 + col].reshape(3, 16, 5, 6))
    again = torch.einsum("bcij,bcj->bci", dense, weights.values.flatten(2)).reshape_as(weights.offset)
    torch.testing.assert_close(again + weights.offset, weights.apply(), rtol=1e-11, atol=1e-12)


def test_kinds_stay_factored():
    x = torch.randn(1, 8, 6, 6)
    local = mixing_weights(GnConv(8, 2), x)
    assert isinstance(local, DepthwiseWeights)
    assert local.kernel.shape == (8, 49)
    gf = mixing_weights(GnConv(8, 2, depthwise="gf"), x)
    assert isinstance(gf, InterleavedWeights)
    assert [type(part) for part in gf.parts] == [DepthwiseWeights, CircularWeights]
    assert gf.values.shape == gf.offset.shape == (1, 8, 6, 6)


class ForeignGnConv(nn.Module):
    """mmpretrain's spelling, with no scale and a dilated kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.proj_in = nn.Conv2d(8, 16, 1)
        self.dwconv = nn.Conv2d(12, 12, 3, padding=2, dilation=2, groups=12)
        self.projs = nn.ModuleList([nn.Conv2d(4, 8, 1)])
        self.proj_out = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        p, q = self.proj_in(x).split([4, 12], dim=1)
        f = self.dwconv(q).split([4, 8], dim=1)
        return self.proj_out(self.projs[0](p * f[0]) * f[1])


def test_foreign_gnconvs():
    layer = large_weights(ForeignGnConv().double())
    x = torch.randn(2, 8, 7, 5, dtype=torch.float64)
    weights = mixing_weights(layer, x)
    assert weights.reconstruction_error < 1e-12
    torch.testing.assert_close(layer.proj_out(weights.apply()), layer(x), rtol=1e-11, atol=1e-12)
    inside = nn.Sequential(nn.Conv2d(3, 8, 4, 4), layer.float())
    (found,) = model_mixing_weights(inside, torch.randn(1, 3, 32, 32)).values()
    assert found.reconstruction_error < 1e-5


@pytest.mark.parametrize("name", [*GNCONVS, "3x3 projections"])
def test_gnconvs_of_other_repositories(name):
    """φ_in and g_k may be anything: their results are read. The weights give back what the whole module computes."""
    layer = large_weights({**GNCONVS, **NO_GNCONVS}[name]()).eval()
    dim = layer.dims[-1]
    x = torch.randn(2, dim, 7, 5)
    for step in range(len(layer.dims)):
        assert mixing_weights(layer, x, step=step).reconstruction_error <= TOLERANCE[torch.float32]
    p_n = mixing_weights(layer, x).apply()
    last = isinstance(layer.proj_out, nn.Linear)
    y = layer.proj_out(p_n.movedim(1, -1)).movedim(-1, 1) if last else layer.proj_out(p_n)
    torch.testing.assert_close(y, layer(x), rtol=0, atol=TOLERANCE[torch.float32] * float(layer(x).abs().max()))


@pytest.mark.parametrize("name", [name for name in NO_GNCONVS if name != "3x3 projections"])
def test_what_has_no_weights_says_so(name):
    layer = large_weights(NO_GNCONVS[name]()).eval()
    with pytest.raises(ValueError, match=r"Mixing weights need an f|channels .* cannot be told|scale .* is expected"):
        mixing_weights(layer, torch.randn(2, 8, 7, 5))


@pytest.mark.parametrize("change", ["activation", "swapped"])
def test_look_alikes_that_compute_something_else_are_refused(change):
    class Other(ForeignGnConv):
        def forward(self, x):
            p, q = self.proj_in(x).split([4, 12] if change == "activation" else [4, 12][::-1], dim=1)
            p, q = (p, q) if change == "activation" else (q, p)
            f = self.dwconv(q).split([4, 8], dim=1)
            f = [part.tanh() for part in f] if change == "activation" else f
            return self.proj_out(self.projs[0](p * f[0]) * f[1])

    with pytest.raises(ValueError, match="do not reproduce what the module computes"):
        mixing_weights(large_weights(Other()), torch.randn(1, 8, 7, 5))


def test_dense_is_refused_when_large():
    weights = mixing_weights(GnConv(64, 1), torch.randn(1, 64, 56, 56))
    with pytest.raises(ValueError, match=r"have 6.3e\+08 elements.*use at\(\) or channel_mean\(\)"):
        weights.dense()
    small = mixing_weights(GnConv(4, 1), torch.randn(1, 4, 4, 4))
    with pytest.raises(ValueError, match="max_elements"):
        small.dense(max_elements=1023)
    assert small.dense(max_elements=1024).numel() == 1024


@pytest.mark.parametrize("query", [(-1, 0), (0, 6), (5, 0), (14, 14)])
def test_queries_outside_the_map(query):
    weights = mixing_weights(GnConv(4, 1), torch.randn(1, 4, 5, 6))
    with pytest.raises(ValueError, match=f"row from 0 to 4 and a column from 0 to 5 .* got {query[0]},{query[1]}"):
        weights.at(*query)


def broken_split() -> nn.Module:
    layer = ForeignGnConv()
    layer.proj_in = nn.Conv2d(8, 15, 1)
    layer.forward = lambda x: (layer.proj_in(x), layer.proj_out(x))
    return layer


@pytest.mark.parametrize(
    ("module", "x", "options", "message"),
    [
        (
            GnConv(8, 2),
            torch.randn(8, 5, 5),
            {},
            r"\(B, 8, H, W\) for this gnConv, got \(8, 5, 5\): add a batch dimension",
        ),
        (GnConv(8, 2), torch.randn(1, 4, 5, 5), {}, r"got \(1, 4, 5, 5\)"),
        (GnConv(8, 2), torch.randn(1, 8, 5, 5), {"step": 2}, "from 0 to 1 for a gnConv of order 2, got 2"),
        (GnConv(8, 2), torch.randn(1, 8, 5, 5), {"step": -1}, "got -1"),
        (nn.Linear(3, 3), torch.randn(1, 3), {}, r"expects a map \(B, C, H, W\), or tokens .* got \(1, 3\)"),
        (nn.Linear(3, 3), torch.randn(1, 7, 3), {}, "of a square map"),
        (nn.Conv2d(8, 8, 3), torch.randn(1, 4, 5, 5), {}, "to have 8 channels"),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), torch.randn(1, 8, 5, 5), {"step": 0}, "step applies to gnConvs only"),
        (GnConv(8, 2, depthwise=lambda dim: nn.Identity()), torch.randn(1, 8, 5, 5), {}, "got Identity"),
        (broken_split(), torch.randn(1, 8, 5, 5), {}, r"do not split: its steps have \[4, 8\] .* 16, but it gives 15"),
    ],
)
def test_clear_refusals(module, x, options, message):
    with pytest.raises(ValueError, match=message) as error:
        mixing_weights(module, x, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (nn.Conv2d(8, 6, 3, padding=1), torch.randn(2, 8, 5, 5)),
        (nn.Conv2d(8, 8, 3, 2, groups=8), torch.randn(2, 8, 5, 5)),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8, padding_mode="reflect"), torch.randn(2, 8, 5, 5)),
        (nn.AvgPool2d(2), torch.randn(2, 8, 6, 6)),
        (SEModule(8, rd_channels=4), torch.randn(2, 8, 5, 5)),
        (Attention2d(8, 8, dim_head=4), torch.randn(2, 8, 5, 5)),
        (BeitAttention(8, 2), torch.randn(2, 9, 8)),
    ],
)
def test_mixers_in_no_network(module, x):
    alone = mixing_weights(module, x)
    assert alone.reconstruction_error < 1e-5
    network = nn.Sequential(nn.Identity(), module)
    network.pretrained_cfg = {"input_size": tuple(x.shape[1:])}  # or it would be looked at with 224 pixels
    if x.ndim == 4:
        (expected,) = model_mixing_weights(network, x).values()
        torch.testing.assert_close(alone.dense(), expected.dense())
    assert alone.at(1, 1).shape[:2] == (2, alone.num_channels)


class Broken(nn.Module):
    def forward(self, x):
        raise RuntimeError("broken")


def state(model: nn.Module) -> list:
    return [
        (m.training, len(m._forward_hooks), len(m._forward_pre_hooks), getattr(m, "fused_attn", None))
        for m in model.modules()
    ] + [p.requires_grad for p in model.parameters()]


@pytest.mark.parametrize("name", ["hornet_test_gf", "test_vit", "convnext_atto"])
def test_everything_goes_home(name):
    model = timm.create_model(name).train()
    size = model.pretrained_cfg["input_size"][-1]
    images = torch.randn(1, 3, size, size, requires_grad=True)
    before = state(model)
    weights = model_mixing_weights(model, images)
    assert state(model) == before
    assert not any(w.channel_mean().requires_grad for w in weights.values())
    assert images.grad is None
    with pytest.raises(ValueError, match="got 99"):
        model_mixing_weights(model, images, blocks=[99])
    assert state(model) == before
    with pytest.raises(ValueError, match="step"):
        model_mixing_weights(model, images, step=77)
    assert state(model) == before
    with pytest.raises(KeyError, match="mine"):
        model_mixing_weights(model, images, keep=lambda weights: {}["mine"])
    assert state(model) == before
    model.norm = model.norm_pre = Broken()
    model.head = Broken()
    before = state(model)
    with pytest.raises(ValueError, match="RuntimeError: broken"):
        model_mixing_weights(model, images)
    assert state(model) == before


def test_dropout_is_off_and_the_weights_are_those_of_eval_mode():
    model = timm.create_model("hornet_test", drop_path_rate=0.5, drop_rate=0.5)
    images = torch.randn(2, 3, 96, 96)
    training = model_mixing_weights(model.train(), images)
    evaluating = model_mixing_weights(model.eval(), images)
    for name, weights in training.items():
        assert torch.equal(weights.channel_mean(), evaluating[name].channel_mean())


def test_bfloat16_models_give_float32_weights():
    model = timm.create_model("hornet_test_gf", layer_scale_init_value=0.1).eval()
    images = torch.randn(1, 3, 96, 96)
    exact = model_mixing_weights(model, images)
    half = model_mixing_weights(model.bfloat16(), images.bfloat16())
    for name, weights in half.items():
        assert weights.channel_mean().dtype == torch.float32
        assert weights.reconstruction_error < 0.05  # the forward pass itself keeps 8 bits
        a, b = exact[name].channel_mean().flatten(), weights.channel_mean().flatten()
        assert float(torch.corrcoef(torch.stack([a, b]))[0, 1]) > 0.9


def test_model_mixing_weights_keeps_only_what_is_asked_for():
    model = timm.create_model("hornet_test").eval()
    images = torch.randn(2, 3, 96, 96)
    kept = model_mixing_weights(model, images, blocks=[2, 4], keep=lambda weights: weights.at(0, 1).mean(1))
    assert list(kept) == ["stages.1.0.gnconv", "stages.3.0.gnconv"]
    assert [value.shape for value in kept.values()] == [(2, 12, 12), (2, 3, 3)]
    whole = model_mixing_weights(model, images)
    np.testing.assert_array_equal(kept["stages.3.0.gnconv"], whole["stages.3.0.gnconv"].at(0, 1).mean(1))


def test_images_that_do_not_fit():
    model = timm.create_model("hornet_test")
    with pytest.raises(ValueError, match=r"shape \(B, C, H, W\), got \(3, 96, 96\)"):
        model_mixing_weights(model, torch.randn(3, 96, 96))
    with pytest.raises(ValueError, match="at least 32 pixels"):
        model_mixing_weights(model, torch.randn(1, 3, 16, 16))
    with pytest.raises(ValueError, match="no block in which positions of an image are mixed"):
        model_mixing_weights(nn.Conv2d(3, 3, 1), torch.randn(1, 3, 16, 16))


def some_weights(kind: str, size: tuple[int, int]) -> MixingWeights:
    """Random weights of each kind, large enough for any part of them to show."""
    H, W = size
    x = torch.randn(2, 8, H, W, dtype=torch.float64)
    if kind == "attention":
        shape = (2, 3, 2 + H * W)
        return AttentionWeights(
            height=H,
            width=W,
            values=torch.randn(*shape, 4, dtype=torch.float64),
            offset=torch.randn(2, shape[2], 12, dtype=torch.float64),
            mixed=torch.randn(2, shape[2], 12, dtype=torch.float64),
            attention=torch.randn(*shape, shape[2], dtype=torch.float64),
            num_prefix_tokens=2,
        )
    if kind == "windows":
        block = SwinTransformerBlock(8, size, num_heads=2, head_dim=4, window_size=3, shift_size=1).double().eval()
        torch.nn.init.normal_(block.attn.relative_position_bias_table)
        return mixing_weights(block, x.movedim(1, -1))
    if kind == "dilated":
        return mixing_weights(
            large_weights(nn.Conv2d(8, 8, (3, 5), padding=(2, 6), dilation=(2, 3), groups=8).double()), x
        )
    return mixing_weights(large_weights(GnConv(8, 2, **KINDS[kind]).double()), x)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 4), (7, 9)])
@pytest.mark.parametrize("kind", [*KINDS, "dilated", "attention", "windows"])
def test_every_way_to_ask_gives_the_same_weights(kind, size):
    """`at`, `channel_mean`, `apply` and `at_middle` against `dense`, on maps below and above the size of the kernel."""
    weights = some_weights(kind, size)
    H, W = size
    h, v = weights.dense(), weights.values
    prefix = h.shape[-1] - H * W
    if kind == "windows":  # values lie in windows: what mixes them is compared below, through `apply`
        mixed = weights.apply() - weights.offset
    elif kind == "attention":
        mixed = torch.einsum("bhij,bhjd->bihd", h, v).flatten(2)
    else:
        mixed = torch.einsum("bcij,bcj->bci", h, v.flatten(2)).unflatten(-1, size)
    torch.testing.assert_close(weights.apply(), mixed + weights.offset, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(weights.channel_mean(), h.mean(1), rtol=1e-11, atol=1e-13)
    assert weights.num_channels == h.shape[1]
    assert weights.num_positions == h.shape[2] == h.shape[3]
    for row in range(H):
        for col in range(W):
            expected = h[:, :, prefix + row * W + col, prefix:].unflatten(-1, size)
            torch.testing.assert_close(weights.at(row, col), expected, rtol=1e-11, atol=1e-13)
    middle = prefix + H // 2 * W + W // 2
    found, computed = weights.at_middle()
    if weights.offset.ndim == 4:
        torch.testing.assert_close(found, weights.apply()[:, :, H // 2, W // 2], rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(computed, weights.mixed[:, :, H // 2, W // 2], rtol=0, atol=0)
    else:
        torch.testing.assert_close(found, weights.apply()[:, middle], rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(computed, weights.mixed[:, middle], rtol=0, atol=0)
    error = (weights.apply() - weights.mixed).abs().max() / weights.mixed.abs().max()
    assert weights.reconstruction_error == pytest.approx(float(error), rel=1e-12)


def test_weights_that_are_all_zero_have_an_error_in_their_own_units():
    silent = mixing_weights(nn.Conv2d(4, 4, 3, padding=1, groups=4), torch.zeros(1, 4, 5, 5))
    off = dataclasses.replace(silent, mixed=torch.zeros(1, 4, 5, 5), offset=torch.full((1, 4, 5, 5), 0.25))
    assert off.reconstruction_error == 0.25


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 4, 3, padding=1, groups=4, stride=(1, 2)),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 8, 3, padding=1, groups=4),
        nn.Conv2d(4, 4, 3, padding=(1, 0), groups=4),
        nn.Conv2d(4, 4, 3, padding=1, dilation=2, groups=4),
        nn.Conv2d(4, 4, (3, 4), padding=(1, 2), groups=4),
        nn.Conv2d(4, 4, (2, 3), padding=(1, 1), groups=4),
        nn.AvgPool2d(3, stride=(1, 2), padding=1),
        nn.AvgPool2d(3, stride=1, padding=(1, 0)),
        nn.AvgPool2d((3, 4), stride=1, padding=(1, 2)),
        nn.AvgPool2d((4, 3), stride=1, padding=(2, 1)),
        nn.MaxPool2d(3, stride=1, padding=1),
    ],
    ids=str,
)
def test_operators_that_do_not_keep_the_map_or_mix_channels_are_refused(conv):
    layer, x = GnConv(4, 1, depthwise=lambda dim: conv), torch.randn(1, 4, 8, 8)
    layer.forward = lambda x: layer.proj_out(layer.proj_in(x)[:, :4] + 0 * layer.dwconv(layer.proj_in(x)[:, 4:]).mean())
    with pytest.raises(ValueError, match=r"Mixing weights need (a depthwise|an odd|a pooling|an f)"):
        mixing_weights(layer, x)


@pytest.mark.parametrize(
    "f",
    [
        nn.Conv2d(4, 4, 3, padding="same", dilation=(1, 2), groups=4),
        nn.Conv2d(4, 4, (1, 5), padding=(0, 2), groups=4, bias=False),
        nn.AvgPool2d((3, 5), stride=1, padding=(1, 2)),
        nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
        nn.AvgPool2d(3, stride=1, padding=1, divisor_override=2),
        nn.AvgPool2d(3, stride=(1, 1), padding=(1, 1)),
    ],
    ids=str,
)
def test_operators_of_other_kernels_have_the_weights_of_their_jacobian(f):
    layer = large_weights(GnConv(4, 1, depthwise=lambda dim: f).double())
    x = torch.randn(1, 4, 4, 5, dtype=torch.float64)
    operator, v, source = frozen_operator(layer, x, 0)
    J = torch.autograd.functional.jacobian(operator, v)[0, :, :, :, 0].flatten(1, 2).flatten(3)
    expected = torch.stack([J[c, :, s] for c, s in enumerate(source)])
    torch.testing.assert_close(mixing_weights(layer, x).dense()[0], expected, rtol=1e-10, atol=1e-13)


def test_numbers_that_are_not_finite_and_small_errors():
    layer = large_weights(GnConv(4, 1))
    x = torch.randn(1, 4, 3, 3)
    x[0, 0, 1, 1] = torch.inf
    with pytest.raises(ValueError, match="NaN or infinite"):
        mixing_weights(layer, x)

    class Off(ForeignGnConv):
        """4 % off is bfloat16's rounding, 6 % is another formula."""

        def forward(self, x):
            p, q = self.proj_in(x).split([4, 12], dim=1)
            f = self.dwconv(q).split([4, 8], dim=1)
            return self.proj_out(self.projs[0](p * f[0]) * f[1] * self.factor)

    off = large_weights(Off())
    off.factor = 1.04
    assert mixing_weights(off, torch.randn(1, 8, 5, 5)).reconstruction_error == pytest.approx(0.04 / 1.04, rel=1e-3)
    off.factor = 1.06
    with pytest.raises(ValueError, match="off by 6e-02 of it"):
        mixing_weights(off, torch.randn(1, 8, 5, 5))


def test_parts_that_are_not_called_as_modules():
    class Inlined(ForeignGnConv):
        def forward(self, x):
            p, q = nn.functional.conv2d(x, self.proj_in.weight, self.proj_in.bias).split([4, 12], dim=1)
            f = self.dwconv(q).split([4, 8], dim=1)
            return self.proj_out(self.projs[0](p * f[0]) * f[1])

    with pytest.raises(ValueError, match="does not call its proj_in as modules"):
        mixing_weights(Inlined(), torch.randn(1, 8, 5, 5))
    inside = nn.Sequential(nn.Conv2d(3, 8, 4, 4), Inlined())
    with pytest.raises(ValueError, match=r"block 1.*does not call its proj_in as modules"):
        model_mixing_weights(inside, torch.randn(1, 3, 32, 32))


def test_one_query_on_a_large_map_of_gf():
    """Of a detector's finest level, 200x320 at 800x1280 pixels: the pairs of all its places would be 33 GB."""
    mixer = GnConv(4, 2, depthwise="gf").double()
    weights = mixing_weights(mixer, torch.randn(1, 4, 200, 320, dtype=torch.float64))
    found = (weights.at(7, 311) * weights.values).sum((2, 3)) + weights.offset[:, :, 7, 311]
    torch.testing.assert_close(found, weights.mixed[:, :, 7, 311])
