r"""Interaction effects of any operator: nested reverse-mode derivatives, or in closed form for gnConv.

For an operator F: (B, C, H, W) → (B, C', H, W), an output location i, distinct locations i = j_0, j_1, …, j_K and
channel directions v_t ~ N(0, diag σ_c²),

    D_k = ∂^{k+1} F(x + Σ_t ε_t e_{j_t}⊗v_t)_i / ∂ε_0 … ∂ε_k at ε = 0,    IE_k = E[|D_k|² / C'].

k counts the neighbours that act jointly with the feature at i, as the paper counts: gConv is 1-order.

Sources: HorNet §3.1 "Spatial interactions in vision models"; Ai and Norton 2003; Lerman et al. 2021 (arXiv 2006.08601).
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from horinsight.capture import evaluation, misfits_explained
from horinsight.description import unwrapped
from horinsight.interaction.chains import Chains
from horinsight.interaction.derivative_graph import OperatorsMet, operators_met
from horinsight.interaction.gnconv_effect import GnConvClosedForm, closed_form_of
from horinsight.interaction.graph_cuts import check_cuts
from horinsight.interaction.homes import home_cells
from horinsight.interaction.order import (
    Draws,
    effect_intervals,
    effect_sizes,
    exact_zeros,
    highest_order,
    max_shares,
    resampling_unit,
)
from horinsight.interaction.preconditions import (
    check_certificate,
    check_finite,
    check_options,
    check_points,
    check_polynomial,
    check_precision,
    check_variation,
    missing_derivatives_explained,
    underflows,
)
from horinsight.interaction.spectrum import InteractionSpectrum
from horinsight.interaction.underflow import UnderflowWatch
from horinsight.operators.differentiable import check_differentiable, check_gradients, check_samples
from horinsight.operators.module_copies import copied
from horinsight.operators.open_attention import OpenAttention
from horinsight.operators.positions import Layout, Operator, Positions, positions_of
from horinsight.operators.tangent import Declared, explicit_operators

Method = Literal["auto", "nested", "closed_form"]

NUM_WATCHED_DRAWS = 2  # an image, on which it is looked whether zeros are products that were too small
NUM_DEGREE_DRAWS = 2  # dense directions an image; a polynomial that vanishes along one random direction vanishes


def interaction_spectrum(
    operator: Operator,
    x: Tensor,
    *,
    max_order: int,
    num_tuples: int = 32,
    explicit: bool = True,
    seed: int = 0,
    batch_size: int = 16,
    method: Method = "auto",
    layout: Layout | None = None,
    grid: tuple[int, int] | None = None,
    nonlinear: Sequence[Declared] = (),
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
        max_order: K, the highest order measured.
        num_tuples: chains drawn per image.
        explicit: replace every non-linearity by its tangent at x (`explicit_operators`), so that what remains is what
            the architecture introduces by itself. Otherwise the operator as it is ("functional").
        seed: of every draw.
        batch_size: chains that are differentiated together; bounds the memory.
        method: "nested" (reverse mode, any operator), "closed_form" (gnConv only, some hundred times as fast), or
            "auto": the closed form where there is one.
        layout: "channels_first", "channels_last" or "tokens"; by the number of dimensions (4, 3) when None.
        grid: for tokens, (rows, columns) of the map that the last of them form; the tokens before are held fixed.
        nonlinear: for explicit effects, submodules that each count as one non-linearity: classes, modules or names of
            classes. Norms always do.

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
    check_options(max_order, num_tuples, batch_size)
    operator = unwrapped(operator) if isinstance(operator, nn.Module) else operator
    if method not in get_args(Method):
        raise ValueError(f"method expects one of {', '.join(get_args(Method))}, got {method!r}.")
    positions = positions_of(x, layout, grid)
    check_points(x, positions, max_order)
    check_differentiable(operator)
    check_precision(operator)
    if not explicit and nonlinear:
        raise ValueError("nonlinear declares tangents, which functional effects do not take: leave one of them out.")

    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.autocast(x.device.type, enabled=False))  # derivatives in the dtype of x, as reported
        stack.enter_context(x.device)
        x = x.detach().clone()
        points = positions.flat(x)
        first = positions.num_prefix
        sigma = points[..., first:].transpose(0, 1).flatten(1).std(dim=1, correction=0)
        check_variation(x, sigma)
        if isinstance(operator, nn.Module):
            stack.enter_context(evaluation(operator))
            stack.enter_context(misfits_explained(operator, x))
        with torch.no_grad():
            output = operator(x.clone())
        if not isinstance(output, Tensor):
            raise ValueError(
                f"interaction_spectrum expects an operator that gives one tensor, got {type(output).__name__}."
            )
        with missing_derivatives_explained():
            homes, flat_output = home_cells(operator, x, output, positions), positions.flat(output)
        form = None if method == "nested" or nonlinear else _closed_form(operator, x, positions, explicit=explicit)
        if form is None and method == "closed_form":
            raise ValueError(
                f"{type(operator).__name__} has no closed form here: it needs a gnConv whose f is a depthwise "
                "convolution, a mean pooling or (explicit) GF; use method='nested'."
            )
        if form is None:
            check_cuts(positions.flat_operator(operator), points[:1])
        stack.enter_context(torch.enable_grad())
        if form is None:
            stack.enter_context(OpenAttention())  # the fused kernels have no second derivative
        one_each = stack.enter_context(explicit_operators(operator, nonlinear=nonlinear)) if explicit else set()
        stack.enter_context(missing_derivatives_explained())
        flat = positions.flat_operator(operator)
        met = OperatorsMet()
        if form is None:
            check_samples(flat, points, flat_output)
            check_gradients(flat, points, flat_output)
            met = operators_met(flat(points[:1].clone().requires_grad_()))
        spread = float(flat_output[..., first:].double().std(correction=0)) or 1.0
        chains = Chains(flat, x, positions, homes, sigma, spread, flat_output.shape[1], max_order, batch_size)

        def measured(num_tuples: int) -> tuple[Draws, Draws]:
            """Derivatives along chains, and along dense directions."""
            generator = torch.Generator("cpu").manual_seed(seed)
            mixed = chains.derivatives(form, num_tuples, generator, dense=False)
            num_dense = min(NUM_DEGREE_DRAWS, num_tuples)
            return mixed, chains.derivatives(form, num_dense, generator, dense=True)

        def is_too_small(mixed: Draws, dense: Draws) -> bool:
            """Whether a zero may be none, see Returns."""
            as_computed = spread * chains.num_channels**0.5 if form else 1.0  # nested derivatives start from u / spread
            if underflows(mixed.values * as_computed, x.dtype):
                return True
            if not (mixed.unproven_zeros | dense.unproven_zeros).any():
                return False
            with UnderflowWatch() as watch:
                measured(min(NUM_WATCHED_DRAWS, num_tuples))
            return watch.found

        mixed, dense = measured(num_tuples)
        check_finite(mixed.values)
        degree = highest_order(exact_zeros(dense.values))
        too_small = is_too_small(mixed, dense)
        if form is None and not explicit and degree is not None and not too_small:
            check_certificate(met, explicit=explicit)
            check_polynomial(flat, points, degree, seed=seed)

    if too_small and x.dtype == torch.float32 and isinstance(operator, nn.Module):
        both = operator, list(nonlinear)  # together: a declared module stays a part
        wider, declared = copied(both, operator.modules())
        return interaction_spectrum(
            wider.double(),
            x.double(),
            max_order=max_order,
            num_tuples=num_tuples,
            explicit=explicit,
            seed=seed,
            batch_size=batch_size,
            method=method,
            layout=layout,
            grid=grid,
            nonlinear=declared,
        )
    if too_small:
        remedy = (
            "give the operator and x in float64, or scale x" if x.dtype == torch.float32 else "scale x or the weights"
        )
        raise ValueError(
            f"Derivatives, or what they are made of, come down to where {x.dtype} underflows and zeros prove nothing: "
            f"{remedy}."
        )
    draws, images = mixed.values, mixed.images
    zeros = exact_zeros(draws)
    order = highest_order(zeros)
    if order is not None:
        check_certificate(met, explicit=explicit)
    low, high = effect_intervals(draws, images, seed=seed)
    return InteractionSpectrum(
        effects=effect_sizes(draws),
        ci_low=low,
        ci_high=high,
        exact_zero=zeros,
        max_share=max_shares(draws),
        location_order=order,
        degree_order=degree,
        at_least=max_order if order is None else None,
        num_draws=len(draws),
        seed=seed,
        unlisted=(*met.unlisted, *met.custom) if explicit and None in (order, degree) else (),
        convention={
            "effect": "sqrt(E[|D_k|^2 / C']) / std(F), k neighbours jointly with the position itself",
            "non_linearities": "tangent at the operating point" if explicit else "as they are",
            "kind": "explicit" if explicit else "functional",
            "declared": ", ".join(sorted(one_each)),
            "kinks": "" if explicit else ", ".join(met.kinks),
            "positions": "uniform over the map",
            "layout": f"{positions.layout}, {positions.in_words}",
            "neighbours": "distinct, uniform over the receptive field of the position",
            "directions": "normal, standard deviation of each input channel over images and positions",
            "std": "over images, channels and positions of the output",
            "estimator": "closed form" if form else "nested reverse mode, random signs over output channels",
            "dtype": str(x.dtype).removeprefix("torch."),
            "interval": f"95 % bootstrap by {resampling_unit(images)}",
        },
    )


def _closed_form(operator: Operator, x: Tensor, positions: Positions, *, explicit: bool) -> GnConvClosedForm | None:
    on_a_map = positions.layout == "channels_first" and len(positions.shape) == 2
    return closed_form_of(operator, x, explicit=explicit) if on_a_map else None
