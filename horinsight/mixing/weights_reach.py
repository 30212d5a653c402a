"""How far mixing weights reach, how many positions they use, and what share is negative: of each picture.

mean distance        Σ |h| dist(i, j) / Σ |h|
effective positions  mean over c, i of (Σ_j |h|)² / Σ_j h²   (a gate cancels: for gⁿConv this is the kernel's)
negative share       Σ max(-h, 0) / Σ |h|
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from horinsight.mixing.weights_by_offset import WeightsByOffset


def weights_reach(parts: Sequence[WeightsByOffset], stride: tuple[float, float] | None = None) -> dict[str, np.ndarray]:
    """Mean distance in cells and in pixels, effective positions and negative share of each picture, (B,) each.

    Args:
        parts: the weights by offset, one part for each kind of channels.
        stride: pixels from one row of cells to the next, and from one column; the distance in pixels is NaN when None.
    """
    sums: dict[str, Tensor] = {}

    def add(name: str, value: Tensor) -> None:
        sums[name] = sums.get(name, torch.zeros((), device="cpu")) + value

    for part in parts:
        _add_part(part, stride or (float("nan"),) * 2, add)
    weight = sums["weight"].clamp(min=np.finfo(float).tiny)
    found = {
        "mean_distance": sums["distance"] / weight,
        "mean_distance_pixels": sums["pixels"] / weight,
        "effective_positions": sums["positions"] / sums["rows"],
        "negative_share": sums["negative"] / weight,
    }
    return {name: value.numpy() for name, value in found.items()}


def _add_part(part: WeightsByOffset, stride: tuple[float, float], add: Callable[[str, Tensor], None]) -> None:
    """Add what one kind of channels gives to the sums."""
    valid = part.valid.double()
    rows, columns = part.rows.double(), part.columns.double()
    distances = {"distance": torch.hypot(rows, columns) * valid}
    distances["pixels"] = torch.hypot(rows * stride[0], columns * stride[1]) * valid
    if part.explicit is not None:
        h = part.explicit * valid
        size = h.abs()
        add("weight", size.sum((1, 2, 3)))
        for name, distance in distances.items():
            add(name, torch.einsum("bcid,id->b", size, distance))
        add("negative", h.clamp(max=0).abs().sum((1, 2, 3)))
        ratio = size.sum(-1).square() / h.square().sum(-1).clamp(min=np.finfo(float).tiny)
        add("positions", ratio.sum((1, 2)))
        add("rows", torch.tensor(float(ratio[0].numel()), device="cpu"))
        return
    assert part.gate is not None
    assert part.kernel is not None
    g, k = part.gate, part.kernel
    size = k.abs()
    add("weight", torch.einsum("bci,ci->b", g.abs(), size @ valid.T))
    for name, distance in distances.items():
        add(name, torch.einsum("bci,ci->b", g.abs(), size @ distance.T))
    for sign in (1, -1):
        opposite = (-sign * k).clamp(min=0)
        add("negative", torch.einsum("bci,ci->b", (sign * g).clamp(min=0), opposite @ valid.T))
    row = size @ valid.T  # (C, N)
    ratio = row.square() / (k.square() @ valid.T).clamp(min=np.finfo(float).tiny)
    add("positions", ratio.sum().expand(len(g)))
    add("rows", torch.tensor(float(ratio.numel()), device="cpu"))
