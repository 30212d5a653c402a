"""Two operators measured along the same chains, so that what they differ by is not what was drawn."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

import numpy as np
from torch import Tensor, nn

from horinsight.description import unwrapped
from horinsight.interaction.certified import MeasuredDraws
from horinsight.interaction.operator_point import OperatorPoint
from horinsight.interaction.point_scales import PointScales
from horinsight.interaction.ratio_interval import mean_correlations
from horinsight.interaction.spectrum import InteractionSpectrum
from horinsight.interaction.spectrum_comparison import SpectrumComparison, compare_spectra
from horinsight.interaction.spectrum_options import SpectrumKeywords, SpectrumOptions
from horinsight.operators.positions import Layout, Operator, positions_of
from horinsight.options import made
from horinsight.results import Provenance


def compared_operators(
    operators: tuple[Operator, Operator],
    points: tuple[Tensor, Tensor],
    *,
    options: SpectrumOptions | None = None,
    names: tuple[str, str] = ("first", "second"),
    layout: Layout | None = None,
    grid: tuple[int, int] | None = None,
    **given: Unpack[SpectrumKeywords],
) -> SpectrumComparison:
    """Interaction effects of one operator over those of another, with 95 % intervals of their ratios.

    Args:
        operators: the numerator and the denominator, see `interaction_spectrum`.
        points: operating points of each.
        options: what is asked of both; `max_order` must be said.
        names: what they are called in tables.
        layout: of both, see `interaction_spectrum`.
        grid: of both, likewise.
        **given: fields of `SpectrumOptions` as keyword arguments, in place of those of `options`.

    Raises:
        TypeError: an argument that is no option, or no `max_order`.
        ValueError: see `interaction_spectrum`.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> x, conv = torch.randn(1, 4, 6, 6), nn.Conv2d(4, 4, 3, padding=1)
        >>> found = compared_operators((lambda z: z * conv(z), conv), (x, x), max_order=2)
        >>> found.common_draws, found.ratios[1:].tolist(), (found.first_order, found.second_order)
        (True, [inf, nan], (1, 0))
    """
    options = made(SpectrumOptions, options, given, caller="compared_operators")
    if options.max_order is None:
        raise TypeError("compared_operators expects max_order, the highest order that is measured.")
    pair = []
    for operator, x, name in zip(operators, points, names, strict=True):
        inner = unwrapped(operator) if isinstance(operator, nn.Module) else operator
        pair.append(OperatorPoint(name, inner, x, positions_of(x, layout, grid), options))
    first, second = pair
    return compared_points(first, second)


def compared_points(
    first: OperatorPoint, second: OperatorPoint, provenances: Sequence[Provenance | None] = (None, None)
) -> SpectrumComparison:
    """The effects of an operator over those of another, each at its points, along common draws where maps agree.

    Chains are the same where both have the same images, channels, positions and highest order, and are differentiated
    alike: from one seed come the same locations, drawn by the mean of the shares that each operator asks for, the same
    groups of neighbours and the same directions in units of each operator's σ. An effect that needs more draws than the
    other's has the first of them in common with it.

    Args:
        first: the numerator.
        second: the denominator.
        provenances: of both.

    Raises:
        ValueError: see `interaction_spectrum`.
    """
    K = min(point.options.max_order or 0 for point in (first, second))
    pair = [replace(point, options=replace(point.options, max_order=K)) for point in (first, second)]
    shares = common_shares(*pair)
    measured = [point.measured(shares) for point in pair]
    return comparison_of_draws(measured, (first.name, second.name), provenances, common=shares is not None)


def common_shares(
    first: OperatorPoint,
    second: OperatorPoint,
    *,
    scales: tuple[PointScales | None, PointScales | None] = (None, None),
) -> Tensor | None:
    """How often each location is drawn of both, by which neither's draws count more than twice what they would.

    Args:
        first: the numerator.
        second: the denominator.
        scales: σ and std(F) of each, where they are of more points than these.

    Returns:
        (B, P'), the mean of both; None where maps differ.
    """
    if not _same_maps(first, second):
        return None
    mine, others = first.shares(scales[0]), second.shares(scales[1])
    return (mine + others) / 2 if mine.shape == others.shape else None


def comparison_of_draws(
    measured: Sequence[tuple[InteractionSpectrum, MeasuredDraws]],
    names: tuple[str, str],
    provenances: Sequence[Provenance | None],
    *,
    common: bool,
) -> SpectrumComparison:
    """Both spectra side by side, with what their draws have in common.

    Args:
        measured: of both.
        names: of both.
        provenances: of both.
        common: whether locations were drawn by the same shares.
    """
    spectra = [
        replace(spectrum, provenance=origin) for (spectrum, _), origin in zip(measured, provenances, strict=True)
    ]
    correlations = None
    if common and _same_chains(*spectra):
        correlations = _correlations(*(draws for _, draws in measured))
    return compare_spectra(*spectra, names=names, correlations=correlations)


def _same_maps(first: OperatorPoint, second: OperatorPoint) -> bool:
    a, b = first.positions, second.positions
    same_positions = (a.shape, a.num_prefix, a.num_total) == (b.shape, b.num_prefix, b.num_total)
    return same_positions and first.x.shape == second.x.shape and first.x.dtype == second.x.dtype


def _same_chains(first: InteractionSpectrum, second: InteractionSpectrum) -> bool:
    """Whether random numbers mean the same: by closed form or nested, in one dtype."""
    return all(first.convention[key] == second.convention[key] for key in ("estimator", "dtype"))


def _correlations(first: MeasuredDraws, second: MeasuredDraws) -> np.ndarray:
    """Of the means; where one has draws beyond the common ones, these are its own."""
    a, b = first.mixed, second.mixed
    fewer, more = sorted((len(a.values), len(b.values)))
    together = mean_correlations(a.values[:fewer], b.values[:fewer], a.images[:fewer])
    correlations: np.ndarray = together * (fewer / more) ** 0.5
    return correlations
