"""Batches of images: their size, running a model on one, and what is said to those that do not fit."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from horinsight.cancellation import pause


def image_size_of(images: object) -> tuple[int, int]:
    """(H, W) of a batch of images.

    Raises:
        TypeError: not one tensor.
        ValueError: something else than (B, C, H, W), or no image.

    Example:
        >>> image_size_of(torch.zeros(1, 3, 96, 64))
        (96, 64)
    """
    check_batch(images)
    assert isinstance(images, Tensor)
    return int(images.shape[2]), int(images.shape[3])


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
    pause()
    check_batch(images)
    with misfits_explained(model, images):
        output: Tensor = model(images.clone())  # which a model may normalise in place
    return output


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
        return f"does not take images of shape {tuple(x.shape)}: {first_line(error)}."
    return None


def first_line(error: Exception) -> str:
    """What an error says, in one line and without its full stop."""
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
