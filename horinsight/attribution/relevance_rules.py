"""Layer-wise relevance propagation (LRP) through gates, layer scales and norms, for zennit and for captum.

LRP hands an output's relevance R back layer by layer. Both libraries have rules for linear layers and for the mean; a
HorNet needs these as well. Each conserves: what it hands on adds up to what it gets.

- a product y = ab: share R to a, (1 - share) R to b. One half each is Shapley's value of two players whose product is
  nothing without both, and the uniform rule of Achtibat et al. 2024 (arXiv 2402.05602, §3.3); share = 1, "signal takes
  all", is what Arras et al. 2019 (arXiv 1909.12114) recommend where b is a gate that says nothing itself. Neither f_k
  nor g_k of a gⁿConv is such a gate (both are linear in the map), so that one half is the default.
- a residual sum y = x + γ z, and the circular convolution of GF: in proportion to what each input adds (the ε rule).
- LayerNorm, GELU and the factor 1/α: R as it is (the identity rule of the same paper, §3.3).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from horinsight.models.elementwise import Product, Scaled, ScaledSum
from horinsight.models.global_local_filter import CircularConv

PROPORTIONAL = (ScaledSum, CircularConv)
PASSED = (Scaled, nn.LayerNorm)  # in zennit
PASSED_BY_CAPTUM = (*PASSED, nn.GELU, nn.Identity, nn.Flatten, DropPath, nn.ModuleList, nn.Sequential)  # zennit knows


class _Reweighted(torch.autograd.Function):
    """x, with a gradient times `weight` while `active()`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, active: Callable[[], bool]) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.active = active
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return (grad * ctx.saved_tensors[0] if ctx.active() else grad), None, None


def _entered(inputs: tuple[Tensor, ...], active: Callable[[], bool] = lambda: True) -> tuple[Tensor, ...]:
    """The inputs of a linear module: the gradient that comes back, times the input, is its relevance."""
    return tuple(_Reweighted.apply(x, x.detach(), active) for x in inputs)


def _left(y: Tensor, stabilizer: float, active: Callable[[], bool] = lambda: True) -> Tensor:
    """The output of a linear module: relevance that comes back is divided by it, before it becomes a gradient."""
    z = y.detach()
    divided: Tensor = _Reweighted.apply(y, 1 / (z + torch.where(z < 0, -stabilizer, stabilizer)), active)
    return divided


def _check_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"share expects the first factor's part of the relevance, from 0 to 1, got {share}.")


def zennit_layer_map(*, share: float = 0.5, stabilizer: float = 1e-6) -> list[tuple[tuple[type[nn.Module], ...], Any]]:
    """The entries that any of zennit's composites needs in its `layer_map` to go through our models.

    With these before its own, a composite has a rule for every module of a HorNet; what conserves and what does not
    follows from its rules for convolutions and linear layers: biases take relevance, unless `zero_params="bias"`, and
    so do stabilisers; z+ drops what comes to a cell without a positive term.

    Args:
        share: the first factor's part of a product's relevance; the first is the running p_k, the second f_k(q_k).
        stabilizer: ε of the residual sums and of the circular convolution.

    Returns:
        Pairs of (types, hook), as `zennit.composites.LayerMapComposite` takes them.

    Raises:
        ValueError: a share outside [0, 1].
        ImportError: zennit is not installed (it is not one of horinsight's dependencies).

    Example:
        >>> from zennit.composites import EpsilonPlus
        >>> from horinsight.models.gnconv import GnConv
        >>> x = torch.randn(1, 8, 5, 5, requires_grad=True)
        >>> with EpsilonPlus(zero_params="bias", layer_map=zennit_layer_map()).context(GnConv(8, 3)) as layer:
        ...     y = layer(x)
        ...     (relevance,) = torch.autograd.grad(y, x, y)
        >>> relevance.shape
        torch.Size([1, 8, 5, 5])

    Source: zennit (Anders et al. 2021, arXiv 2106.13200).
    """
    from zennit.core import Hook
    from zennit.rules import Pass

    _check_share(share)

    class Share(Hook):
        """share R and (1 - share) R."""

        def backward(self, module: nn.Module, grad_input: Any, grad_output: Any) -> tuple[Tensor, Tensor]:
            (relevance,) = grad_output
            return share * relevance, (1 - share) * relevance

    class Proportional(Hook):
        """The ε rule for linear modules of several inputs."""

        def pre_forward(self, module: nn.Module, input: Any) -> Any:
            return _entered(input, lambda: self.active)

        def post_forward(self, module: nn.Module, input: Any, output: Any) -> Any:
            return _left(output, stabilizer, lambda: self.active)

    return [((Product,), Share()), (PROPORTIONAL, Proportional()), (PASSED, Pass())]


@contextmanager
def captum_lrp_rules(
    model: nn.Module, *, share: float = 0.5, stabilizer: float = 1e-9, linear_rule: Callable[[], Any] | None = None
) -> Iterator[nn.Module]:
    """Lend a model whose modules carry the rules (`module.rule`) that captum's LRP asks for.

    captum takes all rules off at the end of each `attribute`, its users' as well: open the context for each call. Rules
    that modules have already stay.

    Args:
        model: a HorNet, or any model of layers that captum or this file knows.
        share: the first factor's part of a product's relevance, see `zennit_layer_map`.
        stabilizer: ε of the residual sums and of the circular convolution.
        linear_rule: makes the rule of each convolution and linear layer; captum's `EpsilonRule`, whose biases take
            relevance, when None. `lambda: GammaRule(0, set_bias_to_zero=True)` conserves.

    Yields:
        The model; the rules are gone when the context closes.

    Raises:
        ValueError: a share outside [0, 1], or a module that neither captum nor this file has a rule for.

    Example:
        >>> from captum.attr import LRP
        >>> from horinsight.models.gnconv import GnConv
        >>> model = nn.Sequential(GnConv(8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> with captum_lrp_rules(model):
        ...     relevance = LRP(model).attribute(torch.randn(1, 8, 5, 5), target=0)
        >>> relevance.shape
        torch.Size([1, 8, 5, 5])

    Source: captum (Kokhlikyan et al. 2020, arXiv 2009.07896), `captum.attr.LRP`.
    """
    from horinsight.attribution.captum_private import (
        SUPPORTED_LAYERS_WITH_RULES,
        SUPPORTED_NON_LINEAR_LAYERS,
        PropagationRule,
    )

    _check_share(share)

    class Relevance(PropagationRule):
        """A rule that hands relevance on without captum's hooks on tensors, which see all users of a tensor at once."""

        def _manipulate_weights(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
            pass

        def forward_hook(self, module: nn.Module, inputs: Any, outputs: Any) -> Any:
            (x,) = inputs
            return outputs.detach() + (x - x.detach()).reshape(outputs.shape)

    class Share(Relevance):
        def forward_hook(self, module: nn.Module, inputs: Any, outputs: Any) -> Any:
            a, b = inputs
            return outputs.detach() + share * (a - a.detach()) + (1 - share) * (b - b.detach())

    class Proportional(Relevance):
        def forward_pre_hook_activations(self, module: nn.Module, inputs: Any) -> Any:
            return _entered(super().forward_pre_hook_activations(module, inputs))

        def forward_hook(self, module: nn.Module, inputs: Any, outputs: Any) -> Any:
            return _left(outputs, stabilizer)

    def rule_of(name: str, module: nn.Module) -> PropagationRule | None:
        if isinstance(module, Product):
            return Share()
        if isinstance(module, PROPORTIONAL):
            return Proportional()
        if isinstance(module, PASSED_BY_CAPTUM):
            return Relevance()
        if linear_rule is not None and isinstance(module, nn.Conv2d | nn.Linear):
            return linear_rule()
        if type(module) in SUPPORTED_LAYERS_WITH_RULES or type(module) in SUPPORTED_NON_LINEAR_LAYERS:
            return None
        raise ValueError(
            f"Neither captum's LRP nor horinsight has a rule for {name} ({type(module).__name__}): "
            "set its attribute `rule` to a PropagationRule before."
        )

    leaves = [(name, part) for name, part in model.named_modules() if not list(part.children())]
    fresh = [part for _, part in leaves if not hasattr(part, "activations")]
    rules = {part: rule_of(name, part) for name, part in leaves if not hasattr(part, "rule")}
    try:
        for part, rule in rules.items():
            if rule is not None:
                part.rule = rule
        yield model
    finally:
        for part in rules:
            part.__dict__.pop("rule", None)
        for part in fresh:
            part.__dict__.pop("activations", None)  # captum leaves these behind
