"""Compare: two models, two checkpoints or two pictures, block beside block, with one picker and their difference."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import streamlit as st

from horinsight.figures.mixing_maps import draw_mixing_maps
from horinsight.figures.style import figure_bytes
from horinsight.mixers.blocks import MixingBlock
from horinsight.mixing.mixing_results import QueryMaps, map_rows
from horinsight.mixing.query_places import same_place
from horinsight.report import csv_text
from horinsight.viewer.components.follow import followed, tables_message
from horinsight.viewer.components.map_panels import Display
from horinsight.viewer.components.pairs import Side, pairs, resampled_sizes
from horinsight.viewer.components.picker import picker
from horinsight.viewer.service import page
from horinsight.viewer.service.address import Address
from horinsight.viewer.service.mixed import Mixed, default_blocks, mixed, tables_of, tables_stamp
from horinsight.viewer.service.model_pool import ModelKey
from horinsight.viewer.service.page import Chosen
from horinsight.viewer.service.pictures import Source
from horinsight.viewer.service.settings import settings
from horinsight.viewer.views.mixing import chosen_channel, chosen_step

MODELS, PICTURES = "models", "pictures"
MOST = 6  # pairs of blocks
FAINT = 15  # times below the largest a map shows hardly any colour


@dataclass(frozen=True)
class Other:
    """What the first is compared with.

    Attributes:
        key: of its model.
        source: of its picture.
    """

    key: ModelKey
    source: Source | None


def other_side(chosen: Chosen) -> Other:
    """What is compared with the model and the picture of the sidebar."""
    what = page.segments("Compare two", "compare", [MODELS, PICTURES], MODELS)
    if what == MODELS:
        models = settings().models
        name = page.select("Second model", "model_b", models, models[1], width=210, on_change=_model_changed)
        return Other(ModelKey(name, page.checkpoint_choice("weights_b", "Weights of the second")), chosen.source)
    picture = page.sample_choice("Second picture", "image_b", chosen.key.name, default="digit_8", width=210)
    return Other(chosen.key, Source(picture))


def _model_changed() -> None:
    """Another second model has its own blocks, steps, channels and weights."""
    Address.of_session().forgotten("blocks_b", "step", "channel", "weights_b")


def asked_blocks(label: str, key: str, model: ModelKey) -> tuple[MixingBlock, ...]:
    """The blocks of one side."""
    shared = page.model_or_stop(model)
    default = default_blocks(shared)
    every = [block.index for block in shared.blocks]
    placeholder = ", ".join(map(str, default))
    chosen = page.several(label, key, every, max_selections=MOST, placeholder=placeholder)
    indices = sorted(chosen) or default
    return tuple(block for block in shared.blocks if block.index in indices)


def asked_sides(chosen: Chosen, other: Other) -> tuple[Mixed, Mixed, int | None]:
    """Both sides and the channel, as the menu of blocks says."""
    pairs_of = [(chosen.source, chosen.key), (other.source, other.key)]
    for source, key in pairs_of:
        page.picture_or_stop(source, key)
    with st.popover("Blocks"):
        blocks = [asked_blocks("Blocks, up to six", "blocks", chosen.key)]
        apart = other.key.name != chosen.key.name
        blocks.append(asked_blocks("Blocks of the second model", "blocks_b", other.key) if apart else blocks[0])
        few = min(map(len, blocks))
        blocks = [own[:few] for own in blocks]
        step = chosen_step([block for own in blocks for block in own])
        found = []
        for (source, key), own in zip(pairs_of, blocks, strict=True):
            assert source is not None
            with page.explained():
                found.append(mixed(source, key, tuple(block.index for block in own), step))
        heads = all("attention" in block.mixer for own in blocks for block in own)
        channel = chosen_channel(min(one.num_channels for one in found), "Head" if heads else "Channel $c$")
    return found[0], found[1], channel


def pickers(sides: Sequence[Mixed], query: tuple[int, int], size: tuple[int, int]) -> None:
    """The picture, or both."""
    shown = {one.picture.id: one for one in sides}
    for place, (column, one) in enumerate(zip(st.columns(len(shown), gap="small"), shown.values(), strict=True)):
        key = f"picker_{'ab'[place]}"
        with column:
            page.small(one.picture.name)
            picker(
                one.picture.src,
                one.picture.id,
                query,
                size,
                alt=f"{one.picture.name}, as {one.key.name} sees it",
                key=key,
                on_change=partial(page.move_query, key, [size], size),
            )


def offer(sides: Sequence[Mixed], maps: Sequence[QueryMaps], query: tuple[int, int]) -> None:
    """Downloads."""
    files = [
        page.Download(
            f"{name}.pdf", "application/pdf", "picture_as_pdf", partial(_pdf, shown)
        )
        for name, shown in zip("ab", maps, strict=True)
    ]  # fmt: skip
    page.downloads(
        f"compare_{sides[0].key.name}_{sides[1].key.name}_{query[0]}_{query[1]}",
        [page.csv(lambda: csv_text([row for shown in maps for row in map_rows(shown)])), *files],
    )


def _pdf(maps: QueryMaps) -> bytes:
    return figure_bytes(draw_mixing_maps(maps), ".pdf")


def told_names(sides: Sequence[Mixed]) -> None:
    """What A and B are."""
    names = [
        f"{one.key.name}{f' · {one.key.checkpoint}' if one.key.checkpoint else ''} on {one.picture.name}"
        for one in sides
    ]
    page.heading(f"A: {names[0]}", after=f" &nbsp; <b>B: {page.plain(names[1])}</b>")


def empty_side(shown: Sequence[QueryMaps]) -> str:
    """Why one of two sides looks empty on one scale; "" where neither does.

    Args:
        shown: maps of A and of B.
    """
    largest = [max(float(np.nanmax(np.abs(values))) for values in found.maps.values()) for found in shown]
    weak, strong = sorted(range(2), key=largest.__getitem__)
    if largest[weak] * FAINT > largest[strong] or not largest[weak]:
        return ""
    times = largest[strong] / largest[weak]
    much = f"{times:.0f}" if times < 1000 else f"{times:.0e}"
    return (
        f"{'AB'[weak]} looks empty on one scale: its weights are {much} times smaller. Turn One scale off to see them."
    )


def told_difference(shown: Sequence[Side], before: str) -> None:
    """How the difference comes about.

    Args:
        shown: A and B.
        before: said first.
    """
    sizes = resampled_sizes(shown)
    unlike = ""
    if sizes:
        said = " and ".join(f"{rows} x {columns}" for rows, columns in sizes)
        unlike = f" Maps of different sizes are brought to the smaller one, {said} cells, by area."
    page.small(
        f"{before} B − A: each map is divided by its own Σ|h| first. 0 % differs where both look alike, 100 % where "
        f"they share nothing.{unlike}"
    )


@page.panel
def panel(chosen: Chosen) -> None:
    """All of it; a click runs this again."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        other = other_side(chosen)
        first, second, channel = asked_sides(chosen, other)
        sides = (first, second)
        display_place = st.container(width="content")
    size = first.map_size
    query = page.query_in(size)
    places = (query, same_place(query, size, second.map_size))
    maps = [one.maps(place, channel=channel) for one, place in zip(sides, places, strict=True)]
    for key in dict.fromkeys(one.key for one in sides):
        page.banner(page.model_or_stop(key).provenance)
    stamps = [tables_stamp(one, channel) for one in sides]
    shown = [
        Side(found, one.picture.src, one.picture.id, stamp)
        for found, one, stamp in zip(maps, sides, stamps, strict=True)
    ]
    left, right = st.columns([4, 11], gap="medium")
    with left:
        with st.container(key="pickers"):
            pickers(sides, query, size)
        page.query_fields(size)
    with right:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            told_names(sides)
            scale_place = st.container(width="content")
            offer(sides, maps, query)
        with display_place:
            display: Display = page.display_options(scale_place, scale_key="both_scale", together=True)
        told_difference(shown, empty_side(maps) if display.one_scale else "")
        panels = [panel for found in maps for panel in page.panel_sizes(found)]
        pairs(shown, display, key="pairs", on_change=partial(page.move_query, "pairs", panels, size))
        for name, one, stamp in zip("ab", sides, stamps, strict=True):
            tables = tables_of(one, stamp, channel)
            message = tables_message(tables, size, scope=f"pairs_{name}", stamp=stamp, half=True)
            followed(message, key=f"follow_{name}")
    with left:
        for name, one in zip("AB", sides, strict=True):
            if one.predictions:
                page.prediction_bars(one.predictions, of=name)


def compare_page() -> None:
    """The page."""
    panel(st.session_state["chosen"])
