"""Widgets whose value is part of the page's address; one function for each kind of choice."""

import math
import re
from collections.abc import Sequence
from typing import Any

import streamlit as st

from horinsight.viewer.service.address import Address, Kind


def _one(values: list[str]) -> str:
    if len(values) != 1:
        raise ValueError("one value")
    return values[0]


def one_of(options: Sequence[Any]) -> Kind:
    """One of some options."""
    by_name = {str(option): option for option in options}

    def read(values: list[str]) -> Any:
        if _one(values) not in by_name:
            raise ValueError("no option")
        return by_name[values[0]]

    return Kind(read, lambda value: value in options, lambda value: [str(value)])


def some_of(options: Sequence[Any], most: int | None = None) -> Kind:
    """Some of some options."""
    by_name = {str(option): option for option in options}

    def read(values: list[str]) -> list[Any]:
        if not set(values) <= set(by_name) or len(set(values)) > (most or len(values)):
            raise ValueError("no options")
        return [by_name[value] for value in dict.fromkeys(values)]

    return Kind(
        read,
        lambda value: isinstance(value, list) and all(one in options for one in value),
        lambda value: [str(one) for one in value],
    )


def whole(low: int | None, high: int | None) -> Kind:
    """A whole number between bounds, or None."""

    def holds(value: Any) -> bool:
        return value is None or ((low is None or value >= low) and (high is None or value <= high))

    def read(values: list[str]) -> int:
        if not re.fullmatch(r"-?[0-9]{1,9}", _one(values)) or not holds(int(values[0])):
            raise ValueError("no such number")
        return int(values[0])

    return Kind(read, holds, lambda value: [] if value is None else [str(value)])


def real(low: float, high: float) -> Kind:
    """A number between bounds."""

    def read(values: list[str]) -> float:
        value = float(_one(values))
        if not (math.isfinite(value) and low <= value <= high):
            raise ValueError("no such number")
        return value

    return Kind(read, lambda value: low <= value <= high, lambda value: [f"{value:g}"])


def _on(values: list[str]) -> bool:
    if _one(values).lower() not in ("true", "false"):
        raise ValueError("neither on nor off")
    return values[0].lower() == "true"


ON_OR_OFF = Kind(_on, lambda value: isinstance(value, bool), lambda value: ["true" if value else "false"])


def select(label: str, key: str, options: Sequence[Any], default: Any = None, **more: Any) -> Any:
    """A list to choose from; the first option is the default, if no other is."""
    Address.of_session().chosen(key, one_of(options), options[0] if default is None else default)
    return st.selectbox(label, options, key=key, persist_state="session", **more)


def segments(label: str, key: str, options: Sequence[str], default: str, **more: Any) -> str:
    """Few options, beside each other."""
    Address.of_session().chosen(key, one_of(options), default)
    return str(st.segmented_control(label, options, key=key, required=True, persist_state="session", **more))


def several(label: str, key: str, options: Sequence[Any], default: Sequence[Any] = (), **more: Any) -> list[Any]:
    """A list to choose some from."""
    Address.of_session().chosen(key, some_of(options, more.get("max_selections")), list(default))
    found: list[Any] = st.multiselect(label, options, key=key, persist_state="session", **more)
    return found


def number(
    label: str, key: str, low: int | None, high: int | None, default: int | None = None, **more: Any
) -> int | None:
    """A whole number; None where the field is empty."""
    Address.of_session().chosen(key, whole(low, high), default)
    found = st.number_input(
        label, low, high, None if default is None else "min", key=key, persist_state="session", **more
    )
    return None if found is None else int(found)


def share(label: str, key: str, default: float, **more: Any) -> float:
    """A number from 0 to 1."""
    Address.of_session().chosen(key, real(0, 1), default)
    return float(st.slider(label, 0.0, 1.0, step=0.05, key=key, persist_state="session", **more))


def switch(label: str, key: str, default: bool = False, **more: Any) -> bool:
    """On or off."""
    Address.of_session().chosen(key, ON_OR_OFF, default)
    return st.toggle(label, key=key, persist_state="session", **more)
