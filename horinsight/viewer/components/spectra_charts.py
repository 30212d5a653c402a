"""Charts of interaction spectra: effects as a table in colour, and orders beside those of known operators."""

import altair as alt
import matplotlib as mpl
import numpy as np
import pandas as pd
import streamlit as st

from horinsight.interaction.spectrum import InteractionSpectrum
from horinsight.mixers.blocks import MixingBlock
from horinsight.report import shown_order
from horinsight.viewer.service.block_spectra import reference_orders

CHART_HEIGHT = 340  # pixels, for all blocks together: the page then needs no scrolling on 720 lines
ROW_HEIGHTS = (12, 30)
AXIS_HEIGHT = 62  # of the axis and its title, which belong to the height
MIN_HEIGHT = 180
CELL_WIDTH = 44  # pixels below which a cell has room for a power of ten alone
COLOURS = "viridis"
Found = dict[MixingBlock, InteractionSpectrum]


def labels(blocks: list[MixingBlock]) -> dict[MixingBlock, str]:
    """What the rows of the charts are called."""
    return {block: f"{block.index} · {block.block_name or block.name}" for block in blocks}


def effect_rows(found: Found, names: dict[MixingBlock, str]) -> pd.DataFrame:
    """A line per block and order."""
    rows = []
    for block, spectrum in found.items():
        for k, (effect, zero) in enumerate(zip(spectrum.effects, spectrum.exact_zero, strict=True)):
            rows.append(
                {
                    "block": names[block],
                    "k": k,
                    "effect": float(effect),
                    "shown": "0" if zero else f"{effect:.1e}",
                    "power": "0" if zero else f"e{np.floor(np.log10(effect)):.0f}",
                    "log": None if zero else float(np.log10(effect)),
                    "interval": "exactly 0 in every draw"
                    if zero
                    else f"{spectrum.ci_low[k]:.2e} to {spectrum.ci_high[k]:.2e}",
                }
            )
    return pd.DataFrame(rows, columns=["block", "k", "effect", "shown", "power", "log", "interval"])


def order_rows(found: Found, names: dict[MixingBlock, str]) -> pd.DataFrame:
    """A line per block."""
    rows = [
        {
            "block": names[block],
            "order": spectrum.at_least if spectrum.location_order is None else spectrum.location_order,
            "measured": shown_order(spectrum.location_order, len(spectrum.effects) - 1),
            "open": spectrum.location_order is None,
            "design": block.order,
            "degree": "open" if spectrum.degree_order is None else spectrum.degree_order,
        }
        for block, spectrum in found.items()
    ]
    return pd.DataFrame(rows, columns=["block", "order", "measured", "open", "design", "degree"])


def effects_chart(found: Found, names: dict[MixingBlock, str], row: int) -> alt.LayerChart:
    """Effects as a table in colour: a row per block, a column per k."""
    data = effect_rows(found, names)
    y = alt.Y(
        "block:N",
        sort=list(names.values()),
        title=None,
        scale=alt.Scale(domain=list(names.values())),
        axis=alt.Axis(labelOverlap=False, labelFlush=False, labelFontSize=11 if row >= 14 else 9),
    )
    base = alt.Chart(data).encode(
        x=alt.X(
            "k:O",
            title="k neighbours act jointly with the position",
            axis=alt.Axis(labelAngle=0, orient="bottom", labelFlush=False, titlePadding=6),
        ),
        y=y,
        tooltip=[
            "block",
            "k",
            alt.Tooltip("shown", title="effect_k / std(F)"),
            alt.Tooltip("interval", title="95 % interval"),
        ],
    )
    alive, zero = "isValid(datum.log)", "!isValid(datum.log)"
    low = data["log"].min()
    middle = (low + data["log"].max()) / 2
    cells = (
        base.transform_filter(alive)
        .mark_rect(stroke="white", strokeWidth=0.5)
        .encode(color=alt.Color("log:Q", scale=alt.Scale(scheme=COLOURS), legend=None))
    )
    empty = base.transform_filter(zero).mark_rect(fill="#88888818", stroke="#888888", strokeWidth=0.5)
    size = 11 if row >= 16 else 9
    colour = alt.condition(
        f"datum.log > {middle if np.isfinite(middle) else 0}", alt.value("black"), alt.value("white")
    )
    narrow = f"width / {max(data['k'].nunique(), 1)} < {CELL_WIDTH}"
    text, short = (
        base.transform_filter(alive)
        .mark_text(fontSize=size, opacity=alt.ExprRef(f"{narrow} ? {int(small)} : {1 - int(small)}"))
        .encode(text=field, color=colour)
        for field, small in (("shown:N", False), ("power:N", True))
    )
    nothing = (
        base.transform_filter(zero).mark_text(fontSize=size, fontWeight="bold", color="#888888").encode(text="shown:N")
    )
    return (cells + empty + text + short + nothing).properties(height=max(MIN_HEIGHT, row * len(names) + AXIS_HEIGHT))


def orders_chart(found: Found, names: dict[MixingBlock, str], row: int) -> alt.LayerChart:
    """The order of each block as a dot, the design's as a ring, with the order ladder as lines."""
    data = order_rows(found, names)
    references = pd.DataFrame(reference_orders(list(names)), columns=["order", "name"])
    top = max([*references["order"], *data["order"]], default=2)
    axis = alt.Axis(tickMinStep=1, format="d", grid=False, labelFlush=False, titlePadding=6)
    x = alt.X("order:Q", title="order", scale=alt.Scale(domain=[-0.4, top + 0.6]), axis=axis)
    y = alt.Y("block:N", sort=list(names.values()), title=None, axis=None, scale=alt.Scale(domain=list(names.values())))
    rules = alt.Chart(references).mark_rule(strokeDash=[4, 3], color="#888888").encode(x=x, tooltip=["name", "order"])
    points = alt.Chart(data).encode(
        x=x, y=y, tooltip=["block", "measured", alt.Tooltip("degree", title="degree order"), "design"]
    )
    rings = points.mark_point(shape="circle", size=110, filled=False, color="#c2570c").encode(x="design:Q")
    closed = points.transform_filter("!datum.open").mark_point(filled=True, size=50, color="#2f7fb0", opacity=1)
    unbounded = points.transform_filter("datum.open").mark_text(text="≥", fontSize=16, color="#2f7fb0", dx=8)
    return (rules + rings + closed + unbounded).properties(height=max(MIN_HEIGHT, row * len(names) + AXIS_HEIGHT))


def colour_legend(found: Found, names: dict[MixingBlock, str]) -> None:
    """What the colours of effects stand for, from the smallest to the largest that is shown."""
    effects = effect_rows(found, names)
    alive = effects[effects["log"].notna()]["effect"]
    if alive.empty:
        return
    stops = ", ".join(mpl.colors.to_hex(mpl.colormaps[COLOURS](share)) for share in np.linspace(0, 1, 9))
    st.html(
        f'<div class="effects"><span>{alive.min():.1e}</span><span class="bar" style="background:'
        f'linear-gradient(90deg, {stops})"></span><span>{alive.max():.1e}</span>'
        "<span>effect, on a logarithmic scale</span>"
        "<span class='narrow'>cells: its power of ten, e-2 for 0.01 to 0.1</span></div>"
    )


def references_in_words(names: dict[MixingBlock, str]) -> str:
    """The dashed lines."""
    return " · ".join(f"{order}: {name}" for order, name in reference_orders(list(names)))
