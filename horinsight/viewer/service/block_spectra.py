"""Interaction spectra, block by block; what is finished is kept for everybody."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import horinsight
from horinsight.interaction.draw_schedule import CLOSED_FORM_DRAWS
from horinsight.interaction.graph_meter import in_words
from horinsight.interaction.measurement_cost import BESIDE, MeasurementCost, model_measurement_costs
from horinsight.interaction.order_ladder import ladder
from horinsight.interaction.spectrum import InteractionSpectrum
from horinsight.interaction.spectrum_options import SpectrumOptions
from horinsight.memory_budget import GIGABYTE, budget_bytes, resident_bytes
from horinsight.mixers.blocks import MixingBlock
from horinsight.viewer.service.gate import GATE
from horinsight.viewer.service.kept import Kept
from horinsight.viewer.service.model_pool import ModelKey, SharedModel, shared_model
from horinsight.viewer.service.pictures import Source, prepared
from horinsight.viewer.service.settings import settings

REFUSED_SECONDS = 300.0
LEAST_MEMORY = 1e-3  # gigabytes: with which a measurement is refused in words
KEPT = 2000  # spectra, of some hundred bytes each
REFERENCES = ("convolution 7x7", "squeeze-and-excitation", "self-attention")


@dataclass(frozen=True)
class Measurement:
    """What is measured on each block.

    Attributes:
        key: of the model.
        picture_id: of the picture.
        options: how.
    """

    key: ModelKey
    picture_id: str
    options: SpectrumOptions


class Store:
    """Finished blocks: a spectrum, or the line that says why there is none. The oldest go first.

    A refusal holds for some minutes: it may have been for what other visitors' models take of the memory.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._kept: Kept[tuple[Measurement, int], tuple[InteractionSpectrum | str, float]] = Kept(kept)

    def get(self, measurement: Measurement, index: int) -> InteractionSpectrum | str | None:
        """What is known of a block."""
        found, since = self._kept.get((measurement, index)) or (None, 0.0)
        if isinstance(found, str) and time.monotonic() - since > REFUSED_SECONDS:
            return None
        return found

    def put(self, measurement: Measurement, index: int, found: InteractionSpectrum | str) -> None:
        """Keep a block."""
        self._kept.put((measurement, index), (found, time.monotonic()))


STORE = Store()
ESTIMATES: Kept[tuple[ModelKey, SpectrumOptions, int], MeasurementCost | str] = Kept(KEPT)


def groups_alike(shared: SharedModel, blocks: Sequence[MixingBlock]) -> list[list[MixingBlock]]:
    """Blocks that cost the same: of one kind, one size of map and one number of parameters."""
    groups: dict[tuple[object, ...], list[MixingBlock]] = {}
    for block in blocks:
        size = sum(parameter.numel() for parameter in block.module.parameters())
        alike = (block.mixer, type(block.module), shared.map_sizes.get(block.name), size, block.order)
        groups.setdefault(alike, []).append(block)
    return list(groups.values())


def known_estimate(measurement: Measurement, index: int) -> MeasurementCost | str | None:
    """What a block would cost, why that cannot be said, or None where nobody asked yet."""
    return ESTIMATES.get((measurement.key, measurement.options, index))


def estimate(measurement: Measurement, index: int, source: Source) -> None:
    """Predict from one dry run what a block would cost, and keep that.

    Raises:
        BusyError: the gate was taken for too long.
    """
    shared, picture = shared_model(measurement.key), prepared(source, measurement.key)
    with GATE.long_slot() as slot:
        if known_estimate(measurement, index) is not None:
            return
        found: MeasurementCost | str
        try:
            (found,) = model_measurement_costs(
                shared.replicas[slot],
                picture.batch,
                blocks=[index],
                options=replace(measurement.options, memory=memory()),
            ).values()
        except ValueError as error:
            found = str(error)
        ESTIMATES.put((measurement.key, measurement.options, index), found)


def estimate_in_words(measurement: Measurement, groups: Sequence[Sequence[MixingBlock]]) -> str:
    """Time and memory of all blocks, from what is known of the first of each group."""
    seconds, most, too_high = 0.0, 0.0, []
    for group in groups:
        known = known_estimate(measurement, group[0].index)
        if isinstance(known, MeasurementCost):
            order = len(known.seconds) - 1 if known.fits else max(known.highest_order, 0)
            seconds += float(known.seconds[order]) * len(group)
            most = max(most, float(known.memory_bytes[order]))
            if not known.fits:
                too_high.append(known.highest_order)
    cost = f"about {time_in_words(seconds)} of one core and up to {in_words(most)} of memory"
    given = in_words(memory() * GIGABYTE)
    if too_high:
        return f"This order does not fit into {given}. The highest that does is {min(too_high)}, and takes {cost}."
    return f"This will take {cost}, of {given} given."


def time_in_words(seconds: float) -> str:
    """No more exact than it is known.

    Example:
        >>> [time_in_words(seconds) for seconds in (0.2, 42.0, 500.0, 30000.0)]
        ['a second', '42 s', '8 min', '8 h']
    """
    if seconds < 1:
        return "a second"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def measure(measurement: Measurement, index: int, source: Source) -> None:
    """Measure a block within the memory that the viewer was given, and keep what comes out.

    Raises:
        BusyError: the gate was taken for too long.
        ValueError: the picture cannot be read.
    """
    shared, picture = shared_model(measurement.key), prepared(source, measurement.key)
    with GATE.long_slot() as slot:
        if STORE.get(measurement, index) is not None:
            return
        try:
            (spectrum,) = horinsight.model_interaction_spectra(
                shared.replicas[slot],
                picture.batch,
                blocks=[index],
                options=replace(measurement.options, memory=memory()),
                provenance=replace(shared.provenance, images=(picture.label,)),
            ).values()
        except ValueError as error:
            STORE.put(measurement, index, str(error))
        else:
            STORE.put(measurement, index, spectrum)


def memory() -> float:
    """Gigabytes that a measurement may take now: what the server was given at the start, less what it has taken.

    Where nothing was given, half of what is free.
    """
    given = settings().memory
    if given is None:
        return budget_bytes() / GIGABYTE
    return max(given - (resident_bytes() + BESIDE) / GIGABYTE, LEAST_MEMORY)


def is_quick(shared: SharedModel, measurement: Measurement) -> bool:
    """Whether all blocks together take some seconds: gⁿConvs, whose derivatives come in closed form."""
    closed = all(block.mixer == "gnconv" for block in shared.blocks)
    options = measurement.options
    return closed and options.explicit and options.scope == "mixer" and (options.num_tuples or 0) <= CLOSED_FORM_DRAWS


@cache
def _ladder_orders() -> dict[str, int]:
    return {rung.name: rung.location_order for rung in ladder()}


def reference_orders(blocks: list[MixingBlock]) -> list[tuple[int, str]]:
    """Orders that theory gives to known operators, and to the gⁿConvs among the blocks: (order, name)."""
    named: dict[int, list[str]] = {}
    for name in REFERENCES:
        named.setdefault(_ladder_orders()[name], []).append(name)
    for order in sorted({block.order for block in blocks if block.mixer == "gnconv" and block.order is not None}):
        named.setdefault(order, []).append(f"g{order}Conv")
    return [(order, ", ".join(names)) for order, names in sorted(named.items())]
