"""From the rows of a survey to its table: by class, and compared with another survey."""

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from horinsight.mixing.mixing_results import Adaptivity
from horinsight.stats import Estimate
from horinsight.survey.part_files import finished_parts
from horinsight.survey.picture_estimates import effect_ratio, mean_difference, mean_estimate, pooled_effect
from horinsight.survey.picture_rows import ERROR
from horinsight.survey.quantity_values import Cell, QuantityValues, quantity_values
from horinsight.survey.survey_frame import load_survey
from horinsight.survey.survey_manifest import SurveyManifest, differences, read_manifest
from horinsight.survey.survey_results import ALL, SurveyLine, SurveyTable
from horinsight.survey.weight_sums import survey_adaptivity

MEANS = {  # by question, the quantities whose means over pictures are reported
    "ie": ("order_at_least",),
    "mixing": ("mean_distance", "mean_distance_pixels", "effective_positions", "negative_share"),
    "reach": (*(f"radius_{share}{unit}" for unit in ("", "_pixels") for share in (50, 90, 99)), "total"),
}
OVER_PICTURES = ("input_adaptivity", "location_adaptivity", "static_share", "input_deviation", "location_deviation")
SHOWN_UNREADABLE = 100

CONVENTION = {
    "intervals": "95 %, over pictures like these; all numbers of a picture are one draw",
    "effect": "sqrt(sum of mean_square / sum of output_square) over pictures, each with its own spreads and draws",
    "order_at_least": "mean over pictures of the order, or of the highest order measured where it is open",
    "adaptivity": "over the pictures of a group, from sums of their weights; standard errors leave one part out",
    "contrast": "differences; of effects ratios",
}


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
        compare: folder of another survey of the same question, whose blocks are compared one by one by their index; by
            picture where the two have pictures in common (those alone are then counted in differences), else as
            independent samples. Adaptivity over pictures is always compared as if independent.

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
    paired = None
    if compare is not None:
        paired = _common(*(quantity_values(one, MEANS[manifest.question][0]) for one in folders)) is not None
    errors = load_survey(folder, quantities=[ERROR])
    unread = errors[errors["block"].isna()]
    first = quantity_values(folder, MEANS[manifest.question][0])
    groups = sorted(set(first.classes)) if by == "class" else [ALL]
    lines = [*_mean_lines(manifest.question, folders, groups)]
    if manifest.question == "ie":
        lines += _effect_lines(folders, groups)
    if manifest.question == "mixing":
        lines += _adaptivity_lines(manifest, folders, groups)
    place = {label: index for index, label in enumerate(groups)}
    lines.sort(key=lambda line: (place[line.group], line.block, line.quantity, -1 if line.k is None else line.k))
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
        paired=paired,
        convention=CONVENTION,
    )


def _mean_lines(
    question: str, folders: Sequence[str | os.PathLike[str]], groups: Sequence[str]
) -> Iterator[SurveyLine]:
    for quantity in MEANS[question]:
        found = [quantity_values(folder, quantity) for folder in folders]
        for label in groups:
            some = [values if label == ALL else values.of_class(label) for values in found]
            for cell in some[0].cells:
                columns = [values.column(_like(values, cell)) for values in some]
                estimates = [mean_estimate(column) for column in columns]
                contrast = None
                if len(some) > 1:
                    rows = _common(*some)
                    kept = columns if rows is None else [x[row] for x, row in zip(columns, rows, strict=True)]
                    contrast = mean_difference(*kept, paired=rows is not None)
                yield _line(label, cell, quantity, estimates, contrast)


def _effect_lines(folders: Sequence[str | os.PathLike[str]], groups: Sequence[str]) -> Iterator[SurveyLine]:
    found = [(quantity_values(folder, "mean_square"), quantity_values(folder, "output_square")) for folder in folders]
    for label in groups:
        some = [tuple(values if label == ALL else values.of_class(label) for values in pair) for pair in found]
        for cell in some[0][0].cells:
            columns = []
            for squares, outputs in some:
                mine = _like(squares, cell)
                columns.append((squares.column(mine), outputs.column((mine[0], mine[1], None))))
            estimates = [pooled_effect(a, b) for a, b in columns]
            contrast = None
            if len(some) > 1:
                rows = _common(some[0][0], some[1][0])
                if rows is not None:
                    columns = [(a[row], b[row]) for (a, b), row in zip(columns, rows, strict=True)]
                contrast = effect_ratio(*columns, paired=rows is not None)
            yield _line(label, cell, "effect", estimates, contrast)


def _adaptivity_lines(
    manifest: SurveyManifest, folders: Sequence[str | os.PathLike[str]], groups: Sequence[str]
) -> Iterator[SurveyLine]:
    for block in manifest.blocks:
        for label in groups:
            wanted = None if label == ALL else label
            found = [survey_adaptivity(folder, block["index"], label=wanted) for folder in folders]
            for quantity in OVER_PICTURES:
                estimates = [_adaptivity(one, quantity) for one in found]
                contrast = None
                if len(estimates) > 1:
                    error = math.hypot(*(one.standard_error for one in estimates))
                    contrast = Estimate(estimates[0].value - estimates[1].value, error)
                yield _line(label, (block["index"], block["name"], None), quantity, estimates, contrast)


def _adaptivity(found: Adaptivity | None, quantity: str) -> Estimate:
    nothing = Estimate(float("nan"), float("nan"), 0)
    one: Estimate = nothing if found is None else getattr(found, quantity)
    return one


def _line(
    label: str, cell: Cell, quantity: str, estimates: Sequence[Estimate], contrast: Estimate | None
) -> SurveyLine:
    other = estimates[1] if len(estimates) > 1 else None
    return SurveyLine(label, cell[0], cell[1], quantity, cell[2], estimates[0], other, contrast)


def _like(values: QuantityValues, cell: Cell) -> Cell:
    """The column of the same block and k, whatever the block is called in that network."""
    return next((one for one in values.cells if (one[0], one[2]) == (cell[0], cell[2])), cell)


def _common(one: QuantityValues, two: QuantityValues) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows of the pictures that both have, in the same order; None where that are fewer than two."""
    _, first, second = np.intersect1d(one.images.astype(str), two.images.astype(str), return_indices=True)
    return (first, second) if len(first) > 1 else None
