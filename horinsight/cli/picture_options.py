"""Options that name pictures, the same for every command."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from PIL import Image

from horinsight.data.images import DIGITS, SAMPLES, image_labels, load_image, sample_image
from horinsight.data.picture_sources import LIST_SUFFIXES, picture_source

if TYPE_CHECKING:
    from torch import Tensor, nn

    from horinsight.data.picture_stream import PictureStream

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
        skip_broken: go on without pictures that cannot be read.
    """

    images: tuple[str, ...]
    image_size: int | None
    skip_broken: bool = False

    def named(self, default: Sequence[str]) -> dict[str, Image.Image]:
        """Label → picture of those asked for, else of the default, see `named_images`."""
        return named_images(self.images or default, skip_broken=self.skip_broken)

    def stream(self, model: "nn.Module", default: Sequence[str], *, again: bool = False) -> "PictureStream":
        """The same pictures as a model takes them, in batches; those left out are named on standard error.

        All are looked through before it returns, so that a broken one is found before anything is computed.

        Args:
            model: which they are prepared for.
            default: names of those that are taken where none are asked for.
            again: for another model; what is left out has been named.
        """
        from horinsight.data.picture_stream import picture_stream
        from horinsight.data.preprocess import preprocessing

        stream = picture_stream(
            [sample_image(name) if known else name for name, known in _sources(self.images or default)],
            preprocessing(model, image_size=square(self.image_size)),
            skip_broken=self.skip_broken,
            on_broken=None if again else _left_out,
        )
        _ = stream.names
        return stream

    def batch(self, model: "nn.Module", named: Mapping[str, Image.Image]) -> "Tensor":
        """Pictures as a model takes them, (B, 3, H, W)."""
        from horinsight.data.preprocess import image_batch

        return image_batch(model, list(named.values()), image_size=square(self.image_size))


def picture_options(default: str) -> Callable[[C], C]:
    """`image_options` as one argument `pictures` of the command."""

    def decorated(command: C) -> C:
        @functools.wraps(command)
        def with_pictures(
            *arguments: Any, images: tuple[str, ...], image_size: int | None, skip_broken: bool, **options: Any
        ) -> Any:
            return command(*arguments, pictures=Pictures(images, image_size, skip_broken), **options)

        with_options: Any = image_options(default)(with_pictures)
        found: C = with_options
        return found

    return decorated


def image_options(default: str) -> Callable[[C], C]:
    """`--images`, `--image-size` and `--skip-broken`; the default in words."""
    return lambda command: _image_options(command, default)


def _image_options(command: C, default: str) -> C:
    command = click.option(
        "--skip-broken",
        is_flag=True,
        help="Go on without pictures that cannot be read, which are named; the first one is an error else.",
    )(command)
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
        help=f"Image files, folders of them, lists of paths (.txt), or samples that come along: "
        f"{', '.join(SAMPLES)}, digit_0 to digit_9.  [default: {default}]",
    )(command)


def square(image_size: int | None) -> tuple[int, int] | None:
    """(S, S) of `--image-size`."""
    return None if image_size is None else (image_size, image_size)


def named_images(values: Sequence[str], *, skip_broken: bool = False) -> dict[str, Image.Image]:
    """Label → picture, for paths, folders, lists of paths and names of samples.

    A name is a sample's if no such file exists. The label holds a hash of the pixels.

    Args:
        values: as they were given.
        skip_broken: leave out what cannot be read, and say so on standard error.

    Raises:
        ValueError: a picture that cannot be read, or none that can.
    """
    names, pictures = [], []
    for name, known in _sources(values):
        try:
            picture = sample_image(name) if known else load_image(name)
        except (ValueError, OSError) as error:
            if not skip_broken:
                raise
            _left_out(name, str(error))
            continue
        names.append(name)
        pictures.append(picture)
    if not pictures:
        raise ValueError("--skip-broken: none of the pictures can be read.")
    return dict(zip(image_labels(pictures, names), pictures, strict=True))


def _sources(values: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Names of files and of samples, and which of both each is."""
    for value in values:
        if not value:
            raise click.BadParameter("an image name is empty.", param_hint="'--images'")
        if value in (*SAMPLES, *DIGITS) and not Path(value).exists():
            yield value, True
        elif Path(value).is_dir() or (Path(value).suffix.lower() in LIST_SUFFIXES and Path(value).exists()):
            yield from ((name, False) for name in picture_source(value).names)
        else:
            yield value, False


def _left_out(name: str, reason: str) -> None:
    click.echo(f"left out: {reason if name in reason else f'{name}: {reason}'}", err=True)
