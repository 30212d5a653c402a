"""Where on its input each position of an operator's output lies: found by what the operator does.

An output cell's *home* is the input cell that its window is centred on. An operator that keeps its map has every cell
at home. One that thins the map out is looked at with its convolutions and poolings narrowed to the middle taps of their
kernels, everything else as it is: the input cell that an output cell then responds to, by more than by what it takes
from everywhere, is its home. So stride, padding, dilation, ceil mode, an odd size, and padding or slicing by hand all
count as what they do. Where a ReLU that is dead at some cells hides what it would take from them, rectifiers are left
out; where that tells nothing either, the operator is looked at as it is.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from horinsight.operators.nonlinear_functions import RECTIFIERS, RECTIFIERS_IN_PLACE
from horinsight.operators.positions import Operator, Positions

FLAT = 1e-5  # of the largest influence: a profile that varies by less has no peak
NUM_PROBES = 4  # samples looked at, with a random weight for each output channel
SLACK = 0.25  # of a cell, by which a peak may lie off; of two cells that weigh the same the first is the home

_CONVOLUTIONS = frozenset({torch.conv1d, torch.conv2d, torch.conv3d})
_MAX_POOLINGS: Mapping[Any, int] = {F.max_pool1d: 1, F.max_pool2d: 2, torch.max_pool1d: 1, torch.max_pool2d: 2}
_MEAN_POOLINGS: Mapping[Any, int] = {F.avg_pool1d: 1, F.avg_pool2d: 2}
_ADAPTIVE: Mapping[Any, Any] = {
    F.adaptive_max_pool1d: F.adaptive_avg_pool1d,
    F.adaptive_max_pool2d: F.adaptive_avg_pool2d,
}


def home_cells(
    operator: Operator, x: Tensor, output: Tensor, positions: Positions, outputs: Positions | None = None
) -> Tensor:
    """The input position that each output position of an operator lies on.

    Args:
        operator: in the layout of `positions`; rows and columns of its output depend on the input's rows and columns
            apart, as with strides.
        x: operating points, in the same layout; some are looked at.
        output: `operator(x)`.
        positions: of the input.
        outputs: of the output, where they are tokens on a grid that need not be the input's; else by its shape.

    Returns:
        (P',) positions of the input, row · W + column on a map. The home of a window that is centred in the padding is
        the nearest cell of the map; of the two cells in the middle of an even window it is the first. Where nothing
        tells one cell from another (a linear map over all positions, say) the output's cells are spread evenly.

    Raises:
        ValueError: the output's positions have no place on the input's.

    Example:
        >>> from horinsight.operators.positions import positions_of
        >>> x, conv = torch.randn(1, 2, 7, 1), torch.nn.Conv2d(2, 3, 1, stride=2)
        >>> home_cells(conv, x, conv(x), positions_of(x)).tolist()
        [0, 2, 4, 6]
    """
    if outputs is not None and outputs.grid is not None and positions.grid is not None:
        return _homes_of_tokens(operator, x, output, positions, outputs)
    found = positions.shape_of(output)
    if found == positions.shape:
        return torch.arange(positions.num_total)
    axes = [torch.arange(extent) for extent in positions.shape]
    ways = (_MiddleTaps(), _MiddleTaps(rectified=False), nullcontext())
    responses = [_Responses(operator, x, found, positions, seen) for seen in ways]
    for axis, (n, extent) in enumerate(zip(found, positions.shape, strict=True)):
        if n != extent:
            evenly = [int((o + 0.5) * extent / n) for o in range(n)]
            lines = (_homes_along(axis, n, extent, response) for response in responses)
            axes[axis] = torch.tensor(next((line for line in lines if line is not None), evenly))
    return axes[0] if len(axes) == 1 else (axes[0][:, None] * positions.shape[1] + axes[1]).flatten()


def _homes_of_tokens(operator: Operator, x: Tensor, output: Tensor, positions: Positions, outputs: Positions) -> Tensor:
    """`home_cells` of tokens on grids. Tokens before the grid, for which nobody asks, are at home in the first."""
    first, last, size = positions.num_prefix, outputs.num_prefix, outputs.grid
    assert positions.grid is not None
    assert size is not None
    if size == positions.grid:
        homes = torch.arange(positions.num_locations)
    else:
        points = positions.flat(x)
        probes = points[torch.arange(NUM_PROBES) % len(points)]

        def on_map(inner: Tensor) -> Tensor:
            beside = probes[: len(inner), :, :first]  # as many as are looked at
            found = operator(positions.native(torch.cat([beside, inner.flatten(2)], 2)))
            on_grid: Tensor = outputs.flat(found)[..., last:].unflatten(2, size)
            return on_grid

        maps, flat_output = points[..., first:].unflatten(2, positions.grid), outputs.flat(output)
        alone = Positions("channels_first", positions.grid)
        homes = home_cells(on_map, maps, flat_output[..., last:].unflatten(2, size), alone)
    return torch.cat([torch.zeros(last, dtype=torch.long), first + homes])


class _Responses:
    """How strongly an output position responds to the input positions along one axis, at the operating points."""

    def __init__(
        self,
        operator: Operator,
        x: Tensor,
        found: tuple[int, ...],
        positions: Positions,
        seen: AbstractContextManager[Any],
    ) -> None:
        self.operator, self.found, self.positions = operator, found, positions
        self.x = x[torch.arange(NUM_PROBES) % len(x)]
        self.seen = seen
        self.recorded: tuple[Tensor, Tensor] | None = None

    def along(self, axis: int, place: int) -> Tensor:
        """Root of the summed squares of the gradient at each index of the axis, (extent,).

        Of the output at `place` of this axis, in the middle of the other.
        """
        leaf, weighted = self.recorded = self.recorded or self._record()
        at = [n // 2 for n in self.found]
        at[axis] = place
        cell = at[0] if len(at) == 1 else at[0] * self.found[1] + at[1]
        if not weighted.requires_grad:
            return torch.zeros(self.positions.shape[axis])
        (gradient,) = torch.autograd.grad(
            weighted[cell], leaf, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        influence = gradient.nan_to_num().double().cpu().square().sum((0, 1)).reshape(self.positions.shape)
        return influence.movedim(axis, 0).reshape(self.positions.shape[axis], -1).sum(1).sqrt()

    def _record(self) -> tuple[Tensor, Tensor]:
        """The inputs, (N, C, P), and a randomly weighted sum over their outputs' channels, (P',), with its graph."""
        leaf = self.positions.flat(self.x).detach().requires_grad_()
        flat = self.positions.flat_operator(self.operator)
        with torch.enable_grad():
            with self.seen:
                output = flat(leaf)
            generator = torch.Generator("cpu").manual_seed(0)
            weights = torch.randn(output.shape[:2], generator=generator, device="cpu").to(output)
            return leaf, (weights[..., None] * output).sum((0, 1))


@dataclass(frozen=True)
class _Peak:
    """The cells that stand out of a profile, and the middle one of them."""

    cells: tuple[int, ...]
    middle: int


def _homes_along(axis: int, n: int, extent: int, responses: _Responses) -> list[int] | None:
    """The home of each of n output places along an axis; None where that cannot be told."""
    few = sorted({place for near in (1, n // 2, n - 2) for place in (near - 1, near, near + 1) if 0 <= place < n})
    found = {place: _peak(responses.along(axis, place)) for place in few}
    line = _line(_told(found), extent, least=0.8)
    if line is None:
        found |= {place: _peak(responses.along(axis, place)) for place in range(n) if place not in found}
        line = _line(_told(found), extent, least=0.6)
    homes = {place: peak.middle for place, peak in _told(found).items()}
    if line is not None:
        stride, start = line
        cells = [start + stride * place for place in range(n)]
        return [
            cell if 0 <= cell < extent else homes.get(place, min(max(cell, 0), extent - 1))
            for place, cell in enumerate(cells)
        ]
    in_order = [homes[place] for place in sorted(homes)]
    inside = range(1, n - 1)  # the first and the last window may lie in the padding
    if not homes or not homes.keys() >= set(inside) or in_order != sorted(in_order):
        return None
    known = {min(homes) - 1: 0, max(homes) + 1: extent - 1} | homes  # before and after: windows in the padding
    nearest = (min(known, key=lambda other: (abs(other - place), other)) for place in range(n))
    return [known[place] for place in nearest]


def _told(found: Mapping[int, _Peak | None]) -> dict[int, _Peak]:
    return {place: peak for place, peak in found.items() if peak is not None}


def _peak(profile: Tensor) -> _Peak | None:
    """What stands out of a profile; None where nothing does."""
    above = profile - profile.min()
    if float(above.max()) <= FLAT * float(profile.max()):
        return None
    cells = (above >= 0.5 * above.max()).nonzero().flatten()
    middle = float((above[cells] * cells).sum() / above[cells].sum()) - SLACK
    return _Peak(tuple(cells.tolist()), int(cells[(cells - middle).abs().argmin()]))


def _line(peaks: Mapping[int, _Peak], extent: int, *, least: float) -> tuple[int, int] | None:
    """(stride, start) of the line that most of the peaks' middles lie on; None if too few do.

    A line that asks a place to lie on a cell of the map which does not stand out there is worth less than none.
    """
    pairs = [(a, b) for a in peaks for b in peaks if a < b]
    strides = {round((peaks[b].middle - peaks[a].middle) / (b - a)) for a, b in pairs} - {0}
    lines = {(stride, peak.middle - stride * place) for stride in strides for place, peak in peaks.items()}

    def score(line: tuple[int, int]) -> int:
        total = 0
        for place, peak in peaks.items():
            cell = line[1] + line[0] * place
            total += int(min(max(cell, 0), extent - 1) == peak.middle)
            total -= 2 * int(0 <= cell < extent and cell not in peak.cells)
        return total

    best = max(sorted(line for line in lines if line[0] > 0), key=score, default=None)
    return best if best is not None and score(best) >= max(2, least * len(peaks)) else None


class _MiddleTaps(TorchFunctionMode):
    """Narrows the kernels of convolutions and poolings to their middle taps, each as large as the whole.

    Rectifiers give on what they get unless `rectified`. Gates stay: a sigmoid keeps what comes from everywhere small.
    """

    def __init__(self, *, rectified: bool = True) -> None:
        super().__init__()
        self.rectified = rectified

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in _CONVOLUTIONS:
            return _narrowed_convolution(func, *args, **kwargs)
        if func in _MAX_POOLINGS and not kwargs.get("return_indices"):
            return _narrowed_max_pooling(func, *args, **kwargs)
        if func in _ADAPTIVE and not kwargs.get("return_indices"):
            return _ADAPTIVE[func](*args[:2], **{"output_size": kwargs["output_size"]} if len(args) < 2 else {})
        if func in _MEAN_POOLINGS:
            return _narrowed_mean_pooling(func, *args, **kwargs)
        if func in RECTIFIERS and not self.rectified:
            return (args[0] if args else kwargs["input"]).clone()
        if func in RECTIFIERS_IN_PLACE and not self.rectified:
            return args[0]
        return func(*args, **kwargs)


def _middle(size: tuple[int, ...], like: Tensor) -> Tensor:
    """A kernel of this size with 1 at its middle, shared by the two middle taps of an even side."""
    kernel = torch.ones((), dtype=like.dtype, device=like.device)
    for k in size:
        side = torch.zeros(k, dtype=like.dtype, device=like.device)
        side[(k - 1) // 2 : k // 2 + 1] = 1 / (2 - k % 2)
        kernel = kernel[..., None] * side
    return kernel


def _narrowed_convolution(func: Any, input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    size = tuple(weight.shape[2:])
    strength = weight.detach().flatten(2).norm(dim=2)  # positive: no path cancels another
    narrowed = strength.reshape(*weight.shape[:2], *[1] * len(size)) * _middle(size, weight)
    found: Tensor = func(input, narrowed, *args, **kwargs)
    return found


def _narrowed_max_pooling(
    func: Any,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    whole = func(input, kernel_size, stride, padding, dilation, ceil_mode)
    found = _sampled(_MAX_POOLINGS[func], input, whole, kernel_size, stride, padding, dilation)
    return (found, whole) if return_indices else found


def _narrowed_mean_pooling(
    func: Any, input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, *args: Any, **kwargs: Any
) -> Tensor:
    whole = func(input, kernel_size, stride, padding, *args, **kwargs)
    return _sampled(_MEAN_POOLINGS[func], input, whole, kernel_size, stride, padding, 1)


def _sampled(
    num_axes: int, input: Tensor, whole: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any
) -> Tensor:
    """What lies at the middle of each window of a pooling whose output is `whole`."""

    def each(value: Any) -> tuple[int, ...]:
        many = tuple(value) if isinstance(value, tuple | list) else (value,)
        return many if len(many) == num_axes else many * num_axes

    size, padding, dilation = each(kernel_size), each(padding), each(dilation)
    step = size if stride in (None, [], ()) else each(stride)
    around = [side for p, k, d in zip(padding, size, dilation, strict=True) for side in (p + k * d, p)]  # ceil mode
    padded = F.pad(input, around[::-1])
    batched = padded if input.ndim == num_axes + 2 else padded[None]
    convolution: Any = {1: F.conv1d, 2: F.conv2d}[num_axes]
    kernel = _middle(size, input).expand(batched.shape[1], 1, *size)
    found: Tensor = convolution(batched, kernel, stride=step, dilation=dilation, groups=batched.shape[1])
    found = found if input.ndim == num_axes + 2 else found[0]
    for axis, extent in enumerate(whole.shape[-num_axes:]):
        found = found.narrow(axis - num_axes, 0, extent)
    return found
