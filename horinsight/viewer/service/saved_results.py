"""Results that were saved before, of visitors and of the folder given at start: read within bounds, or refused."""

import csv
import hashlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import streamlit as st

from horinsight.result_files import content_of_arrays
from horinsight.results import Result, ResultSet, kind_called, result_of_content
from horinsight.viewer.service.bounded_files import MEGABYTE, MOST_JSON, arrays_of, json_of
from horinsight.viewer.service.field_types import misfit
from horinsight.viewer.service.gate import GATE
from horinsight.viewer.service.survey_archives import report_of_archive
from horinsight.viewer.service.survey_reports import MOST_LINES, table_of_lines, table_of_report

MAX_UPLOAD_MB = 20
MOST_PARTS = 400  # results of a set
MOST_COLUMNS = 60  # of a CSV
TYPES = ("npz", "json", "csv", "zip")


@dataclass(frozen=True, eq=False)
class Saved:
    """A result that was in a file or a folder.

    Attributes:
        name: of the file.
        result: a `Result` or a `ResultSet`.
        folder: of a survey, where it is one below the folder given at start.
    """

    name: str
    result: Any
    folder: Path | None = field(default=None, repr=False)

    @property
    def parts(self) -> dict[str, Result]:
        """Name → result of a set; a single result has the name ""."""
        return dict(self.result) if isinstance(self.result, ResultSet) else {"": self.result}

    @property
    def kind(self) -> type[Result]:
        """The class of the result, or of those in the set."""
        return type(next(iter(self.parts.values())))

    @property
    def words(self) -> str:
        """What it is, in words."""
        count = len(self.parts)
        return f"{count} x {self.kind.__name__}" if isinstance(self.result, ResultSet) else self.kind.__name__


@contextmanager
def fitting(name: str) -> Iterator[None]:
    """Work on numbers from a file, of which anything may come that numbers which do not fit together can cause.

    Raises:
        ValueError: in one line, whatever came of it.
    """
    try:
        yield
    except Exception as error:
        if type(error).__module__.startswith("streamlit."):  # its way to end a run
            raise
        what = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise ValueError(f"{name}: its numbers do not fit together ({what}).") from error


def saved_result(name: str, content: bytes) -> Saved:
    """The result in a file.

    Args:
        name: of the file, whose end says how it is read.
        content: of the file.

    Raises:
        ValueError: it holds none, or more than is read; one line.
        BusyError: the gate was taken for too long.
    """
    return _saved_result(name, hashlib.sha256(content).hexdigest(), content)


@st.cache_resource(max_entries=6, show_spinner="Reading the file …")
def _saved_result(name: str, digest: str, _content: bytes) -> Saved:
    if len(_content) > MAX_UPLOAD_MB * MEGABYTE:
        raise ValueError(f"{name} has more than {MAX_UPLOAD_MB} MB.")
    suffix = name.lower().rpartition(".")[2]
    try:
        if suffix == "zip":
            with GATE.long_slot():
                return Saved(name, table_of_report(report_of_archive(_content)))
        with GATE.slot():
            return Saved(name, _result(suffix, _content))
    except RecursionError as error:
        raise ValueError(f"{name} cannot be read: it is nested too deep.") from error
    except (ValueError, MemoryError, OverflowError) as error:
        words = str(error).rstrip(".") or "it is too large"
        raise ValueError(f"{name} cannot be read: {words}.") from error


def _result(suffix: str, content: bytes) -> Any:
    if suffix == "npz":
        arrays = arrays_of(content)
        text = arrays.pop("__result__", None)
        if text is None or text.dtype.kind != "U" or text.ndim:
            raise ValueError("it holds arrays but no result of horinsight: save one with save_result")
        json_of(str(text).encode("utf-8", "replace"))
        with _of_content("result"):
            kind, fields = content_of_arrays({**arrays, "__result__": text})
        return _rebuilt(kind, fields)
    if suffix == "json":
        found = json_of(content)
        if "question" in found and "rows" in found:
            return _checked(table_of_report(found))
        if not isinstance(found.get("result"), str):
            raise ValueError("it is JSON, but neither of save_result nor of `horinsight survey report`")
        return _rebuilt(found.pop("result"), found)
    if suffix == "csv":
        if len(content) > MOST_JSON:
            raise ValueError(f"it has more than {MOST_JSON // MEGABYTE} MB")
        try:
            lines = csv.DictReader(io.StringIO(content.decode("utf-8", errors="replace")))
            if len(lines.fieldnames or ()) > MOST_COLUMNS:
                raise ValueError("it is CSV with too many columns for a report of a survey")
            return _checked(table_of_lines(list(islice(lines, MOST_LINES + 1))))
        except csv.Error as error:
            raise ValueError(f"it is no CSV ({error})") from error
    raise ValueError(f"its name ends in none of {', '.join(TYPES)}")


@contextmanager
def _of_content(what: str) -> Iterator[None]:
    """Turns what comes of fields that are not those of a class into one line."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"it does not hold a whole {what} ({str(error)[:200]})") from error


def _rebuilt(kind: Any, content: Mapping[str, Any]) -> Any:
    if not isinstance(kind, str) or not kind:
        raise ValueError("it does not say what result it holds")
    with _of_content(kind[:60]):
        found: Any = result_of_content(ResultSet if kind == "ResultSet" else kind_called(kind), content)
    if isinstance(found, ResultSet) and not found:
        raise ValueError("it holds an empty set of results")
    if isinstance(found, ResultSet) and len(found) > MOST_PARTS:
        raise ValueError(f"it holds a set of {len(found)} results, and at most {MOST_PARTS} are read")
    return _checked(found)


def _checked(found: Any) -> Any:
    """The result, if its fields are what its class says."""
    for name, one in found.items() if isinstance(found, ResultSet) else [(type(found).__name__, found)]:
        words = misfit(one, type(one), name)
        if words:
            raise ValueError(f"{words[:300]}")
    return found
