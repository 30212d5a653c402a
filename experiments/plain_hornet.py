"""HorNet computed the plain way: NCHW memory, 1x1 convolutions, the channel LayerNorm written out.

It takes the state dict of one of our models (the official names) and is the yardstick of two things: the tests compare
outputs with it, `benchmark.py forward` compares times. Nothing of it is shared with the package.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ChannelLayerNorm(nn.Module):
    """LayerNorm over dimension 1 of (B, C, H, W), written out as the published code does."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class PlainFilter(nn.Module):
    """GF: norm, half of the channels through 3x3, half through the filter, interleaved, norm."""

    def __init__(self, dim: int, h: int, w: int) -> None:
        super().__init__()
        self.dw = nn.Conv2d(dim // 2, dim // 2, 3, padding=1, bias=False, groups=dim // 2)
        self.complex_weight = nn.Parameter(torch.zeros(dim // 2, h, w, 2))
        self.pre_norm = ChannelLayerNorm(dim)
        self.post_norm = ChannelLayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pre_norm(x)
        B, C, H, W = x.shape
        local, spectral = self.dw(x[:, : C // 2]), x[:, C // 2 :]
        weight = self.complex_weight
        if weight.shape[1:3] != (H, W // 2 + 1):
            parts = [
                F.interpolate(weight[None, ..., part], size=(H, W // 2 + 1), mode="bilinear", align_corners=True)[0]
                for part in range(2)
            ]
            weight = torch.stack(parts, dim=-1)
        product = torch.fft.rfft2(spectral, norm="ortho") * torch.complex(weight[..., 0], weight[..., 1])
        spectral = torch.fft.irfft2(product, s=(H, W), norm="ortho")
        out = torch.empty(B, C, H, W, dtype=x.dtype)
        out[:, 0::2], out[:, 1::2] = local, spectral
        return self.post_norm(out)


class PlainGnConv(nn.Module):
    """gnConv with 1x1 convolutions."""

    def __init__(self, dim: int, order: int, scale: float, kernel_size: int, gf: tuple[int, int] | None) -> None:
        super().__init__()
        widths = [dim]
        while len(widths) < order:
            widths.insert(0, widths[0] // 2)
        self.widths, self.scale = widths, scale
        total = sum(widths)
        self.proj_in = nn.Conv2d(dim, 2 * dim, 1)
        self.dwconv = (
            PlainFilter(total, *gf)
            if gf
            else nn.Conv2d(total, total, kernel_size, padding=kernel_size // 2, groups=total)
        )
        self.proj_out = nn.Conv2d(dim, dim, 1)
        self.pws = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        first, rest = torch.split(self.proj_in(x), [self.widths[0], sum(self.widths)], dim=1)
        mixed = torch.split(self.dwconv(rest) * self.scale, self.widths, dim=1)
        x = first * mixed[0]
        for step, linear in enumerate(self.pws):
            x = linear(x) * mixed[step + 1]
        return self.proj_out(x)


class PlainBlock(nn.Module):
    """One residual block."""

    def __init__(self, dim: int, *gnconv_args: object) -> None:
        super().__init__()
        self.norm1 = ChannelLayerNorm(dim)
        self.gnconv = PlainGnConv(dim, *gnconv_args)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma1 = nn.Parameter(torch.ones(dim))
        self.gamma2 = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.gamma1.view(-1, 1, 1) * self.gnconv(self.norm1(x))
        y = self.pwconv2(F.gelu(self.pwconv1(self.norm2(x.permute(0, 2, 3, 1)))))
        return x + (self.gamma2 * y).permute(0, 3, 1, 2)


class PlainHorNet(nn.Module):
    """The hierarchical model."""

    def __init__(self, dim, depths, orders, filters, *, scale=1 / 3, kernel_size=7, in_chans=3, num_classes=1000):
        super().__init__()
        dims = [dim, 2 * dim, 4 * dim, 8 * dim]
        self.downsample_layers = nn.ModuleList([nn.Sequential(nn.Conv2d(in_chans, dim, 4, 4), ChannelLayerNorm(dim))])
        for a, b in pairwise(dims):
            self.downsample_layers.append(nn.Sequential(ChannelLayerNorm(a), nn.Conv2d(a, b, 2, 2)))
        self.stages = nn.ModuleList(
            nn.Sequential(*[PlainBlock(d, order, scale, kernel_size, gf) for _ in range(depth)])
            for d, depth, order, gf in zip(dims, depths, orders, filters, strict=True)
        )
        self.norm = nn.LayerNorm(dims[-1], eps=1e-6)
        self.head = nn.Linear(dims[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        for down, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(down(x))
        return self.head(self.norm(x.mean([-2, -1])))


class PlainIsotropicHorNet(nn.Module):
    """The isotropic model."""

    def __init__(self, dim, depth, order, gf=None, *, scale=1 / 3, kernel_size=7, in_chans=3, num_classes=1000):
        super().__init__()
        self.stem = nn.Conv2d(in_chans, dim, 16, 16)
        self.blocks = nn.Sequential(*[PlainBlock(dim, order, scale, kernel_size, gf) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.stem(x)).mean([-2, -1])))


_GF = (None, None, (14, 8), (7, 4))
PLAIN_MODELS = {
    "hornet_tiny_7x7": lambda: PlainHorNet(64, (2, 3, 18, 2), (2, 3, 4, 5), (None,) * 4),
    "hornet_tiny_gf": lambda: PlainHorNet(64, (2, 3, 18, 2), (2, 3, 4, 5), _GF),
    "hornet_s_iso": lambda: PlainIsotropicHorNet(384, 13, 5),
    "hornet_s_iso_gf": lambda: PlainIsotropicHorNet(384, 13, 5, (14, 8)),
    "hornet_test": lambda: PlainHorNet(8, (1, 1, 1, 1), (2, 3, 4, 5), (None,) * 4),
    "hornet_test_gf": lambda: PlainHorNet(8, (1, 1, 1, 1), (2, 3, 4, 5), (None, None, (6, 4), (3, 2))),
    "hornet_test_iso": lambda: PlainIsotropicHorNet(16, 3, 3),
}


def plain_model(name: str, state: dict[str, Tensor]) -> nn.Module:
    """The plain model `name` with the weights `state`, in eval mode."""
    model = PLAIN_MODELS[name]()
    model.load_state_dict(state)
    return model.eval()
