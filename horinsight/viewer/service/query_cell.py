"""The query of the session: a cell of the map, part of the address, moved by a click."""

from collections.abc import Sequence

import streamlit as st

from horinsight.mixing.mixing_results import QueryMaps
from horinsight.mixing.query_places import same_place
from horinsight.viewer.service.address import Address
from horinsight.viewer.service.choices import whole


def query_in(map_size: tuple[int, int]) -> tuple[int, int]:
    """The query of the session, or of the address that opened it, as a cell of a map.

    When the map changes, because other blocks are shown, the query stays at its place of the picture.
    """
    state, address = st.session_state, Address.of_session()
    before = state.get("query_map", map_size)
    if before != map_size and not (address.reads("row") or address.reads("col")):
        state["row"], state["col"] = same_place((state["row"], state["col"]), before, map_size)
    state["query_map"] = map_size
    for name, size in zip(("row", "col"), map_size, strict=True):
        address.chosen(name, whole(0, size - 1), size // 2)
    return state["row"], state["col"]


def query_fields(map_size: tuple[int, int]) -> tuple[int, int]:
    """Two number fields for the query, which are part of the address."""
    query_in(map_size)
    rows, columns = map_size
    with st.container(
        horizontal=True, vertical_alignment="bottom", gap="xsmall", key="query_fields"
    ):  # side by side on a telephone too
        row = st.number_input(f"Row, 0–{rows - 1}", 0, rows - 1, key="row", persist_state="session")
        col = st.number_input(f"Column, 0–{columns - 1}", 0, columns - 1, key="col", persist_state="session")
    return int(row), int(col)


def panel_sizes(maps: QueryMaps) -> list[tuple[int, ...]]:
    """(rows, columns) of each map."""
    return [values.shape[1:] for values in maps.maps.values()]


def move_query(key: str, panels: Sequence[tuple[int, ...]], map_size: tuple[int, int]) -> None:
    """Take the cell that a component sent as the new query.

    Args:
        key: of the component.
        panels: (rows, columns) of each of its maps.
        map_size: of the map on which queries are counted.
    """
    cell = st.session_state[key].get("cell")
    numbers = [cell.get(name, 0) for name in ("panel", "row", "col")] if isinstance(cell, dict) else []
    if len(numbers) == 3 and all(isinstance(number, int) for number in numbers) and {"row", "col"} <= cell.keys():
        panel, row, col = numbers
        rows, columns = panels[min(max(panel, 0), len(panels) - 1)]
        inside = min(max(row, 0), rows - 1), min(max(col, 0), columns - 1)  # whatever was sent
        place = same_place(inside, (rows, columns), map_size)
        st.session_state["row"], st.session_state["col"] = place
