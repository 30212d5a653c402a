"""The page of the paper: our counts beside the printed digits, and its figures, as the package has them."""

from dataclasses import replace

import pytest
from streamlit.testing.v1 import AppTest
from test_service import said, told, turn_to, visit

import horinsight
from horinsight.cancellation import watched_by
from horinsight.complexity.counted_tables import counted_table
from horinsight.complexity.printed_tables import printed_rows
from horinsight.interaction.order_ladder import ladder
from horinsight.viewer.service import paper_counts, paper_latency
from horinsight.viewer.service.model_pool import ModelKey
from horinsight.viewer.service.paper_counts import FAMILIES, figure_4, rungs, table_rows, tradeoffs
from horinsight.viewer.service.paper_latency import Points
from horinsight.viewer.views import paper as paper_views


def part(name: str, **address: str) -> AppTest:
    at = turn_to(visit(part=name, **address), "The paper").run(timeout=120)
    assert not at.exception, [one.value for one in at.exception]
    assert not told(at, "error")
    return at


@pytest.fixture
def few_rows(monkeypatch) -> None:
    """Table 6 without most of its rows, and nothing counted yet."""
    labels = ("g1111", "g2222", "hornet_s_iso")
    printed = [row for row in printed_rows(6) if row.label in labels]
    monkeypatch.setattr(paper_counts, "chosen_rows", lambda table, model: printed)
    monkeypatch.setattr(paper_counts, "_ROWS", paper_counts.Kept(400))


def test_a_table_is_counted_once_and_shown_with_both_numbers(few_rows):
    steps: list[float] = []
    rows = table_rows(6, lambda share, words: steps.append(share))
    assert steps == [0.0, pytest.approx(1 / 3), pytest.approx(2 / 3)]
    assert rows[0] == horinsight.table_counts(6, model="g1111")[0]
    table_rows(6, lambda share, words: pytest.fail("counted again"))
    at = part("Table 6")
    report = counted_table(6, rows)
    shown = at.dataframe[0].value
    assert shown.shape == (len(report.rows), len(report.columns))
    for place, column in enumerate(report.columns):
        assert shown.iloc[:, place].tolist() == [column.text(row) for row in report.rows]
    assert report.title in said(at)
    assert [cell for cell in shown.iloc[:, -1] if cell.startswith("not ")], "what is not reproduced is shown"


def test_a_visitor_who_leaves_ends_the_counting_between_two_rows(few_rows):
    class VisitorLeftError(Exception):
        pass

    def step(share: float, words: str) -> None:
        if share > 0:
            raise VisitorLeftError

    with pytest.raises(VisitorLeftError):
        table_rows(6, step)
    with paper_counts.GATE.slot(), paper_counts.GATE.slot():
        pass
    done: list[float] = []
    table_rows(6, lambda share, words: done.append(share))
    assert done[0] > 0, "what was counted is kept"


def test_figure_1_measures_the_orders_that_theory_states(monkeypatch):
    few = [rung for rung in ladder() if rung.name in ("convolution 7x7", "self-attention", "g3Conv 7x7")]
    monkeypatch.setattr(paper_counts, "ladder", lambda: few)
    found = rungs(lambda share, words: None)
    assert [(one.name, one.explicit.location_order) for one in found] == [
        ("convolution 7x7", 0), ("self-attention", 2), ("g3Conv 7x7", 3),
    ]  # fmt: skip
    at = part("Figure 1")
    assert at.dataframe[0].value["order"].tolist() == ["0", "2", "3"]
    assert at.get("image")


def test_figure_3_has_the_paper_s_nine_models():
    families = tradeoffs(lambda share, words: None)
    assert {name: len(points) for name, points in families.items()} == dict.fromkeys(FAMILIES, 3)
    for points in families.values():
        for printed, point in points:
            assert round(point.params_m) == pytest.approx(printed.params_m, abs=1)
            assert point.top1 == printed.top1
    at = part("Figure 3")
    assert len(at.dataframe[0].value) == 9


@pytest.fixture
def one_small_family(monkeypatch) -> Points:
    """Figure 3 with one model of ours instead of nine large ones, which nobody has timed."""
    (row, point), *_ = tradeoffs(lambda share, words: None)["Swin"]
    families = {"Swin": [(replace(row, model="hornet_test_iso"), point)]}
    monkeypatch.setattr(paper_views, "tradeoffs", lambda step: families)
    monkeypatch.setattr(paper_latency, "LATENCIES", paper_counts.Kept(4))
    return families


def test_latency_is_measured_when_asked(one_small_family):
    at = part("Figure 3")
    assert "ms" not in at.dataframe[0].value
    next(one for one in at.button if one.key == "time_models").click().run(timeout=60)
    assert not at.exception
    assert not told(at, "error")
    low, middle, high = paper_latency.LATENCIES.get("hornet_test_iso")
    assert 0 < low <= middle <= high < 60_000
    assert at.dataframe[0].value["ms"].tolist() == [f"{middle:.0f}"]
    (_, point) = paper_latency.with_latencies(one_small_family)["Swin"][0]
    figure = horinsight.draw_tradeoffs({"Swin": [point]}, machine=paper_latency.server_machine())
    assert [axes.get_xlabel() for axes in figure.axes][2] == "latency (ms)"
    assert not [one for one in at.button if one.key == "time_models"], "once for everybody"


def test_latency_stops_between_two_passes_and_within_the_memory(one_small_family, monkeypatch):
    class StoppedError(Exception):
        pass

    def watch(share: float | None) -> None:
        raise StoppedError

    names = paper_latency.unmeasured(one_small_family)
    with pytest.raises(StoppedError), watched_by(watch):
        paper_latency.measure_latencies(names, lambda share, words: None)
    monkeypatch.setattr(paper_latency, "memory", lambda: 0.1)
    with pytest.raises(ValueError, match=r"Timing hornet_test_iso takes .* are free"):
        paper_latency.measure_latencies(names, lambda share, words: None)
    assert paper_latency.unmeasured(one_small_family) == names
    with paper_counts.GATE.long_slot(), paper_counts.GATE.slot():
        pass


def test_figure_4_is_that_of_the_command_line(run, tmp_path):
    assert run("figure4", "--model", "hornet_digits_iso", "--output", tmp_path / "a.png")[0] == 0
    expected = horinsight.load_result(horinsight.QueryMaps, tmp_path / "a.npz")
    found = figure_4(ModelKey("hornet_digits_iso"))
    assert list(found.maps) == list(expected.maps)
    for name, values in found.maps.items():
        assert abs(values - expected.maps[name]).max() <= 1e-5 * abs(values).max(), name
    assert part("Figure 4").get("image")
