"""A picture on which a cell is chosen, as an inline component: no frame, no build step."""

from collections.abc import Callable
from pathlib import Path

import streamlit as st

HERE = Path(__file__).parent
HTML = """<div class="picker" tabindex="0" role="application" aria-roledescription="choice of a location">
<img alt=""><svg preserveAspectRatio="none"></svg><button class="play" type="button" hidden></button>
<span class="said" role="status"></span></div>"""


def script(*names: str) -> str:
    """A component's JavaScript, with what the components share."""
    return "".join((HERE / name).read_text(encoding="utf-8") for name in ("cells.js", *names))


_mount = st.components.v2.component(
    "horinsight_picker", html=HTML, css=(HERE / "picker.css").read_text(encoding="utf-8"), js=script("picker.js")
)


def picker(
    src: str,
    picture_id: str,
    query: tuple[int, int],
    map_size: tuple[int, int],
    *,
    alt: str,
    key: str,
    on_change: Callable[[], None],
) -> None:
    """Show a picture with its query outlined; a click or an arrow key sends `st.session_state[key]["cell"]`.

    Galleries of the page follow the pointer where `followed` has sent them tables, and a path that is drawn.

    Args:
        src: of the picture, a data URL.
        picture_id: changes with the picture.
        query: (row, col).
        map_size: (rows, columns) of the cells.
        alt: what the picture shows.
        key: of the component.
        on_change: called before the next run when a cell was chosen.
    """
    _mount(
        key=key,
        on_cell_change=on_change,
        data={
            "src": src,
            "id": picture_id,
            "row": query[0],
            "col": query[1],
            "rows": map_size[0],
            "cols": map_size[1],
            "alt": alt,
            "label": f"{alt}. Point to see where a location looks; click or use the arrow keys to choose i; "
            f"drag to draw a path. i is row {query[0]}, column {query[1]} of {map_size[0]} by {map_size[1]}.",
        },
    )
