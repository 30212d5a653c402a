"""Interaction spectra, block by block; what is finished is kept for everybody."""

import time
from dataclasses import dataclass, replace
from functools import cache

import horinsight
from horinsight.interaction.draw_schedule import CLOSED_FORM_DRAWS
from horinsight.interaction.measurement_cost import BESIDE
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
