"""Explicit orders of one small module of each kind, location / degree, as theory has them."""

from collections.abc import Callable

import pytest
import timm.layers as layers
import torch
from rare_mixers import CrossScan, DoubleAttention, EluAttention
from timm.layers.bottleneck_attn import BottleneckAttn
from timm.layers.grn import GlobalResponseNorm
from timm.layers.halo_attn import HaloAttn
from timm.layers.lambda_layer import LambdaLayer
from timm.layers.non_local_attn import NonLocalAttn
from timm.models.davit import ChannelAttention, ChannelAttentionV2
from timm.models.edgenext import CrossCovarianceAttn
from timm.models.focalnet import FocalModulation
from timm.models.mambaout import GatedConvBlock
from timm.models.mlp_mixer import SpatialGatingUnit
from timm.models.starnet import Block as StarBlock
from timm.models.swin_transformer import WindowAttention
from timm.models.swin_transformer_v2 import WindowAttention as CosineAttention
from timm.models.vision_transformer import Attention
from timm.models.volo import OutlookAttention
from timm.models.xcit import XCA
from torch import Tensor, nn

from horinsight import interaction_spectrum
from horinsight.interaction.order_ladder import DynamicConv
from horinsight.models.zero_branches import opened_branches

C, SIDE, K = 8, 4, 5
N = SIDE * SIDE


class TokenMlp(nn.Module):
    """MLP-Mixer's mixing of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(N, 12), nn.GELU(), nn.Linear(12, N))

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x.mT).mT


class GatedConvolution(nn.Module):
    """A feature times a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.conv = nn.Conv2d(C, 2 * C, 1), nn.Conv2d(C, C, 3, padding=1, groups=C)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.expand(x).chunk(2, 1)
        return torch.sigmoid(a) * self.conv(b)


class PlainAttention(nn.Module):
    """q (kᵀ v): no softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(C, 3 * C)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return q @ (k.mT @ v) / N


class Cosine(nn.Module):
    """Attention whose queries and keys have length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(C, 3 * C)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        q, k = nn.functional.normalize(q, dim=-1), nn.functional.normalize(k, dim=-1)
        return (10 * q @ k.mT).softmax(-1) @ v


class NormalisedTwice(nn.Module):
    """A softmax over keys, whose weights a sum over keys or over queries divides once more.

    Each normalisation is a factor of degree 2 and the values are one more, hence 4. Of w_ij / S v_j, w_ij holds the
    query i and any key, and S one more key, of the same query or of any other: 3 or 4 positions beside i.
    """

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.qkv, self.axis = nn.Linear(C, 3 * C), axis

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        weights = (q @ k.mT / C**0.5).softmax(-1)
        weights = weights / weights.sigmoid().sum(self.axis, keepdim=True)
        return weights @ v


class Scan(nn.Module):
    """A selective scan over the tokens: what is kept and what is written depends on the token."""

    def __init__(self) -> None:
        super().__init__()
        self.keep, self.write = nn.Linear(C, C), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        keep, write, state, states = self.keep(x).sigmoid(), self.write(x), torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            state = keep[:, t] * state + write[:, t]
            states.append(state)
        return torch.stack(states, 1)


class Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(C, C, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]


# kind: how it is built, whether it takes tokens (B, N, C) or channels last (B, H, W, C), location and degree
Kind = tuple[Callable[[], nn.Module], str, int, int]
MAP, TOKENS, LAST = "channels_first", "tokens", "channels_last"
KINDS: dict[str, Kind] = {
    "convolution": (lambda: nn.Conv2d(C, C, 3, padding=1), MAP, 0, 0),
    "depthwise convolution": (lambda: nn.Conv2d(C, C, 3, padding=1, groups=C), MAP, 0, 0),
    "pooling": (lambda: nn.AvgPool2d(3, 1, 1), MAP, 0, 0),
    "largest value": (lambda: nn.MaxPool2d(3, 1, 1), MAP, 0, 0),
    "token MLP": (TokenMlp, TOKENS, 0, 0),
    "squeeze-and-excitation": (lambda: layers.SEModule(C, rd_channels=16), MAP, 1, 1),
    "ECA": (lambda: layers.EcaModule(C), MAP, 1, 1),
    "gated convolution": (GatedConvolution, MAP, 1, 1),
    "MambaOut": (lambda: GatedConvBlock(C), LAST, 1, 1),
    "star": (lambda: StarBlock(C), MAP, 1, 1),
    "gMLP": (lambda: SpatialGatingUnit(C, N), TOKENS, 1, 1),
    "selective kernel": (lambda: layers.SelectiveKernel(C, C), MAP, 1, 1),
    "split attention": (lambda: layers.SplitAttn(C), MAP, 1, 1),
    "dynamic convolution": (lambda: DynamicConv(C, 3), MAP, 1, 1),
    "outlook attention": (lambda: OutlookAttention(C, 2), LAST, 1, 1),
    "focal modulation": (lambda: FocalModulation(C, 3, 2), MAP, 1, 2),
    "softmax-free attention": (PlainAttention, TOKENS, 1, 2),
    "channel attention": (lambda: ChannelAttention(C, 2), TOKENS, 1, 2),
    "channel attention, scaled by tokens": (lambda: ChannelAttentionV2(C, 2), TOKENS, 1, 2),
    "attention": (lambda: Attention(C, 2, qkv_bias=True), TOKENS, 2, 2),
    "cosine attention": (Cosine, TOKENS, 2, 2),
    "window attention": (lambda: WindowAttention(C, 2, window_size=SIDE), TOKENS, 2, 2),
    "cosine window attention": (lambda: CosineAttention(C, (SIDE, SIDE), 2), TOKENS, 2, 2),
    "halo": (lambda: HaloAttn(C, num_heads=2, block_size=2, halo_size=1), MAP, 2, 2),
    "bottleneck": (lambda: BottleneckAttn(C, feat_size=(SIDE, SIDE), num_heads=2), MAP, 2, 2),
    "non-local": (lambda: NonLocalAttn(C, rd_channels=4), MAP, 2, 2),
    "lambda": (lambda: LambdaLayer(C, feat_size=(SIDE, SIDE), num_heads=2, dim_head=4), MAP, 2, 2),
    "global context": (lambda: layers.GlobalContext(C, fuse_add=False, fuse_scale=True, rd_channels=4), MAP, 2, 2),
    "global context, added": (
        lambda: layers.GlobalContext(C, fuse_add=True, fuse_scale=False, rd_channels=4),
        MAP,
        1,
        1,
    ),
    "cross-covariance": (lambda: XCA(C, 2), TOKENS, 2, 2),
    "cross-covariance of EdgeNeXt": (lambda: CrossCovarianceAttn(C, 2), TOKENS, 2, 2),
    "response norm": (lambda: GlobalResponseNorm(C, channels_last=False), MAP, 2, 2),
    "two normalisations over keys": (lambda: NormalisedTwice(-1), TOKENS, 3, 4),
    "over keys, then over queries": (lambda: NormalisedTwice(-2), TOKENS, 4, 4),
    # φ(q_i) φ(k_j) v_j / (φ(q_i) φ(k_r)): i twice, j twice, r
    "linear attention with a normaliser": (EluAttention, TOKENS, 2, 4),
    "double attention": (DoubleAttention, MAP, 2, 2),
}
OPEN: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "LSTM": (Lstm, TOKENS),
    "selective scan": (Scan, TOKENS),
    "cross scan": (CrossScan, MAP),
}


def spectrum_of(build: Callable[[], nn.Module], layout: str, *, side: int = SIDE, highest: int = K):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = build().double().eval()
        opened_branches(module)
        shape = {MAP: (2, C, side, side), TOKENS: (2, side * side, C), LAST: (2, side, side, C)}[layout]
        x = torch.randn(shape, dtype=torch.float64)
    grid = (side, side) if layout == TOKENS else None
    return interaction_spectrum(module, x, max_order=highest, num_tuples=4, layout=layout, grid=grid)


@pytest.mark.parametrize("name", KINDS)
def test_explicit_orders(name):
    build, layout, location, degree = KINDS[name]
    spectrum = spectrum_of(build, layout)
    assert (spectrum.location_order, spectrum.degree_order) == (location, degree)
    assert not spectrum.unlisted


@pytest.mark.parametrize("name", OPEN)
@pytest.mark.parametrize("highest", [2, 4])
def test_recurrences_are_open_however_far_one_looks(name, highest):
    build, layout = OPEN[name]
    spectrum = spectrum_of(build, layout, highest=highest)
    assert (spectrum.location_order, spectrum.degree_order, spectrum.at_least) == (None, None, highest)
