"""Running sums, so that one image, many batches and many processes are one code path."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from horinsight.results import Result

NORMAL_95 = 1.959963984540054  # half-width of a 95 % interval in standard errors


@dataclass(frozen=True, eq=False, repr=False)
class Estimate(Result):
    """A mean over images and its standard error (NaN where one image gives none).

    Attributes:
        value: the mean, or another statistic of the images.
        standard_error: over images like these.
        count: images, or parts of them, that both come from; None where that is not known.
        ends: of the 95 % interval, where it is known to be another than Student's, as that of a mean of heavy-tailed
            numbers that are never negative.
    """

    value: float
    standard_error: float
    count: int | None = None
    ends: tuple[float, float] | None = None

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the value for images like these: Student's with count - 1 degrees, normal without a count.

        From three images a normal one would hold the truth in .81 of repetitions, from eight in .91. Student's is for
        means of numbers that are about normal; how often it holds for others: `experiments/estimate_coverage.py`.
        """
        if self.ends is not None:
            return self.ends
        half = self.standard_error
        half *= NORMAL_95 if self.count is None or self.count < 2 else float(student_quantile(self.count - 1))
        return self.value - half, self.value + half

    def __str__(self) -> str:
        rounding = 1e-12 * abs(self.value)  # a spread of this size is none
        known = np.isfinite(self.standard_error) and self.standard_error > rounding
        error = f" ± {self.standard_error:.2g}" if known else ""
        return f"{self.value:.3g}{error}"


def student_quantile(degrees: ArrayLike) -> np.ndarray:
    """Half-width of a 95 % interval in standard errors that are known by so many degrees of freedom.

    Example:
        >>> student_quantile([2, 1e9]).round(2).tolist()
        [4.3, 1.96]
    """
    from scipy.special import stdtrit  # here: a start of the program is not to wait for it

    quantiles: np.ndarray = stdtrit(np.asarray(degrees, dtype=np.float64), 0.975)
    return quantiles


class RunningMean:
    """Mean and standard error of numbers that come in batches.

    Example:
        >>> mean = RunningMean()
        >>> mean.update([1.0, 2.0])
        >>> mean.update([3.0])
        >>> str(mean.compute())
        '2 ± 0.58'
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.squares = 0.0  # sum of squared deviations from the mean

    def update(self, values: ArrayLike) -> None:
        """Add numbers."""
        batch = np.asarray(values, dtype=np.float64).ravel()
        if batch.size:
            other = RunningMean()
            other.count, other.mean = batch.size, float(batch.mean())
            other.squares = float(np.square(batch - batch.mean()).sum())
            self.merge(other)

    def merge(self, other: "RunningMean") -> None:
        """Add what another one has seen (Chan, Golub and LeVeque 1979)."""
        total = self.count + other.count
        if total == 0:
            return
        shift = other.mean - self.mean
        self.squares += other.squares + shift**2 * self.count * other.count / total
        self.mean += shift * other.count / total
        self.count = total

    def compute(self) -> Estimate:
        """The mean of everything seen so far, with its standard error."""
        if self.count == 0:
            return Estimate(float("nan"), float("nan"))
        error = (self.squares / (self.count - 1) / self.count) ** 0.5 if self.count > 1 else float("nan")
        return Estimate(self.mean, error, self.count)


def jackknife(leave_one_out: ArrayLike, whole: float) -> Estimate:
    """Standard error of a statistic of n images from its n values with one image left out.

    se² = (n - 1)/n · Σ (θ_(−b) − mean)² (Tukey 1958). It is that of the statistic at n images: where its value depends
    on how many there are, as a share of a variance does, the interval does not hold what many images would give.

    Example:
        >>> values = np.array([1.0, 2.0, 4.0])  # of the mean it is the usual standard error
        >>> left_out = (values.sum() - values) / 2
        >>> f"{jackknife(left_out, values.mean()).standard_error:.6f} {values.std(ddof=1) / 3**0.5:.6f}"
        '0.881917 0.881917'
    """
    values = np.asarray(leave_one_out, dtype=np.float64)
    n = len(values)
    if n < 2 or not np.isfinite(values).all():
        return Estimate(whole, float("nan"))
    return Estimate(whole, float(np.sqrt((n - 1) / n * np.square(values - values.mean()).sum())), n)


def jackknife_by_groups(leave_one_out: ArrayLike, sizes: ArrayLike, whole: float) -> Estimate:
    """`jackknife` from values with one group of images left out, of groups that may differ in size.

    With n images in G groups of m_g, h_g = n / m_g, θ_(−g) without group g and τ_g = h_g θ - (h_g - 1) θ_(−g),
    se² = 1/G · Σ (τ_g - θ_J)² / (h_g - 1), θ_J = G θ - Σ (1 - m_g / n) θ_(−g) (Busing, Meijer and van der Leeden 1999).
    Groups of one image give `jackknife`.

    Example:
        >>> values = np.array([1.0, 2.0, 4.0, 5.0])
        >>> left_out = (values.sum() - values) / 3
        >>> one, other = jackknife_by_groups(left_out, [1, 1, 1, 1], 3.0), jackknife(left_out, 3.0)
        >>> abs(one.standard_error - other.standard_error) < 1e-12
        True
    """
    values, m = np.asarray(leave_one_out, dtype=np.float64), np.asarray(sizes, dtype=np.float64)
    G = len(values)
    if G < 2 or not np.isfinite(values).all():
        return Estimate(whole, float("nan"))
    h = m.sum() / m
    pseudo = h * whole - (h - 1) * values
    centre = G * whole - ((1 - 1 / h) * values).sum()
    return Estimate(whole, float(np.sqrt((np.square(pseudo - centre) / (h - 1)).mean())), G)
