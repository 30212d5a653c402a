"""Options that name a model, its images and its blocks, the same for every command."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from PIL import Image

from horinsight.data.images import DIGITS, SAMPLES, image_files, image_labels, load_image, sample_image

if TYPE_CHECKING:
    from torch import nn

MAX_BLOCK_INDEX = 9999  # keeps `--blocks 1-99999999999` from filling the memory

TRAINED_MODEL = "hornet_digits_iso"

MAX_LISTED = 40  # models of timm, each of which is built to be counted

C = TypeVar("C", bound=Callable[..., Any])


@dataclass(frozen=True)
class Weights:
    """What `weights_options` gives a command."""

    checkpoint: Path | None
    ema: bool
    partial: bool
    resize_filters: bool
    rename_in_order: bool
    num_classes: int | None
    seed: int


class SpreadCommand(click.Command):
    """A command on which `--images a b c` means `--images a --images b --images c`."""

    SPREAD = ("--images",)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the option before each further value, then parse as usual."""
        spread: list[str] = []
        current: str | None = None
        taken = 0
        for argument in args:
            if argument.startswith("-") and argument != "-":
                name, equals, _ = argument.partition("=")
                current, taken = (name, int(bool(equals))) if name in self.SPREAD else (None, 0)
            elif current is not None:
                if taken:
                    spread.append(current)
                taken += 1
            spread.append(argument)
        return super().parse_args(ctx, spread)


def model_option(command: C) -> C:
    """`--model`, by default the one that comes trained."""
    return click.option(
        "--model",
        "model_name",
        default=TRAINED_MODEL,
        show_default=True,
        metavar="NAME",
        callback=_model_name,
        help="See `horinsight models`.",
    )(command)


def required_model_option(command: C) -> C:
    """`--model`, which must be given."""
    return click.option(
        "--model", "model_name", required=True, metavar="NAME", callback=_model_name, help="See `horinsight models`."
    )(command)


def image_options(default: str) -> Callable[[C], C]:
    """`--images` and `--image-size`; the default in words."""
    return lambda command: _image_options(command, default)


def _image_options(command: C, default: str) -> C:
    command = click.option(
        "--image-size",
        type=click.IntRange(min=1),
        metavar="S",
        help="Side in pixels to resize the images to.  [default: the model's]",
    )(command)
    return click.option(
        "--images",
        multiple=True,
        metavar="P ...",
        help=f"Image files, folders of them, or samples that come along: "
        f"{', '.join(SAMPLES)}, digit_0 to digit_9.  [default: {default}]",
    )(command)


def blocks_option(default: str) -> Callable[[C], C]:
    """`--blocks`; the default in words."""
    return click.option(
        "--blocks",
        metavar="1,3-5",
        callback=_block_indices,
        help=f"Indices from `horinsight blocks`.  [default: {default}]",
    )


def weights_options(command: C) -> C:
    """`--checkpoint`, what it needs, and `--seed`: as one argument `weights` of the command."""

    @functools.wraps(command)
    def with_weights(
        *arguments: Any,
        checkpoint: Path | None,
        ema: bool,
        partial: bool,
        resize_filters: bool,
        rename_in_order: bool,
        num_classes: int | None,
        seed: int,
        **options: Any,
    ) -> Any:
        flags = {
            "--ema": ema,
            "--partial": partial,
            "--resize-filters": resize_filters,
            "--rename-in-order": rename_in_order,
        }
        flag = next((name for name, given in flags.items() if given), None)
        if checkpoint is None and flag:
            raise click.UsageError(f"{flag} says how to read a checkpoint: give --checkpoint FILE too.")
        chosen = Weights(checkpoint, ema, partial, resize_filters, rename_in_order, num_classes, seed)
        return command(*arguments, weights=chosen, **options)

    options = [
        click.option(
            "--seed",
            type=click.IntRange(0, 2**63 - 1),
            default=0,
            show_default=True,
            metavar="S",
            help="Of the draws, and of random weights.",
        ),
        click.option(
            "--num-classes",
            type=click.IntRange(min=0),
            metavar="N",
            help="Classes of the checkpoint, if not the model's.",
        ),
        click.option(
            "--rename-in-order",
            is_flag=True,
            help="Match tensors of the checkpoint that no name matches to the model's by their order.",
        ),
        click.option(
            "--resize-filters", is_flag=True, help="Resize GF filters that the checkpoint has at another resolution."
        ),
        click.option(
            "--partial",
            is_flag=True,
            help="Load what fits of a checkpoint that lacks or adds parts, as a detector's does.",
        ),
        click.option("--ema", is_flag=True, help="Take the averaged weights of the checkpoint."),
        click.option(
            "--checkpoint",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Trained weights, .pth or .safetensors.",
        ),
    ]
    decorated: Any = with_weights
    for option in options:  # click shows the last one first
        decorated = option(decorated)
    with_options: C = decorated
    return with_options


def model_with_weights(name: str, weights: Weights) -> "nn.Module":
    """The model that the options ask for."""
    from horinsight.models.registry import comes_trained, create_model

    options: dict[str, Any] = {} if weights.num_classes is None else {"num_classes": weights.num_classes}
    drawn = weights.partial if weights.checkpoint is not None else not comes_trained(name, options)
    return create_model(
        name,
        checkpoint=weights.checkpoint,
        ema=weights.ema,
        strict=not weights.partial,
        resize_filters=weights.resize_filters,
        rename_in_order=weights.rename_in_order,
        seed=weights.seed if drawn else 0,  # --seed is of the measurement's draws as well
        **options,
    )


def square(image_size: int | None) -> tuple[int, int] | None:
    """(S, S) of `--image-size`."""
    return None if image_size is None else (image_size, image_size)


def query_option(command: C) -> C:
    """`--query`, repeatable."""
    return click.option(
        "--query",
        "queries",
        multiple=True,
        metavar="ROW,COL",
        callback=_queries,
        help="A position, in cells of the map of the first block shown, from 0,0 at the top left. Repeatable.",
    )(command)


def _queries(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[tuple[int, int]]:
    queries = []
    for value in values:
        row, comma, col = value.partition(",")
        if not comma or not row.strip().isdecimal() or not col.strip().isdecimal():
            raise click.BadParameter(f"expected a row and a column such as 7,7, got {value!r}.", ctx, parameter)
        queries.append((int(row), int(col)))
    return queries


def _model_name(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    from horinsight.models.registry import check_model_name

    check_model_name(value)
    return value


def _block_indices(ctx: click.Context, parameter: click.Parameter, value: str | None) -> list[int] | None:
    if value is None:
        return None
    indices: list[int] = []
    for part in value.split(","):
        first, dash, last = part.partition("-")
        last = last if dash else first
        numbers = first.strip().isdecimal() and last.strip().isdecimal()
        if not numbers or not int(first) <= int(last) <= MAX_BLOCK_INDEX:
            raise click.BadParameter(f"expected numbers and ranges such as 1,3-5, got {value!r}.", ctx, parameter)
        indices.extend(range(int(first), int(last) + 1))
    return indices


def named_images(values: Sequence[str]) -> dict[str, Image.Image]:
    """Label → picture, for paths, folders and names of samples.

    A name is a sample's if no such file exists. The label holds a hash of the pixels.
    """
    names, pictures = [], []
    for value in values:
        if not value:
            raise click.BadParameter("an image name is empty.", param_hint="'--images'")
        known = value in (*SAMPLES, *DIGITS) and not Path(value).exists()
        for name in [value] if not Path(value).is_dir() else map(str, image_files(value)):
            names.append(name)
            pictures.append(sample_image(value) if known else load_image(name))
    return dict(zip(image_labels(pictures, names), pictures, strict=True))


def matching_models(pattern: str) -> list[str]:
    """Names of ours that match, else names of timm's, or a clear refusal.

    Raises:
        click.BadParameter: nothing matches.
    """
    import timm

    from horinsight.models.registry import list_models

    names = list_models(pattern) or timm.list_models(pattern)
    if not names:
        raise click.BadParameter(
            f"no model of horinsight or timm matches {pattern!r}: expected a name or a pattern such as 'hornet_*_gf'."
        )
    if len(names) > MAX_LISTED:
        raise click.BadParameter(f"{len(names)} models of timm match {pattern!r}: narrow it to {MAX_LISTED} or fewer.")
    return names
