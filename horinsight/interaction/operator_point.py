"""An operator at its operating points, with what is asked of it, ready to be measured alone or beside another."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from torch import Tensor

from horinsight.interaction.certified import MeasuredDraws
from horinsight.interaction.interaction_effect import measured_spectrum, too_small_numbers
from horinsight.interaction.point_scales import PointScales, RunningScales
from horinsight.interaction.prepared import PreparedOperator, can_be_widened, prepared, widened
from horinsight.interaction.spectrum import InteractionSpectrum
from horinsight.interaction.spectrum_options import SpectrumOptions
from horinsight.operators.positions import Operator, Positions


@dataclass(frozen=True, eq=False)
class OperatorPoint:
    """An operator where it is differentiated.

    Attributes:
        name: what it is called in results.
        operator: without a wrapper; a block's mixer, or its whole residual block, in float32 at least.
        x: what enters it.
        positions: how it lies.
        options: what is asked, with its highest order.
        called: of a block, what errors call it.
        output_grid: of the output's tokens, where that is not the input's.
    """

    name: str
    operator: Operator
    x: Tensor
    positions: Positions
    options: SpectrumOptions
    called: str | None = None
    output_grid: tuple[int, int] | None = None

    def shares(self, scales: PointScales | None = None) -> Tensor:
        """How often each of its locations is drawn, (B, P'); `scales` where these are some of the points of them."""
        with (
            self._named(),
            prepared(self.operator, self.x, self.positions, self.alone, self.output_grid, scales) as ready,
        ):
            shares: Tensor = ready.chains.location_shares()
        return shares

    def spectrum(self) -> InteractionSpectrum:
        """What is asked for."""
        return self.measured()[0]

    def measured(self, shares: Tensor | None = None) -> tuple[InteractionSpectrum, MeasuredDraws]:
        """What is asked for, and the draws that it is of, at locations drawn as often as `shares` say."""
        with self._named():
            spectrum, draws = measured_spectrum(
                self.operator, self.x, self.positions, self.alone, shares, output_grid=self.output_grid
            )
        return self.finished(spectrum), draws

    @contextmanager
    def ready(self, scales: PointScales) -> Iterator[PreparedOperator]:
        """The operator at these points, prepared, where they are some of those that `scales` are of."""
        with (
            self._named(),
            prepared(self.operator, self.x, self.positions, self.alone, self.output_grid, scales) as ready,
        ):
            yield ready

    def add_to(self, scales: RunningScales) -> None:
        """Add these points to those that σ and std(F) are of."""
        with self._named():
            scales.update(self.operator, self.x, self.positions, self.output_grid)

    def in_float64(self) -> "OperatorPoint":
        """The same in float64.

        Raises:
            ValueError: it is in float64 already, or no module.
        """
        with self._named():
            if not can_be_widened(self.operator, self.x):
                raise too_small_numbers(self.x)
            operator, x, options = widened(self.operator, self.x, self.options)
        return replace(self, operator=operator, x=x, options=options)

    def finished(self, spectrum: InteractionSpectrum) -> InteractionSpectrum:
        """The spectrum with what was asked for, as results keep it."""
        scope = {} if self.called is None else {"scope": self.options.scope}
        convention = {**spectrum.convention, **scope}
        return replace(spectrum, convention=convention, options=self.options.recorded())

    @property
    def alone(self) -> SpectrumOptions:
        """What is asked of the operator by itself."""
        return replace(self.options, scope="mixer")  # the operator is what the scope says

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            if self.called is None:
                raise
            raise ValueError(f"{self.called}: {error}") from error
