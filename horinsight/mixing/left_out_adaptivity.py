"""Adaptivity without one picture, or without one part of many: the jackknife in a second pass, with nothing kept."""

from collections.abc import Callable, Iterable

import numpy as np

from horinsight.mixing.mixing_results import Adaptivity
from horinsight.mixing.running_adaptivity import SHARES, RunningAdaptivity
from horinsight.mixing.variance_sums import VarianceSums, variance_shares
from horinsight.mixing.weights import MixingWeights
from horinsight.mixing.weights_by_offset import weights_by_offset
from horinsight.stats import Estimate, RunningMean, jackknife_by_groups


class LeftOutAdaptivity:
    """The second pass: shares and deviations of all pictures but one, for each of them; sums of these are kept.

    Args:
        totals: of all pictures.
    """

    def __init__(self, totals: RunningAdaptivity) -> None:
        self.totals = totals
        self.values = {name: RunningMean() for name in SHARES}

    @property
    def count(self) -> int:
        """Pictures left out so far."""
        return self.values[SHARES[0]].count

    def update(self, weights: MixingWeights) -> dict[str, np.ndarray]:
        """Leave out each of the pictures of a batch, which the totals have seen.

        Returns:
            Name of the share or deviation → its values, (B,); none where fewer than two pictures would be left.

        Raises:
            ValueError: weights on another map than the totals'.
        """
        if self.totals.count < 3:
            return {}
        parts = weights_by_offset(weights)
        left = [
            sums.without(VarianceSums.of_each(sums.cells, sums.cells.of(part)))
            for sums, part in zip(self.totals.sums, parts, strict=True)
        ]
        found = {name: values.numpy() for name, values in variance_shares(left).items()}
        for name, values in found.items():
            self.values[name].update(values)
        return found

    def merge(self, other: "LeftOutAdaptivity") -> None:
        """Add the pictures that another one with the same totals has left out."""
        for name, mean in other.values.items():
            self.values[name].merge(mean)

    def estimate(self, name: str, whole: float) -> Estimate:
        """A share with its jackknife standard error."""
        seen = self.values[name]
        return Estimate(whole, ((seen.count - 1) / seen.count * seen.squares) ** 0.5, seen.count)


def adaptivity_of_parts(parts: Callable[[], Iterable[RunningAdaptivity]]) -> Adaptivity:
    """`adaptivity` of pictures whose sums are kept in parts, none of which is seen twice.

    Standard errors of shares and deviations leave one part out at a time (`jackknife_by_groups`): parts of one picture
    give those of `adaptivity`; with few parts they are known less well, to about 1 / sqrt(2 (parts - 1)) of themselves.

    Args:
        parts: gives the parts anew at each of two calls, as from their files; one is in memory at a time.

    Raises:
        ValueError: no part, or parts that do not belong together.
    """
    total = RunningAdaptivity()
    num_parts = 0
    for part in parts():
        if not num_parts:
            total.image_size = part.image_size
        total.merge(part)
        num_parts += 1
    found = total.compute()
    if num_parts < 3:
        return found
    values: list[dict[str, float]] = []
    sizes: list[int] = []
    for part in parts():
        values.append(total.without(part))
        sizes.append(part.count)
    return total.finished(
        {name: jackknife_by_groups([one[name] for one in values], sizes, getattr(found, name).value) for name in SHARES}
    )
