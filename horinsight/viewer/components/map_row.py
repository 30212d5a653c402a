"""Maps of several methods side by side over a picture, with what their colours and numbers mean."""

import base64
import io

import numpy as np
import streamlit as st
from PIL import Image, ImageDraw

from horinsight.attribution.attribution_results import PositionAttributions
from horinsight.attribution.attributions_by_method import Attributions
from horinsight.figures.attribution_maps import map_over_picture
from horinsight.viewer.service.attributed import shown_map
from horinsight.viewer.service.pictures import Picture
from horinsight.viewer.service.plain_text import heading, plain, small, told

MOST = 3  # methods side by side
SHOWN_SIDE = 336  # pixels of a map at least, so that its cells have sharp edges


def show_maps(
    found: dict[str, Attributions],
    failed: dict[str, str],
    names: list[str],
    picture: Picture,
    query: tuple[int, int] | None,
) -> None:
    """The maps side by side, each over the picture."""
    for column, name in zip(st.columns(MOST, gap="small"), names, strict=False):
        with column:
            heading(name.replace("_", " "))
            if name in found:
                values, one = shown_map(found[name], name), found[name]
                grid = one.output_size if isinstance(one, PositionAttributions) else None
                said = f"{values.min():.2g} to {values.max():.2g}, sum {values.sum():.3g}"
                words = f"{name.replace('_', ' ')} of {picture.name}: {said}"
                show_picture(map_over_picture(values, picture.view), words, query, grid)
                small(said + _gap(found[name], name))
            elif name in failed:
                told("error", failed[name])
            else:
                st.caption("waiting …")
    if found:
        missed = "; gap: what the sum misses" if any(_gap(one, name) for name, one in found.items()) else ""
        small(f"Red speaks for, blue against; limits of its own for each map, its least and largest value{missed}.")


def _gap(found: Attributions, name: str) -> str:
    gaps = found.gaps if isinstance(found, PositionAttributions) else found.gaps.get(name)
    return "" if gaps is None else f", gap {float(np.ravel(gaps)[0]):.1g}"


def show_picture(
    pixels: np.ndarray, words: str, query: tuple[int, int] | None = None, grid: tuple[int, int] | None = None
) -> None:
    """A picture as wide as its place, with sharp cells, and with the position that is explained where one is."""
    scale = max(1, -(-SHOWN_SIDE // max(pixels.shape[:2])))
    stream = io.BytesIO()
    image = Image.fromarray(np.repeat(np.repeat(pixels, scale, 0), scale, 1))
    if query is not None and grid is not None:
        tall, wide = image.height / grid[0], image.width / grid[1]
        box = [query[1] * wide, query[0] * tall, (query[1] + 1) * wide, (query[0] + 1) * tall]
        draw = ImageDraw.Draw(image)
        draw.rectangle([box[0] - 3, box[1] - 3, box[2] + 3, box[3] + 3], outline="black", width=5)
        draw.rectangle([box[0] - 2, box[1] - 2, box[2] + 2, box[3] + 2], outline="white", width=2)
    image.save(stream, "PNG")
    source = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
    st.html(f'<img src="{source}" alt="{plain(words)}" class="seen" style="width:100%;border-radius:4px">')
