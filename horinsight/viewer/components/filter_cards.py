"""Filters as small pictures, in space and in frequency, with their numbers."""

import base64
import io

import matplotlib as mpl
import numpy as np
import streamlit as st
from PIL import Image

from horinsight.figures.style import DIVERGING, SEQUENTIAL
from horinsight.mixing.filter_results import ChannelFilters

LEAST_SIDE = 56  # pixels of a picture, so that cells have sharp edges
STYLE = """
.filters { display: grid; grid-template-columns: repeat(auto-fill, minmax(118px, 1fr)); gap: 10px 12px }
.filters figure { margin: 0 } .filters div { display: flex; gap: 3px }
.filters img { width: calc(50% - 2px); aspect-ratio: 1; image-rendering: pixelated; border-radius: 2px }
.filters figcaption { font-size: .72rem; line-height: 1.25; font-variant-numeric: tabular-nums }
"""


def filter_picture(values: np.ndarray, *, signed: bool) -> bytes:
    """A map as a PNG: red and blue around 0, or from 0 up.

    Args:
        values: (rows, columns).
        signed: whether it may be negative.
    """
    limit = float(np.abs(values).max()) or 1.0
    shown = (values / limit + 1) / 2 if signed else values / limit
    pixels = (255 * mpl.colormaps[DIVERGING if signed else SEQUENTIAL](shown)[..., :3]).round().astype(np.uint8)
    scale = max(1, -(-LEAST_SIDE // max(values.shape)))
    stream = io.BytesIO()
    Image.fromarray(np.repeat(np.repeat(pixels, scale, 0), scale, 1)).save(stream, "PNG")
    return stream.getvalue()


def show_filters(found: ChannelFilters, channels: np.ndarray) -> None:
    """A card for each of some channels: its kernel, its response, how much it adapts."""
    st.html(f'<style>{STYLE}</style><div class="filters">{"".join(_card(found, int(one)) for one in channels)}</div>')


def _card(found: ChannelFilters, channel: int) -> str:
    kind, kernel = found.kernel(channel)
    pictures = {
        f"kernel {kind} of channel {channel}": filter_picture(kernel, signed=True),
        f"frequency response of channel {channel}": filter_picture(found.response(channel), signed=False),
    }
    images = "".join(
        f'<img src="data:image/png;base64,{base64.b64encode(picture).decode()}" alt="{words}">'
        for words, picture in pictures.items()
    )
    return (
        f"<figure><div>{images}</div><figcaption><b>{channel}</b> · adapts {found.location_adaptivity[channel]:.3f}"
        f"<br>by {found.location_deviation[channel]:.1e} · norm {found.norms[channel]:.2g}</figcaption></figure>"
    )
