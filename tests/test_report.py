import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from horinsight.report import Column, Report, csv_text, json_text, shown_order, spelled

ROWS = [
    {"name": "stages.0", "order": 2, "effect": 0.25, "share": None},
    {"name": "stages.1", "order": None, "effect": float("nan"), "share": 0.5},
]
REPORT = Report(
    title="Orders of Zoë's model [bold]",
    columns=[
        Column("block", "name"),
        Column("order ± σ", lambda row: shown_order(row["order"], 3)),
        Column("effect", "effect"),
        Column("share", "share"),
    ],
    rows=ROWS,
    notes=["≥: open; Σ over positions²"],
    head={"model": "café", "n": 2},
    rows_key="blocks",
)


def test_the_table_has_every_cell_and_aligns_numbers_to_the_right():
    title, _, header, _, *rows, _, note = REPORT.text().splitlines()
    assert title == "Orders of Zoë's model [bold]", "no markup"
    assert [row.split() for row in rows] == [["stages.0", "2", "0.25", "·"], ["stages.1", "≥3", "·", "0.5"]]
    for heading, cells in (("order ± σ", ("2", "≥3")), ("effect", ("0.25", "·"))):
        end = header.index(heading) + len(heading)
        assert tuple(row[:end].split()[-1] for row in rows) == cells
    assert note == "≥: open; Σ over positions²"


def test_json_has_the_head_then_the_rows_without_nan():
    content = json.loads(REPORT.json())
    assert list(content) == ["model", "n", "blocks"]
    assert content["blocks"][1] == {"name": "stages.1", "order": None, "effect": None, "share": 0.5}
    assert "café" in REPORT.json()
    escaped = REPORT.json(encoding="ascii")
    assert escaped.isascii()
    assert json.loads(escaped) == content
    alone = Report("t", [], ROWS, head={"all": 1}, rows_key=None)
    assert json.loads(alone.json()) == {"all": 1}


def test_csv_has_the_rows_or_lines_of_its_own():
    rows = list(csv.DictReader(io.StringIO(REPORT.csv())))
    assert rows[1] == {"name": "stages.1", "order": "", "effect": "", "share": "0.5"}
    other = Report("t", [], ROWS, lines=[{"k": 1, "of": "a,b"}])
    assert list(csv.DictReader(io.StringIO(other.csv()))) == [{"k": "1", "of": "a,b"}]
    assert csv_text([]) == "\n"


@pytest.mark.parametrize("fmt", ["table", "json", "csv"])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "cp1252", "ascii", "cp437", "koi8-r", "shift_jis"])
def test_every_format_in_every_encoding(fmt, encoding):
    text = REPORT.rendered(fmt, encoding=encoding)
    assert text.encode(encoding).decode(encoding) == text
    assert text.count("\n") == REPORT.rendered(fmt).count("\n")


def test_only_what_an_encoding_lacks_is_spelled():
    text = "≥2 · 0.5 ± 0.1, k² Σ é π ─ 漢 \udce9"
    assert spelled(text, "utf-8") == text.replace("\udce9", "\\xe9")
    assert spelled(text, "latin-1") == ">=2 · 0.5 ± 0.1, k² sum  é pi - \\u6f22 \\xe9"
    assert spelled(text, "ascii") == ">=2 . 0.5 +- 0.1, k^2 sum  e pi - \\u6f22 \\xe9"
    assert spelled(text, "no such encoding") == spelled(text, "ascii")


@given(st.text(st.characters()), st.sampled_from(["ascii", "latin-1", "cp1252", "utf-8"]))
def test_any_text_can_be_printed(text, encoding):
    printed = spelled(text, encoding)
    printed.encode(encoding)
    assert spelled(printed, encoding) == printed
    ours = Report.of_cells("t", ["heading"], [[text.replace("\n", " ")]], [])
    ours.rendered("table", encoding=encoding).encode(encoding)


@given(st.text(st.characters()))
def test_json_escapes_and_loses_nothing(text):
    assert json.loads(json_text({"name": text}, encoding="ascii")) == {"name": text}


def test_an_open_order_is_worded_once():
    assert (shown_order(0, 3), shown_order(None, 3)) == ("0", "≥3")


def test_cells_that_are_laid_out_already():
    report = Report.of_cells("t", ["a", "b"], [["x", "1"], ["y", "·"]], ["n"])
    assert report.rows == [{"a": "x", "b": "1"}, {"a": "y", "b": "·"}]
    with pytest.raises(ValueError, match="shorter"):
        Report.of_cells("t", ["a", "b"], [["x"]])
