"""What a survey's report says, as text, JSON, CSV and a figure."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from horinsight import (
    EffectsAsked,
    SpectrumOptions,
    SurveyOptions,
    create_model,
    draw_survey_depths,
    load_survey,
    model_adaptivity,
    run_survey,
    survey_table,
)
from horinsight.survey import part_files

SIDE = 32
OPTIONS = SurveyOptions(workers=0, part_size=2, image_size=SIDE)


@pytest.fixture(scope="module")
def surveys(tmp_path_factory) -> Path:
    """Two surveys of effects by models of different seeds, one of mixing; of twelve pictures in two classes."""
    folder = tmp_path_factory.mktemp("surveys")
    noise = np.random.default_rng(0)
    for index in range(12):
        path = folder / "pictures" / ("cats", "dogs")[index % 2] / f"{index:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(path)
    (folder / "pictures" / "dogs" / "broken.png").write_bytes(b"no picture")
    asked = EffectsAsked(SpectrumOptions(num_tuples=2, max_order=3))
    for seed in (0, 1):
        model = create_model("hornet_test_iso", seed=seed)
        run_survey(model, folder / "pictures", folder / f"ie{seed}", question=asked, options=OPTIONS)
    run_survey("hornet_test_iso", folder / "pictures", folder / "mixing", question="mixing", options=OPTIONS)
    return folder


def test_a_table_of_all_pictures(surveys, run):
    status, text, _ = run("survey", "report", surveys / "ie0")
    assert status == 0
    assert "Interaction effects of hornet_test_iso over 13 pictures" in text
    assert "UNTRAINED" in text
    assert "pictures: 13 of 13; 1 could not be read:" in text
    assert "dogs/broken.png" in text
    frame = load_survey(surveys / "ie0")
    cell = frame[(frame.block == 2) & (frame.k == 1)]
    squares = cell[cell.quantity == "mean_square"].value.sum()
    outputs = frame[(frame.block == 2) & (frame.quantity == "output_square")].value.sum()
    status, content, _ = run("survey", "report", surveys / "ie0", "--format", "json")
    (row,) = (
        row for row in json.loads(content)["rows"] if (row["block"], row["quantity"], row["k"]) == (2, "effect", 1)
    )
    assert row["value"] == pytest.approx((squares / outputs) ** 0.5, rel=1e-12)
    assert row["low"] < row["value"] < row["high"]
    assert row["pictures"] == 12


def test_by_class_with_adaptivity_over_the_pictures_of_each(surveys, run):
    status, content, _ = run("survey", "report", surveys / "mixing", "--by", "class", "--format", "csv")
    assert status == 0
    rows = list(csv.DictReader(io.StringIO(content)))
    assert [*dict.fromkeys(row["group"] for row in rows)] == ["cats", "dogs"]
    from horinsight import image_batch, load_image

    model = create_model("hornet_test_iso")
    cats = [load_image(path) for path in sorted((surveys / "pictures" / "cats").iterdir())]
    found = model_adaptivity(model, image_batch(model, cats, image_size=(SIDE, SIDE)), blocks=[3])
    (row,) = (r for r in rows if (r["group"], r["block"], r["quantity"]) == ("cats", "3", "input_adaptivity"))
    assert float(row["value"]) == pytest.approx(found["blocks.2.gnconv"].input_adaptivity.value, rel=1e-6)
    assert float(row["low"]) < float(row["value"]) < float(row["high"])


def test_compared_with_itself_and_with_another(surveys, run):
    same = survey_table(surveys / "ie0", compare=surveys / "ie0")
    for line in same.lines:
        if line.quantity == "effect" and line.estimate.value:
            assert line.contrast.value == 1.0
            assert line.contrast.interval == pytest.approx((1.0, 1.0), abs=1e-12)
    status, text, _ = run("survey", "report", surveys / "ie0", "--compare", surveys / "ie1")
    assert status == 0
    assert "compared picture by picture: 13 pictures that both have" in text
    assert "differing: weights" in text
    table = survey_table(surveys / "ie0", compare=surveys / "ie1", by="class")
    other = survey_table(surveys / "ie1", by="class")
    for line, alone in zip(table.lines, other.lines, strict=True):
        assert line.other.value == alone.estimate.value or np.isnan(line.other.value)
        if line.quantity == "effect":
            assert line.contrast.value == pytest.approx(line.estimate.value / line.other.value, rel=1e-12)
    status, _, error = run("survey", "report", surveys / "ie0", "--compare", surveys / "mixing")
    assert (status, error.count("\n")) == (2, 1)
    assert "is a survey of ie" in error


def test_an_unfinished_survey_can_be_read(surveys, run, tmp_path):
    asked = EffectsAsked(SpectrumOptions(num_tuples=2, max_order=3), blocks=[1])
    run_survey("hornet_test_iso", surveys / "pictures", tmp_path / "part", question=asked, options=OPTIONS)
    for number in range(1, 7):
        part_files.part_path(tmp_path / "part", number).unlink()
    status, text, _ = run("survey", "report", tmp_path / "part")
    assert status == 0
    assert "pictures: 2 of 13, the survey is not finished" in text
    part_files.part_path(tmp_path / "part", 0).unlink()
    status, _, error = run("survey", "report", tmp_path / "part")
    assert status == 2
    assert "No part of the survey is finished yet" in error
    status, _, error = run("survey", "report", tmp_path)
    assert status == 2
    assert "holds no survey" in error


def test_a_figure_by_depth(surveys, run, tmp_path):
    plot = tmp_path / "depths.png"
    status, _, error = run("survey", "report", surveys / "mixing", "--by", "class", "--plot", plot)
    assert status == 0
    assert str(plot) in error
    assert plot.stat().st_size > 10_000
    figure = draw_survey_depths(survey_table(surveys / "ie0", compare=surveys / "ie1"))
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown[:2]] == ["order", "effect$_{0}$ / std(F)"]
    assert len(shown[1].containers) == 2, "two models"
    heights = shown[1].containers[0].lines[0].get_ydata()
    lines = survey_table(surveys / "ie0").lines
    assert list(heights) == [line.estimate.value for line in lines if line.quantity == "effect" and line.k == 0]
    with pytest.raises(ValueError, match="at least one number"):
        draw_survey_depths(type(survey_table(surveys / "ie0"))("ie", "m", "w", None, (), 0, 0, {}, 0, {}))


def test_every_class_is_named_in_the_figure_whatever_its_name(surveys):
    table = survey_table(surveys / "ie0", by="class")
    strange = dict(zip(dict.fromkeys(line.group for line in table.lines), ("_a", r"$\frac{$"), strict=True))
    renamed = replace(table, lines=tuple(replace(line, group=strange[line.group]) for line in table.lines))
    figure = draw_survey_depths(renamed)
    figure.canvas.draw()
    assert [text.get_text().strip() for text in figure.legends[0].get_texts()] == ["_a", r"\$\frac{\$"]
