r"""Numbers that the eye cannot give: how far mixing weights adapt, how far they reach, how many positions they use.

Weights are written by offset, h[b, c, i, d]: image b, channel (or head) c, query i, offset d = j - i, over the pairs
(i, d) whose j is on the map. Per cell (c, d) images and queries form a two-way layout, and the variance of all weights
splits exactly into four sums of squares (two-way analysis of variance without replication, plus the cells' means):

    SS_total = SS_static + SS_image + SS_location + SS_both
    SS_static   = Σ_cells n (h̄_cell - h̄)²             what a plain convolution has: the kernel
    SS_image    = Σ_cells Σ_b I_d (h̄_b - h̄_cell)²      differs between images, whatever the query
    SS_location = Σ_cells Σ_i B (h̄_i - h̄_cell)²        differs between queries, whatever the image
    SS_both     = the rest of each cell

    input adaptivity    = (SS_image + SS_both) / SS_total:     variance with the image at a fixed query
    location adaptivity = (SS_location + SS_both) / SS_total:  variance with the query for a fixed image

    input deviation     = sqrt((SS_image + SS_both) / number of weights), location deviation likewise: in units of h

Adaptivities and deviations are exactly 0 for a convolution. Adaptivities do not change when all weights are scaled;
with B images, weights that have nothing in common between images reach an input adaptivity of 1 - 1/B, so compare
models on the same number of images; standard errors and intervals are of the value at that number, too, and say
nothing of what more images would give (`tests/test_stats.py`). Random weights, whose kernel and gates have mean 0,
have next to no static part, so that their adaptivities are close to their limits whatever they do; how much they
adapt shows in the deviations, because h applies to normalised features, of unit variance. The other numbers, per image:

    mean distance        Σ |h| dist(i, j) / Σ |h|
    effective positions  mean over c, i of (Σ_j |h|)² / Σ_j h²   (a gate cancels: for gⁿConv this is the kernel's)
    negative share       Σ max(-h, 0) / Σ |h|
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from horinsight.capture import image_size_of
from horinsight.mixing.extraction import OnRefusal, model_mixing_weights
from horinsight.mixing.mixing_results import Adaptivity
from horinsight.mixing.weights import MixingWeights
from horinsight.mixing.weights_by_offset import WeightsByOffset, weights_by_offset
from horinsight.models.provenance import model_provenance, picture_names
from horinsight.results import ResultSet
from horinsight.stats import Estimate, RunningMean, jackknife

CONVENTION = {
    "shares": "of the variance of h_ij by offset: two-way analysis of variance over images and queries",
    "deviations": "root mean square, in units of h_ij",
    "distance": "mean over |h_ij|, in cells and in pixels",
    "standard_error": "over images: jackknife for shares and deviations, of their value at as many images; of the mean "
    "for the others",
}


def adaptivity(weights: MixingWeights, *, image_size: tuple[int, int] | None = None) -> Adaptivity:
    """Adaptivity and reach of the mixing weights of one block for a batch of images.

    Args:
        weights: of B images; the input adaptivity needs at least two.
        image_size: (H, W) in pixels, for the distance in pixels.

    Example:
        >>> from horinsight.mixing.extraction import mixing_weights
        >>> conv = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        >>> found = adaptivity(mixing_weights(conv, torch.randn(3, 4, 6, 6)))
        >>> found.input_adaptivity.value, found.location_adaptivity.value, found.static_share.value
        (0.0, 0.0, 1.0)
    """
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
        convention=CONVENTION,
    )


def model_adaptivity(
    model: nn.Module,
    images: Tensor,
    *,
    blocks: Sequence[int] | None = None,
    step: int | None = None,
    model_name: str | None = None,
    image_names: Sequence[str] | None = None,
    seed: int = 0,
    on_refusal: OnRefusal | None = None,
) -> ResultSet[Adaptivity]:
    """`adaptivity` of the blocks of a model, in one forward pass.

    Args:
        model: see `model_mixing_weights`.
        images: (B, 3, H, W), prepared; from two on the input adaptivity is known, from three on its standard error.
        blocks: indices from 1; all when None.
        step: recursion step of gnConvs; the last when None.
        model_name: for the provenance; the name under which timm built it when None.
        image_names: for the provenance; those that `image_batch` wrote down when None.
        seed: for the provenance.
        on_refusal: see `model_mixing_weights`.

    Returns:
        Block name → adaptivity.
    """
    size = image_size_of(images)
    names = picture_names(images) if image_names is None else image_names
    origin = model_provenance(model, model_name=model_name, image_names=names, seed=seed)
    convention = {**CONVENTION, "step": "last" if step is None else str(step)}

    def keep(weights: MixingWeights) -> Adaptivity:
        words = convention | weights.declared()
        return replace(adaptivity(weights, image_size=size), convention=words, provenance=origin)

    found = model_mixing_weights(model, images, blocks=blocks, step=step, keep=keep, on_refusal=on_refusal)
    return ResultSet(found)


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
