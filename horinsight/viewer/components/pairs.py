"""Maps of two sides in pairs with their difference, drawn by the browser; they follow a pointer as a gallery does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from horinsight.mixing.mixing_results import QueryMaps
from horinsight.viewer.components.gallery import stamp
from horinsight.viewer.components.map_panels import SCALES, Display, colours, look, map_panel, map_scale, map_scales
from horinsight.viewer.components.picker import script

HERE = Path(__file__).parent
HTML = f"""<div class="pairs"><div class="grid"></div>{SCALES}
<div class="scale difference"><span class="low"></span><canvas></canvas><span class="high"></span></div>
<div class="read" role="status" aria-live="polite"></div></div>"""
HINT = "Point at a picture: maps follow. On a map: hover or arrow keys read values, click or Enter moves i."
_mount = st.components.v2.component(
    "horinsight_pairs",
    html=HTML,
    css=(HERE / "pairs.css").read_text(encoding="utf-8"),
    js=script("maps.js", "pairs.js"),
)


@dataclass(frozen=True)
class Side:
    """One of the two that are compared.

    Attributes:
        maps: of `query_maps`.
        src: of its picture, a data URL.
        picture_id: changes with the picture.
        tables: stamp of the tables that are sent for the scope of its name, `pairs_a` or `pairs_b`.
    """

    maps: QueryMaps
    src: str
    picture_id: str
    tables: str


def difference_colours(colour_map: str) -> str:
    """Diverging colours that are not those of the maps."""
    return "BrBG_r" if colour_map == "PuOr_r" else "PuOr_r"


def pairs(sides: Sequence[Side], display: Display, *, key: str, on_change: Callable[[], None]) -> None:
    """Draw A, B and B - A for each pair of blocks; a click sends `st.session_state[key]["cell"]`.

    The `panel` of that cell counts the maps of A first, then those of B.

    Args:
        sides: A and B; their blocks are paired in order, and those beyond the shorter list left out.
        display: how maps look; `one_scale` is one for both sides and all blocks.
        key: of the component.
        on_change: called before the next run when a cell was clicked.
    """
    num_pairs = min(len(side.maps.maps) for side in sides)
    values = [[found[0] for found in side.maps.maps.values()][:num_pairs] for side in sides]
    both = [one for side in values for one in side]
    scales = map_scales(both, one_scale=display.one_scale)
    scales = [replace(scale, note=map_scale(one).note) for scale, one in zip(scales, both, strict=True)]
    columns: list[list[dict[str, Any]]] = []
    for place, side in enumerate(sides):
        names = list(side.maps.maps)[:num_pairs]
        columns.append(
            [
                map_panel(f"{'AB'[place]} {index}", name, one, tuple(side.maps.queries[name][0]), scale)
                for index, name, one, scale in zip(
                    side.maps.block_indices, names, values[place], scales[place * num_pairs :], strict=False
                )
            ]
        )
    _mount(
        key=key,
        on_cell_change=on_change,
        data={
            **look(display),
            "differenceColours": colours(difference_colours(display.colour_map)),
            "sides": [
                {"scope": f"pairs_{name}", "tables": side.tables, "src": side.src, "id": side.picture_id, "panels": own}
                for name, side, own in zip("ab", sides, columns, strict=True)
            ],
            "hint": HINT,
            "stamp": " ".join(stamp(side.maps, side.picture_id) for side in sides),
        },
    )


def resampled_sizes(sides: Sequence[Side]) -> list[tuple[int, ...]]:
    """Sizes of maps that their partners do not have, and that are brought to one size for the difference."""
    shapes = [[found.shape[1:] for found in side.maps.maps.values()] for side in sides]
    unlike = [pair for pair in zip(*shapes, strict=False) if pair[0] != pair[1]]
    return sorted({tuple(int(part) for part in np.minimum(*pair)) for pair in unlike})
