"""What the page of the paper shows, computed once for every visitor, a row at a time through the gate."""

from collections.abc import Callable
from dataclasses import dataclass

import streamlit as st

import horinsight
from horinsight.capture import image_size_of
from horinsight.complexity.cost_results import TableRowCount
from horinsight.complexity.counted import count_macs
from horinsight.complexity.printed_tables import chosen_rows
from horinsight.complexity.published import PublishedRow, published_rows
from horinsight.complexity.table_counts import row_count
from horinsight.data.images import default_samples, sample_image
from horinsight.figures.tradeoffs import Tradeoff
from horinsight.interaction.order_ladder import ladder, rung_spectra
from horinsight.interaction.spectrum import InteractionSpectrum
from horinsight.mixing.mixing_results import QueryMaps
from horinsight.mixing.query_places import FIGURE_4_BLOCKS, random_queries
from horinsight.models.provenance import model_provenance
from horinsight.models.registry import model_without_weights
from horinsight.viewer.service.gate import GATE
from horinsight.viewer.service.kept import Kept
from horinsight.viewer.service.model_pool import BUILDING, ModelKey, shared_model

TABLES = (1, 2, 3, 6)
FAMILIES = {  # of Figure 3
    "Swin": ("swin_t", "swin_s", "swin_b"),
    "ConvNeXt": ("convnext_t", "convnext_s", "convnext_b"),
    "HorNet 7x7": ("hornet_tiny_7x7", "hornet_small_7x7", "hornet_base_7x7"),
}
PICTURES = ("chelsea", "astronaut", "coffee", "rocket")  # of Figure 4, as `horinsight figure4` has them
QUERIES_PER_PICTURE = 2

Step = Callable[[float, str], object]  # shows a share and words, and may end the work
_ROWS: Kept[tuple[int, int], TableRowCount] = Kept(400)
_RUNGS: Kept[str, "Measured"] = Kept(40)
_POINTS: Kept[str, tuple[PublishedRow, Tradeoff]] = Kept(40)


@dataclass(frozen=True, eq=False)
class Measured:
    """One operator of Figure 1.

    Attributes:
        name: in words.
        stated: the order that theory gives it.
        explicit: its spectrum with tangents for non-linearities.
        functional: its spectrum as it is.
    """

    name: str
    stated: int
    explicit: InteractionSpectrum
    functional: InteractionSpectrum


def table_rows(table: int, step: Step) -> list[TableRowCount]:
    """The rows of a table, counted on shapes alone.

    Args:
        table: one of `TABLES`.
        step: shows how far it is.

    Raises:
        BusyError: the gate was taken for too long.
    """
    printed = chosen_rows(table, None)
    found: list[TableRowCount] = []
    for place, row in enumerate(printed):
        known = _ROWS.get((table, place))
        if known is None:
            step(place / len(printed), f"Table {table}: {place} of {len(printed)} rows counted")
            with GATE.slot():
                known = row_count(row)
            _ROWS.put((table, place), known)
        found.append(known)
    return found


def rungs(step: Step) -> list[Measured]:
    """The operators of Figure 1 and Table 6, each with its measured spectra.

    Args:
        step: shows how far it is.

    Raises:
        BusyError: the gate was taken for too long.
    """
    every = ladder()
    found: list[Measured] = []
    for place, rung in enumerate(every):
        known = _RUNGS.get(rung.name)
        if known is None:
            step(place / len(every), f"Figure 1: {rung.name}")
            with GATE.slot(), BUILDING:
                explicit, functional = rung_spectra(rung, side=7, num_images=1, num_tuples=4)
            known = Measured(rung.name, rung.location_order, explicit, functional)
            _RUNGS.put(rung.name, known)
        found.append(known)
    return found


def tradeoffs(step: Step) -> dict[str, list[tuple[PublishedRow, Tradeoff]]]:
    """Family → models of Figure 3, from small to large: what is printed, and what is counted.

    Args:
        step: shows how far it is.

    Raises:
        BusyError: the gate was taken for too long.
    """
    rows = {row.label: row for row in published_rows() if row.image_size == 224 and row.table == "Table 1"}
    names = [label for labels in FAMILIES.values() for label in labels]
    for place, label in enumerate(names):
        if _POINTS.get(label) is None:
            step(place / len(names), f"Figure 3: {label}")
            with GATE.slot():
                count = count_macs(model_without_weights(rows[label].model), 224)
            size, unknown = "TSB"[place % 3], float("nan")
            point = Tradeoff(
                size, rows[label].top1, count.params / 1e6, count.macs / 1e9, unknown, unknown, unknown
            )  # latency is a machine's
            _POINTS.put(label, (rows[label], point))
    found = {name: _POINTS.get(name) for name in names}
    return {family: [one for label in labels if (one := found[label])] for family, labels in FAMILIES.items()}


@st.cache_data(max_entries=8, show_spinner="Computing Figure 4 …")
def figure_4(key: ModelKey) -> QueryMaps:
    """Maps of Figure 4: of four photographs (or the digits) two random positions each, in the paper's six blocks.

    Raises:
        ValueError: the tokens of the model form no map.
        BusyError: the gate was taken for too long.
    """
    shared = shared_model(key)
    usual = default_samples(key.name)
    names = PICTURES if usual == [PICTURES[0]] else tuple(usual)
    blocks = [index for index in FIGURE_4_BLOCKS if index <= len(shared.blocks)]
    size = shared.map_sizes[shared.blocks[blocks[0] - 1].name]
    if size is None:
        raise ValueError(f"The tokens of {key.name} form no map whose rows and columns can be told.")
    queries = random_queries(len(names), QUERIES_PER_PICTURE, size, seed=0)
    with GATE.long_slot() as slot:
        model = shared.replicas[slot]
        batch = horinsight.image_batch(model, [sample_image(name) for name in names])
        assert image_size_of(batch) == shared.image_size
        origin = model_provenance(model, model_name=key.name, image_names=list(names))
        return horinsight.query_maps(model, batch, queries, blocks=blocks, provenance=origin)
