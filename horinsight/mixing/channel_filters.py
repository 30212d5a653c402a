r"""The kernel of each channel of a block, in space and in frequency, with how much its weights adapt on a picture.

Mixing weights that are a gate times a kernel, h_ij^c = g_i^c k_d^c with d = j - i, have one kernel per channel. Of one
picture and one channel alone the analysis of variance of `mixing/adaptivity.py` gives

    location adaptivity = SS_location / (SS_static + SS_location)
    location deviation  = sqrt(SS_location / number of pairs (i, d))

the first 0 for a plain convolution, and both independent of what other channels do.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from horinsight.mixing.factored_weights import CircularWeights, DepthwiseWeights, FactoredWeights, InterleavedWeights
from horinsight.mixing.filter_results import ChannelFilters
from horinsight.mixing.variance_sums import VarianceSums, variance_shares
from horinsight.mixing.weight_cells import GateCells
from horinsight.mixing.weights import MixingWeights
from horinsight.mixing.weights_by_offset import weights_by_offset
from horinsight.results import Provenance

CONVENTION = {
    "kernel": "k_d by offset d = j - i, offset 0 in the middle; factors of the query are in the gate",
    "frequency": "|fft2| of the kernel on the map, or on 28x28 for one with borders; zero frequency in the middle",
    "location_adaptivity": "share of the variance of the channel's weights that comes with the query, on one picture",
    "location_deviation": "root mean square by which a weight differs from its mean over queries, in units of h_ij",
    "norm": "root of the sum of squares of the kernel",
}


def channel_filters(
    weights: MixingWeights, *, image: int = 0, name: str = "", provenance: Provenance | None = None
) -> ChannelFilters:
    """Kernels of all channels, and how much each adapts on one picture.

    Args:
        weights: of `mixing_weights` or `model_mixing_weights`.
        image: which picture of the batch.
        name: of the block.
        provenance: model, weights and images, where known.

    Raises:
        ValueError: the weights are no kernels, as those of attention.

    Example:
        >>> from torch import nn
        >>> from horinsight.mixing.extraction import mixing_weights
        >>> conv = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        >>> found = channel_filters(mixing_weights(conv, torch.randn(1, 4, 6, 6)))
        >>> found.kernels["3x3"].shape, found.location_adaptivity.tolist()
        ((4, 3, 3), [0.0, 0.0, 0.0, 0.0])
    """
    parts, channels = _parts(weights)
    num = sum(len(one) for one in channels)
    adaptivity, deviation, norms = (np.zeros(num) for _ in range(3))
    kernels: dict[str, np.ndarray] = {}
    places: dict[str, np.ndarray] = {}
    for part, own in zip(parts, channels, strict=True):
        kernel = _kernel(part)
        kind = f"{kernel.shape[1]}x{kernel.shape[2]}" + (" circular" if isinstance(part, CircularWeights) else "")
        kernels[kind], places[kind] = kernel, own
        shares = _shares(part, image)
        adaptivity[own], deviation[own] = shares["location_adaptivity"], shares["location_deviation"]
        norms[own] = np.sqrt((kernel**2).sum((1, 2)))
    return ChannelFilters(
        kernels=kernels,
        channels=places,
        location_adaptivity=adaptivity,
        location_deviation=deviation,
        norms=norms,
        name=name,
        convention=CONVENTION,
        provenance=provenance,
    )


def _parts(weights: MixingWeights) -> tuple[list[FactoredWeights], list[np.ndarray]]:
    """Weights of each kind, and which channels they are of."""
    if isinstance(weights, InterleavedWeights):
        return list(weights.parts), [channels.cpu().numpy() for channels in weights.channels]
    if isinstance(weights, DepthwiseWeights | CircularWeights):
        return [weights], [np.arange(weights.num_channels)]
    raise ValueError(
        f"{type(weights).__name__} are no kernels: filters are those of depthwise convolutions, of GF and of gnConvs."
    )


def _kernel(part: FactoredWeights) -> np.ndarray:
    """(C, rows, columns) by offset j - i."""
    kernel = part.kernel.detach().double().cpu()
    if isinstance(part, DepthwiseWeights):
        found: np.ndarray = kernel.unflatten(1, part.kernel_size).numpy()
        return found
    on_map = kernel.unflatten(1, (part.height, part.width))  # k[o] weighs position i - o
    turned = torch.roll(on_map.flip((1, 2)), (1, 1), (1, 2))
    found = torch.fft.fftshift(turned, dim=(1, 2)).numpy()
    return found


def _shares(part: FactoredWeights, image: int) -> Mapping[str, np.ndarray]:
    """Location adaptivity and deviation of each channel by itself: channels as groups of one."""
    (by_offset,) = weights_by_offset(part)
    assert by_offset.gate is not None
    assert by_offset.kernel is not None
    gate: Tensor = by_offset.gate[image][:, None]  # (C, 1, N)
    cells = GateCells(by_offset.valid, by_offset.kernel[:, None])  # (C, 1, D)
    nothing = gate.new_zeros(len(gate))
    shares = variance_shares([VarianceSums(cells, 1, gate, nothing, nothing)])
    return {name: shares[name].numpy() for name in ("location_adaptivity", "location_deviation")}
