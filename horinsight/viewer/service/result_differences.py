"""Two saved results of one kind: their difference where they fit, and one line where they do not."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from horinsight.figures.mixing_maps import draw_mixing_maps
from horinsight.figures.survey_depths import draw_survey_depths
from horinsight.interaction.spectrum import InteractionSpectrum
from horinsight.interaction.spectrum_comparison import compare_spectra
from horinsight.mixing.mixing_results import Adaptivity, QueryMaps
from horinsight.result_fields import fields_of
from horinsight.results import Result
from horinsight.stats import NORMAL_95, Estimate
from horinsight.survey.survey_results import SurveyLine, SurveyTable
from horinsight.viewer.service.result_figures import few_maps

INDEPENDENT = "The two count as independent: what they have in common in pictures or draws is not in the files."


@dataclass(frozen=True, eq=False)
class ResultDifference:
    """What two results of one kind differ by.

    Attributes:
        frame: as a table.
        words: what it is, and of what its intervals are.
        figure: where there is one.
    """

    frame: pd.DataFrame
    words: str
    figure: Figure | None = None


def result_difference(first: Mapping[str, Result], second: Mapping[str, Result]) -> ResultDifference:
    """The difference of two results, as `Saved.parts` has them; single ones are compared whatever their names.

    Raises:
        ValueError: they do not fit; one line that says why.
    """
    kinds = [type(next(iter(parts.values()))) for parts in (first, second)]
    if kinds[0] is not kinds[1]:
        raise ValueError(f"No difference: the first is of {kinds[0].__name__}, the second of {kinds[1].__name__}.")
    if len(first) == len(second) == 1:
        name = next(iter(first)) or next(iter(second))
        pairs = [(name, next(iter(first.values())), next(iter(second.values())))]
    else:
        pairs = [(name, one, second[name]) for name, one in first.items() if name in second]
    if not pairs and len(first) == len(second):  # two models whose blocks have other names
        pairs = [
            (f"{name} | {other}", one, two)
            for (name, one), (other, two) in zip(first.items(), second.items(), strict=True)
        ]
    if not pairs:
        raise ValueError("No difference: the two sets have no name of a block in common.")
    left_out = max(len(first), len(second)) - len(pairs)
    found = COMPARED.get(kinds[0], _fields)(pairs)
    more = f" {left_out} without a partner are left out." if left_out else ""
    return replace(found, words=found.words + more)


Pairs = list[tuple[str, Any, Any]]


def _ratios(pairs: Pairs) -> ResultDifference:
    frames = []
    for name, one, other in pairs:
        found = compare_spectra(one, other)
        frame = pd.DataFrame(
            {
                "block": name,
                "k": np.arange(len(found.ratios)),
                "first": found.first_effects,
                "second": found.second_effects,
                "ratio": found.ratios,
                "low": found.ci_low,
                "high": found.ci_high,
            }
        )
        frames.append(frame)
    words = (
        "ratio: effect_k of the first over that of the second, with its 95 % interval at these images, over draws. "
        "Files do not hold the draws, so that both count as drawn independently: with one seed, intervals are wider "
        "than they need be. 0, infinity and none stand for exact zeros."
    )
    return ResultDifference(pd.concat(frames, ignore_index=True), words)


def _map_difference(pairs: Pairs) -> ResultDifference:
    _, one, other = pairs[0]
    names = [name for name in one.maps if name in other.maps]
    if not names:
        raise ValueError("No difference: the two have maps of no block in common.")
    for name in names:
        shapes = one.maps[name].shape, other.maps[name].shape
        if shapes[0] != shapes[1]:
            said = " and ".join("x".join(map(str, shape)) for shape in shapes)
            raise ValueError(f"No difference: maps of {name} are {said} (queries, rows, columns).")
        if not np.array_equal(one.queries[name], other.queries[name]):
            raise ValueError(f"No difference: the maps of {name} are of other queries.")
    maps = {name: np.subtract(one.maps[name], other.maps[name], dtype=np.float64) for name in names}
    places = [index for index, name in zip(one.block_indices, one.maps, strict=True) if name in maps]
    shown = f"the first less the second: {_called(one)} less {_called(other)}"
    found = replace(
        one,
        maps=maps,
        queries={name: one.queries[name] for name in names},
        block_indices=tuple(places),
        reconstruction_errors=(),
        convention={**one.convention, "weights": "difference of mixing weights", "shown": shown},
    )
    rows = [
        {
            "block": name,
            "largest |difference|": float(np.abs(values).max()),
            "largest |first|": float(np.abs(one.maps[name]).max()),
            "largest |second|": float(np.abs(other.maps[name]).max()),
            "correlation": _correlation(one.maps[name], other.maps[name]),
        }
        for name, values in maps.items()
    ]
    words = "Maps of the first less those of the second, at the same queries; correlation: over all cells of the maps."
    return ResultDifference(pd.DataFrame(rows), words, draw_mixing_maps(few_maps(found)))


def _called(found: Any) -> str:
    return found.provenance.model if found.provenance else "unknown"


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    a, b = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else math.nan


def _adaptivity(pairs: Pairs) -> ResultDifference:
    rows = []
    for name, one, other in pairs:
        for quantity, mine in fields_of(one).items():
            if isinstance(mine, Estimate):
                theirs = getattr(other, quantity)
                rows.append({"block": name, "quantity": quantity, **_difference(mine, theirs)})
    words = f"difference: the first less the second, with its 95 % interval over pictures. {INDEPENDENT}"
    return ResultDifference(pd.DataFrame(rows), words)


def _contrast(mine: Estimate, theirs: Estimate, *, ratio: bool = False) -> Estimate:
    """The difference, or the ratio, of two numbers that know nothing of one another."""
    errors = mine.standard_error, theirs.standard_error
    if not ratio:
        return Estimate(mine.value - theirs.value, math.hypot(*errors))
    if not (mine.value > 0 and theirs.value > 0):
        return Estimate(math.nan, math.nan)
    share = math.hypot(errors[0] / mine.value, errors[1] / theirs.value)
    value = mine.value / theirs.value
    half = NORMAL_95 * share
    ends = None if math.isnan(half) else (value * math.exp(-half), value * math.exp(min(half, 700.0)))
    return Estimate(value, value * share, ends=ends)


def _difference(mine: Estimate, theirs: Estimate, *, ratio: bool = False) -> dict[str, float]:
    found = _contrast(mine, theirs, ratio=ratio)
    low, high = found.interval
    name = "ratio" if ratio else "difference"
    return {"first": mine.value, "second": theirs.value, name: found.value, "low": low, "high": high}


def _lines(pairs: Pairs) -> ResultDifference:
    _, one, other = pairs[0]
    if one.question != other.question:
        raise ValueError(f"No difference: the first is a survey of {one.question}, the second of {other.question}.")
    theirs = {_place(line): line for line in other.lines}
    lines = [
        replace(
            line,
            other=theirs[_place(line)].estimate,
            contrast=_contrast(line.estimate, theirs[_place(line)].estimate, ratio=line.quantity == "effect"),
        )
        for line in one.lines
        if _place(line) in theirs
    ]
    if not lines:
        raise ValueError("No difference: the two surveys have no class and block in common.")
    table = replace(one, lines=tuple(lines), other=f"{other.model} ({other.weights})", paired=False)
    words = (
        "contrast: the first less the second, of effects the first over the second, with its 95 % interval over "
        f"pictures. {INDEPENDENT} horinsight survey report --compare goes picture by picture."
    )
    frame = table.to_frame().drop(columns=["model", "trained"], errors="ignore")
    return ResultDifference(frame, words, draw_survey_depths(table))


def _place(line: SurveyLine) -> tuple[str, int, str, int | None]:
    return line.group, line.block, line.quantity, line.k


def _fields(pairs: Pairs) -> ResultDifference:
    """Of any kind: each array and number that both have."""
    rows = [row for name, one, other in pairs for row in _field_rows(name, fields_of(one), fields_of(other))]
    if not rows:
        raise ValueError("No difference: the two have no numbers of the same shape.")
    words = "Every array and number that both have in the same shape: how far apart they are at most, and on average."
    return ResultDifference(pd.DataFrame(rows), words)


def _field_rows(name: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for key, mine in one.items():
        theirs = other.get(key)
        if key in ("provenance", "seed", "convention", "options"):
            continue
        if isinstance(mine, Estimate) and isinstance(theirs, Estimate):
            mine, theirs = mine.value, theirs.value
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            rows += _field_rows(f"{name} {key}".strip(), mine, theirs)
            continue
        numbers = [_numbers(value) for value in (mine, theirs)]
        if numbers[0] is None or numbers[1] is None or numbers[0].shape != numbers[1].shape or not numbers[0].size:
            continue
        apart = np.abs(numbers[0] - numbers[1])
        finite = apart[np.isfinite(apart)]
        rows.append(
            {
                "of": name or "result",
                "field": str(key),
                "numbers": int(apart.size),
                "largest |difference|": float(finite.max()) if finite.size else math.nan,
                "root mean square": float(np.sqrt((finite**2).mean())) if finite.size else math.nan,
                "of the first": float(np.sqrt(np.nanmean(numbers[0] ** 2))),
            }
        )
    return rows


def _numbers(value: Any) -> np.ndarray | None:
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return value.astype(np.float64)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return np.array([value], dtype=np.float64)
    return None


COMPARED = {InteractionSpectrum: _ratios, QueryMaps: _map_difference, Adaptivity: _adaptivity, SurveyTable: _lines}
