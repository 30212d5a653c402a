"""Named training recipes: the paper's for ImageNet, and one for the digits that a laptop finishes."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How a model is trained; AdamW with a cosine schedule and an average of the weights.

    Attributes:
        name: of the recipe.
        epochs: passes over the data.
        batch_size: pictures per update, over all processes and accumulated parts.
        lr: peak learning rate, for this batch size.
        weight_decay: on matrices and kernels, not on biases, norms and layer scales.
        warmup_epochs: linear from `warmup_lr`.
        warmup_lr: learning rate of the first update.
        min_lr: of the last one.
        smoothing: of the labels.
        mixup: α, 0 for none.
        cutmix: α, 0 for none.
        auto_augment: timm's policy string, "" for none.
        crop_scale: smallest share of the picture that a crop may take.
        crop_ratio: least and largest aspect ratio of a crop.
        hflip: probability of a mirror image.
        color_jitter: strength, 0 for none.
        erasing: probability that a rectangle is erased.
        ema_decay: of the averaged weights.
        drop_path_rate: stochastic depth of the last block.
        clip_grad: largest norm of the gradient, 0 for none.
        options: further arguments of the model's constructor.
    """

    name: str
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float = 0.05
    warmup_epochs: int = 20
    warmup_lr: float = 1e-6
    min_lr: float = 1e-6
    smoothing: float = 0.1
    mixup: float = 0.0
    cutmix: float = 0.0
    auto_augment: str = ""
    crop_scale: float = 0.08
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float = 0.5
    color_jitter: float = 0.0
    erasing: float = 0.0
    ema_decay: float = 0.9999
    drop_path_rate: float = 0.0
    clip_grad: float = 0.0
    options: Mapping[str, float] | None = None


def _imagenet(size: str, drop_path_rate: float, clip_grad: float) -> Recipe:
    """HorNet §4.1 and the published commands: 300 epochs at 4096 pictures a step."""
    return Recipe(
        f"imagenet_{size}",
        epochs=300,
        batch_size=4096,
        lr=4e-3,
        mixup=0.8,
        cutmix=1.0,
        auto_augment="rand-m9-mstd0.5-inc1",
        color_jitter=0.4,
        erasing=0.25,
        drop_path_rate=drop_path_rate,
        clip_grad=clip_grad,
    )


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        # Nothing here depends on how a batch is shared among processes: no mixup, no stochastic depth.
        Recipe(
            "digits",
            epochs=40,
            batch_size=32,
            lr=1.5e-3,
            warmup_epochs=3,
            auto_augment="rand-m5-n2-mstd0.5-inc1",
            crop_scale=0.7,
            crop_ratio=(0.85, 1.15),
            hflip=0.0,
            ema_decay=0.99,
            clip_grad=1.0,
            options={"layer_scale_init_value": 0.1},
        ),
        _imagenet("tiny", 0.2, 5.0),
        _imagenet("small", 0.4, 5.0),
        _imagenet("base", 0.5, 5.0),
    )
}
