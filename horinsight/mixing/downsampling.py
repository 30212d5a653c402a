"""How maps of different size lie on each other: which fine cells each coarse cell takes in.

Between two blocks of a network this is *found*: the network runs once with a graph between them, and the cells that a
coarse cell responds to are its own. So windows that overlap, maps that are padded (25 to 13) and rows that a stride
leaves out (25 to 12) count as what they are. Where there is no network to ask, whole strides are tried.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from horinsight.capture import evaluation, image_size_of, replaced, run
from horinsight.mixers.blocks import MixingBlock, chosen_blocks
from horinsight.mixers.seen_calls import SeenCall
from horinsight.operators.block_operators import measured_calls
from horinsight.operators.position_order import PositionOrder

Windows = tuple[tuple[int, ...], ...]


def stride_windows(fine: int, coarse: int) -> Windows | None:
    """The fine cells of each coarse cell along one axis, where a whole stride leads from one size to the other.

    Strides of two and its powers, as networks are made of, are tried first. What a stride leaves over at the end is
    left out (5 to 2) or has a shorter window (5 to 3).

    Returns:
        One tuple of indices a coarse cell; None where no whole stride fits.

    Example:
        >>> stride_windows(5, 2), stride_windows(5, 3)
        (((0, 1), (2, 3)), ((0, 1), (2, 3), (4,)))
        >>> stride_windows(7, 5) is None
        True
    """
    for stride in (1, 2, 4, 8, 16, 32, fine // coarse, -(-fine // coarse)):
        if stride and coarse in (fine // stride, -(-fine // stride)):
            starts = range(0, coarse * stride, stride)
            return tuple(tuple(range(start, min(start + stride, fine))) for start in starts)
    return None


def even_windows(fine: int, coarse: int) -> Windows:
    """The fine cells that each of `coarse` equal parts of the axis touches, as adaptive pooling has them.

    Example:
        >>> even_windows(7, 5)
        ((0, 1), (1, 2), (2, 3, 4), (4, 5), (5, 6))
    """
    return tuple(tuple(range(o * fine // coarse, -(-(o + 1) * fine // coarse))) for o in range(coarse))


def downsampling(
    fine: tuple[int, int], coarse: tuple[int, int], *, like: Tensor, windows: tuple[Windows, Windows] | None = None
) -> Tensor:
    """(1, N_coarse, N_fine): each coarse cell takes its fine cells in equal parts; rows sum to 1.

    Args:
        fine: (rows, columns) of the finer map.
        coarse: of the coarser one.
        like: a tensor of the wanted dtype and device.
        windows: the fine rows of each coarse row, and columns likewise; by `stride_windows` when None.

    Example:
        >>> downsampling((2, 2), (1, 1), like=torch.zeros(1))
        tensor([[[0.2500, 0.2500, 0.2500, 0.2500]]])
    """
    if windows is None:
        rows, columns = (stride_windows(f, c) or even_windows(f, c) for f, c in zip(fine, coarse, strict=True))
    else:
        rows, columns = windows
    shares = []
    for axis, extent in zip((rows, columns), fine, strict=True):
        share = torch.zeros(len(axis), extent, dtype=like.dtype, device=like.device)
        for cell, taken in enumerate(axis):
            share[cell, list(taken)] = 1 / len(taken)
        shares.append(share)
    return torch.kron(*shares)[None]


def found_windows(
    model: nn.Module, image: Tensor, blocks: Sequence[MixingBlock], measured: Mapping[MixingBlock, SeenCall]
) -> dict[str, tuple[Windows, Windows]]:
    """Which rows and columns of the map before it each cell of a block's map responds to, where the two differ in size.

    Args:
        model: the network; lent in eval mode.
        image: (1, 3, H, W).
        blocks: consecutive blocks of it.
        measured: the call that stands for each block, its residual block's say.

    Returns:
        Name of a block → the rows of the map that the call before it puts out for each row of the map that its own call
        is given, and columns likewise. Blocks whose map has the size of the one before are left out.
    """
    found: dict[str, tuple[Windows, Windows]] = {}
    with ExitStack() as stack:
        stack.enter_context(evaluation(model))
        stack.enter_context(torch.enable_grad())
        for before, after in pairwise(blocks):
            lies, wanted = measured[before].output, measured[after].input
            if lies is not None and wanted is not None and lies.size and wanted.size and lies.size != wanted.size:
                stack.enter_context(_watched(model, measured[before], measured[after], found, after.name))
        run(model, image.detach())
    return found


def windows_between(
    model: nn.Module,
    images: Tensor,
    chosen: Sequence[MixingBlock],
    measured: Mapping[MixingBlock, SeenCall] | None = None,
) -> dict[str, list[tuple[Windows, Windows]]]:
    """Chosen block → the windows of each change of size since the chosen block before, skipped blocks included.

    Args:
        model: the network; lent in eval mode.
        images: (B, 3, H, W), of which one is run.
        chosen: some blocks of it, in its order.
        measured: the call that stands for each of them; its residual block's, or its own where there is none, when
            None.
    """
    first, last = chosen[0].index, chosen[-1].index
    listed = chosen_blocks(model, image_size=image_size_of(images))
    blocks = [block for block in listed if first <= block.index <= last]
    calls = measured_calls(blocks, "block", or_mixer=True)
    if measured is not None:
        named = {block.name: measured[block] for block in chosen}
        calls = {block: named.get(block.name, call) for block, call in calls.items()}
    found = found_windows(model, images[:1], blocks, calls)
    return {
        block.name: [found[b.name] for b in blocks if b.name in found and before.index < b.index <= block.index]
        for before, block in pairwise(chosen)
    }


def steps_down(
    size: tuple[int, int], map_size: tuple[int, int], windows: Sequence[tuple[Windows, Windows]], *, like: Tensor
) -> list[Tensor]:
    """The transitions (1, N_coarse, N_fine) from one map to a smaller one; by the sizes alone where windows do not fit.

    Args:
        size: of the map that is left.
        map_size: of the one that is come to.
        windows: of the changes of size on the way, see `windows_between`.
        like: a tensor of the wanted dtype and device.
    """
    steps, fine = [], size
    for rows, columns in windows:
        coarse = len(rows), len(columns)
        steps.append(downsampling(fine, coarse, like=like, windows=(rows, columns)))
        fine = coarse
    return steps if fine == map_size else [downsampling(size, map_size, like=like)]


@contextmanager
def _watched(
    model: nn.Module, before: SeenCall, after: SeenCall, found: dict[str, tuple[Windows, Windows]], name: str
) -> Iterator[None]:
    """Starts a graph at the output of one call and reads it where another begins."""
    assert before.output is not None
    assert after.input is not None
    orders = PositionOrder.of(before.output), PositionOrder.of(after.input)
    leaves: list[Tensor] = []

    def begin(output: Any, call: int) -> Any:
        if call != before.number or not isinstance(output, Tensor):
            return output
        leaves[:] = [output.detach().requires_grad_()]
        return leaves[0].clone()  # what follows may write into it

    def end(entry: Tensor, call: int) -> Tensor:
        if call != after.number or not leaves:
            return entry
        leaf = leaves.pop()
        if entry.requires_grad:
            rows, columns = (_windows_along(leaf, entry, orders, axis) for axis in range(2))
            if all(rows) and all(columns):
                found[name] = rows, columns
        return entry.detach()

    with (
        replaced(model.get_submodule(before.path), output=begin),
        replaced(model.get_submodule(after.path), input=end),
    ):
        yield


def _windows_along(leaf: Tensor, entry: Tensor, orders: tuple[PositionOrder, PositionOrder], axis: int) -> Windows:
    """The rows of the map of `leaf` that each row of that of `entry`, mid of its columns, responds to; axis 1: columns.

    A gradient outside a window is 0.0 bit for bit: no path leads there.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    weights = torch.randn(entry.shape, generator=generator, device="cpu").to(entry)
    cells = orders[1].tokens(weights * entry)[:, orders[1].num_held :].sum((0, 2)).unflatten(0, orders[1].size)
    by_cell = cells.select(1 - axis, orders[1].size[1 - axis] // 2)
    windows = []
    for scalar in by_cell:
        (gradient,) = torch.autograd.grad(scalar, leaf, retain_graph=True, allow_unused=True, materialize_grads=True)
        answered = orders[0].tokens(gradient)[:, orders[0].num_held :].abs().sum((0, 2)).unflatten(0, orders[0].size)
        windows.append(tuple(answered.sum(1 - axis).nonzero().flatten().tolist()))
    return tuple(windows)
