"""DeepLIFT through products, GELU and LayerNorm: the multipliers that captum's DeepLift has no rule for.

DeepLIFT (Shrikumar et al. 2017) hands a difference of outputs, y - y_0 between an input and its baseline, back to the
inputs. A module's rule is a linear map L with L(x - x_0) = y - y_0, exactly; then the contributions add up to the whole
difference, whatever the depth.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from timm.layers import LayerNorm as TimmLayerNorm
from timm.layers import LayerNorm2d, activations
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d as TorchvisionLayerNorm2d

from horinsight.capture import wrapped_forward
from horinsight.models.elementwise import Product

# captum itself has rules for ReLU, ELU, LeakyReLU, Sigmoid, Tanh and Softplus
SMOOTH = (nn.GELU, nn.SiLU, nn.Mish, activations.GELU, activations.GELUTanh, activations.QuickGELU, activations.Swish)
CHANNELS_LAST_NORMS = (nn.LayerNorm, TimmLayerNorm)
CHANNELS_FIRST_NORMS = (LayerNorm2d, TorchvisionLayerNorm2d)

Rule = Callable[..., Tensor]  # (forward, inputs...) -> the output, whose derivative is the rule's L


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """The inputs' half of a batch and the baselines'."""
    if len(x) % 2:
        raise ValueError(
            f"deep_lift_rules expects the inputs and then as many baselines in one batch, as captum's DeepLift runs a "
            f"model, got a batch of {len(x)}: use it around DeepLift.attribute only."
        )
    first, second = x.detach().chunk(2)
    return first, second


def _twice(x: Tensor) -> Tensor:
    return torch.cat([x, x])


def _mean(x: Tensor) -> Tensor:
    """(x + x_0) / 2, for both halves of the batch."""
    x_1, x_0 = _halves(x)
    return _twice((x_1 + x_0) / 2)


def _product(forward: Callable[..., Tensor], a: Tensor, b: Tensor) -> Tensor:
    """Δ(ab) = (b + b_0)/2 Δa + (a + a_0)/2 Δb: Shapley's value of two players, whole for any a and b."""
    with torch.no_grad():
        y = forward(a, b)
    return y + _mean(b) * (a - a.detach()) + _mean(a) * (b - b.detach())


def _smooth(forward: Callable[..., Tensor], x: Tensor) -> Tensor:
    """Δf = (Δf / Δx) Δx, the rescale rule; where Δx is so small that the quotient would be rounding, f' in the middle.

    The quotient is wrong by rounding over Δx, the middle by f''' Δx²/24: they meet at the third root of the rounding.
    """
    x_1, x_0 = _halves(x)
    with torch.enable_grad():
        middle = ((x_1 + x_0) / 2).requires_grad_()
        (slope,) = torch.autograd.grad(forward(middle).sum(), middle)
    with torch.no_grad():
        y = forward(x.clone())  # some change their input in place
    y_1, y_0 = _halves(y)
    d = x_1 - x_0
    close = d.abs() < torch.finfo(x.dtype).eps ** (1 / 3) * (1 + x_1.abs())
    slope = torch.where(close, slope, (y_1 - y_0) / torch.where(close, 1, d))
    return y + _twice(slope) * (x - x.detach())


def _layer_norm(module: nn.LayerNorm, channels_first: bool, forward: Callable[..., Tensor], x: Tensor) -> Tensor:
    """γ c/s with c = x - mean(x), s² = mean(c²) + ε: the product rule for c times 1/s, the rescale rule for 1/s.

    Δ(1/s) = -Δ(s²) / (s s_0 (s + s_0)), and Δ(s²) = mean((c + c_0) Δc) is the product rule again.
    """
    with torch.no_grad():
        y = forward(x)
    d = x - x.detach()
    dims = (1,) if channels_first else tuple(range(-len(module.normalized_shape), 0))
    c = x.detach() - x.detach().mean(dims, keepdim=True)
    s = (c.square().mean(dims, keepdim=True) + module.eps).sqrt()
    s_1, s_0 = _halves(s)
    dc = d - d.mean(dims, keepdim=True)
    ds2 = 2 * (_mean(c) * dc).mean(dims, keepdim=True)
    dy = _mean(1 / s) * dc - _mean(c) * ds2 / _twice(s_1 * s_0 * (s_1 + s_0))
    if module.weight is not None:
        dy = dy * (module.weight[:, None, None] if channels_first else module.weight)
    return y + dy


def _rule(module: nn.Module) -> Rule | None:
    if isinstance(module, Product):
        return _product
    if isinstance(module, SMOOTH):
        return _smooth
    if isinstance(module, nn.LayerNorm) and type(module) in CHANNELS_LAST_NORMS + CHANNELS_FIRST_NORMS:
        return partial(_layer_norm, module, type(module) in CHANNELS_FIRST_NORMS)
    return None


def _ruled(rule: Rule, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def ruled(*inputs: Tensor) -> Tensor:
        return rule(forward, *inputs) if torch.is_grad_enabled() else forward(*inputs)

    return ruled


@contextmanager
def deep_lift_rules(model: nn.Module) -> Iterator[nn.Module]:
    """Lend a model through whose products, GELUs and LayerNorms captum's DeepLift goes exactly.

    Every forward pass gives the same values as ever; with gradients, the derivatives of the modules below are those of
    their rules. The first half of the batch are the inputs, the second their baselines, as DeepLift, DeepLiftShap and
    LayerDeepLift call a model. What is complete: the contributions add up to f(x) - f(x_0) up to rounding, in any model
    that is made of these, of linear layers (convolutions, pooling by mean, FFTs, layer scale) and of what captum
    has rules for (but its softmax). Other non-linearities keep their gradient: captum's convergence delta tells.

    captum's own table of rules (`SUPPORTED_NON_LINEAR`) is neither read nor changed. It cannot hold these: it takes one
    input a module, and it replaces the gradient of the whole tensor that enters a module, for a norm before a residual
    path that path's too.

    Args:
        model: any module. Rules are for `Product` (in every gⁿConv), for GELU, SiLU and Mish of torch and GELUs of
            timm, for nn.LayerNorm and the LayerNorm2d of timm and of torchvision.

    Yields:
        The model; its modules' own forward passes are back when the context closes.

    Raises:
        ValueError: while open, a forward pass with gradients over an odd number of pictures.

    Example:
        >>> from captum.attr import DeepLift
        >>> from horinsight.models.gnconv import GnConv
        >>> model = nn.Sequential(GnConv(8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
        >>> x, zero = torch.randn(1, 8, 5, 5).double(), torch.zeros(1, 8, 5, 5).double()
        >>> with deep_lift_rules(model):
        ...     parts = DeepLift(model).attribute(x, zero, target=0)
        >>> bool(torch.isclose(parts.sum(), (model(x) - model(zero))[0, 0], atol=1e-12))
        True

    Source: Shrikumar et al. 2017 (arXiv 1704.02685), rescale rule; for products, Shapley's value as in Lundberg and Lee
    2017 (arXiv 1705.07874).
    """
    with ExitStack() as stack:
        for part in model.modules():
            rule: Any = _rule(part)
            if rule is not None:
                stack.enter_context(wrapped_forward(part, partial(_ruled, rule)))
        yield model
