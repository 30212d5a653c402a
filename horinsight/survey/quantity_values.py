"""Quantities of a survey as arrays of pictures by blocks and k, read part by part."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow

from horinsight.survey.picture_rows import PictureRow
from horinsight.survey.survey_frame import part_tables

Cell = tuple[int, str, int | None]  # block, name, k


@dataclass(frozen=True, eq=False)
class QuantityValues:
    """Numbers of every picture in the finished parts.

    Attributes:
        images: (P,) the pictures.
        classes: (P,) of each.
        cells: (n) block, name and k of each column.
        values: (P, n), NaN where a picture has none.
    """

    images: np.ndarray
    classes: np.ndarray
    cells: list[Cell]
    values: np.ndarray

    def of_class(self, label: str) -> "QuantityValues":
        """Those of one class."""
        kept = self.classes == label
        return QuantityValues(self.images[kept], self.classes[kept], self.cells, self.values[kept])

    def column(self, cell: Cell) -> np.ndarray:
        """(P,) of one block and k; NaN throughout where there is no such column."""
        if cell not in self.cells:
            return np.full(len(self.images), np.nan)
        found: np.ndarray = self.values[:, self.cells.index(cell)]
        return found


def quantity_values(folder: str | os.PathLike[str], quantities: Sequence[str]) -> dict[str, QuantityValues]:
    """Quantities of all pictures in the finished parts of a survey, also of those that have none; a part is read once.

    Raises:
        ValueError: the folder holds no survey.
    """
    images: list[np.ndarray] = []
    classes: list[np.ndarray] = []
    columns = {quantity: _Columns() for quantity in quantities}
    for table in part_tables(folder):
        picture = _codes(table, "image")
        first = np.unique(picture, return_index=True)[1]
        images.append(_texts(table, "image"))
        classes.append(_texts(table, "class")[_codes(table, "class")[first]])
        which, known = _codes(table, "quantity"), _texts(table, "quantity").tolist()
        for quantity, kept in columns.items():
            code = known.index(quantity) if quantity in known else len(known)
            kept.add(table, picture, len(first), np.flatnonzero(which == code))
    names, labels = (np.concatenate([*some, np.array([], dtype=object)]) for some in (images, classes))
    return {quantity: QuantityValues(names, labels, *kept.together()) for quantity, kept in columns.items()}


def values_of_rows(
    images: Sequence[str], classes: Sequence[str], rows: Sequence[Sequence[PictureRow]], quantities: Sequence[str]
) -> dict[str, QuantityValues]:
    """Quantities of pictures whose rows are at hand, as `quantity_values` has those of a survey.

    Args:
        images: P names.
        classes: of each.
        rows: of each.
        quantities: which.
    """
    names, labels = np.array(images, dtype=object), np.array(classes, dtype=object)
    found = {}
    for quantity in quantities:
        known = [{(row.block, row.name, row.k): row.value for row in mine if row.quantity == quantity} for mine in rows]
        cells = _in_order({cell for mine in known for cell in mine if cell[0] is not None})
        values = np.array([[mine.get(cell, np.nan) for cell in cells] for mine in known])
        found[quantity] = QuantityValues(names, labels, cells, values.reshape(len(names), len(cells)))
    return found


def _in_order(cells: Iterable[Any]) -> list[Cell]:
    return sorted(cells, key=lambda cell: (cell[0], -1 if cell[2] is None else cell[2]))


class _Columns:
    """Values of one quantity, part by part."""

    def __init__(self) -> None:
        self.place: dict[Cell, int] = {}
        self.parts: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, table: pyarrow.Table, picture: np.ndarray, count: int, wanted: np.ndarray) -> None:
        """Add the rows that are wanted of a part of so many pictures."""
        names = _texts(table, "name")
        cells = zip(
            table.column("block").take(pyarrow.array(wanted)).to_pylist(),
            names[_codes(table, "name")[wanted]] if len(names) else [],
            table.column("k").take(pyarrow.array(wanted)).to_pylist(),
            strict=True,
        )
        place = self.place
        column = np.array([place.setdefault((block, str(name), k), len(place)) for block, name, k in cells], int)
        self.parts.append((count, picture[wanted], column, table.column("value").to_numpy()[wanted]))

    def together(self) -> tuple[list[Cell], np.ndarray]:
        """The columns in order, and the values."""
        found = np.full((sum(part[0] for part in self.parts), len(self.place)), np.nan)
        start = 0
        for count, row, column, values in self.parts:
            found[start + row, column] = values
            start += count
        order = _in_order(self.place)
        return order, found[:, [self.place[cell] for cell in order]]


def _codes(table: pyarrow.Table, name: str) -> np.ndarray:
    """Indices into `_texts` of a column; -1 where it is missing."""
    column = table.column(name).combine_chunks()
    codes: np.ndarray = column.indices.fill_null(-1).to_numpy()
    return codes


def _texts(table: pyarrow.Table, name: str) -> np.ndarray:
    column = table.column(name).combine_chunks()
    texts: np.ndarray = np.array(column.dictionary.to_pylist(), dtype=object)
    return texts
