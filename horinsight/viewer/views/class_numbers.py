"""Numbers of classes by depth: the figure, the table, what is left out, downloads."""

import streamlit as st
from matplotlib.figure import Figure

from horinsight.figures.style import figure_bytes
from horinsight.figures.survey_depths import draw_survey_depths
from horinsight.report import csv_text
from horinsight.results import result_bytes
from horinsight.survey.survey_results import SurveyTable, line_of_table
from horinsight.viewer.components.number_table import show_table
from horinsight.viewer.service import page
from horinsight.viewer.service.gate import GATE
from horinsight.viewer.service.saved_results import fitting


def shown(figure: Figure, words: str) -> None:
    """A figure."""
    with page.explained(), GATE.slot(), fitting(words):
        st.image(figure_bytes(figure, ".png"), width="stretch", alt=words)


def by_depth(table: SurveyTable) -> Figure:
    """The numbers by class and depth; returns their figure."""
    with page.explained(), GATE.slot(), fitting("these classes"):
        figure = draw_survey_depths(table)
    shown(figure, "Numbers of each class by depth, with 95 % intervals over pictures")
    with st.expander("Numbers"):
        show_table(table.to_frame())
    for why, count in list(table.refused.items())[:3]:
        page.small(f"not measured, on {count} picture{'s' * (count != 1)}: {why}")
    for picture, why in list(table.unreadable.items())[:3]:
        page.small(f"left out: {picture}: {why}")
    return figure


def offer(table: SurveyTable, figure: Figure, name: str) -> None:
    """Downloads of the numbers by class and depth."""
    page.downloads(
        name,
        [
            page.png(lambda: figure_bytes(figure, ".png")),
            page.pdf(lambda: figure_bytes(figure, ".pdf")),
            page.csv(lambda: csv_text([line_of_table(line) for line in table.lines])),
            page.json(lambda: result_bytes(table, ".json")),
        ],
    )
