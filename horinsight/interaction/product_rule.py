"""Which products make up each step of a recursion whose mixed derivatives are taken by the product rule."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ProductStep:
    """One step of the recursion as sums of products: P of a new subset S = Σ P of an old subset ⊙ a factor.

    Attributes:
        subset: (M,) row of the old subset of each product: S itself, or S without a direction t.
        factor: (M,) 0 for f_k, 1 + t for its response to direction t.
        into: (M,) row of the new subset that each product belongs to.
        num_subsets: rows of new subsets.
    """

    subset: Tensor
    factor: Tensor
    into: Tensor
    num_subsets: int


@cache
def product_steps(n: int, r: int, moving: int, device: torch.device) -> list[ProductStep]:
    """The n steps from ∅, {0}, …, {moving - 1} to the prefixes {0}, {0, 1}, …, {0, …, r - 1}.

    Subsets are bit masks, ∅ first. Before step k a subset has a value if k of its directions can have entered by a
    step, and one more by p_0, if it is one of those that move it. Only subsets that a prefix takes have a row.

    Args:
        n: steps of the recursion.
        r: directions, of which there are at most n + 1.
        moving: how many directions, the first ones, move p_0.
        device: of the rows.
    """
    at_first = (1 << moving) - 1
    wanted = [(1 << size) - 1 for size in range(1, r + 1)]
    steps = []
    for k in reversed(range(n)):
        products = [(row, S, 0) for row, S in enumerate(wanted)]
        products += [(row, S ^ (1 << t), 1 + t) for row, S in enumerate(wanted) for t in range(r) if S >> t & 1]
        products = [one for one in products if one[1].bit_count() <= k + bool(one[1] & at_first)]  # the others are 0
        before = sorted({S for _, S, _ in products}) if k else [0, *(1 << t for t in range(moving))]
        place = {S: row for row, S in enumerate(before)}
        subset = torch.tensor([place[S] for _, S, _ in products], device=device)
        factor = torch.tensor([factor for _, _, factor in products], device=device)
        into = torch.tensor([row for row, _, _ in products], device=device)
        steps.append(ProductStep(subset, factor, into, len(wanted)))
        wanted = before
    return steps[::-1]
