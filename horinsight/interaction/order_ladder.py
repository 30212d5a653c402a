"""The order ladder: the operators of the paper's Figure 1 and Table 6 side by side, each with the order that it has."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from timm.layers.squeeze_excite import SEModule
from timm.models.focalnet import FocalModulation
from timm.models.mlp_mixer import SpatialGatingUnit
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from horinsight.interaction.interaction_effect import interaction_spectrum
from horinsight.interaction.spectrum import InteractionSpectrum
from horinsight.models.gnconv import GnConv

GNCONV_ORDERS = range(1, 7)
FUNCTIONAL_ORDER = 3  # where softmax, sigmoid, GELU or a norm give every order, this many are shown


class DynamicConv(nn.Module):
    """Depthwise convolution whose kernel is mixed for each picture by an attention over its mean.

    Source: Chen et al. 2020, "Dynamic convolution: attention over convolution kernels" (arXiv 1912.03458), depthwise.
    """

    def __init__(self, dim: int, kernel_size: int = 7, num_kernels: int = 4) -> None:
        super().__init__()
        self.kernels = nn.Parameter(torch.randn(num_kernels, dim, kernel_size, kernel_size) / kernel_size)
        self.attention = nn.Sequential(nn.Linear(dim, dim // 4), nn.GELU(), nn.Linear(dim // 4, num_kernels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        B, C, H, W = x.shape
        share = self.attention(x.mean((2, 3))).softmax(dim=1)
        kernel = torch.einsum("bm,mcuv->bcuv", share, self.kernels).flatten(0, 1)[:, None]
        padding = self.kernels.shape[-1] // 2
        return nn.functional.conv2d(x.reshape(1, B * C, H, W), kernel, padding=padding, groups=B * C).view_as(x)


class LinearAttention(nn.Module):
    """Softmax-free self-attention, q (kᵀ v) / N: of degree order 2, and of location order 1."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) → (B, N, C)."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        mixed: Tensor = self.proj(q @ (k.transpose(-2, -1) @ v) / x.shape[1])
        return mixed


@dataclass(frozen=True, eq=False)
class Rung:
    """One operator of the ladder.

    Attributes:
        name: in words.
        build: gives the module for a width and a number of tokens.
        tokens: whether it takes (B, N, C) instead of (B, C, H, W).
        location_order: what theory says of the explicit operator.
        degree_order: likewise.
        functional_order: of the operator as it is; None where its non-linearities give every order.
    """

    name: str
    build: Callable[[int, int], nn.Module]
    tokens: bool
    location_order: int
    degree_order: int
    functional_order: int | None


def _gate(dim: int, num_tokens: int) -> nn.Module:
    gating = SpatialGatingUnit(dim, num_tokens)
    nn.init.normal_(gating.proj.weight, std=num_tokens**-0.5)
    gate: nn.Module = gating
    return gate


def _depthwise(dim: int, num_tokens: int) -> nn.Module:
    return nn.Conv2d(dim, dim, 7, padding=3, groups=dim)


def _gnconv(order: int) -> Callable[[int, int], nn.Module]:
    return lambda dim, num_tokens: GnConv(dim, order, kernel_size=7)


def _gf_gnconv(order: int) -> Callable[[int, int], nn.Module]:
    def build(dim: int, num_tokens: int) -> nn.Module:
        side = int(num_tokens**0.5)
        return GnConv(dim, order, depthwise="gf", gf_size=(side, side // 2 + 1))

    return build


def ladder() -> list[Rung]:
    """The rungs, from order 0 up.

    Example:
        >>> [rung.name for rung in ladder()][:3]
        ['convolution 7x7', 'average pooling 3x3', 'squeeze-and-excitation']
    """
    return [
        Rung("convolution 7x7", _depthwise, False, 0, 0, 0),
        Rung("average pooling 3x3", lambda dim, _: nn.AvgPool2d(3, 1, 1), False, 0, 0, 0),
        Rung("squeeze-and-excitation", lambda dim, _: SEModule(dim, act_layer=nn.GELU), False, 1, 1, None),
        Rung("dynamic convolution", lambda dim, _: DynamicConv(dim), False, 1, 1, None),
        Rung("focal modulation", lambda dim, _: FocalModulation(dim, 3, 2), False, 1, 2, None),
        Rung("gMLP's spatial gate", _gate, True, 1, 1, 1),  # its norm acts within a position
        Rung("softmax-free attention", lambda dim, _: LinearAttention(dim), True, 1, 2, 1),
        Rung("self-attention", lambda dim, _: Attention(dim, num_heads=4, qkv_bias=True), True, 2, 2, None),
        *(Rung(f"g{n}Conv 7x7", _gnconv(n), False, n, n, n) for n in GNCONV_ORDERS),
        *(Rung(f"g{n}Conv GF", _gf_gnconv(n), False, n, n, None) for n in (3, 5)),
    ]


def rung_spectra(
    rung: Rung, *, dim: int = 64, side: int = 14, num_images: int = 2, num_tuples: int = 8, seed: int = 0
) -> tuple[InteractionSpectrum, InteractionSpectrum]:
    """Explicit and functional spectrum of one rung, with random weights at a random point, in float64.

    Args:
        rung: of `ladder`.
        dim: channels.
        side: of the map.
        num_images: operating points.
        num_tuples: chains a point.
        seed: of weights, points and chains.

    Returns:
        The explicit spectrum, two orders beyond the degree, and the functional one.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = rung.build(dim, side * side).double().eval()
        shape = (num_images, side * side, dim) if rung.tokens else (num_images, dim, side, side)
        x = torch.randn(shape, dtype=torch.float64)
    beyond = rung.degree_order + 2
    functional = FUNCTIONAL_ORDER if rung.functional_order is None else beyond
    grid = (side, side) if rung.tokens else None
    explicit = interaction_spectrum(module, x, max_order=beyond, num_tuples=num_tuples, seed=seed, grid=grid)
    as_is = interaction_spectrum(
        module, x, max_order=functional, num_tuples=num_tuples, seed=seed, grid=grid, explicit=False
    )
    return explicit, as_is
