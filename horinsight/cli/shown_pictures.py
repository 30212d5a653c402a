"""Of many pictures the few whose maps are drawn and kept: `--show`."""

from collections.abc import Sequence
from pathlib import Path

import click

from horinsight.mixing.mixing_results import QueryMaps
from horinsight.results import save_result
from horinsight.whole_file import check_writable

MOST_SHOWN = 8  # pictures of which maps are drawn where nobody says; a sheet of more is not looked at


def shown_numbers(show: str | None, names: Sequence[str]) -> list[int]:
    """The numbers, from 0, of the pictures that `--show` asks for.

    Args:
        show: how many of the first, or names separated by commas; `MOST_SHOWN` when None.
        names: of all pictures, each with a hash, as "photos/cat.png (sha256 …)".

    Raises:
        click.BadParameter: none is called that.

    Example:
        >>> shown_numbers("b.png", ["x/a.png (sha256 1)", "x/b.png (sha256 2)"]), shown_numbers("1", ["a", "b"])
        ([1], [0])
    """
    if show is None or show.strip().isdecimal():
        return list(range(len(names)))[: MOST_SHOWN if show is None else int(show)]
    plain = [name.split(" (sha256")[0] for name in names]
    found = []
    for wanted in (part.strip() for part in show.split(",")):
        there = [number for number, name in enumerate(plain) if wanted in (name, Path(name).name, Path(name).stem)]
        if not there:
            raise click.BadParameter(
                f"none of {len(names)} pictures is called {wanted!r}: expected how many of the first, or names "
                f"such as {Path(plain[0]).name}.",
                param_hint="'--show'",
            )
        found += there
    return sorted(set(found))


def some_of(number: int, of: int) -> dict[str, str]:
    """What a convention says of maps of some pictures of many."""
    return {"shown": f"{number} of {of} pictures"} if number < of else {}


def write_maps(maps: QueryMaps, output: Path, num_pictures: int) -> None:
    """The figure and the arrays of the pictures shown, and on standard error how many are not."""
    from horinsight.figures.mixing_maps import draw_mixing_maps
    from horinsight.figures.style import save_figure

    arrays, picture = output / "mixing.npz", output / "mixing.png"
    output.mkdir(parents=True, exist_ok=True)
    check_writable(arrays)
    check_writable(picture)
    figure = draw_mixing_maps(maps)
    save_result(maps, arrays)
    save_figure(figure, picture)
    click.echo(f"written: {arrays}, {picture}", err=True)
    say_how_many_are_shown(len(maps.pictures), num_pictures)


def say_how_many_are_shown(number: int, of: int) -> None:
    """On standard error, where not all are."""
    if number < of:
        click.echo(
            f"maps of {number} of {of} pictures; the numbers are of all (--show N or NAMES for others).", err=True
        )
