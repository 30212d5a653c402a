import csv
import io
import json

import pytest

from horinsight.complexity import counted_tables
from horinsight.complexity.cost_results import TABLE_CONVENTIONS, TableRowCount
from horinsight.complexity.counted_tables import counted_table
from horinsight.complexity.printed_tables import printed_rows

KEYS = {
    "model", "params", "macs", "macs_counted", "printed_params_m", "printed_flops_g", "reproduced",
}  # fmt: skip


def test_json_is_the_contract(run, tmp_path):
    output = tmp_path / "g.json"
    status, text, error = run("flops", "--table", 6, "--model", "g1111", "--output", output)
    assert (status, text) == (0, "")
    assert "[1/1] g1111" in error
    content = json.loads(output.read_text())
    assert content["table"] == 6
    assert content["convention"] == {"macs": TABLE_CONVENTIONS["macs"]}
    (row,) = content["rows"]
    assert row.keys() >= KEYS
    assert (row["table"], row["label"], row["image_size"]) == ("6a", "g1111", 224)
    assert (row["printed_params_m"], row["printed_flops_g"], row["reproduced"]) == (28, 4.3, False)
    assert row["macs"] == row["macs_counted"] == 4_073_679_360


def test_rows_beside_the_paper(run):
    status, table, _ = run("flops", "--table", 3, "--model", "resnet50")
    assert status == 0
    cells = [line.split() for line in table.splitlines() if line.strip().startswith(("UperNet ", "Mask "))]
    assert ["UperNet", "resnet50", "FPN", "66.50", "66", "947.3d", "947", "yes"] in cells
    assert ["Mask", "resnet50", "Hor", "7x7", "43.03", "43", "231.2d", "226", "not", "G"] in cells
    assert "Table 3: 2 of 6 rows reproduced" in table
    assert "both numbers are shown" in table
    _, text, _ = run("flops", "--table", 1, "--model", "hornet_tiny_gf", "--fft", "exact", "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(text))
    assert row.keys() >= KEYS
    assert (row["model"], row["printed_flops_g"], row["reproduced"]) == ("hornet_tiny_gf", "3.9", "True")


@pytest.mark.parametrize("table", [1, 2, 3, 6])
def test_fits_a_terminal_of_80_columns(table, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    counts = [
        TableRowCount(
            **{name: value for name, value in vars(row).items() if name not in ("params_m", "flops_g")},
            params=10**6 * (row.params_m or 24),
            macs=0,
            macs_counted=round(row.flops_g * 1.01e9),
            printed_params_m=row.params_m,
            printed_flops_g=row.flops_g,
            params_reproduced=True,
            flops_reproduced=False,
        )
        for row in printed_rows(table)
    ]
    text = counted_table(table, counts).text(terminal=True)
    assert "…" not in text
    assert all(row.label in text for row in printed_rows(table))
    assert set(counted_tables._LETTERS) == set(TABLE_CONVENTIONS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--table", 7), "'7' is not one of '1', '2', '3', '6'"),
        (("--table", "six"), "'six' is not one of"),
        (("--table", 6, "--model", "hornet_large_gf"), "Table 6 has no row of 'hornet_large_gf': it has swin_t,"),
        (("--table", 1, "--all"), "leave one out"),
        (("--table", 1, "--image-size", 64), "leave --image-size out"),
        (("--table", 2, "--fft", "exact"), "--fft exact has no effect on Table 2"),
        (("--table", 1, "--output", "rows.png"), "expected .json, .csv"),
    ],
)
def test_bad_input(run, arguments, message):
    status, out, error = run("flops", *arguments)
    assert (status, out) == (2, "")
    assert message in error
    assert error.count("\n") == 1
