"""Reach over any number of pictures: batches are added, the maps of a chosen few are kept, and the numbers of all."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from horinsight.mixing.reach_results import Reach


class RunningReach:
    """`Reach` of one block over pictures that come in batches.

    What is kept of a picture are its radii and totals, seven numbers a query; of those shown their maps as well.

    Args:
        shown: numbers of the pictures whose maps are kept; all when None.
    """

    def __init__(self, shown: Sequence[int] | None = None) -> None:
        self.shown = None if shown is None else tuple(sorted(set(shown)))
        self.count = 0
        self._parts: list[Reach] = []

    def update(self, reach: Reach) -> None:
        """Add the pictures of a batch, whose maps are all there.

        Raises:
            ValueError: of other positions, or measured otherwise.
        """
        squares, errors = reach.influence.squares, reach.influence.standard_errors
        if self.shown is not None:
            here = [number - self.count for number in self.shown if 0 <= number - self.count < len(squares)]
            squares, errors = squares[here], errors[here]
        if self._parts:
            first = self._parts[0]
            if not np.array_equal(first.influence.queries, reach.influence.queries) or (
                first.influence.output_shape != reach.influence.output_shape
            ):
                raise ValueError("These pictures' influence is on other positions than that of those before.")
        kept = replace(reach.influence, squares=squares.copy(), standard_errors=errors.copy())
        self._parts.append(replace(reach, influence=kept))
        self.count += len(reach.totals)

    def compute(self) -> Reach:
        """Of all pictures so far.

        Raises:
            ValueError: none.
        """
        if not self._parts:
            raise ValueError("Reach expects at least one picture, got none.")
        if len(self._parts) == 1 and self.shown is None:
            return self._parts[0]
        first, maps = self._parts[0], [part.influence for part in self._parts]
        return replace(
            first,
            influence=replace(
                first.influence,
                squares=np.concatenate([one.squares for one in maps]),
                standard_errors=np.concatenate([one.standard_errors for one in maps]),
            ),
            radii=np.concatenate([part.radii for part in self._parts]),
            radii_pixels=np.concatenate([part.radii_pixels for part in self._parts]),
            totals=np.concatenate([part.totals for part in self._parts]),
            shown=None if self.shown is None else tuple(number for number in self.shown if number < self.count),
        )
