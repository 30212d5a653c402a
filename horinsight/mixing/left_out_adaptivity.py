"""Adaptivity without one picture, or without one part of many: the jackknife in a second pass, with nothing kept."""

from collections.abc import Callable, Iterable

import numpy as np

from horinsight.mixing.mixing_results import Adaptivity
from horinsight.mixing.running_adaptivity import OF_INPUT, SHARES, RunningAdaptivity
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


class PartedAdaptivity:
    """Adaptivity of pictures whose sums are kept in parts, each of which comes twice: to be added, then to be left out.

    Standard errors of shares and deviations leave one part out at a time (`jackknife_by_groups`): parts of one picture
    give those of `adaptivity`; with few parts they are known less well, to about 1 / sqrt(2 (parts - 1)) of themselves.
    """

    def __init__(self) -> None:
        self.total = RunningAdaptivity()
        self.num_parts = 0
        self.left_out: dict[int, tuple[int, dict[str, float]]] = {}

    def add(self, part: RunningAdaptivity) -> None:
        """The first pass.

        Raises:
            ValueError: a part that does not belong to those before.
        """
        if not self.num_parts:
            self.total.image_size = part.image_size
        self.total.merge(part)
        self.num_parts += 1

    def leave_out(self, number: int, part: RunningAdaptivity) -> None:
        """The second pass: a part by its number; where fewer than three were added, nothing is known without one."""
        if self.num_parts >= 3:
            self.left_out[number] = part.count, self.total.without(part)

    def compute(self) -> Adaptivity:
        """The numbers of all pictures, with standard errors where every part was left out.

        Raises:
            ValueError: no part.
        """
        found = self.total.compute()
        if self.num_parts < 3:
            return found
        sizes, values = zip(*self.left_out.values(), strict=True)
        return self.total.finished(
            {
                name: jackknife_by_groups([one[name] for one in values], sizes, whole)
                for name, whole in self._shares.items()
            }
        )

    @property
    def _shares(self) -> dict[str, float]:
        return {name: float(value) for name, value in variance_shares(self.total.sums).items()}

    def differences(self, other: "PartedAdaptivity") -> dict[str, Estimate]:
        """Shares and deviations less those of others at the same pictures in the same parts, one part left out of both.

        What both owe to the pictures is no part of the standard error: pseudo-values are differences of those of both.

        Raises:
            ValueError: other parts.
        """
        if self.num_parts != other.num_parts or self.left_out.keys() != other.left_out.keys():
            raise ValueError(f"Expected the same parts of both, got {self.num_parts} and {other.num_parts} parts.")
        mine, others = self._shares, other._shares
        unknown = Estimate(float("nan"), float("nan"))
        found = {}
        for name in SHARES:
            whole = mine[name] - others[name]
            values = [one[name] - other.left_out[number][1][name] for number, (_, one) in self.left_out.items()]
            sizes = [size for size, _ in self.left_out.values()]
            known = jackknife_by_groups(values, sizes, whole) if values else Estimate(whole, float("nan"))
            found[name] = unknown if name in OF_INPUT and self.total.count < 2 else known
        return found


def adaptivity_of_parts(parts: Callable[[], Iterable[RunningAdaptivity]]) -> Adaptivity:
    """`adaptivity` of pictures whose sums are kept in parts, see `PartedAdaptivity`.

    Args:
        parts: gives the parts anew at each of two calls, as from their files; one is in memory at a time.

    Raises:
        ValueError: no part, or parts that do not belong together.
    """
    found = PartedAdaptivity()
    for part in parts():
        found.add(part)
    for number, part in enumerate(parts()):
        found.leave_out(number, part)
    return found.compute()
