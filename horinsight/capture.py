"""The only place that touches a foreign module: hooks, modes and replaced forward passes, all of them lent."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


@dataclass(frozen=True)
class Call:
    """One call of a captured module: its positional arguments and its result, as they were (not copied)."""

    inputs: tuple[Any, ...]
    output: Any

    @property
    def input(self) -> Tensor:
        """The first positional argument."""
        return self.inputs[0]


@contextmanager
def capture(
    modules: Mapping[str, nn.Module], *, keep: Callable[[nn.Module, Call], Any] | None = None
) -> Iterator[dict[str, list[Any]]]:
    """Record every call of the given modules while the context is open.

    The hooks are removed when the context closes, whether it ends well, by an error of the caller or by a module that
    raises. Nothing else of the model is touched.

    Args:
        modules: the modules to watch, by the names under which their calls are wanted.
        keep: what to keep of a call, `keep(module, call)`; the call itself when None. Whatever it returns is stored, so
            a reduction here keeps memory small.

    Yields:
        For each name the list of what was kept, in the order of the calls; filled as the model runs.

    Raises:
        TypeError: something that is not a module.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        >>> with capture({"linear": model[0]}) as calls:
        ...     _ = model(torch.zeros(1, 3))
        >>> calls["linear"][0].output.shape
        torch.Size([1, 2])
    """
    for name, module in modules.items():
        if not isinstance(module, nn.Module):
            raise TypeError(f"capture expects modules, got {type(module).__name__} under the name {name!r}.")
    kept: dict[str, list[Any]] = {name: [] for name in modules}

    def hook_for(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            call = Call(inputs, output)
            kept[name].append(call if keep is None else keep(module, call))

        return hook

    handles: list[RemovableHandle] = []
    try:
        handles.extend(module.register_forward_hook(hook_for(name)) for name, module in modules.items())
        yield kept
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def evaluation(module: nn.Module) -> Iterator[nn.Module]:
    """Lend a module in eval mode and with frozen parameters; both are as before when the context closes.

    Args:
        module: any module; each of its submodules gets its own training flag back, each parameter its `requires_grad`.

    Example:
        >>> layer = nn.Dropout().train()
        >>> with evaluation(layer):
        ...     layer.training
        False
        >>> layer.training
        True
    """
    modes = [(part, part.training) for part in module.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    try:
        module.eval()
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield module
    finally:
        for part, training in modes:
            part.training = training
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


@contextmanager
def wrapped_forward(module: nn.Module, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[nn.Module]:
    """Lend a module whose forward pass is `wrap(forward)`; the class's own one is back when the context closes.

    Args:
        module: any module.
        wrap: what to make of its forward function.

    Example:
        >>> import torch
        >>> with wrapped_forward(nn.Identity(), lambda forward: lambda x: 2 * forward(x)) as doubled:
        ...     doubled(torch.ones(1)).item()
        2.0
    """
    own = module.__dict__.get("forward")
    module.__dict__["forward"] = wrap(module.forward)
    try:
        yield module
    finally:
        if own is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = own


def run(model: nn.Module, images: Tensor) -> Tensor:
    """`model(images)`, with the assertion of a model that does not take this size as a ValueError.

    Raises:
        ValueError: the model asserts something about its images (Swin and ViT of timm: their size).

    Example:
        >>> run(nn.Identity(), torch.zeros(1)).item()
        0.0
    """
    try:
        return model(images)
    except AssertionError as error:
        size = "x".join(str(side) for side in images.shape[2:])
        raise ValueError(f"{type(model).__name__} does not take images of {size} pixels: {error}") from error


def dry_run(model: nn.Module, image_size: tuple[int, int]) -> Tensor:
    """A forward pass in eval mode on the meta device: shapes and hooks as always, no weights and no arithmetic.

    Args:
        model: an image network; it stays where it is.
        image_size: (H, W) in pixels.

    Returns:
        The output, a tensor without data.

    Raises:
        ValueError: the network does not take images of this size.

    Example:
        >>> dry_run(nn.Conv2d(3, 8, 4, stride=4), (64, 32)).shape
        torch.Size([1, 8, 16, 8])
    """
    state = {name: tensor.to("meta") for name, tensor in chain(model.named_parameters(), model.named_buffers())}
    in_chans = next((part.in_channels for part in model.modules() if isinstance(part, nn.Conv2d)), 3)
    images = torch.empty(1, in_chans, *image_size, device="meta")
    try:
        with evaluation(model), torch.no_grad():
            return torch.func.functional_call(model, state, (images,))
    except (ValueError, AssertionError, RuntimeError) as error:
        if "meta" in str(error):
            raise ValueError(
                f"{type(model).__name__} cannot be run on shapes alone (torch's meta device), so nothing is counted: "
                f"{str(error).splitlines()[0]}"
            ) from error
        raise ValueError(
            f"{type(model).__name__} does not take images of {image_size[0]}x{image_size[1]} pixels: {error}"
        ) from error
