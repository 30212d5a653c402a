"""What a class of pictures has in common: mean maps of all queries, how far its weights adapt; kept for everybody."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import horinsight
from horinsight.data.images import image_label, load_image
from horinsight.data.preprocess import image_batch, model_view
from horinsight.mixers.blocks import chosen_blocks
from horinsight.mixing.left_out_adaptivity import adaptivity_of_parts
from horinsight.mixing.mixing_results import Adaptivity, QueryMaps
from horinsight.mixing.query_maps import map_convention
from horinsight.mixing.query_places import same_place
from horinsight.mixing.query_table import QueryTable, query_table
from horinsight.mixing.running_adaptivity import RunningAdaptivity
from horinsight.mixing.weights import MixingWeights
from horinsight.result_fields import fields_of
from horinsight.results import Provenance
from horinsight.stats import Estimate
from horinsight.survey.survey_results import SurveyLine, SurveyTable
from horinsight.viewer.service.gate import GATE
from horinsight.viewer.service.kept import Kept
from horinsight.viewer.service.model_pool import ModelKey, SharedModel, shared_model

KEPT = 48  # classes
PARTS = 8  # of a class's pictures, each left out once for standard errors: sums of single ones would take gigabytes
Step = Callable[[int], object]  # shows how many pictures are done, and may end the work


@dataclass(frozen=True)
class ClassAsked:
    """What is measured of a class.

    Attributes:
        key: of the model.
        blocks: their indices.
        files: paths of the pictures.
    """

    key: ModelKey
    blocks: tuple[int, ...]
    files: tuple[Path, ...]


@dataclass(frozen=True, eq=False)
class ClassMeans:
    """What the pictures of a class have in common.

    Attributes:
        tables: block name → mean maps of all queries.
        adaptivity: block name → over the pictures.
        view: (H, W, 3) uint8, the mean picture as the model sees it.
        images: labels of the pictures.
        unreadable: name of a picture → why it is left out.
        refused: block name → why it has no map or no adaptivity.
    """

    tables: dict[str, QueryTable]
    adaptivity: dict[str, Adaptivity]
    view: np.ndarray
    images: tuple[str, ...]
    unreadable: dict[str, str]
    refused: dict[str, str]


CLASSES: Kept[ClassAsked, ClassMeans] = Kept(KEPT)


class _Sums:
    """Sums over the pictures of a class."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.tables: dict[str, QueryTable] = {}
        self.parts: dict[str, list[RunningAdaptivity]] = {}
        self.refused: dict[str, str] = {}
        self.view = np.zeros(())
        self.images: list[str] = []
        self.unreadable: dict[str, str] = {}

    def add(self, weights: dict[str, MixingWeights], view: np.ndarray, label: str) -> None:
        for name, part in weights.items():
            try:
                table = query_table(part)
                self.tables[name] = table if name not in self.tables else _sum(self.tables[name], table)
                running = RunningAdaptivity(image_size=self.size)
                running.update(part)
                parts = self.parts.setdefault(name, [])
                if len(parts) < PARTS:
                    parts.append(running)
                else:
                    parts[len(self.images) % PARTS].merge(running)
            except ValueError as error:
                self.refused[name] = str(error)
        self.view = self.view + view.astype(np.float64)
        self.images.append(label)

    def finished(self) -> ClassMeans:
        count = len(self.images)
        if not count:
            raise ValueError(f"None of its pictures can be read: {next(iter(self.unreadable.values()), 'no picture')}")
        return ClassMeans(
            {name: replace(table, values=table.values / count) for name, table in self.tables.items()},
            {name: adaptivity_of_parts(lambda parts=parts: parts) for name, parts in self.parts.items()},  # type: ignore[misc]
            (self.view / count).round().astype(np.uint8),
            tuple(self.images),
            self.unreadable,
            self.refused,
        )


def class_means(asked: ClassAsked, step: Step) -> ClassMeans:
    """Measure a class picture by picture, each through the gate, or take what is known.

    Args:
        asked: which pictures, model and blocks.
        step: is told how many pictures are done.

    Raises:
        ValueError: no picture can be read.
        BusyError: the gate was taken for too long.
    """
    known = CLASSES.get(asked)
    if known is not None:
        return known
    shared = shared_model(asked.key)
    sums = _Sums(shared.image_size)
    for place, path in enumerate(asked.files):
        step(place)
        with GATE.slot() as slot:
            _add_picture(sums, path, shared, slot, asked.blocks)
    with GATE.slot():
        found = sums.finished()
    CLASSES.put(asked, found)
    return found


def _add_picture(sums: _Sums, path: Path, shared: SharedModel, slot: int, blocks: tuple[int, ...]) -> None:
    model = shared.replicas[slot]
    try:
        image = load_image(path)
    except (ValueError, OSError) as error:
        sums.unreadable[path.name] = str(error).replace(str(path), path.name)
        return
    batch = image_batch(model, [image])
    weights = horinsight.model_mixing_weights(model, batch, blocks=blocks)
    sums.add(weights, model_view(model, batch)[0], image_label(path.name, image))


def _sum(one: QueryTable, other: QueryTable) -> QueryTable:
    """Values of both together, by position where they see other positions."""
    alike = (one.cells is None and other.cells is None) or (
        one.cells is not None and other.cells is not None and np.array_equal(one.cells, other.cells)
    )
    if not alike:
        one, other = _by_position(one), _by_position(other)
    return replace(one, values=one.values + other.values)


def _by_position(table: QueryTable) -> QueryTable:
    rows, columns = table.size
    values = np.stack([table.at(i // columns, i % columns).ravel() for i in range(rows * columns)])
    return replace(table, values=values, cells=None)


def class_maps(
    found: dict[str, ClassMeans], asked: ClassAsked, query: tuple[int, int], map_size: tuple[int, int]
) -> QueryMaps:
    """Mean maps of a query, an entry for each class.

    Args:
        found: class → what it has in common, at least one.
        asked: model and blocks.
        query: row and column on the first block's map.
        map_size: of that map.

    Raises:
        ValueError: no block has maps in every class.
    """
    shared = shared_model(asked.key)
    blocks = [
        block
        for block in chosen_blocks(shared.replicas[0], asked.blocks)
        if all(block.name in one.tables for one in found.values())
    ]
    if not blocks:
        raise ValueError("None of the blocks shown has maps of all queries: choose other blocks.")
    first = next(iter(found.values()))
    maps, queries = {}, {}
    for block in blocks:
        row, col = same_place(query, map_size, first.tables[block.name].size)
        maps[block.name] = np.stack([one.tables[block.name].at(row, col) for one in found.values()])
        queries[block.name] = np.tile([row, col], (len(found), 1))
    counts = ", ".join(str(len(one.images)) for one in found.values())
    images = tuple(label for one in found.values() for label in one.images)
    return QueryMaps(
        maps=maps,
        queries=queries,
        pictures=np.stack([one.view for one in found.values()]),
        picture_of_entry=np.arange(len(found)),
        block_indices=tuple(block.index for block in blocks),
        image_names=tuple(found),
        reconstruction_errors=(),
        convention={**map_convention(blocks), "shown": f"means over the pictures of each class ({counts})"},
        provenance=replace(shared.provenance, images=images),
    )


def class_table(found: dict[str, ClassMeans], asked: ClassAsked, origin: Provenance) -> SurveyTable:
    """Adaptivity and reach by class, as a survey of mixing weights has it.

    Args:
        found: class → what it has in common.
        asked: model and blocks.
        origin: of the model.
    """
    indices = {block.name: block.index for block in chosen_blocks(shared_model(asked.key).replicas[0], asked.blocks)}
    lines = [
        SurveyLine(label, indices[name], name, quantity, None, estimate)
        for label, one in found.items()
        for name, numbers in one.adaptivity.items()
        for quantity, estimate in fields_of(numbers).items()
        if isinstance(estimate, Estimate)
    ]
    unreadable = {name: why for one in found.values() for name, why in one.unreadable.items()}
    count = sum(len(one.images) for one in found.values())
    return SurveyTable(
        question="mixing",
        model=origin.model,
        weights=origin.weights,
        trained=origin.trained,
        lines=tuple(lines),
        num_pictures=count,
        num_listed=count + len(unreadable),
        unreadable=unreadable,
        num_unreadable=len(unreadable),
        refused={why: len(one.images) for one in found.values() for why in one.refused.values()},
        convention={
            "intervals": "95 %, over pictures like these",
            "adaptivity": f"over the pictures of a class; standard errors leave one of up to {PARTS} parts out",
        },
    )
