"""Mixing weights: a click on a picture, and where six blocks look from there."""

from dataclasses import replace

import pandas as pd
import streamlit as st

from horinsight.data.images import default_samples
from horinsight.figures.mixing_maps import draw_mixing_maps
from horinsight.figures.style import figure_bytes
from horinsight.mixers.blocks import MixingBlock
from horinsight.mixing.mixing_results import Adaptivity, QueryMaps, map_rows
from horinsight.report import csv_text
from horinsight.results import result_bytes
from horinsight.viewer.components.follow import followed, tables_message
from horinsight.viewer.components.gallery import gallery
from horinsight.viewer.components.picker import picker
from horinsight.viewer.service import page
from horinsight.viewer.service.mixed import Mixed, adaptivity_over, default_blocks, mixed, tables_of, tables_stamp
from horinsight.viewer.service.page import Chosen
from horinsight.viewer.service.pictures import Source

DETAIL_HELP = (
    "adapts to the place: share of the variance of these weights that comes with the place, 0 for a convolution; "
    "looks: how far on average, in cells of the block's own map"
)


def chosen_indices(blocks: tuple[MixingBlock, ...], default: tuple[int, ...]) -> tuple[int, ...]:
    """The blocks to show."""
    indices = page.several(
        "Blocks, up to six",
        "blocks",
        [block.index for block in blocks],
        max_selections=6,
        placeholder=", ".join(map(str, default)),
    )
    return tuple(sorted(indices)) or default


def chosen_step(blocks: list[MixingBlock]) -> int | None:
    """The recursion step; None for the last."""
    orders = [block.order for block in blocks if block.mixer == "gnconv" and block.order is not None]
    if len(orders) < len(blocks):
        return None
    steps = [str(step) for step in range(min(orders))]
    step = page.select(
        "Recursion step $k$ of gⁿConv", "step", ["last", *steps], help="The paper shows the last, k = n - 1."
    )
    return None if step == "last" else int(step)


def chosen_channel(num_channels: int, what: str) -> int | None:
    """One channel; None for the mean."""
    label = f"{what} (empty: the mean over all {num_channels})"
    return page.number(label, "channel", 0, num_channels - 1, placeholder="mean")


def details(found: Mixed) -> dict[str, str]:
    """Numbers for each map, in words."""
    return {name: in_words(numbers) for name, numbers in found.adaptivity.items()}


def in_words(numbers: Adaptivity) -> str:
    """How much weights adapt to the place, and how far they look: two lines."""
    share, distance = numbers.location_adaptivity.value, numbers.mean_distance.value
    return f"adapts to the place: {share:.0%}\nlooks {distance:.1f} cells far"


def adaptivity_table(chosen: Chosen, source: Source, found: Mixed) -> None:
    """Adaptivity over this picture and the samples, with standard errors."""
    st.markdown("**Adaptivity** of the blocks shown, over this picture and the model's sample pictures")
    samples = [*default_samples(chosen.key.name), "coffee", "rocket"][:3]
    sources = [source, *(Source(name) for name in samples if name != source.name)]
    with page.explained():
        numbers = adaptivity_over(chosen.key, tuple(one.id for one in sources), found.blocks, found.step, sources)
    st.dataframe(
        pd.DataFrame(
            {
                "block": list(found.blocks),
                "to input": [str(one.input_adaptivity) for one in numbers.values()],
                "to location": [str(one.location_adaptivity) for one in numbers.values()],
                "distance (cells)": [str(one.mean_distance) for one in numbers.values()],
                "positions": [str(one.effective_positions) for one in numbers.values()],
                "negative": [str(one.negative_share) for one in numbers.values()],
            }
        ),
        hide_index=True,
    )
    page.small(
        "to input, to location: shares of the variance of h, 0 for a plain convolution. distance: mean over |h|, in "
        "cells of each block's own map. ± standard error over the pictures "
        f"({', '.join(one.name for one in sources)}). positions: (Σ|h|)² / Σh². negative: share of |h|."
    )


def adaptivity_menu(chosen: Chosen, source: Source, found: Mixed) -> page.PageError | None:
    """The table in a menu; an error is handed back, because a closed menu would hide it."""
    with st.popover("Adaptivity"):
        if not page.switch("Measure over several pictures", "over_pictures"):
            st.caption("How much the weights of each block adapt to the input and to the place, with errors.")
            return None
        try:
            adaptivity_table(chosen, source, found)
        except page.PageError as error:
            return error
    return None


def maps_downloads(stem: str, maps: QueryMaps, colour_map: str) -> None:
    """The figure, its numbers and its arrays."""
    page.downloads(
        stem,
        [
            page.png(lambda: figure_bytes(draw_mixing_maps(maps, colormap=colour_map), ".png")),
            page.pdf(lambda: figure_bytes(draw_mixing_maps(maps, colormap=colour_map), ".pdf")),
            page.csv(lambda: csv_text(list(map_rows(maps)))),
            page.npz(lambda: result_bytes(maps, ".npz")),
        ],
    )


@page.panel
def panel(chosen: Chosen) -> None:
    """The page below the banner; a click runs this part alone."""
    shared = page.model_or_stop(chosen.key)
    picture = page.picture_or_stop(chosen.source, chosen.key)
    assert chosen.source is not None
    left, right = st.columns([5, 9], gap="medium")
    with left, st.container(horizontal=True, vertical_alignment="center", gap="small"):  # menus over the picture alone
        display_place, blocks_place, scale_place = (st.container(width="content") for _ in range(3))
        with display_place:
            display = page.display_options(scale_place)
        with blocks_place, st.popover("Blocks"), st.container(key="blocks_menu"):
            indices = chosen_indices(shared.blocks, default_blocks(shared))
            blocks = [block for block in shared.blocks if block.index in indices]
            step = chosen_step(blocks)
            with page.explained():
                found = mixed(chosen.source, chosen.key, indices, step)
            heads = all("attention" in block.mixer for block in blocks)
            channel = chosen_channel(found.num_channels, "Head" if heads else "Channel $c$")
    query = page.query_in(found.map_size)
    maps = found.maps(query, channel=channel)
    with left:
        page.heading(picture.name, after=" · point, click or drag for <i>i</i>")
        picker(
            picture.src,
            picture.id,
            query,
            found.map_size,
            alt=f"{picture.name}, as {chosen.key.name} sees it",
            key="picker",
            on_change=lambda: page.move_query("picker", [found.map_size], found.map_size),
        )
        if picture.said:
            page.small(picture.said)
        page.query_fields(found.map_size)
        if found.predictions:
            page.prediction_bars(found.predictions)
    with right, st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown("**Mixing weights** $h_{ij}$", width="stretch")
        failed = adaptivity_menu(chosen, chosen.source, found)
        maps_downloads(f"mixing_{chosen.key.name}_{picture.id}_{query[0]}_{query[1]}", maps, display.colour_map)
    tables = tables_stamp(found, channel)
    with right:
        if failed is not None:
            failed.say()
        gallery(
            maps,
            picture.src,
            picture.id,
            key="gallery",
            on_change=lambda: page.move_query("gallery", page.panel_sizes(maps), found.map_size),
            details=details(found),
            detail_help=DETAIL_HELP,
            display=replace(display, tables=tables),
        )
        followed(
            tables_message(tables_of(found, tables, channel), found.map_size, scope="gallery", stamp=tables),
            key="follow",
        )


def mixing_page() -> None:
    """The page."""
    chosen: Chosen = st.session_state["chosen"]
    page.banner(page.model_or_stop(chosen.key).provenance)
    panel(chosen)
