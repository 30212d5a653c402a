r"""Where a position of the last block looks in the first one: mixing rolled out over the blocks of a network.

Each block is a row-stochastic matrix over positions,

    T = diag(1 - a) + diag(a) A,    A_ij = Σ_c |h_ij^c| / Σ_j Σ_c |h_ij^c|,    a_i = |branch_i| / (|x_i| + |branch_i|),

with x the residual path and branch what the mixer adds to it after its output projection and the layer scale, both as
they are on this image (Euclidean norms over the channels at position i): the residual path and the layer scale come in
their true proportions. Between maps of different size each coarse cell takes the fine cells that it is computed from in
equal parts (`downsampling`). The rollout is the product, last block first; its rows sum to 1.

What is approximated: signs and channels are lost (absolute weights summed over channels, so what the projections and
the FFN do between channels is ignored; the FFN moves nothing between positions), and norms stand for contributions.
What is exact: the support, hence the receptive field; a network of plain convolutions gives its theoretical one.

Source: Abnar and Zuidema 2020 (attention rollout, arXiv 2005.00928), with measured instead of assumed residual shares.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from horinsight.capture import Call, capture, image_size_of
from horinsight.mixers.blocks import MixingBlock, chosen_blocks, enclosing_block
from horinsight.mixing.downsampling import steps_down, windows_between
from horinsight.mixing.extraction import model_mixing_weights
from horinsight.mixing.factored_weights import FactoredWeights, InterleavedWeights
from horinsight.mixing.held_weights import HeldWeights
from horinsight.mixing.matrix_weights import AttentionWeights, WindowWeights
from horinsight.mixing.mixing_results import Rollout
from horinsight.mixing.pair_weights import PairWeights
from horinsight.mixing.weights import MixingWeights, full_precision
from horinsight.models.provenance import model_provenance, picture_names

CONVENTION = {
    "mixing": "|h_ij| summed over channels, rows divided by their sums",
    "residual": "diag(1 - a) + diag(a) A, a measured on the picture: |branch| / (|x| + |branch|)",
    "between maps": "each coarse cell takes the fine cells that it is computed from in equal parts",
    "excluded": "signs, what projections and feed-forward parts do between channels",
}


def absolute_mixing(weights: MixingWeights) -> Tensor:
    """A_ij = Σ_c |h_ij^c|, rows divided by their sums; (B, N, N), without building (B, C, N, N)."""
    mixed = _absolute(weights)
    return mixed / mixed.sum(-1, keepdim=True).clamp(min=torch.finfo(mixed.dtype).tiny)


def _absolute(weights: MixingWeights) -> Tensor:
    if isinstance(weights, InterleavedWeights):
        return torch.stack([_absolute(part) for part in weights.parts]).sum(0)
    if isinstance(weights, FactoredWeights):
        return weights._spread(weights.gate.abs().flatten(2).transpose(1, 2) @ weights.kernel.abs())
    if isinstance(weights, PairWeights | HeldWeights):
        return weights.absolute()
    assert isinstance(weights, AttentionWeights | WindowWeights)
    return weights.channel_mean()  # attention is not negative


def rolled_out(transitions: Sequence[Tensor]) -> Tensor:
    """The product of transitions, the first block's first in the list: (B, N_last, N_first).

    Example:
        >>> step = torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])
        >>> rolled_out([step, step])
        tensor([[[1.0000, 0.0000],
                 [0.7500, 0.2500]]])
    """
    result = transitions[-1]
    for transition in reversed(transitions[:-1]):
        result = result @ transition
    return result


def mixing_rollout(
    model: nn.Module,
    images: Tensor,
    *,
    blocks: Sequence[int] | None = None,
    model_name: str | None = None,
    image_names: Sequence[str] | None = None,
) -> Rollout:
    """Roll the mixing weights out over the blocks of a HorNet, ViT/DeiT, Swin or ConvNeXt, in one forward pass.

    Args:
        model: isotropic or hierarchical.
        images: (B, 3, H, W), prepared.
        blocks: indices from 1; all when None. The rollout goes from the first to the last of them.
        model_name: for the provenance; the name under which timm built it when None.
        image_names: for the provenance; those that `image_batch` wrote down when None.

    Raises:
        ValueError: a block whose residual path is not known.

    Example:
        >>> import timm
        >>> rollout = mixing_rollout(timm.create_model("hornet_test"), torch.randn(1, 3, 96, 96))
        >>> rollout.weights.shape, rollout.out_size, rollout.in_size
        ((1, 9, 576), (3, 3), (24, 24))
    """
    chosen = chosen_blocks(model, blocks, image_size=image_size_of(images))

    def keep(weights: MixingWeights) -> tuple[tuple[int, int], Tensor]:
        return (weights.height, weights.width), absolute_mixing(weights)

    with ExitStack() as stack:
        shares = [stack.enter_context(_branch_shares(model, block)) for block in chosen]
        kept = model_mixing_weights(model, images, blocks=[block.index for block in chosen], keep=keep)
    transitions: list[Tensor] = []
    first = size = kept[chosen[0].name][0]
    means = {}
    between = {}
    if len({map_size for map_size, _ in kept.values()}) > 1:
        between = windows_between(model, images, chosen)
    with full_precision(images):
        for block, calls in zip(chosen, shares, strict=True):
            map_size, A = kept[block.name]
            if map_size != size:
                steps = steps_down(size, map_size, between.get(block.name, []), like=A)
                transitions += [step.expand(len(A), -1, -1) for step in steps]
                size = map_size
            a = calls["share"][block.call - 1][..., None].to(A.dtype)
            eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
            transitions.append((1 - a) * eye + a * A)
            means[block.name] = float(a.mean())
        weights = rolled_out(transitions).cpu().numpy()
    names = picture_names(images) if image_names is None else image_names
    origin = model_provenance(model, model_name=model_name, image_names=names)
    return Rollout(weights, size, first, means, convention=CONVENTION, provenance=origin)


# per mixer: whether the input of the residual block, and what its drop_path gets, are (B, C, H, W)
_CHANNELS_FIRST = {
    "gnconv": (True, False),
    "depthwise_conv": (True, True),
    "attention": (False, False),
    "window_attention": (False, False),
}


@contextmanager
def _branch_shares(model: nn.Module, block: MixingBlock) -> Iterator[dict[str, list[Tensor]]]:
    """Captures a = |branch| / (|x| + |branch|), (B, N), under "share" when the residual block around a mixer runs."""
    outer: Any = enclosing_block(model, block)
    drop_path = getattr(outer, "drop_path1", None) or getattr(outer, "drop_path", None)
    if outer is block.module or not isinstance(drop_path, nn.Module) or block.mixer not in _CHANNELS_FIRST:
        raise ValueError(
            f"{block}: the rollout of mixing weights knows the residual path of HorNet, ViT, Swin and ConvNeXt blocks "
            "only: roll out influence instead (influence_rollout), which is there for every network."
        )
    gamma = getattr(outer, "gamma1", None)
    first, branch_first = _CHANNELS_FIRST[block.mixer]
    branches: list[Tensor] = []

    def norms(x: Tensor, channels_first: bool) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        norm: Tensor = torch.linalg.vector_norm(x.detach(), dim=1 if channels_first else -1, dtype=wide).flatten(1)
        return norm

    def share(_: nn.Module, call: Call) -> Tensor:
        branch = branches[0] if gamma is None else branches[0] * gamma  # the first call: the mixer's, not the FFN's
        branches.clear()
        x_norm, branch_norm = norms(call.input, first), norms(branch, branch_first)
        total = x_norm + branch_norm
        part: Tensor = branch_norm / total.clamp(min=torch.finfo(total.dtype).tiny)
        return part

    with (
        capture({"branch": drop_path}, keep=lambda _, call: branches.append(call.input)),
        capture({"share": outer}, keep=share) as shares,
    ):
        yield shares
