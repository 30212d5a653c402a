"""Charts of what things cost: distances to the bound, parts of a network, growth with the order and with the map."""

from collections.abc import Sequence
from itertools import groupby

import altair as alt
import pandas as pd

from horinsight.complexity.cost_results import GnConvBound, OrderGrowth, SizeGrowth
from horinsight.complexity.parts import MAC_COLUMNS, CostPart

BLUE, ORANGE = "#2f7fb0", "#c2570c"
ROW, AXIS_HEIGHT = 26, 60  # pixels; of the axis and its title, which belong to the height
GROWTH_HEIGHT = 180
KINDS = ("#2f7fb0", "#8c6bb1", "#c2570c", "#7f9a3a")


def distinct_bounds(bounds: Sequence[GnConvBound]) -> list[tuple[GnConvBound, int]]:
    """Each kind of gⁿConv once, in the network's order, with how many blocks are of it."""

    def kind(bound: GnConvBound) -> tuple[object, ...]:
        return bound.order, bound.dim, bound.kernel_size or 0, bound.height, bound.width, bound.macs

    place = {kind(bound): index for index, bound in reversed(list(enumerate(bounds)))}
    groups = [list(group) for _, group in groupby(sorted(bounds, key=kind), key=kind)]
    return sorted(((group[0], len(group)) for group in groups), key=lambda found: place[kind(found[0])])


def bound_rows(bounds: Sequence[GnConvBound]) -> pd.DataFrame:
    """A line per kind of gⁿConv."""
    return pd.DataFrame(
        {
            "kind": f"g{bound.order}Conv, C {bound.dim}, {bound.height}x{bound.width}, x {number}",
            "ratio": bound.ratio,
            "label": f"{100 * (1 - (bound.ratio or 0)):.2f} % below",
            "counted": f"{bound.macs:,}",
            "closed form": f"{bound.closed_form:,}",
            "bound": f"{bound.bound:,.0f}",
            "blocks": number,
            "holds": "yes" if bound.holds else "NO",
            "limit": 1.0,
        }
        for bound, number in distinct_bounds(bounds)
    )


def bound_chart(bounds: Sequence[GnConvBound]) -> alt.LayerChart:
    """How far below the bound each kind of gⁿConv stays, on an axis that ends a little above it."""
    data = bound_rows(bounds)
    least = min(data["ratio"])
    low, high = least - 0.9 * (1.0001 - least), 1 + 0.04 * (1.0001 - least)
    base = alt.Chart(data).encode(
        y=alt.Y("kind:N", sort=list(data["kind"]), title=None, axis=alt.Axis(labelLimit=220, labelFlush=False)),
        tooltip=["kind", "blocks", "counted", "closed form", "bound", "label", "holds"],
    )
    x = alt.X(
        "ratio:Q",
        title="MACs / bound, which is at the right",
        scale=alt.Scale(domain=[low, high], nice=False, zero=False),
        axis=alt.Axis(tickCount=6, titlePadding=6),
    )
    gaps = base.mark_bar(color=BLUE, opacity=0.25, height=10).encode(x=x, x2="limit:Q")
    points = base.mark_point(filled=True, size=90, color=BLUE, opacity=1).encode(x=x)
    words = base.mark_text(align="right", dx=-9, fontSize=11).encode(x=x, text="label:N", color=alt.value(BLUE))
    rule = alt.Chart(pd.DataFrame({"ratio": [1.0]})).mark_rule(strokeDash=[4, 3], color=ORANGE, size=2).encode(x=x)
    return (gaps + points + words + rule).properties(height=ROW * len(data) + AXIS_HEIGHT)


def parts_chart(parts: Sequence[CostPart]) -> alt.LayerChart:
    """What each part costs in all, by kind of operation."""
    whole = sum(part.total for part in parts)
    rows = [
        {
            "part": part.label,
            "kind": kind,
            "G MACs": value * len(part.names) / 1e9,
            "each": f"{part.macs:,}",
            "place": MAC_COLUMNS.index(kind),
        }
        for part in parts
        for kind, value in part.by_column.items()
    ]
    names = [part.label for part in parts]
    totals = pd.DataFrame(
        {"part": part.label, "G MACs": part.total / 1e9, "label": f"{part.total / whole:.1%}"} for part in parts
    )
    x = alt.X(
        "G MACs:Q",
        title="G MACs",
        scale=alt.Scale(domainMax=1.12 * max(totals["G MACs"])),
        axis=alt.Axis(titlePadding=6),
    )
    y = alt.Y("part:N", sort=names, title=None, axis=alt.Axis(labelLimit=220, labelOverlap=False, labelFlush=False))
    bars = (
        alt.Chart(pd.DataFrame(rows))
        .mark_bar()
        .encode(
            x=x,
            y=y,
            order="place:Q",
            color=alt.Color(
                "kind:N",
                title=None,
                scale=alt.Scale(domain=list(MAC_COLUMNS), range=list(KINDS)),
                legend=alt.Legend(orient="top", columns=2),  # a telephone has no room for four
            ),
            tooltip=["part", "kind", alt.Tooltip("G MACs", format=".4g"), "each"],
        )
    )
    words = alt.Chart(totals).mark_text(align="left", dx=4, fontSize=11, color="#7a7f85").encode(x=x, y=y, text="label")
    return (bars + words).properties(height=max(190, 24 * len(names) + AXIS_HEIGHT + 60))


def order_chart(growths: Sequence[OrderGrowth]) -> alt.LayerChart:
    """Cost over bound against n."""
    data = pd.DataFrame(
        {"n": int(n), "ratio": float(macs / growth.bound), "C": str(growth.dim)}
        for growth in growths
        for n, macs in zip(growth.orders, growth.macs, strict=True)
    )
    lines = (
        alt.Chart(data)
        .mark_line(point=True, strokeWidth=1.5)
        .encode(
            x=alt.X("n:O", title="order n", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("ratio:Q", title="MACs / bound", scale=alt.Scale(zero=False, domainMax=1.01)),
            color=alt.Color(
                "C:N",
                title="C",
                sort=None,
                scale=alt.Scale(scheme=alt.SchemeParams("viridis", extent=[0.3, 0.75])),  # seen on white and on black
                legend=alt.Legend(symbolSize=40),
            ),
            tooltip=["C", "n", alt.Tooltip("ratio", format=".5f")],
        )
    )
    rule = alt.Chart(pd.DataFrame({"ratio": [1.0]})).mark_rule(strokeDash=[4, 3], color=ORANGE).encode(y="ratio:Q")
    return (lines + rule).properties(height=GROWTH_HEIGHT)


def size_chart(growth: SizeGrowth) -> alt.LayerChart:
    """Multiply-accumulates against the side of the map."""
    curves = {"attention": growth.attention, f"g{growth.order}Conv": growth.gnconv, "bound": growth.bound}
    data = pd.DataFrame(
        {"side": int(side), "G MACs": float(value) / 1e9, "what": what}
        for what, values in curves.items()
        for side, value in zip(growth.sides, values, strict=True)
    )
    base = alt.Chart(data).encode(
        x=alt.X("side:O", title="side of the map, positions", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("G MACs:Q", scale=alt.Scale(type="log"), title="G MACs", axis=alt.Axis(grid=False)),
        color=alt.Color(
            "what:N",
            title=None,
            scale=alt.Scale(domain=list(curves), range=[ORANGE, BLUE, "#888888"]),
            legend=alt.Legend(symbolSize=40),
        ),
        tooltip=["what", "side", alt.Tooltip("G MACs", format=".4g")],
    )
    lines = base.transform_filter("datum.what != 'bound'").mark_line(point=True, strokeWidth=3)
    bound = base.transform_filter("datum.what == 'bound'").mark_line(strokeWidth=1.5, strokeDash=[4, 3])
    return (lines + bound).properties(height=GROWTH_HEIGHT)
