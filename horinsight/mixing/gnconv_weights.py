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

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from horinsight.capture import Call
from horinsight.mixing.weights import (
    CircularWeights,
    DepthwiseWeights,
    FactoredWeights,
    InterleavedWeights,
    MixingWeights,
)
from horinsight.models.blocks import gnconv_linears
from horinsight.models.global_local_filter import resized_filter


def gnconv_watched(module: nn.Module, *, step: int | None = None) -> dict[str, nn.Module]:
    """The parts of a gnConv whose calls `gnconv_weights` reads, by name.

    Raises:
        ValueError: no such step, or channels that do not split.
    """
    _, k = _dims_and_step(module, step)
    linears = gnconv_linears(module) or []
    watched = {"proj_in": module.proj_in, "proj_out": module.proj_out}
    watched |= {f"g{at}": linear for at, linear in enumerate(linears, start=1) if at in (k, k + 1)}
    if _is_gf(module.dwconv):
        watched |= {name: getattr(module.dwconv, name) for name in ("pre_norm", "post_norm")}
    return watched  # type: ignore[return-value]


def gnconv_weights(module: nn.Module, calls: Mapping[str, Call], *, step: int | None = None) -> MixingWeights:
    """Mixing weights of one recursion step of a gnConv.

    Args:
        module: anything shaped like a gnConv, with or without `scale`.
        calls: the calls of `gnconv_watched(module)` in one forward pass.
        step: k, from 0; the last one, the paper's, when None.

    Returns:
        The weights, factored.

    Raises:
        ValueError: no such step, channels that do not split, or an f that is no depthwise convolution, pooling or GF.
    """
    dims, k = _dims_and_step(module, step)
    n = len(dims)
    p_0, *q = _wide(calls["proj_in"].output).split([dims[0], *dims], dim=1)
    g_k = p_0 if k == 0 else _wide(calls[f"g{k}"].output)
    target = _wide(calls["proj_out" if k == n - 1 else f"g{k + 1}"].input)  # p_{k+1}
    scale = getattr(module, "scale", 1.0)
    channels = slice(sum(dims[:k]), sum(dims[: k + 1]))
    f = module.dwconv
    if _is_gf(f):
        return _gf_weights(f, calls, g_k * scale, channels, target)
    if isinstance(f, nn.Conv2d):
        return depthwise_weights(f, q[k], g_k * scale, target, channels)
    if isinstance(f, nn.AvgPool2d):
        return _pooling_weights(f, q[k], g_k * scale, target)
    raise ValueError(
        f"Mixing weights need an f that is a depthwise convolution, a mean pooling or GF, got {type(f).__name__}."
    )


def _wide(x: Tensor) -> Tensor:
    """float32 at least: sums of products in half precision would not be worth reporting."""
    return x.detach().to(torch.promote_types(x.dtype, torch.float32))


def _is_gf(f: Any) -> bool:
    return all(hasattr(f, name) for name in ("dw", "complex_weight", "pre_norm", "post_norm"))


def _dims_and_step(module: nn.Module, step: int | None) -> tuple[list[int], int]:
    linears: Sequence[Any] = gnconv_linears(module) or []
    n = len(linears) + 1
    proj_in: Any = module.proj_in
    proj_out: Any = module.proj_out
    dims = [int((linears or [proj_out])[0].in_channels), *(int(linear.out_channels) for linear in linears)]
    total = int(proj_in.out_channels)
    if dims[0] + sum(dims) != total:
        raise ValueError(
            f"The channels of this gnConv do not split: its steps have {dims} channels, so proj_in should give "
            f"{dims[0]} + {sum(dims)} = {dims[0] + sum(dims)}, but it gives {total}."
        )
    k = n - 1 if step is None else step
    if not 0 <= k < n:
        raise ValueError(f"step expects a recursion step from 0 to {n - 1} for a gnConv of order {n}, got {step}.")
    return dims, k


def depthwise_weights(
    conv: nn.Conv2d, values: Tensor, gate: Tensor, mixed: Tensor, channels: slice = slice(None)
) -> DepthwiseWeights:
    """Weights of gate ⊙ conv(values) for some channels of a depthwise convolution.

    Args:
        conv: depthwise, stride 1, padded with zeros to keep the map.
        values: v (B, C, H, W), the chosen channels.
        gate: (B, C, H, W) for the same channels, with the scale.
        mixed: gate ⊙ conv(values), as the forward pass computed it.
        channels: which channels of `conv`.

    Raises:
        ValueError: another kind of convolution.
    """
    (rows, columns), dilation = conv.kernel_size, conv.dilation
    same = tuple(d * (size // 2) for d, size in zip(dilation, (rows, columns), strict=True))
    fits = conv.padding == "same" or conv.padding == same
    if conv.groups != conv.in_channels or conv.out_channels != conv.in_channels or conv.stride != (1, 1) or not fits:
        raise ValueError(f"Mixing weights need a depthwise convolution that keeps the map, got {conv}.")
    if conv.padding_mode != "zeros" or rows % 2 == 0 or columns % 2 == 0:
        raise ValueError(f"Mixing weights need an odd kernel and zeros around the map, got {conv}.")
    gate = gate.expand_as(values)
    bias = torch.zeros_like(gate) if conv.bias is None else gate * _wide(conv.bias)[channels, None, None]
    return DepthwiseWeights(
        height=values.shape[2],
        width=values.shape[3],
        values=values,
        offset=bias,
        mixed=mixed,
        gate=gate,
        kernel=_wide(conv.weight)[channels].flatten(1),
        kernel_size=(rows, columns),
        dilation=(dilation[0], dilation[1]),
    )


def _pooling_weights(pool: nn.AvgPool2d, values: Tensor, gate: Tensor, mixed: Tensor) -> DepthwiseWeights:
    def pair(value: Any) -> tuple[int, int]:
        return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))

    size = pair(pool.kernel_size)
    if (
        pair(pool.stride) != (1, 1)
        or pair(pool.padding) != (size[0] // 2, size[1] // 2)
        or 0 in (size[0] % 2, size[1] % 2)
    ):
        raise ValueError(f"Mixing weights need a pooling that keeps the map, with an odd window, got {pool}.")
    ones = values.new_ones(1, 1, *values.shape[2:])
    share = pool(ones) / torch.nn.functional.avg_pool2d(ones, size, 1, pair(pool.padding), divisor_override=1)
    C = values.shape[1]
    return DepthwiseWeights(
        height=values.shape[2],
        width=values.shape[3],
        values=values,
        offset=torch.zeros_like(values),
        mixed=mixed,
        gate=gate * share,
        kernel=values.new_ones(C, size[0] * size[1]),
        kernel_size=size,
    )


def _gf_weights(f: Any, calls: Mapping[str, Call], gate: Tensor, channels: slice, mixed: Tensor) -> InterleavedWeights:
    z = _wide(calls["pre_norm"].output)  # (B, C, H, W) over all steps
    y = _wide(calls["post_norm"].input)
    C, H, W = z.shape[1:]
    sigma = (y.var(1, correction=0, keepdim=True) + f.post_norm.eps).sqrt()
    gamma, beta = (_wide(parameter)[channels, None, None] for parameter in (f.post_norm.weight, f.post_norm.bias))
    offset = gate * (beta - gamma * y.mean(1, keepdim=True) / sigma)
    gate = gate * gamma / sigma

    chosen = torch.arange(C, device=z.device)[channels]
    pair = chosen // 2  # output channel 2m comes from input channel m, 2m + 1 from C/2 + m
    values = z[:, pair + chosen % 2 * (C // 2)]
    halves = (chosen % 2 == 0).nonzero().flatten(), (chosen % 2 == 1).nonzero().flatten()
    W_c = torch.view_as_complex(resized_filter(_wide(f.complex_weight), (H, W // 2 + 1)).contiguous())
    kernels = _wide(f.dw.weight).flatten(1), torch.fft.irfft2(W_c, s=(H, W), norm="backward").flatten(1)

    def part(half: int) -> FactoredWeights:
        here = halves[half]
        shared: dict[str, Any] = {"height": H, "width": W, "kernel": kernels[half][pair[here]]}
        whole = {"values": values, "offset": offset, "gate": gate, "mixed": mixed}
        shared |= {name: tensor[:, here] for name, tensor in whole.items()}
        return CircularWeights(**shared) if half else DepthwiseWeights(kernel_size=(3, 3), **shared)

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
