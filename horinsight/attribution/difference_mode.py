"""Puts a rule of DeepLIFT in the place of every function's derivative, however a network spells the function.

Modules, functions of torch, methods, operators, in place or not: all come down to functions of torch, which a mode of
this thread sees (`torch.overrides`). Functions of torch.nn.functional are opened up: what they call is seen.
"""

import inspect
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from horinsight.attribution.difference_rules import (
    Function,
    Pairs,
    Rule,
    activations,
    given,
    log_softmax,
    log_sum_exp,
    multilinear,
    pointwise,
    softmax,
)
from horinsight.attribution.largest_elements import LARGEST_ELEMENTS
from horinsight.attribution.written_out import WRITTEN_OUT
from horinsight.torch_private import undispatched

_MULTILINEAR = """
    mul multiply rmul matmul rmatmul mm bmm dot vdot mv inner outer ger tensordot einsum kron linear bilinear conv1d
    conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d cross linalg_cross vecdot linalg_vecdot
    linalg_multi_dot chain_matmul
"""
_POINTWISE = """
    sigmoid logsigmoid log_sigmoid expit tanh hardtanh softsign tanhshrink hardshrink softshrink threshold gelu silu
    mish softplus elu selu celu hardsigmoid hardswish relu relu6 leaky_relu prelu rrelu erf erfc erfinv exp exp2 expm1
    log log1p log2 log10 sqrt rsqrt reciprocal square sin cos tan asin acos atan sinh cosh asinh acosh atanh arcsin
    arccos arctan arcsinh arccosh arctanh sinc abs absolute clamp clamp_min clamp_max clip lgamma digamma logit sgn i0
    sign round floor ceil trunc fix frac pow rpow float_power
"""
_AS_IN_NUMPY = {"axis": "dim", "keepdims": "keepdim"}  # torch takes either
_OPERATORS_IN_PLACE = {"imul": "mul", "itruediv": "div", "idiv": "div", "ipow": "pow", "imatmul": "matmul"}


class DifferenceRules(TorchFunctionMode):
    """Inside the context the derivatives of this thread's functions are their rules'.

    Args:
        half: a mode under which the same network has run with the inputs alone. The axis that is twice as long now is
            the axis of the batch, wherever a network has moved it. Without it all are inputs, their own baselines.
        keep: whether to keep the tensors whose partners were asked for, so that a batch that was merged with an axis
            outside of it (heads first, say) is found by its values; otherwise it counts as the outer one.
    """

    def __init__(self, half: Self | None = None, *, keep: bool = False) -> None:
        super().__init__()
        self.half = half
        self.keep = keep
        self.shapes: list[torch.Size] = []
        self.kept: list[Tensor] = []
        self.coarsest = 0.0  # the largest machine precision of a result: some networks round in between
        self._opened: list[Function] = []

    def partner(self, x: Tensor) -> Tensor:
        """x with inputs and baselines exchanged, without gradient."""
        x, number = x.detach(), len(self.shapes)
        self.shapes.append(x.shape)
        if self.keep:
            self.kept.append(x.clone())
        if self.half is None or number >= len(self.half.shapes) or len(self.half.shapes[number]) != x.ndim:
            return x
        before = self.half.shapes[number]
        axis = next((axis for axis in range(x.ndim) if x.shape[axis] == 2 * before[axis]), None)
        if axis is None:
            return x
        outer = _outer_length(x, self.half.kept[number], axis) if self.half.keep else 1
        exchanged: Tensor = _unfolded(x, axis, outer).flip(axis + 1).flatten(axis, axis + 2)
        return exchanged

    def __torch_function__(
        self, func: Function, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = {_AS_IN_NUMPY.get(key, key): value for key, value in (kwargs or {}).items()}
        if not torch.is_grad_enabled() or not activations((args, kwargs)):
            return func(*args, **kwargs)
        result = self._ruled(func, args, kwargs)
        if isinstance(result, Tensor) and result.is_floating_point():
            self.coarsest = max(self.coarsest, _precision(result))
        return result

    def _ruled(self, func: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name, in_place = spelled(func)
        opened = isinstance(func, FunctionType) and func.__module__ == F.__name__ and func not in self._opened
        known = kwargs.get("out") is None and not (opened and "inplace" in func.__code__.co_varnames)
        if known:  # else what it calls will tell
            plain = _on_a_copy(func) if in_place else func
            for rule in RULES.get(name, ()):
                result = rule(self, plain, args, kwargs)
                if result is not NotImplemented:
                    return args[0].copy_(result) if in_place else result
        if not opened:
            return self.unruled(func, args, kwargs)
        self._opened.append(func)
        try:
            with self:  # torch turns the mode off while it is in here; what this function calls is to be seen
                return undispatched(cast(FunctionType, func))(*args, **kwargs)
        finally:
            self._opened.pop()

    def unruled(self, func: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Linear functions, and what is to be found out if the contributions do not add up."""
        return func(*args, **kwargs)


def _precision(x: Tensor) -> float:
    """Of what a number was computed with: convolutions on a GPU round their factors to TF32."""
    eps = torch.finfo(x.dtype).eps
    return max(eps, 2**-10) if x.is_cuda and x.dtype == torch.float32 else eps


def _unfolded(x: Tensor, axis: int, outer: int) -> Tensor:
    """An axis as three: what is outside of the batch, inputs or baselines, and the rest."""
    shape = (*x.shape[:axis], outer, 2, x.shape[axis] // (2 * outer), *x.shape[axis + 1 :])
    return x.reshape(shape)


def _outer_length(x: Tensor, inputs: Tensor, axis: int) -> int:
    """What is outside of the batch in an axis: the length with which the inputs come to be where they are."""
    num = inputs.shape[axis]

    def distance(outer: int) -> float:
        found = _unfolded(x, axis, outer).select(axis + 1, 0).flatten(axis, axis + 1)
        return float(torch.where(found == inputs, 0, found - inputs).abs().nan_to_num().sum())

    return min((outer for outer in range(1, num + 1) if num % outer == 0), key=distance)


def spelled(func: Function) -> tuple[str, bool]:
    """The name that a function has in all its spellings, and whether this one writes into its first argument.

    Example:
        >>> spelled(torch.Tensor.__imul__), spelled(torch.relu_), spelled(torch.special.expit)
        (('mul', True), ('relu', True), ('expit', False))
    """
    written = getattr(func, "__name__", "").split(".")[0]
    name = written.strip("_").removeprefix("special_")
    if written.startswith("__"):
        return _OPERATORS_IN_PLACE.get(name, name), name in _OPERATORS_IN_PLACE
    return name, written.endswith("_")


def _on_a_copy(func: Function) -> Function:
    def plain(first: Any, *args: Any, **kwargs: Any) -> Any:
        return func(first.clone(), *args, **kwargs)

    return plain


def _written_out(function: Callable[..., Any]) -> Rule:
    """The derivative of a function as its parts have it, the value as torch has it."""

    signature = inspect.signature(function)

    def rule(pairs: Pairs, func: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        assert isinstance(pairs, DifferenceRules)
        try:
            signature.bind(*args, **kwargs)
        except TypeError:  # another of the ways in which torch lets itself be called
            return NotImplemented
        with pairs:
            surrogate = function(*args, **kwargs)
        if surrogate is NotImplemented:
            return NotImplemented
        with torch.no_grad():
            value = func(*args, **kwargs)
        if isinstance(surrogate, tuple):
            return tuple(given(*both) for both in zip(value, surrogate, strict=True))
        return given(value, surrogate)

    return rule


def _rules() -> dict[str, tuple[Rule, ...]]:
    tables: list[dict[str, Rule]] = [
        dict.fromkeys(_MULTILINEAR.split(), multilinear),
        dict.fromkeys(_POINTWISE.split(), pointwise),
        {"softmax": softmax, "log_softmax": log_softmax, "logsumexp": log_sum_exp},
        LARGEST_ELEMENTS,
        {name: _written_out(function) for name, function in WRITTEN_OUT.items()},
    ]
    names = {name for table in tables for name in table}
    return {name: tuple(table[name] for table in tables if name in table) for name in names}


RULES = _rules()  # by name, in the order in which they are asked
