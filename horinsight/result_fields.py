"""Fields of results: whether two are the same, and how one looks in a line."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

MAX_SHOWN = 4  # entries of a tuple or mapping in a line
MAX_LETTERS = 40


def fields_of(result: Any) -> dict[str, Any]:
    """Name → value of the fields of a dataclass."""
    return {part.name: getattr(result, part.name) for part in dataclasses.fields(result)}


def same(a: Any, b: Any) -> bool:
    """Whether two fields are the same: arrays with their dtype and shape, NaN the same as NaN.

    Example:
        >>> same((1.0, float("nan")), (1.0, float("nan"))), same(np.zeros(2), np.zeros(2, dtype=np.float32))
        (True, False)
    """
    if isinstance(a, np.ndarray):
        if not isinstance(b, np.ndarray) or a.dtype != b.dtype:
            return False
        return np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return bool(a == b) or (isinstance(a, float) and isinstance(b, float) and a != a and b != b)


def brief(value: Any) -> str:
    """A field in a few words: arrays by dtype and shape, long texts and collections by their beginning or length.

    Example:
        >>> print(brief(np.zeros((2, 3))), brief(1 / 3), brief((1, 2)), brief("no"), brief(range(9)), brief([0] * 9))
        <float64 2x3> 0.333333 (1, 2) 'no' range(0, 9) <9 entries>
    """
    if isinstance(value, np.ndarray):
        return f"<{value.dtype} {'x'.join(map(str, value.shape)) or 'scalar'}>"
    if dataclasses.is_dataclass(value) and type(value).__str__ is not object.__str__:
        return f"<{_cut(str(value))}>"
    if isinstance(value, str):
        return repr(_cut(value))
    if isinstance(value, Mapping | tuple | list) and len(value) > MAX_SHOWN:
        return f"<{len(value)} entries>"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {brief(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "(" + ", ".join(map(brief, value)) + ("," if len(value) == 1 else "") + ")"
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_LETTERS else text[: MAX_LETTERS - 1] + "…"
