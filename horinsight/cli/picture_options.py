"""Options that name pictures, the same for every command."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from PIL import Image

from horinsight.data.images import DIGITS, SAMPLES, image_files, image_labels, load_image, sample_image

if TYPE_CHECKING:
    from torch import Tensor, nn

C = TypeVar("C", bound=Callable[..., Any])


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


@dataclass(frozen=True)
class Pictures:
    """What `picture_options` gives a command.

    Attributes:
        images: files, folders or names of samples; none where the command chooses.
        image_size: side in pixels to resize them to; the model's when None.
    """

    images: tuple[str, ...]
    image_size: int | None

    def named(self, default: Sequence[str]) -> dict[str, Image.Image]:
        """Label → picture of those asked for, else of the default, see `named_images`."""
        return named_images(self.images or default)

    def batch(self, model: "nn.Module", named: Mapping[str, Image.Image]) -> "Tensor":
        """Pictures as a model takes them, (B, 3, H, W)."""
        from horinsight.data.preprocess import image_batch

        return image_batch(model, list(named.values()), image_size=square(self.image_size))


def picture_options(default: str) -> Callable[[C], C]:
    """`image_options` as one argument `pictures` of the command."""

    def decorated(command: C) -> C:
        @functools.wraps(command)
        def with_pictures(*arguments: Any, images: tuple[str, ...], image_size: int | None, **options: Any) -> Any:
            return command(*arguments, pictures=Pictures(images, image_size), **options)

        with_options: Any = image_options(default)(with_pictures)
        found: C = with_options
        return found

    return decorated


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


def square(image_size: int | None) -> tuple[int, int] | None:
    """(S, S) of `--image-size`."""
    return None if image_size is None else (image_size, image_size)


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
