"""The figure of a saved result: the same that the command line draws for its kind, of as much as fits a page."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from horinsight.attribution.attribution_results import PositionAttributions, PredictionAttributions
from horinsight.figures.attribution_maps import draw_attribution_maps
from horinsight.figures.filter_maps import draw_filters
from horinsight.figures.interaction_spectra import draw_interaction_spectra
from horinsight.figures.mixing_maps import draw_mixing_maps
from horinsight.figures.reach_maps import draw_reach_maps
from horinsight.figures.survey_depths import draw_survey_depths
from horinsight.interaction.spectrum import InteractionSpectrum
from horinsight.mixing.mixing_results import FilterKernels, QueryMaps
from horinsight.mixing.reach_results import Reach
from horinsight.results import Result
from horinsight.survey.survey_results import SurveyTable

MOST_PANELS = 42  # of spectra, and of fields
MOST_ORDERS = 40
MOST_BLOCKS = 8  # of maps side by side
MOST_ENTRIES = 4  # rows of maps
CELL = 16  # pixels of a cell of a map whose picture the file does not hold
MOST_CELLS = 512  # along a side of a map

Parts = Mapping[str, Result]


def result_figure(parts: Parts) -> Figure | None:
    """The figure of results of one kind; None for a kind that has none.

    Args:
        parts: name → result, as `Saved.parts`.

    Raises:
        ValueError: a map is larger than any that is drawn; and whatever numbers that do not fit together cause.
    """
    draw = DRAWN.get(type(next(iter(parts.values()))))
    return None if draw is None else draw(parts)


def what_is_left_out(parts: Parts) -> str:
    """What the figure does not show, in words; "" where it shows all."""
    first = next(iter(parts.values()))
    if isinstance(first, InteractionSpectrum | Reach) and len(parts) > MOST_PANELS:
        return f"The first {MOST_PANELS} of {len(parts)} are drawn."
    if isinstance(first, FilterKernels | PositionAttributions | PredictionAttributions) and len(parts) > 1:
        return f"The first of {len(parts)} is drawn."
    if isinstance(first, QueryMaps) and (len(first.maps) > MOST_BLOCKS or len(first.picture_of_entry) > MOST_ENTRIES):
        return f"At most {MOST_BLOCKS} blocks and {MOST_ENTRIES} queries are drawn."
    return ""


def _spectra(parts: Parts) -> Figure:
    shown: Any = dict(list(parts.items())[:MOST_PANELS])
    most = max(one.effects.size for one in shown.values())
    if most > MOST_ORDERS:
        raise ValueError(f"effects of {most} orders are drawn up to {MOST_ORDERS}")
    return draw_interaction_spectra({name or "operator": one for name, one in shown.items()})


def few_maps(found: QueryMaps) -> QueryMaps:
    """The blocks and queries that are drawn."""
    names = list(found.maps)[:MOST_BLOCKS]
    for name in names:
        _check_sides(found.maps[name].shape[1:])
    _check_sides(found.pictures.shape[1:3], most=4 * MOST_CELLS)
    return replace(
        found,
        maps={name: found.maps[name][:MOST_ENTRIES] for name in names},
        queries={name: found.queries[name][:MOST_ENTRIES] for name in names},
        picture_of_entry=found.picture_of_entry[:MOST_ENTRIES],
        block_indices=found.block_indices[:MOST_BLOCKS],
    )


def _maps(parts: Parts) -> Figure:
    first: Any = next(iter(parts.values()))
    return draw_mixing_maps(few_maps(first))


def _filters(parts: Parts) -> Figure:
    first: Any = next(iter(parts.values()))
    _check_sides(first.kernel.shape[1:])
    return draw_filters(first)


def _fields(parts: Parts) -> Figure:
    """Reach, over blank pictures: a file holds none."""
    shown: Any = dict(list(parts.items())[:MOST_PANELS])
    first = next(iter(shown.values()))
    few = {name or "operator": _few_fields(one) for name, one in shown.items()}
    rows, columns = first.influence.squares.shape[2:]
    with np.errstate(divide="ignore", invalid="ignore"):
        strides = first.radii_pixels / first.radii
    known = strides[np.isfinite(strides)]
    grid = first.influence.output_shape
    side = float(np.median(known)) if known.size else CELL
    size = [max(1, min(4 * MOST_CELLS, round(side * cells))) for cells in (grid if known.size else (rows, columns))]
    names = list(first.provenance.images) if first.provenance else None
    pictures = _blank(len(next(iter(few.values())).totals), *size)
    return draw_reach_maps(few, pictures, image_names=names if names and len(names) >= len(pictures) else None)


def _few_fields(one: Reach) -> Reach:
    _check_sides(one.influence.squares.shape[2:])
    some = (slice(2), slice(2))
    influence = replace(
        one.influence,
        squares=one.influence.squares[some],
        standard_errors=one.influence.standard_errors[some],
        queries=one.influence.queries[:2],
    )
    return replace(
        one,
        influence=influence,
        radii=one.radii[some],
        radii_pixels=one.radii_pixels[some],
        totals=one.totals[some],
    )


def _attributions(parts: Parts) -> Figure:
    """Over blank pictures: a file holds none."""
    first: Any = next(iter(parts.values()))
    query, grid = None, None
    if isinstance(first, PositionAttributions):
        maps = {first.method: first.maps[:MOST_ENTRIES, 0]}
        query, grid = tuple(first.queries[0].tolist()), first.output_size
        title = f"{first.of} at a position of {first.block}"
    else:
        maps = {name: values[:MOST_ENTRIES] for name, values in list(first.maps.items())[:MOST_PANELS]}
        title = "the logit of class " + ", ".join(map(str, first.targets[:MOST_ENTRIES]))
    for values in maps.values():
        _check_sides(values.shape[1:])
    count, rows, columns = next(iter(maps.values())).shape
    scale = max(1, 224 // max(rows, columns))
    return draw_attribution_maps(
        maps,
        _blank(count, scale * rows, scale * columns),
        title=title,
        query=query,
        query_grid=grid,
        provenance=first.provenance,
    )


def _survey(parts: Parts) -> Figure:
    table: Any = next(iter(parts.values()))
    orders = len({line.k for line in table.lines})
    if orders > MOST_ORDERS:
        raise ValueError(f"effects of {orders} orders are drawn up to {MOST_ORDERS}")
    return draw_survey_depths(table)


def _blank(count: int, rows: int, columns: int) -> np.ndarray:
    return np.full((count, rows, columns, 3), 255, dtype=np.uint8)


def _check_sides(shape: tuple[int, ...], *, most: int = MOST_CELLS) -> None:
    if len(shape) != 2 or not 0 < min(shape) <= max(shape) <= most:
        raise ValueError(f"a map of {'x'.join(map(str, shape))} is drawn up to {most}x{most}")


DRAWN: dict[type, Callable[[Parts], Figure]] = {
    InteractionSpectrum: _spectra,
    QueryMaps: _maps,
    FilterKernels: _filters,
    Reach: _fields,
    PositionAttributions: _attributions,
    PredictionAttributions: _attributions,
    SurveyTable: _survey,
}
