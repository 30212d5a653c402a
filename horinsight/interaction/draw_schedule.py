"""How many chains are drawn: a number that is cheap, or as many as a precision needs and a time allows."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, exp, floor, inf, log2

import numpy as np

from horinsight.interaction.effect_interval import effect_intervals, relative_half_width
from horinsight.interaction.order import Draws
from horinsight.interaction.spectrum_options import SpectrumOptions

CLOSED_FORM_DRAWS = 128  # an image, at least
NESTED_DRAWS = 32  # fewer and the interval itself is not known well
MOST_DRAWS = 2**16  # an image: what they do not tell, more will not within a day
ENOUGH = 1.0  # half-width above which there are too few draws to speak of a number
CHEAP_PRECISION = 0.25  # that draws are doubled for where nobody says how many
CHEAP_DRAWS, MOST_CHEAP_DRAWS = 4096, 16384  # an image, at the start and at most, where nobody says how many
CHEAP_COST, MOST_CHEAP_COST = 2**25, 2**28  # of them: about a fifth of a second, and less than two
COST_OF_A_CHAIN = 5000  # beside its channels' squares, in multiplications
MOST_CHEAP_ELEMENTS = 2**27  # that the graphs of nested chains keep, all together: less than two seconds


@dataclass(frozen=True)
class DrawPlan:
    """How many chains an image are drawn.

    Attributes:
        start: in the first round.
        precision: half-width at which drawing ends; None where it ends by itself.
        seconds: that may be spent.
        most: at which drawing ends in any case.
        most_elements: that graphs of all chains may have kept, beyond the first round.
        again: as many more when the precision is reached, whatever they say: effects of draws that stopped by
            themselves are low, and this halves it.
    """

    start: int
    precision: float | None = None
    seconds: float | None = None
    most: int = MOST_DRAWS
    most_elements: float = inf
    again: bool = False


def draw_plan(options: SpectrumOptions, *, closed_form: bool, num_images: int, num_channels: int) -> DrawPlan:
    """What the options ask for; where they say nothing, what is cheap.

    In closed form a chain costs about C² + `COST_OF_A_CHAIN` multiplications: nobody waits for as many as cost
    `CHEAP_COST` together, which are drawn at once, and if an effect is known less well than `CHEAP_PRECISION` then,
    they are doubled up to `MOST_CHEAP_COST`. Nested derivatives begin with few chains, and are doubled likewise, and
    once more, while their graphs together keep no more than `MOST_CHEAP_ELEMENTS`. All go by numbers, not by time, so
    that draws come out the same again.

    Args:
        options: with `num_tuples`, `precision` and `seconds`.
        closed_form: whether there is one.
        num_images: B.
        num_channels: C, of the input.

    Example:
        >>> plan = draw_plan(SpectrumOptions(), closed_form=True, num_images=1, num_channels=384)
        >>> plan.start, plan.precision, plan.most
        (128, 0.25, 1024)
        >>> draw_plan(SpectrumOptions(), closed_form=False, num_images=1, num_channels=384).start
        32
    """
    cost = num_images * (num_channels**2 + COST_OF_A_CHAIN)
    start = options.num_tuples or (
        _power_of_2(CHEAP_COST / cost, CLOSED_FORM_DRAWS, CHEAP_DRAWS) if closed_form else NESTED_DRAWS
    )
    asked = options.num_tuples or options.precision or options.seconds
    if asked:
        return DrawPlan(start, options.precision, options.seconds)
    if not closed_form:
        return DrawPlan(start, CHEAP_PRECISION, most_elements=MOST_CHEAP_ELEMENTS, again=True)
    return DrawPlan(start, CHEAP_PRECISION, most=_power_of_2(MOST_CHEAP_COST / cost, start, MOST_CHEAP_DRAWS))


def _power_of_2(number: float, least: int, most: int) -> int:
    """The largest one that is no larger, within bounds that are powers of 2 themselves."""
    return min(max(int(2 ** floor(log2(number))), least), most)


@dataclass(frozen=True, eq=False)
class ScheduledDraws:
    """Draws, and what they reached.

    Attributes:
        draws: all of them.
        num_draws: of each image.
        half_widths: (K + 1,) log(high / low) / 2 of each effect.
    """

    draws: Draws
    num_draws: int
    half_widths: np.ndarray

    def shortfalls(self, precision: float = ENOUGH) -> list[str]:
        """A line for each effect that is known less well than this, and what more draws would give; none if all are.

        A half-width falls as the root of the draws. Of time nothing is said, so that the lines come out the same again.
        """
        total = len(self.draws.values)
        lines = []
        if total < NESTED_DRAWS:
            enough = ceil(NESTED_DRAWS * self.num_draws / total)
            lines.append(f"not enough draws: {total} do not tell how well effects are known; --tuples {enough} would")
        for k, width in enumerate(self.half_widths):
            if width <= precision:
                continue
            if not np.isfinite(width):
                lines.append(f"not enough draws: nothing is known of effect_{k} but that it is not 0")
                continue
            wanted = ceil(self.num_draws * (width / precision) ** 2)
            reached = width * (self.num_draws / wanted) ** 0.5
            lines.append(
                f"not enough draws: effect_{k} is known within a factor of {exp(width):.3g}; --tuples {wanted} "
                f"would give about {exp(reached):.3g}"
            )
        return lines


class DrawSchedule:
    """Rounds of draws: how many the next one has, until there are enough of them.

    Args:
        plan: how many; each round after the first draws as many as there are. One round where there is neither a
            precision nor a time.

    Raises:
        ValueError: a number that is not positive.
    """

    def __init__(self, plan: DrawPlan) -> None:
        for name, value in (("start", plan.start), ("precision", plan.precision), ("seconds", plan.seconds)):
            if value is not None and value <= 0:
                raise ValueError(f"{name} expects a number above 0, got {value}.")
        self.plan = plan
        self.wanted = plan.start  # of each image, in the next round; 0 when there are enough
        self._parts: list[Draws] = []
        self._num_draws = 0
        self._half_widths = np.empty(0)
        self._once_enough = False

    @property
    def num_rounds(self) -> int:
        """Rounds that are drawn."""
        return len(self._parts)

    def add(self, draws: Draws, seconds: float) -> None:
        """Add a round that is drawn.

        Args:
            draws: `wanted` of each image.
            seconds: that all rounds so far have taken.
        """
        plan = self.plan
        self._parts.append(draws)
        self._num_draws += self.wanted
        every = together(self._parts)
        self._half_widths = relative_half_width(*effect_intervals(every.values, every.images))
        enough = plan.precision is not None and bool((self._half_widths <= plan.precision).all())
        out_of_time = plan.seconds is not None and 2 * seconds > plan.seconds  # another takes as long as all before
        alone = plan.precision is None and plan.seconds is None
        dear = 2 * len(every.values) * every.chain_cost > plan.most_elements
        done = self._once_enough if plan.again else enough
        self._once_enough |= enough
        over = done or out_of_time or dear or self._num_draws >= plan.most or alone
        self.wanted = 0 if over else self._num_draws

    def result(self) -> ScheduledDraws:
        """All draws, and what they reached."""
        return ScheduledDraws(together(self._parts), self._num_draws, self._half_widths)


def scheduled_draws(
    drawn: Callable[[int], Draws], plan: DrawPlan, *, clock: Callable[[], float] = time.monotonic
) -> ScheduledDraws:
    """Draws that double until every effect is known as well as asked for, or the time would not suffice.

    Intervals of draws that were stopped by their own width cover a little less often than others, .92 to .97 where the
    start is at least 32 draws; and effects come out a little low, since draws without a large one look well known.

    Args:
        drawn: number of chains an image → that many new ones, independent of those before.
        plan: see `DrawSchedule`.
        clock: in seconds.

    Raises:
        ValueError: a number that is not positive.

    Example:
        >>> ones = lambda num: Draws(np.zeros(num), np.ones((num, 1)), np.zeros(1, bool))
        >>> scheduled_draws(ones, DrawPlan(32, precision=0.1)).num_draws
        32
    """
    schedule, began = DrawSchedule(plan), clock()
    while schedule.wanted:
        schedule.add(drawn(schedule.wanted), clock() - began)
    return schedule.result()


def together(parts: Sequence[Draws]) -> Draws:
    """Draws of the same images, one after the other."""
    structural = np.logical_and.reduce([part.structural for part in parts])
    images, values = (np.concatenate([getattr(part, name) for part in parts]) for name in ("images", "values"))
    return Draws(images, values, structural, max(part.chain_cost for part in parts))
