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
conventions and no violations. The bound is about a K x K depthwise f; it does not apply to GF or pooling, nor to what
is shaped like a gnConv and costs something else: wider or grouped projections, other widths, further layers.
"""

from fractions import Fraction

import torch
from torch import Tensor, nn

from horinsight.capture import call_name, called_through, capture
from horinsight.complexity.closed_form import gnconv_macs
from horinsight.complexity.cost_results import GnConvBound, MacCount
from horinsight.complexity.counted import Fft, count_macs
from horinsight.mixers.blocks import named_blocks
from horinsight.models.depthwise_kinds import DepthwiseConv
from horinsight.models.gnconv import GnConv, gnconv_dims
from horinsight.models.gnconv_parts import GnConvParts


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
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    gnconvs = _gnconvs(model)
    with capture(gnconvs, keep=lambda _, call: call.input.shape) as inputs:
        count = count_macs(model, size, fft=fft)
    shapes: dict[str, torch.Size] = {}
    for path, found in inputs.items():
        names = [name for name in (call_name(path, n + 1) for n in range(len(found))) if name in count.by_call]
        shapes |= zip(names, found[len(found) - len(names) :], strict=True)  # the pass that was counted came last
    numbers = _block_numbers(model)
    if not numbers.keys() >= shapes.keys():  # a gnConv in which no positions meet is no block
        numbers = {name: index for index, name in enumerate(shapes, start=1)}
    return count, [
        _checked(numbers[name], name, gnconvs[name.partition("#")[0]], shapes[name], count)
        for name in sorted(shapes, key=numbers.__getitem__)
    ]


def _gnconvs(model: nn.Module) -> dict[str, nn.Module]:
    """The gnConvs of a network by their paths; none that lies inside another."""
    found: dict[str, nn.Module] = {}
    for path, module in model.named_modules():
        inside = any(outer == "" or path.startswith(f"{outer}.") for outer in found)
        if not inside and called_through(module) is None and GnConvParts.of(module) is not None:
            found[path] = module
    return found


def _block_numbers(model: nn.Module) -> dict[str, int]:
    """The numbers of a network's blocks by their names; none where it cannot be run by itself."""
    try:
        return {block.name: block.index for block in named_blocks(model)}
    except ValueError:
        return {}


def _checked(index: int, name: str, module: nn.Module, shape: torch.Size, count: MacCount) -> GnConvBound:
    """The bound for one call of a gnConv, on an input of this shape."""
    parts = GnConvParts.of(module)
    assert parts is not None
    dim, spent = _published_dim(parts), count.by_call[name]
    C, H, W = _map_of(shape, dim)
    macs = sum(spent[column] for column in ("convolution", "linear", "products", "fft"))
    scaling = spent["scaling"]
    if dim is not None and isinstance(parts.scale, Tensor):  # one a channel: counted as a product of features
        scaled = H * W * sum(parts.dims)
        macs, scaling = macs - scaled, scaling + scaled
    K, closed, bound = _kernel_size(parts), None, None
    if dim is not None and K is not None:
        closed = gnconv_macs(dim, parts.order, K, H, W)
        if macs == closed or isinstance(module, GnConv):  # another count: of something else than a gnConv
            bound = macs_bound(dim, K, H, W)
    return GnConvBound(
        index=index,
        name=name,
        order=parts.order,
        dim=C,
        kernel_size=K,
        height=H,
        width=W,
        macs=macs,
        with_scale_and_biases=macs + scaling + spent["biases"],
        closed_form=None if bound is None else closed,
        bound=None if bound is None else float(bound),
        ratio=None if bound is None else float(macs / bound),
        margin=None if bound is None else float(bound - macs),
        applicable=bound is not None,
        holds=None if bound is None else macs < bound and macs == closed,
        provenance=count.provenance,
    )


def _kernel_size(parts: GnConvParts) -> int | None:
    """K of a square kernel of a convolution, whatever else it is."""
    size = getattr(parts.dwconv, "kernel_size", None) if isinstance(parts.dwconv, nn.Conv2d) else None
    return size[0] if size is not None and size[0] == size[1] else None


def _published_dim(parts: GnConvParts) -> int | None:
    """C of a gnConv as Eq. 3.6 supposes it; None for anything else.

    It supposes a depthwise convolution, linear maps of which every output sees every channel, and steps that double
    their channels, from C / 2^{n-1} to C.
    """
    if parts.missing or not isinstance(parts.f, DepthwiseConv):
        return None
    grouped = any(getattr(layer, "groups", 1) > 1 for layer in (parts.proj_in, *parts.linears, parts.proj_out))
    assert parts.channel_maps is not None
    dim = parts.dims[-1]
    square = {len(parts.channel_maps[-1].weight), parts.channel_maps[0].weight.shape[1]} == {dim}
    published = dim % 2 ** (parts.order - 1) == 0 and list(parts.dims) == gnconv_dims(dim, parts.order)
    return dim if square and published and not grouped else None


def _map_of(shape: torch.Size, dim: int | None) -> tuple[int, int, int]:
    """(C, H, W) of a gnConv's input; (C, N, 1) of tokens (B, N, C)."""
    if len(shape) == 4 and dim in (None, shape[1]):
        return shape[1], shape[2], shape[3]
    return shape[-1], shape[1], (shape[2] if len(shape) == 4 else 1)
