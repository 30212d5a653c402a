import csv
import functools
import io
import json

import pytest

from horinsight.cli import flops_command
from horinsight.complexity import bound
from horinsight.complexity.published import published_rows
from horinsight.models.registry import list_models


def test_json_is_the_contract(run):
    status, text, error = run("flops", "--model", "hornet_test_gf", "--format", "json")
    assert (status, error) == (0, "")
    content = json.loads(text)
    assert content["model"] == "hornet_test_gf"
    assert content["image_size"] == 96
    assert {"macs", "macs_published", "flops"} <= content["convention"].keys()
    assert content["not_counted"] == ["gelu.default", "mean.dim"]
    assert content["macs_published"] > content["macs"] > 0
    first, *_, last = content["gnconvs"]
    assert first["name"] == "stages.0.0.gnconv"
    assert first["macs"] == first["closed_form"] < first["bound"]
    assert first["ratio"] == pytest.approx(first["macs"] / first["bound"])
    assert (first["applicable"], first["holds"], first["kernel_size"]) == (True, True, 7)
    assert (first["order"], first["dim"], first["height"], first["width"]) == (2, 8, 24, 24)
    assert (last["applicable"], last["holds"], last["bound"]) == (False, None, None)
    assert last["macs"] > 0


def test_table_and_csv(run):
    status, table, _ = run("flops", "--model", "hornet_tiny_7x7")
    assert status == 0
    line = next(line for line in table.splitlines() if "stages.3.1.gnconv" in line).split()
    assert line == ["25", "stages.3.1.gnconv", "5", "512", "7", "7x7", "49,495,488", "49,495,488", "49,607,339",
                    "0.998", "1.002", "yes"]  # fmt: skip
    assert "no violation" in table
    assert "not counted: gelu.default (25)" in table
    _, table, _ = run("flops", "--model", "hornet_test_gf")
    assert "not applicable to GF" in table
    _, text, _ = run("flops", "--model", "hornet_test", "--image-size", 64, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["holds"] for row in rows] == ["True"] * 4
    assert rows[0]["macs"] == rows[0]["closed_form"]
    status, table, _ = run("flops", "--model", "deit_tiny_patch16_224")
    assert status == 0
    assert "no gnConv" in table
    assert "_safe_softmax" in table
    _, text, _ = run("flops", "--model", "deit_tiny_patch16_224", "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(text))
    assert int(row["matmul"]) == 12 * 2 * 197 * 197 * 192


def test_all_models_beside_the_paper(run, tmp_path, monkeypatch):
    monkeypatch.setattr(
        flops_command, "_counted", functools.cache(flops_command._counted)
    )  # two of three runs are alike
    output = tmp_path / "all.json"
    status, _, error = run("flops", "--all", "--output", output)
    assert status == 0
    assert "written" in error
    models = json.loads(output.read_text())["models"]
    hornets = [model for model in models if model["model"].startswith("hornet")]
    assert len(hornets) == 14
    assert {model["model"] for model in hornets} == set(list_models("hornet_*_*")) - {
        *list_models("hornet_test*"),
        "hornet_digits_iso",
    }
    assert all(model["prints_as_published"] for model in hornets)
    assert all(model["holds"] in (True, None) for model in models)
    _, table, _ = run("flops", "--all")
    row = next(line for line in table.splitlines() if "hornet_base_gf " in line).split()
    assert row[:7] == ["hornet_base_gf", "224", "88.4", "88", "15.46", "15.5", "yes"]
    few = [row for row in published_rows() if "tiny" in row.model or "swin" in row.model]
    monkeypatch.setattr(flops_command, "published_rows", lambda: few)
    _, text, _ = run("flops", "--all", "--image-size", 448, "--format", "csv")
    other = list(csv.DictReader(io.StringIO(text)))
    assert [row["model"] for row in other] == ["hornet_tiny_7x7", "hornet_tiny_gf"], "Swin takes one size"
    assert {row["image_size"] for row in other} == {"448"}
    assert {row["printed_flops_g"] for row in other} == {""}


def test_a_violated_bound_is_status_1(run, monkeypatch):
    monkeypatch.setattr(bound, "macs_bound", lambda dim, kernel_size, height, width: height * width * dim)
    status, table, _ = run("flops", "--model", "hornet_test")
    assert status == 1
    assert "NO" in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "hornet_tinny_7x7"), "did you mean"),
        (("--model", "hornet_test", "--image-size", 0), "--image-size"),
        (("--model", "hornet_test", "--image-size", 3), "does not take images of 3x3"),
        (("--model", "hornet_test", "--all"), "--model NAME, or --all"),
        ((), "--model NAME, or --all"),
        (("--model", "hornet_test", "--fft", "fast"), "--fft"),
        (("--model", "swin_tiny_patch4_window7_224", "--image-size", 100), "does not take images of 100x100"),
    ],
)
def test_bad_input(run, arguments, message):
    status, out, error = run("flops", *arguments)
    assert (status, out) == (2, "")
    assert message in error
    assert error.count("\n") == 1
