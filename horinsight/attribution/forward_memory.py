"""What a forward pass keeps for its gradients, so that as much is differentiated together as memory allows."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def saved_bytes(forward: Callable[..., Tensor], x: Tensor, *further: Any) -> int:
    """Bytes that one forward pass saves for backward, each piece of memory once.

    Args:
        forward: a model.
        x: its input; gradients are of it.
        *further: its further arguments.

    Raises:
        ValueError: nothing leads from the output to x.

    Example:
        >>> saved_bytes(lambda x: x.exp().sin(), torch.zeros(10))  # exp keeps its output, which is the input of sin
        40
    """
    pieces: dict[int, int] = {}
    weights = list(forward.parameters()) if isinstance(forward, torch.nn.Module) else []
    owned = {weight.untyped_storage().data_ptr() for weight in weights}

    def seen(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            pieces[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(seen, lambda tensor: tensor):
        output = forward(x.detach().clone().requires_grad_(), *further)
    if not output.requires_grad:
        raise ValueError(
            "The output carries no gradient to what is explained (a detach, a torch.no_grad, or nothing that depends "
            "on it): take a method without gradients, such as occlusion or feature_ablation."
        )
    return sum(pieces.values())
