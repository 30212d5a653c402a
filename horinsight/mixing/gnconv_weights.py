r"""h_ij^c of gⁿConv (HorNet Eq. 3.8), exactly, from what a forward pass computes anyway.

p_{k+1}^(i,c) = Σ_j h_ij^c v^(j,c) + b_i^c for recursion step k; the paper's is the last one, k = n-1.

- Depthwise f: h_ij^c = scale · w_{k, i→j}^c · g_k^(i,c), zero outside the map; b_i^c = scale · bias^c · g_k^(i,c);
  v = q_k.
- Mean pooling: the same with w = 1 / (number of cells averaged at i).
- GF: v = pre_norm(q) on the source channel of c. With the statistics of both norms frozen at x,
  h_ij^c = scale · γ_c/σ_i · kernel^c_{i→j} · g_k^(i,c), kernel the 3x3 or the circular global one; what the centring of
  post_norm takes off (it mixes channels) and β go to b.

Neither the output projection nor the layer scale is included.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from horinsight.capture import Call
from horinsight.mixing.factored_weights import CircularWeights, DepthwiseWeights, FactoredWeights, InterleavedWeights
from horinsight.mixing.weights import MixingWeights
from horinsight.models.depthwise_kinds import DepthwiseConv, GlobalLocal, MeanPool
from horinsight.models.gnconv_parts import GnConvParts


def gnconv_watched(parts: GnConvParts, *, step: int | None = None) -> dict[str, nn.Module]:
    """The modules of a gnConv whose calls `gnconv_weights` reads, by name.

    Raises:
        ValueError: no such step, or channels that do not split.
    """
    k = _step(parts, step)
    watched = {"proj_in": parts.proj_in, "proj_out": parts.proj_out}
    watched |= {f"g{at}": linear for at, linear in enumerate(parts.linears, start=1) if at in (k, k + 1)}
    if isinstance(parts.f, GlobalLocal):
        watched |= {name: getattr(parts.dwconv, name) for name in ("pre_norm", "post_norm")}
    return watched


def gnconv_unread(parts: GnConvParts, *, step: int | None = None) -> frozenset[str]:
    """The modules of `gnconv_watched` of which `gnconv_weights` reads the results alone, not what enters them."""
    k = _step(parts, step)
    entered = "proj_out" if k == len(parts.dims) - 1 else f"g{k + 1}"
    return frozenset(gnconv_watched(parts, step=step)) - {entered, "post_norm"}


def gnconv_weights(parts: GnConvParts, calls: Mapping[str, Call], *, step: int | None = None) -> MixingWeights:
    """Mixing weights of one recursion step of a gnConv.

    φ_in and g_k may be anything: their results are read, not computed.

    Args:
        parts: of anything shaped like a gnConv, with or without `scale`.
        calls: the calls of `gnconv_watched(parts)` in one forward pass.
        step: k, from 0; the last one, the paper's, when None.

    Returns:
        The weights, factored.

    Raises:
        ValueError: no such step, channels that do not split, a scale that is neither one number nor one a channel, or
            an f of no known kind.
    """
    dims, k, f = parts.dims, _step(parts, step), parts.f
    if f is None:
        raise ValueError(
            "Mixing weights need an f that is a depthwise convolution with an odd kernel, a mean pooling with an odd "
            f"window, each with zeros around the map so that it keeps its size, or GF, got {parts.dwconv}."
        )
    p_0, *q = _map(parts.proj_in, calls["proj_in"].output).split([dims[0], *dims], dim=1)
    g_k = p_0 if k == 0 else _map(parts.linears[k - 1], calls[f"g{k}"].output)
    after = parts.proj_out if k == len(dims) - 1 else parts.linears[k]
    target = _map(after, calls["proj_out" if after is parts.proj_out else f"g{k + 1}"].input)  # p_{k+1}
    channels = slice(sum(dims[:k]), sum(dims[: k + 1]))
    scale = _wide(parts.scale)[channels, None, None] if isinstance(parts.scale, Tensor) else parts.scale
    if isinstance(f, GlobalLocal):
        return _gf_weights(f, calls, g_k * scale, channels, target)
    if isinstance(f, MeanPool):
        return _pooling_weights(f, q[k], g_k * scale, target)
    return depthwise_weights(f, q[k], g_k * scale, target, channels)


def _wide(x: Tensor) -> Tensor:
    """float32 at least: sums of products in half precision would not be worth reporting."""
    return x.detach().to(torch.promote_types(x.dtype, torch.float32))


def _map(layer: nn.Module, features: Tensor) -> Tensor:
    """What a layer takes or gives as (B, C, H, W): channels are last for a linear layer."""
    if features.ndim != 4:
        raise ValueError(
            f"Mixing weights need the parts of a gnConv to work on maps, got features of shape {tuple(features.shape)} "
            f"at {layer}."
        )
    return _wide(features.movedim(-1, 1) if isinstance(layer, nn.Linear) else features)


def _step(parts: GnConvParts, step: int | None) -> int:
    n = len(parts.dims)
    k = n - 1 if step is None else step
    if not 0 <= k < n:
        raise ValueError(f"step expects a recursion step from 0 to {n - 1} for a gnConv of order {n}, got {step}.")
    return k


def depthwise_weights(
    conv: DepthwiseConv, values: Tensor, gate: Tensor, mixed: Tensor, channels: slice = slice(None)
) -> DepthwiseWeights:
    """Weights of gate ⊙ conv(values) for some channels of a depthwise convolution.

    Args:
        conv: its numbers.
        values: v (B, C, H, W), the chosen channels.
        gate: (B, C, H, W) for the same channels, with the scale.
        mixed: gate ⊙ conv(values), as the forward pass computed it.
        channels: which channels of `conv`.
    """
    gate = gate.expand_as(values)
    bias = torch.zeros_like(gate) if conv.bias is None else gate * _wide(conv.bias)[channels, None, None]
    return DepthwiseWeights(
        height=values.shape[2],
        width=values.shape[3],
        values=values,
        offset=bias,
        mixed=mixed,
        gate=gate,
        kernel=_wide(conv.taps)[channels],
        kernel_size=conv.kernel_size,
        dilation=conv.dilation,
    )


def _pooling_weights(pool: MeanPool, values: Tensor, gate: Tensor, mixed: Tensor) -> DepthwiseWeights:
    C, H, W = values.shape[1:]
    return DepthwiseWeights(
        height=H,
        width=W,
        values=values,
        offset=torch.zeros_like(values),
        mixed=mixed,
        gate=gate * pool.share(H, W).to(gate),
        kernel=pool.taps.to(values).expand(C, -1),
        kernel_size=pool.kernel_size,
    )


def _gf_weights(
    f: GlobalLocal, calls: Mapping[str, Call], gate: Tensor, channels: slice, mixed: Tensor
) -> InterleavedWeights:
    z = _wide(calls["pre_norm"].output)  # (B, C, H, W) over all steps
    y = _wide(calls["post_norm"].input)
    C, H, W = z.shape[1:]
    sigma = (y.var(1, correction=0, keepdim=True) + f.post_norm.eps).sqrt()
    gamma, beta = (_wide(parameter)[channels, None, None] for parameter in (f.post_norm.weight, f.post_norm.bias))
    offset = gate * (beta - gamma * y.mean(1, keepdim=True) / sigma)
    gate = gate * gamma / sigma

    chosen = torch.arange(C, device=z.device)[channels]
    pair = chosen // 2
    values = z[:, f.source(chosen)]
    halves = (chosen % 2 == 0).nonzero().flatten(), (chosen % 2 == 1).nonzero().flatten()
    wide = f.to(z.dtype)
    kernels = wide.local.taps, wide.circular_kernel(H, W)

    def part(half: int) -> FactoredWeights:
        here = halves[half]
        shared: dict[str, Any] = {"height": H, "width": W, "kernel": kernels[half][pair[here]]}
        whole = {"values": values, "offset": offset, "gate": gate, "mixed": mixed}
        shared |= {name: tensor[:, here] for name, tensor in whole.items()}
        if half:
            return CircularWeights(**shared)
        return DepthwiseWeights(kernel_size=f.local.kernel_size, dilation=f.local.dilation, **shared)

    parts = tuple(part(half) for half in range(2) if len(halves[half]))
    return InterleavedWeights(
        height=H,
        width=W,
        values=values,
        offset=offset,
        mixed=mixed,
        parts=parts,
        channels=tuple(here for here in halves if len(here)),
    )
