"""From the rows of a survey to its table: by class, and compared with another survey."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from horinsight.mixing.left_out_adaptivity import PartedAdaptivity
from horinsight.stats import Estimate
from horinsight.survey.common_pictures import TwoSurveys
from horinsight.survey.part_files import finished_parts
from horinsight.survey.picture_estimates import (
    effect_ratio,
    independent_difference,
    mean_difference,
    mean_estimate,
    pooled_effect,
)
from horinsight.survey.picture_rows import ERROR
from horinsight.survey.quantity_values import Cell, QuantityValues, quantity_values
from horinsight.survey.survey_frame import load_survey
from horinsight.survey.survey_manifest import SurveyManifest, differences, read_manifest
from horinsight.survey.survey_results import ALL, SurveyLine, SurveyTable
from horinsight.survey.weight_sums import MOST_CLASSES, parted_adaptivities

MEANS = {  # by question, the quantities whose means over pictures are reported
    "ie": ("order_at_least",),
    "mixing": ("mean_distance", "mean_distance_pixels", "effective_positions", "negative_share"),
    "reach": (*(f"radius_{share}{unit}" for unit in ("", "_pixels") for share in (50, 90, 99)), "total"),
}
SQUARES = ("mean_square", "output_square")  # of which effects are made
OVER_PICTURES = ("input_adaptivity", "location_adaptivity", "static_share", "input_deviation", "location_deviation")
SHOWN_UNREADABLE = 100

CONVENTION = {
    "intervals": "95 %, over pictures like these; all numbers of a picture are one draw",
    "effect": "sqrt(sum of mean_square / sum of output_square) over pictures, each with its own spreads and draws",
    "order_at_least": "mean over pictures of the order, or of the highest order measured where it is open",
    "adaptivity": "over the pictures of a group, from sums of their weights; standard errors leave one part out; of a "
    f"class not known where a part has more than {MOST_CLASSES} classes",
    "contrast": "differences; of effects ratios",
}
PAIRED = "; by the difference of each picture, of adaptivity with one part of the pictures left out of both"
INDEPENDENT = "; as of independent samples"


def survey_table(
    folder: str | os.PathLike[str],
    *,
    by: Literal["class"] | None = None,
    compare: str | os.PathLike[str] | None = None,
) -> SurveyTable:
    """Means over the pictures of a survey with 95 % intervals, as far as it is finished.

    Args:
        folder: of the survey.
        by: "class" for a group for each class; all pictures together when None.
        compare: folder of another survey of the same question, whose blocks are compared one by one by their index:
            picture by picture where both are of the same list (what both have finished is then counted in differences;
            adaptivity leaves the same part out of both), else as independent samples.

    Raises:
        ValueError: a folder that holds no survey, no finished part, or surveys of different questions.
    """
    manifest = read_manifest(folder)
    other = None if compare is None else read_manifest(compare)
    if other is not None and other.question != manifest.question:
        raise ValueError(f"{folder} is a survey of {manifest.question}, {compare} of {other.question}: compare alike.")
    if not finished_parts(folder) or (compare is not None and not finished_parts(compare)):
        raise ValueError("No part of the survey is finished yet: ask again later.")
    folders = [folder] if compare is None else [folder, compare]
    two = None if compare is None or other is None else TwoSurveys((folder, compare), (manifest, other))
    common = None
    known = [quantity_values(one, quantities_of(manifest.question)) for one in folders]
    first = known[0][MEANS[manifest.question][0]]
    if two is not None:
        common = two.rows(first, known[1][MEANS[manifest.question][0]])
    errors = load_survey(folder, quantities=[ERROR])
    unread = errors[errors["block"].isna()]
    groups = sorted(set(first.classes)) if by == "class" else [ALL]
    lines = lines_by_group(manifest.question, known, groups, two)
    if manifest.question == "mixing":
        lines = _in_order([*lines, *_adaptivity_lines(manifest, folders, groups, two)], groups)
    return SurveyTable(
        question=manifest.question,
        model=manifest.model,
        weights=manifest.weights,
        trained=manifest.trained,
        lines=tuple(lines),
        num_pictures=len(first.images),
        num_listed=manifest.num_pictures,
        unreadable=dict(zip(unread["image"][:SHOWN_UNREADABLE], unread["error"], strict=False)),
        num_unreadable=len(unread),
        refused=dict(Counter(errors["error"][errors["block"].notna()])),
        other=None if other is None else f"{other.model} ({other.weights})",
        differing=() if other is None else tuple(differences(manifest.fingerprint, other.fingerprint)),
        paired=None if two is None else common is not None,
        num_paired=None if common is None else len(common[0]),
        convention=_convention(two is not None, common is not None),
    )


def quantities_of(question: str) -> list[str]:
    """What `lines_by_group` takes its numbers from."""
    return [*MEANS[question], *(SQUARES if question == "ie" else ())]


def lines_by_group(
    question: str,
    known: Sequence[Mapping[str, QuantityValues]],
    groups: Sequence[str],
    two: TwoSurveys | None = None,
) -> list[SurveyLine]:
    """Means over the pictures of each group, and of `ie` pooled effects.

    Args:
        question: "ie", "mixing" or "reach".
        known: quantity → values of one survey, or of two.
        groups: classes, or `ALL`.
        two: which pictures both have, where there are two.
    """
    lines = [*_mean_lines(question, known, groups, two)]
    if question == "ie":
        lines += _effect_lines(known, groups, two)
    return _in_order(lines, groups)


def _in_order(lines: Iterable[SurveyLine], groups: Sequence[str]) -> list[SurveyLine]:
    place = {label: index for index, label in enumerate(groups)}
    return sorted(
        lines, key=lambda line: (place[line.group], line.block, line.quantity, -1 if line.k is None else line.k)
    )


def _convention(compared: bool, paired: bool) -> dict[str, str]:
    how = PAIRED if paired else INDEPENDENT
    return {**CONVENTION, "contrast": CONVENTION["contrast"] + (how if compared else "")}


def _mean_lines(
    question: str, known: Sequence[Mapping[str, QuantityValues]], groups: Sequence[str], two: TwoSurveys | None
) -> Iterator[SurveyLine]:
    for quantity in MEANS[question]:
        found = [one[quantity] for one in known]
        for label in groups:
            some = [values if label == ALL else values.of_class(label) for values in found]
            for cell in some[0].cells:
                columns = [values.column(_like(values, cell)) for values in some]
                estimates = [mean_estimate(column) for column in columns]
                contrast = rows = None
                if two is not None:
                    rows = two.rows(some[0], some[1])
                    kept = columns if rows is None else [x[row] for x, row in zip(columns, rows, strict=True)]
                    contrast = mean_difference(*kept, paired=rows is not None)
                yield _line(label, cell, quantity, estimates, contrast, None if rows is None else len(rows[0]))


def _effect_lines(
    known: Sequence[Mapping[str, QuantityValues]], groups: Sequence[str], two: TwoSurveys | None
) -> Iterator[SurveyLine]:
    found = [tuple(one[quantity] for quantity in SQUARES) for one in known]
    for label in groups:
        some = [tuple(values if label == ALL else values.of_class(label) for values in pair) for pair in found]
        for cell in some[0][0].cells:
            columns = []
            for squares, outputs in some:
                mine = _like(squares, cell)
                columns.append((squares.column(mine), outputs.column((mine[0], mine[1], None))))
            estimates = [pooled_effect(a, b) for a, b in columns]
            contrast = rows = None
            if two is not None:
                rows = two.rows(some[0][0], some[1][0])
                if rows is not None:
                    columns = [(a[row], b[row]) for (a, b), row in zip(columns, rows, strict=True)]
                contrast = effect_ratio(*columns, paired=rows is not None)
            yield _line(label, cell, "effect", estimates, contrast, None if rows is None else len(rows[0]))


def _adaptivity_lines(
    manifest: SurveyManifest,
    folders: Sequence[str | os.PathLike[str]],
    groups: Sequence[str],
    two: TwoSurveys | None,
) -> Iterator[SurveyLine]:
    asked = [(block["index"], None if label == ALL else label) for block in manifest.blocks for label in groups]
    found = [parted_adaptivities(folder, asked) for folder in folders]
    common = None if two is None else two.parts()
    pairs = found
    if two is not None and common is not None:
        whole = [[[number] for number in finished_parts(folder)] for folder in folders]
        pairs = [
            known if mine == every else parted_adaptivities(folder, asked, mine)
            for known, folder, mine, every in zip(found, folders, common, whole, strict=True)
        ]
    for block in manifest.blocks:
        for label in groups:
            key = (block["index"], None if label == ALL else label)
            alone = [_adaptivity(one.get(key)) for one in found]
            paired: dict[str, Estimate] = {}
            num_paired = None
            if common is not None and all(key in one for one in pairs):
                paired, num_paired = pairs[0][key].differences(pairs[1][key]), pairs[0][key].total.count
            for quantity in OVER_PICTURES:
                estimates = [one[quantity] for one in alone]
                contrast = None
                if two is not None:
                    contrast = paired.get(quantity) or independent_difference(*estimates)
                yield _line(label, (*_names(block), None), quantity, estimates, contrast, num_paired)


def _names(block: Mapping[str, Any]) -> tuple[int, str]:
    return block["index"], block["name"]


def _adaptivity(found: PartedAdaptivity | None) -> dict[str, Estimate]:
    if found is None:
        return dict.fromkeys(OVER_PICTURES, Estimate(float("nan"), float("nan"), 0))
    known = found.compute()
    return {quantity: getattr(known, quantity) for quantity in OVER_PICTURES}


def _line(
    label: str,
    cell: Cell,
    quantity: str,
    estimates: Sequence[Estimate],
    contrast: Estimate | None,
    num_paired: int | None,
) -> SurveyLine:
    other = estimates[1] if len(estimates) > 1 else None
    return SurveyLine(label, cell[0], cell[1], quantity, cell[2], estimates[0], other, contrast, num_paired)


def _like(values: QuantityValues, cell: Cell) -> Cell:
    """The column of the same block and k, whatever the block is called in that network."""
    return next((one for one in values.cells if (one[0], one[2]) == (cell[0], cell[2])), cell)
