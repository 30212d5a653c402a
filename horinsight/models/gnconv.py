r"""The recursive gated convolution gⁿConv (HorNet §3.1, Eq. 3.1-3.5) and the table of symbols.

| paper | here | what it is |
|---|---|---|
| n | `order` | number of recursion steps |
| C, C_k | `dim`, `dims[k]` | channels; C_k = C / 2^(n-1-k), Eq. 3.5 |
| φ_in, φ_out | `proj_in`, `proj_out` | linear maps over channels (1x1 convolutions) |
| p_0, q_k | the parts of `proj_in(x)` | the first operand and the features that f_k convolves |
| f_k | slice k of `dwconv` times `scale` | depthwise operator, run once over all q_k |
| g_k | `pws[k - 1]` (identity for k = 0) | linear map C_{k-1} → C_k, Eq. 3.4 |
| 1/α | `scale` | 1/3 in every released model; not stored in a checkpoint |
| ⊙ | `gate` (k = 0), `gates[k - 1]` | product of features, a module for what hooks modules |
| p_n | input of `proj_out` | the paper's text calls it q_n just before φ_out |
| γ | `gamma1`, `gamma2` of a block | layer scale |
"""

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from horinsight.models.elementwise import Product, Scaled
from horinsight.models.global_local_filter import GF_DEFAULT_SIZE, GlobalLocalFilter

DepthwiseKind = Literal["conv", "pool", "gf"]
Depthwise = DepthwiseKind | Callable[[int], nn.Module]


def channel_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What a 1x1 convolution gives, as a matrix product over the channels of (B, C, H, W).

    On channels-last memory, which the channel LayerNorm before it leaves behind, the product needs no copy and is
    faster than the convolution on a CPU; on a GPU it is not rounded to TF32, as torch rounds convolutions.
    """
    return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)


def pointwise_conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 1x1 convolution that computes a `channel_product`.

    A plain `nn.Conv2d` in all else, no subclass: what looks layers up by their exact class (captum's LRP) finds it.

    Example:
        >>> import torch
        >>> pointwise_conv(3, 5)(torch.zeros(1, 3, 4, 4)).shape
        torch.Size([1, 5, 4, 4])
    """
    layer = nn.Conv2d(in_channels, out_channels, kernel_size=1)
    layer.__dict__["_conv_forward"] = channel_product  # what its forward calls; the same numbers without it
    return layer


def gnconv_dims(dim: int, order: int) -> list[int]:
    """Channels C_k of each recursion step: C_k = C / 2^(n-1-k), k = 0..n-1 (Eq. 3.5).

    Args:
        dim: channels C.
        order: number of steps n.

    Raises:
        ValueError: 2^(n-1) does not divide C; only then does p_0 with all q_k fill the 2C channels of φ_in.

    Example:
        >>> gnconv_dims(384, 5)
        [24, 48, 96, 192, 384]
    """
    if order < 1 or dim < 1:
        raise ValueError(f"gnConv expects order >= 1 and dim >= 1, got order={order}, dim={dim}.")
    if dim % 2 ** (order - 1):
        divisor = 2 ** (order - 1)
        below = dim // divisor * divisor
        nearest = " or ".join(str(d) for d in (below, below + divisor) if d)
        raise ValueError(
            f"gnConv of order {order} expects a dim divisible by 2^{order - 1} = {divisor}, so that its steps fill the "
            f"2*dim channels of proj_in, got dim={dim}: use dim={nearest}, or a lower order."
        )
    return [dim // 2 ** (order - 1 - k) for k in range(order)]


def depthwise_operator(
    dim: int, kind: Depthwise, *, kernel_size: int | None = None, gf_size: tuple[int, int] | None = None
) -> nn.Module:
    """The operator f over `dim` channels that a gⁿConv runs once on all of q.

    Args:
        dim: number of channels.
        kind: "conv" (K x K depthwise convolution with bias), "pool" (K x K mean over the cells inside the map,
            stride 1, Table 6c), "gf" (`GlobalLocalFilter`), or a function from `dim` to a module that keeps the shape.
        kernel_size: K, odd; 7 for "conv" and 3 for "pool" when not given.
        gf_size: (rows, columns) of the GF filter; (14, 8) when not given.

    Raises:
        ValueError: an unknown kind, an even kernel, or an option that the kind does not have.

    Example:
        >>> depthwise_operator(8, "pool", kernel_size=3)
        AvgPool2d(kernel_size=3, stride=1, padding=1)
    """
    if kernel_size is not None and kind not in ("conv", "pool"):
        raise ValueError(f'kernel_size applies to depthwise "conv" and "pool" only, got {kernel_size} with {kind!r}.')
    if gf_size is not None and kind != "gf":
        raise ValueError(f'gf_size applies to depthwise "gf" only, got {gf_size} with {kind!r}.')
    if callable(kind):
        return kind(dim)
    if kind == "gf":
        h, w = gf_size or GF_DEFAULT_SIZE
        return GlobalLocalFilter(dim, h=h, w=w)
    if kind not in ("conv", "pool"):
        raise ValueError(f'depthwise expects "conv", "pool", "gf" or a function of dim, got {kind!r}.')
    if kernel_size is None:
        kernel_size = 7 if kind == "conv" else 3
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size expects an odd number, so that the map keeps its size, got {kernel_size}.")
    if kind == "pool":
        return nn.AvgPool2d(kernel_size, stride=1, padding=kernel_size // 2, count_include_pad=False)
    return nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)


class GnConv(nn.Module):
    """Recursive gated convolution of order n: p_{k+1} = f_k(q_k) ⊙ g_k(p_k) / α, y = φ_out(p_n) (Eq. 3.2-3.5).

    Works on maps (B, C, H, W) of any size. Attribute and parameter names are those of the published implementation.

    Args:
        dim: channels C of the output, divisible by 2^(order - 1).
        order: n, the number of recursion steps, at least 1 (n = 1 is the paper's gConv, Eq. 3.1).
        in_channels: channels of the input, as many as `dim` when None; φ_in takes them to 2C in any case.
        depthwise: f, see `depthwise_operator`.
        kernel_size: K of a "conv" or "pool" f.
        gf_size: filter of a "gf" f.
        scale: 1/α; 1 for none, as in HorFPN.

    Raises:
        ValueError: 2^(order - 1) does not divide `dim`, no input channel, or f does not exist as asked for.

    Example:
        >>> import torch
        >>> GnConv(16, order=3)(torch.zeros(1, 16, 14, 10)).shape
        torch.Size([1, 16, 14, 10])

    Source: Rao et al. 2022 (arXiv 2207.14284), §3.1 and Figure 2.
    """

    def __init__(
        self,
        dim: int,
        order: int = 5,
        *,
        in_channels: int | None = None,
        depthwise: Depthwise = "conv",
        kernel_size: int | None = None,
        gf_size: tuple[int, int] | None = None,
        scale: float = 1 / 3,
    ) -> None:
        super().__init__()
        in_channels = dim if in_channels is None else in_channels
        if in_channels < 1:
            raise ValueError(f"gnConv expects at least one input channel, got in_channels={in_channels}.")
        self.order = order
        self.dims = gnconv_dims(dim, order)
        self.scale = scale
        if depthwise == "gf" and sum(self.dims) % 2:
            raise ValueError(
                f"gnConv of order {order} with GF expects a dim divisible by 2^{order} = {2**order}, because GF "
                f"halves the channels of all its steps together, got dim={dim}."
            )
        self.proj_in = pointwise_conv(in_channels, 2 * dim)
        self.dwconv = depthwise_operator(sum(self.dims), depthwise, kernel_size=kernel_size, gf_size=gf_size)
        self.proj_out = pointwise_conv(dim, dim)
        self.pws = nn.ModuleList(pointwise_conv(self.dims[k], self.dims[k + 1]) for k in range(order - 1))
        self.scaled = Scaled()
        self.gate = Product()  # ⊙ of the first step
        self.gates = nn.ModuleList(Product() for _ in range(order - 1))  # and of those after each g_k

    def forward(self, x: Tensor) -> Tensor:
        p, q = self.proj_in(x).split([self.dims[0], sum(self.dims)], dim=1)  # Eq. 3.2
        # a strided slice would make the convolution 2.5x slower; permuted, because vmap knows no memory formats
        q = q.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        f = self.scaled(self.dwconv(q), factor=self.scale).split(self.dims, dim=1)  # f_k(q_k) / alpha
        p = self.gate(p, f[0])  # p_1
        k = 1
        for g_k, gate_k in zip(self.pws, self.gates):  # noqa: B905 (TorchScript knows no strict)
            p = gate_k(g_k(p), f[k])  # p_{k+1}, Eq. 3.3
            k += 1
        out: Tensor = self.proj_out(p)
        return out

    def extra_repr(self) -> str:
        """Order, widths and scale, for `print(model)`."""
        return f"order={self.order}, dims={self.dims}, scale={self.scale:.4g}"
