import csv
import io
import json

import numpy as np
import pytest

from horinsight import QueryMaps, create_model, image_batch, load_result, model_influence, sample_images


def test_a_table_over_blocks_and_a_figure(run, tmp_path):
    plot = tmp_path / "reach.png"
    status, table, error = run("reach", "--model", "hornet_test", "--images", "chelsea", "coffee", "--plot", plot)
    assert status == 0
    assert "Effective receptive field of each block of hornet_test" in table
    assert "UNTRAINED" in table
    assert "16 for each image and query" in table
    assert "90 % (pixels)" in table
    assert [f"stages.{stage}.0.gnconv" in table for stage in range(4)] == [True] * 4
    assert "[4/4] stages.3.0.gnconv" in error
    assert str(plot) in error
    assert plot.stat().st_size > 10_000


def test_the_report_in_json_is_what_python_measures(run, tmp_path):
    output = tmp_path / "reach.json"
    status, out, _ = run(
        "reach", "--model", "hornet_test", "--images", "chelsea", "coffee", "--blocks", "2,4", "--scope", "block",
        "--queries", 3, "--probes", 4, "--seed", 5, "--output", output,
    )  # fmt: skip
    assert (status, out) == (0, "")
    content = json.loads(output.read_text())
    model = create_model("hornet_test", seed=5)
    images = image_batch(model, [sample_images()[name] for name in ("chelsea", "coffee")])
    found = model_influence(model, images, blocks=[2, 4], scope="block", queries=3, probes=4, seed=5)
    assert [row["name"] for row in content["blocks"]] == list(found)
    for row, reach in zip(content["blocks"], found.values(), strict=True):
        for name, estimate in reach.estimates.items():
            assert (row[name], row[f"{name}_se"]) == pytest.approx((estimate.value, estimate.standard_error), rel=1e-4)
        assert row["queries"] == reach.influence.queries.tolist()
        assert row["map"] == list(reach.influence.output_shape)
    assert content["weights"]["trained"] is False
    assert content["settings"]["scope"] == content["convention"]["scope"] == "block"
    assert content["settings"]["probes"] == 4


def test_csv_has_a_line_a_quantity_and_exact_needs_no_probes(run):
    status, text, _ = run(
        "reach", "--model", "hornet_test", "--blocks", "4", "--scope", "mixer", "--exact", "--query", "1,2",
        "--format", "csv",
    )  # fmt: skip
    assert status == 0
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["quantity"] for row in rows][-1] == "total"
    assert len(rows) == 7
    model = create_model("hornet_test")
    images = image_batch(model, [sample_images()["chelsea"]])
    found = model_influence(model, images, blocks=[4], queries=[(1, 2)], probes=None)["stages.3.0.gnconv"]
    assert float(rows[1]["value"]) == pytest.approx(found.radii[0, 0, 1], rel=1e-6)


def test_influence_takes_the_place_of_mixing_weights(run, tmp_path):
    status, table, error = run(
        "mixing", "--model", "seresnet18", "--image-size", 64, "--influence", "--blocks", "7,8", "--query", "1,0",
        "--output", tmp_path,
    )  # fmt: skip
    assert status == 0
    assert "Influence within each mixer of seresnet18" in table
    assert str(tmp_path / "mixing.png") in error
    maps = load_result(QueryMaps, tmp_path / "mixing.npz")
    assert maps.convention["weights"] == "influence I_ij"
    model = create_model("seresnet18")
    images = image_batch(model, [sample_images()["chelsea"]], image_size=(64, 64))
    found = model_influence(model, images, blocks=[7, 8], queries=[(1, 0)])
    for name, reach in found.items():
        np.testing.assert_allclose(maps.maps[name], reach.influence.maps[:, 0], rtol=1e-4)
        assert maps.queries[name].tolist() == [[1, 0]]


BAD = {
    "both": (("reach", "--query", "1,1", "--queries", "2"), "exclude each other"),
    "outside": (("reach", "--query", "24,0"), r"24x24 map, got (24, 0)"),
    "probes": (("reach", "--probes", "0"), "x>=1"),
    "scope": (("reach", "--scope", "stage"), "'image', 'block', 'mixer'"),
    "blocks": (("reach", "--blocks", "7"), "blocks 1 to 4, got 7"),
    "plot": (("reach", "--plot", "DIR/f.jpg"), ".pdf, .png, .svg"),
    "plot folder": (("reach", "--plot", "DIR/no/f.png"), "does not exist"),
    "output": (("reach", "--output", "DIR/f.xml"), "expected .json, .csv"),
    "step": (("mixing", "--influence", "--step", "1"), "--influence does without"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(run, tmp_path, case):
    (command, *options), message = BAD[case]
    arguments = [option.replace("DIR", str(tmp_path)) for option in options]
    status, out, error = run(command, "--model", "hornet_test", *arguments)
    assert (status, out, error.count("\n")) == (2, "", 1)
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_nobody_listed(run):
    status, table, _ = run("reach", "--model", "resnet10t", "--image-size", "64", "--scope", "image", "--probes", "1")
    assert status == 0
    assert "layer2.0.conv2" in table
