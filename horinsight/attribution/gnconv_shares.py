"""A fair split of the products of a gⁿConv: each of p_0, f_0, ..., f_{n-1} gets its Shapley value of all n + 1 factors.

Along the recursion p_{k+1} = g_k(p_k) ⊙ f_k the half rule is complete as well, but gives f_{n-1} a half, f_{n-2} a
quarter and so on, late gates the most.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from horinsight.attribution.difference_rules import Pairs, given, nodes
from horinsight.models.gnconv import GnConv

Forward = Callable[..., Any]


def with_fair_shares(module: GnConv, pairs: Callable[[], Pairs | None]) -> Callable[[Forward], Forward]:
    """What makes of a gⁿConv's forward pass one with the same value whose derivative splits its products fairly.

    Args:
        module: the gⁿConv.
        pairs: who is whose baseline now; None while nobody asks.
    """

    def wrap(forward: Forward) -> Forward:
        def fair(x: Tensor) -> Any:
            now = pairs()
            if now is None or not x.requires_grad or not torch.is_grad_enabled():
                return forward(x)
            p, q = module.proj_in(x).split([module.dims[0], sum(module.dims)], dim=1)
            f = module.scaled(module.dwconv(q), factor=module.scale).split(module.dims, dim=1)
            with torch.no_grad():
                p_n, _ = _along_the_recursion(module, p, p, f, f)
            return module.proj_out(given(p_n, _shares(module, now, p, f)))

        return fair

    return wrap


def _shares(module: GnConv, pairs: Pairs, p: Tensor, f: tuple[Tensor, ...]) -> Tensor:
    """∫ dp_n, all factors a part t of the way from baseline to input: Shapley's value, as p_n is multilinear."""
    ends = [(z.detach(), pairs.partner(z)) for z in (p, *f)]
    parts = []
    for t, weight in nodes(module.order + 1):
        p_t, *f_t = (z_0 + t * (z - z_0) for z, z_0 in ends)
        parts.append(weight * _along_the_recursion(module, p_t, p, tuple(f_t), f)[1])
    return torch.stack(parts).sum(0)


def _along_the_recursion(
    module: GnConv, p: Tensor, dp: Tensor, f: tuple[Tensor, ...], df: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """p_n (Eq. 3.3), and up to a constant its differential in the direction of dp and df."""
    for k in range(module.order):
        if k:
            g_k = module.pws[k - 1]
            p, dp = g_k(p), g_k(dp)
        p, dp = p * f[k], dp * f[k] + p * df[k]
    return p, dp
