"""Operators that slide windows over a map: convolutions, pooling, resizing, sampling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from horinsight.mixers.labels import FIRST_CELL, Labels
from horinsight.mixers.meetings import gathered, linear_event
from horinsight.mixers.operators import Operation, Outcome, Rule


def _sides(value: Sequence[int] | int | None, count: int, default: Sequence[int] | int = 1) -> list[int]:
    if value is None or (not isinstance(value, int) and not len(value)):
        value = default
    values = [value] if isinstance(value, int) else list(value)
    return values * count if len(values) == 1 else values


def _on_grid(labels: Labels, output: Tensor, num_sides: int, operation: Operation) -> Labels | None:
    """The labels of a new map, if the whole of a map lay along two of the last axes; else None."""
    axes = [axis for axis in labels.axes() if axis >= len(labels.shape) - num_sides]
    if num_sides != 2 or labels.partners is not None or labels.axes() != tuple(axes):
        return None
    coarse = operation.grids.thinned(labels.cells)
    cells = labels.cells if coarse is None else coarse
    size = operation.grids.size_of(cells)
    known = cells[cells >= FIRST_CELL]
    if size is None:
        return None
    h, w = size
    lost = h * w - len(known.unique())
    # a map that was shifted by a cell before it is thinned (NASNet's second path) has lost a border
    border = h + w - 1 if labels.shape[-2:] == size != tuple(output.shape[-2:]) and min(size) > 2 else 0
    if lost > border:
        return None
    return Labels.of(operation.grids.cells(*output.shape[-2:]), shape=output.shape)


def _centred(
    labels: Labels, output: Tensor, kernel: list[int], stride: list[int], padding: list[int], dilation: list[int]
) -> Labels | None:
    """Each window stands for its central element: for windows that lie on parts of a map."""
    planes = []
    for plane in labels.planes:
        for i, (k, s, p, d) in enumerate(zip(kernel, stride, padding, dilation, strict=True)):
            axis = plane.ndim - len(kernel) + i
            if plane.shape[axis] > 1:
                places = torch.arange(output.shape[axis], device=plane.device) * s - p + d * ((k - 1) // 2)
                plane = plane.index_select(axis, places.clamp(0, plane.shape[axis] - 1))
        planes.append(plane)
    return Labels.from_planes(planes, output.shape)


def _over_channels(labels: Labels, groups: int, channels: int) -> tuple[Labels, str, str]:
    """What the sum over the channels of each group does, before the window is looked at."""
    axis = 1
    if labels.shape[axis] == groups or axis not in labels.axes():
        planes = [plane if groups == channels else plane[:, :1] for plane in labels.planes]
        if groups != channels and axis in labels.axes():  # each input channel makes several output channels
            planes = [plane.repeat_interleave(channels // groups, 1) for plane in labels.planes]
        return Labels((labels.shape[0], channels, *labels.shape[2:]), *planes), "", ""
    full = [plane.expand(*plane.shape[:1], labels.shape[1], *plane.shape[2:]) for plane in labels.planes]
    split = Labels(
        (labels.shape[0], groups, labels.shape[1] // groups, *labels.shape[2:]),
        *(plane.reshape(plane.shape[0], groups, -1, *plane.shape[2:]) for plane in full),
    )
    left, how = gathered(split, (2,))
    planes = [plane[:, :, 0].repeat_interleave(channels // groups, 1) for plane in left.planes]
    event = {"pooled": "bias", "partners": "attention"}.get(how, "")
    if how == "part":
        event = linear_event(labels, axis) if groups == 1 else "merge"
    shape = (labels.shape[0], channels, *labels.shape[2:])
    return Labels(shape, *planes), event, "linear" if how == "all" else ""


def convolved(operation: Operation) -> Outcome:
    """Convolutions: positions meet where the kernel is wider than the stride; else each patch becomes a cell."""
    x, weight = operation.arguments[:2]
    stride, padding, dilation = (operation.arguments[place] for place in (3, 4, 5))
    transposed, groups = operation.arguments[6], operation.arguments[8]
    labels, dynamic = operation.labels_of(x), operation.labels_of(weight)
    num_sides = x.ndim - 2
    output = operation.output
    if labels is None:
        return Outcome(None, "", "")
    kernel = list(weight.shape[2:])
    strides, pads, dilations = _sides(stride, num_sides), _sides(padding, num_sides, 0), _sides(dilation, num_sides)
    left, event, waits = _over_channels(labels, groups, output.shape[1])
    if dynamic is not None:
        event = event or "gate"
    wide = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if not any(axis >= 2 for axis in left.axes()):
        if left.has_cells() and any(k > s for k, s in zip(wide, strides, strict=True)) and set(x.shape[2:]) == {1}:
            event = event or "convolution"  # of a map of a single cell: nothing meets here, but in a larger one
        return Outcome(Labels.from_planes(left.planes, output.shape), event, waits)
    whole = all(side == 1 for side in output.shape[2:]) and not any(pads) and kernel != strides
    if whole and not transposed:
        left, how = gathered(left, tuple(range(2, x.ndim)))  # the kernel is the map: a linear map of all positions
        return Outcome(Labels.from_planes(left.planes, output.shape), event, waits or ("linear" if how else ""))
    if any(k > s for k, s in zip(wide, strides, strict=True)):
        if event == "gate":
            return Outcome(_slid(left, operation, kernel, strides, pads, dilations), event, waits, before="convolution")
        event = "convolution"
    elif any(k > 1 for k in wide) and not transposed:
        event = event or "patchify"
    if all(k == 1 for k in wide) and output.shape[2:] == x.shape[2:]:
        return Outcome(Labels.from_planes(left.planes, output.shape), event, waits)
    return Outcome(_slid(left, operation, kernel, strides, pads, dilations), event, waits)


def _slid(
    labels: Labels, operation: Operation, kernel: list[int], strides: list[int], pads: list[int], dilations: list[int]
) -> Labels | None:
    """The labels of what a kernel makes that slides over a map, or over parts of one."""
    fresh = _on_grid(labels, operation.output, len(kernel), operation)
    if fresh is None and operation.arguments[6]:  # a transposed convolution
        fresh = _stretched(labels, operation.output)
    return fresh or _centred(labels, operation.output, kernel, strides, pads, dilations)


def _stretched(labels: Labels, output: Tensor) -> Labels | None:
    """Each new element stands for the old one under it."""
    planes = []
    for plane in labels.planes:
        for axis in range(2, plane.ndim):
            if plane.shape[axis] > 1:
                places = torch.arange(output.shape[axis], device=plane.device) * plane.shape[axis] // output.shape[axis]
                plane = plane.index_select(axis, places)
        planes.append(plane)
    return Labels.from_planes(planes, output.shape)


def pooled(operation: Operation) -> Outcome:
    """Average and maximum pooling with a window."""
    x = operation.arguments[0]
    num_sides = int(operation.name.split("pool")[1][0])
    labels = operation.labels_of(x)
    outputs = operation.output if isinstance(operation.output, tuple | list) else [operation.output]
    output = outputs[0]
    if labels is None:
        return Outcome(None)
    axes = tuple(range(x.ndim - num_sides, x.ndim))
    if not set(axes) & set(labels.axes()):
        return Outcome(Labels.from_planes(labels.planes, output.shape))
    if "adaptive" in operation.name:
        if output.shape == x.shape:
            return Outcome(labels)
        if any(out > side for out, side in zip(output.shape[-num_sides:], x.shape[-num_sides:], strict=True)):
            return Outcome(_on_grid(labels, output, num_sides, operation) or _stretched(labels, output), "resize")
        sides = list(zip(x.shape[-num_sides:], output.shape[-num_sides:], strict=True))
        kernel, strides = [-(-a // b) for a, b in sides], [max(1, a // b) for a, b in sides]
        pads = [0] * num_sides
    else:
        kernel = _sides(operation.argument(1, "kernel_size"), num_sides)
        strides = _sides(operation.argument(2, "stride"), num_sides, kernel)
        pads = _sides(operation.argument(3, "padding"), num_sides, 0)
    if all(side == 1 for side in output.shape[-num_sides:]) and not any(pads):
        left, how = gathered(labels, axes)
        result = Labels.of(left.cells, shape=output.shape)
        return Outcome(result, "pooling" if how == "part" else "", "pooling" if how == "all" else "")
    if all(k == 1 for k in kernel) and all(s == 1 for s in strides):
        return Outcome(labels)
    fresh = _on_grid(labels, output, num_sides, operation) or _centred(
        labels, output, kernel, strides, pads, [1] * num_sides
    )
    return Outcome(fresh, "pooling" if any(k > 1 for k in kernel) else "")


def resized(operation: Operation) -> Outcome:
    """Interpolation: a map of another size; an event that makes no mixer."""
    labels = operation.labels_of(operation.arguments[0])
    assert labels is not None
    output = operation.output
    num_sides = output.ndim - 2
    if not {axis for axis in labels.axes() if axis >= 2}:
        return Outcome(Labels.from_planes(labels.planes, output.shape))
    if output.shape == operation.arguments[0].shape:
        return Outcome(labels)
    return Outcome(_on_grid(labels, output, num_sides, operation) or _stretched(labels, output), "resize")


def sampled(operation: Operation) -> Outcome:
    """grid_sample: values are fetched from where a grid says; where the grid depends on the image, positions meet."""
    labels, places = operation.labels_of(operation.arguments[0]), operation.labels_of(operation.arguments[1])
    output = operation.output
    if places is not None:
        home = places.moved(lambda plane: plane.select(-1, 0).unsqueeze(1).expand(output.shape))
        return Outcome(home, "sampling" if labels is not None else "")
    if labels is None:
        return Outcome(None)
    return Outcome(_on_grid(labels, output, output.ndim - 2, operation) or _stretched(labels, output), "resize")


def deformed(operation: Operation) -> Outcome:
    """Deformable convolution: windows whose elements are fetched from elsewhere; where offsets are fixed, a kernel."""
    x, _, *moving = operation.tensors()[:4]
    labels, output = operation.labels_of(x), operation.output
    if labels is None:
        return Outcome(None)
    fresh = _on_grid(labels, output, 2, operation) or _stretched(labels, output)
    return Outcome(fresh, "sampling" if any(operation.labels_of(one) is not None for one in moving) else "convolution")


def _pools() -> list[str]:
    names = [
        f"{kind}_pool{n}d"
        for kind in ("avg", "max", "_adaptive_avg", "adaptive_max", "adaptive_avg", "lp")
        for n in (1, 2, 3)
    ]
    return names + [f"max_pool{n}d_with_indices" for n in (1, 2, 3)]


_RESIZES = [
    f"{prefix}upsample_{kind}{suffix}"
    for kind in ("nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d", "bicubic2d", "trilinear3d")
    for prefix in ("", "_")
    for suffix in ("", "_aa")
] + ["_upsample_nearest_exact1d", "_upsample_nearest_exact2d"]

WINDOW_RULES: dict[str, Rule] = {
    **dict.fromkeys(("convolution", "_convolution", "convolution_overrideable"), convolved),
    **dict.fromkeys(_pools(), pooled),
    **dict.fromkeys(_RESIZES, resized),
    **dict.fromkeys(("grid_sampler_2d", "grid_sampler_3d", "grid_sampler"), sampled),
    **dict.fromkeys(("deform_conv2d",), deformed),
}
