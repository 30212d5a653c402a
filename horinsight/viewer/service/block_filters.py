"""Filters of one block on one picture, and the order in which a page shows them."""

from dataclasses import replace

import numpy as np
import streamlit as st

from horinsight.mixers.blocks import MixingBlock
from horinsight.mixing.channel_filters import channel_filters
from horinsight.mixing.filter_results import ChannelFilters
from horinsight.viewer.service.gate import GATE
from horinsight.viewer.service.mixed import mixed
from horinsight.viewer.service.model_pool import ModelKey
from horinsight.viewer.service.pictures import Source

ADAPTIVITY, DEVIATION, NORM, CHANNEL = "adaptivity", "deviation", "norm", "channel"
ORDERS = (ADAPTIVITY, DEVIATION, NORM, CHANNEL)
ATTENTION = ("attention",)  # in the kind of a mixer that has no filters


def blocks_with_filters(blocks: tuple[MixingBlock, ...]) -> list[MixingBlock]:
    """Those that may have: whether they do, their weights tell."""
    return [block for block in blocks if not any(word in block.mixer for word in ATTENTION)]


def filters_of(source: Source, key: ModelKey, block: int, step: int | None) -> ChannelFilters:
    """Filters of a block, with how much they adapt on a picture.

    Raises:
        ValueError: the block has none, or the picture cannot be read.
        BusyError: the gate was taken for too long.
    """
    return _filters_of(key, source.id, block, step, source)


@st.cache_data(max_entries=16, show_spinner="Reading the filters …")
def _filters_of(key: ModelKey, picture_id: str, block: int, step: int | None, _source: Source) -> ChannelFilters:
    found = mixed(_source, key, (block,), step)
    ((name, weights),) = found.weights.items()
    with GATE.slot():
        return replace(channel_filters(weights, name=name), provenance=found.provenance)


def ordered_channels(found: ChannelFilters, by: str) -> np.ndarray:
    """Channels from the strongest down, by one of `ORDERS`; what is alike stays in its order.

    Where no weight adapts, the first two say nothing, and the norm is taken in their place.
    """
    if by == CHANNEL:
        return np.arange(len(found.norms))
    values = {ADAPTIVITY: found.location_adaptivity, DEVIATION: found.location_deviation, NORM: found.norms}[by]
    if by in (ADAPTIVITY, DEVIATION) and not found.adapts:
        values = found.norms
    order: np.ndarray = np.argsort(-values, kind="stable")
    return order
