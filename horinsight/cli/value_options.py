"""Options of a command that come from a class of options (`horinsight.options`)."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import click

from horinsight.options import Option, options_of

C = TypeVar("C", bound=Callable[..., Any])


def value_options(
    kind: type, *, name: str = "options", left_out: Sequence[str] = (), in_words: Mapping[str, str] | None = None
) -> Callable[[C], C]:
    """One click option for each field of a class of options that has a flag; the command gets one value of the class.

    Args:
        kind: the class.
        name: the command's argument for the value.
        left_out: fields that the command does not offer.
        in_words: defaults that are others for this command, by field.
    """
    offered = [
        replace(one, described=replace(one.described, default_in_words=(in_words or {})[one.name]))
        if one.name in (in_words or {})
        else one
        for one in options_of(kind)
        if one.described.flag is not None and one.name not in left_out
    ]

    def decorated(command: C) -> C:
        @functools.wraps(command)
        def with_value(*arguments: Any, **given: Any) -> Any:
            fields = {one.name: _value(one, given.pop(one.name)) for one in offered}
            return command(*arguments, **{name: kind(**fields)}, **given)

        found: Any = with_value
        for one in reversed(offered):  # click shows the last one first
            found = _click_option(one)(found)
        with_options: C = found
        return with_options

    return decorated


def _value(one: Option, given: Any) -> Any:
    return not given if one.described.negated else given


def _click_option(one: Option) -> Callable[[C], C]:
    said = one.described
    words = f"{said.help}  [default: {said.default_in_words}]" if said.default_in_words else said.help
    names = (str(said.flag), one.name)
    if one.kind is bool:
        return click.option(*names, is_flag=True, help=words)
    if one.kind is int:
        kind: Any = click.IntRange(min=said.least, max=said.most)
    elif one.kind is float:
        kind = click.FloatRange(min=said.above, min_open=True)
    elif one.choices:
        kind = click.Choice(list(one.choices))
    else:
        return click.option(*names, multiple=True, metavar=said.metavar, help=words)
    shown = not said.default_in_words
    return click.option(*names, type=kind, default=one.default, show_default=shown, metavar=said.metavar, help=words)
