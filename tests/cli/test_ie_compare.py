"""`horinsight ie --compare`: models, checkpoints, blocks and results, in every format."""

import csv
import io
import json

import pytest
import torch

from horinsight import create_model, image_batch, model_interaction_spectra, sample_images

MODEL = ("ie", "--model", "hornet_test_iso", "--tuples", 8, "--images", "coffee")


@pytest.fixture
def content(run):
    def rendered(*arguments):
        status, out, error = run(*MODEL, *arguments, "--format", "json")
        assert status == 0, error
        return json.loads(out)

    return rendered


def test_another_checkpoint(content, run, tmp_path):
    other = create_model("hornet_test_iso", seed=5)
    torch.save(other.state_dict(), tmp_path / "other.pth")
    found = content("--blocks", "1,3", "--compare", tmp_path / "other.pth")
    assert found["model"] == found["compared_with"]["model"] == "hornet_test_iso"
    assert found["compared_with"]["weights"]["source"].startswith("checkpoint other.pth")
    assert found["compared_with"]["weights"]["sha256"] != found["weights"]["sha256"]
    assert found["convention"]["draws"].startswith("common")
    rows = found["ratios"]
    assert [(row["index"], row["k"]) for row in rows] == [(index, k) for index in (1, 3) for k in range(6)]
    for row in rows:
        assert row["common_draws"]
        if row["k"] <= 3:
            assert row["ratio"] == pytest.approx(row["first_effect"] / row["second_effect"])
            assert row["ci_low"] <= row["ratio"] <= row["ci_high"]
        else:
            assert row["first_effect"] == row["second_effect"] == 0
            assert row["ratio"] is None
    status, out, _ = run(*MODEL, "--blocks", "1,3", "--compare", tmp_path / "other.pth", "--format", "csv")
    assert status == 0
    lines = list(csv.DictReader(io.StringIO(out)))
    assert [float(line["first_effect"]) for line in lines] == [row["first_effect"] for row in rows]
    status, table, _ = run(*MODEL, "--blocks", "1,3", "--compare", tmp_path / "other.pth")
    assert status == 0
    assert "Interaction effects of hornet_test_iso over those of" in table
    assert "draws: common to both in 2 of 2 blocks" in table
    assert table.count("UNTRAINED") == 1, "whether a checkpoint is trained nobody said"


def test_another_model_and_another_block(content):
    found = content("--compare", "hornet_test_gf")
    assert {row["second"] for row in found["ratios"]} == {f"stages.{i}.0.gnconv" for i in range(3)}
    assert not any(row["common_draws"] for row in found["ratios"]), "maps differ"
    beyond = [row for row in found["ratios"] if row["first_effect"] and not row["second_effect"]]
    assert beyond, "order 3 over order 2"
    assert {row["ratio"] for row in beyond} == {None}
    found = content("--blocks", "1,2", "--compare", "2")
    assert {(row["first"], row["second"]) for row in found["ratios"]} == {
        ("blocks.0.gnconv", "blocks.1.gnconv"),
        ("blocks.1.gnconv", "blocks.1.gnconv"),
    }
    same = [row for row in found["ratios"] if row["first"] == row["second"] and row["k"] <= 3]
    assert all(row["ci_low"] == pytest.approx(1) == row["ci_high"] for row in same)


@pytest.mark.parametrize("how", ["report", "result.json", "result.npz"])
def test_a_result_that_was_kept(content, run, tmp_path, how):
    path = tmp_path / ("report.json" if how == "report" else how)
    if how == "report":
        assert run(*MODEL, "--output", path)[0] == 0
    else:
        model = create_model("hornet_test_iso")
        images = image_batch(model, [sample_images()["coffee"]])
        model_interaction_spectra(model, images, num_tuples=8).save(path)
    found = content("--compare", path)
    alive = [row for row in found["ratios"] if row["k"] <= 3]
    assert len(alive) == 12
    assert all(row["ratio"] == 1 for row in alive), "the same seed"
    assert all(row["ci_low"] < 1 < row["ci_high"] for row in alive), "which nobody can know"
    assert not any(row["common_draws"] for row in alive)
    assert found["compared_with"]["weights"]["sha256"] == found["weights"]["sha256"]
    found = content("--blocks", "2", "--compare", path)
    assert {row["second"] for row in found["ratios"]} == {"blocks.1.gnconv"}


def test_what_cannot_be_compared(run, tmp_path):
    (tmp_path / "text.json").write_text("[1]")
    (tmp_path / "cut.json").write_text('{"blocks": [')
    (tmp_path / "other.json").write_text('{"blocks": []}')
    assert run("ie", "--model", "hornet_test_gf", "--tuples", 1, "--output", tmp_path / "gf.json")[0] == 0
    for arguments, said in (
        (("--compare", "hornet_tinny_gf"), "did you mean hornet_tiny_gf"),
        (("--compare", tmp_path / "no.json"), "there is no result"),
        (("--compare", tmp_path / "text.json"), "does not hold a horinsight result"),
        (("--compare", tmp_path / "cut.json"), "is not JSON"),
        (("--compare", tmp_path / "other.json"), "is not a report of `horinsight ie`"),
        (("--compare", tmp_path / "no.pth"), "No such checkpoint"),
        (("--compare", "9"), "blocks 1 to 3, got 9"),
        (("--compare", tmp_path / "gf.json"), "none of blocks.0.gnconv"),
        (("--compare", "2", "--resume"), "--resume is of spectra"),
        (("--compare", "2", "--plot", tmp_path / "a.png"), "--plot is of spectra"),
    ):
        status, _, error = run(*MODEL, *arguments)
        assert status == 2, arguments
        assert said in error
        assert "Traceback" not in error
