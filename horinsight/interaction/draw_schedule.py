"""How many chains are drawn: a number that is cheap, or as many as a precision needs and a time allows."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, exp

import numpy as np

from horinsight.interaction.effect_interval import effect_intervals, relative_half_width
from horinsight.interaction.order import Draws

CLOSED_FORM_DRAWS = 128  # an image: they cost about what 32 of single neighbours did
NESTED_DRAWS = 32  # fewer and the interval itself is not known well
MOST_DRAWS = 2**16  # an image: what they do not tell, more will not within a day
ENOUGH = 0.5  # half-width above which there are too few draws to speak of a number


def num_draws_by_default(*, closed_form: bool) -> int:
    """Chains an image where nobody says how many.

    Example:
        >>> num_draws_by_default(closed_form=True), num_draws_by_default(closed_form=False)
        (128, 32)
    """
    return CLOSED_FORM_DRAWS if closed_form else NESTED_DRAWS


@dataclass(frozen=True, eq=False)
class ScheduledDraws:
    """Draws, and what they reached.

    Attributes:
        draws: all of them.
        num_draws: of each image.
        half_widths: (K + 1,) log(high / low) / 4 of each effect.
    """

    draws: Draws
    num_draws: int
    half_widths: np.ndarray

    def shortfalls(self, precision: float = ENOUGH) -> list[str]:
        """A line for each effect that is known less well than this, and what more draws would give; none if all are.

        A half-width falls as the root of the draws. Of time nothing is said, so that the lines come out the same again.
        """
        lines = []
        for k, width in enumerate(self.half_widths):
            if width <= precision:
                continue
            if not np.isfinite(width):
                lines.append(f"not enough draws: nothing is known of effect_{k} but that it is not 0")
                continue
            wanted = ceil(self.num_draws * (width / precision) ** 2)
            reached = width * (self.num_draws / wanted) ** 0.5
            lines.append(
                f"not enough draws: effect_{k} is known within a factor of {exp(2 * width):.3g}; --tuples {wanted} "
                f"would give about {exp(2 * reached):.3g}"
            )
        return lines


def scheduled_draws(
    drawn: Callable[[int], Draws],
    *,
    start: int,
    precision: float | None = None,
    seconds: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> ScheduledDraws:
    """Draws that double until every effect is known as well as asked for, or the time would not suffice.

    Intervals of draws that were stopped by their own width cover a little less often than others, .92 to .97 where the
    start is at least 32 draws.

    Args:
        drawn: number of chains an image → that many new ones, independent of those before.
        start: chains an image of the first round; each further one draws as many as there are.
        precision: half-width that is enough; when None as many rounds as the time allows.
        seconds: that may be spent; when None as long as it takes, up to `MOST_DRAWS`. One round where both are None.
        clock: in seconds.

    Raises:
        ValueError: a number that is not positive.

    Example:
        >>> ones = lambda num: Draws(np.zeros(num), np.ones((num, 1)), np.zeros(1, bool))
        >>> scheduled_draws(ones, start=32, precision=0.1).num_draws
        32
    """
    for name, value in (("start", start), ("precision", precision), ("seconds", seconds)):
        if value is not None and value <= 0:
            raise ValueError(f"{name} expects a number above 0, got {value}.")
    began = clock()
    parts: list[Draws] = []
    num_draws = 0
    while True:
        parts.append(drawn(num_draws or start))
        num_draws = 2 * num_draws or start
        draws = together(parts)
        widths = relative_half_width(*effect_intervals(draws.values, draws.images))
        taken = clock() - began
        enough = precision is not None and bool((widths <= precision).all())
        out_of_time = seconds is not None and 2 * taken > seconds  # another round takes as long as all before
        if enough or out_of_time or num_draws >= MOST_DRAWS or (precision is None and seconds is None):
            return ScheduledDraws(draws, num_draws, widths)


def together(parts: Sequence[Draws]) -> Draws:
    """Draws of the same images, one after the other."""
    structural = np.logical_and.reduce([part.structural for part in parts])
    images, values = (np.concatenate([getattr(part, name) for part in parts]) for name in ("images", "values"))
    return Draws(images, values, structural)
