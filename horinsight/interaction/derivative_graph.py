"""Which operators an output's derivatives pass through, read off its graph: what a certificate of order rests on."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction

from horinsight.operators.linear_map import TANGENT_NODES
from horinsight.torch_private import saved_exponent

# Names of torch's graph nodes without "Backward0". Those with more than one differentiable input are products.
_LINEAR_NAMES = """
    Add Sub Rsub Neg Mul Convolution Addmm Mm Bmm Baddbmm Addbmm Addmv Mv Dot Linear MkldnnConvolution Square
    Outer View ReshapeAlias UnsafeView Permute Transpose T MT Clone Contiguous Expand Repeat Sum Mean Slice
    Select Split SplitWithSizes Chunk Unbind Cat Stack Index IndexSelect IndexPut IndexAdd IndexCopy Gather
    Scatter ScatterAdd TakeAlongDim Take Squeeze Unsqueeze Roll Flip ConstantPadNd ReflectionPad2D
    ReplicationPad2D AvgPool2D AdaptiveAvgPool2D AvgPool1D AdaptiveAvgPool1D UpsampleBilinear2D
    UpsampleBicubic2D UpsampleNearest2D UpsampleNearestExact2D FftR2C FftC2R FftC2C ViewAsComplex ViewAsReal
    Real Imag Complex Conj ConjPhysical Copy CopyBackwards CopySlices ToCopy AsStrided Alias Detach
    PixelShuffle PixelUnshuffle Tril Triu MaskedFill MaskedScatter Unfold Im2Col Col2Im
    Addcmul Lerp Fill Zero Cumsum Diagonal Trace SwapAxes Movedim ViewDtype Lift LiftFresh
    Kron Var AccumulateGrad Dropout NativeDropout Shuffle ChannelShuffle Rot90
    Reshape Unflatten Flatten Einsum UnsafeSplit Pad
"""
_LINEAR = frozenset(_LINEAR_NAMES.split())
# Their derivatives exist except on kinks and jumps, where interactions lie that no derivative sees.
_KINKED_NAMES = """
    Relu Threshold LeakyRelu PreluKernel Prelu Rrelu RreluWithNoise Hardtanh Hardsigmoid Hardswish Hardshrink
    Softshrink Elu Celu Abs Clamp ClampMin ClampMax Maximum Minimum Max Min Amax Amin Median Kthvalue Topk
    Sort MaxPool2DWithIndices MaxPool3DWithIndices AdaptiveMaxPool2D Fmax Fmin Sgn Sign Floor Ceil Round Trunc
    Frac Heaviside Where Remainder Fmod Cummax Cummin Aminmax Quantile Nanquantile
"""
_KINKED = frozenset(_KINKED_NAMES.split())
_LAYERS = frozenset({"Addmm", "Mm", "Bmm", "Baddbmm", "Mv", "Addmv", "Linear", "Convolution", "MkldnnConvolution"})
_PRODUCTS = frozenset({"Mul", "Mm", "Bmm", "Mv", "Dot", "Outer", "Kron"})
_LAYERS_WITH_BIAS = frozenset({"Linear", "Convolution", "MkldnnConvolution"})  # input, weight, bias
_PRODUCTS_ADDED = frozenset({"Addmm", "Addmv", "Baddbmm", "Addbmm", "Addcmul"})  # what is added, two factors
_NODE = re.compile(r"(Backward)?\d*$")


@dataclass(frozen=True)
class OperatorsMet:
    """What stands between x and an output.

    Attributes:
        kinks: operators that are piecewise smooth, by their names in torch's graph.
        unlisted: operators that are neither linear, nor a product, nor a tangent.
        custom: hand-written autograd functions, whose second derivatives nobody guarantees.
        layers: products with matrices and kernels, as the layers of a network are.
    """

    kinks: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()
    custom: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()


def operators_met(output: Tensor) -> OperatorsMet:
    """The operators between an output and the tensors it was computed from.

    Args:
        output: any shape, with its graph.

    Returns:
        Names, each once, sorted.

    Example:
        >>> import torch
        >>> x = torch.ones(2, requires_grad=True)
        >>> operators_met((3 * x.abs() * x).cumprod(0))
        OperatorsMet(kinks=('Abs',), unlisted=('Cumprod',), custom=(), layers=())
    """
    kinks, unlisted, custom, layers = set(), set(), set(), set()
    for node in _nodes(output):
        full = node.name()
        if full in TANGENT_NODES:
            continue
        if isinstance(node, BackwardCFunction):
            custom.add(full.removesuffix("Backward"))
            continue
        name = _NODE.sub("", full.rpartition("::")[2])
        if name in _LAYERS:
            layers.add(name)
        if name in _KINKED:
            kinks.add(name)
        elif name not in _LINEAR and not _is_polynomial(name, node):
            unlisted.add(name)
    return OperatorsMet(tuple(sorted(kinks)), tuple(sorted(unlisted)), tuple(sorted(custom)), tuple(sorted(layers)))


def polynomial_degree(output: Tensor, x: Tensor) -> float:
    """The degree in x that an output has as a polynomial by its graph, whatever the numbers in it.

    Args:
        output: any shape, with its graph.
        x: the leaf that it was computed from; every other tensor counts as fixed.

    Returns:
        A degree that the polynomial does not exceed; infinity where an operator is none, or is not known as one.

    Example:
        >>> import torch
        >>> x = torch.ones(2, 2, requires_grad=True)
        >>> polynomial_degree(3 * x + (x @ x) ** 2, x), polynomial_degree(x.exp(), x)
        (4.0, inf)
    """
    degrees: dict[Any, float] = {None: 0.0}
    waiting = [output.grad_fn]
    while waiting:
        node = waiting[-1]
        before = [following for following, _ in node.next_functions] if node is not None else []
        unknown = [one for one in before if one not in degrees]
        if node in degrees or not unknown:
            waiting.pop()
            if node not in degrees:
                degrees[node] = _degree(node, [degrees[one] for one in before], x)
        waiting.extend(unknown)
    return degrees[output.grad_fn]


def _degree(node: Any, degrees: Sequence[float], x: Tensor) -> float:
    """The degree of one node's result, from those of its inputs."""
    full = node.name()
    name = _NODE.sub("", full.rpartition("::")[2])
    if name == "AccumulateGrad":
        return 1 if node.variable is x else 0
    if isinstance(node, BackwardCFunction) and full not in TANGENT_NODES:
        return math.inf
    if name in _PRODUCTS:
        return sum(degrees[:2])
    if name in _LAYERS_WITH_BIAS:
        return max(sum(degrees[:2]), *degrees[2:])
    if name in _PRODUCTS_ADDED:
        return max(degrees[0], sum(degrees[1:]))
    if name in ("Square", "Var"):
        return 2 * degrees[0]
    if name == "Lerp":
        return max(degrees[:2]) + sum(degrees[2:])
    if name == "Pow" and _is_polynomial(name, node):
        return float(saved_exponent(node)) * degrees[0]
    known = full in TANGENT_NODES or name in _LINEAR or _is_polynomial(name, node)
    return max(degrees, default=0) if known else math.inf


def _nodes(output: Tensor) -> Iterator[Any]:
    waiting = [output.grad_fn] if output.grad_fn is not None else []
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        yield node
        fresh = {following for following, _ in node.next_functions if following is not None} - seen
        seen |= fresh
        waiting.extend(fresh)


def _is_polynomial(name: str, node: Any) -> bool:
    """Whether a node that can be something else is linear or a product here."""
    if name == "Pow":
        exponent = getattr(node, "_saved_exponent", None)
        return isinstance(exponent, int | float) and exponent >= 0 and float(exponent).is_integer()
    if name == "Div":  # by a constant
        return len(node.next_functions) < 2 or node.next_functions[1][0] is None
    return name == "NativeBatchNorm" and not getattr(node, "_saved_training", True)
