"""Where a result comes from, in a form that a person reads."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from horinsight.results import Result
from horinsight.survey.survey_results import SurveyTable
from horinsight.viewer.service.plain_text import plain

MOST_IMAGES = 4
MOST_ROWS = 24
STYLE = """
.provenance { display: grid; grid-template-columns: max-content 1fr; gap: 1px 12px; font-size: .8rem;
              margin: 0 !important; padding: 0 !important }
.provenance dt { opacity: .7; max-width: 9rem; overflow-wrap: anywhere; margin: 0; padding: 0 }
.provenance dd { margin: 0; padding: 0; overflow-wrap: anywhere; unicode-bidi: isolate }
"""
TRAINED = {True: "trained", False: "untrained", None: "nobody said whether trained"}


def provenance_rows(result: Result) -> dict[str, str]:
    """What → in words: model, weights, images, seed, convention and target, as far as the result says them."""
    rows: dict[str, str] = {}
    origin = getattr(result, "provenance", None)
    if isinstance(result, SurveyTable):
        rows["model"] = result.model
        rows["weights"] = f"{result.weights} ({TRAINED[result.trained]})"
        rows["pictures"] = f"{result.num_pictures} of {result.num_listed}, {result.num_unreadable} could not be read"
        rows |= {"compared with": result.other} if result.other else {}
    elif origin is not None:
        rows["model"] = origin.model
        rows["weights"] = f"{origin.weights} ({TRAINED[origin.trained]}, sha256 {origin.weights_sha256[:12]})"
        more = f" and {len(origin.images) - MOST_IMAGES} more" * (len(origin.images) > MOST_IMAGES)
        rows["images"] = ", ".join(origin.images[:MOST_IMAGES]) + more if origin.images else "none"
        rows["seed"] = str(origin.seed)
        rows["versions"] = ", ".join(f"{name} {number}" for name, number in origin.versions.items())
    else:
        rows["model"] = "not said in this file"
    if isinstance(target := getattr(result, "target", None), str):
        rows["intervals are of"] = target
    convention: Any = getattr(result, "convention", {})
    said = convention.items() if isinstance(convention, Mapping) else [("convention", convention)]
    rows |= {str(name).replace("_", " "): str(words) for name, words in said if words}
    return rows


def show_provenance(result: Result) -> None:
    """A list of what `provenance_rows` says, as plain text."""
    rows = "".join(
        f"<dt>{plain(name.replace('_', ' '), longest=60)}</dt><dd>{plain(words, longest=400)}</dd>"
        for name, words in list(provenance_rows(result).items())[:MOST_ROWS]
    )
    st.html(f'<style>{STYLE}</style><dl class="provenance">{rows}</dl>')
