"""Results that name where they come from, and how they are kept: `.json`, `.npz`."""

import csv
import dataclasses
import io
import json
import os
import platform
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from horinsight.whole_file import whole_file

T = TypeVar("T")


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in ("horinsight", "torch", "timm", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


@dataclass(frozen=True)
class Provenance:
    """Where a number comes from.

    Attributes:
        model: name of the model.
        weights: where its weights come from, in words ("random, seed 0", "checkpoint hornet_tiny_7x7.pth").
        trained: whether they are trained; None when nobody said.
        weights_sha256: hash of all parameters and buffers.
        images: names of the images, each with the first digits of its hash.
        seed: of every random draw.
        versions: of Python and the packages that computed it.
    """

    model: str
    weights: str
    trained: bool | None
    weights_sha256: str
    images: tuple[str, ...]
    seed: int
    versions: Mapping[str, str] = field(default_factory=_versions)


def plain(value: Any) -> Any:
    """A value as JSON knows it: dataclasses and mappings as objects, arrays and tuples as lists, NaN as null.

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


def save_result(result: Any, path: str | os.PathLike[str]) -> None:
    """Keep a result (a frozen dataclass) as `.json` or `.npz`.

    Args:
        result: any of the package's results.
        path: ends in `.json` (everything readable) or `.npz` (arrays exact, the rest as JSON inside).

    Raises:
        TypeError: not a dataclass.
        ValueError: another suffix.
        OSError: the file cannot be written.
    """
    path = Path(path)
    content = result_bytes(result, path.suffix)
    with whole_file(path, "wb") as file:
        file.write(content)


def result_bytes(result: Any, suffix: str) -> bytes:
    """What `save_result` writes into a file that ends in `suffix`, ".json" or ".npz"."""
    if not dataclasses.is_dataclass(result) or isinstance(result, type):
        raise TypeError(f"save_result expects one of horinsight's results, got {type(result).__name__}.")
    kind = type(result).__name__
    foreign = [part.name for part in dataclasses.fields(result) if hasattr(getattr(result, part.name), "detach")]
    if foreign:
        raise TypeError(
            f"{kind} holds tensors ({', '.join(foreign)}) for further computation: save what you take from it, for "
            "example with numpy.savez."
        )
    if suffix == ".json":
        return json.dumps({"result": kind, **plain(result)}, indent=1).encode()
    if suffix == ".npz":
        parts = {part.name: getattr(result, part.name) for part in dataclasses.fields(result)}
        arrays = {name: value for name, value in parts.items() if isinstance(value, np.ndarray)}
        groups = {name: value for name, value in parts.items() if _holds_arrays(value)}
        rest = {name: plain(value) for name, value in parts.items() if name not in {*arrays, *groups}}
        for name, group in groups.items():
            arrays |= {f"{name}/{key}": value for key, value in group.items()}
        stream = io.BytesIO()
        np.savez(stream, allow_pickle=False, **arrays, __result__=np.array(json.dumps({"result": kind, **rest})))
        return stream.getvalue()
    raise ValueError(f"save_result expects a path that ends in .json or .npz, got {suffix or 'none of them'}.")


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """CSV with a header line; None is an empty cell.

    Example:
        >>> csv_text([{"k": 0, "effect": 0.5}, {"k": 1, "effect": None}])
        'k,effect\\n0,0.5\\n1,\\n'
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows([plain(row) for row in rows])
    return stream.getvalue()


def _holds_arrays(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(item, np.ndarray) for item in value.values())


def load_result(kind: type[T], path: str | os.PathLike[str]) -> T:
    """Read a result that `save_result` wrote.

    Args:
        kind: the class of the result.
        path: the file.

    Raises:
        ValueError: the file holds something else.
        OSError: it cannot be read.
    """
    path = Path(path)
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as stored:
                content = json.loads(str(stored["__result__"]))
                for name in stored.files:
                    field_name, _, key = name.partition("/")
                    if key:
                        content.setdefault(field_name, {})[key] = stored[name]
                    elif name != "__result__":
                        content[name] = stored[name]
        else:
            content = json.loads(path.read_text(encoding="utf-8"))
        found = content.pop("result")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not hold a horinsight result: {error}.") from error
    if found != kind.__name__:
        raise ValueError(f"{path} holds a {found}, expected a {kind.__name__}.")
    return _rebuilt(kind, content)


def _rebuilt(kind: type[T], content: Mapping[str, Any]) -> T:
    hints = typing.get_type_hints(kind)
    return kind(**{name: _converter(hints[name])(value) for name, value in content.items()})


def _converter(hint: Any) -> Callable[[Any], Any]:
    """How a JSON value becomes a field of type `hint`."""
    if isinstance(hint, types.UnionType):
        inner = next(option for option in typing.get_args(hint) if option is not type(None))
        return lambda value: None if value is None else _converter(inner)(value)
    if dataclasses.is_dataclass(hint):
        return lambda value: _rebuilt(typing.cast(type, hint), value)
    origin = typing.get_origin(hint) or hint
    if origin is np.ndarray:
        return lambda value: value if isinstance(value, np.ndarray) else np.array(_with_nan(value))
    if origin is Mapping and typing.get_args(hint)[1:] == (np.ndarray,):
        as_array = _converter(np.ndarray)
        return lambda value: {key: as_array(item) for key, item in value.items()}
    if origin is tuple:
        return tuple
    return lambda value: value


def _with_nan(value: Any) -> Any:
    return [_with_nan(item) for item in value] if isinstance(value, list) else float("nan") if value is None else value
