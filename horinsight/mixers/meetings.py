"""What becomes of labels where values meet: along an axis that is summed over, between two tensors, in a product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from horinsight.mixers.labels import FIRST_CELL, NONE, POOLED, Grids, Labels, aligned

# along an axis: nothing met · all positions · some · the partner of each pair · a position and something pooled
Gathered = Literal["", "all", "part", "partners", "pooled"]
# between tensors: nothing met · different positions · a position and something pooled
Met = Literal["", "cells", "pooled"]


def _gathered_plane(plane: Tensor, axes: Sequence[int]) -> tuple[Tensor, Gathered]:
    """One plane summed over axes, which are kept with length 1."""
    axes = [axis for axis in axes if plane.shape[axis] > 1]
    if not axes:
        return plane, ""
    highest = plane.amax(axes, keepdim=True)
    lowest = torch.where(plane >= FIRST_CELL, plane, torch.inf).amin(axes, keepdim=True)
    known = highest >= FIRST_CELL
    several = known & (lowest < highest)
    if bool(several.any()):
        low, high = lowest[known], highest[known]
        everywhere = bool((low == low.min()).all() and (high == high.max()).all())
        met = torch.full_like(lowest, POOLED) if everywhere else lowest
        return torch.where(several, met, highest), "all" if everywhere else "part"
    pooled = (plane == POOLED).any(dim=axes[0], keepdim=True)
    for axis in axes[1:]:
        pooled = pooled.any(dim=axis, keepdim=True)
    return highest, "pooled" if bool((pooled & known).any()) else ""


def gathered(labels: Labels, axes: Sequence[int]) -> tuple[Labels, Gathered]:
    """The labels after a sum (a maximum, a norm, ...) over axes, which are kept with length 1.

    Values of one position keep it. Where all positions of the tensor meet, the result stands for all of them; where
    some meet, for the first of them. Of pairs that are summed over one side, the other side is left.

    Args:
        labels: of the tensor.
        axes: those that are summed over, not negative.

    Returns:
        The labels and what met.

    Example:
        >>> cells = Grids().cells(2, 2)
        >>> pooled, met = gathered(Labels.of(cells), (0, 1))
        >>> pooled.cells.item(), met, gathered(Labels.of(cells), (1,))[1]
        (1.0, 'all', 'part')
    """
    shape = tuple(1 if axis in axes else length for axis, length in enumerate(labels.shape))
    planes = [_gathered_plane(plane, axes) for plane in labels.planes]
    kept = [plane for plane, met in planes if met not in ("all", "part")]
    if len(planes) == 2 and len(kept) == 1:
        return Labels(shape, kept[0]), "partners"
    if len(planes) == 2 and not kept:
        return Labels(shape, planes[0][0]), planes[0][1]
    met: Gathered = next((met for _, met in planes if met), "")
    return Labels(shape, planes[0][0], planes[1][0] if len(planes) == 2 else None), met


def _differ(a: Tensor, b: Tensor) -> bool:
    return bool(((a != b) & (a >= FIRST_CELL) & (b >= FIRST_CELL)).any())


def _united(a: Tensor, b: Tensor) -> tuple[Tensor, bool]:
    """Two planes that agree where both name a cell, as one, and whether a cell met something pooled."""
    if a.shape == b.shape and torch.equal(a, b):
        return a, False
    pooled = ((a == POOLED) & (b >= FIRST_CELL)) | ((b == POOLED) & (a >= FIRST_CELL))
    union = torch.maximum(a, b)
    return (a if a.shape == union.shape and torch.equal(a, union) else union), bool(pooled.any())


def covers(coarse: Tensor, fine: Tensor, grids: Grids) -> bool:
    """Whether a plane is that of a coarser map, each cell repeated over the finer cells that it covers."""
    size = grids.size_of(coarse)
    covering = None if size is None else grids.coarsened(fine, size)
    return covering is not None and coarse.shape == fine.shape and not _differ(coarse, covering)


def _met_planes(a: Tensor, b: Tensor, grids: Grids) -> tuple[Tensor, Tensor | None, Met]:
    """Two planes of single positions: what is left, its partners if they pair off, and what met."""
    if _differ(a, b):
        for coarse_a, coarse_b in ((grids.thinned(a), b), (a, grids.thinned(b))):
            if coarse_a is not None and coarse_b is not None and not _differ(coarse_a, coarse_b):
                a, b = coarse_a, coarse_b
                break
        else:
            if covers(a, b, grids):
                return b, None, ""
            if covers(b, a, grids):
                return a, None, ""
            axes = range(a.ndim)
            only_a = [i for i in axes if a.shape[i] > 1 and b.shape[i] == 1]
            only_b = [i for i in axes if b.shape[i] > 1 and a.shape[i] == 1]
            if only_a and only_b:
                return a, b, ""
            first, second = (b, a) if only_b else (a, b)
            return torch.where(first >= FIRST_CELL, first, second), None, "cells"
    union, pooled = _united(a, b)
    return union, None, "pooled" if pooled else ""


def met(several: Sequence[Labels], shape: Sequence[int], grids: Grids) -> tuple[Labels | None, Met]:
    """The labels of a pointwise function of tensors that broadcast to `shape`, and what met.

    A position and a constant are the position. Two different positions meet, unless they lie along different axes: an
    outer sum or product, whose elements belong to pairs. A position that meets something pooled stays that position.

    Example:
        >>> grids = Grids()
        >>> row, column = grids.cells(1, 3), grids.cells(1, 3).T
        >>> met([Labels.of(row), Labels.of(row.flip(1))], (1, 3), grids)[1]
        'cells'
        >>> pairs, nothing = met([Labels.of(row), Labels.of(column)], (3, 3), grids)
        >>> pairs.partners is not None, nothing
        (True, '')
    """
    shape, found = tuple(shape), ""
    one = several[0]
    cells, partners = aligned(one.cells, len(shape)), one.partners
    partners = None if partners is None else aligned(partners, len(shape))
    for other in several[1:]:
        planes = [aligned(plane, len(shape)) for plane in other.planes]
        if partners is None and len(planes) == 1:
            cells, partners, now = _met_planes(cells, planes[0], grids)
            found = now or found
            continue
        if partners is None:  # the pairs are the second operand's
            (cells, partners), planes = planes, [cells]
        sides = [(cells, partners), (partners, cells)]
        if len(planes) == 1:
            fits = any(not _differ(side, planes[0]) for side, _ in sides)
        else:
            fits = any(not _differ(u, planes[0]) and not _differ(v, planes[1]) for u, v in sides)
        found = found if fits else "cells"
    if one.shape == shape and cells is one.cells and partners is one.partners:
        return one, found  # type: ignore[return-value]
    if bool((cells == NONE).all()) and partners is None:
        return None, found  # type: ignore[return-value]
    return Labels(shape, cells, partners), found  # type: ignore[return-value]


def product(a: Labels | None, b: Labels | None, shape: Sequence[int], grids: Grids) -> tuple[Labels | None, str, str]:
    """The labels of a matrix product (..., n, k) @ (..., k, m), of shape `shape`.

    Scores times values keep the scores' query; queries times keys are pairs; two sides that both vary over the
    summed positions leave no position (a Gram matrix over channels); one side and a weight are a linear map.

    Returns:
        The labels; what the product did ("attention", "window_attention", "gate", "product", "linear", "merge",
        "patchify", "" for nothing); and what waits to meet a position again, where all positions were summed: "linear",
        "product" or "".
    """
    ndim = len(shape)
    rows, met_a = (None, "") if a is None else gathered(a, (len(a.shape) - 1,))
    columns, met_b = (None, "") if b is None else gathered(b, (len(b.shape) - 2,))
    summed = ("all", "part", "partners")
    left = [side for side in (rows, columns) if side is not None]
    if "partners" in (met_a, met_b):
        kept = [side for side, how in ((rows, met_a), (columns, met_b)) if how == "partners" and side is not None]
        windowed = "part" in (met_a, met_b)
        labels, _ = met(kept, shape, grids)
        return labels, "window_attention" if windowed else "attention", ""
    if met_a in summed and met_b in summed:
        labels, _ = met(left, shape, grids)
        return labels, "" if "part" not in (met_a, met_b) else "product", "product"
    labels, how = met(left, shape, grids)
    if met_a in summed or met_b in summed:
        if len(left) == 2:
            return labels, "product" if how or "part" in (met_a, met_b) else "", "product"
        if "all" in (met_a, met_b):
            return labels, "", "linear"
        of, axis = (a, ndim - 1) if a is not None else (b, ndim - 2)
        assert of is not None
        axis += len(of.shape) - ndim
        return labels, linear_event(of, axis), ""
    named = {"cells": "product", "pooled": "gate", "": "gate" if "pooled" in (met_a, met_b) else ""}
    return labels, named[how], ""


def linear_event(labels: Labels, axis: int) -> Literal["linear", "merge", "patchify"]:
    """What a linear map over an axis is, along which some positions lie but not all.

    Returns:
        "linear" where the axis holds nothing but positions; "patchify" where it holds patches that do not overlap,
        whole or cut off, beside channels; "merge" where other positions are brought beside channels.
    """
    if one_position_each(labels, axis):
        return "linear"
    plane = labels.cells.movedim(axis, 0).flatten(1).long()
    known = plane >= FIRST_CELL
    reader = torch.arange(plane.shape[1], device=plane.device).expand_as(plane)[known]
    span = int(plane.max()) + 1
    read = (reader * span + plane[known]).unique() % span  # each cell once for each that reads it
    return "patchify" if len(read) == len(read.unique()) else "merge"


def one_position_each(labels: Labels, axis: int) -> bool:
    """Whether an axis holds nothing but positions, each at one place (and not positions beside channels)."""
    line = labels.cells.movedim(axis, -1).reshape(-1, labels.cells.shape[axis])
    for row in line[:1] if line.shape[0] == 1 else line[:: max(1, line.shape[0] - 1)]:
        known = row[row >= FIRST_CELL]
        if len(known.unique()) < len(known) or len(known) < 2:
            return False
    return True
