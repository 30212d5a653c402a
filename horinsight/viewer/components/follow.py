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
_mount = st.components.v2.component(
    "horinsight_follow",
    html='<div class="tables" hidden></div>',
    js=(HERE / "follow.js").read_text(encoding="utf-8"),
)


def followed(message: bytes, *, key: str) -> None:
    """Hand the tables of `tables_message` to the galleries of its scope."""
    _mount(key=key, data=message, height=1)


def tables_message(
    tables: Mapping[str, QueryTable], map_size: tuple[int, int], *, scope: str, stamp: str, max_bytes: int = MAX_BYTES
) -> bytes:
    """Tables in one message: a header's length, the header as JSON, arrays of four bytes a number.

    Args:
        tables: block name → all its queries; those that no longer fit are left out, the last first.
        map_size: (rows, columns) on which a pointer's position is counted.
        scope: which galleries they are for.
        stamp: changes with what they are of.
        max_bytes: of all arrays.
    """
    arrays: list[np.ndarray] = []
    places: dict[bytes, list[int]] = {}
    blocks: dict[str, dict[str, object]] = {}
    taken = 0

    def placed(array: np.ndarray) -> list[int]:
        """[first number, how many]; arrays that are alike are sent once."""
        content = array.tobytes()
        if content not in places:
            places[content] = [sum(one.size for one in arrays), array.size]
            arrays.append(array)
        return places[content]

    for name, table in tables.items():
        size = 4 * (table.values.size + (0 if table.cells is None else table.cells.size))
        if taken + size > max_bytes:
            continue
        taken += size
        blocks[name] = {
            "rows": table.looked_at[0],
            "cols": table.looked_at[1],
            "queryCols": table.size[1],
            "width": table.values.shape[1],
            "values": placed(table.values),
            "cells": None if table.cells is None else placed(table.cells),
            "places": placed(_places(map_size, table.size)),
        }
    header = json.dumps({"scope": scope, "stamp": stamp, "blocks": blocks}).encode()
    header += b" " * (-len(header) % 4)
    return struct.pack("<I", len(header)) + header + b"".join(array.tobytes() for array in arrays)


def _places(map_size: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """For each cell of a map, in order, the index of the cell of another map at its place."""
    cells = [same_place((row, col), map_size, size) for row in range(map_size[0]) for col in range(map_size[1])]
    return np.array([row * size[1] + col for row, col in cells], dtype=np.int32)
