"""Compare: two models, two checkpoints or two pictures side by side, with one picker."""

from functools import partial

import streamlit as st

from horinsight.figures.mixing_maps import draw_mixing_maps
from horinsight.figures.style import figure_bytes
from horinsight.mixing.mixing_results import map_rows
from horinsight.mixing.query_places import same_place
from horinsight.report import csv_text
from horinsight.viewer.components.gallery import gallery
from horinsight.viewer.components.map_panels import Display
from horinsight.viewer.components.picker import picker
from horinsight.viewer.service import page
from horinsight.viewer.service.mixed import Mixed, default_blocks, mixed
from horinsight.viewer.service.model_pool import ModelKey
from horinsight.viewer.service.page import Chosen
from horinsight.viewer.service.pictures import Source
from horinsight.viewer.service.settings import settings

MODELS, PICTURES = "models", "pictures"


def other_side(chosen: Chosen) -> tuple[ModelKey, Source | None, Display]:
    """What is shown on the right."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        what = page.segments("Compare two", "compare", [MODELS, PICTURES], MODELS)
        if what == MODELS:
            models = settings().models
            name = page.select("Second model", "model_b", models, models[1], width=260)
            key, source = ModelKey(name, page.checkpoint_choice("weights_b", "Weights of the second")), chosen.source
        else:
            key = chosen.key
            source = Source(page.sample_choice("Second picture", "image_b", key.name, default="digit_8", width=260))
        return key, source, page.display_options()


def side(source: Source | None, key: ModelKey) -> Mixed:
    """Mixing weights of one side."""
    shared = page.model_or_stop(key)
    page.picture_or_stop(source, key)
    assert source is not None
    with page.explained():
        return mixed(source, key, default_blocks(shared), None)


@page.panel
def panel(chosen: Chosen, key_b: ModelKey, source_b: Source | None, display: Display) -> None:
    """The part that a click runs again."""
    first, second = side(chosen.source, chosen.key), side(source_b, key_b)
    size = first.map_size
    query = page.query_in(size)
    maps = [first.maps(query), second.maps(same_place(query, size, second.map_size))]

    left, middle, right = st.columns([3, 5, 5], gap="medium")
    with left:
        shown_pictures = {first.picture.id: first.picture, second.picture.id: second.picture}
        for place, picture in enumerate(shown_pictures.values()):
            key = f"picker_{'ab'[place]}"
            picker(
                picture.src,
                picture.id,
                query,
                size,
                alt=f"{picture.name}, as {chosen.key.name} sees it",
                key=key,
                on_change=partial(page.move_query, key, [size], size),
            )
        page.query_fields(size)
        page.downloads(
            f"compare_{first.key.name}_{second.key.name}_{query[0]}_{query[1]}",
            [
                page.csv(lambda: csv_text([row for shown in maps for row in map_rows(shown)])),
                page.Download(
                    "a.pdf",
                    "application/pdf",
                    "picture_as_pdf",
                    lambda: figure_bytes(draw_mixing_maps(maps[0]), ".pdf"),
                ),
                page.Download(
                    "b.pdf",
                    "application/pdf",
                    "picture_as_pdf",
                    lambda: figure_bytes(draw_mixing_maps(maps[1]), ".pdf"),
                ),
            ],
        )
    for column, found, shown, key in ((middle, first, maps[0], "gallery_a"), (right, second, maps[1], "gallery_b")):
        with column:
            weights = f" · {found.key.checkpoint}" if found.key.checkpoint else ""
            page.heading(found.key.name, after=page.plain(f"{weights} on {found.picture.name}"))
            gallery(
                shown,
                found.picture.src,
                found.picture.id,
                key=key,
                on_change=partial(page.move_query, key, page.panel_sizes(shown), size),
                details={
                    name: f"to location {numbers.location_adaptivity.value:.3f}"
                    for name, numbers in found.adaptivity.items()
                },
                detail_help="adapts to location: share of the variance that comes with the place (a convolution has 0)",
                display=display,
            )
            if found.predictions:
                page.prediction_bars(found.predictions)


def compare_page() -> None:
    """The page."""
    chosen: Chosen = st.session_state["chosen"]
    key_b, source_b, display = other_side(chosen)
    page.banner(page.model_or_stop(chosen.key).provenance)
    if key_b != chosen.key:
        page.banner(page.model_or_stop(key_b).provenance)
    panel(chosen, key_b, source_b, display)
