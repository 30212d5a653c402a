"""Adaptivity and reach over any number of pictures: sums that are updated, merged, kept and finished.

What is kept does not grow with the pictures: of each kind of channels the mean of the weights over the pictures (of a
gate times a kernel the gate's mean, C x N numbers; of other weights one for each channel and pair of positions), and a
few sums. Values need one pass over the pictures. Standard errors of shares and deviations are jackknifed, and what a
share would be without a picture depends on how that one lies to the mean over all: a second pass tells it exactly,
picture by picture (`LeftOutAdaptivity`), and keeps none.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from horinsight.mixing.mixing_results import Adaptivity, PictureAdaptivity
from horinsight.mixing.variance_sums import VarianceSums, variance_shares
from horinsight.mixing.weight_cells import GateCells, PairCells, WeightCells, weight_cells
from horinsight.mixing.weights import MixingWeights
from horinsight.mixing.weights_by_offset import weights_by_offset
from horinsight.mixing.weights_reach import weights_reach
from horinsight.stats import Estimate, RunningMean

if TYPE_CHECKING:
    from horinsight.mixing.left_out_adaptivity import LeftOutAdaptivity

SHARES = ("input_adaptivity", "location_adaptivity", "static_share", "input_deviation", "location_deviation")
REACH = ("mean_distance", "mean_distance_pixels", "effective_positions", "negative_share")
OF_INPUT = ("input_adaptivity", "input_deviation")  # which one picture cannot tell

CONVENTION = {
    "shares": "of the variance of h_ij by offset: two-way analysis of variance over images and queries",
    "deviations": "root mean square, in units of h_ij",
    "distance": "mean over |h_ij|, in cells and in pixels",
    "standard_error": "over images: jackknife for shares and deviations, of their value at as many images; of the mean "
    "for the others",
}


class RunningAdaptivity:
    """`adaptivity` of one block over pictures that come in batches.

    Args:
        image_size: (H, W) in pixels, for the distance in pixels.

    Example:
        >>> from torch import nn
        >>> from horinsight.mixing.extraction import mixing_weights
        >>> conv, running = nn.Conv2d(4, 4, 3, padding=1, groups=4), RunningAdaptivity()
        >>> rows = [running.update(mixing_weights(conv, torch.randn(3, 4, 6, 6))) for _ in range(2)]
        >>> running.count, running.compute().input_adaptivity.value, rows[0].mean_distance.shape
        (6, 0.0, (3,))
    """

    def __init__(self, *, image_size: tuple[int, int] | None = None) -> None:
        self.image_size = image_size
        self.sums: list[VarianceSums] = []
        self.reach = {name: RunningMean() for name in REACH}

    @property
    def count(self) -> int:
        """Pictures seen so far."""
        return self.sums[0].count if self.sums else 0

    def update(self, weights: MixingWeights) -> PictureAdaptivity:
        """Add the pictures of a batch.

        Returns:
            What each of them gives by itself.

        Raises:
            ValueError: weights of a kind that has no offsets, or on another map than those before.
        """
        parts = weights_by_offset(weights)
        cells = [one.cells for one in self.sums] or [weight_cells(part) for part in parts]
        if len(cells) != len(parts):
            raise ValueError(f"Expected weights of {len(cells)} kinds of channels as before, got {len(parts)}.")
        x = [one.of(part) for one, part in zip(cells, parts, strict=True)]
        stride = None
        if self.image_size is not None:
            stride = (self.image_size[0] / weights.looked_at[0], self.image_size[1] / weights.looked_at[1])
        reach = weights_reach(parts, stride)
        self._add([VarianceSums.of_batch(one, numbers) for one, numbers in zip(cells, x, strict=True)])
        for name, values in reach.items():
            self.reach[name].update(values)
        alone = variance_shares([VarianceSums.of_each(one, numbers) for one, numbers in zip(cells, x, strict=True)])
        return PictureAdaptivity(
            **{name: values.numpy() for name, values in alone.items() if name not in OF_INPUT}, **reach
        )

    def merge(self, other: "RunningAdaptivity") -> None:
        """Add what another one has seen.

        Raises:
            ValueError: that was of other weights, or on another map.
        """
        if self.image_size != other.image_size:
            raise ValueError(f"Pictures of {other.image_size} pixels cannot be added to those of {self.image_size}.")
        self._add(other.sums)
        for name, mean in other.reach.items():
            self.reach[name].merge(mean)

    def compute(self, left_out: "LeftOutAdaptivity | None" = None) -> Adaptivity:
        """The numbers of all pictures seen so far.

        Args:
            left_out: of the same pictures, for the standard errors of shares and deviations; NaN when None.

        Raises:
            ValueError: no picture, or `left_out` has not seen each picture once.
        """
        if not self.count:
            raise ValueError("Adaptivity expects at least one picture, got none.")
        whole = {name: float(value) for name, value in variance_shares(self.sums).items()}
        if left_out is None or self.count < 3:
            return self.finished({name: Estimate(value, float("nan")) for name, value in whole.items()})
        if left_out.count != self.count:
            raise ValueError(
                f"Standard errors expect each of {self.count} pictures to be left out once, got {left_out.count}."
            )
        return self.finished({name: left_out.estimate(name, value) for name, value in whole.items()})

    def finished(self, shares: Mapping[str, Estimate]) -> Adaptivity:
        """The result, of shares that are known; those that one picture cannot tell are not."""
        unknown = Estimate(float("nan"), float("nan"))
        numbers: dict[str, Any] = {
            name: unknown if name in OF_INPUT and self.count < 2 else shares[name] for name in SHARES
        }
        numbers |= {name: mean.compute() for name, mean in self.reach.items()}
        return Adaptivity(**numbers, num_images=self.count, convention=CONVENTION)

    def without(self, part: "RunningAdaptivity") -> dict[str, float]:
        """Shares and deviations of the pictures that are not in a part, which was merged into these."""
        left = [all_.without(out) for all_, out in zip(self.sums, part.sums, strict=True)]
        return {name: float(value) for name, value in variance_shares(left).items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """All that is kept, as arrays by name, to be written into a file (`numpy.savez`)."""
        found = {
            "image_size": np.array(self.image_size or (0, 0)),
            "reach": np.array([[m.count, m.mean, m.squares] for m in self.reach.values()]),
        }
        for index, one in enumerate(self.sums):
            start = f"part{index}_"
            found[f"{start}valid"] = one.cells.valid.numpy()
            if isinstance(one.cells, GateCells):
                found[f"{start}kernel"] = one.cells.kernel.numpy()
            found[f"{start}mean"] = one.mean.numpy()
            found[f"{start}sums"] = np.array([one.count, float(one.images), float(one.image)])
        return found

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Any]) -> "RunningAdaptivity":
        """What `arrays` gave, again.

        Raises:
            ValueError: the arrays are others.
        """
        try:
            size = tuple(int(side) for side in arrays["image_size"])
            found = cls(image_size=(size[0], size[1]) if any(size) else None)
            for mean, row in zip(found.reach.values(), np.asarray(arrays["reach"], float), strict=True):
                mean.count, mean.mean, mean.squares = int(row[0]), float(row[1]), float(row[2])
            index = 0
            while f"part{index}_mean" in arrays:
                found.sums.append(_sums_of_arrays(arrays, f"part{index}_"))
                index += 1
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"Expected the arrays of a RunningAdaptivity, got {', '.join(arrays)}.") from error
        return found

    def _add(self, sums: list[VarianceSums]) -> None:
        if self.sums and sums:
            sums = [one.with_others(other) for one, other in zip(self.sums, sums, strict=True)]
        self.sums = sums or self.sums


def _sums_of_arrays(arrays: Mapping[str, Any], start: str) -> VarianceSums:
    valid, mean = (
        torch.from_numpy(np.array(arrays[f"{start}valid"])),
        torch.from_numpy(np.array(arrays[f"{start}mean"])),
    )
    cells: WeightCells = PairCells(valid)
    if f"{start}kernel" in arrays:
        cells = GateCells(valid, torch.from_numpy(np.array(arrays[f"{start}kernel"])))
    count, images, image = arrays[f"{start}sums"]
    both = (torch.tensor(float(value), dtype=torch.float64, device="cpu") for value in (images, image))
    return VarianceSums(cells, int(count), mean, *both)
