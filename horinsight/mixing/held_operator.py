"""A mixer with its gates held: what is left is an affine function of the values that it mixes.

The module runs once while every element of every tensor knows which position it stands for, and what a function of
torch makes of features is written down where it is held fixed:

- the result of softmax, sigmoid and other functions that make weights, and scores of pairs of positions;
- of a product of two features the gate: what all positions were pooled into, or what has mixed less so far, so that the
  value is what comes out of the mixing, or the one that comes out of an activation;
- of a product over positions, kᵀ v, the first factor, and of a feature times what came out of such a product the
  feature, so that linear attention q (kᵀ v) is its implicit matrix;
- of an activation f(a) = a · (f(a) / a) the factor, of a norm its mean and standard deviation, of a division the
  divisor, of a maximum the position where it is taken.

Run again with these as constants, the module is affine in its input: that is checked, and refused where it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from horinsight.mixers.operators import tensors_in, words
from horinsight.mixers.tensor_knowledge import Known, TensorKnowledge
from horinsight.mixers.watch import listened
from horinsight.operators.open_attention import OpenAttention

_WEIGHTS = frozenset(words("softmax log_softmax sigmoid hardsigmoid softplus exp norm vector_norm std var rsqrt sqrt"))
_ACTIVATIONS = frozenset(
    words("relu relu6 gelu silu hardswish leaky_relu elu selu celu mish hardtanh tanh prelu pow square clamp abs")
)
_NORMS = frozenset(words("layer_norm group_norm instance_norm rms_norm normalize"))
_PRODUCTS = frozenset(words("mul multiply div divide true_divide truediv matmul bmm einsum baddbmm mm"))
_MAXIMA: Mapping[Any, Callable[..., Any]] = {
    F.max_pool2d: F.max_pool2d_with_indices,
    torch.max_pool2d: F.max_pool2d_with_indices,
    F.adaptive_max_pool2d: F.adaptive_max_pool2d_with_indices,
}

Way = Literal["result", "factor", "normed", "operand", "places"]


@dataclass(frozen=True, eq=False)
class _Held:
    """What one call of a function holds fixed: its result, a factor, a norm's statistics, an operand, or places."""

    way: Way
    constants: tuple[Tensor, ...]
    operand: int = 0


@dataclass(frozen=True, eq=False)
class HeldScript:
    """What is held fixed in one run of a module: by the number of the call of a function that can hold something."""

    held: dict[int, _Held] = field(default_factory=dict)


def _short_name(func: Any) -> str:
    name = getattr(func, "__name__", "").strip("_")
    reflected = name.removeprefix("r") in _PRODUCTS or name in ("imul", "itruediv", "ipow")
    return {"sigmoid_": "sigmoid"}.get(name, name[1:] if reflected and name not in _PRODUCTS else name)


def _can_hold(func: Any) -> bool:
    return func in _MAXIMA or _short_name(func) in _WEIGHTS | _ACTIVATIONS | _NORMS | _PRODUCTS


class _Recording(TorchFunctionMode):
    """Writes down what is held fixed, and takes it for a constant from then on."""

    def __init__(self, script: HeldScript, knowledge: TensorKnowledge) -> None:
        super().__init__()
        self._script, self._knowledge, self._number = script, knowledge, 0
        self._activated = WeakTensorKeyDictionary()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if not _can_hold(func):
            return func(*args, **kwargs)
        self._number += 1
        tensors = tensors_in((args, tuple(kwargs.values())))
        if not any(self._known(tensor) for tensor in tensors):
            return func(*args, **kwargs)
        name = _short_name(func)
        if func in _MAXIMA:
            found, places = _MAXIMA[func](*args, **kwargs)
            self._script.held[self._number] = _Held("places", (places,))
            return found
        if name in _PRODUCTS:
            return self._product(func, name, args, kwargs)
        before = tensors[0].clone()  # which an activation may overwrite
        found = func(*args, **kwargs)
        if name in _WEIGHTS:
            self._hold("result", found)
            self._knowledge.learn(found, None)
        elif name in _NORMS:
            self._hold("normed", *_mean_scale_and_bias(func, before, found, args, kwargs))
        else:
            factor = torch.where(before == 0, 0.0, found / torch.where(before == 0, 1.0, before))
            self._hold("factor", factor)
            self._activated[found] = True
        return found

    def _known(self, tensor: Tensor) -> Known | None:
        return self._knowledge.of(tensor)

    def _hold(self, way: Way, *constants: Tensor, operand: int = 0) -> None:
        self._script.held[self._number] = _Held(way, tuple(x.detach().clone() for x in constants), operand)

    def _product(self, func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
        tensors = tensors_in(args)
        known = [self._known(tensor) for tensor in tensors]
        if sum(one is not None for one in known) < 2:
            return func(*args, **kwargs)
        found = func(*args, **kwargs)
        outcome = self._known(found)
        paired = [one is not None and one.labels.partners is not None for one in known]
        if outcome is not None and outcome.labels.partners is not None and not any(paired):
            self._hold("result", found)  # scores of pairs
            self._knowledge.learn(found, None)
            return found
        activated = [index for index, x in enumerate(tensors) if known[index] is not None and x in self._activated]
        index = self._gate(func, name, known, (outcome, paired, activated))
        constant = tensors[index].detach().clone()
        self._knowledge.learn(constant, None)
        self._hold("operand", constant, operand=index)
        return func(*_with_operand(args, index, constant), **kwargs)

    @staticmethod
    def _gate(
        func: Any, name: str, known: Sequence[Known | None], seen: tuple[Known | None, Sequence[bool], Sequence[int]]
    ) -> int:
        """Which factor is held.

        Raises:
            ValueError: neither has mixed less than the other.
        """
        outcome, paired, activated = seen
        labelled = [index for index, one in enumerate(known) if one is not None]
        first, second = labelled[0], labelled[1]
        if "div" in name:
            return second if not getattr(func, "__name__", "").startswith("__r") else first
        if any(paired):
            return paired.index(True)
        cells = [_keeps_positions(known[index]) for index in (first, second)]
        over_positions = name in ("matmul", "bmm", "einsum", "baddbmm", "mm")
        if over_positions and all(cells) and outcome is not None and not _keeps_positions(outcome):
            return first  # kᵀ v
        if cells[0] != cells[1]:
            pooled = first if not cells[0] else second
            return (first if pooled == second else second) if over_positions else pooled
        mixed = [_mixed_so_far(known[index]) for index in (first, second)]
        if mixed[0] == mixed[1] and len(activated) == 1:
            return activated[0]
        if mixed[0] == mixed[1]:
            raise ValueError(
                "it multiplies features of which neither has mixed more than the other, so which is the gate and which "
                "the value cannot be told: take influence instead (--influence)"
            )
        return first if mixed[0] < mixed[1] else second


def _keeps_positions(known: Known | None) -> bool:
    """Whether features are of positions, also where a linear map or a transform over all of them was last."""
    return known is not None and (known.labels.has_cells() or known.waits in ("linear", "fft"))


def _mixed_so_far(known: Known | None) -> float:
    """How much has mixed in features: the number of the last event; above all others where one is still to be told."""
    assert known is not None
    return known.last if known.labels.has_cells() else float("inf")


class _Replaying(TorchFunctionMode):
    """Runs a module with what was held as constants."""

    def __init__(self, script: HeldScript) -> None:
        super().__init__()
        self._script, self._number = script, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if not _can_hold(func):
            return func(*args, **kwargs)
        self._number += 1
        held = self._script.held.get(self._number)
        if held is None:
            return func(*args, **kwargs)
        if held.way == "result":
            return held.constants[0]
        if held.way == "operand":
            return func(*_with_operand(args, held.operand, held.constants[0]), **kwargs)
        x = tensors_in((args, tuple(kwargs.values())))[0]
        if held.way == "places":
            places = held.constants[0]
            return x.flatten(-2).gather(-1, places.flatten(-2)).view_as(places)
        if held.way == "normed":
            mean, scale, bias = held.constants
            return (x - mean) * scale + bias
        return x * held.constants[0]


def _with_operand(args: Any, index: int, constant: Tensor) -> Any:
    """The arguments with another tensor in the place of the index-th; one that is written into is not replaced."""
    counted = iter(range(1000))

    def put(value: Any) -> Any:
        if isinstance(value, Tensor):
            return constant if next(counted) == index else value
        return type(value)(put(item) for item in value) if isinstance(value, list | tuple) else value

    return tuple(put(value) for value in args)


def _mean_scale_and_bias(func: Any, x: Tensor, y: Tensor, args: Any, kwargs: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """y = (x - mean) · scale + bias, with the statistics of a norm held."""
    name = _short_name(func)
    if name == "normalize":
        scale = torch.where(x == 0, 0.0, y / torch.where(x == 0, 1.0, x))
        return torch.zeros_like(scale), scale, torch.zeros_like(scale)

    def given(keyword: str, place: int, default: Any) -> Any:
        return kwargs.get(keyword, args[place] if len(args) > place else default)

    if name in ("group_norm", "instance_norm"):
        groups = given("num_groups", 1, 1) if name == "group_norm" else x.shape[1]
        parts = x.unflatten(1, (groups, -1)).flatten(2)
        eps = given("eps", 4, 1e-5) if name == "group_norm" else given("eps", 7, 1e-5)
        mean = parts.mean(-1, keepdim=True).expand_as(parts).reshape_as(x)
        spread = (parts.var(-1, correction=0, keepdim=True) + eps).rsqrt().expand_as(parts).reshape_as(x)
        weight, bias = (given("weight", 2, None), given("bias", 3, None)) if name == "group_norm" else (None, None)
        weight, bias = (None if w is None else w.reshape(-1, *[1] * (x.ndim - 2)) for w in (weight, bias))
    else:
        shape = tuple(given("normalized_shape", 1, x.shape[-1:]))
        axes = tuple(range(x.ndim - len(shape), x.ndim))
        weight, bias = given("weight", 2, None), given("bias", 3, None) if name == "layer_norm" else None
        eps = given("eps", 4 if name == "layer_norm" else 3, None)
        mean = torch.zeros_like(x) if name == "rms_norm" else x.mean(axes, keepdim=True)
        spread = ((x - mean).square().mean(axes, keepdim=True) + (1e-5 if eps is None else eps)).rsqrt().expand_as(x)
    scale = spread if weight is None else spread * weight
    return mean, scale, torch.zeros_like(x) if bias is None else bias


class HeldOperator:
    """A module at one of its calls, on one image, as an affine function of its input: with its gates held.

    Args:
        module: of a network that is lent in eval mode.
        arguments: from the input to the positional arguments of the call and those by keyword.
        x: the input of the call.
        script: what is held.
    """

    def __init__(
        self,
        module: nn.Module,
        arguments: Callable[[Tensor], tuple[Any, Mapping[str, Any]]],
        x: Tensor,
        script: HeldScript,
        output_index: int,
    ) -> None:
        self._module, self._arguments, self._script = module, arguments, script
        self.x, self._output_index = x, output_index

    def __call__(self, x: Tensor) -> Tensor:
        args, kwargs = self._arguments(x)
        with _Replaying(self._script), OpenAttention():
            return tensors_in(self._module.forward(*args, **kwargs))[self._output_index]


def recorded(
    module: nn.Module,
    given: tuple[Any, Mapping[str, Any]],
    known: Sequence[tuple[Tensor, Any]],
    grids: Any,
) -> HeldScript:
    """Run a module once and write down what is held.

    Args:
        module: see `listened`, as are the others.
        given: the arguments.
        known: labels of tensors among them.
        grids: the maps of the labels.

    Raises:
        ValueError: which of two factors is the gate cannot be told.
    """
    script = HeldScript()

    @contextmanager
    def within(knowledge: TensorKnowledge) -> Iterator[None]:
        with _Recording(script, knowledge), OpenAttention():
            yield

    listened(module, given, known, grids, within=within)
    return script
