"""Saved results in the viewer: every kind is read and shown, two are compared, and hostile files get one line each."""

import io
import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest
from test_service import said, told, turn_to, visit

import horinsight
from horinsight.interaction.spectrum import InteractionSpectrum
from horinsight.interaction.spectrum_comparison import compare_spectra
from horinsight.mixing.mixing_results import Adaptivity, FilterKernels, QueryMaps
from horinsight.mixing.reach_results import Influence, Reach
from horinsight.results import Provenance, Result, ResultSet, result_bytes
from horinsight.stats import Estimate
from horinsight.survey.part_files import Part, write_part
from horinsight.survey.picture_rows import PictureRow
from horinsight.survey.survey_manifest import SurveyManifest, keep_manifest
from horinsight.survey.survey_results import SurveyLine, SurveyTable
from horinsight.viewer.service.bounded_files import MOST_UNPACKED
from horinsight.viewer.service.result_differences import result_difference
from horinsight.viewer.service.result_figures import DRAWN, result_figure
from horinsight.viewer.service.result_folder import result_in_folder, result_names
from horinsight.viewer.service.saved_results import Saved, fitting, saved_result
from horinsight.viewer.service.survey_reports import table_of_report

OWNED = Path("/tmp/horinsight_a_pickle_ran")
NAME = "<b>[x](http://evil.invalid)</b> :red[y]"
ORIGIN = Provenance("model", "random, seed 0", False, "ab" * 32, ("coffee (sha256 12)",), 0)


def spectrum(factor: float = 1.0, **more: object) -> InteractionSpectrum:
    effects = factor * np.array([2.0, 1.0, 0.0])
    return InteractionSpectrum(
        effects=effects, ci_low=effects / 2, ci_high=2 * effects, exact_zero=effects == 0, max_share=np.zeros(3),
        location_order=1, degree_order=1, at_least=None, num_draws=8, seed=0, provenance=ORIGIN, **more,
    )  # fmt: skip


def maps(shift: float = 0.0, size: int = 4) -> QueryMaps:
    values = np.random.default_rng(0).normal(size=(1, size, size)) + shift
    return QueryMaps(
        maps={"a": values}, queries={"a": np.array([[1, 2]])}, pictures=np.zeros((1, 8, 8, 3), np.uint8),
        picture_of_entry=np.array([0]), block_indices=(1,), image_names=("coffee",), reconstruction_errors=(0.0,),
        provenance=ORIGIN,
    )  # fmt: skip


def adaptivity(value: float, error: float = 0.1) -> Adaptivity:
    return Adaptivity(*[Estimate(value, error)] * 9, num_images=4, provenance=ORIGIN)


def survey(model: str = "m", value: float = 2.0) -> SurveyTable:
    lines = [
        SurveyLine(label, block, f"b{block}", "order_at_least", None, Estimate(value + block, 0.5, 9))
        for label in ("cat", "dog")
        for block in (1, 2)
    ]
    lines += [SurveyLine("cat", 1, "b1", "effect", 1, Estimate(0.5 * value, 0.1, 9))]
    return SurveyTable("ie", model, "random, seed 0", False, tuple(lines), 9, 9, {}, 0, {})


def reach() -> Reach:
    squares = np.ones((1, 1, 4, 4))
    field = Influence(squares, np.zeros_like(squares), np.array([[1, 1]]), (4, 4), 2, 0)
    return Reach(field, np.ones((1, 1, 3)), np.full((1, 1, 3), 16.0), np.ones((1, 1)), provenance=ORIGIN)


def every_kind() -> dict[str, object]:
    model = horinsight.create_model("hornet_test_iso")
    images = horinsight.image_batch(model, [horinsight.sample_images()["coffee"]])
    return {
        "spectrum": spectrum(),
        "spectra": ResultSet({"a": spectrum(), "b": spectrum(2)}),
        "maps": maps(),
        "adaptivity": ResultSet({"a": adaptivity(0.5)}),
        "filters": FilterKernels(np.ones((2, 4, 4)), np.ones((2, 4, 4)), "gf"),
        "reach": ResultSet({"a": reach()}),
        "attributions": horinsight.prediction_attribution(model, images, methods=["saliency"]),
        "survey": survey(),
        "cost": horinsight.count_macs(model, 96),
    }


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_every_kind_is_read_as_it_was_saved_and_drawn(suffix):
    for name, result in every_kind().items():
        found = saved_result(f"{name}{suffix}", result_bytes(result, suffix))
        assert type(found.result) is type(result), name
        if isinstance(result, Result):
            assert found.result == result, name
        figure = result_figure(found.parts)
        assert (figure is None) == (found.kind not in DRAWN), name
        assert len(found.result.to_frame()), name


def test_results_of_the_first_version_are_read():
    for path in sorted((Path(__file__).parents[1] / "data" / "results_0.1.0").iterdir()):
        if path.suffix in (".npz", ".json"):
            assert saved_result(path.name, path.read_bytes()).parts, path


def test_reports_of_surveys_are_tables_again():
    from horinsight.cli.survey_report_command import survey_report

    table = survey()
    report = survey_report(table)
    found = saved_result("a.json", report.json().encode()).result
    assert found.lines[-1].estimate.value == table.lines[-1].estimate.value
    assert [line.estimate.interval for line in found.lines] == [line.estimate.interval for line in table.lines]
    assert (found.question, found.model, found.num_pictures) == ("ie", "m", 9)
    of_csv = saved_result("a.csv", report.csv().encode()).result
    assert [line.estimate for line in of_csv.lines] == [line.estimate for line in found.lines]
    assert result_figure({"": of_csv}) is not None


# hostile files


class Owned:
    def __reduce__(self):
        return (OWNED.touch, ())


def zipped(parts: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", how) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return stream.getvalue()


def npy(array: np.ndarray, **more: bool) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **more)
    return stream.getvalue()


def npy_header(shape: tuple[int, ...], dtype: str) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue() + bytes(8)


def result_npz(text: str, **arrays: bytes) -> bytes:
    return zipped({"__result__.npy": npy(np.array(text)), **{f"{name}.npy": part for name, part in arrays.items()}})


def edited(**fields: object) -> bytes:
    """A spectrum in JSON with other fields."""
    return json.dumps({**json.loads(result_bytes(spectrum(), ".json")), **fields}).encode()


def lying_zip() -> bytes:
    """A member that says that it is small and unpacks to more."""
    content = bytearray(zipped({"__result__.npy": bytes(10**6)}))
    for place in [match.start() for match in re.finditer(rb"\x40\x42\x0f\x00", bytes(content))]:
        content[place : place + 4] = (100).to_bytes(4, "little")
    return bytes(content)


ESTIMATE = {"value": 1.0, "standard_error": 0.0}
HOSTILE = {  # name of the file, its content, what is said of it
    "empty": ("a.npz", b"", "no whole zip"),
    "cut": ("a.npz", result_bytes(spectrum(), ".npz")[:400], "no whole zip"),
    "no zip": ("a.npz", b"PK\x03\x04" + bytes(100), "no whole zip"),
    "pickle": ("a.npz", zipped({"__result__.npy": npy(np.array(Owned(), object), allow_pickle=True)}), "pickle"),
    "pickle beside": ("a.npz", result_npz("{}", x=npy(np.array([Owned()], object), allow_pickle=True)), "pickle"),
    "pickle alone": ("a.npz", __import__("pickle").dumps(Owned()), "no whole zip"),
    "pickle in a member": ("a.npz", zipped({"__result__.npy": __import__("pickle").dumps(Owned())}), "is no array"),
    "bomb": ("a.npz", zipped({"__result__.npy": bytes(MOST_UNPACKED + 1)}), "at most 64 MB are unpacked"),
    "many": ("a.npz", zipped({f"{place}.npy": b"" for place in range(4001)}), "at most 4000 are read"),
    "bzip2": ("a.npz", zipped({"__result__.npy": bytes(1000)}, zipfile.ZIP_BZIP2), "other means than deflate"),
    "lies": ("a.npz", lying_zip(), "cannot be read"),
    "huge header": ("a.npz", result_npz("{}", x=npy_header((10**12,), "<f8")), "another size than it says"),
    "negative header": ("a.npz", result_npz("{}", x=npy_header((-1,), "<f8")), "another size than it says"),
    "wide text": ("a.npz", result_npz("{}", x=npy_header((1,), "<U200000000")), "another size than it says"),
    "records": ("a.npz", result_npz("{}", x=npy(np.zeros(2, "i4,f8"))), "numbers or texts are expected"),
    "no result": ("a.npz", zipped({"x.npy": npy(np.zeros(3))}), "no result of horinsight"),
    "deep in npz": ("a.npz", result_npz("[" * 5000 + "]" * 5000), "nested deeper than 40"),
    "other npz": ("a.npz", result_npz('{"result": "Tensor"}'), "no result of this version"),
    "deep": ("a.json", b'{"result":' + b"[" * 10**6, "nested deeper than 40"),
    "deep objects": ("a.json", b'{"a":' * 100 + b"1" + b"}" * 100, "nested deeper than 40"),
    "a text without an end": ("a.json", b'{"a": "' + b'\\"' * 4_000_000 + b"\\", "no JSON"),
    "a long text": ("a.json", edited(target="x" * 5000), "at most 4000 are read"),
    "a long name": ("a.json", edited(**{"x" * 5000: 1}), "at most 4000 are read"),
    "many results": (
        "a.json",
        json.dumps(
            {"result": "ResultSet", "kind": "Estimate", "results": dict.fromkeys(map(str, range(401)), ESTIMATE)}
        ).encode(),
        "at most 400 are read",
    ),
    "wide CSV": ("a.csv", b"model,block,quantity,value" + b",x" * 10**6 + b"\n" * 10**5, "too many columns"),
    "long CSV": ("a.csv", b"model,block,quantity,value\n" + b"m,1,effect,1\n" * 200_000, "or more than 100000"),
    "no JSON": ("a.json", b"\xff\xfe{}", "no JSON"),
    "list": ("a.json", b"[]", "an object is expected"),
    "long": ("a.json", b'{"a": "' + b"x" * 11 * 2**20 + b'"}', "at most 10 MB are read"),
    "long number": ("a.json", b'{"result": ' + b"9" * 5000 + b"}", "no JSON"),
    "other JSON": ("a.json", b'{"x": 1}', "neither of save_result"),
    "markup": ("a.json", json.dumps({"result": NAME}).encode(), "no result of this version"),
    "a function": ("a.json", b'{"result": "create_model"}', "no result of this version"),
    "a module": ("a.json", b'{"result": "__path__"}', "no result of this version"),
    "no name": ("a.json", b'{"result": ""}', "does not say what result"),
    "missing fields": ("a.json", b'{"result": "InteractionSpectrum"}', "whole InteractionSpectrum"),
    "strange fields": ("a.json", edited(__class__="x"), "whole InteractionSpectrum"),
    "words": ("a.json", edited(effects="x"), "expected an array of numbers"),
    "words in a number": ("a.json", edited(seed="x"), "expected int"),
    "objects": ("a.json", edited(effects=[{"a": 1}]), "expected an array of numbers"),
    "ragged": ("a.json", edited(effects=[[1.0], [1.0, 2.0]]), "whole InteractionSpectrum"),
    "large whole numbers": ("a.json", edited(effects=[10**400]), "cannot be read"),
    "dtype of objects": ("a.json", edited(effects={"dtype": "O", "shape": [1], "values": [1]}), "an array of O"),
    "wide dtype": (
        "a.json",
        edited(effects={"dtype": "<U999999", "shape": [99], "values": ["x"] * 99}),
        "texts that is too large",
    ),
    "one long text": ("a.json", edited(effects=["x"] * 20_000 + ["y" * 4000]), "texts that is too large"),
    "empty set": ("a.json", b'{"result": "ResultSet", "kind": null, "results": {}}', "empty set"),
    "set of nothing": ("a.json", b'{"result": "ResultSet", "results": 3}', "whole ResultSet"),
    "half a report": ("a.json", b'{"question": "ie", "rows": []}', "not a whole report"),
    "strange rows": ("a.json", b'{"question": "ie", "rows": [3], "weights": 1, "pictures": 2}', "not a whole report"),
    "no table": ("a.csv", b"\x00\x01,\n\n", "no report of a survey"),
    "wrong table": ("a.csv", b"model,block,quantity,value\nm,x,effect,1\n", "cannot be read"),
    "no survey": ("a.zip", zipped({"../../evil": b"x"}), "zip without a survey"),
    "strange survey": ("a.zip", zipped({"manifest.json": b"{}", "../parts/x": b"x"}), "not the manifest"),
    "another end": ("a.exe", b"MZ", "ends in none of"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_get_one_line(what):
    name, content, words = HOSTILE[what]
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        saved_result(name, content)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 700
    assert not OWNED.exists()


@pytest.mark.parametrize(
    "result",
    [
        {"ci_low": [1.0]},
        {"exact_zero": [[True]]},
        {"effects": [1.0, 1e308, None], "ci_high": ["Infinity", "Infinity", "Infinity"]},
    ],
    ids=["short", "of another shape", "odd numbers"],
)
def test_numbers_that_do_not_fit_together_get_one_line_or_a_figure(result):
    found = saved_result("a.json", edited(**result))
    caught = []
    for work in (lambda: result_figure(found.parts), found.result.to_frame):
        try:
            with fitting(found.name):
                work()
        except ValueError as error:
            caught.append(str(error))
    assert all(re.fullmatch(r"a\.json: its numbers do not fit together .*", line) for line in caught), caught


def test_maps_that_are_too_large_to_draw_are_refused():
    found = saved_result("a.npz", result_bytes(maps(size=600), ".npz"))
    with pytest.raises(ValueError, match="600x600 is drawn up to 512x512"), fitting(found.name):
        result_figure(found.parts)


def test_orders_without_end_are_not_drawn():
    many = np.ones(41)
    spectra = spectrum()
    long = replace(spectra, effects=many, ci_low=many, ci_high=many, exact_zero=many > 2, max_share=many)
    lines = tuple(SurveyLine("all", 1, "b", "effect", k, Estimate(1.0, 0.1)) for k in range(41))
    for result in (long, replace(survey(), lines=lines)):
        found = saved_result("a.json", result_bytes(result, ".json"))
        with pytest.raises(ValueError, match="41 orders are drawn up to 40"), fitting(found.name):
            result_figure(found.parts)


# two of them


def test_differences_are_those_of_the_package():
    ratios = result_difference({"": spectrum(3)}, {"": spectrum()}).frame
    known = compare_spectra(spectrum(3), spectrum())
    np.testing.assert_allclose(ratios["ratio"], known.ratios)
    np.testing.assert_allclose(ratios["low"], known.ci_low)
    apart = result_difference({"": maps(0.5)}, {"": maps()})
    assert apart.frame["largest |difference|"].tolist() == pytest.approx([0.5])
    assert apart.frame["correlation"].tolist() == pytest.approx([1.0])
    assert apart.figure is not None
    change = result_difference({"a": adaptivity(0.7, 0.3)}, {"a": adaptivity(0.5, 0.4)}).frame
    assert change["difference"].tolist() == pytest.approx([0.2] * 9)
    assert (change["high"] - change["low"]).tolist() == pytest.approx([2 * 1.959964 * 0.5] * 9)
    lines = result_difference({"": survey(value=3.0)}, {"": survey()})
    assert lines.frame["contrast_value"].tolist() == pytest.approx([1.0] * 4 + [1.5])
    assert lines.figure is not None
    other = result_difference({"": FilterKernels(np.ones((1, 2, 2)), np.ones((1, 2, 2)), "a")},
                              {"": FilterKernels(np.ones((1, 2, 2)), np.zeros((1, 2, 2)), "b")}).frame  # fmt: skip
    assert dict(zip(other["field"], other["largest |difference|"], strict=True)) == {"magnitude": 0.0, "kernel": 1.0}


def test_what_does_not_fit_says_why():
    two = {"a": spectrum(), "b": spectrum()}
    for first, second, why in (
        ({"": spectrum()}, {"": maps()}, "the first is of InteractionSpectrum, the second of QueryMaps"),
        ({"": maps()}, {"": maps(size=5)}, "1x4x4 and 1x5x5"),
        (two, {"c": spectrum()}, "no name of a block in common"),
        ({"": spectrum()}, {"": spectrum(target="images like these")}, "these images"),
        ({"": survey()}, {"": SurveyTable("reach", "m", "w", None, survey().lines, 1, 1, {}, 0, {})}, "of reach"),
    ):
        with pytest.raises(ValueError, match=re.escape(why)):
            result_difference(first, second)


# the folder, and the page


def write_survey(folder: Path) -> None:
    """A finished survey of reach over four pictures of two classes."""
    settings = {"probes": 4}
    block = {"index": 1, "name": "blocks.0", "mixer": "gnconv"}
    manifest = SurveyManifest("reach", "m", "random", False, "ab", settings, [block], 4, "here", "cd", 4, {})
    keep_manifest(manifest, folder)
    quantities = [f"radius_{share}{unit}" for share in (50, 90, 99) for unit in ("", "_pixels")]
    rows = [
        [PictureRow(1, "blocks.0", name, None, float(place + 1)) for name in (*quantities, "total")]
        for place in range(4)
    ]
    (folder / "parts").mkdir()
    write_part(folder, Part(0, 0, ("a", "b", "c", "d"), ("cat", "cat", "dog", "dog")), rows)


def test_a_survey_is_read_from_its_folder_and_from_a_zip_of_it(tmp_path):
    write_survey(tmp_path / "reach")
    assert result_names(tmp_path) == ["reach/"]
    (values,) = {line.estimate.value for line in result_in_folder(tmp_path, "reach/").result.lines}
    assert values == 2.5
    by_class = result_in_folder(tmp_path, "reach/", by="class").result
    assert {(line.group, line.estimate.value) for line in by_class.lines} == {("cat", 1.5), ("dog", 3.5)}
    files = {str(path.relative_to(tmp_path)): path for path in (tmp_path / "reach").rglob("*") if path.is_file()}
    content = zipped({name: path.read_bytes() for name, path in files.items()})
    found = saved_result("reach.zip", content).result
    assert [line.estimate.interval for line in found.lines] == [line.estimate.interval for line in by_class.lines]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    found = tmp_path_factory.mktemp("saved") / "inside"
    found.mkdir()
    spectrum().save(found / "a.json")
    spectrum(2).save(found / "b.npz")
    maps().save(found / "maps.npz")
    (found / "evil.npz").write_bytes(HOSTILE["pickle"][1])
    (found.parent / "secret.json").write_text("secret")
    (found / "link.json").symlink_to(found.parent / "secret.json")
    return found


def test_a_folder_gives_what_lies_in_it_alone(folder):
    assert result_names(folder) == ["a.json", "b.npz", "evil.npz", "maps.npz"]
    assert result_in_folder(folder, "a.json").result == spectrum()
    for name in ("link.json", "../secret.json", str(folder / "a.json"), "", "/"):
        with pytest.raises(ValueError, match="No result of that name"):
            result_in_folder(folder, name)


def page_of(**address: str) -> AppTest:
    at = turn_to(visit(**address), "Results").run(timeout=60)
    assert not at.exception, [one.value for one in at.exception]
    return at


def test_files_are_dropped_in():
    at = page_of()
    assert "Nothing yet" in said(at)
    good = ("mine.npz", result_bytes(maps(), ".npz"), "application/octet-stream")
    at.file_uploader(key="result_files").set_value([good]).run(timeout=60)
    assert not at.exception
    assert "random, seed 0 (untrained" in said(at)
    assert at.get("image")
    assert len(at.dataframe[0].value) == 16
    at.file_uploader(key="result_files").set_value([("x.npz", HOSTILE["pickle"][1], "x/y")]).run(timeout=60)
    assert [line for line in told(at, "error") if "pickle" in line]
    assert not OWNED.exists()


def test_two_of_the_folder_are_compared_and_the_address_says_which(folder, monkeypatch):
    from horinsight.viewer.service import settings as module

    given = module.Settings(module.MODELS, None, results=folder)
    monkeypatch.setattr("horinsight.viewer.views.saved.settings", lambda: given)
    at = page_of(result="b.npz", result_b="a.json")
    assert at.dataframe[0].value["ratio"].tolist()[:2] == [2.0, 2.0]
    assert "drawn independently" in said(at)
    at = page_of(result="maps.npz", result_b="a.json")
    assert told(at, "info") == ["No difference: the first is of QueryMaps, the second of InteractionSpectrum."]
    assert page_of(result="evil.npz").dataframe.len == 0
    assert told(page_of(result="evil.npz"), "error")


def test_names_and_numbers_from_files_are_plain_text(tmp_path):
    one = Saved("a", spectrum())
    assert one.words == "InteractionSpectrum"
    bad = json.loads(result_bytes(ResultSet({NAME: spectrum()}), ".json"))
    bad["results"][NAME]["provenance"]["model"] = NAME
    at = page_of()
    at.file_uploader(key="result_files").set_value([(f"{NAME[:3]}.json", json.dumps(bad).encode(), "x/y")]).run(
        timeout=60
    )
    assert not at.exception
    assert NAME in said(at)
    assert not [one for kind in (at.markdown, at.caption, at.info) for one in kind if "evil" in one.value]


def test_a_table_of_a_report_needs_all_of_it():
    with pytest.raises(ValueError, match="not a whole report"):
        table_of_report({"question": "ie"})
