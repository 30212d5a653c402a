"""What every page has: the sidebar, the banner of untrained weights, messages; from beside, the query and downloads."""

import html
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import streamlit as st

from horinsight.data.images import DIGITS, SAMPLES, default_samples
from horinsight.models.misfits import CheckpointError
from horinsight.models.packaged_weights import packaged_weights
from horinsight.models.predictions import Prediction
from horinsight.results import Provenance
from horinsight.viewer.components.gallery import SIGNED_COLOURS, Display
from horinsight.viewer.service.downloads import Download, csv, downloads, json, npz, pdf, png
from horinsight.viewer.service.gate import BusyError
from horinsight.viewer.service.model_pool import ModelKey, SharedModel, shared_model
from horinsight.viewer.service.pictures import MAX_UPLOAD_MB, Picture, Source, prepared
from horinsight.viewer.service.query_cell import move_query, panel_sizes, query_fields, query_in
from horinsight.viewer.service.settings import MODELS, checkpoint_files, settings

__all__ = [
    "Chosen",
    "Download",
    "banner",
    "checkpoint_choice",
    "csv",
    "display_options",
    "downloads",
    "explained",
    "json",
    "link_problems",
    "model_or_stop",
    "move_query",
    "npz",
    "panel_sizes",
    "pdf",
    "picture_or_stop",
    "png",
    "prediction_bars",
    "query_fields",
    "query_in",
    "sample_choice",
    "sidebar",
    "style",
]

BUILT_IN = "built-in"
TRAINED = ", ".join(name for name in MODELS if packaged_weights(name))
NOTICE_SECONDS = 30.0  # how long the notice of a bad link stays, if the visitor goes on
OWN = "the model's own"
PICTURES = (OWN, *DIGITS, *SAMPLES)
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
        name = st.selectbox(
            "Model",
            settings().models,
            key="model",
            bind="query-params",
            on_change=_model_changed,
            help=f"{TRAINED} comes with trained weights; the others are random, unless a checkpoint is chosen.",
        )
        checkpoint = checkpoint_choice("weights")
        kind = st.segmented_control(
            "Picture", ["Sample", "Upload"], default="Sample", key="source", required=True, bind="query-params"
        )
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
    chosen = st.selectbox(label, [BUILT_IN, *files], key=key, bind="query-params")
    return "" if chosen == BUILT_IN else chosen


def sample_choice(
    label: str, key: str, model: str, *, default: str = OWN, width: int | Literal["stretch"] = "stretch"
) -> str:
    """One of the pictures that come along; by default one of those that the model is made for."""
    chosen = st.selectbox(label, PICTURES, index=PICTURES.index(default), key=key, bind="query-params", width=width)
    return default_samples(model)[0] if chosen == OWN else chosen


def _model_changed() -> None:
    """Another model has its own blocks, steps, channels and weights."""
    for name in ("blocks", "step", "channel", "ie_blocks", "at_block", "weights"):
        st.session_state.pop(name, None)


def link_problems() -> None:
    """Says what a link asked for that this viewer does not have, instead of showing something else without a word."""
    state = st.session_state
    if "link_problems" not in state:
        offered = {
            "model": settings().models,
            "model_b": settings().models,
            "weights": (BUILT_IN, *checkpoint_files(settings().checkpoints)),
            "weights_b": (BUILT_IN, *checkpoint_files(settings().checkpoints)),
            "image": PICTURES,
            "image_b": PICTURES,
        }
        asked = {name: st.query_params.get(name) for name in offered}
        state["link_problems"] = (
            time.monotonic(),
            [
                f"{name.removesuffix('_b')} {value!r}"
                for name, value in asked.items()
                if value and value not in offered[name]
            ],
        )
    since, problems = state["link_problems"]
    if problems and time.monotonic() - since < NOTICE_SECONDS:
        st.warning(
            f"The link asks for {', '.join(problems)}, which this viewer does not have: the default is shown instead.",
            icon=":material/link_off:",
        )


def model_or_stop(key: ModelKey) -> SharedModel:
    """The model, or a message and the end of the run."""
    with explained():
        return shared_model(key)


def picture_or_stop(source: Source | None, key: ModelKey) -> Picture:
    """The picture, or a message and the end of the run."""
    if source is None:
        st.info(
            f"No picture yet. Upload a PNG, JPEG, WebP or BMP of up to {MAX_UPLOAD_MB} MB in the sidebar, or go back "
            "to a sample.",
            icon=":material/image:",
        )
        st.stop()
    with explained():
        return prepared(source, key)


@contextmanager
def explained() -> Iterator[None]:
    """Turns what can go wrong into one message, and ends the run; anything else goes to the log."""
    try:
        yield
    except BusyError as busy:
        st.warning(str(busy), icon=":material/hourglass_top:")
        st.button("Try again", key="try_again")
        st.stop()
    except CheckpointError as error:
        parts = {"missing": error.missing, "too many": error.unexpected, "of another shape": error.misshapen}
        counts = ", ".join(f"{len(keys)} parameters {what}" for what, keys in parts.items() if keys)
        if counts:
            st.error(
                f"These weights are another model's: {counts}. Choose other weights, or the model they belong to.",
                icon=":material/error:",
            )
            with st.expander("Which"):
                st.text(str(error))
        else:
            st.error(str(error), icon=":material/error:")
        st.stop()
    except (ValueError, OSError) as error:
        st.error(str(error), icon=":material/error:")
        st.stop()


def banner(provenance: Provenance) -> None:
    """Says when weights are untrained, in one line."""
    if provenance.trained is False:
        what = html.escape(f"{provenance.model} ({provenance.weights})")
        st.html(
            f'<div class="untrained" role="note"><b>Untrained weights</b> of {what}: what is shown is the architecture '
            "and its initial weights.</div>"
        )


def style() -> None:
    """Less empty space than by default, and the look of what we write as HTML."""
    st.html(
        """<style>
        .stMainBlockContainer { padding: 3.75rem 1.75rem 0.25rem !important }
        [data-testid=stSidebarUserContent] { padding-top: 0 !important }
        [data-testid=stVerticalBlock] { gap: 0.6rem }
        .untrained { border-left: 4px solid #b00020; background: #b0002018; padding: 2px 10px; font-size: .85rem;
                     border-radius: 3px }
        .prediction { font-size: .8rem }
        .prediction > div { display: grid; grid-template-columns: 7rem 1fr 3rem; gap: 8px; align-items: center;
                            margin-top: 2px }
        .prediction .bar { background: #0f5e8c22; border-radius: 3px; height: 9px; display: block }
        .prediction .bar > span { display: block; height: 9px; border-radius: 3px; background: var(--primary, #2f7fb0) }
        .prediction .share { text-align: right; font-variant-numeric: tabular-nums }
        @media (max-width: 640px) { .stMainBlockContainer { padding: 3.6rem 0.75rem 1rem !important } }
        </style>"""
    )


def prediction_bars(found: Sequence[Prediction]) -> None:
    """The most probable classes, as text with bars."""
    rows = "".join(
        f"<div><span>{html.escape(one.name)}</span>"
        f'<span class="bar" aria-hidden="true"><span style="width:{one.probability:.1%}"></span></span>'
        f'<span class="share">{one.probability:.1%}</span></div>'
        for one in found
    )
    st.html(f'<div class="prediction"><b>Prediction</b>{rows}</div>')


def display_options() -> Display:
    """A menu of how maps look; the same on every page."""
    with st.popover("Display"):
        return Display(
            colour_map=st.selectbox(
                "Colours",
                SIGNED_COLOURS,
                key="colours",
                bind="query-params",
                help="All three can be told apart with red-green blindness; PuOr is the safest.",
            ),
            opacity=st.slider("Opacity of the maps", 0.0, 1.0, 0.65, 0.05, key="opacity", bind="query-params"),
            one_scale=st.toggle("One scale for all blocks", key="one_scale", bind="query-params"),
            smooth=st.toggle("Smooth between cells", key="smooth", bind="query-params"),
            grey=st.toggle("Light grey picture", True, key="grey", bind="query-params"),
        )
