"""From a picture to what a model of timm takes: resize, crop and normalise as its configuration says."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import timm.data
import torch
from PIL import Image
from torch import Tensor, nn

from horinsight.capture import check_batch
from horinsight.data.images import image_labels
from horinsight.description import PICTURE_CHANNELS, data_configuration, image_channels, normalisation_before


def preprocessing(model: nn.Module, *, image_size: tuple[int, int] | None = None) -> Callable[[Image.Image], Tensor]:
    """The evaluation transform of a model's timm configuration.

    In a wrapper (parallel, compiled, averaged, a Sequential) it is that of the model inside. Where the wrapper shifts
    and scales the channels before its model sees them, as `nn.Sequential(normalise, model)` does, that is left to it:
    the model inside gets what its configuration says, normalised once.

    Args:
        model: a model built by timm (its `pretrained_cfg` says input size, crop, interpolation, mean, std), or a
            wrapper around one. One that states nothing gets ImageNet's at 224 pixels.
        image_size: (H, W) in place of the configured one.

    Returns:
        A function from an RGB picture to a tensor (3, H, W), float32.

    Raises:
        ValueError: the model does not take three channels, or has parts made for different pictures.

    Example:
        >>> import timm
        >>> preprocessing(timm.create_model("hornet_test"))(Image.new("RGB", (120, 100))).shape
        torch.Size([3, 96, 96])
    """
    config = _transform_configuration(model)
    _, *configured = config["input_size"]
    size = image_size or (configured[0], configured[1])
    channels = image_channels(model, size)
    if channels != PICTURE_CHANNELS:
        raise ValueError(
            f"Pictures have 3 channels, {type(model).__name__} takes {channels}: prepare its input yourself."
        )
    config["input_size"] = (channels, *size)
    with torch.device("cpu"):  # where the transform makes its numbers, whatever a program has chosen
        transform = timm.data.create_transform(**config, is_training=False)

    def prepared(image: Image.Image) -> Tensor:
        with torch.device("cpu"):
            tensor: Tensor = transform(image.convert("RGB"))
        return tensor

    return prepared


def _transform_configuration(model: nn.Module) -> dict[str, Any]:
    """`data_configuration` with the mean and std that are left for the pictures: (picture - mean) / std enters."""
    config = data_configuration(model)
    m, s = normalisation_before(model)  # the wrapper gives its model (x - m) / s
    mean, std = (torch.tensor(config[name], dtype=torch.float64, device="cpu") for name in ("mean", "std"))
    config["mean"], config["std"] = tuple((mean - m * std / s).tolist()), tuple((std / s).tolist())
    return config


def model_view(model: nn.Module, batch: Tensor) -> np.ndarray:
    """What the model sees, as pictures again: the normalisation undone.

    Args:
        model: the model that the batch was prepared for.
        batch: (B, 3, H, W) from `preprocessing`.

    Returns:
        (B, H, W, 3) uint8.

    Raises:
        TypeError: `batch` is not one tensor.
        ValueError: it is not (B, 3, H, W) in floating point.

    Example:
        >>> import timm
        >>> model = timm.create_model("hornet_test")
        >>> model_view(model, image_batch(model, [Image.new("RGB", (120, 100), (10, 200, 30))]))[0, 5, 5].tolist()
        [10, 200, 30]
    """
    check_batch(batch)
    if batch.shape[1] != PICTURE_CHANNELS or not batch.is_floating_point():
        raise ValueError(
            f"model_view expects a batch from image_batch, (B, 3, H, W) in floating point, got {tuple(batch.shape)} of "
            f"{batch.dtype}."
        )
    config = _transform_configuration(model)
    mean, std = (torch.tensor(config[name], device="cpu")[:, None, None] for name in ("mean", "std"))
    pixels = (batch.detach().cpu().float() * std + mean).clamp(0, 1) * 255
    return pixels.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def image_batch(
    model: nn.Module, images: Sequence[Image.Image], *, image_size: tuple[int, int] | None = None
) -> Tensor:
    """Pictures, prepared by `preprocessing` and stacked: (B, 3, H, W), float32.

    The batch remembers what the pictures are called, in `batch.image_names` (`image_labels`), so that the provenance of
    a result names them. This belongs to this very tensor: a slice or a copy of it has no names.

    Raises:
        TypeError: one picture instead of a list, or something that is no picture.
        ValueError: no picture, or a model that does not take pictures, see `preprocessing`.
    """
    if isinstance(images, Image.Image):
        raise TypeError("image_batch expects a list of pictures, got a single one: write [picture].")
    images = list(images)
    if not images:
        raise ValueError("image_batch expects at least one picture, got an empty list.")
    other = next((type(image).__name__ for image in images if not isinstance(image, Image.Image)), None)
    if other is not None:
        raise TypeError(
            f"image_batch expects pictures (PIL.Image.Image), got {other}: load_image reads a file, "
            "PIL.Image.fromarray takes uint8 numbers."
        )
    transform = preprocessing(model, image_size=image_size)
    batch = torch.stack([transform(image) for image in images])
    batch.image_names = tuple(image_labels(images))  # type: ignore[attr-defined]
    return batch
