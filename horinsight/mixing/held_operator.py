"""A mixer with its gates held: what is left is an affine function of the values that it mixes.

The module runs once while every element of every tensor knows which position it stands for, and what a function of
torch makes of features is written down where it is held fixed:

- the result of softmax, sigmoid and other functions that make weights, and scores of pairs of positions;
- of a product of features the gate: see `value_of_products`;
- of an activation f(a) = a · (f(a) / a) the factor, of a norm its mean and standard deviation, of a division the
  divisor, of a maximum the position where it is taken.

Run again with these as constants, the module is affine in its input: that is checked, and refused where it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from horinsight.hooks import replaced
from horinsight.mixers.operators import tensors_in, words
from horinsight.mixers.tensor_knowledge import Known, TensorKnowledge
from horinsight.mixers.watch import listened
from horinsight.mixing.lineage import Lineage
from horinsight.mixing.value_of_products import Factor, is_paired, value_of_product
from horinsight.operators.open_attention import OpenAttention

_WEIGHTS = frozenset(
    words(
        "softmax log_softmax sigmoid hardsigmoid softplus logsigmoid exp exp2 log cos norm vector_norm std var rsqrt "
        "sqrt reciprocal"
    )
)
_ACTIVATIONS = frozenset(
    words(
        "relu relu6 gelu silu hardswish leaky_relu elu selu celu mish hardtanh tanh prelu pow square clamp abs "
        "softsign softshrink hardshrink tanhshrink threshold sin sinh asinh atan erf expm1 log1p"
    )
)
_NORMS = frozenset(words("layer_norm group_norm instance_norm rms_norm normalize"))
_SUMS = frozenset(words("matmul bmm einsum baddbmm mm"))  # products that add up over an axis
_PRODUCTS = _SUMS | frozenset(words("mul multiply div divide true_divide truediv"))
_MAXIMA: Mapping[Any, Callable[..., Any]] = {
    F.max_pool2d: F.max_pool2d_with_indices,
    torch.max_pool2d: F.max_pool2d_with_indices,
    F.adaptive_max_pool2d: F.adaptive_max_pool2d_with_indices,
}

Way = Literal["result", "factor", "normed", "operands", "places"]


@dataclass(frozen=True, eq=False)
class _Held:
    """What one call of a function holds fixed: its result, a factor, a norm's statistics, operands, or places."""

    way: Way
    constants: tuple[Tensor, ...]
    operands: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class HeldScript:
    """What is held fixed in one run of a module.

    Attributes:
        held: by the number of the call of a function that can hold something.
        gates: parts whose outputs are held.
        outputs: theirs, by the number of the part and of its call.
    """

    held: dict[int, _Held] = field(default_factory=dict)
    gates: Sequence[nn.Module] = ()
    outputs: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def with_outputs(self, changed: Callable[[int, Any, int], Any]) -> ExitStack:
        """A context in which callers of the gates get `changed(gate, output, call)`."""
        with ExitStack() as stack:
            for number, gate in enumerate(self.gates):
                stack.enter_context(replaced(gate, output=partial(changed, number)))
            return stack.pop_all()


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
        self._lineage = Lineage()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = tensors_in((args, tuple(kwargs.values())))
        found = self._called(func, args, kwargs, tensors)
        self._lineage.made(tensors_in(found), of=tensors)
        return found

    def _called(self, func: Any, args: Any, kwargs: dict[str, Any], tensors: Sequence[Tensor]) -> Any:
        if not _can_hold(func):
            return func(*args, **kwargs)
        self._number += 1
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

    def _hold(self, way: Way, *constants: Tensor, operands: tuple[int, ...] = ()) -> None:
        self._script.held[self._number] = _Held(way, tuple(x.detach().clone() for x in constants), operands)

    def _product(self, func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
        tensors = tensors_in(args)
        factors = {
            index: Factor(tensor, known, activated=tensor in self._activated)
            for index, tensor in enumerate(tensors)
            if (known := self._known(tensor)) is not None
        }
        if not factors:
            return func(*args, **kwargs)
        found = func(*args, **kwargs)
        divisor = _divisor(func, name, len(tensors))
        if len(factors) == 1:
            if divisor in factors:
                self._hold("result", found)
                self._knowledge.learn(found, None)
            return found
        outcome = self._known(found)
        if outcome is not None and outcome.labels.partners is not None and not any(map(is_paired, factors.values())):
            self._hold("result", found)  # scores of pairs
            self._knowledge.learn(found, None)
            return found
        value = value_of_product(factors, self._lineage, over_positions=name in _SUMS, outcome=outcome, divisor=divisor)
        held = tuple(index for index in factors if index != value)
        constants = [tensors[index].detach().clone() for index in held]
        for constant in constants:
            self._knowledge.learn(constant, None)
        self._hold("operands", *constants, operands=held)
        return func(*_with_operands(args, dict(zip(held, constants, strict=True))), **kwargs)


def _divisor(func: Any, name: str, num_tensors: int) -> int | None:
    """Which of the tensors among the operands divides; None where none does."""
    reflected = getattr(func, "__name__", "").startswith("__r")
    if name == "reciprocal" or "div" not in name or (num_tensors == 1 and not reflected):
        return None
    return 0 if reflected else 1


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
        if held.way == "operands":
            constants = dict(zip(held.operands, held.constants, strict=True))
            return func(*_with_operands(args, constants), **kwargs)
        x = tensors_in((args, tuple(kwargs.values())))[0]
        if held.way == "places":
            places = held.constants[0]
            return x.flatten(-2).gather(-1, places.flatten(-2)).view_as(places)
        if held.way == "normed":
            mean, scale, bias = held.constants
            return (x - mean) * scale + bias
        return x * held.constants[0]


def _with_operands(args: Any, constants: Mapping[int, Tensor]) -> Any:
    """The arguments with other tensors in the places of some."""
    counted = count()

    def put(value: Any) -> Any:
        if isinstance(value, Tensor):
            return constants.get(next(counted), value)
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
        outputs = self._script.outputs
        gates = self._script.with_outputs(lambda gate, output, call: outputs[gate, call])
        with _Replaying(self._script), OpenAttention(), gates:
            return tensors_in(self._module.forward(*args, **kwargs))[self._output_index]


def recorded(
    module: nn.Module,
    given: tuple[Any, Mapping[str, Any]],
    known: Sequence[tuple[Tensor, Any]],
    grids: Any,
    *,
    gates: Sequence[nn.Module] = (),
) -> HeldScript:
    """Run a module once and write down what is held.

    Args:
        module: see `listened`, as are the others.
        given: the arguments.
        known: labels of tensors among them.
        grids: the maps of the labels.
        gates: parts whose outputs are held.

    Raises:
        ValueError: which of two factors is the gate cannot be told, or a gate gives something else than one tensor.
    """
    script = HeldScript(gates=gates)

    @contextmanager
    def within(knowledge: TensorKnowledge) -> Iterator[None]:
        def held(gate: int, output: Any, call: int) -> Tensor:
            if not isinstance(output, Tensor):
                raise ValueError(f"A gate that is held is expected to give one tensor, got {type(output).__name__}.")
            script.outputs[gate, call] = constant = output.detach().clone()
            knowledge.learn(constant, None)
            return constant

        with _Recording(script, knowledge), OpenAttention(), script.with_outputs(held):
            yield

    listened(module, given, known, grids, within=within)
    return script
