"""Models that are shared by all sessions, with a replica for each slot of the gate."""

import copy
import threading
from dataclasses import dataclass
from functools import cache
from itertools import chain

import streamlit as st
from torch import nn

import horinsight
from horinsight.memory_budget import GIGABYTE, resident_bytes
from horinsight.mixers.blocks import MixingBlock, block_map_sizes
from horinsight.models.provenance import model_provenance
from horinsight.models.registry import input_size
from horinsight.results import Provenance
from horinsight.viewer.service.gate import GATE, SLOTS
from horinsight.viewer.service.model_room import SHARE, ModelRoom, model_bytes
from horinsight.viewer.service.settings import checkpoint_path, settings

BUILDING = threading.Lock()  # random weights are drawn with the process's one generator


@dataclass(frozen=True)
class ModelKey:
    """What a model is built from: its name, and the name of a checkpoint in the given folder ("" for none)."""

    name: str
    checkpoint: str = ""


@dataclass(frozen=True, eq=False)
class SharedModel:
    """A model in eval mode.

    Attributes:
        key: what it was built from.
        replicas: one per slot of the gate; they share their weights.
        blocks: its mixing blocks.
        map_sizes: (rows, columns) of each block.
        image_size: (H, W) in pixels.
        provenance: without images.
    """

    key: ModelKey
    replicas: tuple[nn.Module, ...]
    blocks: tuple[MixingBlock, ...]
    map_sizes: dict[str, tuple[int, int] | None]
    image_size: tuple[int, int]
    provenance: Provenance


def shared_model(key: ModelKey) -> SharedModel:
    """Build a model, or take it from those in use.

    Raises:
        ValueError: its checkpoint is not there, holds no weights or NaN, or does not fit; or the model has no blocks,
            or is too large for the memory that the viewer was given.
        OSError: the checkpoint cannot be read.
        BusyError: the gate was taken for too long.
    """
    given = settings().memory
    if given is not None:
        room = SHARE * max(given * GIGABYTE - _bytes_of_libraries(), 0.0)
        _ROOM.take(key, model_bytes(key.name), room=room)
    found: SharedModel = _shared_model(key)
    return found


@cache
def _bytes_of_libraries() -> float:
    """What the server has taken before its first model."""
    return resident_bytes()


@st.cache_resource(max_entries=3, show_spinner="Building the model …")
def _shared_model(key: ModelKey) -> SharedModel:
    path = checkpoint_path(settings().checkpoints, key.checkpoint) if key.checkpoint else None
    with GATE.slot(), BUILDING:
        model = horinsight.create_model(key.name, checkpoint=path).requires_grad_(False)
        _check_finite(model, key)
        blocks = tuple(horinsight.named_blocks(model))
        if not blocks:
            raise ValueError(f"{key.name} has no block that mixes positions in a way horinsight knows.")
        size = input_size(model)
        return SharedModel(
            key=key,
            replicas=(model, *(_replica(model) for _ in range(SLOTS - 1))),
            blocks=blocks,
            map_sizes=block_map_sizes(model, size),
            image_size=size,
            provenance=model_provenance(model, model_name=key.name),
        )


_ROOM = ModelRoom[ModelKey](_shared_model.clear)


def _check_finite(model: nn.Module, key: ModelKey) -> None:
    broken = [name for name, tensor in model.state_dict().items() if not tensor.isfinite().all()]
    if broken:
        more = f" and {len(broken) - 1} more" * (len(broken) > 1)
        which = key.checkpoint or f"of {key.name}"
        raise ValueError(
            f"The weights {which} are not whole: there is NaN or infinity in {broken[0]}{more}. Choose other weights."
        )


def _replica(model: nn.Module) -> nn.Module:
    """A copy of the modules, so that hooks do not meet, with the very same weights."""
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    return copy.deepcopy(model, shared)
