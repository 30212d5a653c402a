"""What a segmenter is trained on: a class for every pixel, checked before it is compared with logits."""

import torch
import torch.nn.functional as F
from torch import Tensor

from horinsight.models.dense.uper_head import resized_map

IGNORED = 255  # the class of pixels that count nowhere


def checked_targets(targets: Tensor, images: Tensor, num_classes: int) -> Tensor:
    """Targets as int64, if they fit the images and the classes.

    Args:
        targets: (B, H, W), whole numbers from 0 to `num_classes` - 1, or 255 for pixels that do not count.
        images: (B, C, H, W).
        num_classes: of the segmenter.

    Raises:
        TypeError: they are no tensor.
        ValueError: another shape, no whole numbers, a class out of range, or no pixel that counts.

    Example:
        >>> checked_targets(torch.tensor([[[0, 255]]], dtype=torch.uint8), torch.zeros(1, 3, 1, 2), 5)
        tensor([[[  0, 255]]])
    """
    if not isinstance(targets, Tensor):
        raise TypeError(f"targets expects a tensor of classes, got {type(targets).__name__}.")
    wanted = (images.shape[0], *images.shape[2:])
    if tuple(targets.shape) != wanted:
        raise ValueError(
            f"targets expects one class a pixel, shape {wanted} for these images, got {tuple(targets.shape)}."
        )
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise ValueError(f"targets expects whole numbers (torch.long or torch.uint8), got {targets.dtype}.")
    targets = targets.long()
    counted = targets != IGNORED
    wrong = targets[counted & ((targets < 0) | (targets >= num_classes))]
    if len(wrong):
        raise ValueError(
            f"targets expects classes from 0 to {num_classes - 1}, or {IGNORED} for pixels that do not count, got "
            f"{', '.join(map(str, wrong.unique()[:5].tolist()))}."
        )
    if not counted.any():
        raise ValueError(f"targets expects at least one pixel that counts, got {IGNORED} everywhere.")
    return targets


def segmentation_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy over the pixels that count, the logits resized to the targets.

    Args:
        logits: (B, classes, h, w).
        targets: (B, H, W), see `checked_targets`.

    Example:
        >>> segmentation_loss(torch.zeros(1, 2, 3, 4), torch.zeros(1, 6, 8, dtype=torch.long))
        tensor(0.6931)
    """
    size = (targets.shape[1], targets.shape[2])
    return F.cross_entropy(resized_map(logits, size), targets, ignore_index=IGNORED)
