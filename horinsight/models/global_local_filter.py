"""The GF layer: half of the channels through a learnable filter in the frequency domain, half through a 3x3."""

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d, trunc_normal_
from torch import Tensor, nn

GF_DEFAULT_SIZE = (14, 8)  # the filter of a 14x14 map: rfft2 keeps 14 // 2 + 1 = 8 columns


def resized_filter(complex_weight: Tensor, size: tuple[int, int]) -> Tensor:
    """The filter W of a GF layer for a map of another size, as the published implementation resizes it.

    Bilinear over (h, w) with `align_corners=True`, real and imaginary parts apart.

    Args:
        complex_weight: (C/2, h, w, 2), real and imaginary part last.
        size: (H, W // 2 + 1), the size of `rfft2` of the map.

    Returns:
        (C/2, H, W // 2 + 1, 2); `complex_weight` itself where the size is already right.

    Example:
        >>> resized_filter(torch.ones(4, 14, 8, 2), (7, 4)).shape
        torch.Size([4, 7, 4, 2])
    """
    if tuple(complex_weight.shape[1:3]) == tuple(size):
        return complex_weight
    planes = complex_weight.permute(3, 0, 1, 2)
    return F.interpolate(planes, size=size, mode="bilinear", align_corners=True).permute(1, 2, 3, 0).contiguous()


class CircularConv(nn.Module):
    """irfft2(rfft2(x) W): linear in x, a module of its own (without parameters) for what hooks modules.

    Example:
        >>> x = torch.randn(1, 2, 4, 6)
        >>> bool(torch.allclose(CircularConv()(x, weight=torch.ones(2, 4, 4, dtype=torch.complex64)), x, atol=1e-5))
        True
    """

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(x, norm="ortho")
        return torch.fft.irfft2(spectrum * weight, s=(x.shape[-2], x.shape[-1]), norm="ortho")


class GlobalLocalFilter(nn.Module):
    """Global-local filter (GF), the f of HorNet-GF in stages 3 and 4 (§3.1, "Global Filter (GF)").

    A channel LayerNorm, then the first half of the channels through a 3x3 depthwise convolution without bias and the
    second half through `irfft2(rfft2(.) W)` (a circular convolution with a kernel as large as the map), then the two
    halves *interleaved* (output channel 2m comes from input channel m, 2m + 1 from C/2 + m), then a channel LayerNorm.
    Because of the norms it is not depthwise in its input.

    The transform runs in float32, or in float64 for a float64 input; the result has the dtype of the input.

    Args:
        dim: number of channels C, even.
        h: rows of the filter, the height of the map it is learned on.
        w: columns of the filter, half the width of that map plus one.

    Raises:
        ValueError: `dim` is odd, or the filter is empty.

    Example:
        >>> GlobalLocalFilter(8, h=14, w=8)(torch.zeros(1, 8, 10, 6)).shape
        torch.Size([1, 8, 10, 6])

    Source: Rao et al. 2022 (arXiv 2207.14284); parameters are named as in the published implementation.
    """

    def __init__(self, dim: int, h: int = GF_DEFAULT_SIZE[0], w: int = GF_DEFAULT_SIZE[1]) -> None:
        super().__init__()
        if dim < 2 or dim % 2:
            raise ValueError(f"GlobalLocalFilter expects an even number of channels to halve, got dim={dim}.")
        if h < 1 or w < 1:
            raise ValueError(f"GlobalLocalFilter expects a filter of at least 1x1, got h={h}, w={w}.")
        self.dw = nn.Conv2d(dim // 2, dim // 2, kernel_size=3, padding=1, bias=False, groups=dim // 2)
        self.complex_weight = nn.Parameter(torch.empty(dim // 2, h, w, 2))
        self.circular = CircularConv()
        self.pre_norm = LayerNorm2d(dim, eps=1e-6)
        self.post_norm = LayerNorm2d(dim, eps=1e-6)
        trunc_normal_(self.complex_weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        H, W = x.shape[-2:]
        local, spectral = self.pre_norm(x).chunk(2, dim=1)
        local = self.dw(local)
        dtype = torch.promote_types(spectral.dtype, torch.float32)
        weight = resized_filter(self.complex_weight.to(dtype), (H, W // 2 + 1))
        spectral = self.circular(spectral.to(dtype), weight=torch.view_as_complex(weight))
        x = torch.stack([local, spectral.to(local.dtype)], dim=2).flatten(
            1, 2
        )  # interleaved: 2m from m, 2m+1 from C/2+m
        return self.post_norm(x)

    def extra_repr(self) -> str:
        """The filter's size, for `print(model)`."""
        h, w = self.complex_weight.shape[1:3]
        return f"filter={h}x{w}"
