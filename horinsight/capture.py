"""The only place that touches a foreign module: hooks, modes and replaced forward passes, all of them lent."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.stateless import _reparametrize_module
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
    """Lend a module in eval mode, with frozen parameters and `as_written`; all is as before when the context closes.

    Args:
        module: any module; each of its submodules gets its own training flag back, each parameter its `requires_grad`
            (in place of those made under `torch.inference_mode`, which autograd cannot record, copies are lent).

    Example:
        >>> layer = nn.Dropout().train()
        >>> with evaluation(layer):
        ...     layer.training
        False
        >>> layer.training
        True
    """
    modes = [(part, part.training) for part in module.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in module.parameters() if not parameter.is_inference()]
    try:
        module.eval()
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        with as_written(module), _recordable(module):
            yield module
    finally:
        for part, training in modes:
            part.training = training
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


@contextmanager
def wrapped_forward(
    module: nn.Module, wrap: Callable[[Callable[..., Any]], Callable[..., Any]], *, method: str = "forward"
) -> Iterator[nn.Module]:
    """Lend a module whose forward pass is `wrap(forward)`; the class's own one is back when the context closes.

    Args:
        module: any module.
        wrap: what to make of its forward function.
        method: another method that is called in its place, such as timm's `forward_features`.

    Example:
        >>> import torch
        >>> with wrapped_forward(nn.Identity(), lambda forward: lambda x: 2 * forward(x)) as doubled:
        ...     doubled(torch.ones(1)).item()
        2.0
    """
    own = module.__dict__.get(method)
    module.__dict__[method] = wrap(getattr(module, method))
    try:
        yield module
    finally:
        if own is None:
            del module.__dict__[method]
        else:
            module.__dict__[method] = own


@contextmanager
def _recordable(module: nn.Module) -> Iterator[None]:
    """Lend copies of the tensors that were made under `torch.inference_mode`, unless it is on anyway."""
    registries: list[dict[str, Any]] = [own for part in module.modules() for own in (part._parameters, part._buffers)]
    kept = [(own, name, value) for own in registries for name, value in own.items() if value is not None]
    kept = [entry for entry in kept if entry[2].is_inference() and not torch.is_inference_mode_enabled()]
    copies = {id(value): value.detach().clone() for _, _, value in kept}  # a shared weight stays shared
    try:
        for own, name, value in kept:
            own[name] = copies[id(value)]
        yield
    finally:
        for own, name, value in kept:
            own[name] = value


@contextmanager
def as_written(module: nn.Module) -> Iterator[nn.Module]:
    """Lend a module with its compiled and parallel parts called as they are written, one process, one device, eagerly.

    Compiled code does not look at hooks that come after it; `DistributedDataParallel` waits for other processes, and
    `DataParallel` runs on copies.

    Args:
        module: any module, itself or its parts in `torch.compile`, `Module.compile` or torch's parallel wrappers.

    Example:
        >>> from torch.nn import DataParallel
        >>> with as_written(DataParallel(nn.Identity())) as lent:
        ...     lent.forward == lent.module.__call__
        True
    """
    compiled = [(part, part._compiled_call_impl) for part in module.modules() if part._compiled_call_impl is not None]
    try:
        with ExitStack() as stack:
            for part, _ in compiled:
                part._compiled_call_impl = None
            for part in module.modules():
                inner = called_through(part)
                if inner is not None:
                    stack.enter_context(wrapped_forward(part, partial(_instead, inner.__call__)))
            yield module
    finally:
        for part, implementation in compiled:
            part._compiled_call_impl = implementation


def _instead(call: Callable[..., Any], _: Callable[..., Any]) -> Callable[..., Any]:
    return call


def called_through(module: nn.Module) -> nn.Module | None:
    """The module inside a compiled or parallel wrapper, which computes nothing by itself; None for other modules.

    Example:
        >>> inner = nn.ReLU()
        >>> called_through(nn.DataParallel(inner)) is inner, called_through(inner)
        (True, None)
    """
    if "_orig_mod" in module._modules:  # torch.compile's, whose class costs a second to import
        return module._modules["_orig_mod"]
    return module.module if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel) else None


def run(model: nn.Module, images: Tensor) -> Tensor:
    """`model(images)`, with images that the model does not take as one line.

    Raises:
        TypeError: `images` is not one tensor.
        ValueError: it is not (B, C, H, W), has another dtype or device than the model's weights, or the model asserts
            something about it (Swin and ViT of timm: their size).

    Example:
        >>> run(nn.AvgPool2d(2), torch.zeros(1, 1, 2, 2)).item()
        0.0
    """
    check_batch(images)
    with misfits_explained(model, images):
        return model(images)


@contextmanager
def misfits_explained(module: nn.Module, x: Tensor) -> Iterator[None]:
    """Turn the error of a module that was not made for x into one line that says so.

    Raises:
        ValueError: x has another dtype, device or number of channels than the module takes, or the module asserts
            something about it.
    """
    try:
        yield
    except AssertionError as error:
        size = "x".join(str(side) for side in x.shape[2:])
        raise ValueError(f"{type(module).__name__} does not take images of {size} pixels: {error}") from error
    except (RuntimeError, TypeError) as error:
        reason = _misfit_of(module, x, error)
        if reason is None:
            raise
        raise ValueError(f"{type(module).__name__} {reason}") from error


def _misfit_of(module: nn.Module, x: Tensor, error: Exception) -> str | None:
    """Why a module failed on x, where it is x; None for other errors."""
    weights = [tensor for tensor in module.parameters() if tensor.is_floating_point()]
    if weights and weights[0].is_meta and not x.is_meta:
        return "is on the meta device, without weights: build it with create_model."
    if weights and (x.dtype, x.device.type) not in {(value.dtype, value.device.type) for value in weights}:
        dtype, device = weights[0].dtype, weights[0].device
        convert = f"convert it with .to({str(device)!r}, {dtype})"
        advice = convert if x.is_floating_point() else "prepare pictures with image_batch(model, pictures)"
        return f"computes in {_short(dtype)} on {device}, got {_short(x.dtype)} on {x.device}: {advice}."
    if any(words in str(error) for words in ("channels", "number of dimensions")):
        return f"does not take images of shape {tuple(x.shape)}: {_first_line(error)}."
    return None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def check_batch(images: object) -> None:
    """Refuse what is no batch of images.

    Raises:
        TypeError: not one tensor.
        ValueError: not four dimensions, or no image.

    Example:
        >>> check_batch([torch.zeros(3, 8, 8)])
        Traceback (most recent call last):
            ...
        TypeError: Expected images as one tensor (B, C, H, W), got a list of Tensor: stack tensors with torch.stack, ...
    """
    if not isinstance(images, Tensor):
        what = type(images).__name__
        if isinstance(images, list | tuple) and images:
            what = f"a {what} of {type(images[0]).__name__}"
        raise TypeError(
            f"Expected images as one tensor (B, C, H, W), got {what}: stack tensors with torch.stack, prepare pictures "
            "with image_batch(model, pictures)."
        )
    if images.ndim != 4:
        advice = ": add a batch dimension, images[None]" if images.ndim == 3 else ""
        raise ValueError(f"Expected images of shape (B, C, H, W), got {tuple(images.shape)}{advice}.")
    if not len(images):
        raise ValueError(f"Expected at least one image, got a batch of shape {tuple(images.shape)}.")


def dry_run(model: nn.Module, image_size: tuple[int, int], *, in_chans: int = 3) -> Tensor:
    """A forward pass in eval mode on the meta device: shapes and hooks as always, no weights and no arithmetic.

    Args:
        model: an image network; it stays where it is.
        image_size: (H, W) in pixels.
        in_chans: channels of an image.

    Returns:
        The output, a tensor without data.

    Raises:
        ValueError: the network does not take images of this size.
        TypeError: the size is no pair of whole numbers.

    Example:
        >>> dry_run(nn.Conv2d(3, 8, 4, stride=4), (64, 32)).shape
        torch.Size([1, 8, 16, 8])
    """
    if not isinstance(image_size, tuple | list) or [hasattr(side, "__index__") for side in image_size] != [True, True]:
        raise TypeError(f"An image size is expected as (H, W) in pixels, two whole numbers, got {image_size!r}.")
    state = {name: tensor.to("meta") for name, tensor in chain(model.named_parameters(), model.named_buffers())}
    images = torch.empty(1, in_chans, *image_size, device="meta")
    try:
        with evaluation(model), torch.no_grad(), _reparametrize_module(model, state):
            return model(images)
    except (ValueError, AssertionError, RuntimeError) as error:
        if any(word in str(error) for word in ("meta", "fake impl")):
            raise ValueError(
                f"{type(model).__name__} cannot be run on shapes alone (torch's meta device), so nothing is counted: "
                f"{_first_line(error)}."
            ) from error
        raise ValueError(
            f"{type(model).__name__} does not take images of {image_size[0]}x{image_size[1]} pixels: "
            f"{_first_line(error)}."
        ) from error
