"""Which neighbours act jointly with a position, order by order; what is finished is kept for everybody."""

from dataclasses import dataclass, replace

from horinsight.attribution.attribution_results import InteractionPlaces
from horinsight.attribution.explained_block import explained_point
from horinsight.attribution.interaction_places import interaction_places
from horinsight.interaction.measurement_cost import measurement_cost
from horinsight.mixers.blocks import MixingBlock
from horinsight.models.packaged_weights import packaged_weights
from horinsight.operators.block_operators import widened
from horinsight.pauses import pauses_everywhere
from horinsight.viewer.service.block_spectra import memory
from horinsight.viewer.service.gate import GATE
from horinsight.viewer.service.kept import Kept
from horinsight.viewer.service.model_pool import ModelKey, shared_model
from horinsight.viewer.service.pictures import Source, prepared

KEPT = 2000  # maps, of some kilobytes each
UNKNOWN_ORDERS = 3  # that are shown of a mixer whose design says none


@dataclass(frozen=True)
class Places:
    """What is measured.

    Attributes:
        key: of the model.
        picture_id: of the picture.
        block: its index, from 1; of its mixer alone.
        query: (row, col) on its map.
        orderings: of the neighbours, that are drawn.
    """

    key: ModelKey
    picture_id: str
    block: int
    query: tuple[int, int]
    orderings: int


MEASURED: Kept[tuple[Places, int], InteractionPlaces | str] = Kept(KEPT)


def shown_orders(block: MixingBlock) -> list[int]:
    """k = 1, 2, ... to one above the order of its design, at which nothing may be left."""
    return list(range(1, (UNKNOWN_ORDERS if block.order is None else block.order) + 2))


def takes_seconds(places: Places) -> bool:
    """Whether all orders together take some seconds: small models that come trained."""
    return bool(packaged_weights(places.key.name))


def measure_places(places: Places, order: int, source: Source) -> None:
    """Measure one order within the memory that the viewer was given, and keep it or the line that says why it is not.

    Raises:
        BusyError: the gate was taken for too long.
        ValueError: the picture cannot be read.
    """
    shared, picture = shared_model(places.key), prepared(source, places.key)
    (block,) = (one for one in shared.blocks if one.index == places.block)
    with GATE.long_slot() as slot, pauses_everywhere():
        if MEASURED.get((places, order)) is not None:
            return
        try:
            point = explained_point(shared.replicas[slot], picture.batch, block, "mixer_input")
            operator, x = widened(point.operator, point.x)
            reading = point.reading
            if reading.output_grid != reading.grid:
                raise ValueError(f"block {block.index} has another map in its output: orders by place need one map.")
            _check_memory(operator, x, order, {"layout": reading.layout, "grid": reading.grid}, block)
            found = interaction_places(
                operator, x, places.query, order=order, num_orderings=places.orderings, layout=reading.layout,
                grid=reading.grid,
            )  # fmt: skip
        except ValueError as error:
            MEASURED.put((places, order), str(error))
        else:
            origin = replace(shared.provenance, images=(picture.label,))
            MEASURED.put((places, order), replace(found, provenance=origin))


def _check_memory(operator: object, x: object, order: int, layout: dict[str, object], block: MixingBlock) -> None:
    if block.mixer == "gnconv":  # whose graphs grow with the order alone, and stay small
        return
    cost = measurement_cost(
        operator, x, max_order=order, num_tuples=1, explicit=True, memory=memory(), **layout  # type: ignore[arg-type]
    )  # fmt: skip
    if not cost.fits:
        raise ValueError(f"block {block.index}, k = {order}: {cost}")
