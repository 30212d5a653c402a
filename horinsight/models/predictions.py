"""What a classifier says of pictures: probabilities, and the names of its classes."""

from dataclasses import dataclass

import torch
from timm.data import ImageNetInfo
from torch import Tensor, nn

from horinsight.capture import evaluation, run
from horinsight.description import weighted_part
from horinsight.results import Result


@dataclass(frozen=True, eq=False, repr=False)
class Prediction(Result):
    """One class that a classifier takes a picture for.

    Attributes:
        index: of the class, from 0.
        name: of the class.
        probability: softmax over all classes.
    """

    index: int
    name: str
    probability: float


def class_names(model: nn.Module) -> list[str] | None:
    """Names of a classifier's classes where they can be told: ImageNet-1k for 1000, digits for a model made for them.

    Example:
        >>> import timm
        >>> class_names(timm.create_model("hornet_test"))[340]
        'zebra'
    """
    part = weighted_part(model)
    count = getattr(part, "num_classes", None)
    if count == 1000:
        info = ImageNetInfo("imagenet-1k")
        return [info.index_to_description(index).split(",")[0] for index in range(count)]
    architecture = str((getattr(part, "pretrained_cfg", None) or {}).get("architecture"))
    return [str(digit) for digit in range(10)] if count == 10 and "digits" in architecture else None


def predictions(model: nn.Module, images: Tensor, *, count: int = 3) -> list[list[Prediction]]:
    """The most probable classes of each picture.

    Args:
        model: a classifier, (B, 3, H, W) to (B, classes), or a wrapper around one; left as it was.
        images: prepared as the model expects them.
        count: how many classes, the most probable first.

    Returns:
        A list for each picture; empty lists for a model without classes.

    Raises:
        TypeError: `images` is not one tensor.
        ValueError: it does not fit the model.

    Example:
        >>> from horinsight.data.images import sample_image
        >>> from horinsight.data.preprocess import image_batch
        >>> from horinsight.models.registry import create_model
        >>> model = create_model("hornet_digits_iso")
        >>> predictions(model, image_batch(model, [sample_image("digit_3")]))[0][0].name
        '3'
    """
    with evaluation(model), torch.no_grad():
        logits = run(model, images)
    count_of_classes = getattr(weighted_part(model), "num_classes", None)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or count_of_classes == 0:
        return [[] for _ in images]
    names = class_names(model) or []
    if len(names) != logits.shape[1]:
        names = [f"class {index}" for index in range(logits.shape[1])]
    best = logits.float().softmax(dim=1).topk(min(count, logits.shape[1]))
    return [
        [Prediction(index, names[index], value) for value, index in zip(values, indices, strict=True)]
        for values, indices in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
