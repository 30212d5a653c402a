"""Maps of one query in several blocks, drawn by the browser; values are read by hovering or with the arrow keys."""

from collections.abc import Callable, Mapping
from pathlib import Path

import streamlit as st

from horinsight.mixing.mixing_results import QueryMaps
from horinsight.viewer.components.map_panels import SCALES, Display, look, map_panel, map_scales
from horinsight.viewer.components.picker import script

HERE = Path(__file__).parent
COLUMNS = 3  # maps side by side
HINT = "Point at the picture: maps follow. On a map: hover or arrow keys read h_ij, click or Enter moves i."
HTML = f"""<div class="gallery"><div class="maps"></div>{SCALES}
<div class="read" role="status" aria-live="polite"></div></div>"""
_mount = st.components.v2.component(
    "horinsight_gallery",
    html=HTML,
    css=(HERE / "gallery.css").read_text(encoding="utf-8"),
    js=script("maps.js", "gallery.js"),
)


def gallery(
    maps: QueryMaps,
    src: str,
    picture_id: str,
    *,
    key: str,
    on_change: Callable[[], None],
    details: Mapping[str, str] | None = None,
    detail_help: str = "",
    display: Display | None = None,
) -> None:
    """Draw a map per block, of the first query; a click sends `st.session_state[key]["cell"]`: panel, row, column.

    Args:
        maps: of `query_maps`.
        src: of the picture, a data URL.
        picture_id: changes with the picture.
        key: of the component.
        on_change: called before the next run when a cell was clicked.
        details: block name → words below its map; lines where there is no room for one.
        detail_help: what that line says.
        display: how they look; the default when None.
    """
    display = display or Display()
    scales = map_scales([values[0] for values in maps.maps.values()], one_scale=display.one_scale)
    panels = [
        map_panel(f"block {index}", name, values[0], tuple(maps.queries[name][0]), scale)
        | {"detail": (details or {}).get(name, "")}
        for index, (name, values), scale in zip(maps.block_indices, maps.maps.items(), scales, strict=True)
    ]
    _mount(
        key=key,
        on_cell_change=on_change,
        data={
            **look(display),
            "src": src,
            "id": picture_id,
            "panels": panels,
            "columns": COLUMNS,
            "scope": key,
            "hint": HINT,
            "detailHelp": detail_help,
            "stamp": stamp(maps, picture_id),
        },
    )


def stamp(maps: QueryMaps, picture_id: str) -> str:
    """What the component carries as `data-ready` once these maps are painted."""
    first = next(iter(maps.queries.values()))[0]
    model = maps.provenance.model if maps.provenance else ""
    blocks = ",".join(map(str, maps.block_indices))
    shown = f"{maps.convention.get('step')}:{maps.convention.get('channel')}"
    return f"{model}:{picture_id}:{blocks}:{shown}:{first[0]}:{first[1]}"
