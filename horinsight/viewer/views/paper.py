"""The paper: its tables of costs and its figures, ours beside what is printed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import streamlit as st
from matplotlib.figure import Figure

from horinsight.complexity.counted_tables import counted_table
from horinsight.figures.interaction_spectra import draw_interaction_spectra
from horinsight.figures.mixing_maps import draw_mixing_maps
from horinsight.figures.style import figure_bytes
from horinsight.figures.tradeoffs import draw_tradeoffs
from horinsight.mixing.mixing_results import map_rows
from horinsight.report import Column, Report, csv_text, shown_order
from horinsight.results import result_bytes
from horinsight.viewer.components.report_table import show_report
from horinsight.viewer.service import page
from horinsight.viewer.service.gate import GATE
from horinsight.viewer.service.page import Chosen
from horinsight.viewer.service.paper_counts import Step, figure_4, rungs, table_rows, tradeoffs
from horinsight.viewer.service.paper_latency import (
    Points,
    measure_latencies,
    server_machine,
    unmeasured,
    with_latencies,
)
from horinsight.viewer.service.stopping import ShownProgress

NOT_REPRODUCED = "not "
IN_WORDS = {"M": "M params", "G": "G FLOPs"}  # a page has more room than a terminal


@contextmanager
def progress() -> Iterator[Step]:
    """A bar while something is computed, and nothing after it."""
    bar = st.empty()

    def step(share: float, words: str) -> None:
        bar.progress(share, text=words)

    yield step
    bar.empty()


def shown(figure: Figure, words: str) -> None:
    """A figure."""
    with page.explained(), GATE.slot():
        picture = figure_bytes(figure, ".png")
    st.image(picture, width="stretch", alt=words)


def figure_files(figure: Figure) -> list[page.Download]:
    """A figure's downloads."""
    return [page.png(lambda: figure_bytes(figure, ".png")), page.pdf(lambda: figure_bytes(figure, ".pdf"))]


def table_part(table: int) -> None:
    """A table, counted again."""
    with page.explained(), progress() as step:
        report = counted_table(table, table_rows(table, step))
    with st.container(horizontal=True, vertical_alignment="center"):
        page.heading(report.title)
        page.downloads(f"table_{table}", [page.csv(report.csv), page.json(lambda: report.json().encode())])
    columns = [replace(column, heading=IN_WORDS.get(column.heading, column.heading)) for column in report.columns]
    show_report(replace(report, columns=columns), marked=NOT_REPRODUCED)


def figure_1_part() -> None:
    """Orders of spatial operators."""
    with page.explained(), progress() as step:
        measured = rungs(step)
    rows = [
        {
            "operator": one.name,
            "stated": one.stated,
            "order": shown_order(one.explicit.location_order, len(one.explicit.effects) - 1),
            "degree": shown_order(one.explicit.degree_order, len(one.explicit.effects) - 1),
            "functional": shown_order(one.functional.location_order, len(one.functional.effects) - 1),
        }
        for one in measured
    ]
    report = Report(
        title="Figure 1: how many neighbours an operator lets act jointly with a position",
        columns=[Column(name, name) for name in rows[0]],
        rows=rows,
        notes=[
            "stated: by theory; order, degree: measured with tangents for non-linearities; functional: as it is, open "
            "(≥) where a non-linearity gives every order.",
            "Random weights on a 7x7 map in float64, one point, four chains: orders are those of the operator, not of "
            "its weights. experiments/order_ladder.py asks more.",
        ],
    )
    figure = draw_interaction_spectra({one.name: one.explicit for one in measured})
    with st.container(horizontal=True, vertical_alignment="center"):
        page.heading(report.title)
        page.downloads("figure_1", [*figure_files(figure), page.csv(report.csv)])
    shown(figure, "Interaction effects of each operator by order; exact zeros beyond its order")
    show_report(report)


def latency_part(families: Points) -> Points:
    """The same with latencies, where somebody asked for them."""
    todo = unmeasured(families)
    if not todo:
        return with_latencies(families)
    place = st.empty()
    if st.session_state.pop("timing_models", False):
        place.button("Stop", icon=":material/stop:", key="stop_timing")  # any press ends the run, as everywhere
        shown_progress = ShownProgress(st.progress(0.0).progress, len(todo))
        with page.explained(), shown_progress.watching():
            measure_latencies(todo, partial(_timing, shown_progress, len(todo)))
        st.rerun()
    elif place.button("Measure the latency here, about a minute", icon=":material/play_arrow:", key="time_models"):
        st.session_state["timing_models"] = True
        st.rerun()
    return with_latencies(families)


def _timing(shown_progress: ShownProgress, parts: int, share: float, words: str) -> None:
    shown_progress.done = round(share * parts)
    shown_progress.start(words)


def figure_3_part() -> None:
    """Accuracy against cost."""
    with page.explained(), progress() as step:
        families = tradeoffs(step)
    families = latency_part(families)
    timed = not unmeasured(families)
    rows = [
        {
            "model": printed.label,
            "top1": printed.top1,
            "params_m": point.params_m,
            "printed_params_m": printed.params_m,
            "macs_g": point.macs_g,
            "printed_flops_g": printed.flops_g,
            **({"latency_ms": point.latency_ms} if timed else {}),
        }
        for points in families.values()
        for printed, point in points
    ]
    report = Report(
        title="Figure 3: accuracy against parameters, multiply-accumulates and latency",
        columns=[
            Column("model", "model"),
            Column("top-1, printed", "top1"),
            Column("M params", lambda row: f"{row['params_m']:.1f}"),
            Column("paper", "printed_params_m"),
            Column("G MACs", lambda row: f"{row['macs_g']:.2f}"),
            Column("paper", "printed_flops_g"),
            *([Column("ms", lambda row: f"{row['latency_ms']:.0f}")] if timed else []),
        ],
        rows=rows,
        notes=[
            "Accuracies are the paper's: nothing is trained here. Its FLOPs of HorNets add norms to MACs (Table 1).",
            "Latency is a machine's: the paper draws it for an RTX 3090 with batch 128 and prints no numbers; "
            "experiments/figure3_tradeoffs.py measures it on a GPU, all models in turn.",
        ],
    )
    drawn = {family: [point for _, point in points] for family, points in families.items()}
    figure = draw_tradeoffs(drawn, machine=server_machine())
    with st.container(horizontal=True, vertical_alignment="center"):
        page.heading(report.title)
        page.downloads("figure_3", [*figure_files(figure), page.csv(report.csv)])
    words = "parameters, multiply-accumulates and latency" if timed else "parameters and multiply-accumulates"
    shown(figure, f"Accuracy against {words}, a line for each family")
    show_report(report)


def figure_4_part() -> None:
    """Where positions look, of the model in the sidebar."""
    chosen: Chosen = st.session_state["chosen"]
    page.banner(page.model_or_stop(chosen.key).provenance)
    with page.explained():
        maps = figure_4(chosen.key)
    figure = draw_mixing_maps(maps)
    with st.container(horizontal=True, vertical_alignment="center"):
        page.heading(f"Figure 4 of {chosen.key.name}: where a position looks, in six blocks")
        files = [page.csv(lambda: csv_text(list(map_rows(maps)))), page.npz(lambda: result_bytes(maps, ".npz"))]
        page.downloads(f"figure_4_{chosen.key.name}", [*figure_files(figure), *files])
    shown(figure, "Mixing weights of random positions over their pictures, in six blocks")
    page.small(
        "Of the model in the sidebar. The paper's is hornet_s_iso with its weights, which are given at start "
        "(--checkpoints); hornet_digits_iso has its layout and comes trained."
    )


PARTS: dict[str, Callable[[], None]] = {
    **{f"Table {table}": lambda table=table: table_part(table) for table in (1, 2, 3, 6)},  # type: ignore[misc]
    "Figure 1": figure_1_part,
    "Figure 3": figure_3_part,
    "Figure 4": figure_4_part,
}


def paper_page() -> None:
    """The page."""
    part = page.segments("The paper's, ours beside the printed", "part", list(PARTS), "Table 1")
    page.settled()
    PARTS[part]()
