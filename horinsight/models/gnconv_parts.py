r"""What a gnConv is, in anybody's code: its parts, told by their names, and what each of them computes.

    p, q_0, …, q_{n-1} = proj_in(x);    p ← g_k(p) ⊙ f_k(q_k) · scale, k = 0..n-1;    y = proj_out(p)      (Eq. 3.2-3.5)

A module is *shaped* like a gnConv if it has `proj_in`, `dwconv`, `proj_out` and a list `pws` (the published name) or
`projs` (mmpretrain's): `GnConvParts.of`. That is enough to list it. What else is known of it depends on its parts:

- φ_in, φ_out and every g_k are linear over the channels of each cell where they are 1x1 convolutions, also grouped ones
  and ones without bias, or `nn.Linear` on channels-last maps: `linear_over_channels`.
- f is one of the kinds of `depthwise_kinds`: a depthwise convolution with an odd kernel, dilated or not, that keeps the
  map between zeros; a mean over an odd window that keeps the map, whatever it divides by; GF. Others are not known:
  even kernels, strides, other paddings, poolings of maxima, sequences of layers.
- The scale is one number, or one for each channel of f; 1 where there is none.

None of this proves that the module's forward pass combines its parts as a gnConv does: who rests on that checks it.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from horinsight.models.depthwise_kinds import Depthwise, depthwise_kind


@dataclass(frozen=True, eq=False)
class ChannelMap:
    """A linear map over the channels of each cell.

    Attributes:
        weight: (C', C).
        bias: (C',), or None.
    """

    weight: Tensor
    bias: Tensor | None

    def __call__(self, p: Tensor) -> Tensor:
        """(..., C) → (..., C')."""
        return F.linear(p, self.weight, self.bias)

    def to(self, dtype: torch.dtype) -> Self:
        """The same in another dtype."""
        return replace(self, weight=self.weight.to(dtype), bias=None if self.bias is None else self.bias.to(dtype))


def linear_over_channels(layer: nn.Module) -> ChannelMap | None:
    """What a layer does to the channels of each cell, if it is a 1x1 convolution or a linear layer; else None.

    Example:
        >>> linear_over_channels(nn.Conv2d(4, 6, 1, groups=2)).weight.count_nonzero().item()
        12
        >>> linear_over_channels(nn.Conv2d(4, 6, 3, padding=1)) is None
        True
    """
    if not isinstance(layer, nn.Conv2d | nn.Linear) or not layer.weight.is_floating_point():
        return None
    weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
    if isinstance(layer, nn.Linear):
        return ChannelMap(weight, bias)
    if layer.kernel_size != (1, 1) or layer.stride != (1, 1) or layer.padding not in ((0, 0), "same", "valid"):
        return None
    if layer.groups > 1:
        return ChannelMap(torch.block_diag(*weight.flatten(1).chunk(layer.groups)), bias)
    return ChannelMap(weight.flatten(1), bias)


@dataclass(frozen=True, eq=False)
class GnConvParts:
    """The parts of a module that is shaped like a gnConv.

    Attributes:
        proj_in: φ_in.
        dwconv: f, run once on all of q.
        linears: g_1..g_{n-1}.
        proj_out: φ_out.
        factor: the module's `scale`, whatever it is; 1.0 where it has none.
    """

    proj_in: nn.Module
    dwconv: nn.Module
    linears: tuple[nn.Module, ...]
    proj_out: nn.Module
    factor: Any

    @classmethod
    def of(cls, module: object) -> Self | None:
        """The parts of a module that is shaped like a gnConv; None if it is not.

        Example:
            >>> from horinsight.models.gnconv import GnConv
            >>> GnConvParts.of(GnConv(8, order=3)).dims, GnConvParts.of(nn.Conv2d(8, 8, 3))
            ((2, 4, 8), None)
        """
        singles = [getattr(module, name, None) for name in ("proj_in", "dwconv", "proj_out")]
        lists = [getattr(module, name, None) for name in ("pws", "projs")]
        linears = next((found for found in lists if isinstance(found, nn.ModuleList | nn.Sequential)), None)
        if linears is None or not isinstance(module, nn.Module) or not all(isinstance(m, nn.Module) for m in singles):
            return None
        proj_in, dwconv, proj_out = cast(list[nn.Module], singles)
        return cls(proj_in, dwconv, tuple(linears), proj_out, getattr(module, "scale", 1.0))

    @property
    def order(self) -> int:
        """n, the number of steps."""
        return len(self.linears) + 1

    @cached_property
    def dims(self) -> tuple[int, ...]:
        """Channels C_k of each step.

        Raises:
            ValueError: the parts do not say how many, or contradict each other.
        """
        layers = (self.proj_in, *self.linears, self.proj_out)
        ends = [(_width(layer, "in"), _width(layer, "out")) for layer in layers]
        dims = [ends[1][0], *(wide for _, wide in ends[1:-1])]
        if None in dims or ends[0][1] is None:
            raise ValueError(
                "The channels of this gnConv cannot be told: proj_in, pws and proj_out are expected to be convolutions "
                f"or linear layers, got {', '.join(type(layer).__name__ for layer in layers)}."
            )
        found = cast(list[int], dims)
        if found[0] + sum(found) != ends[0][1]:
            raise ValueError(
                f"The channels of this gnConv do not split: its steps have {found} channels, so proj_in should give "
                f"{found[0]} + {sum(found)} = {found[0] + sum(found)}, but it gives {ends[0][1]}."
            )
        if any(before[1] != after[0] for before, after in pairwise([(0, found[0]), *ends[1:]])):
            raise ValueError(
                f"The steps of this gnConv do not follow each other: they take and give {ends[1:]} channels."
            )
        return tuple(found)

    @cached_property
    def f(self) -> Depthwise | None:
        """What `dwconv` computes, if it is of a known kind and as wide as the steps; else None."""
        found = depthwise_kind(self.dwconv)
        return found if found is not None and found.num_channels in (None, sum(self.dims)) else None

    @cached_property
    def scale(self) -> Tensor | float:
        """What f is multiplied with: one number, or one for each of its channels, (Σ C_k,).

        Raises:
            ValueError: the module's `scale` is something else.
        """
        factor = self.factor.detach() if isinstance(self.factor, Tensor) else self.factor
        if isinstance(factor, Tensor) and factor.numel() == 1:
            factor = factor.item()
        if isinstance(factor, int | float):
            return float(factor)
        if isinstance(factor, Tensor) and factor.numel() == max(factor.shape) == sum(self.dims):
            return factor.flatten()
        shape = f" of shape {tuple(factor.shape)}" if isinstance(factor, Tensor) else ""
        raise ValueError(
            f"The scale of this gnConv is expected to be one number, or one for each of {sum(self.dims)} channels, got "
            f"{type(self.factor).__name__}{shape}."
        )

    @cached_property
    def channel_maps(self) -> tuple[ChannelMap, ...] | None:
        """φ_in, g_1..g_{n-1} and φ_out, if all of them are linear over the channels of each cell; else None."""
        maps = [linear_over_channels(layer) for layer in (self.proj_in, *self.linears, self.proj_out)]
        return None if None in maps else tuple(cast(list[ChannelMap], maps))

    @cached_property
    def missing(self) -> str:
        """Why the module is no gnConv as Eq. 3.2-3.5 have it; "" where its parts are those of one."""
        try:
            _ = self.dims, self.scale
        except ValueError as error:
            return str(error)
        if self.channel_maps is None:
            return "proj_in, pws or proj_out are not linear over the channels of each cell"
        return "" if self.f is not None else f"{type(self.dwconv).__name__} is no f of a known kind"


def _width(layer: Any, end: str) -> int | None:
    """Channels that a layer takes ("in") or gives ("out"); None where it does not say."""
    found = getattr(layer, f"{end}_channels", getattr(layer, f"{end}_features", None))
    return found if isinstance(found, int) else None
