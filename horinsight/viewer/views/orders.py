"""Orders by place: which neighbours act jointly with a position of one block, k at a time."""

import numpy as np
import streamlit as st

from horinsight.attribution.attribution_results import InteractionPlaces
from horinsight.mixers.blocks import MixingBlock
from horinsight.results import ResultSet, result_bytes
from horinsight.viewer.components.depth_stack import StackMap, StackWords, depth_stack, moved_to
from horinsight.viewer.components.map_panels import Display
from horinsight.viewer.components.picker import picker
from horinsight.viewer.service import page
from horinsight.viewer.service.address import Address
from horinsight.viewer.service.choices import one_of
from horinsight.viewer.service.gate import BusyError
from horinsight.viewer.service.model_pool import SharedModel
from horinsight.viewer.service.orders_by_place import (
    MEASURED,
    Places,
    measure_places,
    shown_orders,
    takes_seconds,
)
from horinsight.viewer.service.page import Chosen
from horinsight.viewer.service.pictures import Picture, Source
from horinsight.viewer.service.stopping import ShownProgress

ORDERINGS = 4
HINT = (
    "Move the slider, or use the arrow keys on it, to go from order to order; hover to read; click to move the query i."
)
NOT_YET = "not measured"


def said_of(order: int, found: InteractionPlaces | str | None, block: MixingBlock) -> str:
    """What the map of an order shows, in a sentence."""
    if found is None:
        return f"k = {order}: not measured yet."
    if isinstance(found, str):
        return found
    if not found.squares.any():
        design = "" if block.order is None else f" The design of this mixer ends at k = {block.order}."
        return f"Exactly 0: there are no {order} neighbours that act jointly with the query.{design}"
    others = f" and {order - 1} other{'s' * (order > 2)}" if order > 1 else ""
    return (
        f"How strongly a place acts jointly with the query{others}: root mean square of the mixed derivative of order "
        f"{order + 1}, largest {found.maps.max():.2g}."
    )


def order_maps(places: Places, block: MixingBlock, size: tuple[int, int]) -> list[StackMap]:
    """The map of each order; empty where it is not measured."""
    shown = []
    for order in shown_orders(block):
        found = MEASURED.get((places, order))
        values = found.maps[0] if isinstance(found, InteractionPlaces) else np.zeros(size)
        note = NOT_YET if found is None else "not measurable" if isinstance(found, str) else ""
        note = note or ("" if values.any() else "exactly 0")
        shown.append(
            StackMap(f"k = {order}", f"order {order}", values, places.query, said_of(order, found, block), note)
        )
    return shown


def orders_content(chosen: Chosen, shared: SharedModel, picture: Picture) -> None:
    """What is asked, what is finished, and the rest of it where that is wanted."""
    source = chosen.source
    assert source is not None
    offered = [block for block in shared.blocks if shared.map_sizes[block.name] is not None]
    if not offered:
        raise page.PageError("info", "This model has no blocks with a map, whose positions could be looked at.")
    left, right = st.columns([4, 9], gap="medium")
    with left, st.container(horizontal=True, vertical_alignment="center", gap="small"):
        index = page.select("Block", "at_block", [one.index for one in offered], offered[len(offered) // 2].index)
        orderings = page.number("Orderings", "orderings", 2, 64, ORDERINGS, help="More of them: less noise, more time.")
        display = page.display_options()
    (block,) = (one for one in offered if one.index == index)
    size = shared.map_sizes[block.name]
    assert size is not None
    query = page.query_in(size)
    with left:
        page.heading(picture.name, after=" · click to choose <i>i</i>")
        picker(
            picture.src,
            picture.id,
            query,
            size,
            alt=f"{picture.name}, as {chosen.key.name} sees it",
            key="picker",
            on_change=lambda: page.move_query("picker", [size], size),
        )
        page.query_fields(size)
    places = Places(chosen.key, picture.id, block.index, query, orderings or ORDERINGS)
    names = [str(order) for order in shown_orders(block)]
    Address.of_session().chosen("order", one_of(names), names[0])
    with right:
        _right_side(places, block, (picture, source), display)


def _right_side(places: Places, block: MixingBlock, shown: tuple[Picture, Source], display: Display) -> None:
    todo = [order for order in shown_orders(block) if MEASURED.get((places, order)) is None]
    running = bool(todo) and (
        st.session_state.get("placing") == places
        or (takes_seconds(places) and st.session_state.get("placing_stopped") != places)
    )
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown("**Orders by place**: which neighbours act jointly with *i*", width="content")
        _buttons(places, block, todo, running=running)
    _stack(places, block, shown[0], display)
    if running:
        page.settled()
        _measure_the_next(places, todo, len(shown_orders(block)), shown[1])
        st.rerun()


def _stack(places: Places, block: MixingBlock, picture: Picture, display: Display) -> None:
    names = [str(order) for order in shown_orders(block)]
    maps = order_maps(places, block, _size(places, block))
    sizes = [one.values.shape for one in maps]
    finished = sum(one.note != NOT_YET for one in maps)

    def moved() -> None:
        at = moved_to("orders", len(names))
        if at is not None:
            st.session_state["order"] = names[at]

    depth_stack(
        maps,
        (picture.src, picture.id),
        at=names.index(st.session_state["order"]),
        words=StackWords("Order k", "k = 1", f"k = {names[-1]}", HINT),
        stamp=f"{places.key.name}:{picture.id}:{places.block}:{finished}:{places.query[0]}:{places.query[1]}",
        key="orders",
        on_change=(lambda: page.move_query("orders", sizes, sizes[0]), moved),
        display=display,
    )


def _size(places: Places, block: MixingBlock) -> tuple[int, int]:
    size = page.model_or_stop(places.key).map_sizes[block.name]
    assert size is not None, "only blocks with a map are offered"
    return size


def _buttons(places: Places, block: MixingBlock, todo: list[int], *, running: bool) -> None:
    """Stop or start, and the arrays."""
    place = st.empty()
    if running:
        if place.button("Stop", icon=":material/stop:", key="stop_placing"):
            st.session_state.update(placing=None, placing_stopped=places)
            st.rerun()
        return
    if todo and place.button(
        "Measure",
        icon=":material/play_arrow:",
        type="primary",
        key="measure_places",
        help="Nested derivatives of each order: seconds for a small model, a minute or more for a large one.",
    ):
        st.session_state.update(placing=places, placing_stopped=None)
        st.rerun()
    found = {str(order): MEASURED.get((places, order)) for order in shown_orders(block)}
    whole = {f"k_{name}": one for name, one in found.items() if isinstance(one, InteractionPlaces)}
    if whole:
        stem = f"orders_{places.key.name}_{places.picture_id}_{places.block}_{places.query[0]}_{places.query[1]}"
        page.downloads(stem, [page.npz(lambda: result_bytes(ResultSet(whole), ".npz"))])


def _measure_the_next(places: Places, todo: list[int], total: int, source: Source) -> None:
    """One order; the page is then run again, and shows it."""
    bar = st.progress(0.0, text="starting")
    progress = ShownProgress(bar.progress, total, total - len(todo))
    progress.start(f"measuring k = {todo[0]}: {total - len(todo)} of {total} finished")
    try:
        with progress.watching():
            measure_places(places, todo[0], source)
    except BusyError as busy:
        st.session_state.update(placing=None, placing_stopped=places)
        raise page.PageError("warning", f"{busy} What is finished is kept.") from busy
