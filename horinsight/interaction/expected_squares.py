r"""About how large E|D_k|² of a gnConv is at each location, which tells where to draw.

Directions are exchangeable, so that of a subset S only its size s and whether i's own direction is in it (o) count.
With e_{s,o} the mean squares of P_S's channels, taken to be uncorrelated, the product rule of `gnconv_effect` reads

    e_{s,o}^{(k+1)} = g_k²(e_{s,o}) ⊙ f_k² + s g_k²(e_{s-1,o}) ⊙ E f_k'(d_t)² + o g_k²(e_{s,0}) ⊙ E f_k'(d_0)²

where g_k² has the squares of g_k's weights, and e_{0,0} is p_k itself, squared after g_k with its bias. E|D_k|² is
about φ_out²(e_{k,1}^{(n)}). What is drawn by this is weighted by what it was drawn with, so that an estimate that is
off costs draws and nothing else.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from horinsight.cancellation import pause
from horinsight.interaction.gnconv_effect import GnConvClosedForm
from horinsight.interaction.response_squares import response_squares

CELLS_TOGETHER = 256
MOST_COST = 2**23  # B H W C²: above it the estimate itself takes as long as many of the draws that it saves


def is_cheap(x: Tensor) -> bool:
    """Whether expected squares at operating points (B, C, H, W) cost little beside draws.

    Wide networks do without: their effects are known from few draws, since many channels average out.

    Example:
        >>> is_cheap(torch.zeros(3, 64, 14, 14)), is_cheap(torch.zeros(1, 384, 14, 14))
        (True, False)
    """
    return x.numel() * x.shape[1] <= MOST_COST


@dataclass(frozen=True, eq=False)
class _Squares:
    """Of the cells of a part: f, and E f'² to a direction of the cell itself and of a neighbour; (N, Σ C_k) each."""

    p: Tensor
    f: Tensor
    own: Tensor
    around: Tensor


def expected_squares(form: GnConvClosedForm, x: Tensor, sigma: Tensor, max_order: int) -> Tensor:
    """E|D_k|² at each location, up to a factor for each k: (B, H·W, r), k = 0..r - 1 ≤ `max_order`.

    Args:
        form: of the gnConv.
        x: operating points (B, C, H, W).
        sigma: (C,) standard deviation of each input channel.
        max_order: K; no more than n orders are not zero.
    """
    with torch.inference_mode(), torch.autocast(x.device.type, enabled=False):
        x, variance = x.to(form.dtype), sigma.to(form.dtype).square()
        B, size = len(x), (x.shape[2], x.shape[3])
        cells = torch.arange(size[0] * size[1], device=x.device)
        at = form.responses.point(x, torch.arange(B, device=x.device).repeat_interleave(len(cells)), cells.repeat(B))
        own, around = (
            part.expand(B, -1, -1).flatten(0, 1) for part in response_squares(form.responses, at, size, variance)
        )
        moved = variance @ form.responses.W_p.square()
        top = min(max_order, len(form.dims))
        found = []
        for start in range(0, len(at.p_0), CELLS_TOGETHER):
            pause()
            part = slice(start, start + CELLS_TOGETHER)
            found.append(_by_recursion(form, _Squares(at.p_0[part], at.f[part], own[part], around[part]), moved, top))
    return torch.cat(found).double().view(B, len(cells), top + 1).clone()


def _by_recursion(form: GnConvClosedForm, at: _Squares, moved: Tensor, top: int) -> Tensor:
    """(N, top + 1). Rows are (s, o), s = 0..top, without and with i's own direction."""
    N = len(at.p)
    p = at.p
    e = p.new_zeros(top + 1, 2, N, p.shape[1])
    e[0, 1] = moved
    sizes = torch.arange(top + 1, dtype=p.dtype, device=p.device)[:, None, None, None]
    steps = zip(*(part.split(form.dims, dim=-1) for part in (at.f, at.own, at.around)), strict=True)
    for k, (f, own, around) in enumerate(steps):
        if k:
            weight, bias = form.g[k - 1]
            e = e @ weight.square()
            p = p @ weight if bias is None else torch.addmm(bias, p, weight)
        e[0, 0] = p.square()
        grown = e * f.square()
        grown[1:] += sizes[1:] * e[:-1] * around
        grown[:, 1] += e[:, 0] * own
        e, p = grown, p * f
    return (e[:, 1] @ form.W_out.square().sum(1)).T
