"""The filters of a GF layer, in frequency and in space."""

import torch

from horinsight.mixing.mixing_results import FilterKernels
from horinsight.models.global_local_filter import GlobalLocalFilter, resized_filter
from horinsight.results import Provenance


def filter_kernels(
    layer: GlobalLocalFilter,
    map_size: tuple[int, int],
    *,
    name: str = "GF",
    provenance: Provenance | None = None,
) -> FilterKernels:
    """Frequency response and spatial kernel of the global half of a GF layer on a map of a given size.

    The kernel is `irfft2(W, s=(H, W))`; the response is that kernel's transform, so that the redundant half of the
    spectrum, and what `irfft2` ignores of W, are as the layer really computes.

    Args:
        layer: the GF layer.
        map_size: (H, W); the filter is resized to it as in the forward pass.
        name: for titles.
        provenance: where the weights come from.

    Example:
        >>> kernels = filter_kernels(GlobalLocalFilter(4, h=6, w=4), (6, 6))
        >>> kernels.magnitude.shape, kernels.kernel.shape
        ((2, 6, 6), (2, 6, 6))
    """
    H, W = map_size
    weight = resized_filter(layer.complex_weight.detach().double(), (H, W // 2 + 1)).contiguous()
    kernel = torch.fft.irfft2(torch.view_as_complex(weight), s=(H, W))
    middle = {"dim": (-2, -1)}
    return FilterKernels(
        magnitude=torch.fft.fftshift(torch.fft.fft2(kernel).abs(), **middle).numpy(),
        kernel=torch.fft.fftshift(kernel, **middle).numpy(),
        name=name,
        provenance=provenance,
        convention={
            "kernel": "irfft2(W) on the map, offset 0 in the middle",
            "magnitude": "|fft2(kernel)|, zero frequency in the middle",
        },
    )
