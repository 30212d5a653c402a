r"""The gradient of what a gⁿConv computes at a position, parted into what is looked at and what steers the looking.

With p_n^(i,c) = Σ_j h_ij^c v^(j,c) + b_i^c (HorNet Eq. 3.8) and F_c'(x)_i = Σ_c W_c'c p_n^(i,c) + const, where h and b
hold the gates,

    dF_c'(x)_i / dx = Σ_c W_c'c ( Σ_j h_ij^c dv^(j,c)/dx  +  Σ_j v^(j,c) dh_ij^c/dx + db_i^c/dx ).

The first sum is the path of the values, which mixing weights show, mapped through both projections; the rest is the
path of the gates. They add up to the gradient exactly: what is not in a map of mixing weights is in the second.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from horinsight.attribution.position_targets import position_targets
from horinsight.capture import evaluation, replaced
from horinsight.mixing.extraction import mixing_weights
from horinsight.models.gnconv_parts import GnConvParts, linear_over_channels


@dataclass(frozen=True, eq=False)
class PositionPaths:
    """dF_c(x)_i / dx by the path that it takes, each (B, C, H, W).

    Attributes:
        values: with the gates held: mixing weights, mapped through the projections.
        gates: through the gates alone.
        gradient: all of it, by one backward pass; the two add up to it.
    """

    values: Tensor
    gates: Tensor
    gradient: Tensor


def position_paths(mixer: nn.Module, x: Tensor, query: tuple[int, int], channel: int) -> PositionPaths:
    """The paths by which a gⁿConv's output at a query depends on its input.

    `values` comes from `mixing_weights` and the projections' weights; `gates` from a backward pass in which v is held;
    `gradient` from one in which nothing is.

    Args:
        mixer: a gⁿConv, of ours or anybody's, with a depthwise or pooling f.
        x: (B, C, H, W), float32 or float64.
        query: (row, column).
        channel: of the output.

    Raises:
        ValueError: another mixer, or GF, whose norms mix channels; a query or channel that is not there.

    Example:
        >>> from horinsight.models.gnconv import GnConv
        >>> x = torch.randn(1, 8, 5, 5).double()
        >>> paths = position_paths(GnConv(8, 3, kernel_size=3).double(), x, (2, 2), 0)
        >>> bool(torch.allclose(paths.values + paths.gates, paths.gradient, atol=1e-12))
        True
    """
    parts = GnConvParts.of(mixer)
    proj_in = None if parts is None else linear_over_channels(parts.proj_in)
    proj_out = None if parts is None else linear_over_channels(parts.proj_out)
    known = isinstance(getattr(mixer, "dwconv", None), nn.Conv2d | nn.AvgPool2d)
    if parts is None or proj_in is None or proj_out is None or not known:
        raise ValueError(
            f"position_paths expects a gnConv with a depthwise convolution or pooling, got {type(mixer).__name__}."
        )
    weights = mixing_weights(mixer, x)
    (target,) = position_targets((channel, *query), 1, (weights.height, weights.width), x.shape[1])
    with evaluation(mixer), torch.inference_mode(False), torch.enable_grad():
        gradient = _gradient(mixer, x, target.row, target.col, channel)
        # v is the last of q's parts: held, only the gates are left
        last = slice(sum(parts.dims[:-1]), sum(parts.dims))
        with replaced(parts.dwconv, input=lambda q, _: torch.cat([q[:, : last.start], q[:, last].detach()], 1)):
            gates = _gradient(mixer, x, target.row, target.col, channel)
    h = weights.at(target.row, target.col)
    values = torch.einsum("c,bchw,ca->bahw", proj_out.weight[channel], h, proj_in.weight[-parts.dims[-1] :])
    return PositionPaths(values=values, gates=gates, gradient=gradient)


def _gradient(mixer: nn.Module, x: Tensor, row: int, col: int, channel: int) -> Tensor:
    x = x.detach().clone().requires_grad_()
    output = mixer(x)[:, channel, row, col].sum()
    (gradient,) = torch.autograd.grad(output, x, materialize_grads=True, allow_unused=True)
    return gradient
