"""The guided start: five steps through the pages on the trained model; the step is part of the address."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from horinsight.viewer.service.address import Address
from horinsight.viewer.service.choices import whole

TRAINED = "hornet_digits_iso"
RESET = (
    "model", "weights", "source", "image", "row", "col", "blocks", "step", "channel", "ie_blocks", "compare", "model_b",
    "weights_b", "image_b", "blocks_b", "explain", "at_block", "both_scale", "one_scale",
    "kind", "scope", "max_order", "tuples",
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        page: path of the page that it is on.
        title: what is seen.
        text: in plain words.
        choices: name → value of what is chosen for it; everything else of `RESET` is as at the start.
    """

    page: str
    title: str
    text: str
    choices: Mapping[str, Any] = field(default_factory=dict)


STEPS = (
    Step(
        "",
        "Where does a position look?",
        "A network sees a picture as a grid of positions, here 14 x 14. Six of its blocks are shown: red places push "
        "the feature of the boxed position i up, blue ones pull it down, and outside of the window nothing counts. "
        "Point at the picture: the maps follow. This network has learned handwritten digits and never saw a cat, so "
        "do not believe its prediction; the maps are real.",
        {"model": TRAINED, "image": "chelsea", "row": 5, "col": 9},
    ),
    Step(
        "",
        "On what it has learned",
        "The same network on a digit. Move i along the stroke, then onto the background: the maps change. A plain "
        "convolution would show the same map everywhere; how much these differ from place to place stands below each "
        "map.",
        {"model": TRAINED, "image": "digit_3", "row": 4, "col": 9},
    ),
    Step(
        "spectra",
        "How many positions act together?",
        "A row is a block. Column k says how strongly k neighbours act jointly with a position: more than their single "
        "actions added up. A convolution ends at k = 0, self-attention at k = 2; a gⁿConv goes on to n, and its next "
        "column is exactly 0: no chance, but how it is built.",
        {"model": TRAINED, "image": "digit_3", "ie_blocks": [1, 5, 9, 13], "tuples": 32},
    ),
    Step(
        "attribution",
        "What spoke for the answer?",
        "Mixing weights are one block's. For the answer of the whole network, methods of attribution mark what spoke "
        "for the class, red, and against it, blue. They disagree; the curves below test them by hiding what is marked.",
        {"model": TRAINED, "image": "digit_3"},
    ),
    Step(
        "compare",
        "Does training matter?",
        "A is the trained network, B the same kind with random weights. On one scale B is empty: its weights are "
        "hundreds of billions of times smaller. Turn One scale off to see their pattern. Now choose a model or upload "
        "a picture at the left; weights of your own come in by horinsight viewer --checkpoints FOLDER.",
        {"model": TRAINED, "image": "digit_3", "model_b": "hornet_s_iso", "row": 4, "col": 9},
    ),
)


def tour_step() -> int:
    """The step that the visitor is at, from 1; 0 where the tour is closed."""
    Address.of_session().chosen("tour", whole(0, len(STEPS)), 0)
    step: int = st.session_state["tour"] or 0
    return step


def go_to(step: int) -> None:
    """Turn to a step with all that is chosen for it, before the next run; 0 ends the tour where it is."""
    state = st.session_state
    state["tour"] = step
    Address.of_session().decided()
    if step:
        Address.of_session().forgotten(*RESET)
        state.pop("query_map", None)
        state.update(STEPS[step - 1].choices)
        state["tour_turns_to"] = STEPS[step - 1].page


def turns_to() -> str | None:
    """The path of the page that `go_to` leads to, once; None where it led nowhere."""
    page: str | None = st.session_state.pop("tour_turns_to", None)
    return page
