"""Options that say which weights a model has, the same for every command."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from torch import nn

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


_OPTIONS = (
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

    decorated: Any = with_weights
    for option in _OPTIONS:  # click shows the last one first
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
