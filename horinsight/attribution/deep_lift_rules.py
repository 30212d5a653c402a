"""DeepLIFT through any network: rules for all that captum's DeepLift has no rule for, however it is written.

DeepLIFT (Shrikumar et al. 2017) hands a difference of outputs, y - y_0 between an input and its baseline, back to the
inputs. A function's rule is a linear map L with L(x - x_0) = y - y_0, exactly; then the contributions add up to the
whole difference, whatever the depth.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from horinsight.attribution.captum_private import DEEP_LIFTS
from horinsight.attribution.difference_mode import DifferenceRules
from horinsight.attribution.gnconv_shares import with_fair_shares
from horinsight.attribution.whole_difference import culprits, missing_part
from horinsight.capture import evaluation, wrapped_forward
from horinsight.models.gnconv import GnConv
from horinsight.torch_private import tree_map_only

GnConvProducts = Literal["recursive", "fair"]

Forward = Callable[..., Any]


def _tensors(values: Any) -> list[Tensor]:
    found: dict[int, Tensor] = {}
    tree_map_only(Tensor, lambda x: found.setdefault(id(x), x), values)
    return list(found.values())  # each once


def _differentiable(values: Any) -> list[Tensor]:
    return [x for x in _tensors(values) if x.requires_grad and x.is_floating_point()]


class _Rules:
    """The rules of one context: on while the outermost of the lent modules runs."""

    def __init__(self) -> None:
        self.mode: DifferenceRules | None = None

    def around(self, forward: Forward) -> Forward:
        def ruled(*args: Any, **kwargs: Any) -> Any:
            if self.mode is not None or not torch.is_grad_enabled():
                return forward(*args, **kwargs)
            num = len(next((x for x in _tensors((args, kwargs)) if x.ndim), ()))
            if num % 2:
                raise ValueError(
                    f"deep_lift_rules expects the inputs and then as many baselines in one batch, as captum's DeepLift "
                    f"runs a model, got a batch of {num}: use it around DeepLift.attribute only."
                )
            if not _differentiable((args, kwargs)):
                return forward(*args, **kwargs)
            return self._whole(forward, args, kwargs, num)

        return ruled

    def _whole(self, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any], num: int) -> Any:
        def first_half(x: Tensor) -> Tensor:
            half = x.detach()[: num // 2] if x.ndim and len(x) == num else x.detach()
            return half.requires_grad_(x.requires_grad)

        half_args, half_kwargs = tree_map_only(Tensor, first_half, (args, kwargs))
        gap = 0.0
        for keep in (False, True):  # the second time only for networks that have put something outside of the batch
            half = DifferenceRules(keep=keep)
            self._run(half, forward, half_args, half_kwargs)
            mode = DifferenceRules(half)
            output, inputs, outputs = self._run(mode, forward, args, kwargs)
            gap = missing_part(inputs, outputs) if outputs else 0.0
            if gap <= mode.coarsest**0.5:
                return output
        blame = culprits(lambda seen: _differentiable(self._run(seen, forward, half_args, half_kwargs)[0]))
        raise ValueError(
            f"deep_lift_rules expects functions whose rules hand back the whole difference of outputs, but "
            f"{gap:.1g} of it is amiss: {blame}."
        )

    def _run(self, mode: DifferenceRules, forward: Forward, args: Any, kwargs: Any) -> tuple[Any, list[Any], list[Any]]:
        """The output, and the inputs and outputs each with its partners."""
        self.mode = mode
        try:
            inputs = [(x, mode.partner(x)) for x in _differentiable((args, kwargs))]
            args, kwargs = tree_map_only(Tensor, lambda x: x.clone() if x.requires_grad else x, (args, kwargs))
            with mode:  # on copies, for networks that write into what they are given
                output = forward(*args, **kwargs)
            return output, inputs, [(y, mode.partner(y)) for y in _differentiable(output)]
        finally:
            self.mode = None

    @staticmethod
    def without_captums(apply: Forward) -> Forward:
        """`module.apply`, with which captum's DeepLift hooks the modules of its own table: they have rules already."""

        def applied(fn: Forward) -> Any:
            owner = getattr(apply, "__self__", None)
            return owner if getattr(fn, "__module__", "") in DEEP_LIFTS else apply(fn)

        return applied


@contextmanager
def deep_lift_rules(model: nn.Module, *, gnconv_products: GnConvProducts = "recursive") -> Iterator[nn.Module]:
    """Lend a model through which captum's DeepLift goes exactly: contributions add up to f(x) - f(x_0) up to rounding.

    While open, the model is in eval mode and its parameters are frozen. Every forward pass gives the same values as
    ever; with gradients, the derivatives of its functions are those of their rules. The first half of the batch are the
    inputs, the second their baselines, as DeepLift, DeepLiftShap and LayerDeepLift call a model or a part of it.

    The rules, for modules, functions, methods and operators, in place or not: Δf / Δx for pointwise functions; for
    products of features (also matmul, einsum, dynamic convolutions) each factor's Shapley value, Δ(ab) = (b + b_0)/2 Δa
    + (a + a_0)/2 Δb; a quotient is a product with the reciprocal; norms and fused attention are written out; softmax is
    exp(x - log Σ exp x); the largest of several is captum's. What is linear keeps its gradient. Whether all of the
    difference is handed back is checked in each forward pass, by one more backward pass; what has no rule (recurrences,
    sorting, cumulative products, what depends on the input without a gradient) is named.

    captum's own table of rules (`SUPPORTED_NON_LINEAR`) is neither read nor changed, and not used inside the model: its
    softmax is not complete, and it takes a module once.

    Args:
        model: any module in which positions and features meet by convolutions, linear maps, norms, pointwise functions,
            attention, products and maxima.
        gnconv_products: how the n products of a `GnConv` are split: "recursive", each by halves, so that f_{n-1} has a
            half, f_{n-2} a quarter; or "fair", each of the n + 1 factors its Shapley value, from a baseline of 0 (and
            without biases) 1/(n + 1) each.

    Yields:
        The model; its modules' own forward passes are back when the context closes.

    Raises:
        ValueError: an unknown `gnconv_products`, or "fair" for a model without a `GnConv`; while open, a forward pass
            with gradients over an odd number of pictures, or one whose difference is not handed back whole.

    Example:
        >>> from captum.attr import DeepLift
        >>> model = nn.Sequential(GnConv(8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
        >>> x, zero = torch.randn(1, 8, 5, 5).double(), torch.zeros(1, 8, 5, 5).double()
        >>> with deep_lift_rules(model):
        ...     parts = DeepLift(model).attribute(x, zero, target=0)
        >>> bool(torch.isclose(parts.sum(), (model(x) - model(zero))[0, 0], atol=1e-12))
        True

    Source: Shrikumar et al. 2017 (arXiv 1704.02685), rescale rule; for products, Shapley's value as in Lundberg and Lee
    2017 (arXiv 1705.07874).
    """
    if gnconv_products not in get_args(GnConvProducts):
        raise ValueError(f'gnconv_products expects "recursive" or "fair", got {gnconv_products!r}.')
    gnconvs = [part for part in model.modules() if isinstance(part, GnConv)] if gnconv_products == "fair" else []
    if gnconv_products == "fair" and not gnconvs:
        raise ValueError(
            f'gnconv_products="fair" expects a model with a GnConv, got {type(model).__name__} without: leave it out.'
        )
    rules = _Rules()
    with ExitStack() as stack:
        stack.enter_context(evaluation(model))
        for gnconv in gnconvs:
            stack.enter_context(wrapped_forward(gnconv, with_fair_shares(gnconv, lambda: rules.mode)))
        for part in model.modules():
            stack.enter_context(wrapped_forward(part, rules.around))
            stack.enter_context(wrapped_forward(part, rules.without_captums, method="apply"))
        yield model
