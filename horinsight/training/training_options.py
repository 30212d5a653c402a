"""How a training run is made, apart from its recipe; and which recipe, with what is changed of it."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from horinsight.options import check_fields, option
from horinsight.training.recipe import RECIPES, Recipe

RecipeName = Literal["digits", "imagenet_tiny", "imagenet_small", "imagenet_base"]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of `train`.

    Attributes:
        seed: of the first weights, the order of the pictures and the augmentation.
        device: "cpu" or "cuda".
        accumulate: parts that a batch is computed in, where it does not fit into memory.
        num_workers: processes that prepare pictures.
        resume: go on from the checkpoint in the output folder, if there is one.

    Raises:
        ValueError: a value below its least, or another device.
    """

    accumulate: int = option(1, "Parts of a batch.", flag="--accumulate", metavar="N", least=1, changes_result=False)
    num_workers: int = option(
        0, "Processes for pictures.", flag="--workers", metavar="N", least=0, changes_result=False
    )
    device: Literal["cpu", "cuda"] = option("cpu", "What it computes on.", flag="--device")
    seed: int = option(
        0, "Of the weights, the order and the augmentation.", flag="--seed", metavar="S", least=0, most=2**63 - 1
    )
    resume: bool = option(
        False, "Go on from the checkpoint in DIR, if there is one.", flag="--resume", changes_result=False
    )

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """A recipe by name, and what is changed of it.

    Attributes:
        name: one of `RECIPES`.
        epochs: passes over the data; the recipe's when None.
        batch_size: over all processes; the recipe's when None.
        lr: peak learning rate; the recipe's when None.

    Example:
        >>> RecipeOptions(name="imagenet_tiny", epochs=2).recipe().warmup_epochs
        1
    """

    name: RecipeName = option(
        "digits", "Schedule, augmentation and regularisation; imagenet_* are the paper's.", flag="--recipe"
    )
    epochs: int | None = option(
        None, "Passes over the data.", flag="--epochs", metavar="N", least=1, default_in_words="the recipe's"
    )
    batch_size: int | None = option(
        None, "Over all processes.", flag="--batch-size", metavar="N", least=1, default_in_words="the recipe's"
    )
    lr: float | None = option(
        None, "Peak learning rate.", flag="--lr", metavar="X", above=0, default_in_words="the recipe's"
    )

    def __post_init__(self) -> None:
        check_fields(self)

    def recipe(self) -> Recipe:
        """The recipe with the changes; a warm-up that would not end is shortened."""
        wanted = {"epochs": self.epochs, "batch_size": self.batch_size, "lr": self.lr}
        changed = {key: value for key, value in wanted.items() if value is not None}
        recipe = dataclasses.replace(RECIPES[self.name], **changed)  # type: ignore[arg-type]
        return dataclasses.replace(recipe, warmup_epochs=min(recipe.warmup_epochs, recipe.epochs - 1))
