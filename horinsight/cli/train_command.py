"""`horinsight train`: train a model on the digits or on a folder of images."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from horinsight.cli.model_options import required_model_option
from horinsight.cli.value_options import value_options
from horinsight.training.training_options import RecipeOptions, TrainingOptions

if TYPE_CHECKING:
    from horinsight.data.datasets import LabelledImages
    from horinsight.training.training_run import EpochLog


@click.command("train")
@required_model_option
@click.option(
    "--data",
    required=True,
    metavar="digits|DIR",
    help="The handwritten digits that come along, or a folder with train/CLASS/*.jpg and val/CLASS/*.jpg.",
)
@click.option("--output", type=click.Path(path_type=Path), required=True, metavar="DIR", help="For the checkpoints.")
@value_options(RecipeOptions, name="wanted")
@value_options(TrainingOptions)
def command(model_name: str, data: str, output: Path, wanted: RecipeOptions, options: TrainingOptions) -> None:
    """Train a model, with timm's optimiser, schedule, augmentation and averaging of weights.

    DIR gets checkpoint.pth after each epoch (present and averaged weights, in the published layout), log.jsonl, and at
    the end weights.safetensors (averaged). A run that was killed goes on with --resume and ends with the same weights.
    For several processes: torchrun --nproc-per-node 2 -m horinsight train ...

    \b
    Examples:
      horinsight train --model hornet_digits_iso --data digits --output digits_run
      horinsight train --model hornet_tiny_7x7 --data imagenet --recipe imagenet_tiny --accumulate 64 --output run
    """
    from horinsight.training.processes import processes_of_torchrun
    from horinsight.training.trainer import WEIGHTS, train
    from horinsight.training.training_run import CHECKPOINT

    images, held_out = _data(data)
    recipe = wanted.recipe()
    if not options.resume and (output / CHECKPOINT).exists():
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
        trained = train(model_name, images, held_out, recipe, output, options=options, on_epoch=show)
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
