"""Two interaction spectra side by side: the ratio of their effects with its interval, as a value without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from horinsight.interaction.ratio_interval import Effects, ratio_intervals
from horinsight.interaction.spectrum import InteractionSpectrum
from horinsight.interaction.spectrum_options import SpectrumOptions
from horinsight.results import Provenance, Result

HAVE_TO_AGREE = ("explicit", "scope")  # of options: else two different things are compared


@dataclass(frozen=True, eq=False, repr=False)
class SpectrumComparison(Result):
    """Effects of one operator over those of another, by order k = 0..K, as far as both were measured.

    Attributes:
        first: what the numerator is called.
        second: what the denominator is called.
        first_effects: (K + 1,).
        second_effects: (K + 1,).
        ratios: (K + 1,) first / second: 0 where the first is an exact zero, infinite where the second is, NaN where
            both are.
        ci_low: (K + 1,) lower end of the 95 % interval of each ratio; of an exact zero the ratio itself.
        ci_high: (K + 1,) its upper end.
        correlations: (K + 1,) of the estimates of both effects; 0 where draws have nothing in common.
        common_draws: whether both were measured at the same locations, along the same groups of neighbours and the
            same directions in units of σ.
        first_order: location order of the first; None where it is open.
        second_order: of the second.
        num_draws: chains drawn for the first, and for the second.
        target: what the intervals are of: the effects at "these images", over what is drawn.
        convention: what was computed, in words.
        provenance: of the first; model, weights and images, where known.
        second_provenance: of the second.
        options: what was asked for.
    """

    first: str
    second: str
    first_effects: np.ndarray
    second_effects: np.ndarray
    ratios: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    correlations: np.ndarray
    common_draws: bool
    first_order: int | None
    second_order: int | None
    num_draws: tuple[int, int]
    target: str = "these images"
    convention: Mapping[str, str] = field(default_factory=dict)
    provenance: Provenance | None = None
    second_provenance: Provenance | None = None
    options: SpectrumOptions | None = None

    def _columns(self) -> dict[str, Any]:
        """A row per order k."""
        names = {"first_effects": "first_effect", "second_effects": "second_effect"}
        names |= {"ratios": "ratio", "correlations": "correlation"}
        fields = {names.get(name, name): values for name, values in super()._columns().items()}
        return {"k": np.arange(len(self.ratios)), **fields}


def compare_spectra(
    first: InteractionSpectrum,
    second: InteractionSpectrum,
    *,
    names: tuple[str, str] = ("first", "second"),
    correlations: np.ndarray | None = None,
) -> SpectrumComparison:
    """The ratio of the effects of two spectra that are known already, order by order, with 95 % intervals.

    A spectrum does not hold its draws, so that two of them count as drawn independently. Where they were not, as two
    with one seed, they tend to err together and the intervals are wider than they need be: `compared_operators` and
    `model_spectrum_comparisons` measure two operators along common draws and know by how much.

    Args:
        first: the numerator, measured now or loaded.
        second: the denominator.
        names: what they are called in tables.
        correlations: (K + 1,) of the estimates, where draws were common.

    Raises:
        ValueError: spectra of different kinds (explicit and functional, mixers and blocks), or with intervals of
            images like these.

    Example:
        >>> known = InteractionSpectrum(
        ...     effects=np.array([2.0, 0.0]), ci_low=np.array([1.0, 0.0]), ci_high=np.array([4.0, 0.0]),
        ...     exact_zero=np.array([False, True]), max_share=np.zeros(2), location_order=0, degree_order=0,
        ...     at_least=None, num_draws=32, seed=0,
        ... )
        >>> found = compare_spectra(known, known)
        >>> found.ratios.tolist(), found.ci_low.round(2).tolist(), found.ci_high.round(2).tolist()
        ([1.0, nan], [0.38, nan], [2.67, nan])
    """
    _check_alike(first, second)
    K = min(len(first.effects), len(second.effects))
    numerator, denominator = (Effects(s.effects[:K], s.ci_low[:K], s.ci_high[:K]) for s in (first, second))
    rho = np.zeros(K) if correlations is None else correlations[:K]
    low, high = ratio_intervals(numerator, denominator, rho)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = numerator.value / denominator.value
    return SpectrumComparison(
        *names,
        first_effects=numerator.value,
        second_effects=denominator.value,
        ratios=ratios,
        ci_low=low,
        ci_high=high,
        correlations=rho,
        common_draws=correlations is not None,
        first_order=first.location_order,
        second_order=second.location_order,
        num_draws=(first.num_draws, second.num_draws),
        convention=_convention(first, second, common=correlations is not None),
        provenance=first.provenance,
        second_provenance=second.provenance,
        options=first.options,
    )


def _check_alike(first: InteractionSpectrum, second: InteractionSpectrum) -> None:
    if first.options is not None and second.options is not None:
        for name in HAVE_TO_AGREE:
            one, other = getattr(first.options, name), getattr(second.options, name)
            if one != other:
                raise ValueError(
                    f"compare_spectra expects two spectra of one kind, got {name}={one!r} and {name}={other!r}: "
                    "measure one of them again."
                )
    for spectrum in (first, second):
        if spectrum.target != "these images":
            raise ValueError(
                f"compare_spectra expects intervals at these images, got a spectrum of {spectrum.target} from an "
                "earlier version: measure it again."
            )


def _convention(first: InteractionSpectrum, second: InteractionSpectrum, *, common: bool) -> dict[str, str]:
    """What was computed, in words: what both spectra have in common, and what the ratio is."""
    shared = {key: words for key, words in first.convention.items() if second.convention.get(key) == words}
    return {
        **shared,
        "ratio": "effect_k of the first over effect_k of the second",
        "draws": "common: same locations, neighbours and directions" if common else "counted as independent",
        "interval": "95 % at these images, over draws: errors of both effects around the ellipse of their correlation",
    }
