r"""Rollout over the blocks of any network: influence in place of mixing weights and of measured residual shares.

Each residual block, its norms, branches and residual path together, is the row-stochastic matrix over positions

    T_ij = I_ij / Σ_j I_ij,    I_ij the block's influence (`influence`),

and the rollout is the product of these and of the steps between maps of different size, as in `rollout`. No mixing
weights are needed, so that it is there for every network; derivatives stand for contributions.

What is approximated: signs and channels are lost, as in `rollout`; and each probe is a random estimate, whose noise is
not in the support: that is exact, hence the receptive field.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from horinsight.capture import image_size_of
from horinsight.mixers.blocks import MixingBlock, chosen_blocks
from horinsight.mixing.block_influence import influences_of
from horinsight.mixing.downsampling import steps_down, windows_between
from horinsight.mixing.influence_options import InfluenceOptions
from horinsight.mixing.mixing_results import Rollout
from horinsight.mixing.reach_results import Influence
from horinsight.mixing.rollout import rolled_out
from horinsight.models.provenance import model_provenance, picture_names
from horinsight.operators.block_operators import measured_calls, operating_points

CONVENTION = {
    "mixing": "influence I_ij of each residual block with its residual path, rows divided by their sums",
    "between maps": "each coarse cell takes the fine cells that it is computed from in equal parts",
    "excluded": "signs, and what happens between channels",
}


def influence_rollout(
    model: nn.Module,
    images: Tensor,
    *,
    blocks: Sequence[int] | None = None,
    probes: int | None = 4,
    seed: int = 0,
    batch_size: int = 16,
    model_name: str | None = None,
    image_names: Sequence[str] | None = None,
) -> Rollout:
    """Roll influence out over the residual blocks of a network, from the last of them to what enters the first.

    Takes `probes` backward passes of each block for each of its positions: for large maps choose blocks.

    Args:
        model: a network with blocks (`named_blocks`); left as it was.
        images: (B, 3, H, W), prepared.
        blocks: indices from 1; all when None. A residual block that holds several of them counts once.
        probes: random sign vectors for each image and position; every output channel by itself, exactly, when None.
        seed: of the signs.
        batch_size: images and probes that are differentiated together; bounds the memory.
        model_name: for the provenance; the name under which timm built it when None.
        image_names: for the provenance; those that `image_batch` wrote down when None.

    Returns:
        The rollout over positions on maps; prefix tokens are held fixed and left out. `branch_shares` is the mean share
        that other positions have, 1 - T_ii, of blocks that keep their map.

    Raises:
        ValueError: a block whose output has no map, and what `influence` refuses.

    Example:
        >>> import timm
        >>> model, images = timm.create_model("hornet_test"), torch.randn(1, 3, 32, 32)
        >>> rollout = influence_rollout(model, images, blocks=[2, 3], probes=1)
        >>> rollout.weights.shape, rollout.out_size, rollout.in_size
        ((1, 4, 16), (2, 2), (4, 4))
    """
    listed = chosen_blocks(model, blocks, image_size=image_size_of(images))
    measured = measured_calls(listed, "block", or_mixer=True)
    of_call = {(measured[block].path, measured[block].number): block for block in reversed(listed)}
    chosen = list(of_call.values())[::-1]
    transitions: list[Tensor] = []
    sizes: list[tuple[int, int]] = []  # of what enters the first block, and of what each puts out
    shares: dict[str, float] = {}
    between = windows_between(model, images, chosen, measured)

    def keep(block: MixingBlock, found: Influence) -> None:
        maps = torch.from_numpy(found.maps)
        rows, columns = maps.shape[2:]
        in_size = rows, columns
        sizes[:] = sizes or [in_size]
        if in_size != sizes[-1]:
            steps = steps_down(sizes[-1], in_size, between.get(block.name, []), like=maps)
            transitions.extend(step.expand(len(maps), -1, -1) for step in steps)
        weights = maps.flatten(2)
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
        transitions.append(weights)
        height, width = found.output_shape
        sizes.append((height, width))
        if sizes[-1] == in_size:
            shares[block.name] = 1 - float(weights.diagonal(dim1=1, dim2=2).mean())

    options = InfluenceOptions(probes=probes, seed=seed, batch_size=batch_size)
    points = operating_points(model, images, {block: measured[block] for block in chosen})
    influences_of(chosen, points, cells=lambda _: None, keep=keep, options=options)
    names = picture_names(images) if image_names is None else image_names
    return Rollout(
        rolled_out(transitions).numpy(),
        sizes[-1],
        sizes[0],
        shares,
        convention=CONVENTION | {"estimator": "exact" if probes is None else f"random signs, {probes} a position"},
        provenance=model_provenance(model, model_name=model_name, image_names=names, seed=seed),
    )
