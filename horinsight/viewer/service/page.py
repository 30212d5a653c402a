"""What every page has: the sidebar, the banner of untrained weights, messages; from beside, the query and downloads."""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from horinsight.data.images import DIGITS, SAMPLES, default_samples
from horinsight.models.packaged_weights import packaged_weights
from horinsight.models.predictions import Prediction
from horinsight.results import Provenance
from horinsight.viewer.components.drop_zone import named_drop_zones
from horinsight.viewer.components.map_panels import SIGNED_COLOURS, Display
from horinsight.viewer.service.address import Address
from horinsight.viewer.service.choices import number, segments, select, several, share, switch
from horinsight.viewer.service.downloads import Download, csv, downloads, json, npz, pdf, png
from horinsight.viewer.service.guard import PageError, explained, panel
from horinsight.viewer.service.model_pool import ModelKey, SharedModel, shared_model
from horinsight.viewer.service.pictures import MAX_UPLOAD_MB, Picture, Source, prepared
from horinsight.viewer.service.plain_text import heading, plain, small, told
from horinsight.viewer.service.query_cell import move_query, panel_sizes, query_fields, query_in
from horinsight.viewer.service.settings import MODELS, checkpoint_files, settings

__all__ = [
    "Chosen",
    "Download",
    "PageError",
    "banner",
    "checkpoint_choice",
    "csv",
    "display_options",
    "downloads",
    "explained",
    "heading",
    "json",
    "model_or_stop",
    "move_query",
    "npz",
    "number",
    "panel",
    "panel_sizes",
    "pdf",
    "picture_or_stop",
    "plain",
    "png",
    "prediction_bars",
    "query_fields",
    "query_in",
    "sample_choice",
    "segments",
    "select",
    "settled",
    "several",
    "share",
    "sidebar",
    "small",
    "style",
    "switch",
    "told",
]

BUILT_IN = "built-in"
TRAINED = ", ".join(name for name in MODELS if packaged_weights(name))
NOTICE_SECONDS = 30.0  # how long the notice of a bad link stays, if the visitor goes on
LOST = "The server does not answer. What is shown stays; it goes on by itself when the server is back."
OWN = "the model's own"
ONE_SCALE = "The same colour means the same number in all maps; off, each map has colours of its own."
PICTURES = (OWN, *DIGITS, *SAMPLES)
LOOK = (Path(__file__).parents[1] / "components" / "page_look.css").read_text(encoding="utf-8")
UPLOAD_TYPES = ["png", "jpg", "jpeg", "webp", "bmp"]


@dataclass(frozen=True)
class Chosen:
    """What the sidebar says.

    Attributes:
        key: the model.
        source: the picture; None where an upload is awaited.
    """

    key: ModelKey
    source: Source | None


def sidebar() -> Chosen:
    """Model, weights and picture; in the address, except for uploads."""
    with st.sidebar:
        st.markdown("### horinsight")
        name = select(
            "Model",
            "model",
            settings().models,
            on_change=_model_changed,
            help=f"{TRAINED} comes with trained weights; the others are random, unless a checkpoint is chosen.",
        )
        checkpoint = checkpoint_choice("weights")
        kind = segments("Picture", "source", ["Sample", "Upload"], "Sample")
        if kind == "Upload":
            file = st.file_uploader(
                "Upload a picture", type=UPLOAD_TYPES, key="upload", max_upload_size=MAX_UPLOAD_MB,
                help="It stays on this server's memory for the session, and is not part of the address.",
            )  # fmt: skip
            source = Source.of_upload(file.name, file.getvalue()) if file else None
        else:
            source = Source(sample_choice("Sample", "image", name))
    return Chosen(ModelKey(name, checkpoint), source)


def checkpoint_choice(key: str, label: str = "Weights") -> str:
    """A checkpoint of the folder that was given at start; "" without one."""
    files = checkpoint_files(settings().checkpoints)
    if not files:
        return ""
    chosen: str = select(label, key, [BUILT_IN, *files])
    return "" if chosen == BUILT_IN else chosen


def sample_choice(
    label: str, key: str, model: str, *, default: str = OWN, width: int | Literal["stretch"] = "stretch"
) -> str:
    """One of the pictures that come along; by default one of those that the model is made for."""
    chosen: str = select(label, key, PICTURES, default, width=width)
    return default_samples(model)[0] if chosen == OWN else chosen


def _model_changed() -> None:
    """Another model has its own blocks, steps, channels and weights."""
    Address.of_session().forgotten("blocks", "step", "channel", "ie_blocks", "at_block", "weights", "depth", "order")


def link_problems() -> None:
    """Says what a link asked for that this viewer does not have, instead of showing something else without a word."""
    state, problems = st.session_state, Address.of_session().bad_values()
    if problems != state.get("link_problems"):
        state["link_problems"], state["link_problems_since"] = problems, time.monotonic()
    if problems and time.monotonic() - state["link_problems_since"] < NOTICE_SECONDS:
        with state["notice"]:
            told(
                "warning",
                f"The link asks for {problems}, which this viewer does not have: the default is shown instead.",
            )


def settled() -> None:
    """All choices of the page are shown: what the address says is told and kept, before something long begins."""
    address = Address.of_session()
    if address.whole:
        link_problems()
    address.finished()


def model_or_stop(key: ModelKey) -> SharedModel:
    """The model, or a message and the end of the page."""
    with explained():
        return shared_model(key)


def picture_or_stop(source: Source | None, key: ModelKey) -> Picture:
    """The picture, or a message and the end of the page."""
    if source is None:
        raise PageError(
            "info",
            f"No picture yet. Upload a PNG, JPEG, WebP or BMP of up to {MAX_UPLOAD_MB} MB in the sidebar (on a "
            "telephone: Model and picture, at the top), or go back to a sample.",
        )
    with explained():
        return prepared(source, key)


def banner(provenance: Provenance) -> None:
    """Says when weights are untrained, in one line."""
    if provenance.trained is False:
        what = plain(f"{provenance.model} ({provenance.weights})")
        st.html(
            f'<div class="untrained" role="note"><b>Untrained weights</b> of {what}: what is shown is the architecture '
            "and its initial weights.</div>"
        )


def style() -> None:
    """Less empty space than by default, and the look of what we write as HTML."""
    st.html(f"<style>{LOOK}</style>")
    st.html(f'<div class="lost" role="alert">{plain(LOST)}</div>')
    named_drop_zones()


def prediction_bars(found: Sequence[Prediction], *, of: str = "") -> None:
    """The most probable classes, as text with bars.

    Args:
        found: by probability.
        of: what they are of, where there is more than one.
    """
    rows = "".join(
        f"<div><span>{plain(one.name)}</span>"
        f'<span class="bar" aria-hidden="true"><span style="width:{one.probability:.1%}"></span></span>'
        f'<span class="share">{one.probability:.1%}</span></div>'
        for one in found
    )
    st.html(f'<div class="prediction"><b>Prediction{f" of {plain(of)}" if of else ""}</b>{rows}</div>')


def display_options(
    beside: DeltaGenerator | None = None, *, scale_key: str = "one_scale", together: bool = False
) -> Display:
    """A menu of how maps look, the same on every page, and one scale for all of them in sight.

    Args:
        beside: where the switch for one scale is; after the menu when None.
        scale_key: name of that switch in the address.
        together: whether it is on by default.
    """
    with st.popover("Display"), st.container(key="display_menu"):
        display = Display(
            colour_map=select(
                "Colours",
                "colours",
                SIGNED_COLOURS,
                help="All three can be told apart with red-green blindness; PuOr is the safest.",
            ),
            opacity=share("Opacity of the maps", "opacity", 1.0, help="Below 1 the picture shines through colours."),
            smooth=switch("Smooth between cells", "smooth"),
            grey=switch("Light grey picture", "grey", True),
        )
    with beside or nullcontext():
        return replace(display, one_scale=switch("One scale", scale_key, together, help=ONE_SCALE))
