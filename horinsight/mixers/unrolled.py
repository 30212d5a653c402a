"""Recurrences that are written out: a loop over positions in a module's forward, one step after the other."""

from __future__ import annotations

from collections.abc import Sequence

from horinsight.mixers.labels import FIRST_CELL, Grids, Labels

LEAST_STEPS = 3  # fewer may be anything


def steps_of_a_loop(before: Sequence[int], meets: Sequence[Labels], after: object) -> int:
    """How many times in a row a few positions have met the next few.

    Args:
        before: the same of the tensors that go in.
        meets: labels of those that carry positions.
        after: labels of what comes out.

    Returns:
        One more than before where different positions met; as before where not.
    """
    return max(before) + (len(meets) > 1 and isinstance(after, Labels))


def is_recurrence(steps: int, after: object, grids: Grids) -> bool:
    """Whether that many steps, each with the positions of this tensor, are a loop over a map.

    A convolution that is a sum of shifted maps has all positions in each of its sums; a state has a few, and its loop
    comes through half of the map at least.

    Example:
        >>> grids = Grids()
        >>> state = Labels.of(grids.cells(4, 4)[0, 0], shape=())
        >>> is_recurrence(15, state, grids), is_recurrence(2, state, grids)
        (True, False)
        >>> is_recurrence(8, Labels.of(grids.cells(4, 4)), grids)
        False
    """
    if steps < LEAST_STEPS or not isinstance(after, Labels) or after.partners is not None:
        return False
    size = grids.size_of(after.cells)
    if size is None:
        return False
    together, whole = len(after.cells[after.cells >= FIRST_CELL].unique()), size[0] * size[1]
    return 2 * together < whole <= 2 * steps * together
