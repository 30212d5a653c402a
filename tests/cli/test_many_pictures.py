"""Commands over more pictures than a batch holds, some of which cannot be read."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from horinsight import (
    PredictionAttributions,
    QueryMaps,
    ResultSet,
    create_model,
    image_batch,
    load_image,
    load_result,
    model_adaptivity,
    model_influence,
    prediction_attribution,
)
from horinsight.data.picture_batches import BATCH_SIZE
from horinsight.data.picture_stream import picture_stream
from horinsight.data.preprocess import preprocessing

MODEL = "hornet_test_iso"
COUNT = BATCH_SIZE + 3
SMALL = ("--model", MODEL, "--image-size", "64")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        noise = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((64, 64)).save(folder / f"p{number:02d}.png")
    return folder


@pytest.fixture
def partly_broken(folder: Path, tmp_path: Path) -> Path:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    whole = (tmp_path / "p04.png").read_bytes()
    (tmp_path / "p04.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "p17.png").write_text("no picture")
    return tmp_path


def test_adaptivity_of_a_stream_is_that_of_one_tensor(folder):
    """In two passes over batches of 16 and 3, and of 4; against one batch of all."""
    model = create_model(MODEL)
    transform = preprocessing(model, image_size=(64, 64))
    pictures = [load_image(file) for file in sorted(folder.iterdir())]
    whole = image_batch(model, pictures, image_size=(64, 64))
    alone = model_adaptivity(model, picture_stream(folder, transform, batch_size=COUNT))
    for found in (
        model_adaptivity(model, whole),
        model_adaptivity(model, picture_stream(folder, transform, batch_size=4)),
    ):
        assert found.provenance.images == alone.provenance.images == whole.image_names
        for name, numbers in found.items():
            assert numbers.num_images == COUNT
            for key, estimate in vars(alone[name]).items():
                if hasattr(estimate, "standard_error"):
                    other = getattr(numbers, key)
                    assert other.value == pytest.approx(estimate.value, rel=1e-5)
                    assert other.standard_error == pytest.approx(estimate.standard_error, rel=1e-3)


def test_mixing_draws_a_few_and_counts_all(run, folder, tmp_path):
    status, table, error = run("mixing", *SMALL, "--images", folder, "--query", "1,2", "--output", tmp_path)
    assert status == 0
    assert f"maps of 8 of {COUNT} pictures" in error
    assert "pass 2: 19 of 19 pictures" in error
    assert f"images: {COUNT}, from " in table
    maps = load_result(QueryMaps, tmp_path / "mixing.npz")
    assert len(maps.pictures) == len(maps.image_names) == 8
    assert "p00.png" in maps.image_names[0]
    again = ("mixing", *SMALL, "--images", folder, "--query", "1,2", "--output", tmp_path)
    status, text, error = run(*again, "--show", "p05.png,p18", "--format", "json")
    assert status == 0
    content = json.loads(text)
    assert (len(content["images"]), content["blocks"][0]["num_images"], content["skipped"]) == (COUNT, COUNT, {})
    assert content["blocks"][0]["input_adaptivity_se"] > 0
    shown = load_result(QueryMaps, tmp_path / "mixing.npz")
    assert [Path(name.split(" (")[0]).name for name in shown.image_names] == ["p05.png", "p18.png"]


def test_influence_draws_a_few_too(run, folder, tmp_path):
    status, _, error = run(
        "mixing", *SMALL, "--images", folder, "--influence", "--blocks", "1", "--query", "1,2", "--output", tmp_path,
        "--show", "2",
    )  # fmt: skip
    assert status == 0
    assert f"maps of 2 of {COUNT} pictures" in error
    maps = load_result(QueryMaps, tmp_path / "mixing.npz")
    assert len(maps.maps["blocks.0.gnconv"]) == len(maps.pictures) == 2


def test_reach_draws_a_few_and_counts_all(run, folder, tmp_path):
    asked = ("reach", *SMALL, "--images", folder, "--blocks", "1", "--probes", "1", "--scope", "mixer")
    status, text, error = run(*asked, "--format", "json", "--plot", tmp_path / "reach.png", "--show", "2")
    assert status == 0
    assert f"maps of 2 of {COUNT} pictures" in error
    assert "pass 1: 19 of 19 pictures" in error
    content = json.loads(text)
    assert (content["blocks"][0]["num_images"], len(content["images"])) == (COUNT, COUNT)
    model = create_model(MODEL)
    whole = image_batch(model, [load_image(file) for file in sorted(folder.iterdir())], image_size=(64, 64))
    (reach,) = model_influence(model, whole, blocks=[1], probes=1).values()
    assert content["blocks"][0]["radius_90"] == pytest.approx(reach.estimates["radius_90"].value, rel=1e-6)
    assert content["blocks"][0]["total_se"] == pytest.approx(reach.estimates["total"].standard_error, rel=1e-4)
    status, _, error = run(*asked, "--show", "2")
    assert (status, error.count("\n")) == (2, 1)
    assert "--plot" in error


def test_attributions_of_a_few_and_numbers_of_all(run, folder, tmp_path):
    """Against one batch of all; a baseline of another picture comes from the first batch."""
    arrays = tmp_path / "maps.npz"
    asked = ("attribute", *SMALL, "--images", folder, "--target", "3", "--methods", "input_x_gradient,mixing_rollout")
    status, text, error = run(*asked, "--format", "json", "--arrays", arrays, "--show", "p01.png,p17.png")
    assert status == 0, error
    assert f"maps of 2 of {COUNT} pictures" in error
    assert "pass 2: 19 of 19 pictures" in error
    rows = json.loads(text)["attributions"]
    assert len(rows) == 2 * COUNT
    model = create_model(MODEL)
    whole = image_batch(model, [load_image(file) for file in sorted(folder.iterdir())], image_size=(64, 64))
    expected = prediction_attribution(model, whole, methods=["input_x_gradient", "mixing_rollout"], target=3)
    kept = load_result(PredictionAttributions, arrays)
    assert [Path(name.split(" (")[0]).name for name in kept.provenance.images] == ["p01.png", "p17.png"]
    for place, (name, maps) in enumerate(expected.maps.items()):
        np.testing.assert_allclose(kept.maps[name], maps[[1, 17]], rtol=1e-3, atol=1e-5 * np.abs(maps).max())
        sums = [row["sum"] for row in rows[place * COUNT : (place + 1) * COUNT]]
        np.testing.assert_allclose(sums, maps.sum((1, 2)), rtol=1e-3, atol=1e-4 * np.abs(maps).sum((1, 2)).max())
    np.testing.assert_allclose(kept.logits, expected.logits[[1, 17]], rtol=1e-4)
    asked = ("attribute", *SMALL, "--images", folder, "--methods", "deep_lift", "--baseline", "others", "--steps", "2")
    status, text, error = run(*asked, "--format", "json")
    assert status == 0, error
    assert len(json.loads(text)["attributions"]) == COUNT


def test_positions_of_a_block_over_many_pictures(run, folder, tmp_path):
    arrays = tmp_path / "maps.npz"
    asked = ("attribute", *SMALL, "--images", folder, "--block", "2", "--of", "mixer_input", "--query", "1,2")
    status, text, error = run(*asked, "--methods", "mixing_weights", "--format", "json", "--arrays", arrays)
    assert status == 0, error
    rows = json.loads(text)["attributions"]
    assert [row["query"] for row in rows] == [[1, 2]] * COUNT
    kept = load_result(ResultSet, arrays)["mixing_weights"]
    assert len(kept.maps) == 8
    np.testing.assert_allclose([row["sum"] for row in rows[:8]], kept.maps.sum((1, 2, 3)), rtol=1e-6)
    status, _, error = run(*asked, "--show", "2")
    assert (status, error.count("\n")) == (2, 1)
    assert "--plot or --arrays" in error


def test_a_comparison_over_many_pictures(run, partly_broken):
    asked = ("ie", *SMALL, "--images", partly_broken, "--blocks", "1", "--tuples", "2", "--max-order", "2")
    status, text, error = run(*asked, "--compare", "2", "--skip-broken", "--format", "json")
    assert status == 0
    assert "pass 2: 17 of 17 pictures" in error
    content = json.loads(text)
    assert len(content["images"]) == COUNT - 2
    assert len(content["skipped"]) == 2
    assert {row["first_num_draws"] for row in content["ratios"]} == {2 * (COUNT - 2)}
    status, table, error = run(*asked, "--compare", MODEL, "--skip-broken")
    assert status == 0
    assert error.count("left out: ") == 2, "once, not for each of the two models"
    assert "2 pictures that cannot be read are left out" in table


@pytest.mark.parametrize("command", ["mixing", "ie", "reach", "attribute"])
def test_broken_pictures_stop_or_are_skipped_by_name(run, partly_broken, command):
    common = (command, *SMALL, "--images", partly_broken, "--format", "json")
    few = {
        "mixing": ("--blocks", "1"),
        "ie": ("--blocks", "1", "--tuples", "2", "--max-order", "2"),
        "reach": ("--blocks", "1", "--probes", "1", "--scope", "mixer"),
        "attribute": ("--methods", "saliency"),
    }[command]
    status, out, error = run(*common, *few)
    assert (status, out) == (2, "")
    assert error.count("\n") == 1
    assert "p04.png is damaged" in error
    assert "--skip-broken" in error
    status, text, error = run(*common, *few, "--skip-broken")
    assert status == 0
    content = json.loads(text)
    assert len(content["images"]) == COUNT - 2
    assert [Path(name).name for name in content["skipped"]] == ["p04.png", "p17.png"]
    assert error.count("left out: ") == 2
    assert "p17.png is not a picture" in error
    if command == "attribute":
        assert len(content["attributions"]) == COUNT - 2
        return
    block = content["blocks"][0]
    assert block.get("num_images", COUNT - 2) == COUNT - 2
    assert block.get("num_draws", 2 * (COUNT - 2)) == 2 * (COUNT - 2)


def test_tables_name_what_is_left_out(run, partly_broken):
    _, table, _ = run("mixing", *SMALL, "--images", partly_broken, "--blocks", "1", "--skip-broken")
    assert "2 pictures that cannot be read are left out: " in table
    _, table, _ = run(
        "reach",
        *SMALL,
        "--images",
        partly_broken / "p04.png",
        partly_broken / "p05.png",
        "--blocks",
        "1",
        "--skip-broken",
    )
    assert "p05.png" in table


def test_a_list_of_paths(run, folder, tmp_path):
    (tmp_path / "few.txt").write_text("".join(f"{folder / name}\n" for name in ("p01.png", "p03.png")))
    status, text, _ = run("mixing", *SMALL, "--images", tmp_path / "few.txt", "--blocks", "1", "--format", "json")
    assert status == 0
    assert len(json.loads(text)["images"]) == 2


def test_ie_resumes_over_many_pictures(run, folder, tmp_path):
    arguments = (
        "ie",
        *SMALL,
        "--images",
        folder,
        "--tuples",
        "2",
        "--max-order",
        "2",
        "--output",
        tmp_path / "ie.json",
    )
    assert run(*arguments)[0] == 0
    whole = json.loads((tmp_path / "ie.json").read_text())
    partial = {**whole, "blocks": whole["blocks"][:1], "complete": False}
    (tmp_path / "ie.json").write_text(json.dumps(partial))
    assert run(*arguments, "--resume")[0] == 0
    assert json.loads((tmp_path / "ie.json").read_text()) == whole


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--show", "2"), "give --query and --output too"),
        (("--query", "1,2", "--output", "DIR", "--show", "nobody"), "called 'nobody'"),
        (("--query", "1,2", "--output", "DIR", "--show", "0"), "at least 1"),
    ],
)
def test_pictures_that_cannot_be_shown(run, folder, tmp_path, options, message):
    arguments = [option.replace("DIR", str(tmp_path)) for option in options]
    status, out, error = run("mixing", *SMALL, "--images", folder, *arguments)
    assert (status, out, error.count("\n")) == (2, "", 1)
    assert message in error
    assert list(tmp_path.iterdir()) == []
