"""Interaction spectra: how many neighbours act jointly with a position, block by block."""

import json
from collections.abc import Callable

import altair as alt
import numpy as np
import pandas as pd
import streamlit as st

from horinsight.figures.interaction_spectra import draw_interaction_spectra
from horinsight.figures.style import figure_bytes
from horinsight.interaction.spectrum import InteractionSpectrum
from horinsight.interaction.spectrum_options import SpectrumOptions
from horinsight.interaction.spectrum_rows import spectrum_lines, spectrum_row
from horinsight.mixers.blocks import MixingBlock
from horinsight.options import settings
from horinsight.report import csv_text, shown_order
from horinsight.results import plain
from horinsight.viewer.components.option_form import asked_options
from horinsight.viewer.service import page
from horinsight.viewer.service.block_spectra import STORE, Measurement, is_quick, measure, reference_orders
from horinsight.viewer.service.gate import BusyError
from horinsight.viewer.service.page import Chosen
from horinsight.viewer.service.pictures import Source
from horinsight.viewer.service.stopping import ShownProgress

CHART_HEIGHT = 370  # pixels, for all blocks together: the page then needs no scrolling on 720 lines
ROW_HEIGHTS = (12, 30)
AXIS_HEIGHT = 75  # of the axis and its title, which belong to the height
MIN_HEIGHT = 240  # for the names of the known operators
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
                    "log": None if zero else float(np.log10(effect)),
                    "interval": "exactly 0 in every draw"
                    if zero
                    else f"{spectrum.ci_low[k]:.2e} to {spectrum.ci_high[k]:.2e}",
                }
            )
    return pd.DataFrame(rows, columns=["block", "k", "effect", "shown", "log", "interval"])


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
        axis=alt.Axis(labelOverlap=False, labelFontSize=11 if row >= 14 else 9),
    )
    base = alt.Chart(data).encode(
        x=alt.X(
            "k:O", title="k neighbours act jointly with the position", axis=alt.Axis(labelAngle=0, orient="bottom")
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
        .mark_rect()
        .encode(color=alt.Color("log:Q", scale=alt.Scale(scheme="viridis"), legend=None))
    )
    empty = base.transform_filter(zero).mark_rect(fill="#88888818", stroke="#888888", strokeWidth=0.5)
    size = 11 if row >= 16 else 9
    text = (
        base.transform_filter(alive)
        .mark_text(fontSize=size)
        .encode(
            text="shown:N",
            color=alt.condition(
                f"datum.log > {middle if np.isfinite(middle) else 0}", alt.value("black"), alt.value("white")
            ),
        )
    )
    nothing = (
        base.transform_filter(zero).mark_text(fontSize=size, fontWeight="bold", color="#888888").encode(text="shown:N")
    )
    return (cells + empty + text + nothing).properties(height=max(MIN_HEIGHT, row * len(names) + AXIS_HEIGHT))


def orders_chart(found: Found, names: dict[MixingBlock, str], row: int) -> alt.LayerChart:
    """The order of each block as a dot, the design's as a ring, with the order ladder as lines."""
    data = order_rows(found, names)
    references = pd.DataFrame(reference_orders(list(names)), columns=["order", "name"])
    top = max([*references["order"], *data["order"]], default=2)
    axis = alt.Axis(tickMinStep=1, format="d", grid=False)
    x = alt.X("order:Q", title="order", scale=alt.Scale(domain=[-0.4, top + 0.6]), axis=axis)
    y = alt.Y("block:N", sort=list(names.values()), title=None, axis=None, scale=alt.Scale(domain=list(names.values())))
    rules = alt.Chart(references).mark_rule(strokeDash=[4, 3], color="#888888").encode(x=x, tooltip=["name", "order"])
    labels_above = (
        alt.Chart(references)
        .mark_text(angle=270, align="right", dx=-4, dy=-13, fontSize=10, color="#888888")
        .encode(x=x, y=alt.value(0), text="name")
    )
    points = alt.Chart(data).encode(
        x=x, y=y, tooltip=["block", "measured", alt.Tooltip("degree", title="degree order"), "design"]
    )
    rings = points.mark_point(shape="circle", size=110, filled=False, color="#c2570c").encode(x="design:Q")
    closed = points.transform_filter("!datum.open").mark_point(filled=True, size=50, color="#2f7fb0", opacity=1)
    unbounded = points.transform_filter("datum.open").mark_text(text="≥", fontSize=16, color="#2f7fb0", dx=8)
    return (rules + labels_above + rings + closed + unbounded).properties(
        height=max(MIN_HEIGHT, row * len(names) + AXIS_HEIGHT)
    )


def draw(found: Found, names: dict[MixingBlock, str]) -> None:
    """Both charts."""
    row = int(np.clip(CHART_HEIGHT / max(len(names), 1), *ROW_HEIGHTS))
    left, right = st.columns([5, 3], gap="small")
    with left:
        st.markdown("**Effects** relative to the spread of the output; **0** is exactly zero in every draw")
        st.altair_chart(
            effects_chart(found, names, row),
            alt="Interaction effects: a row for each block, a column for each order; the table of numbers has the same",
        )
    with right:
        st.markdown("**Order**: measured ●, design ○, known operators ┆")
        st.altair_chart(orders_chart(found, names, row), alt="Order of each block beside those of known operators")


def numbers(found: Found, names: dict[MixingBlock, str]) -> pd.DataFrame:
    """The table of numbers."""
    rows = []
    for block, spectrum in found.items():
        order = spectrum.location_order
        rows.append(
            {
                "block": names[block],
                "mixer": block.mixer,
                "design": block.order,
                "order": shown_order(order, len(spectrum.effects) - 1),
                "degree": "open" if spectrum.degree_order is None else str(spectrum.degree_order),
            }
            | {
                f"k={k}": "0" if zero else f"{effect:.2g}"
                for k, (effect, zero) in enumerate(zip(spectrum.effects, spectrum.exact_zero, strict=True))
            }
        )
    return pd.DataFrame(rows)


def report(found: Found, measurement: Measurement) -> bytes:
    """What is finished, for a program."""
    origin = next(iter(found.values())).provenance
    content = {
        "provenance": origin,
        "settings": settings(measurement.options),
        "blocks": [spectrum_row(block, spectrum) for block, spectrum in found.items()],
    }
    return (json.dumps(plain(content), indent=1) + "\n").encode()


def finished(measurement: Measurement, blocks: list[MixingBlock]) -> tuple[Found, dict[MixingBlock, str]]:
    """Spectra, and why there is none."""
    known = {block: STORE.get(measurement, block.index) for block in blocks}
    spectra = {block: found for block, found in known.items() if isinstance(found, InteractionSpectrum)}
    return spectra, {block: found for block, found in known.items() if isinstance(found, str)}


def offer(found: Found, measurement: Measurement) -> None:
    """Downloads of what is finished."""
    named = {block.name: spectrum for block, spectrum in found.items()}
    titles = {block.name: f"block {block.index}" for block in found}
    page.downloads(
        f"ie_{measurement.key.name}_{measurement.picture_id}_{measurement.options.scope}",
        [
            page.png(lambda: figure_bytes(draw_interaction_spectra(named, titles=titles), ".png")),
            page.pdf(lambda: figure_bytes(draw_interaction_spectra(named, titles=titles), ".pdf")),
            page.csv(lambda: csv_text([line for block, one in found.items() for line in spectrum_lines(block, one)])),
            page.json(lambda: report(found, measurement)),
        ],
    )


def measure_the_rest(
    measurement: Measurement, todo: list[MixingBlock], total: int, source: Source, redraw: Callable[[], None]
) -> None:
    """Block by block; what is finished is kept and shown at once."""
    bar = st.progress(0.0, text=f"{total - len(todo)} of {total} blocks")
    progress = ShownProgress(bar.progress, total, total - len(todo))
    for block in todo:
        progress.start(f"measuring block {block.index}: {progress.done} of {total} finished")
        try:
            with progress.watching():
                measure(measurement, block.index, source)
        except BusyError as busy:
            st.session_state["measuring"] = None
            raise page.PageError("warning", f"{busy} What is finished is kept.") from busy
        progress.finish()
        redraw()
    bar.empty()
    st.session_state["measuring"] = None


def _buttons(measurement: Measurement, found: Found, todo: list[MixingBlock], *, running: bool) -> None:
    """Stop or start, and the downloads."""
    place = st.empty()  # for one of them: the other would stay beside it for as long as blocks are measured
    if todo and running:
        if place.button("Stop", icon=":material/stop:", key="stop"):
            st.session_state.update(measuring=None, stopped=measurement)
            st.rerun()
    elif todo and place.button(
        f"Measure {len(todo)} block{'s' * (len(todo) > 1)}",
        icon=":material/play_arrow:",
        type="primary",
        key="measure",
    ):
        st.session_state.update(measuring=measurement, stopped=None)
        st.rerun()
    if found and not (todo and running):
        offer(found, measurement)


def spectra_page() -> None:
    """The page."""
    chosen: Chosen = st.session_state["chosen"]
    shared = page.model_or_stop(chosen.key)
    page.banner(shared.provenance)
    picture = page.picture_or_stop(chosen.source, chosen.key)
    assert chosen.source is not None
    top = st.container(horizontal=True, vertical_alignment="center", gap="small")
    with top:
        st.markdown("**How many neighbours act jointly with a position?**", width="content")
        with st.popover("Settings", icon=":material/tune:"):
            measurement = Measurement(chosen.key, picture.id, asked_options(SpectrumOptions))
            every = [block.index for block in shared.blocks]
            indices = page.several("Blocks", "ie_blocks", every, placeholder="all")
    blocks = [block for block in shared.blocks if not indices or block.index in indices]
    names = labels(blocks)
    found, _ = finished(measurement, blocks)
    todo = [block for block in blocks if STORE.get(measurement, block.index) is None]
    running = st.session_state.get("measuring") == measurement or (
        is_quick(shared, measurement) and st.session_state.get("stopped") != measurement
    )
    with top:
        _buttons(measurement, found, todo, running=running)
    area = st.empty()
    progress = st.container()

    def redraw() -> None:
        shown, failed = finished(measurement, blocks)
        with area.container():
            if shown:
                draw(shown, names)
            elif not failed:
                st.info(
                    "Nothing measured yet: press Measure. Blocks appear as they are finished."
                    if not running
                    else "Measuring …"
                )
            for block, why in failed.items():
                page.told("error", why if why.startswith(f"block {block.index} ") else f"block {block.index}: {why}")

    redraw()
    if todo and running:
        page.settled()
        with progress:
            measure_the_rest(measurement, todo, len(blocks), chosen.source, redraw)
        st.rerun()
    if found:
        unlisted = sorted({name for spectrum in found.values() for name in spectrum.unlisted})
        if unlisted:
            page.small(f"Derivatives do not end because of {', '.join(unlisted)}: not on the list of non-linearities.")
        convention = next(iter(found.values())).convention
        with st.expander("Numbers and convention"):
            st.dataframe(numbers(found, names), hide_index=True)
            page.small(
                "design: what the architecture declares; order: the largest k whose effect is not exactly zero; "
                "degree: polynomial degree - 1. "
                + " · ".join(f"{key}: {value}" for key, value in convention.items() if value)
            )
