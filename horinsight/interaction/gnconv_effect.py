r"""Mixed derivatives of gⁿConv in closed form: exact, and hundreds of times faster than nested differentiation.

At one location i only vectors are needed: p_0 and f_0..f_{n-1} there, and how each responds to each direction t (cell
j_t, channel direction v_t). All are affine in the directions, so that with g_k affine the product rule over subsets S
of directions reads

    P_S^{(0)}   = p_0 for S = ∅, its response to t for S = {t} (0 unless j_t = i), else 0
    P_S^{(k+1)} = g_k(P_S^{(k)}) ⊙ f_k + Σ_{t∈S} g_k(P_{S∖t}^{(k)}) ⊙ f_k'(d_t)        (g_k's bias for S = ∅ only)

and D_k = φ_out(P_{{0..k}}^{(n)}). |S| grows by at most one a step, so that subsets of more than n + 1 directions never
get a value: these zeros are structural.

For GF the two LayerNorms are replaced by their tangents at x, as everywhere in explicit operators.
"""

import torch
from torch import Tensor, nn

from horinsight.cancellation import pause
from horinsight.interaction.gnconv_agreement import computes_its_form, is_unaltered
from horinsight.interaction.gnconv_responses import GnConvPoint, GnConvResponses
from horinsight.interaction.neighbour_groups import SharedDirections
from horinsight.interaction.product_rule import product_steps
from horinsight.models.depthwise_kinds import GlobalLocal
from horinsight.models.gnconv_parts import GnConvParts

CACHED_CHAINS = 64  # whose subsets are computed together


class GnConvClosedForm:
    """Derivatives of one gnConv in closed form, from the numbers of its parts; no module is called.

    Use `closed_form_of`, which says when it applies.
    """

    def __init__(self, parts: GnConvParts, dtype: torch.dtype | None = None) -> None:
        assert parts.channel_maps is not None
        self.parts = parts
        self.dtype = dtype or parts.channel_maps[0].weight.dtype
        _, *self.linears, self.proj_out = (one.to(self.dtype) for one in parts.channel_maps)
        self.dims = list(parts.dims)
        self.responses = GnConvResponses(parts, self.dtype)
        self.W_out = self.proj_out.weight.T
        self.g = [(linear.weight.T, linear.bias) for linear in self.linears]

    @property
    def num_alive(self) -> int:
        """n + 1: how many directions can act together; the derivatives along more are structural zeros."""
        return len(self.dims) + 1

    @property
    def num_channels(self) -> int:
        """C', of the output."""
        return self.W_out.shape[1]

    @property
    def num_inputs(self) -> int:
        """C, of the input."""
        return len(self.responses.W_p)

    def to(self, dtype: torch.dtype) -> "GnConvClosedForm":
        """The same in another dtype."""
        return GnConvClosedForm(self.parts, dtype)

    def value(self, x: Tensor, image: Tensor, i: Tensor) -> Tensor:
        """The gnConv's output at cell i[n] of image[n], (N, C'), by the recursion on vectors."""
        at = self.responses.point(x, image, i)
        p = at.p_0
        for k, f_k in enumerate(at.f.split(self.dims, dim=-1)):
            if k:
                p = self.linears[k - 1](p)
            p = p * f_k
        return self.proj_out(p)

    def field(self, cells: Tensor, map_size: tuple[int, int]) -> Tensor:
        """Ω_i: the cells that the output at i depends on, (N, H·W) bool."""
        return self.responses.field(cells, map_size)

    def mixed(self, x: Tensor, cells: Tensor, directions: Tensor, *, image: Tensor | None = None) -> Tensor:
        """D_k for k = 0..K of given chains.

        Args:
            x: operating points (B, C, H, W).
            cells: (N, K + 1) distinct locations j_0 = i, …, j_K, row * W + column.
            directions: (N, K + 1, C) channel directions.
            image: (N,) index into x for each chain; chain n belongs to image n when None.

        Returns:
            (N, K + 1, C'), the vectors D_k.
        """
        image = torch.arange(len(x)) if image is None else image
        with torch.inference_mode(), torch.autocast(x.device.type, enabled=False):
            num_wanted = directions.shape[1]
            r = min(num_wanted, len(self.dims) + 1)  # more directions never act together
            x, directions, cells = x.to(self.dtype), directions[:, :r].contiguous().to(self.dtype), cells[:, :r]
            at = self.responses.point(x, image, cells[:, 0])
            dp = self.responses.p_0_responses(cells, directions)
            df = self.responses.f_responses(at, cells, directions, (x.shape[2], x.shape[3]))
            D = self._prefixes(at, dp, df, num_wanted)
        return D.clone()  # a tensor like any other

    def around(self, i: Tensor, map_size: tuple[int, int]) -> Tensor:
        """(N, Q) bool: the places around cell i that hold a neighbour, see `GnConvResponses.around`."""
        return self.responses.around(i, map_size)

    def along_groups(
        self, x: Tensor, i: Tensor, own: Tensor, groups: SharedDirections, *, image: Tensor, num_wanted: int
    ) -> Tensor:
        """D_k for k = 0..K along a direction of i itself and directions that move groups of the places `around` it.

        Args:
            x: operating points (B, C, H, W).
            i: (N,) cells.
            own: (N, C) channel direction of cell i.
            groups: the other directions.
            image: (N,) index into x for each cell.
            num_wanted: K + 1.

        Returns:
            (N, K + 1, C'), the vectors D_k.
        """
        with torch.inference_mode(), torch.autocast(x.device.type, enabled=False):
            x, own = x.to(self.dtype), own.to(self.dtype)
            at = self.responses.point(x, image, i)
            dp, df = self.responses.group_responses(at, i, own, groups, (x.shape[2], x.shape[3]))
            D = self._prefixes(at, dp, df[:, :num_wanted], num_wanted)
        return D.clone()

    @torch.no_grad()
    def dense(self, x: Tensor, cells: Tensor, directions: Tensor, *, image: Tensor | None = None) -> Tensor:
        """(k + 1)-th derivatives along directions (N, K + 1, C, H, W) that move everything: (N, K + 1, C')."""
        image = torch.arange(len(x)) if image is None else image
        with torch.autocast(x.device.type, enabled=False):
            return self._dense(x.to(self.dtype), cells, directions.to(self.dtype), image)

    def _dense(self, x: Tensor, cells: Tensor, directions: Tensor, image: Tensor) -> Tensor:
        num_wanted = directions.shape[1]
        directions = directions[:, : len(self.dims) + 1]  # more never act together
        at = self.responses.point(x, image, cells)
        dp, df = self.responses.dense_responses(at, cells, directions)
        return self._prefixes(at, dp, df, num_wanted)

    def _prefixes(self, at: GnConvPoint, dp: Tensor, df: Tensor, num_wanted: int) -> Tensor:
        """φ_out(P_S) for S = {0}, {0, 1}, …, as many chains together as the processor's cache holds."""
        parts = [slice(start, start + CACHED_CHAINS) for start in range(0, len(dp), CACHED_CHAINS)]
        D = dp.new_zeros(num_wanted, len(dp), self.num_channels)
        for part in parts:
            pause()
            ends = self._subsets(at.p_0[part], at.f[part], dp[part], df[part])
            D[: len(ends), part] = (ends.flatten(0, 1) @ self.W_out).view(*ends.shape[:2], -1)
        return D.transpose(0, 1)

    def _subsets(self, p_0: Tensor, f: Tensor, dp: Tensor, df: Tensor) -> Tensor:
        """P_S^{(n)} for S = {0}, {0, 1}, …, (r, N, C_{n-1}): the product rule over those subsets that it takes.

        Rows are subsets: (subsets, N, C_k). A subset without a value has no row.
        """
        n, N = len(self.dims), len(dp)
        r = min(df.shape[1], n + 1)  # more than n + 1 directions never act together: structural zeros
        P = torch.cat([p_0[None], dp[:, :r].transpose(0, 1)])  # ∅, {0}, {1}, … as far as they move p_0
        steps = product_steps(n, r, len(P) - 1, P.device)
        factors = torch.cat([f[None], df[:, :r].transpose(0, 1)])
        for k, (step, factor) in enumerate(zip(steps, factors.split(self.dims, dim=-1), strict=True)):
            if k:
                weight, bias = self.g[k - 1]
                P = P @ weight
                if bias is not None:
                    P[0].add_(bias)  # it belongs to ∅
            terms = P.index_select(0, step.subset).mul_(factor.index_select(0, step.factor))
            P = terms.new_zeros(step.num_subsets, N, self.dims[k]).index_add_(0, step.into, terms)
        return P


def closed_form_of(operator: object, x: Tensor, *, explicit: bool) -> GnConvClosedForm | None:
    """The closed form of an operator, if it has one; None otherwise.

    It has one if its parts are those of a gnConv (`GnConvParts`; GF only with tangents) and it computes what they say
    (`computes_its_form`): a look-alike that computes something else is left to nested differentiation.

    Args:
        operator: anything.
        x: operating points (B, C, H, W).
        explicit: whether non-linearities are taken by their tangents.
    """
    parts = GnConvParts.of(operator)
    if not isinstance(operator, nn.Module) or parts is None or parts.missing or parts.channel_maps is None:
        return None
    if isinstance(parts.f, GlobalLocal) and not explicit:
        return None
    form = GnConvClosedForm(parts)
    if x.ndim != 4 or x.shape[1] != form.num_inputs:
        return None
    if is_unaltered(operator):
        return form
    wide, narrow = form.to(torch.float64), form.to(torch.float32)
    return form if computes_its_form(operator, wide, narrow, x, explicit=explicit) else None
