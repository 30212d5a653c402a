"""Filters: the kernels of one block in space and in frequency, sorted by how much they adapt on the picture."""

import streamlit as st

from horinsight.mixing.filter_results import ChannelFilters
from horinsight.report import csv_text
from horinsight.results import result_bytes
from horinsight.viewer.components.filter_cards import show_filters
from horinsight.viewer.service import page
from horinsight.viewer.service.block_filters import (
    ADAPTIVITY,
    DEVIATION,
    NORM,
    ORDERS,
    blocks_with_filters,
    filters_of,
    ordered_channels,
)
from horinsight.viewer.service.page import Chosen

EACH = 48  # filters on a page
WORDS = {
    "adaptivity": "share of the variance of a channel's weights that comes with the place",
    "deviation": "root mean square by which a channel's weights change with the place, in units of h",
    "norm": "size of the kernel",
    "channel": "number of the channel",
}


def remarks(found: ChannelFilters, by: str) -> str:
    """What is shown, and by what it is sorted."""
    kinds = ", ".join(f"{len(places)} of {kind}" for kind, places in found.channels.items())
    said = f"{len(found.norms)} channels: {kinds}. Sorted by {by}: {WORDS[by]}."
    if by in (ADAPTIVITY, DEVIATION) and not found.adapts:
        said = (
            f"{len(found.norms)} channels: {kinds}. No weight of this block adapts, so that they are sorted by {NORM}: "
            f"{WORDS[NORM]}."
        )
    return (
        f"{said} Left the kernel by offset, red > 0, blue < 0, with limits of its own; right its frequency "
        "response, zero frequency in the middle, from 0 (dark) to its largest. Below: channel, share that adapts, by "
        "how much, norm of the kernel."
    )


@page.panel
def panel(chosen: Chosen) -> None:
    """The part that a choice runs again."""
    shared = page.model_or_stop(chosen.key)
    page.picture_or_stop(chosen.source, chosen.key)
    assert chosen.source is not None
    blocks = blocks_with_filters(shared.blocks)
    if not blocks:
        raise page.PageError(
            "info",
            f"{chosen.key.name} has no filters: its positions meet by attention alone. HorNets have some.",
        )
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        index = page.select("Block", "filter_block", [block.index for block in blocks], width=110)
        block = next(one for one in blocks if one.index == index)
        step = None
        if block.mixer == "gnconv" and block.order is not None:
            steps = ["last", *map(str, range(block.order))]
            chosen_step = page.select("Recursion step k", "filter_step", steps, width=150)
            step = None if chosen_step == "last" else int(chosen_step)
        by = page.select("Sorted by", "filter_order", ORDERS, width=150)
        with page.explained():
            found = filters_of(chosen.source, chosen.key, index, step)
        pages = -(-len(found.norms) // EACH)
        number = page.select("Page", "filter_page", list(range(1, pages + 1)), width=100) if pages > 1 else 1
        page.downloads(
            f"filters_{chosen.key.name}_{index}",
            [
                page.csv(lambda: csv_text(found.to_frame().to_dict("records"))),
                page.npz(lambda: result_bytes(found, ".npz")),
            ],
        )
    page.small(remarks(found, by))
    show_filters(found, ordered_channels(found, by)[EACH * (number - 1) : EACH * number])


def filters_page() -> None:
    """The page."""
    chosen: Chosen = st.session_state["chosen"]
    page.banner(page.model_or_stop(chosen.key).provenance)
    panel(chosen)
