"""A function's first derivative at one point as a linear map that autograd differentiates, and that ends there."""

from typing import Any

import torch
from torch import Tensor


class ElementwiseJacobian:
    """J of a function of one tensor that acts on each number by itself."""

    def __init__(self, slope: Tensor) -> None:
        self.slope = slope

    def pullback(self, g: Tensor) -> tuple[Tensor, ...]:
        return (self.slope * g,)

    def pushforward(self, *changes: Tensor) -> Tensor:
        return self.slope * changes[0]


class Jacobian:
    """J of any function at one point, by its recorded graph."""

    def __init__(self, value: Tensor, points: tuple[Tensor, ...]) -> None:
        self.value, self.points = value, points
        self.transposed: tuple[Tensor, tuple[Tensor, ...]] | None = None

    def pullback(self, g: Tensor) -> tuple[Tensor, ...]:
        """Jᵀ g."""
        return torch.autograd.grad(
            self.value, self.points, g, retain_graph=True, allow_unused=True, materialize_grads=True
        )

    def pushforward(self, *changes: Tensor) -> Tensor:
        """J c, as the derivative of u -> Jᵀ u along c: needs only the double backward that torch's functions have."""
        if self.transposed is None:
            with torch.enable_grad():
                u = torch.zeros_like(self.value, requires_grad=True)
                pulled = torch.autograd.grad(
                    self.value, self.points, u, create_graph=True, allow_unused=True, materialize_grads=True
                )
            self.transposed = u, pulled
        u, pulled = self.transposed
        parts = [(p, c) for p, c in zip(pulled, changes, strict=True) if p.requires_grad]
        if not parts:
            return torch.zeros_like(u)
        outputs, cotangents = zip(*parts, strict=True)
        (change,) = torch.autograd.grad(
            outputs, u, cotangents, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return change


# The three directions of one linear map, each of which is differentiated into the next. No part of them depends on the
# point, so a derivative of a derivative is disconnected from x: a structural zero.
class LinearMap(torch.autograd.Function):
    """f(z*) + J (z - z*), evaluated at z = z*: `LinearMap.apply(jacobian, value, *points)`."""

    @staticmethod
    def forward(ctx: Any, jacobian: Any, value: Tensor, *points: Tensor) -> Tensor:
        ctx.jacobian = jacobian
        return value.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *_Pullback.apply(ctx.jacobian, g)


class _Pullback(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, jacobian: Jacobian | ElementwiseJacobian, g: Tensor) -> tuple[Tensor, ...]:
        ctx.jacobian = jacobian
        return jacobian.pullback(g)

    @staticmethod
    def backward(ctx: Any, *changes: Tensor) -> tuple[Tensor | None, ...]:
        return None, _Pushforward.apply(ctx.jacobian, *changes)


class _Pushforward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, jacobian: Jacobian | ElementwiseJacobian, *changes: Tensor) -> Tensor:
        ctx.jacobian = jacobian
        return jacobian.pushforward(*changes)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return None, *_Pullback.apply(ctx.jacobian, g)


TANGENT_NODES = frozenset({"LinearMapBackward", "_PullbackBackward", "_PushforwardBackward"})
