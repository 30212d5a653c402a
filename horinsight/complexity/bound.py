"""Eq. 3.6: the cost of a gⁿConv stays below HWC (2K² + 11/3 C + 2), whatever its order.

With C_k = C / 2^{n-1-k} the terms of `gnconv_terms` sum up as geometric series:

    Σ_k C_k           = C (2 - 2^{1-n})                      k = 0..n-1
    Σ_k C_{k-1} C_k   = C² Σ_k 2 · 4^{-(n-k)} = (2/3) C² (1 - 4^{1-n})        k = 1..n-1
    φ_in + φ_out      = HWC · 3C
    f                 = HWC · K² (2 - 2^{1-n})
    gates             = HWC · (2 - 2^{1-n})
    g_k               = HWC · (2/3) C (1 - 4^{1-n})

so that

    bound - cost = HWC · [(2/3) C 4^{1-n} + K² 2^{1-n} + 2^{1-n}] > 0    for every n ≥ 1: strict, and tight as n grows.

Counted are multiply-accumulates, with the gating products and without biases and scale: counting those too, stage 4 of
HorNet-T comes to 1.002 of the bound, and counting two operations per multiply-accumulate to 1.99 of it. These are other
conventions and no violations. The bound is about a K x K depthwise f; it does not apply to GF or pooling.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import nn

from horinsight.capture import capture
from horinsight.complexity.closed_form import gnconv_macs
from horinsight.complexity.counted import Fft, MacCount, count_macs
from horinsight.models.blocks import MixingBlock, gnconv_linears, named_blocks
from horinsight.models.gnconv import gnconv_dims
from horinsight.results import Provenance, Result


def macs_bound(dim: int, kernel_size: int, height: int, width: int) -> Fraction:
    """The right side of Eq. 3.6, HWC (2K² + 11/3 C + 2), in multiply-accumulates.

    Args:
        dim: C.
        kernel_size: K.
        height: H.
        width: W.

    Raises:
        ValueError: a size below 1.

    Example:
        >>> macs_bound(64, 7, 56, 56)
        Fraction(201506816, 3)
    """
    if min(dim, kernel_size, height, width) < 1:
        raise ValueError(f"macs_bound expects sizes of at least 1, got {(dim, kernel_size, height, width)}.")
    return height * width * dim * (2 * kernel_size**2 + Fraction(11, 3) * dim + 2)


BOUND_CONVENTION = (
    "multiply-accumulates of convolutions, linear layers and gating products, and of the FFTs of GF; without scale and "
    "biases"
)


@dataclass(frozen=True, eq=False, repr=False)
class GnConvBound(Result):
    """Eq. 3.6 for one gⁿConv of a model.

    Attributes:
        index: of the block, from 1.
        name: path of the gnConv.
        order: n.
        dim: C.
        kernel_size: K; None where f is not a depthwise convolution with a square kernel.
        height: H of its map.
        width: W.
        macs: counted in a forward pass: convolutions, linear layers and gating products, and the FFTs of GF.
        with_scale_and_biases: counted with these two.
        closed_form: `gnconv_macs`; None where the bound does not apply.
        bound: `macs_bound`; None likewise.
        ratio: macs / bound; None likewise.
        margin: bound - macs; None likewise.
        applicable: whether Eq. 3.6 is about this gnConv.
        holds: macs < bound and macs = closed form; None where not applicable.
        convention: what one unit of `macs` is.
        provenance: that of the count.
    """

    index: int
    name: str
    order: int
    dim: int
    kernel_size: int | None
    height: int
    width: int
    macs: int
    with_scale_and_biases: int
    closed_form: int | None
    bound: float | None
    ratio: float | None
    margin: float | None
    applicable: bool
    holds: bool | None
    convention: str = BOUND_CONVENTION
    provenance: Provenance | None = None


def bound_row(bound: GnConvBound) -> dict[str, Any]:
    """A bound as a row of a report, which says the convention and the provenance once."""
    return {name: value for name, value in vars(bound).items() if name not in ("convention", "provenance")}


def gnconv_bounds(model: nn.Module, image_size: int | tuple[int, int]) -> list[GnConvBound]:
    """Eq. 3.6 for every gⁿConv of a model, counted against closed form and bound.

    Args:
        model: any network; those without gnConv have an empty list.
        image_size: pixels, one number or (H, W).

    Raises:
        ValueError: the model does not take images of this size.

    Example:
        >>> from horinsight.models.registry import create_model
        >>> [(check.order, check.holds) for check in gnconv_bounds(create_model("hornet_test"), 96)]
        [(2, True), (3, True), (4, True), (5, True)]
    """
    return count_and_bounds(model, image_size)[1]


def count_and_bounds(
    model: nn.Module, image_size: int | tuple[int, int], *, fft: Fft = "published"
) -> tuple[MacCount, list[GnConvBound]]:
    """`count_macs` and `gnconv_bounds`, from one pass."""
    gnconvs = [block for block in named_blocks(model) if block.mixer == "gnconv"]
    with capture(
        {block.name: block.module for block in gnconvs}, keep=lambda _, call: tuple(call.input.shape[2:])
    ) as maps:
        count = count_macs(model, image_size, fft=fft)
    return count, [_checked(block, maps[block.name][0], count) for block in gnconvs if maps[block.name]]


def _checked(block: MixingBlock, map_size: tuple[int, int], count: MacCount) -> GnConvBound:
    module: Any = block.module
    spent, dim = count.by_module[block.name], int(module.proj_in.in_channels)
    H, W = map_size
    f = module.dwconv
    K = f.kernel_size[0] if isinstance(f, nn.Conv2d) and f.kernel_size[0] == f.kernel_size[1] else None
    applicable = K is not None and f.groups == f.in_channels and _published_widths(module, dim, block.order)
    macs = sum(spent[column] for column in ("convolution", "linear", "products", "fft"))
    closed = gnconv_macs(dim, block.order, K, H, W) if applicable and K is not None else None
    bound = macs_bound(dim, K, H, W) if applicable and K is not None else None
    return GnConvBound(
        index=block.index,
        name=block.name,
        order=block.order,
        dim=dim,
        kernel_size=K,
        height=H,
        width=W,
        macs=macs,
        with_scale_and_biases=macs + spent["scaling"] + spent["biases"],
        closed_form=closed,
        bound=None if bound is None else float(bound),
        ratio=None if bound is None else float(macs / bound),
        margin=None if bound is None else float(bound - macs),
        applicable=applicable,
        holds=None if bound is None else macs < bound and macs == closed,
        provenance=count.provenance,
    )


def _published_widths(module: Any, dim: int, order: int) -> bool:
    """Whether the steps of a gnConv double their channels, from C / 2^{n-1} to C, as Eq. 3.6 supposes."""
    widths = [layer.in_channels for layer in (*(gnconv_linears(module) or ()), module.proj_out)]
    return dim % 2 ** (order - 1) == 0 and widths == gnconv_dims(dim, order)
