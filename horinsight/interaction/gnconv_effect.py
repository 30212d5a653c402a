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

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from horinsight.interaction.module_copies import copied
from horinsight.interaction.product_rule import product_steps
from horinsight.models.blocks import gnconv_linears
from horinsight.models.global_local_filter import resized_filter
from horinsight.models.gnconv import GnConv

AGREEMENT = (
    1e-3  # of the largest output: a look-alike whose forward pass does something else is not treated in closed form
)
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
    """Derivatives of one gnConv in closed form.

    Use `closed_form_of`, which says when it applies.
    """

    def __init__(self, module: Any, linears: Sequence[Any]) -> None:
        self.module = module
        self.linears = linears
        first = (linears[0] if linears else module.proj_out).in_channels
        self.dims = [first, *(linear.out_channels for linear in linears)]
        self.scale = float(getattr(module, "scale", 1.0))
        self.f = module.dwconv
        W_in = module.proj_in.weight.detach().flatten(1)
        bias = W_in.new_zeros(len(W_in)) if module.proj_in.bias is None else module.proj_in.bias.detach()
        parts = [self.dims[0], sum(self.dims)]
        self.W_p, self.W_q = (part.T for part in W_in.split(parts))
        self.b_p, self.b_q = bias.split(parts)
        self.W_out = module.proj_out.weight.detach().flatten(1).T
        self.g = [
            (linear.weight.detach().flatten(1).T, None if linear.bias is None else linear.bias.detach())
            for linear in linears
        ]
        self.dtype: torch.dtype = W_in.dtype
        if self.is_gf:
            return
        if isinstance(self.f, nn.Conv2d):
            taps, constant = self.f.weight.detach().flatten(1).T, self.f.bias
        else:
            taps, constant = W_in.new_ones(prod(_pair(self.f.kernel_size)), 1), None  # times the share at i
        self.taps = F.pad(taps * self.scale, (0, 0, 0, 1))  # (K² + 1, Σ C_k or 1), the last row 0
        self.constant = W_in.new_zeros(sum(self.dims)) if constant is None else constant.detach() * self.scale

    @property
    def is_gf(self) -> bool:
        """Whether f is a GF layer, whose norms are taken by their tangents."""
        return hasattr(self.f, "complex_weight")

    @property
    def is_mean(self) -> bool:
        """Whether f is a mean pooling, whose weights depend on how many cells of the window are on the map."""
        return isinstance(self.f, nn.AvgPool2d)

    def value(self, x: Tensor, image: Tensor, i: Tensor) -> Tensor:
        """The gnConv's output at cell i[n] of image[n], (N, C'), by the recursion on vectors."""
        at = self._point(x, image, i)
        p = at.p_0
        for k, f_k in enumerate(at.f.split(self.dims, dim=-1)):
            if k:
                p = _affine(self.linears[k - 1], p)
            p = p * f_k
        return _affine(self.module.proj_out, p)

    def _point(self, x: Tensor, image: Tensor, i: Tensor) -> GnConvPoint:
        """p_0 and f at cell i[n] of image[n]."""
        return self._gf_point(x, image, i) if self.is_gf else self._window_point(x, image, i)

    def _window_point(self, x: Tensor, image: Tensor, i: Tensor) -> GnConvPoint:
        B, _, H, W = x.shape
        positions = x.flatten(2).transpose(1, 2)
        p_0 = torch.addmm(self.b_p, positions[image, i], self.W_p)
        if len(i) * (len(self.taps) - 1) >= B * H * W:
            # many chains an image: f on the whole map costs less than their windows
            q = (positions @ self.W_q + self.b_q).transpose(1, 2).unflatten(2, (H, W))
            return GnConvPoint(p_0, self.f(q).flatten(2)[image, :, i] * self.scale, image)
        under_taps = _cells_under_taps((H, W), self._reach(), i.device).index_select(0, i)
        chain, tap = (under_taps >= 0).nonzero(as_tuple=True)
        j = under_taps[chain, tap]
        q = torch.addmm(self.b_q, positions[image[chain], j], self.W_q)
        q.mul_(self.taps.index_select(0, tap))
        f = self.constant.repeat(len(i), 1).index_add_(0, chain, q)
        return GnConvPoint(p_0, f * self._share(H, W)[i, None] if self.is_mean else f, image)

    def _gf_point(self, x: Tensor, image: Tensor, i: Tensor) -> GnConvPoint:
        p_0, q = self.module.proj_in(x).split([self.dims[0], sum(self.dims)], dim=1)
        norm = self.f.pre_norm
        sigma = (q.var(1, correction=0, keepdim=True) + norm.eps).sqrt()
        normalised = (q - q.mean(1, keepdim=True)) / sigma
        y = self._interleaved(normalised * norm.weight[:, None, None] + norm.bias[:, None, None])
        f = self.f.post_norm(y) * self.scale
        p_0, f, y = (part.flatten(2)[image, :, i] for part in (p_0, f, y))
        return GnConvPoint(p_0, f, image, y, (normalised.flatten(2).transpose(1, 2), sigma.flatten(2).transpose(1, 2)))

    def _interleaved(self, z: Tensor) -> Tensor:
        """The linear part of GF: local and global halves, interleaved."""
        C, H, W = z.shape[1:]
        spectrum = torch.fft.rfft2(z[:, C // 2 :]) * torch.view_as_complex(self._filter(H, W))
        halves = [self.f.dw(z[:, : C // 2]), torch.fft.irfft2(spectrum, s=(H, W))]
        return torch.stack(halves, dim=2).flatten(1, 2)

    def _filter(self, H: int, W: int) -> Tensor:
        return resized_filter(self.f.complex_weight.detach(), (H, W // 2 + 1)).contiguous()

    def field(self, cells: Tensor, map_size: tuple[int, int]) -> Tensor:
        """Ω_i: the cells that the output at i depends on, (N, H·W) bool."""
        H, W = map_size
        if self.is_gf:
            return torch.ones(len(cells), H * W, dtype=torch.bool)
        place, tap_at = _taps_between(map_size, self._reach(), cells.device)
        return tap_at[place - place[cells][:, None]] < len(self.taps) - 1

    def _reach(self) -> Reach:
        sizes, dilations = _pair(self.f.kernel_size), _pair(getattr(self.f, "dilation", 1))
        return (sizes[0] // 2, dilations[0]), (sizes[1] // 2, dilations[1])

    def _share(self, H: int, W: int) -> Tensor:
        """Of a mean pooling: the weight that the mean at each cell gives to each cell it sees, (H·W,)."""
        ones = torch.ones(1, 1, H, W, dtype=self.dtype)
        seen = F.avg_pool2d(ones, self.f.kernel_size, 1, self.f.padding, divisor_override=1)
        return (self.f(ones) / seen).flatten()

    def _kernel(self, cells: Tensor, map_size: tuple[int, int]) -> Tensor:
        """w_{i→j} / α of every channel for i = cells[:, 0] and j = cells[:, t]: (N, T, Σ C_k or 1)."""
        H, W = map_size
        if self.is_gf:
            return self.scale * self._gf_kernel(cells, H, W)
        place, tap_at = _taps_between(map_size, self._reach(), cells.device)
        place = place[cells]
        kernel = self.taps[tap_at[place - place[:, :1]]]
        return kernel * self._share(H, W)[cells[:, :1], None] if self.is_mean else kernel

    def _gf_kernel(self, cells: Tensor, H: int, W: int) -> Tensor:
        row, column = cells // W, cells % W
        down, right = row - row[:, :1], column - column[:, :1]
        local = self.f.dw.weight.detach().flatten(1).T
        near = (down.abs() <= 1) & (right.abs() <= 1)
        taps = local[((down + 1) * 3 + right + 1).masked_fill(~near, 0)] * near[..., None]
        kernel = torch.fft.irfft2(torch.view_as_complex(self._filter(H, W)), s=(H, W)).flatten(1).T
        circular = kernel[(-down % H) * W + (-right % W)]
        return torch.stack([taps, circular], dim=-1).flatten(-2)  # interleaved

    def _f_responses(self, at: GnConvPoint, cells: Tensor, dq: Tensor, map_size: tuple[int, int]) -> Tensor:
        """f'(d_t) at i for directions that move q by dq at cell j_t: (N, T, Σ C_k)."""
        kernel = self._kernel(cells, map_size)
        if at.norm is None:
            return kernel * dq
        hat, sigma = (part[at.image[:, None], cells] for part in at.norm)  # at j_t
        dz = self.f.pre_norm.weight.detach() * _normalised_change(dq, hat, sigma)
        C = dz.shape[-1]
        source = torch.stack([torch.arange(C // 2), torch.arange(C // 2, C)], dim=1).flatten()
        return self._post_norm_response(at, kernel * dz[..., source])

    def _post_norm_response(self, at: GnConvPoint, du: Tensor) -> Tensor:
        assert at.y is not None
        sigma = (at.y.var(-1, correction=0, keepdim=True) + self.f.post_norm.eps).sqrt()
        hat = (at.y - at.y.mean(-1, keepdim=True)) / sigma
        return self.f.post_norm.weight.detach() * _normalised_change(du, hat[:, None], sigma[:, None])

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
        with torch.inference_mode():
            num_wanted = directions.shape[1]
            r = min(num_wanted, len(self.dims) + 1)  # more directions never act together
            x, directions, cells = x.to(self.dtype), directions[:, :r].contiguous().to(self.dtype), cells[:, :r]
            at = self._point(x, image, cells[:, 0])
            dp = self._p_0_responses(cells, directions)
            df = self._f_responses(at, cells, directions @ self.W_q, (x.shape[2], x.shape[3]))
            D = self._prefixes(at, dp, df, num_wanted)
        return D.clone()  # a tensor like any other

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
        x, directions = x.to(self.dtype), directions.to(self.dtype)
        N, T, _, H, W = directions.shape
        rows = torch.arange(N)
        at = self._point(x, image, cells)
        dp = torch.einsum("ntc,co->nto", directions.flatten(3)[rows, :, :, cells], self.W_p)
        dq = torch.einsum("co,ntchw->ntohw", self.W_q, directions)
        if at.norm is None:
            empty = torch.zeros_like(dq[:, 0])
            df = torch.stack([self.f(dq[:, t]) - self.f(empty) for t in range(T)], dim=1)  # without the bias
            return self._prefixes(at, dp, self.scale * df.flatten(3)[rows, :, :, cells], T)
        hat, sigma = (part[at.image][:, None] for part in at.norm)
        change = _normalised_change(dq.flatten(3).transpose(2, 3), hat, sigma).transpose(2, 3)
        dz = self.f.pre_norm.weight.detach()[:, None] * change
        du = self._interleaved(dz.reshape(N * T, -1, H, W)).reshape(N, T, -1, H * W)[rows, :, :, cells]
        return self._prefixes(at, dp, self._post_norm_response(at, self.scale * du), T)

    def _prefixes(self, at: GnConvPoint, dp: Tensor, df: Tensor, num_wanted: int) -> Tensor:
        """φ_out(P_S) for S = {0}, {0, 1}, …, as many chains together as the processor's cache holds."""
        parts = [slice(start, start + CACHED_CHAINS) for start in range(0, len(dp), CACHED_CHAINS)]
        D = dp.new_zeros(num_wanted, len(dp), self.W_out.shape[1])
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


def _normalised_change(change: Tensor, hat: Tensor, sigma: Tensor) -> Tensor:
    """Tangent of (z - mean) / σ over the last dimension: (δ - mean δ - ẑ mean(ẑ δ)) / σ."""
    return (change - change.mean(-1, keepdim=True) - hat * (hat * change).mean(-1, keepdim=True)) / sigma


def _affine(layer: Any, p: Tensor) -> Tensor:
    return F.linear(p, layer.weight.flatten(1), layer.bias)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def closed_form_of(
    operator: Any, x: Tensor, *, explicit: bool, dtype: torch.dtype | None = None
) -> GnConvClosedForm | None:
    """The closed form of an operator, if it has one; None otherwise.

    It has one if it is shaped like a gnConv, its f is a depthwise convolution with zeros around the map, a mean pooling
    or (explicit only) GF, and the closed form's output agrees with the operator's own at x: a look-alike that computes
    something else is left to nested differentiation. Functional derivatives of look-alikes always are.

    Args:
        operator: anything.
        x: operating points (B, C, H, W).
        explicit: whether non-linearities are taken by their tangents.
        dtype: to compute in; that of x when None. High orders of small features need float64.
    """
    if not isinstance(operator, nn.Module):
        return None
    if gnconv_linears(operator) is None or not _understood(operator.dwconv, explicit=explicit):
        return None
    if not explicit and type(operator) is not GnConv:
        return None  # a nearly linear activation in a look-alike would agree in value, and not in its derivatives
    with torch.no_grad():
        expected = operator(x)
        if dtype is not None and dtype != x.dtype:
            operator, x, expected = copied(operator, operator.modules()).to(dtype), x.to(dtype), expected.to(dtype)
        form = GnConvClosedForm(operator, gnconv_linears(operator) or [])
        if expected.shape != x.shape:
            return None
        i = torch.full((len(x),), expected[0, 0].numel() // 2)
        found = form.value(x, torch.arange(len(x)), i)
        expected = expected.flatten(2)[:, :, i[0]]
        return form if float((found - expected).abs().max()) <= AGREEMENT * float(expected.abs().max()) else None


def _understood(f: Any, *, explicit: bool) -> bool:
    if all(hasattr(f, name) for name in ("dw", "complex_weight", "pre_norm", "post_norm")):
        return explicit
    if isinstance(f, nn.Conv2d):
        sizes, dilations = _pair(f.kernel_size), _pair(f.dilation)
        same = tuple(d * (size // 2) for size, d in zip(sizes, dilations, strict=True))
        keeps = f.padding in ("same", same) and f.stride == (1, 1) and f.padding_mode == "zeros"
        return keeps and f.groups == f.in_channels == f.out_channels and all(size % 2 for size in sizes)
    if isinstance(f, nn.AvgPool2d):
        size = _pair(f.kernel_size)
        return (
            _pair(f.stride) == (1, 1) and _pair(f.padding) == (size[0] // 2, size[1] // 2) and all(s % 2 for s in size)
        )
    return False
