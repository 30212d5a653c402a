import csv
import io
import json

import numpy as np
import pytest

from horinsight import (
    PositionAttributions,
    PredictionAttributions,
    ResultSet,
    create_model,
    image_batch,
    load_result,
    position_attribution,
    prediction_attribution,
    sample_images,
)
from horinsight.attribution import attributions_by_method
from horinsight.attribution.attribution_methods import ATTRIBUTION_METHODS
from horinsight.attribution.picture_baselines import black_colour


def digits(*names: str):
    model = create_model("hornet_digits_iso")
    return model, image_batch(model, [sample_images()[name] for name in names])


def test_a_prediction_by_methods_is_what_python_says(run, tmp_path):
    output, arrays, plot = tmp_path / "maps.json", tmp_path / "maps.npz", tmp_path / "maps.png"
    status, out, error = run(
        "attribute", "--images", "digit_3", "digit_5", "--methods", "deep_lift, saliency", "--steps", 4,
        "--output", output, "--arrays", arrays, "--plot", plot,
    )  # fmt: skip
    assert (status, out) == (0, "")
    assert "[2/2] saliency" in error
    model, images = digits("digit_3", "digit_5")
    black = black_colour(model, (56, 56))[:, None, None].expand(3, 56, 56)
    expected = prediction_attribution(model, images, methods=["deep_lift", "saliency"], baselines=black)
    kept = load_result(PredictionAttributions, arrays)
    for name, maps in expected.maps.items():
        np.testing.assert_allclose(kept.maps[name], maps, rtol=1e-4, atol=1e-6)
    content = json.loads(output.read_text())
    assert content["weights"]["trained"] is True
    assert content["settings"]["methods"] == ["deep_lift", "saliency"]
    rows = content["attributions"]
    assert [(row["method"], row["target"]) for row in rows] == [
        ("deep_lift", 3), ("deep_lift", 5), ("saliency", 3), ("saliency", 5),
    ]  # fmt: skip
    assert rows[0]["sum"] == pytest.approx(float(expected.maps["deep_lift"][0].sum()), rel=1e-4)
    assert abs(rows[0]["gap"]) < 1e-4
    assert rows[2]["gap"] is None
    assert plot.stat().st_size > 10_000


def test_another_class_and_baseline_change_the_answer(run):
    rows = {}
    for extra in ((), ("--target", 7), ("--baseline", "mean")):
        status, text, _ = run(
            "attribute", "--images", "digit_3", "--methods", "input_x_gradient,deep_lift", "--format", "csv", *extra
        )
        assert status == 0
        rows[extra] = list(csv.DictReader(io.StringIO(text)))
    assert [row["target"] for row in rows["--target", 7]] == ["7", "7"]
    plain, mean = rows[()], rows["--baseline", "mean"]
    assert plain[0]["sum"] == mean[0]["sum"]  # input x gradient compares with nothing
    assert plain[1]["sum"] != mean[1]["sum"]


def test_a_position_of_a_block(run, tmp_path):
    arrays, plot = tmp_path / "position.npz", tmp_path / "position.pdf"
    status, table, _ = run(
        "attribute", "--model", "hornet_test_iso", "--images", "coffee", "--block", 2, "--query", "2,3",
        "--of", "mixer_input", "--arrays", arrays, "--plot", plot,
    )  # fmt: skip
    assert status == 0
    assert "Attributions of positions of blocks.1.gnconv, hornet_test_iso" in table
    assert "UNTRAINED" in table
    found = ResultSet.load(arrays)
    assert list(found) == ["mixing_weights", "influence", "deep_lift"]
    assert all(isinstance(one, PositionAttributions) for one in found.values())
    model = create_model("hornet_test_iso")
    images = image_batch(model, [sample_images()["coffee"]])
    expected = position_attribution(model, images, block=2, queries=[(2, 3)], method="mixing_weights", of="mixer_input")
    np.testing.assert_allclose(found["mixing_weights"].maps, expected.maps, rtol=1e-5, atol=1e-7)
    assert plot.stat().st_size > 5_000


def test_the_middle_is_explained_when_no_position_is_given_and_what_cannot_run_is_left_out(run):
    status, text, _ = run(
        "attribute", "--model", "resnet18", "--images", "coffee", "--block", 3, "--of", "mixer_input", "--format",
        "json", "--image-size", 64,
    )  # fmt: skip
    assert status == 0
    content = json.loads(text)
    assert {tuple(row["query"]) for row in content["attributions"]} == {(8, 8)}
    assert {row["method"] for row in content["attributions"]} | set(content["not_run"]) == {
        "mixing_weights", "influence", "deep_lift",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "said"),
    {
        "method": (("--methods", "integrated"), "did you mean integrated_gradients"),
        "no method": (("--methods", ","), "expected names such as"),
        "of a position": (("--methods", "mixing_weights"), "tells of a position, not of a prediction"),
        "class": (("--target", "10", "--methods", "saliency"), "10"),
        "query without block": (("--query", "1,1"), "say which with --block"),
        "both": (("--block", "1", "--target", "1"), "take one of them"),
        "block": (("--block", "99"), "99"),
        "query": (("--block", "1", "--query", "99,0"), "99"),
        "layer": (("--methods", "grad_cam"), "layer"),
        "relu": (("--methods", "guided_backprop"), "ReLU"),
        "arrays": (("--arrays", "maps.txt"), "ends in .npz"),
        "plot": (("--plot", "maps.txt"), "ends in"),
    }.values(),
)
def test_bad_input_is_one_line(run, given, said):
    status, out, error = run("attribute", "--images", "digit_3", *given)
    assert (status, out) == (2, "")
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_an_interruption_keeps_what_is_finished(run, tmp_path, monkeypatch):
    plain = attributions_by_method.prediction_attribution

    def interrupted(*args, methods, **kwargs):
        if methods == ["deep_lift"]:
            raise KeyboardInterrupt
        return plain(*args, methods=methods, **kwargs)

    monkeypatch.setattr(attributions_by_method, "prediction_attribution", interrupted)
    arrays, output = tmp_path / "maps.npz", tmp_path / "maps.json"
    status, _, error = run(
        "attribute", "--images", "digit_3", "--methods", "saliency,deep_lift,input_x_gradient", "--arrays", arrays,
        "--output", output,
    )  # fmt: skip
    assert status == 130
    assert "interrupted" in error
    assert list(load_result(PredictionAttributions, arrays).maps) == ["saliency"]
    assert json.loads(output.read_text())["unfinished"] == ["deep_lift", "input_x_gradient"]


def test_every_method_answers_about_a_class_or_says_why_not(run):
    names = [name for name, method in ATTRIBUTION_METHODS.items() if "prediction" in method.answers]
    few = [name for name in names if not {"relu", "layer"} & set(ATTRIBUTION_METHODS[name].needs)]
    status, text, error = run(
        "attribute", "--images", "digit_3", "--methods", ",".join(few), "--steps", 4, "--samples", 4, "--format", "json"
    )
    assert status == 0, error
    assert [row["method"] for row in json.loads(text)["attributions"]] == few
    status, text, error = run(
        "attribute", "--images", "digit_3", "--layer", "8", "--steps", 2, "--format", "json", "--methods",
        ",".join(name for name in names if "layer" in ATTRIBUTION_METHODS[name].needs),
    )  # fmt: skip
    assert status == 0, error
