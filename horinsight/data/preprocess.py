"""From a picture to what a model of timm takes: resize, crop and normalise as its configuration says."""

from collections.abc import Callable, Sequence

import numpy as np
import timm.data
import torch
from PIL import Image
from torch import Tensor, nn

from horinsight.data.images import image_labels


def preprocessing(model: nn.Module, *, image_size: tuple[int, int] | None = None) -> Callable[[Image.Image], Tensor]:
    """The evaluation transform of a model's timm configuration.

    Args:
        model: a model built by timm (its `pretrained_cfg` says input size, crop, interpolation, mean, std).
        image_size: (H, W) in place of the configured one.

    Returns:
        A function from an RGB picture to a tensor (3, H, W), float32.

    Raises:
        ValueError: the model does not take three channels.

    Example:
        >>> import timm
        >>> preprocessing(timm.create_model("hornet_test"))(Image.new("RGB", (120, 100))).shape
        torch.Size([3, 96, 96])
    """
    config = timm.data.resolve_model_data_config(model)
    channels, *configured = config["input_size"]
    channels = getattr(model, "in_chans", channels)
    if channels != 3:
        raise ValueError(
            f"Pictures have 3 channels, {type(model).__name__} takes {channels}: prepare its input yourself."
        )
    config["input_size"] = (3, *(image_size or configured))
    transform = timm.data.create_transform(**config, is_training=False)
    return lambda image: transform(image.convert("RGB"))


def model_view(model: nn.Module, batch: Tensor) -> np.ndarray:
    """What the model sees, as pictures again: the normalisation undone.

    Args:
        model: the model that the batch was prepared for.
        batch: (B, 3, H, W) from `preprocessing`.

    Returns:
        (B, H, W, 3) uint8.

    Example:
        >>> import timm
        >>> model = timm.create_model("hornet_test")
        >>> model_view(model, image_batch(model, [Image.new("RGB", (120, 100), (10, 200, 30))]))[0, 5, 5].tolist()
        [10, 200, 30]
    """
    config = timm.data.resolve_model_data_config(model)
    mean, std = (torch.tensor(config[name])[:, None, None] for name in ("mean", "std"))
    pixels = (batch.detach().cpu() * std + mean).clamp(0, 1) * 255
    return pixels.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def image_batch(
    model: nn.Module, images: Sequence[Image.Image], *, image_size: tuple[int, int] | None = None
) -> Tensor:
    """Pictures, prepared by `preprocessing` and stacked: (B, 3, H, W), float32.

    The batch remembers what the pictures are called, in `batch.image_names` (`image_labels`), so that the provenance of
    a result names them. This belongs to this very tensor: a slice or a copy of it has no names.

    Raises:
        TypeError: one picture instead of a list.
    """
    if isinstance(images, Image.Image):
        raise TypeError("image_batch expects a list of pictures, got a single one: write [picture].")
    transform = preprocessing(model, image_size=image_size)
    batch = torch.stack([transform(image) for image in images])
    batch.image_names = tuple(image_labels(images))  # type: ignore[attr-defined]
    return batch
