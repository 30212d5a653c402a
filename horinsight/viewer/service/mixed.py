"""Mixing weights of a picture, kept after one forward pass, so that every further query takes milliseconds."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass, replace

import streamlit as st
import torch

import horinsight
from horinsight.mixers.blocks import chosen_blocks
from horinsight.mixing.adaptivity import adaptivity
from horinsight.mixing.mixing_results import Adaptivity, QueryMaps
from horinsight.mixing.query_maps import map_convention, maps_of_weights
from horinsight.mixing.query_places import figure_blocks
from horinsight.mixing.query_table import QueryTable, query_table
from horinsight.mixing.weights import MixingWeights
from horinsight.models.predictions import Prediction, predictions
from horinsight.results import Provenance, ResultSet
from horinsight.viewer.service.gate import GATE
from horinsight.viewer.service.model_pool import ModelKey, SharedModel, shared_model
from horinsight.viewer.service.pictures import Picture, Source, prepared

SHOWN = 6  # blocks


@dataclass(frozen=True, eq=False)
class Mixed:
    """What one forward pass tells of a picture.

    Attributes:
        key: of the model.
        blocks: indices of the blocks, from 1.
        step: recursion step; None for the last.
        picture: what it was shown.
        weights: block name → mixing weights.
        adaptivity: block name → its numbers for this picture.
        predictions: the most probable classes; empty for untrained weights.
        provenance: with the picture.
    """

    key: ModelKey
    blocks: tuple[int, ...]
    step: int | None
    picture: Picture
    weights: dict[str, MixingWeights]
    adaptivity: dict[str, Adaptivity]
    predictions: list[Prediction]
    provenance: Provenance

    @property
    def map_size(self) -> tuple[int, int]:
        """(rows, columns) of the first block's map, on which queries are counted."""
        first = next(iter(self.weights.values()))
        return first.height, first.width

    @property
    def num_channels(self) -> int:
        """Channels (or heads) that all of the blocks have."""
        return min(weights.num_channels for weights in self.weights.values())

    def maps(self, query: tuple[int, int], *, channel: int | None = None) -> QueryMaps:
        """Where a query looks."""
        blocks = chosen_blocks(shared_model(self.key).replicas[0], self.blocks)
        return maps_of_weights(
            self.weights,
            [[query]],
            block_indices=self.blocks,
            pictures=self.picture.view[None],
            image_names=[self.picture.label],
            channel=channel,
            convention=map_convention(blocks, step=self.step, channel=channel),
            provenance=self.provenance,
        )


@st.cache_resource(max_entries=16, show_spinner=False)
def tables_of(_found: Mixed, stamp: str, channel: int | None) -> dict[str, QueryTable]:
    """All queries of the blocks, for maps that follow a pointer; without those that are too large for it.

    Args:
        _found: the mixing weights.
        stamp: of them, see `tables_stamp`.
        channel: one of them; the mean over all when None.
    """
    tables = {}
    for name, weights in _found.weights.items():
        with suppress(ValueError):
            tables[name] = query_table(weights, channel=channel)
    return tables


def tables_stamp(found: Mixed, channel: int | None) -> str:
    """Changes with what tables are of: model, weights, picture, blocks, step and channel."""
    shown = (found.key, found.picture.id, found.blocks, found.step, channel)
    return hashlib.sha256(repr(shown).encode()).hexdigest()[:16]


def default_blocks(shared: SharedModel) -> tuple[int, ...]:
    """The six blocks that are shown when none are chosen."""
    return figure_blocks(shared.map_sizes, count=SHOWN)


def mixed(source: Source, key: ModelKey, blocks: tuple[int, ...], step: int | None) -> Mixed:
    """Mixing weights of a picture.

    Raises:
        ValueError: the picture cannot be read, or the blocks have no such weights.
        BusyError: the gate was taken for too long.
    """
    return _mixed(key, source.id, blocks, step, source)


@st.cache_resource(max_entries=8, show_spinner="Computing mixing weights …")
def _mixed(key: ModelKey, picture_id: str, blocks: tuple[int, ...], step: int | None, _source: Source) -> Mixed:
    prepared(_source, key)  # which passes the gate by itself
    with GATE.slot() as slot:
        return mixed_now(_source, key, blocks, step, slot)


def mixed_now(source: Source, key: ModelKey, blocks: tuple[int, ...], step: int | None, slot: int) -> Mixed:
    """What `mixed` gives, computed in a slot of the gate that the caller holds, for a picture that was prepared.

    Raises:
        ValueError: the blocks have no such weights.
    """
    shared, picture = shared_model(key), prepared(source, key)
    model = shared.replicas[slot]
    weights = horinsight.model_mixing_weights(model, picture.batch, blocks=blocks, step=step)
    found = {}
    for name, part in weights.items():
        with suppress(ValueError):  # weights that take too many passes to have them all: their maps are shown alone
            found[name] = adaptivity(part, image_size=shared.image_size)
    best = predictions(model, picture.batch)[0] if shared.provenance.trained else []
    return Mixed(key, blocks, step, picture, weights, found, best, replace(shared.provenance, images=(picture.label,)))


@st.cache_data(max_entries=32, show_spinner="Measuring over several pictures …")
def adaptivity_over(
    key: ModelKey, picture_ids: tuple[str, ...], blocks: tuple[int, ...], step: int | None, _sources: list[Source]
) -> ResultSet[Adaptivity]:
    """Adaptivity of blocks over several pictures, with standard errors.

    Raises:
        ValueError, BusyError: as `mixed`.
    """
    shared = shared_model(key)
    batch = torch.cat([prepared(source, key).batch for source in _sources])
    with GATE.slot() as slot:
        return horinsight.model_adaptivity(shared.replicas[slot], batch, blocks=blocks, step=step)
