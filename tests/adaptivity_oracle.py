"""The adaptivity and reach of mixing weights without sums that are kept: all anew for each image that is left out."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from horinsight.mixing.mixing_results import Adaptivity
from horinsight.mixing.weights import MixingWeights
from horinsight.mixing.weights_by_offset import WeightsByOffset, weights_by_offset
from horinsight.stats import Estimate, RunningMean, jackknife


def recomputed_adaptivity(weights: MixingWeights, *, image_size: tuple[int, int] | None = None) -> Adaptivity:
    """`adaptivity`, and each jackknife value from the weights of the other images."""
    parts = weights_by_offset(weights)
    B = len(weights.offset)
    whole = _shares(parts, list(range(B)))
    left_out = [_shares(parts, [b for b in range(B) if b != out]) for out in range(B)] if B > 2 else []

    def share(name: str) -> Estimate:
        return jackknife([shares[name] for shares in left_out], whole[name])

    unknown = Estimate(float("nan"), float("nan"))
    stride = (1.0, 1.0)
    if image_size is not None:
        stride = (image_size[0] / weights.looked_at[0], image_size[1] / weights.looked_at[1])
    reach = _reach(parts, (1.0, 1.0))
    pixels = _reach(parts, stride)["mean_distance"] if image_size is not None else [float("nan")] * B

    def mean(values: Sequence[float]) -> Estimate:
        running = RunningMean()
        running.update(values)
        return running.compute()

    return Adaptivity(
        input_adaptivity=share("input") if B > 1 else unknown,
        location_adaptivity=share("location"),
        static_share=share("static"),
        input_deviation=share("input deviation") if B > 1 else unknown,
        location_deviation=share("location deviation"),
        mean_distance=mean(reach["mean_distance"]),
        mean_distance_pixels=mean(pixels),
        effective_positions=mean(reach["effective_positions"]),
        negative_share=mean(reach["negative_share"]),
        num_images=B,
    )


def _shares(parts: list[WeightsByOffset], images: list[int]) -> dict[str, float]:
    """Shares of the total sum of squares and deviations, over a subset of the images."""
    B = len(images)
    total = location = image = both = 0.0
    cell_counts, cell_means = [], []
    for part in parts:
        valid = part.valid.double()
        n = valid.sum(0)  # (D,) queries of each cell
        if part.explicit is not None:
            h = part.explicit[images]
            centre = h.sum((0, 2)) / (B * n).clamp(min=1)  # (C, D)
            e = (h - centre[None, :, None, :]) * valid  # deviations from the cell's mean
            squares = e.square().sum((0, 2))
            by_location = e.sum(0).square().sum(1) / B
            by_image = e.sum(2).square().sum(0) / n.clamp(min=1)
            means = centre
        else:
            assert part.gate is not None
            assert part.kernel is not None
            g = part.gate[images]
            k = part.kernel
            anchor = g.mean((0, 2), keepdim=True)  # a constant gate leaves deviations of exactly 0
            e = g - anchor
            size = n.clamp(min=1)  # a kernel larger than the map has cells without any pair
            shift = e.sum(0) @ valid / (B * size)  # (C, D): mean of e in each cell
            factor = k.square()
            correction = B * n * shift.square()
            squares = factor * (e.square().sum(0) @ valid - correction)
            by_location = factor * (e.sum(0).square() @ valid / B - correction)
            by_image = factor * ((e @ valid).square().sum(0) / size - correction)
            means = k * (anchor[0] + shift)
        total += float(squares.sum())
        location += float(by_location.sum())
        image += float(by_image.sum())
        both += float((squares - by_location - by_image).sum())
        present = n > 0
        cell_counts.append((B * n)[present].expand(means.shape[0], -1).flatten())
        cell_means.append(means[:, present].flatten())
    counts, means = torch.cat(cell_counts), torch.cat(cell_means)
    grand = (counts * means).sum() / counts.sum()
    static = float((counts * (means - grand).square()).sum())
    total += static
    deviations = {
        "input deviation": (max(image + both, 0.0) / float(counts.sum())) ** 0.5,
        "location deviation": (max(location + both, 0.0) / float(counts.sum())) ** 0.5,
    }
    if total == 0:
        return {"static": 1.0, "input": 0.0, "location": 0.0, **deviations}
    shares = {"static": static / total, "input": (image + both) / total, "location": (location + both) / total}
    return shares | deviations


def _reach(parts: list[WeightsByOffset], stride: tuple[float, float]) -> dict[str, list[float]]:
    """Mean distance, effective positions and negative share of each image."""
    sums: dict[str, Tensor] = {}

    def add(name: str, value: Tensor) -> None:
        sums[name] = sums.get(name, torch.zeros(())) + value

    for part in parts:
        valid = part.valid.double()
        distance = torch.hypot(part.rows.double() * stride[0], part.columns.double() * stride[1]) * valid
        if part.explicit is not None:
            h = part.explicit * valid
            size = h.abs()
            add("weight", size.sum((1, 2, 3)))
            add("weight x distance", (size * distance).sum((1, 2, 3)))
            add("negative", h.clamp(max=0).abs().sum((1, 2, 3)))
            ratio = size.sum(-1).square() / h.square().sum(-1).clamp(min=np.finfo(float).tiny)
            add("positions", ratio.sum((1, 2)))
            add("rows", torch.tensor(float(ratio[0].numel())))
        else:
            assert part.gate is not None
            assert part.kernel is not None
            g, k = part.gate, part.kernel
            add("weight", torch.einsum("bcd,cd->b", g.abs() @ valid, k.abs()))
            add("weight x distance", torch.einsum("bcd,cd->b", g.abs() @ distance, k.abs()))
            for sign in (1, -1):
                opposite = (-sign * k).clamp(min=0)
                add("negative", torch.einsum("bcd,cd->b", (sign * g).clamp(min=0) @ valid, opposite))
            row = k.abs() @ valid.T  # (C, N)
            ratio = row.square() / (k.square() @ valid.T).clamp(min=np.finfo(float).tiny)
            add("positions", ratio.sum().expand(len(g)))
            add("rows", torch.tensor(float(ratio.numel())))
    weight = sums["weight"].clamp(min=np.finfo(float).tiny)
    return {
        "mean_distance": (sums["weight x distance"] / weight).tolist(),
        "effective_positions": (sums["positions"] / sums["rows"]).tolist(),
        "negative_share": (sums["negative"] / weight).tolist(),
    }
