import dataclasses
import json
import math
import os
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import horinsight
from horinsight import (
    Adaptivity,
    CaptumSettings,
    Estimate,
    FaithfulnessSums,
    GlobalLocalFilter,
    GnConv,
    InteractionSpectrum,
    MacCount,
    Provenance,
    PublishedRow,
    QueryMaps,
    Rollout,
    RunningAdaptivity,
    SurveyTable,
    Tradeoff,
    captum_scores,
    channel_filters,
    count_macs,
    create_model,
    dense_count,
    faithfulness,
    filter_kernels,
    gnconv_bounds,
    gnconv_terms,
    image_batch,
    influence,
    interaction_places,
    interaction_spectrum,
    load_checkpoint,
    load_image,
    load_result,
    map_agreement,
    measurement_cost,
    mixing_rollout,
    mixing_weights,
    model_adaptivity,
    model_influence,
    model_interaction_spectra,
    model_mixing_weights,
    model_spectrum_comparisons,
    order_growth,
    position_attribution,
    prediction_attribution,
    published_rows,
    query_maps,
    randomized_maps,
    sample_images,
    save_result,
    size_growth,
    table_counts,
)
from horinsight.models.predictions import predictions
from horinsight.models.registry import model_without_weights
from horinsight.result_fields import same
from horinsight.results import Result, ResultSet, plain
from horinsight.survey.survey_results import SurveyLine
from horinsight.training.trainer import EpochLog

SUFFIXES = (".json", ".npz")
OLD = Path(__file__).parent / "data" / "results_0.1.0"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Everything(Result):
    """A field of each kind that results have, and odd values."""

    array: np.ndarray
    maps: dict[str, np.ndarray]
    number: float
    maybe: float | None
    word: str
    pair: tuple[int, int]
    pairs: tuple[tuple[int, float], ...]
    by_count: dict[int, float]
    nested: Estimate
    both: tuple[Estimate, Estimate]
    absent: np.ndarray | None = None


def everything(array: np.ndarray, number: float = 0.5) -> Everything:
    return Everything(
        array=array,
        maps={"stages.0/a": array, "b": array[:0]},
        number=number,
        maybe=number,
        word="NaN",
        pair=(1, 2),
        pairs=((1, number), (2, 0.1)),
        by_count={3: number},
        nested=Estimate(number, math.nan),
        both=(Estimate(1.0, number), Estimate(-0.0, math.inf)),
    )


def identical(a: object, b: object) -> bool:
    """As `same`, by types and bits, written independently of it."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        equal = np.array_equal(a, b) or (a.dtype.kind == "f" and a.shape == b.shape and _equal_floats(a, b))
        return a.dtype == b.dtype and a.shape == b.shape and equal
    if dataclasses.is_dataclass(a):
        return all(identical(getattr(a, part.name), getattr(b, part.name)) for part in dataclasses.fields(a))
    if isinstance(a, dict):
        return list(a) == list(b) and all(identical(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(identical(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return a == b


def _equal_floats(a: np.ndarray, b: np.ndarray) -> bool:
    """Bit for bit, any NaN the same as any other."""
    return bool(np.all((np.isnan(a) & np.isnan(b)) | ((a == b) & (np.signbit(a) == np.signbit(b)))))


def round_trip(result, folder: Path, suffix: str):
    result.save(folder / f"r{suffix}")
    return type(result).load(folder / f"r{suffix}")


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, Result]:
    """Every result of the package."""
    weights = tmp_path_factory.mktemp("weights") / "w.pth"
    torch.save({f"module.{key}": value for key, value in create_model("hornet_test").state_dict().items()}, weights)
    model = create_model("hornet_test")
    images = image_batch(model, [sample_images()["coffee"]])
    small = create_model("hornet_test_iso")
    count = count_macs(small, 96)
    digits = create_model("hornet_digits_iso")
    return {
        "spectrum": interaction_spectrum(GnConv(4, 1).eval(), torch.randn(1, 4, 3, 3), max_order=2, num_tuples=2),
        "cost": measurement_cost(GnConv(4, 1).eval(), torch.randn(1, 4, 3, 3), max_order=2, method="nested"),
        "comparison": next(
            iter(model_spectrum_comparisons((small, small), (images, images), blocks=([1], [2]), num_tuples=2).values())
        ),
        "adaptivity": next(iter(model_adaptivity(small, images).values())),
        "by picture": RunningAdaptivity().update(next(iter(model_mixing_weights(small, images).values()))),
        "maps": query_maps(small, images, [[(1, 2), (3, 4)]]),
        "rollout": mixing_rollout(small, images),
        "influence": influence(torch.nn.Conv1d(2, 2, 3), torch.randn(1, 2, 5), layout="channels_first", probes=1),
        "reach": next(iter(model_influence(small, images, blocks=[2], queries=2).values())),
        "filters": filter_kernels(GlobalLocalFilter(4, h=6, w=4), (6, 6)),
        "channel_filters": channel_filters(mixing_weights(GnConv(4, 1).eval(), torch.randn(1, 4, 3, 3))),
        "count": count,
        "dense": dense_count(model_without_weights("hornet_test"), (64, 64)),
        "table row": table_counts(6, model="g2222")[0],
        "bound": gnconv_bounds(small, 96)[0],
        "bound that does not apply": gnconv_bounds(create_model("hornet_test_gf"), 96)[-1],
        "orders": order_growth(64),
        "sizes": size_growth(64, 2, sides=[7, 14]),
        "terms": gnconv_terms(64, 2, 7, 56, 56),
        "row": published_rows()[0],
        "estimate": Estimate(0.5, math.nan),
        "tradeoff": Tradeoff("T", 82.8, 22.4, 4.0, 3.0, 2.5, math.inf),
        "prediction": predictions(digits, image_batch(digits, [sample_images()["digit_3"]]))[0][0],
        "epoch": EpochLog(1, 0.1, math.nan, 0.5, 0.6),
        "provenance": count.provenance,
        "checkpoint": load_checkpoint(model, weights),
        "survey": survey_of_one_block(),
        **results_of_maps(small, images),
        "places": interaction_places(GnConv(4, 1), torch.randn(1, 4, 3, 3), (1, 1), num_orderings=1),
        "position": position_attribution(small, images, block=2, queries=[(1, 2)], baselines=0.0, steps=2),
        "class": prediction_attribution(small, images, methods=["deep_lift", "saliency"], baselines=0.0),
    }


def survey_of_one_block() -> SurveyTable:
    line = SurveyLine("all", 1, "blocks.0", "effect", 2, Estimate(0.5, 0.1, 4), Estimate(1.0, 0.2, 4))
    return SurveyTable("ie", "m", "random", False, (line,), 4, 5, {"a.png": "is damaged"}, 1, {})


def results_of_maps(model: torch.nn.Module, images: torch.Tensor) -> dict[str, Result]:
    """What is asked of maps of attribution."""
    target, methods = torch.tensor([1]), {"sum": lambda x, t: x.sum(1), "first": lambda x, t: x[:, 0]}
    found = faithfulness(model, images, target, methods, rows=2, columns=2, steps=2, baselines=["mean"])
    return {
        "faithfulness": found,
        "sums of faithfulness": FaithfulnessSums.of(found),
        "agreement": map_agreement({name: method(images, target) for name, method in methods.items()}),
        "randomized": randomized_maps(model, images, target, methods, stages=["head"]),
        "captum": captum_scores(
            model, images, target, {"sum": (methods["sum"], "gradient")}, reference=torch.zeros(3, 1, 1),
            settings=CaptumSettings(num_squares=2, num_draws=0),
        ),
    }  # fmt: skip


NAMES = (
    "spectrum", "comparison", "adaptivity", "by picture", "maps", "rollout", "influence", "reach", "filters", "count",
    "channel_filters", "bound", "bound that does not apply", "orders",
    "dense", "table row", "sizes", "terms", "row", "estimate", "tradeoff", "prediction", "epoch", "provenance",
    "checkpoint", "faithfulness", "sums of faithfulness", "agreement", "randomized", "captum", "places", "position",
    "class", "cost", "survey",
)  # fmt: skip


def test_every_kind_is_tried(results):
    assert set(NAMES) == set(results)
    tried = {type(result).__name__ for result in results.values()}
    assert tried | {"Everything"} == set(Result.kinds)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", NAMES)
def test_every_field_of_every_result_comes_back_as_it_was(results, tmp_path, name, suffix):
    result = results[name]
    found = round_trip(result, tmp_path, suffix)
    assert identical(found, result)
    assert found == result
    assert os.listdir(tmp_path) == [f"r{suffix}"]
    if suffix == ".json":
        text = (tmp_path / "r.json").read_text()
        json.loads(text, parse_constant=lambda token: pytest.fail(f"{token} is no JSON"))


@pytest.mark.parametrize("name", NAMES)
def test_every_result_shows_itself_briefly_and_as_a_table(results, name):
    result = results[name]
    shown = repr(result)
    assert shown.startswith(type(result).__name__ + "(")
    assert "\n" not in shown
    assert len(shown) < 700
    frame = result.to_frame()
    assert len(frame) >= 1
    html = result._repr_html_()
    assert html.count("<tr") <= 22
    if getattr(result, "provenance", None) is not None:
        assert set(frame["model"]) == {result.provenance.model}


def test_measurements_say_what_they_are_and_where_they_come_from(results):
    of_maps = ("faithfulness", "randomized", "captum")
    of_measures = ("comparison", "adaptivity", "maps", "rollout", "reach", "count", "bound", "position", "class")
    for name in (*of_measures, *of_maps):
        assert results[name].convention, name
        assert results[name].provenance.model == "hornet_test_iso", name
    for name in ("comparison", "adaptivity", "maps", "rollout", "reach", *of_maps):
        assert results[name].provenance.images[0].startswith("coffee (sha256 "), name


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(
    array=hnp.arrays(
        st.sampled_from(["f2", "f4", "f8", ">f4", "i1", "u1", "i4", "i8", "u8", "?", "U3"]),
        hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=3),
    ),
    number=st.floats(),
)
def test_any_array_and_any_number_come_back(tmp_path_factory, suffix, array, number):
    result = everything(array, number)
    assert identical(round_trip(result, tmp_path_factory.mktemp("any"), suffix), result)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_odd_arrays_come_back(tmp_path, suffix):
    for array in (
        np.array(3.5),
        np.zeros((0, 3), dtype=np.float32),
        np.array([math.nan, math.inf, -math.inf, -0.0]),
        np.full((2, 2), math.nan, dtype=np.float32),
        np.array(["NaN", "Infinity"]),
    ):
        result = Everything(**{**vars(everything(np.zeros(1))), "array": array})
        assert identical(round_trip(result, tmp_path, suffix), result)


def test_json_is_readable(tmp_path):
    save_result(everything(np.array([1.0, math.nan, math.inf])), tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["array"] == [1.0, None, "Infinity"]
    assert content["nested"] == {"value": 0.5, "standard_error": None, "count": None, "ends": None}
    save_result(everything(np.array([[7]], dtype=np.uint8)), tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["array"] == {"dtype": "uint8", "shape": [1, 1], "values": [[7]]}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_of_version_0_1_0_load(suffix):
    """Written by that version from the values below, float32 maps and uint8 pictures among them."""
    maps = load_result(QueryMaps, OLD / f"maps{suffix}")
    np.testing.assert_array_equal(maps.maps["blocks.0"], np.array([[[0.5, -0.25]]], dtype=np.float32))
    assert maps.image_names == ("cat",)
    assert maps.provenance.images == ("cat",)
    adaptivity = load_result(Adaptivity, OLD / f"adaptivity{suffix}")
    assert adaptivity.input_adaptivity.value == 0.5
    assert math.isnan(adaptivity.input_adaptivity.standard_error)
    assert adaptivity.provenance is None
    spectrum = load_result(InteractionSpectrum, OLD / f"spectrum{suffix}")
    assert spectrum.effects.tolist() == [1.0, 0.5, 0.0]
    assert spectrum.exact_zero.dtype == bool


def test_a_file_with_something_else(tmp_path):
    for name, content in {"a.json": "{}", "b.json": "[1]", "c.json": "not json", "d.npz": "zip"}.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match="does not hold a horinsight result"):
            load_result(InteractionSpectrum, tmp_path / name)
    save_result(Estimate(1.0, 0.5), tmp_path / "e.json")
    with pytest.raises(ValueError, match="holds a Estimate, expected a Provenance"):
        load_result(Provenance, tmp_path / "e.json")
    (tmp_path / "f.json").write_text('{"result": "Estimate", "value": 1.0}')
    with pytest.raises(ValueError, match="does not hold a whole Estimate"):
        Estimate.load(tmp_path / "f.json")
    with pytest.raises(ValueError, match=r"\.json or \.npz"):
        save_result(Estimate(1.0, 0.5), tmp_path / "e.pkl")
    with pytest.raises(TypeError, match="results"):
        save_result({"a": 1}, tmp_path / "e.json")


def test_plain_json_has_no_nan():
    value = {"a": (np.float32(1.5), np.bool_(True), float("inf")), "b": np.array([[1, 2]])}
    assert json.dumps(plain(value), allow_nan=False) == '{"a": [1.5, true, null], "b": [[1, 2]]}'


def test_equality_is_of_every_field_with_its_dtype():
    first = everything(np.array([1.0, math.nan]), math.nan)
    assert first == everything(np.array([1.0, math.nan]), math.nan)
    assert hash(first) == hash(everything(np.array([1.0, math.nan]), math.nan))
    assert first != everything(np.array([1.0, 2.0]), math.nan)
    assert first != everything(np.array([1.0, math.nan], dtype=np.float32), math.nan)
    assert first != everything(np.array([[1.0, math.nan]]), math.nan)
    assert first != everything(np.array([1.0, math.nan]), 1.0)
    assert Estimate(1.0, 0.5) != (1.0, 0.5)
    assert not same([1], (1,))
    assert not same({"a": 1}, {"b": 1})


def test_tables_are_tidy(results):
    spectrum = results["spectrum"].to_frame()
    assert spectrum["k"].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(spectrum["effect"], results["spectrum"].effects)
    assert spectrum["exact_zero"].dtype == bool
    found = results["adaptivity"].to_frame().set_index("quantity")
    assert found.loc["mean_distance", "value"] == results["adaptivity"].mean_distance.value
    assert len(found) == 9
    rollout = results["rollout"]
    frame = rollout.to_frame().set_index(["image", "position", "source"])
    assert frame.loc[(0, 3, 5), "weight"] == rollout.weights[0, 3, 5]
    influences = results["reach"].influence
    frame = influences.to_frame().set_index(["query_row", "query_col", "row", "col"])
    assert frame.loc[(*influences.queries[1], 2, 5), "influence"] == influences.maps[0, 1, 2, 5]
    assert results["influence"].to_frame()["query_position"].tolist() == [0] * 5 + [1] * 5 + [2] * 5
    found = results["reach"].to_frame().set_index("quantity")
    assert found.loc["radius_90", "value"] == results["reach"].radii[0, :, 1].mean()
    assert found.loc["total", "num_queries"] == 2
    maps = results["maps"].to_frame()
    values = results["maps"].maps["blocks.1.gnconv"]
    chosen = maps[(maps["block"] == 2) & (maps["row"] == 4) & (maps["col"] == 1) & (maps["query_row"] == 3)]
    assert chosen["h"].tolist() == [values[1, 4, 1]]
    count = results["count"].to_frame()
    assert count[(count["module"] == "") & (count["column"] == "linear")]["count"].tolist() == [
        results["count"].by_column["linear"]
    ]
    filters = results["filters"].to_frame().set_index(["channel", "row", "col"])
    assert filters.loc[(1, 2, 3), "kernel"] == results["filters"].kernel[1, 2, 3]
    assert results["orders"].to_frame()["orders"].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert len(results["row"].to_frame()) == 1


@pytest.fixture(scope="module")
def spectra() -> ResultSet[InteractionSpectrum]:
    model = create_model("hornet_test_iso")
    return model_interaction_spectra(model, image_batch(model, [sample_images()["coffee"]]), num_tuples=2)


def test_results_of_a_model_are_a_mapping(spectra):
    names = ["blocks.0.gnconv", "blocks.1.gnconv", "blocks.2.gnconv"]
    assert isinstance(spectra, ResultSet)
    assert list(spectra) == list(spectra.keys()) == names
    assert spectra == dict(spectra)
    assert {**spectra} == spectra
    assert spectra["blocks.0.gnconv"].location_order == 3
    assert "blocks.7" not in spectra
    assert spectra.get("blocks.7") is None
    assert json.loads(json.dumps(plain(spectra)))["blocks.0.gnconv"]["location_order"] == 3
    assert repr(spectra) == "ResultSet(3 x InteractionSpectrum: blocks.0.gnconv, blocks.1.gnconv, blocks.2.gnconv)"
    assert spectra.provenance == spectra["blocks.0.gnconv"].provenance
    assert spectra.convention["scope"] == "mixer"
    with pytest.raises(TypeError):
        spectra["x"] = spectra["blocks.0.gnconv"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_set_of_results_is_kept_whole(tmp_path, spectra, suffix):
    for found in (round_trip(spectra, tmp_path, suffix), load_result(ResultSet, tmp_path / f"r{suffix}")):
        assert found == spectra
        assert list(found) == list(spectra)
        assert identical(dict(found), dict(spectra))
    nothing = ResultSet({})
    assert round_trip(nothing, tmp_path, suffix) == nothing
    assert len(nothing.to_frame()) == 0
    spectra.save(tmp_path / f"s{suffix}")
    with pytest.raises(ValueError, match="holds a ResultSet, expected a Rollout"):
        Rollout.load(tmp_path / f"s{suffix}")
    with pytest.raises(TypeError, match="of one kind"):
        save_result(ResultSet({"a": Estimate(1.0, 1.0), "b": published_rows()[0]}), tmp_path / f"t{suffix}")


def test_a_set_of_a_kind_that_nobody_knows(tmp_path):
    (tmp_path / "a.json").write_text('{"result": "ResultSet", "kind": "os", "results": {}}')
    with pytest.raises(ValueError, match="no result of this version"):
        ResultSet.load(tmp_path / "a.json")


def test_the_table_of_a_set_has_a_row_a_block_and_order(spectra):
    frame = spectra.to_frame()
    assert list(frame.columns[:4]) == ["block", "model", "trained", "k"]
    for name, group in frame.groupby("block"):
        np.testing.assert_array_equal(group["effect"], spectra[name].effects)
    assert "<table" in spectra._repr_html_()


def test_provenance_is_the_same_from_python_as_from_the_shell(run, tmp_path, monkeypatch):
    sample_images()["rocket"].save(tmp_path / "own.png")
    monkeypatch.chdir(tmp_path)
    chosen = ["--model", "hornet_test_iso", "--images", "own.png", "coffee", "coffee", "--query", "1,2"]
    status, _, error = run("mixing", *chosen, "--output", "maps")
    assert status == 0, error
    model = create_model("hornet_test_iso")
    coffee = sample_images()["coffee"]
    images = image_batch(model, [load_image("own.png"), coffee, coffee])
    maps = query_maps(model, images, [[(1, 2)]] * 3)
    assert maps == QueryMaps.load("maps/mixing.npz")
    assert maps.provenance.images == images.image_names == maps.image_names
    assert [name.split(" (")[0] for name in images.image_names] == ["own.png", "coffee", "coffee"]
    assert images.image_names[2] == images.image_names[1] + " again"
    _, text, _ = run("ie", "--model", "hornet_test_iso", "--images", "coffee", "--tuples", 1, "--format", "json")
    spectra = model_interaction_spectra(model, image_batch(model, [coffee]), num_tuples=1)
    assert list(spectra.provenance.images) == json.loads(text)["images"]
    assert spectra.provenance.model == json.loads(text)["model"]
    assert mixing_rollout(model, images).provenance == maps.provenance
    assert model_adaptivity(model, images).provenance == maps.provenance
    plain_tensor = images[:1]
    assert model_adaptivity(model, plain_tensor).provenance.images == ("1 given as a tensor",)
    named = model_adaptivity(model, plain_tensor, image_names=["mine"], model_name="other").provenance
    assert (named.images, named.model) == (("mine",), "other")


def test_public_results_are_of_one_form():
    kinds = [getattr(horinsight, name) for name in horinsight.__all__]
    kinds = [kind for kind in kinds if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
    others = {kind.__name__ for kind in kinds if not issubclass(kind, Result)}
    options = {
        "SpectrumOptions", "InfluenceOptions", "FaithfulnessOptions", "CaptumSettings", "AttributionOptions",
        "DetectorOptions", "SurveyOptions", "EffectsAsked", "MixingAsked", "ReachAsked",
    }  # fmt: skip
    holders = {
        "FoundMixer",
        "MixingBlock",
        "MixingWeights",
        "PositionModel",
        "PositionPaths",
        "QueryTable",
    }  # of modules and tensors, for further computation
    assert others == holders | options | {"AttributionMethod", "MixerFamily", "PictureBaseline"}
    assert {MacCount, PublishedRow} <= set(kinds)
