"""Results of one form: they name where they come from, compare, show themselves, become tables, and are kept."""

import dataclasses
import html
import importlib
import os
import platform
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import numpy as np

from horinsight.result_fields import MAX_SHOWN, brief, fields_of, same
from horinsight.result_files import file_content, plain, read_content, rebuilt, write_content

if TYPE_CHECKING:
    import pandas

__all__ = ["Provenance", "Result", "ResultSet", "load_result", "plain", "result_bytes", "save_result"]

T = TypeVar("T")
R_co = TypeVar("R_co", bound="Result", covariant=True)

MAX_ROWS = 20  # of a table in a notebook


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """What every result can do.

    A result is a dataclass with `frozen=True, eq=False, repr=False`: equality and `repr` are those of this class. A
    measurement has the fields `convention`, what was computed in words, and `provenance`.

    Two results are equal when all their fields are: arrays of the same dtype, shape and values, NaN equal to NaN.
    """

    kinds: ClassVar[dict[str, type["Result"]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Result.kinds[cls.__name__] = cls

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(same(value, getattr(other, name)) for name, value in fields_of(self).items())

    def __hash__(self) -> int:
        return hash((type(self), *(value for value in fields_of(self).values() if isinstance(value, str | int | None))))

    def __repr__(self) -> str:
        parts = ", ".join(f"{name}={brief(value)}" for name, value in fields_of(self).items())
        return f"{type(self).__name__}({parts})"

    def _repr_html_(self) -> str:
        return _html(repr(self), self.to_frame())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Keep it as `.json` or `.npz`, see `save_result`."""
        save_result(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote, see `load_result`."""
        return load_result(cls, path)

    def to_frame(self) -> "pandas.DataFrame":
        """A tidy table, a value a row; with the columns "model" and "trained" where the provenance is known."""
        import pandas

        columns = self._columns()
        length = max((len(values) for values in columns.values() if isinstance(values, np.ndarray | list)), default=1)
        origin = getattr(self, "provenance", None)
        start = {} if origin is None else {"model": origin.model, "trained": origin.trained}
        return pandas.DataFrame(
            {
                name: values if isinstance(values, np.ndarray | list) else [values] * length
                for name, values in {**start, **columns}.items()
            }
        )

    def _columns(self) -> Mapping[str, Any]:
        """The columns of `to_frame`: arrays or lists of one length, and values that are the same in every row.

        By default the fields that are numbers, names or arrays of one dimension.
        """
        kept = (str, int, float, np.generic, type(None))
        return {
            name: value
            for name, value in fields_of(self).items()
            if name not in ("provenance", "convention")
            and (isinstance(value, kept) or (isinstance(value, np.ndarray) and value.ndim == 1))
        }


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in ("horinsight", "torch", "timm", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


@dataclass(frozen=True, eq=False, repr=False)
class Provenance(Result):
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

    def __str__(self) -> str:
        return f"{self.model}, {self.weights}"


class ResultSet(Mapping[str, R_co], Generic[R_co]):
    """Results of one kind by name, as functions over a model return them: a mapping that can be kept and shown.

    Args:
        results: block name → result, in the order of the network.

    Example:
        >>> one = Provenance("vit", "random, seed 0", False, "ab", ("cat",), seed=0)
        >>> found = ResultSet({"first": one, "second": one})
        >>> found
        ResultSet(2 x Provenance: first, second)
        >>> found.to_frame()["block"].tolist()
        ['first', 'second']
    """

    def __init__(self, results: Mapping[str, R_co]) -> None:
        self._results = dict(results)

    def __getitem__(self, name: str) -> R_co:
        return self._results[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    def __repr__(self) -> str:
        kinds = " or ".join(sorted({type(result).__name__ for result in self.values()}))
        names = [*self][:MAX_SHOWN] + (["…"] if len(self) > MAX_SHOWN else [])
        return f"ResultSet({len(self)} x {kinds}: {', '.join(names)})" if self else "ResultSet(empty)"

    def _repr_html_(self) -> str:
        return _html(repr(self), self.to_frame())

    @property
    def provenance(self) -> Provenance | None:
        """Where the results come from; None where they do not all come from the same."""
        origins = [getattr(result, "provenance", None) for result in self.values()]
        return origins[0] if origins and all(same(origins[0], origin) for origin in origins) else None

    @property
    def convention(self) -> dict[str, str]:
        """What was computed, in words: what all results have in common."""
        conventions = [getattr(result, "convention", {}) for result in self.values()]
        first = conventions[0] if conventions else {}
        return {key: words for key, words in first.items() if all(words == other.get(key) for other in conventions)}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Keep all as one `.json` or `.npz`, see `save_result`."""
        save_result(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "ResultSet[Any]":
        """Read what `save` wrote, see `load_result`."""
        return load_result(cls, path)

    def to_frame(self) -> "pandas.DataFrame":
        """The tables of all, one below the other, with the name in the column "block"."""
        import pandas

        frames = []
        for name, result in self.items():
            frame = result.to_frame()
            frame.insert(0, "block", name)
            frames.append(frame)
        return pandas.concat(frames, ignore_index=True) if frames else pandas.DataFrame({"block": []})


def save_result(result: Any, path: str | os.PathLike[str]) -> None:
    """Keep a result, or a set of results, as `.json` or `.npz`; every field comes back as it was, see `result_files`.

    Args:
        result: any of the package's results.
        path: ends in `.json` (everything readable) or `.npz` (arrays as they are, the rest as JSON inside).

    Raises:
        TypeError: not a result.
        ValueError: another suffix.
        OSError: the file cannot be written.
    """
    write_content(path, result_bytes(result, Path(path).suffix))


def result_bytes(result: Any, suffix: str) -> bytes:
    """What `save_result` writes into a file that ends in `suffix`, ".json" or ".npz"."""
    kind = type(result).__name__
    if isinstance(result, ResultSet):
        kinds = {type(one) for one in result.values()}
        if len(kinds) > 1:
            raise TypeError(f"save_result expects results of one kind, got {result!r}.")
        parts = {"kind": next((kind.__name__ for kind in kinds), None), "results": dict(result)}
        return file_content(kind, parts, {"kind": str, "results": Mapping[str, Any]}, suffix)
    if not dataclasses.is_dataclass(result) or isinstance(result, type):
        raise TypeError(f"save_result expects one of horinsight's results, got {kind}.")
    parts = fields_of(result)
    foreign = [name for name, value in parts.items() if hasattr(value, "detach")]
    if foreign:
        raise TypeError(
            f"{kind} holds tensors ({', '.join(foreign)}) for further computation: save what you take from it, for "
            "example with numpy.savez."
        )
    return file_content(kind, parts, typing.get_type_hints(type(result)), suffix)


def load_result(kind: type[T], path: str | os.PathLike[str]) -> T:
    """Read a result that `save_result` wrote, this version's or an earlier one's.

    Args:
        kind: the class of the result; `ResultSet` for a set.
        path: the file.

    Raises:
        ValueError: the file holds something else.
        OSError: it cannot be read.
    """
    found, content = read_content(path)
    if found != kind.__name__:
        raise ValueError(f"{path} holds a {found}, expected a {kind.__name__}.")
    try:
        return result_of_content(kind, content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not hold a whole {found}: {error}.") from error


def result_of_content(kind: type[T], content: Mapping[str, Any]) -> T:
    """A result of the fields that its file holds; raises whatever comes of fields that are not those."""
    if issubclass(kind, ResultSet):
        inner = kind_called(content["kind"])
        return kind({name: rebuilt(inner, one) for name, one in content["results"].items()})
    return typing.cast(T, rebuilt(kind, content))


def kind_called(name: str | None) -> type[Result]:
    """A class of results by its name: one that is in use, or a public one of the package."""
    if name in Result.kinds or name is None:
        return Result.kinds[name] if name else Result
    found = getattr(importlib.import_module("horinsight"), name, None)
    if not (isinstance(found, type) and issubclass(found, Result)):
        raise ValueError(f"{name} is no result of this version")
    return found


def _html(caption: str, frame: "pandas.DataFrame") -> str:
    rest = f"<p>and {len(frame) - MAX_ROWS} more rows</p>" if len(frame) > MAX_ROWS else ""
    return f"<p><code>{html.escape(caption)}</code></p>{frame.head(MAX_ROWS).to_html(index=False)}{rest}"
