"""Attribution: what a class, or a position of a block, is made of, by three methods, and whether their maps hold."""

from collections.abc import Callable

import streamlit as st

from horinsight.attribution.attribution_results import PositionAttributions, PredictionAttributions
from horinsight.attribution.attributions_by_method import Attributions, together
from horinsight.attribution.faithfulness_results import Faithfulness
from horinsight.figures.attribution_maps import draw_attribution_maps
from horinsight.figures.style import figure_bytes
from horinsight.models.predictions import class_names
from horinsight.results import ResultSet, result_bytes
from horinsight.viewer.components.curves import show_curves
from horinsight.viewer.components.map_row import MOST, show_maps, show_picture
from horinsight.viewer.components.picker import picker
from horinsight.viewer.service import page
from horinsight.viewer.service.attributed import (
    BASELINES,
    CURVES,
    MAPS,
    Explained,
    attribute,
    follow,
    has_classes,
    is_quick,
    offered,
    price,
    shown_map,
)
from horinsight.viewer.service.gate import BusyError
from horinsight.viewer.service.model_pool import SharedModel
from horinsight.viewer.service.page import Chosen
from horinsight.viewer.service.pictures import Picture, Source
from horinsight.viewer.service.stopping import ShownProgress

DEFAULT = {"Class": ["saliency", "deep_lift", "mixing_rollout"], "Position": ["influence", "deep_lift", "saliency"]}


def asked(chosen: Chosen, shared: SharedModel, picture: Picture) -> tuple[Explained, list[str]]:
    """What is to be explained, by which methods; all of it in the address."""
    kind = page.segments("Explain", "explain", ["Class", "Position"], "Class", label_visibility="collapsed")
    position = kind == "Position"
    with st.popover("Methods", icon=":material/tune:"):
        names = page.several(
            "Methods, up to three",
            f"methods_{kind.lower()}",
            offered(position=position),
            DEFAULT[kind],
            max_selections=MOST,
        )
        baseline = page.select(
            "Baseline",
            "baseline",
            BASELINES,
            help="What stands for nothing: methods compare the picture with it, and curves put its cells in.",
        )
        every = [block.index for block in shared.blocks if shared.map_sizes[block.name] is not None]
        block = page.select(
            "Block",
            "at_block",
            every,
            every[-1],
            help="Whose position is explained; of a class, the block that layer methods tell of.",
        )
    query = None
    if position:
        query = page.query_in(map_size(shared, block))
    explained = Explained(chosen.key, picture.id, baseline, block if position else None, query, block)
    return explained, names or DEFAULT[kind]


def map_size(shared: SharedModel, index: int) -> tuple[int, int]:
    """(rows, columns) of a block's map."""
    block = next(block for block in shared.blocks if block.index == index)
    size = shared.map_sizes[block.name]
    assert size is not None, "only blocks with a map are offered"
    return size


def finished(explained: Explained, names: list[str]) -> tuple[dict[str, Attributions], dict[str, str]]:
    """What is known, and why something is not."""
    known = {name: MAPS.get((explained, name)) for name in names}
    found = {name: one for name, one in known.items() if one is not None and not isinstance(one, str)}
    return found, {name: one for name, one in known.items() if isinstance(one, str)}


def offer(found: dict[str, Attributions], explained: Explained, picture: Picture) -> None:
    """Downloads of what is finished."""
    first = next(iter(found.values()))
    maps = {name: shown_map(one, name)[None] for name, one in found.items()}
    grid = first.output_size if isinstance(first, PositionAttributions) else None
    what = f"class {first.targets[0]}" if isinstance(first, PredictionAttributions) else first.block

    def figure(suffix: str) -> bytes:
        drawn = draw_attribution_maps(
            maps,
            picture.view[None],
            title=f"{explained.key.name}: {what}",
            names=[picture.label],
            query=explained.query,
            query_grid=grid,
            provenance=first.provenance,
        )
        return figure_bytes(drawn, suffix)

    def arrays() -> bytes:
        whole = [one for one in found.values() if isinstance(one, PredictionAttributions)]
        return result_bytes(together(whole) if whole else ResultSet(found), ".npz")

    page.downloads(
        f"attribution_{explained.key.name}_{picture.id}",
        [page.png(lambda: figure(".png")), page.pdf(lambda: figure(".pdf")), page.npz(arrays)],
    )


def run_the_rest(
    explained: Explained, names: list[str], source: Source, redraw: Callable[[], None], *, curves: bool
) -> None:
    """Method by method, then the curves; what is finished is kept and shown at once."""
    todo = [name for name in names if MAPS.get((explained, name)) is None]
    bar = st.progress(0.0, text="starting")
    progress = ShownProgress(bar.progress, len(todo) + curves)
    try:
        for name in todo:
            progress.start(f"{name.replace('_', ' ')} …")
            with progress.watching():
                attribute(explained, name, source)
            progress.finish()
            redraw()
        if curves:
            progress.start("insertion and deletion curves …")
            with progress.watching():
                follow(explained, names, source)
    except BusyError as busy:
        st.session_state["attributing"] = None
        raise page.PageError("warning", f"{busy} What is finished is kept.") from busy
    bar.empty()
    st.session_state["attributing"] = None


@page.panel
def panel(chosen: Chosen) -> None:
    """The page below the banner; a click runs this part alone."""
    content(chosen, alone=True)


def content(chosen: Chosen, *, alone: bool) -> None:
    """What is asked, and what is known of it.

    Args:
        chosen: model and picture.
        alone: whether a click runs this part alone. Streamlit lets such a click wait until the run before has ended, so
            that no method is asked here: the whole page is run instead, in which a click stops what runs.
    """
    shared = page.model_or_stop(chosen.key)
    picture = page.picture_or_stop(chosen.source, chosen.key)
    assert chosen.source is not None
    if not any(shared.map_sizes.values()):
        page.told("info", "This model has no blocks with a map, whose positions could be explained.")
        return
    left, right = st.columns([4, 11], gap="medium")
    with right:
        top = st.container(horizontal=True, vertical_alignment="center", gap="small")
    with top:
        st.markdown("**Explain**", width="content")
        explained, names = asked(chosen, shared, picture)
    if explained.block is None and not has_classes(shared.replicas[0]):
        with right:
            page.told("info", "This model has no classes: choose Position to explain what a block computes.")
        return
    found, failed = finished(explained, names)
    curves_key = (explained, tuple(name for name in names if name in found))
    curves = CURVES.get(curves_key)
    complete = len(found) + len(failed) == len(names)
    wanted = explained.block is None and curves is None and not (complete and not found)
    todo = not complete or wanted
    state = (explained, tuple(names))
    running = st.session_state.get("attributing") == state or (
        is_quick(explained, names) and st.session_state.get("attributing_stopped") != state
    )
    st.session_state["attributing"] = state if todo and running else None
    with top:
        _start_or_stop(state, todo=todo, running=running)
        if found and not (todo and running):
            offer(found, explained, picture)
    with left:
        _left_side(shared, picture, explained, found)
    with right:
        area, progress = st.empty(), st.container()

        def redraw() -> None:
            with area.container():
                if not running and not finished(explained, names)[0]:
                    page.told("info", price(explained, names))
                else:
                    show_maps(*finished(explained, names), names, picture, explained.query)

        redraw()
        if todo and running:
            if alone:
                st.rerun()
            page.settled()
            with progress:
                run_the_rest(explained, names, chosen.source, redraw, curves=wanted)
            st.rerun()
        if explained.block is not None:
            page.small(
                f"What the residual block {explained.block} computes at this position: the sum of squares over its "
                "channels. Curves follow the probability of a class: choose Class to see them."
            )
        elif isinstance(curves, Faithfulness):
            show_curves(curves)
        elif isinstance(curves, str):
            page.told("error", curves)


def _start_or_stop(state: tuple[Explained, tuple[str, ...]], *, todo: bool, running: bool) -> None:
    """Stop ends the method that runs; what was finished before is kept."""
    count = len(state[1])
    place = st.empty()  # for one of them
    if todo and running:
        if place.button("Stop", icon=":material/stop:", key="stop_asking"):
            st.session_state.update(attributing=None, attributing_stopped=state)
            st.rerun()
    elif todo and place.button(
        f"Ask {count} method{'s' * (count > 1)}", icon=":material/play_arrow:", type="primary", key="ask"
    ):
        st.session_state.update(attributing=state, attributing_stopped=None)
        st.rerun()


def _left_side(shared: SharedModel, picture: Picture, explained: Explained, found: dict[str, Attributions]) -> None:
    if explained.block is not None and explained.query is not None:
        size = map_size(shared, explained.block)
        page.heading(picture.name, after=" · click to choose the position")
        picker(
            picture.src,
            picture.id,
            explained.query,
            size,
            alt=f"{picture.name}, as {explained.key.name} sees it",
            key="attribution_picker",
            on_change=lambda: page.move_query("attribution_picker", [size], size),
        )
        page.query_fields(size)
        return
    st.markdown("**The picture**, as the model sees it")
    show_picture(picture.view, f"{picture.name}, as {explained.key.name} sees it")
    first = next((one for one in found.values() if isinstance(one, PredictionAttributions)), None)
    if first is not None:
        target, called = int(first.targets[0]), class_names(shared.replicas[0])
        name = f", {called[target]}" if called and called[target] != str(target) else ""
        page.small(f"explained: the logit {float(first.logits[0]):.3g} of class {target}{name}")


def attribution_page() -> None:
    """The page."""
    chosen: Chosen = st.session_state["chosen"]
    page.banner(page.model_or_stop(chosen.key).provenance)
    if st.session_state.get("attributing") is None:
        panel(chosen)
    else:
        content(chosen, alone=False)
