"""Derivatives of a prepared operator, and what they certify: its orders, and that zeros are zeros."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from horinsight.interaction.draw_schedule import ScheduledDraws, draw_plan, scheduled_draws
from horinsight.interaction.order import Draws, exact_zeros, highest_order
from horinsight.interaction.preconditions import check_certificate, check_finite, check_polynomial, underflows
from horinsight.interaction.prepared import PreparedOperator
from horinsight.interaction.spectrum_options import SpectrumOptions
from horinsight.interaction.underflow import UnderflowWatch

NUM_WATCHED_DRAWS = 2  # an image, on which it is looked whether zeros are products that were too small
NUM_DEGREE_DRAWS = 2  # dense directions an image; a polynomial that vanishes along one random direction vanishes


@dataclass(frozen=True, eq=False)
class MeasuredDraws:
    """Derivatives of one operator.

    Attributes:
        scheduled: along chains.
        dense: along directions that move everything; of the output at all positions, where derivatives are nested.
        spread: std(F), which they are divided by.
    """

    scheduled: ScheduledDraws
    dense: Draws
    spread: float

    @property
    def mixed(self) -> Draws:
        """Along chains."""
        return self.scheduled.draws


@dataclass(frozen=True, eq=False)
class Certificate:
    """What the derivatives prove.

    Attributes:
        exact_zero: (K + 1,) which effects are exactly zero.
        location_order: the largest k whose effect is not; None where it is open.
        degree_order: the polynomial degree - 1; None where it is open.
        unlisted: of explicit spectra whose derivatives do not end, why.
    """

    exact_zero: np.ndarray
    location_order: int | None
    degree_order: int | None
    unlisted: tuple[str, ...]


def measured_draws(operator: PreparedOperator, options: SpectrumOptions) -> MeasuredDraws:
    """Derivatives along as many chains an image as the options ask for, and along a few dense directions."""
    generator = torch.Generator("cpu").manual_seed(options.seed)
    chains = operator.chains
    num_images, num_channels = len(chains.x), len(chains.sigma)
    plan = draw_plan(options, closed_form=operator.form is not None, num_images=num_images, num_channels=num_channels)
    num_dense = min(NUM_DEGREE_DRAWS, plan.start)

    def drawn(num_draws: int) -> Draws:
        return chains.derivatives(operator.form, num_draws, generator, dense=False)

    scheduled = scheduled_draws(drawn, plan)
    dense = chains.derivatives(operator.form, num_dense, generator, dense=True)
    return MeasuredDraws(scheduled, dense, chains.spread)


def certified(operator: PreparedOperator, options: SpectrumOptions, found: MeasuredDraws) -> Certificate | None:
    """What the derivatives prove; None where numbers were so small for their dtype that zeros prove nothing.

    Raises:
        ValueError: derivatives that are not finite, or that end although they are not what they seem.
    """
    check_finite(found.mixed.values)
    zeros, degree = exact_zeros(found.mixed.values), highest_order(exact_zeros(found.dense.values))
    if _too_small(operator, options, found):
        return None
    order, met = highest_order(zeros), operator.met
    # a mixed derivative that is not 0 proves a degree as well, also one that rounds off where all positions are summed
    degree = None if order is None or degree is None else max(order, degree)
    if operator.form is None and not options.explicit and degree is not None:
        check_certificate(met, explicit=False)
        chains = operator.chains
        check_polynomial(chains.operator, chains.positions.flat(chains.x), degree, seed=options.seed)
    if order is not None:
        check_certificate(met, explicit=options.explicit)
    is_open = None in (order, degree)
    return Certificate(zeros, order, degree, (*met.unlisted, *met.custom) if options.explicit and is_open else ())


def _too_small(operator: PreparedOperator, options: SpectrumOptions, found: MeasuredDraws) -> bool:
    """Whether a zero may be none: see what `interaction_spectrum` returns."""
    chains = operator.chains
    # nested derivatives start from u / spread
    as_computed = chains.spread * chains.num_channels**0.5 if operator.form else 1.0
    if underflows(found.mixed.values * as_computed, chains.x.dtype):
        return True
    if not (found.mixed.unproven_zeros | found.dense.unproven_zeros).any():
        return False
    with UnderflowWatch() as watch:
        few = min(NUM_WATCHED_DRAWS, found.scheduled.num_draws)
        measured_draws(operator, replace(options, num_tuples=few, precision=None, seconds=None))
    return watch.found
