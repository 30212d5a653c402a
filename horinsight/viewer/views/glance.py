"""All blocks at a glance, with a slider through depth to the rollout; and one block's orders by place."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

import streamlit as st

from horinsight.mixing.mixing_results import Rollout
from horinsight.mixing.query_places import same_place
from horinsight.mixing.query_table import QueryTable, query_table
from horinsight.report import csv_text
from horinsight.results import result_bytes
from horinsight.viewer.components.depth_stack import StackMap, StackWords, depth_stack, moved_to
from horinsight.viewer.components.follow import followed, tables_message
from horinsight.viewer.components.map_panels import Display
from horinsight.viewer.components.picker import picker
from horinsight.viewer.service import page
from horinsight.viewer.service.address import Address
from horinsight.viewer.service.all_blocks import (
    BLOCKS,
    ROLLOUT,
    ROLLOUTS,
    Rolled,
    Seen,
    roll_out,
    rollout_table,
    see_all_blocks,
)
from horinsight.viewer.service.choices import one_of
from horinsight.viewer.service.gate import BusyError
from horinsight.viewer.service.mixed import Mixed
from horinsight.viewer.service.model_pool import SharedModel
from horinsight.viewer.service.page import Chosen
from horinsight.viewer.service.pictures import Picture, Source
from horinsight.viewer.service.stopping import ShownProgress
from horinsight.viewer.views.mixing import in_words
from horinsight.viewer.views.orders import orders_content

BLOCKS_SHOWN, ORDERS_SHOWN = "Blocks", "Orders"
OF_ROLLOUT: dict[Rolled, str] = {
    "weights": (
        "Rollout of mixing weights: how much each place of the first block's map contributes to the query after the "
        "last block, if every block passes on |h| and its residual path in the proportions that they have on this "
        "picture (signs and channels are lost)."
    ),
    "influence": (
        "Rollout of influence: how much each place of the first block's map contributes to the query after the last "
        "block, if squared derivatives of whole residual blocks, feed-forward parts included, stand for contributions "
        "(signs and channels are lost)."
    ),
}
HINT = (
    "Point at the picture and all maps follow. Move the slider, or use the arrow keys on it, to go through depth; "
    "click to move the query i."
)


def depth_names(shared: SharedModel) -> list[str]:
    """What the address says of the places of the slider."""
    return [*(str(block.index) for block in shared.blocks), ROLLOUT]


def computed(seen: Seen, source: Source) -> None:
    """Weights and their rollout, with a bar; what a closed tab or another choice ends is asked for again."""
    todo: list[tuple[str, Callable[[], None]]] = []
    if BLOCKS.get(seen) is None:
        todo.append(("mixing weights of all blocks", partial(see_all_blocks, seen, source)))
    if ROLLOUTS.get((seen, "weights")) is None and not isinstance(BLOCKS.get(seen), str):
        todo.append(("their rollout", partial(roll_out, seen, source, "weights")))
    if not todo:
        return
    page.settled()
    bar = st.progress(0.0, text="starting")
    progress = ShownProgress(bar.progress, len(todo))
    with page.explained():
        for words, work in todo:
            progress.start(f"{words} …")
            with progress.watching():
                work()
            progress.finish()
    bar.empty()


@st.cache_resource(max_entries=8, show_spinner=False)
def tables(stamp: str, _found: Mixed, _rollout: Rollout | None) -> bytes:
    """All queries of all blocks and of the rollout, for the browser.

    Args:
        stamp: of what they are.
        _found: the weights.
        _rollout: None where there is none.
    """
    made: dict[str, QueryTable] = {} if _rollout is None else {ROLLOUT: rollout_table(_rollout)}
    for name, weights in _found.weights.items():
        with suppress(ValueError):  # too large to follow a pointer: its map is that of the click
            made[name] = query_table(weights)
    return tables_message(made, _found.map_size, scope="stack", stamp=stamp, half=True)


def stack_maps(found: Mixed, query: tuple[int, int], rollout: Rollout | None, rolled: Rolled) -> list[StackMap]:
    """The map of each block, and of the rollout where there is one."""
    maps = found.maps(query)
    shown = []
    for index, (name, values) in zip(maps.block_indices, maps.maps.items(), strict=True):
        numbers = found.adaptivity.get(name)
        said = f"Where the query looks in block {index}, {maps.convention['mean_over']} averaged."
        if numbers is not None:
            said += " " + in_words(numbers).replace("\n", "; ").capitalize() + "."
        row, col = maps.queries[name][0].tolist()
        shown.append(StackMap(f"block {index}", name, values[0], (row, col), said))
    if rollout is not None:
        last = same_place(query, found.map_size, rollout.out_size)
        values = rollout_table(rollout).at(*last)
        place = same_place(last, rollout.out_size, rollout.in_size)
        shown.append(StackMap("rollout", ROLLOUT, values, place, OF_ROLLOUT[rolled], apart=True))
    return shown


def depth_moved(positions: list[str]) -> None:
    """Keep where the slider came to rest."""
    at = moved_to("stack", len(positions))
    if at is not None:
        st.session_state["depth"] = positions[at]


@page.panel
def panel(chosen: Chosen) -> None:
    """The page below the banner; a click runs this part alone."""
    blocks_content(chosen, alone=True)


def blocks_content(chosen: Chosen, *, alone: bool) -> None:
    """All blocks and the rollout.

    Args:
        chosen: model and picture.
        alone: whether a click runs this part alone; what takes long is then left to a run of the whole page.
    """
    shared, source = page.model_or_stop(chosen.key), chosen.source
    picture = page.picture_or_stop(source, chosen.key)
    assert source is not None
    seen = Seen(chosen.key, picture.id)
    found, plain_rollout = BLOCKS.get(seen), ROLLOUTS.get((seen, "weights"))
    if isinstance(found, str):
        raise page.PageError("error", found)
    if found is None or plain_rollout is None:  # others' pictures took their place
        st.rerun()
    left, right = st.columns([4, 9], gap="medium")
    with left, st.container(horizontal=True, vertical_alignment="center", gap="small"):
        display = page.display_options()
    with right:
        top = st.container(horizontal=True, vertical_alignment="center", gap="small")
    with top:
        st.markdown("**All blocks**, rollout of", width="content")
        rolled: Rolled = page.segments(  # type: ignore[assignment]
            "Rollout of", "rolled", ["weights", "influence"], "weights", label_visibility="collapsed"
        )
    rollout = ROLLOUTS.get((seen, rolled))
    query = page.query_in(found.map_size)
    with left:
        page.heading(picture.name, after=" · point, click or drag for <i>i</i>")
        _picker(picture, chosen, query, found.map_size)
        if picture.said:
            page.small(picture.said)
        page.query_fields(found.map_size)
    with top:
        running = _rollout_buttons(seen, rolled, rollout, len(shared.blocks))
        _downloads(found, query, rollout)
    with right:
        if isinstance(rollout, str):
            page.told("warning", rollout)
        _stack(shared, found, query, (rollout if isinstance(rollout, Rollout) else None, rolled), display)
        if rollout is None and not running:
            page.small(
                "The rollout of influence is not measured yet: press Measure. It differentiates each of "
                f"{len(shared.blocks)} blocks at each of its positions, which takes seconds in a small model and up to "
                "many minutes where maps are large; Stop ends it."
            )
        if running:
            if alone:
                st.rerun()
            page.settled()
            _roll_influence(seen, source)


def _picker(picture: Picture, chosen: Chosen, query: tuple[int, int], size: tuple[int, int]) -> None:
    picker(
        picture.src,
        picture.id,
        query,
        size,
        alt=f"{picture.name}, as {chosen.key.name} sees it",
        key="picker",
        on_change=lambda: page.move_query("picker", [size], size),
    )


def _stack(
    shared: SharedModel, found: Mixed, query: tuple[int, int], rolled: tuple[Rollout | None, Rolled], display: Display
) -> None:
    maps = stack_maps(found, query, *rolled)
    positions = depth_names(shared)
    Address.of_session().chosen("depth", one_of(positions), positions[0])
    what = repr((found.key, found.picture.id, found.blocks, rolled[1], rolled[0] is None))
    stamp = hashlib.sha256(what.encode()).hexdigest()[:16]
    sizes = [one.values.shape for one in maps]
    depth_stack(
        maps,
        (found.picture.src, found.picture.id),
        at=min(positions.index(st.session_state["depth"]), len(maps) - 1),
        words=StackWords("Depth", "block 1", "rollout" if rolled[0] else f"block {len(maps)}", HINT),
        stamp=f"{found.key.name}:{found.picture.id}:{query[0]}:{query[1]}",
        key="stack",
        on_change=(
            lambda: page.move_query("stack", sizes, found.map_size),
            lambda: depth_moved(positions),
        ),
        display=replace(display, tables=stamp),
    )
    followed(tables(stamp, found, rolled[0]), key="follow_stack")


def _downloads(found: Mixed, query: tuple[int, int], rollout: Rollout | str | None) -> None:
    maps = found.maps(query)
    files = [page.npz(lambda: result_bytes(maps, ".npz"))]
    if isinstance(rollout, Rollout):
        files.append(page.csv(lambda: csv_text(rollout.to_frame().to_dict("records"))))
    page.downloads(f"blocks_{found.key.name}_{found.picture.id}_{query[0]}_{query[1]}", files)


def _rollout_buttons(seen: Seen, rolled: Rolled, rollout: Rollout | str | None, num_blocks: int) -> bool:
    """Start or Stop where the rollout of influence is not there; whether it is to be measured now."""
    wanted = rolled == "influence" and rollout is None
    running = wanted and st.session_state.get("rolling") == seen
    if not running:
        st.session_state["rolling"] = None
    place = st.empty()
    if running and place.button("Stop", icon=":material/stop:", key="stop_rolling"):
        st.session_state["rolling"] = None
        st.rerun()
    if (
        wanted
        and not running
        and place.button(
            "Measure",
            icon=":material/play_arrow:",
            type="primary",
            key="measure_rolling",
            help=f"Differentiates each of {num_blocks:d} blocks at each position: seconds to many minutes.",
        )
    ):
        st.session_state["rolling"] = seen
        st.rerun()
    return running


def _roll_influence(seen: Seen, source: Source) -> None:
    bar = st.progress(0.0, text="starting")
    progress = ShownProgress(bar.progress, 1)
    progress.start("rolling influence out, block by block")
    try:
        with progress.watching():
            roll_out(seen, source, "influence")
    except BusyError as busy:
        st.session_state["rolling"] = None
        raise page.PageError("warning", str(busy)) from busy
    st.session_state["rolling"] = None
    st.rerun()


def glance_page() -> None:
    """The page."""
    chosen: Chosen = st.session_state["chosen"]
    shared = page.model_or_stop(chosen.key)
    page.banner(shared.provenance)
    picture = page.picture_or_stop(chosen.source, chosen.key)
    assert chosen.source is not None
    shown = page.segments("Show", "show", [BLOCKS_SHOWN, ORDERS_SHOWN], BLOCKS_SHOWN, label_visibility="collapsed")
    if shown == ORDERS_SHOWN:
        orders_content(chosen, shared, picture)
        return
    first = next(iter(shared.map_sizes.values()))
    if first is not None:  # so that the address keeps what it says while weights are computed
        page.query_in(first)
        Address.of_session().chosen("depth", one_of(depth_names(shared)), "1")
    computed(Seen(chosen.key, picture.id), chosen.source)
    if st.session_state.get("rolling") is None:
        panel(chosen)
    else:
        blocks_content(chosen, alone=False)
