"""Whether the fields of a result are what its class says: files from outside may hold anything under any name."""

import collections.abc
import dataclasses
import types
import typing
from typing import Any

import numpy as np


def misfit(value: Any, hint: Any, name: str = "it") -> str:
    """Which part of a value is of another type than its hint, in words; "" where all fit.

    Example:
        >>> misfit((1, "x"), tuple[int, int], "size"), misfit([1.5], list[float])
        ('size/1 is a str, expected int', '')
    """
    if hint is Any or isinstance(hint, typing.TypeVar):
        return ""
    origin, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _of_union(value, inner, name)
    if origin is typing.Literal:
        return "" if value in inner else f"{name} is none of {', '.join(map(str, inner))}"
    if dataclasses.is_dataclass(hint):
        return _of_dataclass(value, hint, name) if isinstance(value, typing.cast(type, hint)) else _other(name, value)
    if origin in (dict, collections.abc.Mapping):
        if not isinstance(value, collections.abc.Mapping):
            return _other(name, value, "a mapping")
        return _first(misfit(item, [*inner, Any, Any][1], f"{name}/{key}") for key, item in value.items())
    if origin in (tuple, list, collections.abc.Sequence):
        return _of_sequence(value, inner, name)
    if origin is np.ndarray:
        fits = isinstance(value, np.ndarray) and value.dtype.kind in "fiubc"
        return "" if fits else _other(name, value, "an array of numbers")
    if origin in (int, float):
        kinds = (int, np.integer) if origin is int else (int, float, np.integer, np.floating)
        fits = isinstance(value, kinds) and not isinstance(value, bool)
        return "" if fits else _other(name, value, origin.__name__)
    if isinstance(origin, type):
        return "" if isinstance(value, origin) else _other(name, value, origin.__name__)
    return ""


def _of_union(value: Any, options: tuple[Any, ...], name: str) -> str:
    found = [misfit(value, option, name) for option in options]
    return "" if "" in found else found[0]


def _of_dataclass(value: Any, kind: Any, name: str) -> str:
    hints = typing.get_type_hints(kind)
    parts = dataclasses.fields(kind)
    return _first(misfit(getattr(value, part.name), hints[part.name], f"{name}/{part.name}") for part in parts)


def _of_sequence(value: Any, inner: tuple[Any, ...], name: str) -> str:
    if not isinstance(value, list | tuple):
        return _other(name, value, "a list")
    fixed = inner and Ellipsis not in inner and len(inner) > 1
    if fixed and len(inner) != len(value):
        return f"{name} has {len(value)} entries, expected {len(inner)}"
    hints = inner if fixed else [inner[0] if inner else Any] * len(value)
    return _first(misfit(item, hint, f"{name}/{place}") for place, (item, hint) in enumerate(zip(value, hints)))  # noqa: B905


def _first(found: typing.Iterable[str]) -> str:
    return next((words for words in found if words), "")


def _other(name: str, value: Any, expected: str = "another kind") -> str:
    return f"{name} is a {type(value).__name__}, expected {expected}"
