"""A form for a class of options: a control for each field that has a label, bound to the page's address."""

from typing import Any, TypeVar

from horinsight.options import Option, options_of
from horinsight.viewer.service.choices import number, segments

T = TypeVar("T")


def asked_options(kind: type[T]) -> T:
    """The options that the controls describe, the rest at their defaults.

    Args:
        kind: a class of options, see `horinsight.options`.
    """
    return kind(**{one.name: _asked(one) for one in options_of(kind) if one.described.label is not None})


def _asked(one: Option) -> Any:
    said = one.described
    label, key, words = said.label or "", said.key or one.setting, said.explained or said.help
    if one.kind is bool:
        on, off = said.words
        return segments(label, key, [on, off], on if one.default else off, help=words) == on
    if one.choices:
        return segments(label, key, list(one.choices), one.default, help=words)
    assert one.kind is int
    return number(
        label, key, said.least, said.offered, one.default, placeholder=said.default_in_words or None, help=words
    )
