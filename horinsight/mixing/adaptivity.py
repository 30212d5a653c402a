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

from torch import Tensor, nn

from horinsight.capture import image_size_of
from horinsight.mixing.extraction import OnRefusal, model_mixing_weights
from horinsight.mixing.left_out_adaptivity import LeftOutAdaptivity
from horinsight.mixing.mixing_results import Adaptivity
from horinsight.mixing.running_adaptivity import CONVENTION, RunningAdaptivity
from horinsight.mixing.weights import MixingWeights
from horinsight.models.provenance import model_provenance, picture_names
from horinsight.results import ResultSet


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
    running = RunningAdaptivity(image_size=image_size)
    running.update(weights)
    left_out = LeftOutAdaptivity(running)
    left_out.update(weights)
    return running.compute(left_out)


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
