"""Classes: mean maps of a query, adaptivity, orders and effects by class, over a folder with one for each class."""

import base64
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import streamlit as st
from PIL import Image

from horinsight.cancellation import watched_by
from horinsight.figures.mixing_maps import draw_mixing_maps
from horinsight.figures.style import figure_bytes
from horinsight.mixing.mixing_results import map_rows
from horinsight.report import csv_text
from horinsight.results import result_bytes
from horinsight.viewer.components.picker import picker
from horinsight.viewer.service import page
from horinsight.viewer.service.class_folder import class_files, class_names
from horinsight.viewer.service.class_means import (
    CLASSES,
    ClassAsked,
    ClassMeans,
    Step,
    class_maps,
    class_means,
    class_table,
)
from horinsight.viewer.service.class_spectra import CLASS_EFFECTS, ClassEffects, class_effects, effects_table
from horinsight.viewer.service.kept import Kept
from horinsight.viewer.service.mixed import default_blocks
from horinsight.viewer.service.model_pool import ModelKey
from horinsight.viewer.service.page import Chosen
from horinsight.viewer.service.result_folder import result_in_folder, result_names
from horinsight.viewer.service.saved_results import fitting
from horinsight.viewer.service.settings import settings
from horinsight.viewer.service.stopping import ShownProgress
from horinsight.viewer.views.class_numbers import by_depth, offer, shown

MOST = 6  # classes at once
COUNTS = (4, 8, 16, 32, 64)  # pictures of a class
MEASURE, SURVEY = "Measure here", "A survey"
MAPS, EFFECTS = "Maps and adaptivity", "Orders and effects"


class Way(NamedTuple):
    """What can be measured of a class: where it is kept, and what measures it."""

    known: Kept[ClassAsked, Any]
    measured: Callable[[ClassAsked, Step], object]


WAYS = {MAPS: Way(CLASSES, class_means), EFFECTS: Way(CLASS_EFFECTS, class_effects)}


def blocks_of(chosen: Chosen, what: str) -> tuple[int, ...]:
    """Those that are chosen; else some for maps, and for effects all where they take no time."""
    shared = page.model_or_stop(chosen.key)
    every = [block.index for block in shared.blocks]
    closed = what == EFFECTS and all(block.mixer == "gnconv" for block in shared.blocks)
    unchosen = tuple(every) if closed else default_blocks(shared)
    found = page.several("Blocks", "class_blocks", every, placeholder="all" if closed else "some", width=220)
    return tuple(found) or unchosen


def asked_of(chosen: Chosen, labels: list[str], count: int, blocks: tuple[int, ...]) -> dict[str, ClassAsked]:
    """Class → what is measured of it."""
    with page.explained():
        return {
            label: ClassAsked(chosen.key, blocks, tuple(class_files(settings().images, label, count)))
            for label in labels
        }


def measure(todo: dict[str, ClassAsked], way: Way) -> None:
    """Class by class, picture by picture; what is finished is kept."""
    bar = st.progress(0.0, text="measuring")
    progress = ShownProgress(bar.progress, sum(len(asked.files) for asked in todo.values()))
    for place, asked in enumerate(todo.values()):
        before = progress.done

        def step(done: int, place: int = place, before: int = before, of: int = len(asked.files)) -> None:
            progress.done = before + done
            progress.start(f"class {place + 1} of {len(todo)}, picture {done + 1} of {of}")

        try:
            # shares are of a block, and pictures have many
            with page.explained(), watched_by(lambda share: progress.watch(None)):
                way.measured(asked, step)
        except page.PageError:
            st.session_state["measuring_classes"] = None
            raise
        progress.done = before + len(asked.files)
    bar.empty()


def mean_maps(found: dict[str, ClassMeans], asked: ClassAsked) -> None:
    """The maps of a query, a row for each class, and the picture on which it is chosen."""
    first = next(iter(found.values()))
    if not first.tables:
        raise page.PageError("info", f"No maps: {next(iter(first.refused.values()), 'no block has any')}")
    map_size = next(iter(first.tables.values())).size
    query = page.query_in(map_size)
    with page.explained():
        maps = class_maps(found, asked, query, map_size)
    left, right = st.columns([2, 9], gap="medium")
    with left:
        stream = io.BytesIO()
        Image.fromarray(first.view).resize((224, 224)).save(stream, "PNG")
        picker(
            "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode(),
            f"{asked.key.name}-{hash(asked)}",
            query,
            map_size,
            alt="the mean picture of the first class",
            key="class_picker",
            on_change=lambda: page.move_query("class_picker", [map_size], map_size),
        )
        page.query_fields(map_size)
        with page.explained(), fitting("these classes"):
            figure = draw_mixing_maps(maps)
        page.downloads(
            f"classes_{asked.key.name}_{query[0]}_{query[1]}",
            [
                page.png(lambda: figure_bytes(figure, ".png")),
                page.pdf(lambda: figure_bytes(figure, ".pdf")),
                page.csv(lambda: csv_text(list(map_rows(maps)))),
                page.npz(lambda: result_bytes(maps, ".npz")),
            ],
        )
    with right:
        shown(figure, "Mean mixing weights of the query, a row for each class, over the mean picture")


@page.panel
def maps_panel(found: dict[str, ClassMeans], asked: ClassAsked, key: ModelKey) -> None:
    """What is finished; a click runs this part alone."""
    st.markdown("**Mean maps** of a position, over the mean picture of each class")
    mean_maps(found, asked)
    st.markdown("**How far the weights adapt and reach**, by class")
    by_depth(class_table(found, asked, page.model_or_stop(key).provenance))


@page.panel
def effects_panel(found: dict[str, ClassEffects], key: ModelKey) -> None:
    """Orders and effects of what is finished."""
    st.markdown(
        "**How many neighbours act jointly with a position**, by class: the order, and the effect of each number k of "
        "neighbours, relative to the spread of the block's output"
    )
    table = effects_table(found, page.model_or_stop(key).provenance)
    offer(table, by_depth(table), f"classes_effects_{key.name}")
    page.small(
        "Each picture has few chains of positions: what one lacks, others have. `horinsight survey ie` on the same "
        "folder gives the same numbers, of as many pictures as you like."
    )


def survey_part(surveys: list[str]) -> None:
    """A survey that was computed before: spectra, adaptivity or reach by class."""
    name = page.select("Survey", "class_survey", surveys, width=300)
    page.settled()
    with page.explained():
        table = result_in_folder(settings().results, name, by="class").result
    page.heading(name, after=f" · {page.plain(table.model)}")
    offer(table, by_depth(table), name.rstrip("/"))


def buttons(todo: dict[str, ClassAsked], what: str, *, running: bool) -> None:
    """Start or stop."""
    place = st.empty()
    if todo and running:
        if place.button("Stop", icon=":material/stop:", key="stop_classes"):
            st.session_state["measuring_classes"] = None
            st.rerun()
    elif todo and place.button(
        f"Measure {sum(len(asked.files) for asked in todo.values()):d} pictures",
        icon=":material/play_arrow:",
        type="primary",
        key="measure_classes",
    ):
        st.session_state["measuring_classes"] = (what, *todo.values())
        st.rerun()


def classes_page() -> None:
    """The page."""
    chosen: Chosen = st.session_state["chosen"]
    names = class_names(settings().images)
    surveys = [name for name in result_names(settings().results) if name.endswith("/")]
    if not names and not surveys:
        raise page.PageError(
            "info",
            "No classes: start the viewer with --images FOLDER, a folder below it for each class, or with "
            "--results FOLDER, in which a survey lies.",
        )
    where = [MEASURE] * bool(names) + [SURVEY] * bool(surveys)
    from_where = where[0] if len(where) == 1 else page.segments("Classes", "classes_from", where, where[0])
    if from_where == SURVEY:
        survey_part(surveys)
        return
    page.banner(page.model_or_stop(chosen.key).provenance)
    what = page.segments("What", "class_show", list(WAYS), MAPS, label_visibility="collapsed")
    way = WAYS[what]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        labels = page.several("Classes, up to six", "classes", names, names[:2], max_selections=MOST, width=420)
        count = page.select("Pictures of each", "class_count", COUNTS, 8, width=140)
        asked = asked_of(chosen, labels, count, blocks_of(chosen, what))
        todo = {label: one for label, one in asked.items() if way.known.get(one) is None}
        running = bool(todo) and {what, *todo.values()} <= set(st.session_state.get("measuring_classes") or ())
        buttons(todo, what, running=running)
    page.settled()
    if running:
        measure(todo, way)
        st.session_state["measuring_classes"] = None
        st.rerun()
    found = {label: known for label, one in asked.items() if (known := way.known.get(one)) is not None}
    if not found:
        page.told("info", "Choose classes and press Measure: pictures go through the model one by one.")
    elif what == MAPS:
        maps_panel(found, next(iter(asked.values())), chosen.key)
    else:
        effects_panel(found, chosen.key)
