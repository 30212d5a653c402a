"""Blocks of two models compared over many pictures, which both see batch by batch, along common draws."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from horinsight.data.picture_batches import PictureBatch
from horinsight.interaction.block_points import block_points
from horinsight.interaction.certified import MeasuredDraws
from horinsight.interaction.common_draws import common_shares, comparison_of_draws
from horinsight.interaction.operator_point import OperatorPoint
from horinsight.interaction.spectrum import InteractionSpectrum
from horinsight.interaction.spectrum_comparison import SpectrumComparison
from horinsight.interaction.spectrum_options import SpectrumOptions
from horinsight.interaction.streamed_block import StreamedBlock
from horinsight.memory_budget import give_back_pages
from horinsight.mixers.blocks import MixingBlock
from horinsight.results import Provenance

BlockPair = tuple[MixingBlock, MixingBlock]


@dataclass(frozen=True, eq=False)
class StreamedPair:
    """Two models and the pictures that each is shown.

    Attributes:
        models: the numerator's and the denominator's.
        batches: of each, of as many pictures; the same object twice where both are shown the same tensors.
        num_images: of all.
    """

    models: tuple[nn.Module, nn.Module]
    batches: tuple[Iterable[PictureBatch], Iterable[PictureBatch]]
    num_images: int

    def points(
        self, pairs: Sequence[BlockPair], options: SpectrumOptions, among: Sequence[MixingBlock]
    ) -> Iterator[tuple[int, int, list[dict[str, OperatorPoint]]]]:
        """Number and first picture of each batch, and the blocks of both models where it brings them."""
        one, other = self.batches
        both: Iterable[Any] = zip(one, other, strict=True) if one is not other else ((batch, batch) for batch in one)
        for number, batches in enumerate(both):
            points = [
                block_points(model, batch.images, _once(pair[side] for pair in pairs), options, among=among)
                for side, (model, batch) in enumerate(zip(self.models, batches, strict=True))
            ]
            start = batches[0].start
            del batches  # before the next ones are made
            yield number, start, points


def streamed_comparisons(
    shown: StreamedPair,
    pairs: Sequence[BlockPair],
    options: SpectrumOptions,
    on_comparison: Callable[[BlockPair, SpectrumComparison], None],
    *,
    provenances: Sequence[Provenance | None] = (None, None),
) -> None:
    """Compare blocks at pictures that come in batches, which are in memory one at a time.

    As `streamed_spectra` measures a block, in a pass for what varies over all pictures and one for each round of draws;
    of each batch both blocks of a pair are drawn along the same chains, as `compared_points` does.

    Args:
        shown: to both models.
        pairs: blocks of the first, and of the second.
        options: what is asked of both.
        on_comparison: called with each pair as soon as it is finished.
        provenances: of both.

    Raises:
        ValueError: see `model_spectrum_comparisons`.
    """
    waiting = {pair: _Compared(shown.num_images) for pair in pairs}
    among = [block for pair in pairs for block in pair]
    looked = False
    while waiting:
        asked = options
        if looked:
            held = [what for one in waiting.values() for what in one.declared]
            asked = replace(options, nonlinear=tuple(what for what in options.nonlinear if what in held))
        for number, start, points in shown.points(list(waiting), asked, among):
            for pair, compared in list(waiting.items()):
                two = _alike(points[0][pair[0].name], points[1][pair[1].name])
                if not looked:
                    compared.look(two)
                    continue
                compared.draw(two, number, start)
                give_back_pages()
                if compared.finished:
                    del waiting[pair]
                    on_comparison(pair, compared.comparison(two, provenances))
            del points
        looked = True


class _Compared:
    """Two blocks, each measured as a block alone is, at common locations."""

    def __init__(self, num_images: int) -> None:
        self.sides = StreamedBlock(num_images), StreamedBlock(num_images)
        self._spectra: dict[int, InteractionSpectrum] = {}
        self._common = True

    @property
    def declared(self) -> list[object]:
        """Non-linearities that are declared in either."""
        return [what for side in self.sides for what in side.declared]

    @property
    def finished(self) -> bool:
        """Whether both are."""
        return len(self._spectra) == 2

    def look(self, points: Sequence[OperatorPoint]) -> None:
        for side, point in zip(self.sides, points, strict=True):
            side.look(point)

    def draw(self, points: Sequence[OperatorPoint], number: int, start: int) -> None:
        shares: Tensor | None = common_shares(points[0], points[1], scales=(self.sides[0].scales, self.sides[1].scales))
        self._common = self._common and shares is not None
        for place, (side, point) in enumerate(zip(self.sides, points, strict=True)):
            if place in self._spectra:
                continue
            spectrum = side.draw(point, number, start, shares)
            if spectrum is not None:
                self._spectra[place] = spectrum

    def comparison(
        self, points: Sequence[OperatorPoint], provenances: Sequence[Provenance | None]
    ) -> SpectrumComparison:
        measured: list[tuple[InteractionSpectrum, MeasuredDraws]] = []
        for place, side in enumerate(self.sides):
            assert side.measured is not None
            measured.append((self._spectra[place], side.measured))
        names = points[0].name, points[1].name
        return comparison_of_draws(measured, names, provenances, common=self._common)


def _alike(first: OperatorPoint, second: OperatorPoint) -> list[OperatorPoint]:
    """Both, asked for the orders that both are measured to."""
    K = min(point.options.max_order or 0 for point in (first, second))
    return [replace(point, options=replace(point.options, max_order=K)) for point in (first, second)]


def _once(blocks: Iterable[MixingBlock]) -> list[MixingBlock]:
    return [*{block.name: block for block in blocks}.values()]
