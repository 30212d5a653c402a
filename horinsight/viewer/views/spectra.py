"""Interaction spectra: how many neighbours act jointly with a position, block by block."""

import json
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

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
from horinsight.viewer.components.spectra_charts import (
    CHART_HEIGHT,
    ROW_HEIGHTS,
    Found,
    colour_legend,
    effects_chart,
    labels,
    orders_chart,
    references_in_words,
)
from horinsight.viewer.service import page
from horinsight.viewer.service.block_spectra import (
    STORE,
    Measurement,
    estimate,
    estimate_in_words,
    groups_alike,
    is_quick,
    known_estimate,
    measure,
)
from horinsight.viewer.service.gate import BusyError
from horinsight.viewer.service.page import Chosen
from horinsight.viewer.service.pictures import Source
from horinsight.viewer.service.stopping import ShownProgress


def draw(found: Found, names: dict[MixingBlock, str]) -> None:
    """Both charts."""
    row = int(np.clip(CHART_HEIGHT / max(len(names), 1), *ROW_HEIGHTS))
    left, right = st.columns([5, 3], gap="small")
    with left:
        st.markdown("**Effects** relative to the spread of the output; **0** is exactly zero in every draw")
        colour_legend(found, names)
        st.altair_chart(
            effects_chart(found, names, row),
            alt="Interaction effects: a row for each block, a column for each order; the table of numbers has the same",
        )
    with right:
        st.markdown("**Order**: measured ●, design ○, known operators ┆")
        st.html('<div class="effects"></div>')  # as high as the legend beside it, so that rows are level
        st.altair_chart(orders_chart(found, names, row), alt="Order of each block beside those of known operators")
        page.small(f"┆ {references_in_words(names)}")


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


def say_the_price(measurement: Measurement, groups: list[list[MixingBlock]], source: Source) -> None:
    """What the blocks would cost, before anybody presses: a dry run of one of each kind."""
    place = st.empty()
    unknown = [group[0] for group in groups if known_estimate(measurement, group[0].index) is None]
    if unknown:
        page.settled()
        progress = ShownProgress(partial(_estimating, place), len(unknown))
        for block in unknown:
            progress.start("")
            try:
                with progress.watching():
                    estimate(measurement, block.index, source)
            except BusyError:
                place.empty()
                return
            progress.finish()
    with place:
        page.small(estimate_in_words(measurement, groups))


def _estimating(place: DeltaGenerator, share: float, _: str) -> None:
    place.progress(share, text="estimating time and memory …")


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
    with top, st.popover("Settings", icon=":material/tune:"):
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
                page.told(
                    "info",
                    "Nothing measured yet: press Measure. Blocks appear as they are finished."
                    if not running
                    else "Measuring …",
                )
            for block, why in failed.items():
                page.told("error", why if why.startswith(f"block {block.index} ") else f"block {block.index}: {why}")

    redraw()
    if todo and running:
        page.settled()
        with progress:
            measure_the_rest(measurement, todo, len(blocks), chosen.source, redraw)
        st.rerun()
    if todo:
        with progress:
            say_the_price(measurement, groups_alike(shared, todo), chosen.source)
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
