"""A forward pass on shapes alone: hooks and modules as always, no weights and no arithmetic, any size."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from horinsight.capture import evaluation, first_line


class _WithoutData(TorchFunctionMode):
    """Hands every function of torch, instead of a tensor, its shape on the meta device; for this thread alone.

    So the model keeps its weights, and other threads may use them meanwhile.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._known = {id(tensor): tensor.to("meta") for tensor in chain(model.parameters(), model.buffers())}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        bare = self._bare(args)
        found = func(*bare, **self._bare(dict(kwargs or {})))
        # what wrote into a tensor gives that tensor back: the module may keep it (x += 1)
        return args[0] if args and found is bare[0] else found

    def _bare(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            if value.is_meta:
                return value
            known = self._known.get(id(value))
            return value.detach().to("meta") if known is None else known
        if type(value) in (tuple, list):
            return type(value)(self._bare(item) for item in value)
        if type(value) is dict:
            return {key: self._bare(item) for key, item in value.items()}
        return value


@contextmanager
def _nothing_noted(model: nn.Module) -> Iterator[None]:
    """What the modules note in their attributes and buffers while they run on shapes (caches, counts) is taken back."""
    kept = [(now, dict(now)) for part in model.modules() for now in (part.__dict__, part._buffers)]
    try:
        yield
    finally:
        for now, before in kept:
            for name in {**before, **now}:
                was, is_now = before.get(name), now.get(name)
                if name == "training" or callable(was) or callable(is_now):
                    continue  # modes and methods are lent, and given back by who borrowed them
                if name not in before:
                    now.pop(name, None)
                elif was is not is_now:
                    now[name] = was


def check_image_size(image_size: object) -> None:
    """Refuse what is no size of images.

    Raises:
        TypeError: it is no pair of whole numbers.
    """
    if not isinstance(image_size, tuple | list) or [hasattr(side, "__index__") for side in image_size] != [True, True]:
        raise TypeError(f"An image size is expected as (H, W) in pixels, two whole numbers, got {image_size!r}.")


def dry_run(model: nn.Module, image_size: tuple[int, int], *, in_chans: int = 3) -> Tensor:
    """A forward pass in eval mode on the meta device, in the model's own precision.

    Args:
        model: an image network; it stays where it is.
        image_size: (H, W) in pixels.
        in_chans: channels of an image.

    Returns:
        The output, a tensor without data.

    Raises:
        ValueError: the network does not take images of this size, or cannot do without numbers.
        TypeError: the size is no pair of whole numbers.

    Example:
        >>> dry_run(nn.Conv2d(3, 8, 4, stride=4), (64, 32)).shape
        torch.Size([1, 8, 16, 8])
    """
    check_image_size(image_size)
    dtype = next((weight.dtype for weight in model.parameters() if weight.is_floating_point()), torch.float32)
    images = torch.empty(1, in_chans, *image_size, device="meta", dtype=dtype)
    try:
        with evaluation(model), torch.no_grad(), _nothing_noted(model), _WithoutData(model):
            output: Tensor = model(images)
            return output
    except Exception as error:
        if any(word in str(error) for word in ("meta", "fake impl")):
            raise ValueError(
                f"{type(model).__name__} cannot be run on shapes alone (torch's meta device), so nothing is counted: "
                f"{first_line(error)}."
            ) from error
        raise ValueError(
            f"{type(model).__name__} does not take images of {image_size[0]}x{image_size[1]} pixels: "
            f"{first_line(error)}."
        ) from error
