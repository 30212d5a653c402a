"""Which modules mix positions, told by experiment: change a captured input at one position, see what changes.

It says yes for every module around a mixer as well, and it needs the layout; it is the independent check of
`horinsight.mixers`, which tells the same from labels. Branches that start at zero are drawn anew first.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from horinsight.capture import Call, capture, evaluation


def awakened(model: nn.Module, seed: int = 0) -> nn.Module:
    """A copy whose parameters that are constant (zero scales, last layers that start at zero) are drawn at random."""
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point() and (parameter.numel() == 1 or float(parameter.std()) < 1e-4):
                parameter.copy_(1 + 0.5 * torch.randn(parameter.shape, generator=generator))
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model


def tensors_of(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if is_dataclass(value):
        value = list(vars(value).values())
    return [tensor for item in value for tensor in tensors_of(item)] if isinstance(value, list | tuple) else []


def reach(module: nn.Module, call: Call, axes: tuple[int, ...], *, number: int = 0, seed: int = 0) -> Tensor | None:
    """Which output positions change with one input's element at one position (the middle one along `axes`).

    Other inputs that are the same tensor (a query that is the key and the value) change with it; the rest is held.

    Args:
        module: a module.
        call: one of its calls.
        axes: of the input, along which positions lie.
        number: which of the tensors that went in it is, from 0.
        seed: of the change.

    Returns:
        A boolean tensor over the positions along `axes` of the first output; None where the output has other axes.
    """
    arguments = (*call.inputs, *call.kwargs.values())
    x = tensors_of(arguments)[number]
    generator = torch.Generator().manual_seed(seed)
    place = tuple(slice(x.shape[i] // 2, x.shape[i] // 2 + 1) if i in axes else slice(None) for i in range(x.ndim))
    changed = x.clone()
    changed[place] += torch.randn(changed[place].shape, generator=generator).to(x.dtype)

    def output(one: Tensor) -> Tensor | None:
        given = [one.clone() if value is x else value for value in arguments]
        keywords = dict(zip(call.kwargs, given[len(call.inputs) :], strict=True))
        return next(iter(tensors_of(module(*given[: len(call.inputs)], **keywords))), None)

    with torch.no_grad(), evaluation(module):
        before, after = output(x), output(changed)
    if before is None or after is None or before.ndim != x.ndim or any(before.shape[i] != x.shape[i] for i in axes):
        return None
    differs = (before - after).abs() > 0
    return differs.any(dim=tuple(i for i in range(x.ndim) if i not in axes)) if differs.ndim > len(axes) else differs


def mixes(module: nn.Module, call: Call, axes: tuple[int, ...], *, number: int = 0) -> bool | None:
    """Whether an output position other than the changed one changes; None where that cannot be told."""
    changed = reach(module, call, axes, number=number)
    if changed is None:
        return None
    middle = tuple(side // 2 for side in changed.shape)
    others = changed.clone()
    others[middle] = False
    return bool(others.any())


def called(model: nn.Module, images: Tensor) -> Iterator[tuple[str, nn.Module, Call]]:
    """Every module of a network that is called with a tensor, with its first call."""
    modules = dict(model.named_modules())
    with capture(modules) as calls, torch.no_grad(), evaluation(model):
        model(images)
    for path, several in calls.items():
        if several and any(isinstance(value, Tensor) for value in (*several[0].inputs, *several[0].kwargs.values())):
            yield path, modules[path], several[0]
