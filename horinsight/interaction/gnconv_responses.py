"""A gnConv at given locations, from the numbers of its parts: p_0 and f there, and how each responds to directions."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from horinsight.interaction.gf_groups import gf_group_responses
from horinsight.interaction.kernel_taps import Reach, cells_under_taps, taps_between
from horinsight.interaction.neighbour_groups import SharedDirections
from horinsight.models.depthwise_kinds import DepthwiseConv, GlobalLocal
from horinsight.models.gnconv_parts import GnConvParts


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


class GnConvResponses:
    """What a gnConv's spatial half gives at a location, and what a direction at another location does to it."""

    def __init__(self, parts: GnConvParts, dtype: torch.dtype) -> None:
        assert parts.channel_maps is not None
        assert parts.f is not None
        proj_in = parts.channel_maps[0].to(dtype)
        self.dims = list(parts.dims)
        self.scale = parts.scale.to(dtype) if isinstance(parts.scale, Tensor) else parts.scale
        self.f = parts.f.to(dtype)
        halves = [self.dims[0], sum(self.dims)]
        self.W_p: Tensor
        self.W_q: Tensor
        self.W_p, self.W_q = (part.T for part in proj_in.weight.split(halves))
        bias = proj_in.weight.new_zeros(sum(halves)) if proj_in.bias is None else proj_in.bias
        self.b_p, self.b_q = bias.split(halves)
        if isinstance(self.f, GlobalLocal):
            return
        taps = self.f.taps.to(self.W_p).T * self.scale
        self.taps = F.pad(taps, (0, 0, 0, 1))  # (K² + 1, Σ C_k or 1), the last row 0
        constant = self.b_q.new_zeros(sum(self.dims)) if self.f.bias is None else self.f.bias
        self.constant = constant * self.scale

    def point(self, x: Tensor, image: Tensor, i: Tensor) -> GnConvPoint:
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
        under_taps = cells_under_taps(size, self.reach, i.device).index_select(0, i)
        chain, tap = (under_taps >= 0).nonzero(as_tuple=True)
        j = under_taps[chain, tap]
        q = torch.addmm(self.b_q, positions[image[chain], j], self.W_q)
        q.mul_(self.taps.index_select(0, tap))
        f = self.constant.repeat(len(i), 1).index_add_(0, chain, q)
        share = self.share(size)
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
        place, tap_at = taps_between(map_size, self.reach, cells.device)
        return tap_at[place - place[cells][:, None]] < len(self.taps) - 1

    def around(self, i: Tensor, map_size: tuple[int, int]) -> Tensor:
        """(N, Q) bool: the places around cell i that hold a neighbour: taps of its window, for GF cells of the map."""
        if isinstance(self.f, GlobalLocal):
            return self.field(i, map_size).scatter(1, i[:, None], False)
        around = cells_under_taps(map_size, self.reach, i.device)[i] >= 0
        around[:, around.shape[1] // 2] = False  # i itself
        return around

    def group_responses(
        self, at: GnConvPoint, i: Tensor, own: Tensor, groups: SharedDirections, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """What a direction of cell i and those of groups of places do to p_0, (N, 1, C_0), and to f, (N, T, Σ C_k)."""
        share = groups.share.to(self.W_p).flatten(1, 2)
        dq = torch.cat([own[:, None], groups.vectors.to(self.W_p).flatten(1, 2)], 1) @ self.W_q
        Q = share.shape[2]
        at_i = i[:, None] if isinstance(self.f, GlobalLocal) else i.new_full((len(i), 1), Q // 2)
        share = torch.cat([F.one_hot(at_i, Q).to(share), share], 1)
        if not isinstance(self.f, GlobalLocal):
            kernel, pool_share = share @ self.taps[:Q], self.share(size)
            moved = dq.mul_(kernel if pool_share is None else kernel * pool_share[i, None, None])
        else:
            assert at.norm is not None
            moved = gf_group_responses(self.f, i, share.unflatten(2, size), dq, *at.norm, at.image)
        df = torch.cat([moved[:, :1], moved[:, 1:].unflatten(1, groups.share.shape[1:3]).sum(2)], 1)
        if isinstance(self.f, GlobalLocal):
            df = self._post_norm_response(self.f, at, df)
        return (own @ self.W_p)[:, None], df

    def p_0_responses(self, cells: Tensor, directions: Tensor) -> Tensor:
        """What directions at cells j_t do to p_0 at i, which sees i alone: (N, 1, C_0) if only j_0 is i."""
        at_i = cells == cells[:, :1]
        if at_i[:, 1:].any():
            return (directions @ self.W_p) * at_i[..., None]
        return (directions[:, 0] @ self.W_p)[:, None]

    def f_responses(self, at: GnConvPoint, cells: Tensor, directions: Tensor, map_size: tuple[int, int]) -> Tensor:
        """f'(d_t) at i for directions at cells j_t: (N, T, Σ C_k)."""
        dq = directions @ self.W_q
        kernel = self._kernel(cells, map_size)
        if not isinstance(self.f, GlobalLocal):
            return kernel * dq
        assert at.norm is not None
        hat, sigma = (part[at.image[:, None], cells] for part in at.norm)  # at j_t
        dz = self.f.pre_norm.weight * _normalised_change(dq, hat, sigma)
        source = self.f.source(torch.arange(dz.shape[-1], device=dz.device))
        return self._post_norm_response(self.f, at, kernel * dz[..., source])

    def dense_responses(self, at: GnConvPoint, cells: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """What directions (N, T, C, H, W) that move everything do to p_0 and to f at `cells`: (N, T, C_0 or Σ C_k)."""
        N, T, _, H, W = directions.shape
        rows = torch.arange(N)
        dp = torch.einsum("ntc,co->nto", directions.flatten(3)[rows, :, :, cells], self.W_p)
        if not isinstance(self.f, GlobalLocal) and len(self.taps) - 1 < H * W:
            return dp, self._window_responses(directions.flatten(3), cells, (H, W))
        dq = torch.einsum("co,ntchw->ntohw", self.W_q, directions).flatten(0, 1)
        if not isinstance(self.f, GlobalLocal):
            f = replace(self.f, bias=None) if isinstance(self.f, DepthwiseConv) else self.f
            df = f(dq).reshape(N, T, -1, H * W)[rows, :, :, cells]
            return dp, df * self.scale
        assert at.norm is not None
        hat, sigma = (part[at.image][:, None] for part in at.norm)
        change = _normalised_change(dq.reshape(N, T, -1, H * W).transpose(2, 3), hat, sigma).transpose(2, 3)
        dz = self.f.pre_norm.weight[:, None] * change
        du = self.f.interleaved(dz.reshape(N * T, -1, H, W)).reshape(N, T, -1, H * W)[rows, :, :, cells]
        return dp, self._post_norm_response(self.f, at, du)

    def _window_responses(self, directions: Tensor, i: Tensor, map_size: tuple[int, int]) -> Tensor:
        """f'(d_t) at i for directions (N, T, C, H·W) that move everything, by i's window alone: (N, T, Σ C_k)."""
        under = cells_under_taps(map_size, self.reach, i.device)[i]
        index = under.clamp(min=0)[:, None, None].expand(*directions.shape[:3], -1)
        dq = directions.gather(3, index).transpose(2, 3) @ self.W_q
        df = (dq * (self.taps[:-1] * (under >= 0)[..., None])[:, None]).sum(2)
        share = self.share(map_size)
        return df if share is None else df * share[i, None, None]

    def _post_norm_response(self, f: GlobalLocal, at: GnConvPoint, du: Tensor) -> Tensor:
        assert at.y is not None
        hat, sigma = _normalised(at.y, f.post_norm.eps)
        return self.scale * f.post_norm.weight * _normalised_change(du, hat[:, None], sigma[:, None])

    def _kernel(self, cells: Tensor, map_size: tuple[int, int]) -> Tensor:
        """w_{i→j} of every channel for i = cells[:, 0] and j = cells[:, t], over α but for GF: (N, T, Σ C_k or 1)."""
        if isinstance(self.f, GlobalLocal):
            return self._gf_kernel(self.f, cells, *map_size)
        kernel = self._window(self.taps, cells, map_size)
        share = self.share(map_size)
        return kernel if share is None else kernel * share[cells[:, :1], None]

    @property
    def reach(self) -> Reach:
        """How far f's window reaches; the local half's for GF."""
        window = self.f.local if isinstance(self.f, GlobalLocal) else self.f
        sizes, dilations = window.kernel_size, window.dilation
        return (sizes[0] // 2, dilations[0]), (sizes[1] // 2, dilations[1])

    def share(self, size: tuple[int, int]) -> Tensor | None:
        """Of a mean pooling: the weight that the mean at each cell gives to each cell it sees, (H·W,)."""
        share = None if isinstance(self.f, GlobalLocal) else self.f.share(*size)
        return None if share is None else share.flatten().to(self.W_p)

    def _window(self, taps: Tensor, cells: Tensor, map_size: tuple[int, int]) -> Tensor:
        """The tap of a window centred at cells[:, 0] that lies on each cell, (N, T, C)."""
        place, tap_at = taps_between(map_size, self.reach, cells.device)
        place = place[cells]
        return taps[tap_at[place - place[:, :1]]]

    def _gf_kernel(self, f: GlobalLocal, cells: Tensor, H: int, W: int) -> Tensor:
        row, column = cells // W, cells % W
        down, right = row - row[:, :1], column - column[:, :1]
        near = self._window(F.pad(f.local.taps.T, (0, 0, 0, 1)), cells, (H, W))
        circular = f.circular_kernel(H, W).T[(-down % H) * W + (-right % W)]
        return torch.stack([near, circular], dim=-1).flatten(-2)  # interleaved


def _normalised(z: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(z - mean) / σ over the last dimension, and σ."""
    sigma = (z.var(-1, correction=0, keepdim=True) + eps).sqrt()
    return (z - z.mean(-1, keepdim=True)) / sigma, sigma


def _normalised_change(change: Tensor, hat: Tensor, sigma: Tensor) -> Tensor:
    """Tangent of (z - mean) / σ over the last dimension: (δ - mean δ - ẑ mean(ẑ δ)) / σ."""
    return (change - change.mean(-1, keepdim=True) - hat * (hat * change).mean(-1, keepdim=True)) / sigma
