"""Weights drawn anew, module by module, and brought back bit for bit."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

Redraw = Literal["matching", "init"]


def head_down_stages(model: nn.Module) -> tuple[str, ...]:
    """Names of a model's parts that have weights to redraw, the last declared first: head, blocks, stem.

    The children of the model, and where one is a list or sequence, what is in it (as deep as they are nested); in the
    reverse of the order in which they were declared, which is the one in which most networks run them.

    Example:
        >>> blocks = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> head_down_stages(nn.ModuleDict({"stem": nn.Linear(1, 2), "blocks": blocks}))
        ('blocks.0', 'stem')
    """

    def parts(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
        for name, child in module.named_children():
            if type(child) in (nn.Sequential, nn.ModuleList):
                yield from parts(child, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", child

    return tuple(reversed([name for name, part in parts(model, "") if redrawable(part)[0]]))


def redrawable(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Parameters of a module and of all within that are redrawn, and those that are kept, by their names in it.

    Redrawn: a parameter with two dimensions and more that are longer than 1, the weight of a linear layer or
    convolution, and the bias beside either. Kept: all else, which are the scales and shifts of norms, layer scales,
    temperatures: with a layer scale of 1e-6 as a constructor has it, every redrawn block would do nothing.
    """
    redrawn: dict[str, Tensor] = {}
    kept: dict[str, Tensor] = {}
    for path, part in module.named_modules():
        own = dict(part.named_parameters(recurse=False))
        wide = {name for name, weight in own.items() if sum(side > 1 for side in weight.shape) >= 2}
        if isinstance(part, nn.Linear | nn.modules.conv._ConvNd):
            wide.add("weight")
        if wide:
            wide |= {name for name in own if name.endswith("bias")}
        for name, weight in own.items():
            (redrawn if name in wide else kept)[f"{path}.{name}" if path else name] = weight
    return redrawn, kept


@contextmanager
def restored_parameters(model: nn.Module) -> Iterator[nn.Module]:
    """Lend a model whose parameters and buffers are, afterwards, bit for bit what they were, also after an error."""
    tensors = [*model.parameters(), *model.buffers()]
    before = [tensor.detach().clone() for tensor in tensors]
    try:
        yield model
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)


def redraw(module: nn.Module, how: Redraw, generator_seed: int) -> None:
    """Draw the weights of a module anew, in place; what is kept is kept (`redrawable`).

    Args:
        module: any module.
        how: "matching", normal numbers with mean 0 and the root mean square that each trained tensor has; "init", by
            each part's own `reset_parameters`, where it has one, else matching.
        generator_seed: of torch's generator, which is afterwards as it was.
    """
    redrawn, kept = redrawable(module)
    held = {name: weight.detach().clone() for name, weight in kept.items()}
    sizes = {name: weight.detach().abs().double().square().mean().sqrt() for name, weight in redrawn.items()}
    devices = sorted({weight.device for weight in redrawn.values() if weight.device.type == "cuda"}, key=str)
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        torch.manual_seed(generator_seed)
        done: set[str] = set()
        if how == "init":
            for path, part in module.named_modules():
                own = [f"{path}.{name}" if path else name for name, _ in part.named_parameters(recurse=False)]
                if callable(getattr(part, "reset_parameters", None)) and any(name in redrawn for name in own):
                    part.reset_parameters()
                    done.update(own)
        for name, weight in redrawn.items():
            if name not in done:
                kind = torch.complex128 if weight.is_complex() else torch.float64
                weight.copy_(torch.randn(weight.shape, dtype=kind, device="cpu").to(weight.device) * sizes[name])
        for name, weight in kept.items():
            weight.copy_(held[name])


def check_stages(model: nn.Module, stages: Sequence[str]) -> None:
    """Refuse names that are no modules of the model, and those without weights to redraw.

    Raises:
        ValueError: says which.
    """
    modules = dict(model.named_modules())
    for name in stages:
        if name not in modules:
            raise ValueError(f"Stages are names of the model's modules, got {name!r}: see head_down_stages(model).")
        if not redrawable(modules[name])[0]:
            raise ValueError(f"The stage {name!r} has no weights to redraw: leave it out.")
    if not stages:
        raise ValueError("Expected at least one stage with weights to redraw, got none.")
