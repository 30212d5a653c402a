"""A form for a class of options: a control for each field that has a label, bound to the page's address."""

from typing import Any, TypeVar

import streamlit as st

from horinsight.options import Option, options_of

T = TypeVar("T")


def asked_options(kind: type[T]) -> T:
    """The options that the controls describe, the rest at their defaults.

    Args:
        kind: a class of options, see `horinsight.options`.
    """
    return kind(**{one.name: _asked(one) for one in options_of(kind) if one.described.label is not None})


def _asked(one: Option) -> Any:
    said = one.described
    shared: dict[str, Any] = {
        "key": said.key or one.setting,
        "bind": "query-params",
        "help": said.explained or said.help,
    }
    if one.kind is bool:
        on, off = said.words
        found = st.segmented_control(
            said.label or "", [on, off], default=on if one.default else off, required=True, **shared
        )
        return found == on
    if one.choices:
        return st.segmented_control(said.label or "", list(one.choices), default=one.default, required=True, **shared)
    assert one.kind is int
    number = st.number_input(
        said.label or "", said.least, said.offered, one.default, placeholder=said.default_in_words or None, **shared
    )
    return None if number is None else int(number)
