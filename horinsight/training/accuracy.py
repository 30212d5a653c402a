"""How many pictures a classifier gets right."""

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from horinsight.capture import evaluation
from horinsight.data.datasets import LabelledImages, PreparedImages
from horinsight.data.preprocess import preprocessing


def accuracy(model: nn.Module, images: LabelledImages, *, batch_size: int = 128) -> float:
    """Share of the pictures that a model classifies rightly.

    Args:
        model: a classifier of as many classes as the pictures have.
        images: with their labels, prepared as the model expects them.
        batch_size: pictures at once.
    """
    prepared = PreparedImages(images, preprocessing(model))
    with evaluation(model):
        return num_right(model, DataLoader(prepared, batch_size=batch_size), "cpu") / len(images)


@torch.inference_mode()
def num_right(model: nn.Module, loader: DataLoader[tuple[Tensor, int]], device: str) -> int:
    """How many pictures of a loader a model, in eval mode, classifies rightly."""
    return sum(int((model(x.to(device)).argmax(1).cpu() == label).sum()) for x, label in loader)
