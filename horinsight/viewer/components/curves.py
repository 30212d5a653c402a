"""Insertion and deletion curves of maps of one picture, beside those of maps that never see the model."""

import altair as alt
import pandas as pd
import streamlit as st

from horinsight.attribution.faithfulness_results import Faithfulness
from horinsight.attribution.faithfulness_table import USELESS
from horinsight.viewer.service.plain_text import heading, plain, small

METHOD_COLOURS = ("#2f7fb0", "#2f8f5b", "#9a63b5")  # seen on white and on black
CONTROL_COLOURS = ("#80868c", "#80868c", "#b07a2c")
CURVE_HEIGHT = 170


def curve_rows(curves: Faithfulness) -> pd.DataFrame:
    """A line per map, kind of curve and share of the cells."""
    rows = []
    for place, name in enumerate(curves.maps):
        area = float(curves.areas[place, 0, 0])
        label = f"{name.replace('_', ' ')} {area:+.2f}"
        for kind, values in (("insertion", curves.insertion), ("deletion", curves.deletion)):
            for share, score in zip(curves.shares, values[place, 0, 0], strict=True):
                control = name in curves.controls
                rows.append({"map": label, "kind": kind, "share": share, "score": score, "control": control})
    return pd.DataFrame(rows)


def legend(labels: list[str], colours: list[str], dashes: list[str]) -> None:
    """A line of samples with the areas; the charts then have their whole width."""
    samples = "".join(
        f'<span style="white-space:nowrap"><span aria-hidden="true" style="display:inline-block;width:22px;'
        f'border-top:2px {dash} {colour};vertical-align:middle;margin-right:5px"></span>{plain(label)}</span>'
        for label, colour, dash in zip(labels, colours, dashes, strict=True)
    )
    st.html(
        '<div style="font-size:.8rem;display:flex;flex-wrap:wrap;gap:2px 16px">'
        f"<b>insertion − deletion</b>{samples}</div>"
    )


def show_curves(curves: Faithfulness) -> None:
    """Both curves, with the areas in the legend, and what one picture is worth."""
    data = curve_rows(curves)
    labels = list(dict.fromkeys(data["map"]))
    methods = len(curves.methods)
    controls = len(labels) - methods
    colours = [*METHOD_COLOURS[:methods], *CONTROL_COLOURS[:controls]]
    dashes = [[1, 0]] * methods + [[6, 2], [2, 2], [1, 3]][:controls]
    legend(labels, colours, ["solid"] * methods + ["dashed", "dotted", "dotted"][:controls])
    for column, kind, words in zip(
        st.columns(2, gap="small"),
        ("insertion", "deletion"),
        ("cells shown, strongest first", "cells hidden, strongest first"),
        strict=True,
    ):
        colour = alt.Color("map:N", sort=labels, legend=None, scale=alt.Scale(domain=labels, range=colours))
        dash = alt.StrokeDash("map:N", sort=labels, legend=None, scale=alt.Scale(domain=labels, range=dashes))
        chart = (
            alt.Chart(data[data["kind"] == kind])
            .mark_line()
            .encode(
                x=alt.X("share:Q", title=words, axis=alt.Axis(format="%", titlePadding=6)),
                y=alt.Y("score:Q", title="probability", scale=alt.Scale(domain=[0, 1])),
                color=colour,
                strokeDash=dash,
                tooltip=["map", alt.Tooltip("share", format=".0%"), alt.Tooltip("score", format=".3f")],
            )
            .properties(height=CURVE_HEIGHT)
        )
        with column:
            heading(kind.capitalize())
            st.altair_chart(chart, alt=f"{kind} curves; the areas of insertion - deletion: {', '.join(labels)}")
    name = curves.baselines[0]
    left = curves.left(name)
    warning = " More than half: these curves say little." if left > USELESS else ""
    small(
        f"Dashed and dotted: maps that never see the model. The baseline {name} leaves {left:.0%} of the "
        f"probability.{warning} One picture proves nothing, and each method does best under the baseline that "
        "it compares with: experiments/faithfulness.py asks 200 pictures under four."
    )
