"""The page of classes: mean maps and adaptivity are those of the package, and work can be stopped."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest
from test_saved_results import write_survey
from test_service import DIGITS, said, told, turn_to, visit

import horinsight
from horinsight.data.images import load_image, sample_image
from horinsight.viewer.service import class_means as module
from horinsight.viewer.service.class_folder import class_files, class_names
from horinsight.viewer.service.class_means import CLASSES, ClassAsked, class_maps, class_means, class_table
from horinsight.viewer.service.class_spectra import class_effects, effects_table
from horinsight.viewer.service.gate import GATE
from horinsight.viewer.service.kept import Kept
from horinsight.viewer.service.model_pool import shared_model
from horinsight.viewer.service.settings import MODELS, Settings

STRANGE = ":red[x] <b>y"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    found = tmp_path_factory.mktemp("classes") / "inside"
    for label, digits in {"few": (1, 2, 3), STRANGE: (4, 5)}.items():
        (found / label).mkdir(parents=True)
        for digit in digits:
            sample_image(f"digit_{digit}").save(found / label / f"{digit}.png")
    (found / "few" / "4 broken.png").write_bytes(b"no picture")
    (found / "few" / "notes.txt").write_text("x")
    (found / "none").mkdir()
    (found.parent / "outside").mkdir()
    sample_image("digit_1").save(found.parent / "outside" / "1.png")
    (found / "link").symlink_to(found.parent / "outside")
    (found / "few" / "0 link.png").symlink_to(found.parent / "outside" / "1.png")
    return found


def test_classes_come_from_the_folder_alone(folder):
    assert class_names(None) == []
    assert class_names(folder) == [STRANGE, "few", "none"]
    assert [path.name for path in class_files(folder, "few", 3)] == ["1.png", "2.png", "3.png"]
    for label in ("link", "../outside", "", ".", str(folder / "few")):
        with pytest.raises(ValueError, match="No class of that name"):
            class_files(folder, label, 3)
    with pytest.raises(ValueError, match="holds no picture"):
        class_files(folder, "none", 3)


def test_means_and_adaptivity_are_those_of_the_package(folder):
    asked = ClassAsked(DIGITS, (1, 8), tuple(class_files(folder, "few", 8)))
    steps: list[int] = []
    found = class_means(asked, steps.append)
    assert steps == [0, 1, 2, 3]
    assert class_means(asked, steps.append) is found
    assert list(found.unreadable) == ["4 broken.png"]
    assert str(folder) not in found.unreadable["4 broken.png"]
    model = horinsight.create_model(DIGITS.name)
    images = [load_image(path) for path in asked.files[:3]]
    batch = horinsight.image_batch(model, images)
    maps = class_maps({"few": found}, asked, (4, 9), (14, 14))
    expected = horinsight.query_maps(model, batch, [[(4, 9)]] * 3, blocks=[1, 8])
    numbers = horinsight.model_adaptivity(model, batch, blocks=[1, 8])
    for name, values in expected.maps.items():
        np.testing.assert_allclose(maps.maps[name][0], values.mean(0), atol=1e-5 * np.abs(values).max())
        for quantity in ("input_adaptivity", "location_adaptivity", "mean_distance"):
            mine, theirs = getattr(found.adaptivity[name], quantity), getattr(numbers[name], quantity)
            assert mine.value == pytest.approx(theirs.value, rel=1e-4)
            assert mine.standard_error == pytest.approx(theirs.standard_error, rel=1e-3)
    table = class_table({"few": found}, asked, expected.provenance or maps.provenance)
    assert {line.group for line in table.lines} == {"few"}
    assert (table.num_pictures, table.num_unreadable) == (3, 1)


def test_more_pictures_than_parts_give_the_same_values(folder, monkeypatch):
    asked = ClassAsked(DIGITS, (1,), tuple(class_files(folder, "few", 3)))
    monkeypatch.setattr(module, "CLASSES", Kept(4))
    whole = class_means(asked, lambda done: None).adaptivity
    monkeypatch.setattr(module, "CLASSES", Kept(4))
    monkeypatch.setattr(module, "PARTS", 2)
    for name, numbers in class_means(asked, lambda done: None).adaptivity.items():
        assert numbers.num_images == 3
        assert numbers.input_adaptivity.value == pytest.approx(whole[name].input_adaptivity.value, rel=1e-9)


def test_effects_are_those_that_a_survey_finds(folder, tmp_path):
    asked = {label: ClassAsked(DIGITS, (1, 8), tuple(class_files(folder, label, 8))) for label in ("few", STRANGE)}
    found = {label: class_effects(one, lambda done: None) for label, one in asked.items()}
    assert class_effects(asked["few"], lambda done: None) is found["few"]
    mine = effects_table(found, shared_model(DIGITS).provenance)
    for label in asked:  # without links to elsewhere, which a survey follows
        shutil.copytree(folder / label, tmp_path / "pictures" / label, ignore=shutil.ignore_patterns("0 link.png"))
    question = horinsight.EffectsAsked(blocks=(1, 8))
    options = horinsight.SurveyOptions(workers=0)
    horinsight.run_survey(DIGITS.name, tmp_path / "pictures", tmp_path / "survey", question=question, options=options)
    theirs = horinsight.survey_table(tmp_path / "survey", by="class")
    assert sorted(map(str, mine.lines)) == sorted(map(str, theirs.lines))
    assert (mine.num_pictures, mine.num_unreadable) == (5, 1)
    assert {line.quantity for line in mine.lines} == {"effect", "order_at_least"}
    assert all(np.isfinite(line.estimate.value) for line in mine.lines)


def test_who_stops_leaves_the_gate_free(folder):
    class StoppedError(Exception):
        pass

    def step(done: int) -> None:
        if done:
            raise StoppedError

    asked = ClassAsked(DIGITS, (2,), tuple(class_files(folder, "few", 3)))
    with pytest.raises(StoppedError):
        class_means(asked, step)
    assert CLASSES.get(asked) is None
    with GATE.slot(), GATE.slot():
        pass


@pytest.fixture
def started(folder, tmp_path, monkeypatch) -> None:
    write_survey(tmp_path / "reach")
    given = Settings(MODELS, None, images=folder, results=tmp_path)
    monkeypatch.setattr("horinsight.viewer.views.classes.settings", lambda: given)


def page_of(**address: str) -> AppTest:
    at = turn_to(visit(**address), "Classes").run(timeout=60)
    assert not at.exception, [one.value for one in at.exception]
    return at


def test_classes_are_measured_when_asked(started):
    at = page_of(class_count="4")
    assert "press Measure" in said(at)
    assert at.multiselect(key="classes").value == [STRANGE, "few"]
    next(one for one in at.button if one.key == "measure_classes").click().run(timeout=60)
    assert not at.exception
    assert not told(at, "error")
    assert at.get("image")[0]
    frame = at.dataframe[0].value
    assert set(frame["group"]) == {STRANGE, "few"}
    assert "left out: 4 broken.png" in said(at)
    at.multiselect(key="classes").set_value(["none"]).run(timeout=60)
    assert any("holds no picture" in line for line in told(at, "error"))


def test_effects_of_classes_are_measured_when_asked(started):
    at = page_of(class_count="4", class_show="Orders and effects")
    at.multiselect(key="class_blocks").set_value([1, 9]).run(timeout=60)
    next(one for one in at.button if one.key == "measure_classes").click().run(timeout=60)
    assert not at.exception
    assert not told(at, "error")
    frame = at.dataframe[0].value
    assert set(frame["group"]) == {STRANGE, "few"}
    assert set(frame["block"]) == {1, 9}
    assert set(frame["quantity"]) == {"effect", "order_at_least"}
    assert (frame["low"] <= frame["high"]).all()


def test_a_survey_gives_its_classes(started):
    at = page_of(classes_from="A survey")
    assert set(at.dataframe[0].value["group"]) == {"cat", "dog"}


def test_without_folders_the_page_says_what_it_needs():
    assert any("--images FOLDER" in line for line in told(page_of(), "info"))
