"""Tables of all queries, sent to the browser once, so that maps follow a pointer without the server."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import streamlit as st

from horinsight.mixing.query_places import same_place
from horinsight.mixing.query_table import QueryTable

HERE = Path(__file__).parent
MAX_BYTES = 4 * 2**20  # of a page's tables
MOST_SMALL = 2**15  # positions that two bytes tell apart, and that there is none
_mount = st.components.v2.component(
    "horinsight_follow",
    html='<div class="tables" hidden></div>',
    js=(HERE / "follow.js").read_text(encoding="utf-8"),
)


def followed(message: bytes, *, key: str) -> None:
    """Hand the tables of `tables_message` to the galleries of its scope."""
    _mount(key=key, data=message, height=1)


def tables_message(
    tables: Mapping[str, QueryTable],
    map_size: tuple[int, int],
    *,
    scope: str,
    stamp: str,
    max_bytes: int = MAX_BYTES,
    half: bool = False,
) -> bytes:
    """Tables in one message: a header's length, the header as JSON, arrays that begin at multiples of four bytes.

    Args:
        tables: block name → all its queries; those that no longer fit are left out, the last first.
        map_size: (rows, columns) on which a pointer's position is counted.
        scope: which galleries they are for.
        stamp: changes with what they are of.
        max_bytes: of all arrays of values and positions.
        half: two bytes a number: values as shares of the query's largest, which are right to 0.05 % of themselves, and
            to 3e-8 of the largest where they are below 6e-5 of it.
    """
    arrays = _Arrays()
    blocks: dict[str, dict[str, object]] = {}
    for name, table in tables.items():
        parts = [table.values.astype("<f4")]
        scales = np.abs(table.values).max(1).astype("<f4")
        if half:
            parts[0] = (table.values / np.where(scales > 0, scales, 1)[:, None]).astype("<f2")
        small = half and np.prod(table.looked_at) <= MOST_SMALL
        parts += [] if table.cells is None else [table.cells.astype("<i2" if small else "<i4")]
        if arrays.taken + arrays.more(parts) > max_bytes:
            continue
        values, *cells = [arrays.placed(part) for part in parts]
        blocks[name] = {
            "rows": table.looked_at[0],
            "cols": table.looked_at[1],
            "queryCols": table.size[1],
            "width": table.values.shape[1],
            "values": values,
            "scales": arrays.placed(scales) if half else None,
            "cells": cells[0] if cells else None,
            "smallCells": bool(small),
            "places": arrays.placed(_places(map_size, table.size)),
        }
    header = json.dumps({"scope": scope, "stamp": stamp, "blocks": blocks}).encode()
    header += b" " * (-len(header) % 4)
    return struct.pack("<I", len(header)) + header + b"".join(arrays.contents)


class _Arrays:
    """Arrays one after the other; those that are alike come once."""

    def __init__(self) -> None:
        self.contents: dict[bytes, list[int]] = {}  # content → [where it begins in units of four bytes, numbers]
        self.taken = 0

    def more(self, arrays: list[np.ndarray]) -> int:
        """Bytes that arrays would add."""
        return sum(array.nbytes for array in arrays if self._content(array) not in self.contents)

    def placed(self, array: np.ndarray) -> list[int]:
        content = self._content(array)
        if content not in self.contents:
            self.contents[content] = [self.taken // 4, array.size]
            self.taken += len(content)
        return self.contents[content]

    @staticmethod
    def _content(array: np.ndarray) -> bytes:
        return array.tobytes() + b"\0" * (-array.nbytes % 4)


def _places(map_size: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """For each cell of a map, in order, the index of the cell of another map at its place."""
    cells = [same_place((row, col), map_size, size) for row in range(map_size[0]) for col in range(map_size[1])]
    return np.array([row * size[1] + col for row, col in cells], dtype=np.int32)
