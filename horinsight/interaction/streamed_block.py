"""One block measured at pictures that come in batches: draws of each batch, put together at the end of each round.

Draws are stratified by picture, as many at each, so that those of batches are together what those of one batch of all
pictures would be: σ and std(F) are of all pictures (a pass before the first round tells them), and each batch's draws
are independent of the others'. What is kept of a picture is its draws alone, K + 1 numbers each.
"""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from horinsight.interaction.certified import NUM_DEGREE_DRAWS, MeasuredDraws, certified, zeros_underflow
from horinsight.interaction.draw_schedule import DrawSchedule, draw_plan
from horinsight.interaction.interaction_effect import spectrum_of_draws
from horinsight.interaction.operator_point import OperatorPoint
from horinsight.interaction.order import Draws
from horinsight.interaction.point_scales import PointScales, RunningScales
from horinsight.interaction.prepared import PreparedOperator
from horinsight.interaction.spectrum import InteractionSpectrum


class StreamedBlock:
    """What is known of a block so far.

    Args:
        num_images: of all batches.

    Attributes:
        declared: non-linearities that are declared in it.
        measured: all draws, after the last round.
    """

    def __init__(self, num_images: int) -> None:
        self.num_images = num_images
        self.declared: tuple[object, ...] = ()
        self._running = RunningScales()
        self._scales: PointScales | None = None
        self.measured: MeasuredDraws | None = None
        self._wide = False
        self._begin()

    def _begin(self) -> None:
        self._schedule: DrawSchedule | None = None
        self._round: list[Draws] = []
        self._dense: list[Draws] = []
        self._watched = False
        self._seconds = 0.0

    def look(self, point: OperatorPoint) -> None:
        """The first pass: how much what enters and what leaves varies over all pictures."""
        self.declared = point.options.nonlinear
        point.add_to(self._running)

    @property
    def scales(self) -> PointScales:
        """σ and std(F) over all pictures, after the first pass."""
        self._scales = self._scales or self._running.compute()
        return self._scales

    def draw(
        self, point: OperatorPoint, batch: int, start: int, shares: Tensor | None = None
    ) -> InteractionSpectrum | None:
        """A further pass: draw at the pictures of a batch.

        Args:
            point: the block at them.
            batch: its number, from 0.
            start: the number of its first picture.
            shares: how often each location is drawn, (B, P'); the block's own when None.

        Returns:
            The spectrum after the last batch of the last round.

        Raises:
            ValueError: see `interaction_spectrum`.
        """
        point = point.in_float64() if self._wide else point
        began = time.monotonic()
        with point.ready(self.scales) as ready:
            if shares is not None:
                ready = replace(ready, chains=replace(ready.chains, shares=shares))
            last = start + len(ready.chains.x) == self.num_images
            self._round.append(self._drawn(ready, point, batch, start))
            self._seconds += time.monotonic() - began
            found = self._end_of_round(ready) if last else None
            if found is None:
                return None
            proved = certified(ready, point.alone, found, watched=self._watched)
            if proved is not None:
                self.measured = found
                return point.finished(spectrum_of_draws(ready, point.alone, found, proved))
        point.in_float64()  # which raises where there are no wider numbers
        self._wide = True
        self._begin()
        return None

    def _drawn(self, ready: PreparedOperator, point: OperatorPoint, batch: int, start: int) -> Draws:
        options, chains = point.alone, ready.chains
        if self._schedule is None:
            num_channels = len(chains.sigma)
            plan = draw_plan(
                options, closed_form=ready.form is not None, num_images=self.num_images, num_channels=num_channels
            )
            self._schedule = DrawSchedule(plan)
        schedule = self._schedule
        generator = torch.Generator("cpu").manual_seed(_seed(options.seed, batch, schedule.num_rounds))
        draws = chains.derivatives(ready.form, schedule.wanted, generator, dense=False)
        if not schedule.num_rounds:
            num_dense = min(NUM_DEGREE_DRAWS, schedule.plan.start)
            dense = chains.derivatives(ready.form, num_dense, generator, dense=True)
            self._dense.append(dense)
            if (draws.unproven_zeros | dense.unproven_zeros).any():
                self._watched |= zeros_underflow(ready, options, schedule.wanted)
        return replace(draws, images=draws.images + start)

    def _end_of_round(self, ready: PreparedOperator) -> MeasuredDraws | None:
        """All draws, where there are enough of them."""
        assert self._schedule is not None
        self._schedule.add(_one_after_the_other(self._round), self._seconds)
        self._round = []
        if self._schedule.wanted:
            return None
        return MeasuredDraws(self._schedule.result(), _one_after_the_other(self._dense), ready.chains.spread)


def _one_after_the_other(batches: Sequence[Draws]) -> Draws:
    """Draws of different pictures."""
    structural = np.logical_and.reduce([draws.structural for draws in batches])
    images, values = (np.concatenate([getattr(draws, name) for draws in batches]) for name in ("images", "values"))
    return Draws(images, values, structural, max(draws.chain_cost for draws in batches))


def _seed(seed: int, batch: int, num_rounds: int) -> int:
    """Of the draws of a batch in a round; the seed itself for the first, whose draws are those of that batch alone."""
    if not batch and not num_rounds:
        return seed
    return int(np.random.SeedSequence([seed, batch, num_rounds]).generate_state(1, np.uint64)[0] >> np.uint64(1))
