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

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from horinsight.interaction.gf_groups import gf_group_responses
from horinsight.interaction.gnconv_agreement import computes_its_form, is_unaltered
from horinsight.interaction.neighbour_groups import SharedDirections
from horinsight.interaction.product_rule import product_steps
from horinsight.models.depthwise_kinds import DepthwiseConv, GlobalLocal
from horinsight.models.gnconv_parts import GnConvParts

CACHED_CHAINS = 64  # whose subsets are computed together

Reach = tuple[tuple[int, int], tuple[int, int]]  # (radius, dilation) of a kernel along rows, and along columns


@dataclass(frozen=True, eq=False)
class GnConvPoint:
    """What the closed form needs of a gnConv at the location i of each chain.

    Attributes:
        p_0: (N, C_0).
        f: (N, Σ C_k), with the scale.
        y: (N, Σ C_k) what post_norm normalises, for GF; else None.
        image: (N,) which image each chain belongs to.
        norm: for GF, normalised q and σ of pre_norm on each image, (B, H·W, Σ C_k) and (B, H·W, 1); else None.
    """

    p_0: Tensor
    f: Tensor
    image: Tensor
    y: Tensor | None = None
    norm: tuple[Tensor, Tensor] | None = None


class GnConvClosedForm:
    """Derivatives of one gnConv in closed form, from the numbers of its parts; no module is called.

    Use `closed_form_of`, which says when it applies.
    """

    def __init__(self, parts: GnConvParts, dtype: torch.dtype | None = None) -> None:
        assert parts.channel_maps is not None
        assert parts.f is not None
        self.parts = parts
        self.dtype = dtype or parts.channel_maps[0].weight.dtype
        proj_in, *self.linears, self.proj_out = (one.to(self.dtype) for one in parts.channel_maps)
        self.dims = list(parts.dims)
        self.scale = parts.scale.to(self.dtype) if isinstance(parts.scale, Tensor) else parts.scale
        self.f = parts.f.to(self.dtype)
        halves = [self.dims[0], sum(self.dims)]
        self.W_p, self.W_q = (part.T for part in proj_in.weight.split(halves))
        bias = proj_in.weight.new_zeros(sum(halves)) if proj_in.bias is None else proj_in.bias
        self.b_p, self.b_q = bias.split(halves)
        self.W_out = self.proj_out.weight.T
        self.g = [(linear.weight.T, linear.bias) for linear in self.linears]
        if isinstance(self.f, GlobalLocal):
            return
        taps = self.f.taps.to(self.W_p).T * self.scale
        self.taps = F.pad(taps, (0, 0, 0, 1))  # (K² + 1, Σ C_k or 1), the last row 0
        constant = self.b_q.new_zeros(sum(self.dims)) if self.f.bias is None else self.f.bias
        self.constant = constant * self.scale

    @property
    def num_alive(self) -> int:
        """n + 1: how many directions can act together; the derivatives along more are structural zeros."""
        return len(self.dims) + 1

    @property
    def num_channels(self) -> int:
        """C', of the output."""
        return self.W_out.shape[1]

    def to(self, dtype: torch.dtype) -> "GnConvClosedForm":
        """The same in another dtype."""
        return GnConvClosedForm(self.parts, dtype)

    def value(self, x: Tensor, image: Tensor, i: Tensor) -> Tensor:
        """The gnConv's output at cell i[n] of image[n], (N, C'), by the recursion on vectors."""
        at = self._point(x, image, i)
        p = at.p_0
        for k, f_k in enumerate(at.f.split(self.dims, dim=-1)):
            if k:
                p = self.linears[k - 1](p)
            p = p * f_k
        return self.proj_out(p)

    def _point(self, x: Tensor, image: Tensor, i: Tensor) -> GnConvPoint:
        """p_0 and f at cell i[n] of image[n]."""
        positions = x.flatten(2).transpose(1, 2)
        p_0 = torch.addmm(self.b_p, positions[image, i], self.W_p)
        size = x.shape[2], x.shape[3]
        if isinstance(self.f, GlobalLocal):
            return self._gf_point(self.f, p_0, positions, size, image, i)
        if len(i) * (len(self.taps) - 1) >= len(x) * size[0] * size[1]:
            # many chains an image: f on the whole map costs less than their windows
            q = (positions @ self.W_q + self.b_q).transpose(1, 2).unflatten(2, size)
            return GnConvPoint(p_0, self.f(q).flatten(2)[image, :, i] * self.scale, image)
        under_taps = _cells_under_taps(size, self._reach(), i.device).index_select(0, i)
        chain, tap = (under_taps >= 0).nonzero(as_tuple=True)
        j = under_taps[chain, tap]
        q = torch.addmm(self.b_q, positions[image[chain], j], self.W_q)
        q.mul_(self.taps.index_select(0, tap))
        f = self.constant.repeat(len(i), 1).index_add_(0, chain, q)
        share = self._share(size)
        return GnConvPoint(p_0, f if share is None else f * share[i, None], image)

    def _gf_point(
        self, f: GlobalLocal, p_0: Tensor, positions: Tensor, size: tuple[int, int], image: Tensor, i: Tensor
    ) -> GnConvPoint:
        q = positions @ self.W_q + self.b_q
        hat, sigma = _normalised(q, f.pre_norm.eps)
        z = hat * f.pre_norm.weight + f.pre_norm.bias
        y = f.interleaved(z.transpose(1, 2).unflatten(2, size)).flatten(2)[image, :, i]
        normalised = _normalised(y, f.post_norm.eps)[0] * f.post_norm.weight + f.post_norm.bias
        return GnConvPoint(p_0, normalised * self.scale, image, y, (hat, sigma))

    def field(self, cells: Tensor, map_size: tuple[int, int]) -> Tensor:
        """Ω_i: the cells that the output at i depends on, (N, H·W) bool."""
        H, W = map_size
        if isinstance(self.f, GlobalLocal):
            return torch.ones(len(cells), H * W, dtype=torch.bool)
        place, tap_at = _taps_between(map_size, self._reach(), cells.device)
        return tap_at[place - place[cells][:, None]] < len(self.taps) - 1

    def _reach(self) -> Reach:
        window = self.f.local if isinstance(self.f, GlobalLocal) else self.f
        sizes, dilations = window.kernel_size, window.dilation
        return (sizes[0] // 2, dilations[0]), (sizes[1] // 2, dilations[1])

    def _share(self, size: tuple[int, int]) -> Tensor | None:
        """Of a mean pooling: the weight that the mean at each cell gives to each cell it sees, (H·W,)."""
        share = None if isinstance(self.f, GlobalLocal) else self.f.share(*size)
        return None if share is None else share.flatten().to(self.W_p)

    def _kernel(self, cells: Tensor, map_size: tuple[int, int]) -> Tensor:
        """w_{i→j} of every channel for i = cells[:, 0] and j = cells[:, t], over α but for GF: (N, T, Σ C_k or 1)."""
        if isinstance(self.f, GlobalLocal):
            return self._gf_kernel(self.f, cells, *map_size)
        kernel = self._window(self.taps, cells, map_size)
        share = self._share(map_size)
        return kernel if share is None else kernel * share[cells[:, :1], None]

    def _window(self, taps: Tensor, cells: Tensor, map_size: tuple[int, int]) -> Tensor:
        """The tap of a window centred at cells[:, 0] that lies on each cell, (N, T, C)."""
        place, tap_at = _taps_between(map_size, self._reach(), cells.device)
        place = place[cells]
        return taps[tap_at[place - place[:, :1]]]

    def _gf_kernel(self, f: GlobalLocal, cells: Tensor, H: int, W: int) -> Tensor:
        row, column = cells // W, cells % W
        down, right = row - row[:, :1], column - column[:, :1]
        near = self._window(F.pad(f.local.taps.T, (0, 0, 0, 1)), cells, (H, W))
        circular = f.circular_kernel(H, W).T[(-down % H) * W + (-right % W)]
        return torch.stack([near, circular], dim=-1).flatten(-2)  # interleaved

    def _f_responses(self, at: GnConvPoint, cells: Tensor, dq: Tensor, map_size: tuple[int, int]) -> Tensor:
        """f'(d_t) at i for directions that move q by dq at cell j_t: (N, T, Σ C_k)."""
        kernel = self._kernel(cells, map_size)
        if not isinstance(self.f, GlobalLocal):
            return kernel * dq
        assert at.norm is not None
        hat, sigma = (part[at.image[:, None], cells] for part in at.norm)  # at j_t
        dz = self.f.pre_norm.weight * _normalised_change(dq, hat, sigma)
        source = self.f.source(torch.arange(dz.shape[-1], device=dz.device))
        return self._post_norm_response(self.f, at, kernel * dz[..., source])

    def _post_norm_response(self, f: GlobalLocal, at: GnConvPoint, du: Tensor) -> Tensor:
        assert at.y is not None
        hat, sigma = _normalised(at.y, f.post_norm.eps)
        return self.scale * f.post_norm.weight * _normalised_change(du, hat[:, None], sigma[:, None])

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
            at = self._point(x, image, cells[:, 0])
            dp = self._p_0_responses(cells, directions)
            df = self._f_responses(at, cells, directions @ self.W_q, (x.shape[2], x.shape[3]))
            D = self._prefixes(at, dp, df, num_wanted)
        return D.clone()  # a tensor like any other

    def around(self, i: Tensor, map_size: tuple[int, int]) -> Tensor:
        """(N, Q) bool: the places around cell i that hold a neighbour: taps of its window, for GF cells of the map."""
        if isinstance(self.f, GlobalLocal):
            return self.field(i, map_size).scatter(1, i[:, None], False)
        around = _cells_under_taps(map_size, self._reach(), i.device)[i] >= 0
        around[:, around.shape[1] // 2] = False  # i itself
        return around

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
            size = (x.shape[2], x.shape[3])
            x, own = x.to(self.dtype), own.to(self.dtype)
            at = self._point(x, image, i)
            share = groups.share.to(self.dtype).flatten(1, 2)
            dq = torch.cat([own[:, None], groups.vectors.to(self.dtype).flatten(1, 2)], 1) @ self.W_q
            Q = share.shape[2]
            at_i = i[:, None] if isinstance(self.f, GlobalLocal) else i.new_full((len(i), 1), Q // 2)
            share = torch.cat([F.one_hot(at_i, Q).to(share), share], 1)
            if not isinstance(self.f, GlobalLocal):
                kernel = share @ self.taps[:Q]
                pool_share = self._share(size)
                moved = dq.mul_(kernel if pool_share is None else kernel * pool_share[i, None, None])
            else:
                assert at.norm is not None
                moved = gf_group_responses(self.f, i, share.unflatten(2, size), dq, *at.norm, at.image)
            df = torch.cat([moved[:, :1], moved[:, 1:].unflatten(1, groups.share.shape[1:3]).sum(2)], 1)
            if isinstance(self.f, GlobalLocal):
                df = self._post_norm_response(self.f, at, df)
            D = self._prefixes(at, (own @ self.W_p)[:, None], df[:, :num_wanted], num_wanted)
        return D.clone()

    def _p_0_responses(self, cells: Tensor, directions: Tensor) -> Tensor:
        """What directions at cells j_t do to p_0 at i, which sees i alone: (N, 1, C_0) if only j_0 is i."""
        at_i = cells == cells[:, :1]
        if at_i[:, 1:].any():
            return (directions @ self.W_p) * at_i[..., None]
        return (directions[:, 0] @ self.W_p)[:, None]

    @torch.no_grad()
    def dense(self, x: Tensor, cells: Tensor, directions: Tensor, *, image: Tensor | None = None) -> Tensor:
        """(k + 1)-th derivatives along directions (N, K + 1, C, H, W) that move everything: (N, K + 1, C')."""
        image = torch.arange(len(x)) if image is None else image
        with torch.autocast(x.device.type, enabled=False):
            return self._dense(x.to(self.dtype), cells, directions.to(self.dtype), image)

    def _dense(self, x: Tensor, cells: Tensor, directions: Tensor, image: Tensor) -> Tensor:
        N, num_wanted, _, H, W = directions.shape
        directions = directions[:, : len(self.dims) + 1]  # more never act together
        T = directions.shape[1]
        rows = torch.arange(N)
        at = self._point(x, image, cells)
        dp = torch.einsum("ntc,co->nto", directions.flatten(3)[rows, :, :, cells], self.W_p)
        if not isinstance(self.f, GlobalLocal) and len(self.taps) - 1 < H * W:
            return self._prefixes(at, dp, self._window_responses(directions.flatten(3), cells, (H, W)), num_wanted)
        dq = torch.einsum("co,ntchw->ntohw", self.W_q, directions).flatten(0, 1)
        if not isinstance(self.f, GlobalLocal):
            f = replace(self.f, bias=None) if isinstance(self.f, DepthwiseConv) else self.f
            df = f(dq).reshape(N, T, -1, H * W)[rows, :, :, cells]
            return self._prefixes(at, dp, df * self.scale, num_wanted)
        assert at.norm is not None
        hat, sigma = (part[at.image][:, None] for part in at.norm)
        change = _normalised_change(dq.reshape(N, T, -1, H * W).transpose(2, 3), hat, sigma).transpose(2, 3)
        dz = self.f.pre_norm.weight[:, None] * change
        du = self.f.interleaved(dz.reshape(N * T, -1, H, W)).reshape(N, T, -1, H * W)[rows, :, :, cells]
        return self._prefixes(at, dp, self._post_norm_response(self.f, at, du), num_wanted)

    def _window_responses(self, directions: Tensor, i: Tensor, map_size: tuple[int, int]) -> Tensor:
        """f'(d_t) at i for directions (N, T, C, H·W) that move everything, by i's window alone: (N, T, Σ C_k)."""
        under = _cells_under_taps(map_size, self._reach(), i.device)[i]
        index = under.clamp(min=0)[:, None, None].expand(*directions.shape[:3], -1)
        dq = directions.gather(3, index).transpose(2, 3) @ self.W_q
        df = (dq * (self.taps[:-1] * (under >= 0)[..., None])[:, None]).sum(2)
        share = self._share(map_size)
        return df if share is None else df * share[i, None, None]

    def _prefixes(self, at: GnConvPoint, dp: Tensor, df: Tensor, num_wanted: int) -> Tensor:
        """φ_out(P_S) for S = {0}, {0, 1}, …, as many chains together as the processor's cache holds."""
        parts = [slice(start, start + CACHED_CHAINS) for start in range(0, len(dp), CACHED_CHAINS)]
        D = dp.new_zeros(num_wanted, len(dp), self.num_channels)
        for part in parts:
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


def _tap_offsets(reach: Reach, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows down and columns right of the centre at which each tap of a kernel lies, (K²,) each."""
    axes = (torch.arange(-radius, radius + 1, device=device) * dilation for radius, dilation in reach)
    down, right = torch.meshgrid(*axes, indexing="ij")
    return down.flatten(), right.flatten()


@lru_cache(maxsize=32)
def _cells_under_taps(map_size: tuple[int, int], reach: Reach, device: torch.device) -> Tensor:
    """The cell under each tap of a kernel centred at each cell of a map, (H·W, K²); -1 where it is not on the map."""
    H, W = map_size
    down, right = _tap_offsets(reach, device)
    cells = torch.arange(H * W, device=device)[:, None]
    row, column = cells // W + down, cells % W + right
    return torch.where((row >= 0) & (row < H) & (column >= 0) & (column < W), row * W + column, -1)


@lru_cache(maxsize=32)
def _taps_between(map_size: tuple[int, int], reach: Reach, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which tap of a kernel centred at cell i lies on cell j: `tap_at[place[j] - place[i]]`, K² where none does.

    A place is a cell's number on a map so wide that a difference of two places tells how far both rows and columns are
    apart. Negative differences count from the end of `tap_at`.
    """
    H, W = map_size
    wide = 2 * W - 1
    cells = torch.arange(H * W, device=device)
    down, right = _tap_offsets(reach, device)
    taps = torch.arange(len(down), device=device)
    near = (down.abs() < H) & (right.abs() < W)
    tap_at = torch.full(((2 * H - 1) * wide,), len(taps), device=device)
    tap_at[(down * wide + right)[near]] = taps[near]
    return cells // W * wide + cells % W, tap_at


def _normalised(z: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(z - mean) / σ over the last dimension, and σ."""
    sigma = (z.var(-1, correction=0, keepdim=True) + eps).sqrt()
    return (z - z.mean(-1, keepdim=True)) / sigma, sigma


def _normalised_change(change: Tensor, hat: Tensor, sigma: Tensor) -> Tensor:
    """Tangent of (z - mean) / σ over the last dimension: (δ - mean δ - ẑ mean(ẑ δ)) / σ."""
    return (change - change.mean(-1, keepdim=True) - hat * (hat * change).mean(-1, keepdim=True)) / sigma


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
    if x.ndim != 4 or x.shape[1] != form.W_p.shape[0]:
        return None
    if is_unaltered(operator):
        return form
    wide, narrow = form.to(torch.float64), form.to(torch.float32)
    return form if computes_its_form(operator, wide, narrow, x, explicit=explicit) else None
