"""What the rest of a network is to see of a module's output: the positions of its input, where it mixed them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from horinsight.mixers.call_tree import UNMIXED, ModuleCall
from horinsight.mixers.labels import FIRST_CELL, POOLED, Labels


def exit_labels(call: ModuleCall, after: Labels, crowded: bool, *, touched: bool) -> tuple[Labels, str]:
    """The labels of a module's output, and what the module did to positions that nothing inside it has done.

    Where all positions were pooled and the output has its input's shape again, the module mixed them: a token MLP, a
    pair of Fourier transforms. Where patches went into channels and came back as a map, it mixed these. What mixes and
    keeps the shape gives its output the positions of its input.

    Args:
        call: the module's call, with its input and what is inside.
        after: the labels of the output as its operators left them.
        crowded: whether the input has positions in an axis of channels, so that its axes say nothing.
        touched: whether anything happened inside on the way to this output.

    Returns:
        The labels; and "all" (positions were pooled), "merge" (patches were) or "" for nothing new.
    """
    before = call.input
    if before is None or crowded or before.partners is not None:
        return after, ""
    if not touched and torch.equal(before.cells, after.cells):
        return after, ""
    axes = before.axes()
    if len(before.shape) != len(after.shape) or any(before.shape[i] != after.shape[i] for i in axes):
        return after, ""
    did = ""
    if bool(((before.cells >= FIRST_CELL) & (after.cells == POOLED)).any()):
        did = "all"
    elif not call.inside():
        return after, ""
    elif after.same_as(Labels(after.shape, before.cells)):
        inside = {event.what for event in call.inside()}
        return after, "merge" if "patchify" in inside and inside <= UNMIXED else ""
    elif _one_to_one(before.cells, after):
        if all(event.what in UNMIXED for event in call.events):
            return after, ""  # what is inside moved them
    elif all(event.what in UNMIXED for event in call.inside()):
        did = "merge"
    prefix = torch.maximum(before.cells, (after.cells == POOLED) * POOLED)
    labels = Labels.of(torch.where(before.cells >= FIRST_CELL, before.cells, prefix), shape=after.shape)
    return (after if labels is None else labels), did


def _one_to_one(before: Tensor, after: Labels) -> bool:
    """Whether the cells are the same, at other places."""
    if after.partners is not None:
        return False
    a, b = before[before >= FIRST_CELL], after.cells[after.cells >= FIRST_CELL]
    return a.shape == b.shape and torch.equal(a.sort().values, b.sort().values)


def returned(before: Labels, after: Any) -> Any:
    """The labels of what reads moved positions: those that the module that moved them was given, where they fit."""
    if not isinstance(after, Labels) or len(before.shape) != len(after.shape) or before.partners is not None:
        return after
    if any(before.shape[axis] != after.shape[axis] for axis in before.axes()):
        return after
    return Labels.of(before.cells, shape=after.shape)
