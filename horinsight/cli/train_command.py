"""`horinsight train`: train a model on the digits or on a folder of images."""

import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from horinsight.cli.model_options import required_model_option
from horinsight.training.recipe import RECIPES

if TYPE_CHECKING:
    from horinsight.data.datasets import LabelledImages
    from horinsight.training.trainer import EpochLog


@click.command("train")
@required_model_option
@click.option(
    "--data",
    required=True,
    metavar="digits|DIR",
    help="The handwritten digits that come along, or a folder with train/CLASS/*.jpg and val/CLASS/*.jpg.",
)
@click.option("--output", type=click.Path(path_type=Path), required=True, metavar="DIR", help="For the checkpoints.")
@click.option(
    "--recipe",
    "recipe_name",
    type=click.Choice(list(RECIPES)),
    default="digits",
    show_default=True,
    help="Schedule, augmentation and regularisation; imagenet_* are the paper's.",
)
@click.option("--epochs", type=click.IntRange(min=1), metavar="N", help="[default: the recipe's]")
@click.option("--batch-size", type=click.IntRange(min=1), metavar="N", help="Over all processes.  [default: recipe's]")
@click.option("--lr", type=click.FloatRange(min=0, min_open=True), metavar="X", help="Peak.  [default: the recipe's]")
@click.option("--accumulate", type=click.IntRange(min=1), default=1, show_default=True, help="Parts of a batch.")
@click.option("--workers", type=click.IntRange(min=0), default=0, show_default=True, help="Processes for pictures.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, metavar="S")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in DIR, if there is one.")
def command(
    model_name: str,
    data: str,
    output: Path,
    recipe_name: str,
    epochs: int | None,
    batch_size: int | None,
    lr: float | None,
    accumulate: int,
    workers: int,
    device: str,
    seed: int,
    resume: bool,
) -> None:
    """Train a model, with timm's optimiser, schedule, augmentation and averaging of weights.

    DIR gets checkpoint.pth after each epoch (present and averaged weights, in the published layout), log.jsonl, and at
    the end weights.safetensors (averaged). A run that was killed goes on with --resume and ends with the same weights.
    For several processes: torchrun --nproc-per-node 2 -m horinsight train ...

    \b
    Examples:
      horinsight train --model hornet_digits_iso --data digits --output digits_run
      horinsight train --model hornet_tiny_7x7 --data imagenet --recipe imagenet_tiny --accumulate 64 --output run
    """
    from horinsight.training.trainer import CHECKPOINT, WEIGHTS, processes_of_torchrun, train

    images, held_out = _data(data)
    wanted: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "lr": lr}
    given = {key: value for key, value in wanted.items() if value is not None}
    recipe = dataclasses.replace(RECIPES[recipe_name], **given)
    recipe = dataclasses.replace(recipe, warmup_epochs=min(recipe.warmup_epochs, recipe.epochs - 1))
    if not resume and (output / CHECKPOINT).exists():
        raise ValueError(f"{output / CHECKPOINT} is there already: --resume goes on with it, or choose another folder.")
    start = time.monotonic()

    def show(line: "EpochLog") -> None:
        print(
            f"[{line.epoch}/{recipe.epochs}] loss {line.loss:.4f}, accuracy {100 * line.accuracy:.2f} %, "
            f"averaged weights {100 * line.ema_accuracy:.2f} %, {time.monotonic() - start:.0f} s",
            file=sys.stderr,
            flush=True,
        )

    with processes_of_torchrun() as rank:
        trained = train(
            model_name,
            images,
            held_out,
            recipe,
            output,
            seed=seed,
            resume=resume,
            device=device,
            accumulate=accumulate,
            num_workers=workers,
            on_epoch=show,
        )
        if rank == 0:
            last = trained.log[-1]
            click.echo(
                f"held-out accuracy {100 * last.ema_accuracy:.2f} % on {len(held_out)} pictures ({held_out.name})"
            )
            click.echo(f"weights: {output / WEIGHTS}, sha256 of the values {trained.weights_sha256}")


def _data(name: str) -> "tuple[LabelledImages, LabelledImages]":
    from horinsight.data.datasets import digits, image_folder

    if name == "digits" and not Path(name).exists():
        return digits()
    images, held_out = image_folder(Path(name) / "train"), image_folder(Path(name) / "val")
    if images.classes != held_out.classes:
        raise ValueError(f"{name}/train and {name}/val are expected to have the same classes.")
    return images, held_out
