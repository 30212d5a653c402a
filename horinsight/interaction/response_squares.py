r"""How strongly directions move a gnConv's f at each cell, in the mean over directions: without drawing any.

A direction at cell j with v ~ N(0, diag σ²) moves channel c of f at i by w_{i→j}^c (W_q v)_c, in the mean square by

    (w_{i→j}^c)² Σ_c' W_{c'c}² σ_c'²

and one at a neighbour j that is not known by the mean of this over the receptive field. For GF the norms' tangents
count by their γ / σ alone, without the parts that centre and project.
"""

import torch
from torch import Tensor

from horinsight.interaction.gf_groups import kernel_by_offset, local_window
from horinsight.interaction.gnconv_responses import GnConvPoint, GnConvResponses
from horinsight.interaction.kernel_taps import cells_under_taps
from horinsight.models.depthwise_kinds import GlobalLocal


def response_squares(
    responses: GnConvResponses, at: GnConvPoint, size: tuple[int, int], variance: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean squares of f's response at every cell to a direction there, and to one at a neighbour.

    Args:
        responses: of the gnConv.
        at: it at every cell of every image, image by image.
        size: (H, W).
        variance: (C,) σ².

    Returns:
        Two of shape (B, H·W, Σ C_k), or (1, H·W, Σ C_k) where images make no difference.
    """
    moved = variance @ responses.W_q.square()
    if isinstance(responses.f, GlobalLocal):
        return _gf_squares(responses, responses.f, at, size, moved)
    under = cells_under_taps(size, responses.reach, variance.device) >= 0
    squares = responses.taps[:-1].square()
    own, around = _apart(under.to(squares) @ squares, squares[under.shape[1] // 2].expand(len(under), -1))
    own, around = own * moved, around / (under.sum(1) - 1).clamp(min=1)[:, None] * moved
    share = responses.share(size)
    if share is not None:
        own, around = own * share[:, None].square(), around * share[:, None].square()
    return own[None], around[None]


def _gf_squares(
    responses: GnConvResponses, f: GlobalLocal, at: GnConvPoint, size: tuple[int, int], moved: Tensor
) -> tuple[Tensor, Tensor]:
    assert at.norm is not None
    assert at.y is not None
    half, cells = f.local.num_channels, size[0] * size[1]
    felt = at.norm[1][..., 0].reciprocal().square()  # (B, H·W) of what a direction moves, past pre_norm
    moved = moved * f.pre_norm.weight.square()
    under, taps = local_window(f, size, moved.device)
    near, squares = felt[:, under.clamp(min=0)] * (under >= 0), taps.square()
    kernel = kernel_by_offset(f, size).square()
    sums = near @ squares, sums_at_offsets(felt, kernel, size)
    of_itself = squares[len(squares) // 2], kernel[0]
    parts = [
        [part * moved[channels] for part in _apart(everywhere, felt[..., None] * weight)]
        for everywhere, weight, channels in zip(sums, of_itself, (slice(half), slice(half, None)), strict=True)
    ]
    own, others = (torch.stack(pair, dim=-1).flatten(-2) for pair in zip(*parts, strict=True))  # interleaved
    sigma_y = at.y.var(-1, correction=0).add(f.post_norm.eps).view(len(felt), cells, 1)
    after = (responses.scale * f.post_norm.weight) ** 2 / sigma_y
    return own * after, others / max(cells - 1, 1) * after


def sums_at_offsets(amount: Tensor, kernel: Tensor, size: tuple[int, int]) -> Tensor:
    """Σ_d kernel_d amount_{i+d} on a map whose borders touch, d as in `kernel_by_offset`: (B, H·W, C), by FFT in float64.

    Args:
        amount: (B, H·W).
        kernel: (H·W, C).
        size: (H, W).
    """
    maps, kernels = amount.double().unflatten(1, size)[:, None], kernel.double().T.unflatten(1, size)
    sums = torch.fft.irfft2(torch.fft.rfft2(maps) * torch.fft.rfft2(kernels).conj(), s=size)
    return sums.flatten(2).transpose(1, 2).to(amount)


def _apart(everywhere: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """What the cell itself gives to a sum over cells, and the rest."""
    return own, (everywhere - own).clamp(min=0)
