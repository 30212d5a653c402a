"""Mixing weights of all blocks of a model and their rollout, kept for everybody who looks at the same picture."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

import horinsight
from horinsight.memory_budget import GIGABYTE
from horinsight.mixing.mixing_results import Rollout
from horinsight.mixing.query_table import QueryTable
from horinsight.pauses import pauses_everywhere
from horinsight.viewer.service.block_spectra import memory
from horinsight.viewer.service.gate import GATE
from horinsight.viewer.service.kept import Kept
from horinsight.viewer.service.mixed import Mixed, mixed_now
from horinsight.viewer.service.model_pool import ModelKey, SharedModel, shared_model
from horinsight.viewer.service.pictures import Source, prepared

KEPT = 4  # models and pictures, each of up to some hundred megabytes while it is made and some ten afterwards
ROLLOUT = "rollout"  # the name of its table
PROBES = 1  # random sign vectors a position
TOGETHER = 4  # of which are differentiated together, so that their graphs stay small
COPIES = 8  # of the largest matrix over positions, that are there at once while a rollout is made
Rolled = Literal["weights", "influence"]


@dataclass(frozen=True)
class Seen:
    """What is looked at: a model and a picture."""

    key: ModelKey
    picture_id: str


BLOCKS: Kept[Seen, Mixed | str] = Kept(KEPT)
ROLLOUTS: Kept[tuple[Seen, Rolled], Rollout | str] = Kept(2 * KEPT)


def see_all_blocks(seen: Seen, source: Source) -> None:
    """Compute the mixing weights of all blocks, and keep them or the line that says why there are none.

    Raises:
        BusyError: the gate was taken for too long.
        ValueError: the picture cannot be read.
    """
    shared = shared_model(seen.key)
    prepared(source, seen.key)
    every = tuple(block.index for block in shared.blocks)
    with GATE.slot() as slot, pauses_everywhere():
        if BLOCKS.get(seen) is None:
            try:
                BLOCKS.put(seen, mixed_now(source, seen.key, every, None, slot))
            except ValueError as error:
                BLOCKS.put(seen, str(error))


def roll_out(seen: Seen, source: Source, rolled: Rolled) -> None:
    """Roll a model's blocks out, and keep the rollout or the line that says why there is none.

    Args:
        seen: model and picture.
        source: of the picture.
        rolled: "weights" in one forward pass; "influence" differentiates each block at each of its positions.

    Raises:
        BusyError: the gate was taken for too long.
        ValueError: the picture cannot be read.
    """
    shared, picture = shared_model(seen.key), prepared(source, seen.key)
    slot_of_gate = GATE.slot if rolled == "weights" else GATE.long_slot
    with slot_of_gate() as slot, pauses_everywhere():
        if ROLLOUTS.get((seen, rolled)) is not None:
            return
        try:
            check_memory(shared)
            model = shared.replicas[slot]
            name, labels = seen.key.name, [picture.label]
            if rolled == "weights":
                found = horinsight.mixing_rollout(model, picture.batch, model_name=name, image_names=labels)
            else:
                found = horinsight.influence_rollout(
                    model, picture.batch, probes=PROBES, batch_size=TOGETHER, model_name=name, image_names=labels
                )
            if not np.isfinite(found.weights).all():
                raise ValueError(f"The rollout of {rolled} of {name} is NaN or infinite: its features are too large.")
        except ValueError as error:
            ROLLOUTS.put((seen, rolled), str(error))
        else:
            ROLLOUTS.put((seen, rolled), found)


def rollout_gigabytes(shared: SharedModel) -> float:
    """About what a rollout takes at most: matrices over the positions of the largest map, and one for each block."""
    positions = [size[0] * size[1] for size in shared.map_sizes.values() if size is not None]
    return 4 * (COPIES * max(positions, default=0) ** 2 + sum(count**2 for count in positions)) / GIGABYTE


def check_memory(shared: SharedModel) -> None:
    """A rollout that would take more memory than the viewer was given is refused.

    Raises:
        ValueError: it would.
    """
    needed, given = rollout_gigabytes(shared), memory()
    if needed > given:
        raise ValueError(
            f"The rollout of {shared.key.name} would take {needed:.1f} GB, more than the {given:.1f} GB that this "
            "viewer was given (--memory): its blocks are shown without it."
        )


def rollout_table(rollout: Rollout) -> QueryTable:
    """A rollout of one picture as the maps of all its queries; prefix tokens are left out."""
    (rows, columns), (height, width) = rollout.out_size, rollout.in_size
    values = rollout.weights[0, -rows * columns :, -height * width :].astype(np.float32)
    return QueryTable(rollout.out_size, rollout.in_size, values, None)
