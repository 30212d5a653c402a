"""Which modules are norms: told by what they compute, whatever they are called.

A norm gives γ ⊙ (z - μ) / σ + β with μ and σ the mean and the spread over a group of the numbers of z, with or without
μ. Two inputs tell γ and β; a third must then come out as predicted.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from horinsight.capture import has_own_forward
from horinsight.operators.module_copies import copied

SCALE = 1e4  # of the inputs tried: beside it the ε under a norm's root is nothing
TOLERANCE = 1e-7  # of the largest output, in float64: ε and what is left of the differences that γ is told by

_TORCH_NORMS = tuple(
    getattr(nn, name)
    for name in ("LayerNorm", "RMSNorm", "GroupNorm", "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm",
                 "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d")
    if hasattr(nn, name)
)  # fmt: skip


def is_torch_norm(module: nn.Module) -> bool:
    """Whether a module is one of torch's norms, and computes what that class does.

    Example:
        >>> is_torch_norm(nn.LayerNorm(4)), is_torch_norm(nn.Linear(4, 4))
        (True, False)
    """
    return isinstance(module, _TORCH_NORMS) and _runs_torch(module)


def may_be_norm(module: nn.Module) -> bool:
    """Whether it is worth asking `is_norm`: a module that is not torch's own and holds no other with parameters."""
    return not _runs_torch(module) and not any(True for child in module.children() for _ in child.parameters())


def _runs_torch(module: nn.Module) -> bool:
    return has_own_forward(module) and type(module).forward.__module__.startswith("torch.nn.")


def is_norm(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a module normalises its first tensor: over channels, positions, groups of channels, or all of them.

    Args:
        module: it is copied, and asked in float64.
        args: of a call of it.
        kwargs: likewise.

    Example:
        >>> class Centred(nn.Module):
        ...     def forward(self, z):
        ...         z = z - z.mean(1, keepdim=True)
        ...         return 2 * z / (z * z).mean(1, keepdim=True).sqrt()
        >>> is_norm(Centred(), (torch.randn(2, 6, 3),), {}), is_norm(nn.Sigmoid(), (torch.randn(2, 6, 3),), {})
        (True, False)
    """
    like = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
    if like is None or like.ndim < 2 or not like.is_floating_point() or 0 in like.shape:
        return False
    shape = (2, *like.shape[1:])
    generator = torch.Generator("cpu").manual_seed(0)
    offset = torch.randn(1, *shape[1:], generator=generator, dtype=torch.float64, device="cpu")
    draws = [torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu") + offset for _ in range(3)]
    points = [SCALE * draw.to(like.device) for draw in draws]
    points.append(2 * points[-1])
    try:
        twin = copied(module, module.modules()).double()

        def widened(value: Any, z: Tensor) -> Any:
            if value is like:
                return z
            return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

        with torch.no_grad():
            outputs = [
                twin.forward(*(widened(v, z) for v in args), **{name: widened(v, z) for name, v in kwargs.items()})
                for z in points
            ]
    except Exception:  # whatever a module does with numbers that it was not made for, it is then no norm
        return False
    if not all(isinstance(y, Tensor) and y.shape == shape and y.isfinite().all() for y in outputs):
        return False
    *outputs, rescaled = outputs
    if float((rescaled - outputs[-1]).abs().max()) > TOLERANCE * float(rescaled.abs().max()):
        return False  # a norm does not see how large its input is
    return any(_predicted([normalised(z) for z in points[:3]], outputs) for normalised in _normalisations(shape))


def _normalisations(shape: tuple[int, ...]) -> Iterator[Callable[[Tensor], Tensor]]:
    """Every way to normalise z over some of its axes, or over groups of its channels, alone or with all positions."""
    axes = range(1, len(shape))
    over: list[Callable[..., Tensor]] = [
        partial(_normalised, axes=chosen) for size in axes for chosen in combinations(axes, size)
    ]
    for axis in {1, len(shape) - 1}:
        divisors = [groups for groups in range(2, shape[axis]) if shape[axis] % groups == 0]
        over += [
            partial(_normalised_groups, axis=axis, groups=groups, alone=alone)
            for groups in divisors
            for alone in (False, True)
        ]
    for normalised in over:
        for shifted, spread in ((True, True), (False, False), (False, True)):
            yield partial(normalised, shifted=shifted, spread=spread)


def _normalised(z: Tensor, shifted: bool, spread: bool, *, axes: tuple[int, ...]) -> Tensor:
    """(z - μ) / σ, without μ unless `shifted`; σ about 0 unless `spread` about μ."""
    centred = z - z.mean(axes, keepdim=True)
    sigma = (centred if spread else z).square().mean(axes, keepdim=True).sqrt()
    return (centred if shifted else z) / sigma


def _normalised_groups(z: Tensor, shifted: bool, spread: bool, *, axis: int, groups: int, alone: bool) -> Tensor:
    parts = z.unflatten(axis, (groups, -1))
    axes = tuple(a for a in range(1, parts.ndim) if a != axis and (not alone or a == axis + 1))
    return _normalised(parts, shifted, spread, axes=axes).flatten(axis, axis + 1)


def _predicted(hats: list[Tensor], outputs: list[Tensor]) -> bool:
    """Whether the third output is γ ẑ + β with the γ and β that the first two tell, number by number."""
    change = hats[0] - hats[1]
    told = change.abs() > 1e-2
    gamma = (outputs[0] - outputs[1]) / change.where(told, torch.ones_like(change))
    error = (outputs[2] - outputs[0] - gamma * (hats[2] - hats[0])).abs().where(told, torch.zeros_like(change))
    largest = float(outputs[2].abs().max())
    return bool(told.double().mean() > 0.5) and float(error.max()) <= TOLERANCE * largest
