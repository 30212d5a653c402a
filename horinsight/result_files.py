"""How results become files and come back the same: `.json` for reading, `.npz` with arrays as they are.

In JSON an array is a list of lists where that alone tells its dtype and shape (float64, int64, bool), else an object
with `dtype`, `shape` and `values`. NaN is null where the field is a number, "NaN" where null means that there is none;
infinities are "Infinity" and "-Infinity". In `.npz` the rest is JSON in the member `__result__`, in which an array is
`{"array": NAME}`.
"""

import dataclasses
import io
import json
import math
import os
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from horinsight.whole_file import whole_file

_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_SELF_TELLING = (np.dtype(np.float64), np.dtype(np.int64), np.dtype(np.bool_))  # in JSON


def plain(value: Any) -> Any:
    """A value as reports have it in JSON: dataclasses and mappings as objects, arrays and tuples as lists, NaN as null.

    Example:
        >>> plain({"effects": np.array([1.0, float("nan")])})
        {'effects': [1.0, None]}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {part.name: plain(getattr(value, part.name)) for part in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def write_content(path: str | os.PathLike[str], content: bytes) -> None:
    """Write bytes whole or not at all."""
    with whole_file(path, "wb") as file:
        file.write(content)


def file_content(kind: str, fields: Mapping[str, Any], hints: Mapping[str, Any], suffix: str) -> bytes:
    """What a file that ends in `suffix` holds.

    Args:
        kind: name of the class of the result.
        fields: its fields.
        hints: their types.
        suffix: ".json" or ".npz".

    Raises:
        ValueError: another suffix.
    """
    if suffix == ".json":
        stored = {name: _stored(value, hints[name], None, name) for name, value in fields.items()}
        return json.dumps({"result": kind, **stored}, indent=1, allow_nan=False).encode()
    if suffix == ".npz":
        arrays: dict[str, np.ndarray] = {}
        stored = {name: _stored(value, hints[name], arrays, name) for name, value in fields.items()}
        text = json.dumps({"result": kind, **stored}, allow_nan=False)
        stream = io.BytesIO()
        np.savez(stream, allow_pickle=False, **arrays, __result__=np.array(text))
        return stream.getvalue()
    raise ValueError(f"save_result expects a path that ends in .json or .npz, got {suffix or 'none of them'}.")


def read_content(path: str | os.PathLike[str]) -> tuple[str, dict[str, Any]]:
    """The name of the class and the stored fields of a file that holds a result.

    Raises:
        ValueError: the file holds something else.
        OSError: it cannot be read.
    """
    path = Path(path)
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as stored:
                return content_of_arrays({name: stored[name] for name in stored.files})
        content = json.loads(path.read_text(encoding="utf-8"))
        return content.pop("result"), content
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not hold a horinsight result: {error}.") from error


def content_of_arrays(arrays: dict[str, np.ndarray]) -> tuple[str, dict[str, Any]]:
    """The name of the class and the stored fields, of the members of an `.npz`; what is left of `arrays` is used up."""
    content = json.loads(str(arrays.pop("__result__")))
    _put_back(content, arrays)
    for name, array in arrays.items():  # of version 0.1.0: a field, or an entry of one
        field_name, _, key = name.partition("/")
        if key:
            content.setdefault(field_name, {})[key] = array
        else:
            content[name] = array
    return content.pop("result"), content


def _put_back(content: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Replace each `{"array": NAME}` by the array, which is taken out of `arrays`."""
    if isinstance(content, list):
        return [_put_back(item, arrays) for item in content]
    if not isinstance(content, dict):
        return content
    if content.keys() == {"array"} and content["array"] in arrays:
        return arrays.pop(content["array"])
    for key, item in content.items():
        content[key] = _put_back(item, arrays)
    return content


def _stored(value: Any, hint: Any, arrays: dict[str, np.ndarray] | None, name: str) -> Any:
    """A value as the files have it; arrays go into `arrays` under their name, if there is such."""
    if isinstance(value, np.ndarray):
        if arrays is None:
            return _listed(value)
        arrays[name] = value
        return {"array": name}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = typing.get_type_hints(type(value))
        parts = ((part.name, getattr(value, part.name)) for part in dataclasses.fields(value))
        return {key: _stored(item, hints[key], arrays, f"{name}/{key}") for key, item in parts}
    if isinstance(value, Mapping):
        inner = [*typing.get_args(hint), Any, Any][1]
        return {str(key): _stored(item, inner, arrays, f"{name}/{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        hints_of = _hints_of_items(hint, len(value))
        return [
            _stored(item, inner, arrays, f"{name}/{index}")
            for index, (item, inner) in enumerate(zip(value, hints_of, strict=True))
        ]
    if isinstance(value, np.generic):
        return _stored(value.item(), hint, arrays, name)
    if isinstance(value, float) and not math.isfinite(value):
        return _number_text(value) if math.isinf(value) or _is_optional(hint) else None
    return value


def _number_text(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _listed(array: np.ndarray) -> Any:
    """An array in JSON."""
    if array.dtype.kind not in "fiubU":
        raise TypeError(f"An array of {array.dtype} has no form in JSON: save the result as .npz.")
    values = _without_odd_numbers(array.tolist())
    # a list of lists loses the lengths of an empty array, and any dtype but these
    if array.dtype in _SELF_TELLING and array.size:
        return values
    return {"dtype": str(array.dtype), "shape": list(array.shape), "values": values}


def _without_odd_numbers(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_odd_numbers(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else _number_text(value)
    return value


def _with_odd_numbers(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_odd_numbers(item) for item in value]
    return math.nan if value is None else _NUMBERS.get(value, value) if isinstance(value, str) else value


def restored(hint: Any, value: Any) -> Any:
    """A stored value as a field of type `hint` has it."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        inner = next(option for option in typing.get_args(hint) if option is not type(None))
        return None if value is None else restored(inner, value)
    if dataclasses.is_dataclass(hint):
        return rebuilt(typing.cast(type, hint), value)
    return _CONVERTERS.get(typing.get_origin(hint) or hint, _as_it_is)(hint, value)


def rebuilt(kind: type[Any], content: Mapping[str, Any]) -> Any:
    """A dataclass from its stored fields; those that are missing, because the file is older, take their defaults."""
    hints = typing.get_type_hints(kind)
    return kind(**{name: restored(hints[name], value) for name, value in content.items()})


def _as_it_is(hint: Any, value: Any) -> Any:
    return value


def _array(hint: Any, value: Any) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, Mapping):
        kind = np.dtype(value["dtype"])
        values = value["values"] if kind.kind in "US" else _with_odd_numbers(value["values"])
        return np.array(values, dtype=kind).reshape(value["shape"])
    array = np.array(_with_odd_numbers(value))
    return array.astype(np.int64) if array.dtype.kind == "i" else array


def _number(hint: Any, value: Any) -> Any:
    return math.nan if value is None else _NUMBERS.get(value, value) if isinstance(value, str) else value


def _mapping(hint: Any, value: Any) -> dict[Any, Any]:
    key, inner = [*typing.get_args(hint), str, Any][:2] if typing.get_args(hint) else (str, Any)
    return {(int(name) if key is int else name): restored(inner, item) for name, item in value.items()}


def _sequence(hint: Any, value: Any) -> Any:
    items = [restored(inner, item) for inner, item in zip(_hints_of_items(hint, len(value)), value, strict=True)]
    return tuple(items) if (typing.get_origin(hint) or hint) is tuple else items


_CONVERTERS: dict[Any, Callable[[Any, Any], Any]] = {
    np.ndarray: _array,
    float: _number,
    Mapping: _mapping,
    dict: _mapping,
    tuple: _sequence,
    list: _sequence,
}


def _hints_of_items(hint: Any, count: int) -> list[Any]:
    arguments = typing.get_args(hint) or (Any, ...)
    if len(arguments) == count and Ellipsis not in arguments:
        return list(arguments)
    return [arguments[0]] * count


def _is_optional(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)
