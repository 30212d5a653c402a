"""An operator at its operating points, with what is asked of it, ready to be measured alone or beside another."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from torch import Tensor

from horinsight.interaction.certified import MeasuredDraws
from horinsight.interaction.interaction_effect import measured_spectrum
from horinsight.interaction.prepared import prepared
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

    def shares(self) -> Tensor:
        """How often each of its locations is drawn, (B, P')."""
        with self._named(), prepared(self.operator, self.x, self.positions, self._alone, self.output_grid) as ready:
            shares: Tensor = ready.chains.location_shares()
        return shares

    def spectrum(self) -> InteractionSpectrum:
        """What is asked for."""
        return self.measured()[0]

    def measured(self, shares: Tensor | None = None) -> tuple[InteractionSpectrum, MeasuredDraws]:
        """What is asked for, and the draws that it is of, at locations drawn as often as `shares` say."""
        with self._named():
            spectrum, draws = measured_spectrum(
                self.operator, self.x, self.positions, self._alone, shares, output_grid=self.output_grid
            )
        scope = {} if self.called is None else {"scope": self.options.scope}
        convention = {**spectrum.convention, **scope}
        return replace(spectrum, convention=convention, options=self.options.recorded()), draws

    @property
    def _alone(self) -> SpectrumOptions:
        return replace(self.options, scope="mixer")  # the operator is what the scope says

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            if self.called is None:
                raise
            raise ValueError(f"{self.called}: {error}") from error
