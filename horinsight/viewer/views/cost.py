"""Cost: how far each gⁿConv stays below Eq. 3.6, or what a network is spent on; Table 1 beside it; how cost grows."""

import pandas as pd
import streamlit as st

from horinsight.complexity.cost_results import CONVENTIONS, GnConvBound, MacCount, bound_row
from horinsight.complexity.growth import order_growth, size_growth
from horinsight.complexity.parts import CostPart
from horinsight.figures.complexity_curves import draw_complexity_curves
from horinsight.figures.style import figure_bytes
from horinsight.models.registry import input_size, model_without_weights
from horinsight.report import csv_text
from horinsight.viewer.components.cost_charts import bound_chart, order_chart, parts_chart, size_chart
from horinsight.viewer.components.printed_table import printed_table
from horinsight.viewer.service import page
from horinsight.viewer.service.costs import ROW_SECONDS, count_row, counted, first_table, known_row
from horinsight.viewer.service.page import Chosen

SIDES = (7, 14, 28, 56, 112)
MAX_SIDE = 2048  # pixels


def checked_bounds(bounds: list[GnConvBound]) -> None:
    """Which gⁿConvs of a model obey Eq. 3.6, a row for each kind."""
    checked = [bound for bound in bounds if bound.applicable]
    st.markdown("**Eq. 3.6**: each gⁿConv stays below HWC (2K² + 11/3 C + 2), and this close to it")
    st.altair_chart(bound_chart(checked), alt="Cost over bound of each kind of gnConv; the table has the numbers")
    exact = sum(bound.macs == bound.closed_form for bound in checked)
    others = f" The other {len(bounds) - len(checked)} use GF, which the bound is not about." * (checked != bounds)
    st.caption(
        f"{sum(bool(bound.holds) for bound in checked)} of {len(checked)} hold; counted = closed form, as "
        f"integers, for {exact}. MACs with gating products, without scale and biases." + others
    )


def spent(name: str, parts: list[CostPart], bounds: list[GnConvBound]) -> None:
    """What a model without a gⁿConv that Eq. 3.6 is about is spent on."""
    if bounds:
        page.told("info", "These gⁿConvs use GF (or pooling): Eq. 3.6 is about a K x K depthwise convolution.")
    else:
        page.small(f"{name} has no gⁿConv, and no bound of the paper: this is what it is spent on.")
    st.markdown("**Parts of the network**, equal blocks together")
    st.altair_chart(parts_chart(parts), alt="Multiply-accumulates of each part of the network, by kind of operation")


def numbers_table(count: MacCount, bounds: list[GnConvBound], parts: list[CostPart]) -> None:
    """Every gⁿConv in numbers, or every part where there is none; and what was not counted."""
    if bounds:
        st.dataframe(
            pd.DataFrame([bound_row(bound) for bound in bounds]).drop(columns=["applicable"]),
            hide_index=True,
            column_config={
                "ratio": st.column_config.NumberColumn(format="%.4f"),
                "bound": st.column_config.NumberColumn(format="localized"),
                "macs": st.column_config.NumberColumn(format="localized"),
                "closed_form": st.column_config.NumberColumn(format="localized"),
            },
        )
    st.dataframe(
        pd.DataFrame(
            {"part": part.label, "MACs each": part.macs, "MACs": part.total, **part.by_column} for part in parts
        ),
        hide_index=True,
    )
    page.small(
        "The whole network, by kind of operation: " + ", ".join(f"{key} {n:,}" for key, n in count.by_column.items())
    )
    if count.not_counted:
        page.small("Not counted: " + ", ".join(f"{op} ({calls})" for op, calls in count.not_counted.items()))


def first_table_beside(name: str) -> None:
    """Table 1 as printed, with our counts of the chosen model and of whatever was counted before."""
    rows = first_table()
    with page.explained():
        for row in rows:
            if row.model == name:
                count_row(row)
    place = st.empty()
    missing = [row for row in rows if known_row(row) is None]

    def show() -> None:
        with place.container():
            st.markdown("**Table 1** of the paper, as printed and as counted here")
            printed_table([(row, known_row(row)) for row in rows], name)

    show()
    label = f"Count the other {len(missing)}, about {ROW_SECONDS * len(missing):.0f} s"
    if missing and st.button(label, key="count_table", icon=":material/play_arrow:"):
        page.settled()
        bar = st.progress(0.0)
        for done, row in enumerate(missing):
            bar.progress(done / len(missing), text=f"counting row {done + 1:d} of {len(missing):d}")
            with page.explained():
                count_row(row)
            show()
        bar.empty()


def totals(count: MacCount) -> None:
    """The numbers of the whole model."""
    for label, value, unit, convention in (
        ("Parameters", count.params / 1e6, "M", "all parameters"),
        ("MACs", count.macs / 1e9, "G", CONVENTIONS["macs"]),
        ("As Table 1 counts", count.macs_published / 1e9, "G", CONVENTIONS["macs_published"]),
        ("FLOPs", count.flops / 1e9, "G", CONVENTIONS["flops"]),
    ):
        st.metric(label, f"{value:.2f} {unit}", help=convention, width="content")


def cost_page() -> None:
    """The page."""
    chosen: Chosen = st.session_state["chosen"]
    name = chosen.key.name
    default = input_size(model_without_weights(name))[0]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        side = page.number("Image side, pixels", "side", 32, MAX_SIDE, step=32, width=150, placeholder=str(default))
        with page.explained():
            count, bounds, parts = counted(name, int(side or default))
        totals(count)
        checked = [bound for bound in bounds if bound.applicable]
        dims = sorted({bound.dim for bound in bounds}) or [64, 384]
        kernel = next((bound.kernel_size for bound in checked if bound.kernel_size), 7)
        order = max((bound.order for bound in bounds), default=5)
        growths = [order_growth(dim, kernel_size=kernel, max_order=8) for dim in dims]
        sizes = size_growth(dims[-1], order, sides=SIDES, kernel_size=kernel)
        page.downloads(
            f"cost_{name}_{int(side or default)}",
            [
                page.png(lambda: figure_bytes(draw_complexity_curves(growths, sizes), ".png")),
                page.pdf(lambda: figure_bytes(draw_complexity_curves(growths, sizes), ".pdf")),
                page.csv(
                    lambda: csv_text([{"model": name, **bound_row(bound)} for bound in bounds] or [count.by_column])
                ),
            ],
        )
    with st.container(key="cost_sides"):
        left, right = st.columns([6, 5], gap="medium")
    with left:
        if checked:
            checked_bounds(bounds)
            by_order, by_size = st.columns(2, gap="small")
            with by_order:
                st.markdown("**With the order**: never to the bound")
                st.altair_chart(order_chart(growths), alt="Cost over bound against the order, for each width")
            with by_size:
                st.markdown(f"**With the map**, C = {sizes.dim}")
                st.altair_chart(size_chart(sizes), alt="Multiply-accumulates against the side of the map")
        else:
            spent(name, parts, bounds)
        with st.expander("Numbers"):
            numbers_table(count, bounds, parts)
    with right:
        first_table_beside(name)
