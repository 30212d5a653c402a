"""One quantity of a survey as an array of pictures by blocks and k, read part by part."""

import os
from dataclasses import dataclass

import numpy as np
import pyarrow

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


def quantity_values(folder: str | os.PathLike[str], quantity: str) -> QuantityValues:
    """A quantity of all pictures in the finished parts of a survey, also of those that have none.

    Raises:
        ValueError: the folder holds no survey.
    """
    place: dict[Cell, int] = {}
    images, classes, parts = [], [], []
    for table in part_tables(folder):
        picture = _codes(table, "image")
        first = np.unique(picture, return_index=True)[1]
        images.append(_texts(table, "image"))
        classes.append(_texts(table, "class")[_codes(table, "class")[first]])
        wanted = np.flatnonzero(_texts(table, "quantity")[_codes(table, "quantity")] == quantity)
        names = _texts(table, "name")
        cells = zip(
            table.column("block").take(pyarrow.array(wanted)).to_pylist(),
            names[_codes(table, "name")[wanted]] if len(names) else [],
            table.column("k").take(pyarrow.array(wanted)).to_pylist(),
            strict=True,
        )
        column = np.array([place.setdefault((block, str(name), k), len(place)) for block, name, k in cells], int)
        values = table.column("value").to_numpy()[wanted]
        parts.append((len(first), picture[wanted], column, values))
    found = np.full((sum(len(names) for names in images), len(place)), np.nan)
    start = 0
    for count, row, column, values in parts:
        found[start + row, column] = values
        start += count
    order = sorted(place, key=lambda cell: (cell[0], -1 if cell[2] is None else cell[2]))
    names, labels = (np.concatenate([*some, np.array([], dtype=object)]) for some in (images, classes))
    return QuantityValues(names, labels, order, found[:, [place[cell] for cell in order]])


def _codes(table: pyarrow.Table, name: str) -> np.ndarray:
    """Indices into `_texts` of a column; -1 where it is missing."""
    column = table.column(name).combine_chunks()
    codes: np.ndarray = column.indices.fill_null(-1).to_numpy()
    return codes


def _texts(table: pyarrow.Table, name: str) -> np.ndarray:
    column = table.column(name).combine_chunks()
    texts: np.ndarray = np.array(column.dictionary.to_pylist(), dtype=object)
    return texts
