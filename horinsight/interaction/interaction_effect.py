r"""Interaction effects of any operator: nested reverse-mode derivatives, or in closed form for gnConv.

For an operator F: (B, C, H, W) → (B, C', H, W), an output location i, distinct locations i = j_0, j_1, …, j_K and
channel directions v_t ~ N(0, diag σ_c²),

    D_k = ∂^{k+1} F(x + Σ_t ε_t e_{j_t}⊗v_t)_i / ∂ε_0 … ∂ε_k at ε = 0,    IE_k = E[|D_k|² / C'].

k counts the neighbours that act jointly with the feature at i, as the paper counts: gConv is 1-order.

Sources: HorNet §3.1 "Spatial interactions in vision models"; Ai and Norton 2003; Lerman et al. 2021 (arXiv 2006.08601).
"""

from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor, nn

from horinsight.description import unwrapped
from horinsight.interaction.certified import Certificate, MeasuredDraws, certified, measured_draws
from horinsight.interaction.draw_schedule import CHEAP_PRECISION, NESTED_DRAWS
from horinsight.interaction.effect_interval import effect_intervals, like_image_intervals
from horinsight.interaction.order import effect_sizes, max_shares
from horinsight.interaction.prepared import PreparedOperator, can_be_widened, prepared, widened
from horinsight.interaction.spectrum import InteractionSpectrum
from horinsight.interaction.spectrum_options import SpectrumKeywords, SpectrumOptions
from horinsight.operators.positions import Layout, Operator, Positions, positions_of
from horinsight.options import made


def interaction_spectrum(
    operator: Operator,
    x: Tensor,
    *,
    options: SpectrumOptions | None = None,
    layout: Layout | None = None,
    grid: tuple[int, int] | None = None,
    output_grid: tuple[int, int] | None = None,
    **given: Unpack[SpectrumKeywords],
) -> InteractionSpectrum:
    """Interaction effects of an operator at the operating points `x`, and its orders.

    One chain i, j_1, …, j_K gives D_0..D_K at once. i is uniform over the map; the j_t are distinct and uniform over
    the other cells that the output at i depends on (its receptive field Ω_i, read off the first derivative), then, if
    those run out, over the rest of the map, where every derivative is zero. For gnConv D_k is a vector in closed form;
    for other operators |D_k|² is estimated without bias by (u·D_k)², u a random sign per output channel.

    Args:
        operator: maps (B, C, H, W) to (B, C', H, W), tokens (B, N, C) to (B, N, C'), or (B, H, W, C) likewise, sample
            by sample; a smaller output map is read as one with a stride. A module is lent in eval mode with frozen
            parameters. One in half precision must be widened by the caller.
        x: operating points, float32 or float64; B images.
        options: what is asked for; `max_order` must be said. The defaults when None.
        layout: "channels_first", "channels_last" or "tokens"; by the number of dimensions (4, 3) when None.
        grid: for tokens, (rows, columns) of the map that the last of them form; the tokens before are held fixed.
        output_grid: likewise for the output's tokens, where that is not `grid`: attention that pools its queries.
        **given: fields of `SpectrumOptions` as keyword arguments, in place of those of `options`.

    Returns:
        The spectrum. In explicit mode zeros beyond the degree order are structural, so no threshold is involved: the
        graph no longer leads to x, or more than n + 1 directions meet in a gnConv. Any other effect that is 0.0 in
        every draw is believed only where nothing that was computed on the way was too small for the dtype
        (`UnderflowWatch`); else all is measured again in float64, or refused. So weights of zero and dead units give
        exact zeros, small numbers do not. A zero between the location order and a higher degree order says that no
        drawn chain interacts: of stacked operators, whose chains must meet, draw enough; and where features are exactly
        zero, as after a ReLU, neighbours that respond only jointly are not drawn. An FFT spreads rounding over the map:
        effects at 1e-8 of effect_0 and below (float32; 1e-16 in float64) that a transform was part of are no evidence.

    Raises:
        TypeError: an argument that is no option, or no `max_order`.
        ValueError: wrong shapes, too few positions for K, half precision, numbers that underflow (in float64, or in
            float32 where the operator is no module that can be widened), options below their least value, a declared
            module that is not there; derivatives that cannot be taken, or that end although the operator has kinks
            (functional) or custom autograd functions, so that the order they suggest would be wrong.

    Example:
        >>> from horinsight.models.gnconv import GnConv
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(2, 8, 7, 7, dtype=torch.float64)
        >>> spectrum = interaction_spectrum(GnConv(8, order=2).double(), x, max_order=4, num_tuples=4)
        >>> spectrum.location_order, spectrum.degree_order, spectrum.exact_zero.tolist()
        (2, 2, [False, False, False, True, True])
    """
    options = made(SpectrumOptions, options, given, caller="interaction_spectrum")
    if options.max_order is None:
        raise TypeError("interaction_spectrum expects max_order, the highest order that is measured.")
    if options.scope != "mixer":
        raise ValueError("scope says what of a model's block is measured: an operator is measured as it is.")
    operator = unwrapped(operator) if isinstance(operator, nn.Module) else operator
    spectrum, _ = measured_spectrum(
        operator, x, positions_of(x, layout, grid), options, output_grid=output_grid or grid
    )
    return spectrum


def measured_spectrum(
    operator: Operator,
    x: Tensor,
    positions: Positions,
    options: SpectrumOptions,
    shares: Tensor | None = None,
    *,
    output_grid: tuple[int, int] | None = None,
) -> tuple[InteractionSpectrum, MeasuredDraws]:
    """The spectrum, and the draws that it is of; in float64 where float32 proves nothing.

    Args:
        operator: as in `interaction_spectrum`, without a wrapper.
        x: operating points.
        positions: how they lie.
        options: with a highest order.
        shares: how often each location is drawn, (B, P'); the operator's own when None.
        output_grid: of the output's tokens.

    Raises:
        ValueError: see `interaction_spectrum`.
    """
    with prepared(operator, x, positions, options, output_grid) as ready:
        if shares is not None:
            ready = replace(ready, chains=replace(ready.chains, shares=shares))
        found = measured_draws(ready, options)
        proved = certified(ready, options, found)
    if proved is not None:
        return spectrum_of_draws(ready, options, found, proved), found
    if can_be_widened(operator, x):
        operator, x, options = widened(operator, x, options)
        return measured_spectrum(operator, x, positions, options, shares, output_grid=output_grid)
    raise too_small_numbers(x)


def too_small_numbers(x: Tensor) -> ValueError:
    """What is said where no wider numbers are to be had."""
    remedy = "give the operator and x in float64, or scale x" if x.dtype == torch.float32 else "scale x or the weights"
    return ValueError(
        f"Derivatives, or what they are made of, come down to where {x.dtype} underflows and zeros prove nothing: "
        f"{remedy}."
    )


def spectrum_of_draws(
    ready: PreparedOperator, options: SpectrumOptions, found: MeasuredDraws, proved: Certificate
) -> InteractionSpectrum:
    """The spectrum that draws give.

    Args:
        ready: the operator, at its points or at some of those that the draws are of.
        options: what was asked for.
        found: the draws.
        proved: what they prove.
    """
    draws, images = found.mixed.values, found.mixed.images
    low, high = effect_intervals(draws, images)
    like_low, like_high = like_image_intervals(draws, images) or (None, None)
    return InteractionSpectrum(
        effects=effect_sizes(draws),
        ci_low=low,
        ci_high=high,
        exact_zero=proved.exact_zero,
        max_share=max_shares(draws),
        location_order=proved.location_order,
        degree_order=proved.degree_order,
        at_least=options.max_order if proved.location_order is None else None,
        num_draws=len(draws),
        seed=options.seed,
        like_low=like_low,
        like_high=like_high,
        shortfalls=tuple(found.scheduled.shortfalls(*([options.precision] if options.precision else []))),
        unlisted=proved.unlisted,
        convention=_convention(ready, options),
        options=options.recorded(),
    )


def _convention(ready: PreparedOperator, options: SpectrumOptions) -> dict[str, str]:
    """What was computed, in words for people: no code reads them."""
    positions = ready.chains.positions
    return {
        "effect": "sqrt(E[|D_k|^2 / C']) / std(F), k neighbours jointly with the position itself",
        "non_linearities": "tangent at the operating point" if options.explicit else "as they are",
        "kind": options.kind,
        "declared": ", ".join(sorted(ready.one_each)),
        "kinks": "" if options.explicit else ", ".join(ready.met.kinks),
        "positions": "uniform over the map",
        "layout": f"{positions.layout}, {positions.in_words}",
        "neighbours": "distinct, uniform over the receptive field of the position",
        "directions": "normal, standard deviation of each input channel over images and positions",
        "std": "over images, channels and positions of the output",
        "chains": _chains_in_words(options, closed_form=ready.form is not None),
        "estimator": "closed form" if ready.form else "nested reverse mode, random signs over output channels",
        "dtype": str(ready.chains.x.dtype).removeprefix("torch."),
        "interval": "95 % at these images, over draws: log-normal tail, Hall's cubic, Satterthwaite's degrees",
    }


def _chains_in_words(options: SpectrumOptions, *, closed_form: bool) -> str:
    if options.precision or options.seconds:
        return "doubled until effects are known as well as asked for"
    if options.num_tuples:
        return "as many as asked for"
    start = "as many as are cheap" if closed_form else f"{NESTED_DRAWS} an image"
    return f"{start}, doubled where effects are known less well than {CHEAP_PRECISION} and that is cheap"
