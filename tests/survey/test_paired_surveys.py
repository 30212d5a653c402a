"""Two surveys of the same pictures are compared picture by picture: what both owe to them widens no interval."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from horinsight import MixingAsked, RunningAdaptivity, SurveyOptions, create_model, run_survey, survey_table
from horinsight.mixing.left_out_adaptivity import PartedAdaptivity
from horinsight.mixing.running_adaptivity import SHARES
from horinsight.mixing.variance_sums import VarianceSums
from horinsight.mixing.weight_cells import PairCells
from horinsight.stats import jackknife
from horinsight.survey import part_files, weight_sums
from horinsight.survey.picture_estimates import effect_ratio, independent_difference, mean_difference
from horinsight.survey.survey_manifest import read_manifest
from horinsight.survey.weight_sums import ClassSums, parted_adaptivities, survey_adaptivity

SIDE = 32
REPETITIONS = 2000
LEAST = 0.93  # of repetitions in which an interval of 95 % is to hold the truth


@pytest.fixture(scope="module")
def surveys(tmp_path_factory) -> Path:
    """Mixing of two models at the same eight pictures, of the second also in other parts, and of other pictures."""
    folder = tmp_path_factory.mktemp("surveys")
    noise = np.random.default_rng(0)
    for index in range(8):
        path = folder / "pictures" / ("cats", "dogs")[index // 4] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = 128 + noise.uniform(10, 100) * noise.standard_normal((SIDE, SIDE, 3)).clip(-1, 1)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    for name, seed, size, pictures in (
        ("one", 0, 2, "pictures"),
        ("two", 1, 2, "pictures"),
        ("thirds", 1, 3, "pictures"),
        ("cats", 1, 2, "pictures/cats"),
    ):
        options = SurveyOptions(workers=0, part_size=size, image_size=SIDE)
        model = create_model("hornet_test_iso", seed=seed)
        run_survey(model, folder / pictures, folder / name, question=MixingAsked(blocks=[2]), options=options)
    return folder


def lines_of(table):
    return {(line.group, line.quantity): line for line in table.lines}


def test_every_difference_is_of_the_same_pictures(surveys, run):
    table = survey_table(surveys / "one", compare=surveys / "two")
    assert (table.paired, table.num_paired) == (True, 8)
    lines = lines_of(table)
    assert {line.num_paired for line in table.lines} == {8}
    one, two = (parted_adaptivities(surveys / name, [(2, None)])[2, None] for name in ("one", "two"))
    for quantity in ("input_adaptivity", "location_adaptivity", "static_share", "input_deviation"):
        found = lines["all", quantity].contrast
        left = [one.left_out[part][1][quantity] - two.left_out[part][1][quantity] for part in range(4)]
        assert found.value == lines["all", quantity].estimate.value - lines["all", quantity].other.value
        # parts of one size: the jackknife over them, of the difference
        assert found.standard_error == pytest.approx(jackknife(left, 0.0).standard_error, rel=1e-9)
    status, content, _ = run(
        "survey", "report", surveys / "one", "--compare", surveys / "two", "--by", "class", "--format", "json"
    )
    assert status == 0
    told = json.loads(content)
    assert (told["paired"], told["paired_pictures"]) == (True, 8)
    assert {(row["group"], row["paired"], row["paired_pictures"]) for row in told["rows"]} == {
        ("cats", True, 4),
        ("dogs", True, 4),
    }
    status, text, _ = run("survey", "report", surveys / "one", "--compare", surveys / "two")
    assert "compared picture by picture: 8 pictures that both have" in text


def test_a_survey_against_itself_has_no_difference_and_no_error(surveys):
    for line in survey_table(surveys / "one", compare=surveys / "one").lines:
        assert line.contrast.value == 0.0
        assert line.contrast.standard_error == 0.0


def test_parts_of_other_sizes_are_put_together(surveys):
    """Of two and three pictures a part: the first six of both, and the rest; too few to leave one out."""
    table = survey_table(surveys / "one", compare=surveys / "thirds")
    line = lines_of(table)["all", "input_adaptivity"]
    assert (table.num_paired, line.num_paired) == (8, 8)
    assert line.contrast.value == pytest.approx(line.estimate.value - line.other.value, rel=1e-12)
    assert np.isnan(line.contrast.standard_error)


def test_other_lists_are_independent_and_it_is_said(surveys, run):
    table = survey_table(surveys / "one", compare=surveys / "cats")
    assert (table.paired, table.num_paired) == (False, None)
    for line in table.lines:
        assert line.num_paired is None
        assert line.contrast.value == line.estimate.value - line.other.value or np.isnan(line.contrast.value)
    line = lines_of(table)["all", "mean_distance"]
    assert line.contrast.interval == independent_difference(line.estimate, line.other).interval
    status, text, _ = run("survey", "report", surveys / "one", "--compare", surveys / "cats")
    assert status == 0
    assert "compared as independent samples" in text
    assert "list of pictures" in text


def test_files_of_one_name_in_another_list_are_not_one_picture(surveys, tmp_path):
    """Only the fingerprint of the list says that pictures are the same."""
    manifest = read_manifest(surveys / "two")
    (tmp_path / "parts").mkdir()
    for path in (surveys / "two" / "parts").iterdir():
        (tmp_path / "parts" / path.name).write_bytes(path.read_bytes())
    other = dataclasses.asdict(dataclasses.replace(manifest, pictures_sha256="0" * 64))
    (tmp_path / "manifest.json").write_text(json.dumps(other))
    assert survey_table(surveys / "one", compare=tmp_path).paired is False


def test_what_one_has_not_finished_is_left_out_of_differences(surveys, tmp_path):
    for path in [*(surveys / "two").rglob("*.*")]:
        (tmp_path / path.relative_to(surveys / "two")).parent.mkdir(exist_ok=True)
        (tmp_path / path.relative_to(surveys / "two")).write_bytes(path.read_bytes())
    part_files.part_path(tmp_path, 3).unlink()
    lines = lines_of(survey_table(surveys / "one", compare=tmp_path))
    adapts, far = lines["all", "input_adaptivity"], lines["all", "mean_distance"]
    assert (adapts.num_paired, far.num_paired, far.contrast.count) == (6, 6, 6)
    first = parted_adaptivities(surveys / "one", [(2, None)], [[0], [1], [2]])[2, None].compute()
    assert adapts.contrast.value == pytest.approx(first.input_adaptivity.value - adapts.other.value, rel=1e-12)


def test_means_and_ratios_of_pairs_hold_the_truth_in_narrower_intervals():
    numbers, n = np.random.default_rng(2), 30
    held, widths = np.zeros(4), np.zeros(4)
    truths = (0.5, 0.5, np.sqrt(3 / 2), np.sqrt(3 / 2))
    for _ in range(REPETITIONS):
        scene = numbers.standard_normal(n)  # what a picture does to both
        a, b = (scene + 0.5 * numbers.standard_normal(n) + shift for shift in (0.5, 0.0))
        size = np.exp(0.5 * numbers.standard_normal(n))
        first, other = ((size * numbers.gamma(shape, 1, n), np.ones(n)) for shape in (6, 4))
        found = [mean_difference(a, b, paired=paired) for paired in (True, False)]
        found += [effect_ratio(first, other, paired=paired) for paired in (True, False)]
        for place, (one, truth) in enumerate(zip(found, truths, strict=True)):
            low, high = one.interval
            held[place] += low <= truth <= high
            widths[place] += high - low
    assert (held / REPETITIONS >= LEAST).all()
    assert widths[0] < 0.6 * widths[1]  # sqrt(.5 / 2.5) = .45 of it
    assert widths[2] < 0.9 * widths[3]


def test_differences_of_adaptivity_hold_the_truth_in_narrower_intervals():
    """Sixty pictures in twelve parts through two models whose weights follow the picture alike; 200 repetitions.

    The truth is the mean of the repetitions, since a share depends on how many pictures there are.
    """
    numbers, parts, each, repetitions = torch.Generator().manual_seed(0), 12, 5, 200
    cells = PairCells(torch.ones(3, 2, dtype=torch.bool))
    still = torch.randn(2, 1, 2, 6, generator=numbers, dtype=torch.float64)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=numbers, dtype=torch.float64)

    paired, apart = [], []
    for _ in range(repetitions):
        scene = draw(parts * each, 1, 1) * torch.exp(0.4 * draw(parts * each, 1, 1))
        both = [still[m] + (0.8, 0.6)[m] * scene + 0.3 * draw(parts * each, 2, 6) for m in (0, 1)]
        known = [parted(cells, x, each) for x in both]
        paired.append(known[0].differences(known[1]))
        apart.append(
            {name: independent_difference(*(getattr(one.compute(), name) for one in known)) for name in SHARES}
        )
    for name in ("input_adaptivity", "static_share", "input_deviation"):
        truth = np.mean([one[name].value for one in paired])
        ends = np.array([[one[name].interval for one in kind] for kind in (paired, apart)])
        held = ((ends[..., 0] <= truth) & (truth <= ends[..., 1])).mean(1)
        assert (held >= LEAST).all(), name
        assert np.ptp(ends[0], axis=1).mean() < 0.75 * np.ptp(ends[1], axis=1).mean(), name


def parted(cells: PairCells, x: torch.Tensor, each: int) -> PartedAdaptivity:
    """Adaptivity of weights x, (pictures, C, pairs), kept in parts of so many pictures."""
    found, parts = PartedAdaptivity(), []
    for some in x.split(each):
        parts.append(RunningAdaptivity())
        parts[-1].sums = [VarianceSums.of_batch(cells, some)]
        found.add(parts[-1])
    for number, part in enumerate(parts):
        found.leave_out(number, part)
    return found


def test_a_part_keeps_a_bounded_number_of_classes(surveys, tmp_path, monkeypatch):
    """Beyond it all pictures of the part together: adaptivity of all is what it was, of a class it is not known."""
    monkeypatch.setattr(weight_sums, "MOST_CLASSES", 1)
    few = SurveyOptions(workers=0, part_size=3, image_size=SIDE)
    model = create_model("hornet_test_iso", seed=1)
    run_survey(model, surveys / "pictures", tmp_path / "few", question=MixingAsked(blocks=[2]), options=few)
    whole, expected = (survey_adaptivity(folder, 2) for folder in (tmp_path / "few", surveys / "thirds"))
    assert whole.input_adaptivity.value == pytest.approx(expected.input_adaptivity.value, rel=1e-9)
    assert survey_adaptivity(surveys / "thirds", 2, label="dogs").num_images == 4
    assert survey_adaptivity(tmp_path / "few", 2, label="dogs") is None
    sums = ClassSums()
    for label in "abc":
        sums.update(label, {2: parted(PairCells(torch.ones(1, 1, dtype=torch.bool)), torch.ones(2, 1, 1), 1).total})
    assert {label: kept[2].count for label, kept in sums.by_class.items()} == {"": 6}


def test_sums_are_read_in_chunks_that_fit(surveys, monkeypatch):
    groups = [(2, None), (2, "cats"), (2, "dogs"), (2, "nobody"), (7, None)]
    whole = parted_adaptivities(surveys / "one", groups)
    monkeypatch.setattr(weight_sums, "READ_TOGETHER", 1)
    found = parted_adaptivities(surveys / "one", groups)
    assert list(found) == list(whole) == groups[:3]
    for group in found:
        assert vars(found[group].compute())["input_adaptivity"].value == whole[group].compute().input_adaptivity.value
