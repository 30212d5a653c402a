"""Cost: what each gⁿConv computes, against its closed form and the bound of Eq. 3.6, and how that grows."""

import altair as alt
import pandas as pd
import streamlit as st

from horinsight.complexity.cost_results import CONVENTIONS, GnConvBound, MacCount, OrderGrowth, SizeGrowth, bound_row
from horinsight.complexity.growth import order_growth, size_growth
from horinsight.figures.complexity_curves import draw_complexity_curves
from horinsight.figures.style import figure_bytes
from horinsight.models.registry import input_size, model_without_weights
from horinsight.report import csv_text
from horinsight.viewer.service import page
from horinsight.viewer.service.costs import counted
from horinsight.viewer.service.page import Chosen

SIDES = (7, 14, 28, 56, 112)
CHART_HEIGHT = 300  # of the bars
AXIS_HEIGHT = 75  # of the axis and its title, which belong to the height
MAX_SIDE = 2048  # pixels
BLUE, ORANGE = "#2f7fb0", "#c2570c"


def bars(bounds: list[GnConvBound]) -> alt.LayerChart:
    """Cost over bound of each gⁿConv."""
    data = pd.DataFrame(
        {
            "block": f"{bound.index} · {bound.name.removesuffix('.gnconv')}",
            "ratio": bound.ratio,
            "label": f"{bound.ratio:.4f}",
            "counted": f"{bound.macs:,}",
            "closed form": f"{bound.closed_form:,}",
            "bound": f"{bound.bound:,.0f}",
            "order": bound.order,
            "C": bound.dim,
            "map": f"{bound.height}x{bound.width}",
            "holds": "yes" if bound.holds else "NO",
        }
        for bound in bounds
    )
    row = max(11, min(26, CHART_HEIGHT // len(data)))
    names = list(data["block"])
    base = alt.Chart(data).encode(
        y=alt.Y("block:N", sort=names, title=None),
        x=alt.X("ratio:Q", title="multiply-accumulates / bound", scale=alt.Scale(domain=[0, 1.03], nice=False)),
        tooltip=["block", "order", "C", "map", "counted", "closed form", "bound", "label", "holds"],
    )
    rule = alt.Chart(pd.DataFrame({"ratio": [1.0]})).mark_rule(strokeDash=[4, 3], color=ORANGE).encode(x="ratio:Q")
    drawn = base.mark_bar(color=BLUE) + base.mark_text(align="right", dx=-4, fontSize=10, color="white").encode(
        text="label:N"
    )
    return (drawn + rule).properties(height=row * len(data) + AXIS_HEIGHT)


def order_chart(growths: list[OrderGrowth]) -> alt.LayerChart:
    """Cost over bound against n."""
    data = pd.DataFrame(
        {"n": int(n), "ratio": float(macs / growth.bound), "C": f"C = {growth.dim}"}
        for growth in growths
        for n, macs in zip(growth.orders, growth.macs, strict=True)
    )
    lines = (
        alt.Chart(data)
        .mark_line(point=True, strokeWidth=1.5)
        .encode(
            x=alt.X("n:O", title="order n", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("ratio:Q", title="MACs / bound", scale=alt.Scale(zero=False, domainMax=1.01)),
            color=alt.Color("C:N", title=None, sort=None, scale=alt.Scale(scheme="viridis")),
            tooltip=["C", "n", alt.Tooltip("ratio", format=".5f")],
        )
    )
    rule = alt.Chart(pd.DataFrame({"ratio": [1.0]})).mark_rule(strokeDash=[4, 3], color=ORANGE).encode(y="ratio:Q")
    return (lines + rule).properties(height=185)


def size_chart(growth: SizeGrowth) -> alt.LayerChart:
    """Multiply-accumulates against the side of the map."""
    curves = {"self-attention": growth.attention, f"g{growth.order}Conv": growth.gnconv, "bound": growth.bound}
    data = pd.DataFrame(
        {"side": int(side), "G MACs": float(value) / 1e9, "what": what}
        for what, values in curves.items()
        for side, value in zip(growth.sides, values, strict=True)
    )
    base = alt.Chart(data).encode(
        x=alt.X("side:O", title="side of the map, positions", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("G MACs:Q", scale=alt.Scale(type="log"), title="G MACs", axis=alt.Axis(grid=False)),
        color=alt.Color("what:N", title=None, scale=alt.Scale(domain=list(curves), range=[ORANGE, BLUE, "#888888"])),
        tooltip=["what", "side", alt.Tooltip("G MACs", format=".4g")],
    )
    lines = base.transform_filter("datum.what != 'bound'").mark_line(point=True, strokeWidth=3)
    bound = base.transform_filter("datum.what == 'bound'").mark_line(strokeWidth=1.5, strokeDash=[4, 3])
    return (lines + bound).properties(height=185)


def checked_bounds(name: str, bounds: list[GnConvBound]) -> None:
    """Which gⁿConvs of a model obey Eq. 3.6."""
    checked = [bound for bound in bounds if bound.applicable]
    if checked:
        st.altair_chart(bars(checked), alt="Cost over bound of each gnConv; the table has the numbers")
        exact = sum(bound.macs == bound.closed_form for bound in checked)
        others = f" The other {len(bounds) - len(checked)} use GF, which the bound is not about." * (checked != bounds)
        st.caption(
            f"{sum(bool(bound.holds) for bound in checked)} of {len(checked)} hold; counted = closed form, as "
            f"integers, for {exact}. Multiply-accumulates with gating products, without scale and biases." + others
        )
    elif bounds:
        st.info("These gⁿConvs use GF (or pooling): Eq. 3.6 is about a K x K depthwise convolution.")
    else:
        page.told("info", f"{name} has no gⁿConv.")


def numbers_table(count: MacCount, bounds: list[GnConvBound]) -> None:
    """Every gⁿConv in numbers, or every kind of operation where there is none; and what was not counted."""
    if bounds:
        st.dataframe(
            pd.DataFrame([bound_row(bound) for bound in bounds]).drop(columns=["applicable"]),
            hide_index=True,
            column_config={
                "ratio": st.column_config.ProgressColumn(min_value=0, max_value=1, format="%.4f"),
                "bound": st.column_config.NumberColumn(format="localized"),
                "macs": st.column_config.NumberColumn(format="localized"),
                "closed_form": st.column_config.NumberColumn(format="localized"),
            },
        )
    else:
        st.dataframe(
            pd.DataFrame({"column": list(count.by_column), "count": list(count.by_column.values())}),
            hide_index=True,
        )
    if count.not_counted:
        page.small("Not counted: " + ", ".join(f"{op} ({calls})" for op, calls in count.not_counted.items()))


def cost_page() -> None:
    """The page."""
    chosen: Chosen = st.session_state["chosen"]
    name = chosen.key.name
    default = input_size(model_without_weights(name))[0]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        side = page.number("Image side, pixels", "side", 32, MAX_SIDE, step=32, width=150, placeholder=str(default))
        with page.explained():
            count, bounds = counted(name, int(side or default))
        for label, value, unit, convention in (
            ("Parameters", count.params / 1e6, "M", "all parameters"),
            ("MACs", count.macs / 1e9, "G", CONVENTIONS["macs"]),
            ("As Table 1 counts", count.macs_published / 1e9, "G", CONVENTIONS["macs_published"]),
            ("FLOPs", count.flops / 1e9, "G", CONVENTIONS["flops"]),
        ):
            st.metric(label, f"{value:.2f} {unit}", help=convention, width="content")
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
    left, right = st.columns([5, 4], gap="medium")
    with left:
        st.markdown("**Eq. 3.6**: cost of each gⁿConv < HWC (2K² + 11/3 C + 2)")
        checked_bounds(name, bounds)
        with st.expander("Numbers"):
            numbers_table(count, bounds)
    with right:
        st.markdown("**A gⁿConv with the order**: towards the bound, never to it")
        st.altair_chart(order_chart(growths), alt="Cost over bound against the order, for each width of the model")
        st.markdown(f"**With the map**, C = {sizes.dim}: linear in the positions, and quadratic")
        st.altair_chart(size_chart(sizes), alt="Multiply-accumulates against the side of the map")
