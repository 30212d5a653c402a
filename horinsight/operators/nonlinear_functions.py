"""Which functions of torch are non-linearities: pointwise or normalising, in every spelling, also in place."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Function = Callable[..., Any]

_POINTWISE_NAMES = """
    sigmoid logsigmoid expit tanh hardtanh softsign tanhshrink hardshrink softshrink threshold gelu silu mish
    softplus elu selu celu hardsigmoid hardswish relu relu6 leaky_relu prelu rrelu erf erfc erfinv exp exp2
    expm1 log log1p log2 log10 sqrt rsqrt reciprocal sin cos tan asin acos atan sinh cosh asinh acosh atanh
    arcsin arccos arctan arcsinh arccosh arctanh sinc abs absolute clamp clip lgamma digamma logit sgn i0
"""
_NORMALISING_NAMES = """
    softmax log_softmax softmin logsumexp layer_norm group_norm instance_norm batch_norm rms_norm
    local_response_norm normalize norm vector_norm std cosine_similarity maximum minimum amax amin
"""
_RECTIFIER_NAMES = "relu relu6 threshold hardtanh hardswish gelu"
_HOMES: tuple[Any, ...] = (torch, Tensor, F, torch.special, torch.linalg)


def _named(names: Iterable[str], suffix: str = "") -> dict[Function, str]:
    """Every function of torch under one of the names, with that name."""
    found = {getattr(home, name + suffix, None): name for name in names for home in _HOMES}
    return {function: name for function, name in found.items() if callable(function)}


IN_PLACE = _named(_POINTWISE_NAMES.split(), "_")
RECTIFIERS = frozenset(_named(_RECTIFIER_NAMES.split()))  # exactly flat at one end or both
RECTIFIERS_IN_PLACE = frozenset(_named(_RECTIFIER_NAMES.split(), "_"))
DIVISIONS = frozenset(_named(["div", "divide", "true_divide", "__truediv__", "__div__"]))
REFLECTED_DIVISIONS = frozenset(_named(["__rtruediv__", "__rdiv__"]))
DIVISIONS_IN_PLACE = frozenset(_named(["div_", "divide_", "true_divide_", "__itruediv__", "__idiv__"]))
POWERS = frozenset(_named(["pow", "float_power", "__pow__", "__rpow__"]))
POWERS_IN_PLACE = frozenset(_named(["pow_", "__ipow__"]))

ELEMENTWISE_FUNCTIONS: frozenset[Function] = frozenset(_named(_POINTWISE_NAMES.split()))
NONLINEAR_FUNCTIONS: frozenset[Function] = ELEMENTWISE_FUNCTIONS | frozenset(_named(_NORMALISING_NAMES.split()))
