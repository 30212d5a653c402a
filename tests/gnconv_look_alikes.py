"""gnConvs as other repositories write them, and modules that have a gnConv's parts and are none."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn


class ChannelsFirstNorm(nn.Module):
    """A LayerNorm over channels in primitive operations, as the published code has it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim)), 1e-6

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt((x - mean).pow(2).mean(1, keepdim=True) + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class PublishedFilter(nn.Module):
    """GF as the detectors' repositories copy it: norms by hand, the transform in float32 whatever comes in."""

    def __init__(self, dim: int, h: int = 5, w: int = 3) -> None:
        super().__init__()
        self.dw = nn.Conv2d(dim // 2, dim // 2, 3, padding=1, bias=False, groups=dim // 2)
        self.complex_weight = nn.Parameter(torch.randn(dim // 2, h, w, 2))
        self.pre_norm, self.post_norm = ChannelsFirstNorm(dim), ChannelsFirstNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        x1, x2 = torch.chunk(self.pre_norm(x), 2, dim=1)
        x1 = self.dw(x1)
        x2 = x2.to(torch.float32)
        B, C, a, b = x2.shape
        x2 = torch.fft.rfft2(x2, dim=(2, 3), norm="ortho")
        weight = self.complex_weight
        if weight.shape[1:3] != x2.shape[2:4]:
            weight = nn.functional.interpolate(
                weight.permute(3, 0, 1, 2), size=x2.shape[2:4], mode="bilinear", align_corners=True
            ).permute(1, 2, 3, 0)
        x2 = torch.fft.irfft2(x2 * torch.view_as_complex(weight.contiguous()), s=(a, b), dim=(2, 3), norm="ortho")
        x = torch.cat([x1.unsqueeze(2), x2.unsqueeze(2)], dim=2).reshape(B, 2 * C, a, b)
        return self.post_norm(x)


class DetectorsGnConv(nn.Module):
    """gnConv as the YOLO repositories have it; `projs` for `pws` makes it mmpretrain's."""

    def __init__(
        self,
        dim: int = 8,
        order: int = 2,
        *,
        dwconv: Callable[[int], nn.Module] | None = None,
        linear: Callable[[int, int], nn.Module] = lambda a, b: nn.Conv2d(a, b, 1),
        scale: object = 1.0,
        list_name: str = "pws",
    ) -> None:
        super().__init__()
        self.dims = [dim // 2**i for i in range(order)][::-1]
        width = sum(self.dims)
        self.proj_in = linear(dim, 2 * dim)
        self.dwconv = dwconv(width) if dwconv else nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.proj_out = linear(dim, dim)
        self.list_name = list_name
        setattr(self, list_name, nn.ModuleList([linear(a, b) for a, b in pairwise(self.dims)]))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        pwa, abc = torch.split(self.proj_in(x), (self.dims[0], sum(self.dims)), dim=1)
        dw_list = torch.split(self.dwconv(abc) * self.scale, self.dims, dim=1)
        x = pwa * dw_list[0]
        for i, linear in enumerate(getattr(self, self.list_name)):
            x = linear(x) * dw_list[i + 1]
        return self.proj_out(x)


class LinearGnConv(DetectorsGnConv):
    """Its linear maps are `nn.Linear` on channels-last maps."""

    def __init__(self, dim: int = 8, order: int = 2) -> None:
        super().__init__(dim, order, linear=nn.Linear)

    def forward(self, x: Tensor) -> Tensor:
        pwa, abc = self.proj_in(x.permute(0, 2, 3, 1)).split((self.dims[0], sum(self.dims)), dim=-1)
        f = self.dwconv(abc.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).split(self.dims, dim=-1)
        x = pwa * f[0]
        for i, linear in enumerate(self.pws):
            x = linear(x) * f[i + 1]
        return self.proj_out(x).permute(0, 3, 1, 2)


def _conv(kernel: int = 3, **options: object) -> Callable[[int], nn.Module]:
    return lambda dim: nn.Conv2d(dim, dim, kernel, groups=dim, **{"padding": kernel // 2, **options})


def _weight_normed(dim: int) -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Conv2d(dim, dim, 3, padding=1, groups=dim))


def _grouped(a: int, b: int) -> nn.Module:
    return nn.Conv2d(a, b, 1, groups=2)


GNCONVS: dict[str, Callable[[], nn.Module]] = {
    "a YOLO's": DetectorsGnConv,
    "a YOLO's, order 1": lambda: DetectorsGnConv(order=1),
    "a YOLO's with GF": lambda: DetectorsGnConv(dwconv=PublishedFilter),
    "mmpretrain's": lambda: DetectorsGnConv(order=3, scale=1 / 3, list_name="projs"),
    "linear layers": lambda: LinearGnConv(order=3),
    "a scale a channel": lambda: DetectorsGnConv(scale=nn.Parameter(torch.rand(12, 1, 1) + 0.5)),
    "a scale a channel, no parameter": lambda: DetectorsGnConv(scale=torch.rand(1, 12, 1, 1) + 0.5),
    "a scale a channel with GF": lambda: DetectorsGnConv(
        dwconv=PublishedFilter, scale=nn.Parameter(torch.rand(12, 1, 1) + 0.5)
    ),
    "a scale a channel with pooling": lambda: DetectorsGnConv(
        dwconv=lambda _: nn.AvgPool2d(3, 1, 1), scale=nn.Parameter(torch.rand(12, 1, 1) + 0.5)
    ),
    "one learned scale": lambda: DetectorsGnConv(scale=nn.Parameter(torch.tensor(0.7))),
    "no biases": lambda: DetectorsGnConv(
        dwconv=_conv(bias=False), linear=lambda a, b: nn.Conv2d(a, b, 1, bias=False), order=3
    ),
    "grouped 1x1": lambda: DetectorsGnConv(16, 3, linear=_grouped),
    "dilated": lambda: DetectorsGnConv(dwconv=_conv(dilation=2, padding=2)),
    "padding by name": lambda: DetectorsGnConv(dwconv=_conv(5, padding="same")),
    "a weight norm": lambda: DetectorsGnConv(dwconv=_weight_normed),
    "pooling, padding counted": lambda: DetectorsGnConv(dwconv=lambda _: nn.AvgPool2d(3, 1, 1)),
    "pooling, padding not counted": lambda: DetectorsGnConv(
        dwconv=lambda _: nn.AvgPool2d((3, 5), 1, (1, 2), count_include_pad=False)
    ),
    "pooling, another divisor, ceil mode": lambda: DetectorsGnConv(
        dwconv=lambda _: nn.AvgPool2d(5, 1, 2, ceil_mode=True, divisor_override=7)
    ),
}


class Scale(nn.Module):
    """A scale as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x


class ModuleScaled(DetectorsGnConv):
    """Its scale is a module."""

    def __init__(self) -> None:
        super().__init__(scale=Scale())

    def forward(self, x: Tensor) -> Tensor:
        pwa, abc = torch.split(self.proj_in(x), (self.dims[0], sum(self.dims)), dim=1)
        dw_list = torch.split(self.scale(self.dwconv(abc)), self.dims, dim=1)
        return self.proj_out(self.pws[0](pwa * dw_list[0]) * dw_list[1])


class ScaledInside(DetectorsGnConv):
    """A scale of as many numbers as no part has channels, which is not used on f."""

    def __init__(self) -> None:
        super().__init__(scale=nn.Parameter(torch.ones(8, 1, 1)))

    def forward(self, x: Tensor) -> Tensor:
        pwa, abc = torch.split(self.proj_in(x), (self.dims[0], sum(self.dims)), dim=1)
        dw_list = torch.split(self.dwconv(abc), self.dims, dim=1)
        return self.proj_out(self.scale * self.pws[0](pwa * dw_list[0]) * dw_list[1])


class Cropped(nn.Module):
    """An even kernel that makes the map larger by one, cut off again."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 4, padding=2, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)[:, :, :-1, :-1]


# shaped like a gnConv, of order n as a polynomial, and outside of what Eq. 3.6 and the closed form are about
NO_GNCONVS: dict[str, Callable[[], nn.Module]] = {
    "3x3 projections": lambda: DetectorsGnConv(linear=lambda a, b: nn.Conv2d(a, b, 3, padding=1)),
    "circular padding": lambda: DetectorsGnConv(dwconv=_conv(padding_mode="circular")),
    "an even kernel": lambda: DetectorsGnConv(dwconv=_conv(4, padding="same")),
    "an even kernel, cropped": lambda: DetectorsGnConv(dwconv=Cropped),
    "a full convolution": lambda: DetectorsGnConv(dwconv=lambda dim: nn.Conv2d(dim, dim, 3, padding=1)),
    "layers with batch norms": lambda: DetectorsGnConv(
        linear=lambda a, b: nn.Sequential(nn.Conv2d(a, b, 1), nn.BatchNorm2d(b))
    ),
    "f with a batch norm": lambda: DetectorsGnConv(dwconv=lambda dim: nn.Sequential(_conv()(dim), nn.BatchNorm2d(dim))),
    "f alone a batch norm": lambda: DetectorsGnConv(dwconv=nn.BatchNorm2d),
    "a scale that is a module": ModuleScaled,
    "a scale of other channels": ScaledInside,
}
