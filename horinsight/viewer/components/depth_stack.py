"""Maps of one query one below the other, as small multiples beside an enlarged one, with a slider through them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from horinsight.viewer.components.map_panels import SCALES, Display, look, map_panel, map_scales
from horinsight.viewer.components.picker import script

HERE = Path(__file__).parent
HTML = f"""<div class="stack"><div class="both">
<figure class="large"><figcaption><b></b><span class="note"></span></figcaption>
<div class="map" tabindex="0" role="application"><img alt=""><canvas></canvas>
<svg preserveAspectRatio="none"></svg></div>
<label class="depth"><span class="first"></span><input type="range" min="0" step="1"><span class="last"></span></label>
{SCALES}</figure>
<div class="thumbs" role="group"></div></div>
<div class="said"></div><div class="read" role="status" aria-live="polite"></div></div>"""
_mount = st.components.v2.component(
    "horinsight_depth_stack",
    html=HTML,
    css=(HERE / "depth_stack.css").read_text(encoding="utf-8"),
    js=script("maps.js", "depth_stack.js"),
)


@dataclass(frozen=True, eq=False)
class StackMap:
    """One of the maps.

    Attributes:
        title: above it.
        name: of the table that says it for other queries.
        values: (rows, columns).
        query: (row, col) on it.
        said: what it shows, in a sentence.
        note: in place of its limits, and on the small map, where there is nothing to see.
    """

    title: str
    name: str
    values: np.ndarray
    query: tuple[int, int]
    said: str = ""
    note: str = ""


@dataclass(frozen=True)
class StackWords:
    """What the slider is called, and what stands at its ends.

    Attributes:
        name: of the slider.
        first: at its beginning.
        last: at its end.
        hint: below the maps while none is read.
    """

    name: str
    first: str
    last: str
    hint: str


def depth_stack(
    maps: Sequence[StackMap],
    picture: tuple[str, str],
    *,
    at: int,
    words: StackWords,
    stamp: str,
    key: str,
    on_change: tuple[Callable[[], None], Callable[[], None]],
    display: Display,
) -> None:
    """Draw them; moving the slider asks nobody, and where it comes to rest is sent half a second later.

    Args:
        maps: in the order of the slider.
        picture: its data URL, and a name that changes with it.
        at: which of the maps is enlarged, from 0.
        words: of the slider.
        stamp: what the component carries as `data-ready` once these maps are painted.
        key: of the component; `st.session_state[key]["cell"]` is panel, row and column, `["depth"]` is `{"at": ...}`.
        on_change: called before the next run when a cell was clicked, and when the slider has come to rest.
        display: how they look.
    """
    scales = map_scales([one.values for one in maps], one_scale=display.one_scale)
    panels: list[dict[str, Any]] = [
        map_panel(one.title, one.name, one.values, one.query, scale)
        | {"said": one.said}
        | ({"note": one.note, "empty": one.note} if one.note else {})
        for one, scale in zip(maps, scales, strict=True)
    ]
    _mount(
        key=key,
        on_cell_change=on_change[0],
        on_depth_change=on_change[1],
        data={
            **look(display),
            "src": picture[0],
            "id": picture[1],
            "panels": panels,
            "at": at,
            "words": vars(words),
            "scope": key,
            "stamp": stamp,
        },
    )


def moved_to(key: str, positions: int) -> int | None:
    """Where the slider of a component came to rest; None where something else was sent."""
    sent = st.session_state[key].get("depth")
    at = sent.get("at") if isinstance(sent, dict) else None
    return at if isinstance(at, int) and 0 <= at < positions else None
