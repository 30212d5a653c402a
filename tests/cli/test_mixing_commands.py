import csv
import io
import json

import numpy as np
import pytest

from horinsight import QueryMaps, create_model, image_batch, load_result, model_mixing_weights, sample_images


def test_mixing_writes_maps_and_prints_numbers(run, tmp_path):
    folder = tmp_path / "new" / "maps"
    folder.parent.mkdir()
    status, table, error = run(
        "mixing", "--model", "hornet_test", "--images", "chelsea", "coffee", "--query", "5,7", "--blocks", "1,3",
        "--output", folder,
    )  # fmt: skip
    assert status == 0
    assert sorted(path.name for path in folder.iterdir()) == ["mixing.npz", "mixing.png"]
    assert str(folder / "mixing.npz") in error
    assert "UNTRAINED" in table
    assert "adapts to input" in table
    maps = load_result(QueryMaps, folder / "mixing.npz")
    model = create_model("hornet_test")
    images = image_batch(model, [sample_images()[name] for name in ("chelsea", "coffee")])
    weights = model_mixing_weights(model, images)["stages.0.0.gnconv"]
    np.testing.assert_allclose(maps.maps["stages.0.0.gnconv"][1], weights.at(5, 7)[1].mean(0), rtol=1e-4)


def test_mixing_json_csv_and_steps(run):
    status, text, _ = run("mixing", "--model", "hornet_test", "--images", "chelsea", "coffee", "--format", "json")
    assert status == 0
    content = json.loads(text)
    assert content["weights"] == {"source": "random, seed 0", "trained": False}
    assert [block["index"] for block in content["blocks"]] == [1, 2, 3, 4]
    assert 0 < content["blocks"][0]["input_adaptivity"] < 1
    assert content["blocks"][0]["input_adaptivity_se"] is None, "two images give no standard error of a share"
    _, text, _ = run("mixing", "--model", "hornet_test", "--blocks", "4", "--step", "0", "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["input_adaptivity"] == "", "one image cannot tell"
    assert float(row["mean_distance"]) > 0
    _, table, _ = run("mixing", "--model", "hornet_test")
    assert "give two or more" in table


@pytest.mark.parametrize("model", ["test_vit", "convnext_atto", "hornet_test_gf"])
def test_mixing_of_other_models(run, tmp_path, model):
    status, table, _ = run("mixing", "--model", model, "--query", "1,2", "--output", tmp_path)
    assert status == 0
    assert f"Mixing weights of {model}" in table
    assert (tmp_path / "mixing.png").stat().st_size > 10_000


@pytest.mark.parametrize("suffix", ["pdf", "png", "svg"])
def test_figure4_and_its_arrays(run, tmp_path, suffix):
    status, out, error = run("figure4", "--model", "hornet_test_iso", "--output", tmp_path / f"f.{suffix}")
    assert (status, out) == (0, "")
    assert f"f.{suffix}" in error
    maps = load_result(QueryMaps, tmp_path / "f.npz")
    assert len(maps.picture_of_entry) == 8
    assert maps.block_indices == (1, 3), "of the paper's blocks those that a model of three has"
    assert maps.provenance.images == maps.image_names


def test_figure4_queries_seeds_and_blocks(run, tmp_path):
    common = ("figure4", "--model", "hornet_test", "--images", "rocket", "--output", tmp_path / "f.png")
    run(*common, "--query", "1,2", "--query", "3,4", "--query", "5,6", "--blocks", "2,4")
    maps = load_result(QueryMaps, tmp_path / "f.npz")
    assert maps.block_indices == (2, 4)
    assert maps.queries["stages.1.0.gnconv"].tolist() == [[1, 2], [3, 4], [5, 6]]
    drawn = []
    for seed in (0, 0, 1):
        run(*common, "--seed", seed)
        drawn.append(load_result(QueryMaps, tmp_path / "f.npz").queries["stages.0.0.gnconv"].tolist())
    assert drawn[0] == drawn[1] != drawn[2]


BAD = {
    "query outside": (("mixing", "--query", "24,0", "--output", "DIR"), "got 24,0"),
    "query text": (("mixing", "--query", "a,b", "--output", "DIR"), "such as 7,7, got 'a,b'"),
    "query one number": (("mixing", "--query", "7", "--output", "DIR"), "such as 7,7"),
    "query alone": (("mixing", "--query", "1,1"), "go together"),
    "output alone": (("mixing", "--output", "DIR"), "go together"),
    "step": (("mixing", "--step", "9"), "from 0 to 1 for a gnConv of order 2, got 9"),
    "blocks": (("mixing", "--blocks", "7"), "blocks 1 to 4, got 7"),
    "image size": (("mixing", "--image-size", "20"), "at least 32"),
    "figure suffix": (("figure4", "--output", "DIR/f.jpg"), ".pdf, .png, .svg"),
    "figure folder": (("figure4", "--output", "DIR/no/f.png"), "does not exist"),
    "figure query": (("figure4", "--output", "DIR/f.png", "--query", "0,24"), "got 0,24"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(run, tmp_path, case):
    (command, *options), message = BAD[case]
    arguments = [str(option).replace("DIR", str(tmp_path)) for option in options]
    status, out, error = run(command, "--model", "hornet_test", *arguments)
    assert status == 2
    assert out == ""
    assert error.count("\n") == 1
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_nobody_listed(run):
    """Convolutions that mix channels, by output channel."""
    status, text, _ = run("mixing", "--model", "resnet10t", "--image-size", "64", "--format", "json")
    content = json.loads(text)
    assert status == 0
    assert [block["name"] for block in content["blocks"]][:2] == ["layer1.0.conv1", "layer1.0.conv2"]
    assert content["declared"]["layer1.0.conv1"]["held"] == "nothing"
    assert all(block["location_adaptivity"] == 0 for block in content["blocks"])


def test_blocks_without_weights_are_left_out_and_named(run):
    """gMLP-like gates of gmixer multiply halves of which neither mixed more, so its activation tells the gate."""
    status, table, _ = run("mixing", "--model", "efficientvim_m1", "--image-size", "64", "--images", "chelsea")
    assert status == 0
    assert "left out: block" in table
    assert "cannot be told" in table
    status, _, error = run("mixing", "--model", "efficientvim_m1", "--blocks", "3")
    assert (status in (0, 2), error.count("\n") <= 1) == (True, True)
