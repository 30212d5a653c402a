"""The GF layer: half of the channels through a learnable filter in the frequency domain, half through a 3x3."""

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d, trunc_normal_
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import statically_known_true

GF_DEFAULT_SIZE = (14, 8)  # the filter of a 14x14 map: rfft2 keeps 14 // 2 + 1 = 8 columns


def resized_filter(complex_weight: Tensor, size: tuple[int, int]) -> Tensor:
    """The filter W of a GF layer for a map of another size, as the published implementation resizes it.

    Bilinear over (h, w) with `align_corners=True`, real and imaginary parts apart.

    Args:
        complex_weight: (C/2, h, w, 2), real and imaginary part last.
        size: (H, W // 2 + 1), the size of `rfft2` of the map.

    Returns:
        (C/2, H, W // 2 + 1, 2), in memory as `torch.view_as_complex` needs it, whatever the memory format of the
        parameter; `complex_weight` itself where size and memory are already right.

    Example:
        >>> resized_filter(torch.ones(4, 14, 8, 2), (7, 4)).shape
        torch.Size([4, 7, 4, 2])
    """
    rows, columns = size
    if not _fits(complex_weight, rows, columns):
        planes = complex_weight.permute(3, 0, 1, 2)
        resized = F.interpolate(planes, size=[rows, columns], mode="bilinear", align_corners=True)
        return resized.permute(1, 2, 3, 0).clone(memory_format=torch.contiguous_format)
    strides = complex_weight.stride()
    in_pairs = strides[-1] == 1 and all([stride % 2 == 0 for stride in strides[:-1]])  # noqa: C419 (TorchScript)
    if in_pairs and complex_weight.storage_offset() % 2 == 0:
        return complex_weight
    return complex_weight.clone(memory_format=torch.contiguous_format)


def _fits(complex_weight: Tensor, rows: int, columns: int) -> bool:
    """Whether the filter has this size already; False, too, where a traced size is not known yet.

    Resizing to its own size leaves a filter as it is, bit by bit, so that a graph may do it at every size.
    """
    if torch.jit.is_scripting():
        return complex_weight.shape[1] == rows and complex_weight.shape[2] == columns
    if torch.jit.is_tracing():
        return False
    same_rows = statically_known_true(complex_weight.shape[1] == rows)
    return same_rows and statically_known_true(complex_weight.shape[2] == columns)


@torch.fx.wrap  # symbolic tracing sees one call: what it does depends on the dtype and the size of the map
def circular_convolution(x: Tensor, complex_weight: Tensor) -> Tensor:
    """irfft2(rfft2(x) W): every channel convolved with a kernel as large as the map.

    Args:
        x: (B, C/2, H, W).
        complex_weight: the filter (C/2, h, w, 2), resized to the map.

    Returns:
        (B, C/2, H, W) in the dtype of `x`, computed in float64 for float64 and in float32 otherwise.

    Example:
        >>> circular_convolution(torch.ones(1, 4, 7, 7), torch.ones(4, 14, 8, 2)).shape
        torch.Size([1, 4, 7, 7])
    """
    H, W = x.shape[-2:]
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    spectrum = torch.fft.rfft2(x.to(dtype), norm="ortho")
    weight = torch.view_as_complex(resized_filter(complex_weight.to(dtype), (H, W // 2 + 1)))
    convolved: Tensor = torch.fft.irfft2(spectrum * weight, s=(H, W), norm="ortho")
    return convolved.to(x.dtype)


class CircularConv(nn.Module):
    """`circular_convolution` as a module of its own, without parameters, for what hooks modules: linear in x.

    Example:
        >>> CircularConv()(torch.ones(1, 4, 7, 7), weight=torch.ones(4, 14, 8, 2)).shape
        torch.Size([1, 4, 7, 7])
    """

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return circular_convolution(x, weight)


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
        local, spectral = self.pre_norm(x).chunk(2, dim=1)
        local = self.dw(local)
        spectral = self.circular(spectral, weight=self.complex_weight).to(local.dtype)
        interleaved = torch.stack([local, spectral], dim=2).flatten(1, 2)  # 2m from m, 2m + 1 from C/2 + m
        out: Tensor = self.post_norm(interleaved)
        return out

    def extra_repr(self) -> str:
        """The filter's size, for `print(model)`."""
        h, w = self.complex_weight.shape[1:3]
        return f"filter={h}x{w}"
