"""Maps of one query in several blocks, drawn by the browser; values are read by hovering or with the arrow keys."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import streamlit as st

from horinsight.figures.mixing_maps import covered_cells, map_limits
from horinsight.mixing.mixing_results import QueryMaps
from horinsight.viewer.components.picker import script

HERE = Path(__file__).parent
SIGNED_COLOURS = ("RdBu_r", "PuOr_r", "BrBG_r")
POSITIVE_COLOURS = "viridis"
COLUMNS = 3  # maps side by side
HINT = (
    "Point at the picture and the maps follow. Hover over a map, or use the arrow keys on it, to read h_ij; click, or "
    "press Enter, to move the query i."
)
SCALE = '<div class="scale {kind}"><span class="low"></span><canvas></canvas><span class="high"></span></div>'
HTML = (
    '<div class="gallery"><div class="maps"></div>'
    + SCALE.format(kind="signed")
    + SCALE.format(kind="positive")
    + '<div class="read" role="status" aria-live="polite"></div></div>'
)
_mount = st.components.v2.component(
    "horinsight_gallery", html=HTML, css=(HERE / "gallery.css").read_text(encoding="utf-8"), js=script("gallery.js")
)


@dataclass(frozen=True)
class Display:
    """How maps look.

    Attributes:
        colour_map: a diverging one, for maps with negative values; the others are viridis.
        opacity: of the maps over the picture.
        one_scale: the same limits for all blocks.
        smooth: interpolate between cells.
        grey: show the picture light and grey.
        tables: the stamp of those that `followed` sends for the gallery, whose maps then follow a pointer.
    """

    colour_map: str = SIGNED_COLOURS[0]
    opacity: float = 0.65
    one_scale: bool = False
    smooth: bool = False
    grey: bool = True
    tables: str = ""


@st.cache_data(show_spinner=False)
def colours(name: str) -> list[int]:
    """256 colours of a colour map, as red, green, blue from 0 to 255."""
    return (mpl.colormaps[name](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(int).ravel().tolist()


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
        details: block name → a line below its map.
        detail_help: what that line says.
        display: how they look; the default when None.
    """
    display = display or Display()
    limits = {name: map_limits(values[0]) for name, values in maps.maps.items()}
    if display.one_scale:
        together = np.concatenate([values[0].ravel() for values in maps.maps.values()])
        limits = dict.fromkeys(limits, map_limits(together))
    panels = [
        {
            "title": f"block {index}",
            "name": name,
            "note": _note(limits[name]),
            "detail": (details or {}).get(name, ""),
            "signed": limits[name][0] < 0,
            "low": limits[name][0],
            "high": limits[name][1],
            "rows": values.shape[1],
            "cols": values.shape[2],
            "query": maps.queries[name][0].tolist(),
            "values": _values(values[0]),
        }
        for index, (name, values) in zip(maps.block_indices, maps.maps.items(), strict=True)
    ]
    _mount(
        key=key,
        on_cell_change=on_change,
        data={
            "src": src,
            "id": picture_id,
            "panels": panels,
            "columns": COLUMNS,
            "colours": {"signed": colours(display.colour_map), "positive": colours(POSITIVE_COLOURS)},
            "ends": _ends(list(limits.values()), one_scale=display.one_scale),
            "opacity": display.opacity,
            "smooth": display.smooth,
            "oneScale": display.one_scale,
            "scope": key,
            "tables": display.tables,
            "grey": display.grey,
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


def _note(limits: tuple[float, float, str]) -> str:
    """Limits in words that cannot be taken for an error bar."""
    return f"max |h| {limits[1]:.1e}" if limits[0] < 0 and limits[2] != "all 0" else limits[2]


def _values(values: np.ndarray) -> list[float | None]:
    covered = covered_cells(values)
    return [float(f"{value:.5g}") if on else None for value, on in zip(values.flat, covered.flat, strict=True)]


def _ends(limits: Sequence[tuple[float, float, str]], *, one_scale: bool) -> dict[str, tuple[str, str]]:
    """What stands at the ends of the two colour bars."""
    low, high, _ = limits[0]
    if one_scale:
        return {"signed": (f"−{high:.1e}", f"+{high:.1e}"), "positive": (f"{low:.1e}", f"{high:.1e}")}
    return {"signed": ("−max |h| of the map", "+max |h|"), "positive": ("least h of the map", "largest h")}
