"""A measurement's options as one frozen value: described once, checked once, hashed for resumption, shown.

A class of options is a frozen dataclass whose fields are made by `option`. What is said of a field there is all that
commands, forms, reports and manifests need: they derive from it, so that a new option is written in one place.
"""

import dataclasses
import hashlib
import json
import math
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

T = TypeVar("T")

_KEY = "horinsight"


@dataclass(frozen=True)
class Described:
    """What a field of options says of itself.

    Attributes:
        help: one sentence, for `--help` and for forms.
        flag: the command line's name of it; None where commands do not offer it.
        metavar: what stands for its value in `--help`.
        least: of whole numbers.
        most: of whole numbers.
        above: what a real number must exceed.
        default_in_words: of a default that depends on something else; its value where empty.
        negated: whether the flag switches it off (`--functional` for `explicit`).
        changes_result: whether another value can give other numbers; else it only bounds memory or time.
        label: what forms call it; None where they do not ask for it.
        key: its name in the address of a page; the flag's where None.
        words: of a switch in a form, what on and off are called.
        offered: the largest whole number that a form offers.
        explained: more than one sentence, for a form; `help` where empty.
    """

    help: str
    flag: str | None = None
    metavar: str | None = None
    least: int | None = None
    most: int | None = None
    above: float | None = None
    default_in_words: str = ""
    negated: bool = False
    changes_result: bool = True
    label: str | None = None
    key: str | None = None
    words: tuple[str, str] = ("on", "off")
    offered: int | None = None
    explained: str = ""


@dataclass(frozen=True)
class Option:
    """One field of a class of options: its name, its type without None, its default, and what it says of itself."""

    name: str
    kind: Any
    optional: bool
    default: Any
    described: Described

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that it can be; empty where it is no choice."""
        return typing.get_args(self.kind) if typing.get_origin(self.kind) is Literal else ()

    @property
    def setting(self) -> str:
        """What reports call it: the flag's name where commands have one."""
        flag = self.described.flag
        return self.name if flag is None else flag.removeprefix("--").replace("-", "_")


def option(default: Any, help: str, **described: Any) -> Any:
    """A field of a class of options.

    Args:
        default: its value when nobody says.
        help: one sentence.
        **described: the further fields of `Described`.

    Example:
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Options:
        ...     num_draws: int = option(8, "Draws an image.", flag="--draws", least=1)
        >>> Options().num_draws, settings(Options(num_draws=3))
        (8, {'draws': 3})
    """
    return dataclasses.field(default=default, metadata={_KEY: Described(help, **described)})


def options_of(kind: type) -> Iterator[Option]:
    """The fields of a class of options, in their order."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        parts = [part for part in typing.get_args(hint) if part is not type(None)]
        optional = type(None) in typing.get_args(hint)
        yield Option(field.name, parts[0] if optional else hint, optional, field.default, field.metadata[_KEY])


def made(kind: type[T], options: T | None, given: Mapping[str, Any], *, caller: str) -> T:
    """The value that a function goes by: the options that it was given, with keyword arguments in place of theirs.

    Args:
        kind: the class of options.
        options: a value of it, or None for the defaults.
        given: keyword arguments.
        caller: the function's name, for the error.

    Raises:
        TypeError: a keyword that is no option, or options of another class.
        ValueError: a value that the class refuses.
    """
    if options is not None and not isinstance(options, kind):
        raise TypeError(f"{caller} expects options of class {kind.__name__}, got {type(options).__name__}.")
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    unknown = [name for name in given if name not in names]
    if unknown:
        raise TypeError(
            f"{caller} got an unexpected keyword argument {unknown[0]!r}: its options are {', '.join(names)}."
        )
    return dataclasses.replace(kind() if options is None else options, **given)  # type: ignore[type-var]


def check_fields(options: Any) -> None:
    """Refuse values that a field's type or least value excludes; classes of options call it in `__post_init__`.

    Raises:
        ValueError: says which option, what was expected and what came.
    """
    for one in options_of(type(options)):
        value = getattr(options, one.name)
        if value is None and one.optional:
            continue
        if one.choices and value not in one.choices:
            raise ValueError(f"{one.name} expects one of {', '.join(one.choices)}, got {value!r}.")
        if one.kind is bool and not isinstance(value, bool):
            raise ValueError(f"{one.name} expects True or False, got {value!r}.")
        if one.kind is int:
            _check_whole(one, value)
        if one.kind is float:
            real = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            above = one.described.above
            if not real or (above is not None and value <= above):
                bound = "" if above is None else f" above {above:g}"
                raise ValueError(f"{one.name} expects a number{bound}, got {value!r}.")


def _check_whole(one: Option, value: Any) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    least, most = one.described.least, one.described.most
    if not whole or (least is not None and value < least) or (most is not None and value > most):
        bounds = [f"at least {least}"] * (least is not None) + [f"at most {most}"] * (most is not None)
        bound = f" of {' and '.join(bounds)}" if bounds else ""
        raise ValueError(f"{one.name} expects a whole number{bound}, got {value!r}.")


def settings(options: Any, *, relevant: bool = False) -> dict[str, Any]:
    """Options as a report writes them: by the names of the command line, values as JSON knows them.

    Args:
        options: a value of a class of options; classes and modules among its values appear by their names.
        relevant: whether to leave out what cannot change a result.
    """
    found = {}
    for one in options_of(type(options)):
        value = getattr(options, one.name)
        if isinstance(value, tuple):
            value = [named(item) for item in value]
        if one.described.changes_result or not relevant:
            found[one.setting] = not value if one.described.negated else value
    return found


def fingerprint(options: Any) -> str:
    """SHA-256 of all that can change a result: two values with the same one measure the same."""
    content = [type(options).__name__, settings(options, relevant=True)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def named(item: Any) -> Any:
    """A value of an option as JSON knows it: classes and functions by their names, others by their classes."""
    if isinstance(item, str | int | float | bool) or item is None:
        return item
    return getattr(item, "__name__", type(item).__name__)
