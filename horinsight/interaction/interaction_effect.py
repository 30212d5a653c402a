r"""Interaction effects by nested reverse-mode derivatives, for any operator on maps.

For an operator F: (B, C, H, W) → (B, C', H, W), an output location i, distinct locations i = j_0, j_1, …, j_K and
channel directions v_t ~ N(0, diag σ_c²),

    D_k = ∂^{k+1} F(x + Σ_t ε_t e_{j_t}⊗v_t)_i / ∂ε_0 … ∂ε_k at ε = 0,    IE_k = E[|D_k|² / C'].

k counts the neighbours that act jointly with the feature at i, as the paper counts: gConv is 1-order.

Sources: HorNet §3.1 "Spatial interactions in vision models"; Ai and Norton 2003; Lerman et al. 2021 (arXiv 2006.08601).
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from horinsight.capture import evaluation
from horinsight.interaction.order import (
    effect_intervals,
    effect_sizes,
    exact_zeros,
    highest_order,
    max_shares,
    resampling_unit,
)
from horinsight.interaction.tangent import explicit_operators
from horinsight.results import Provenance

Operator = Callable[[Tensor], Tensor]

NUM_DEGREE_DRAWS = 2  # dense directions an image; a polynomial that vanishes along one random direction vanishes


@dataclass(frozen=True)
class InteractionSpectrum:
    """Interaction effects of one operator by order, k = 0..K.

    Attributes:
        effects: (K + 1,) effect_k = sqrt(IE_k) / std(F); effect_0 is the plain response, no interaction.
        ci_low: (K + 1,) lower end of the 95 % bootstrap interval of each effect.
        ci_high: (K + 1,) its upper end.
        exact_zero: (K + 1,) whether every draw was 0.0 bit for bit (or structurally zero).
        max_share: (K + 1,) share of the largest draw in the sum of squares.
        location_order: largest k with an effect that is not exactly zero; None if that is K, so that the order is open.
        degree_order: polynomial degree - 1, from derivatives along dense random directions; None if above K.
        at_least: K where `location_order` is None, else None.
        num_draws: chains (i, j_1, …, j_K) drawn.
        seed: of the draws.
        convention: what was computed, in words.
        provenance: model, weights and images, where known.
    """

    effects: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    exact_zero: np.ndarray
    max_share: np.ndarray
    location_order: int | None
    degree_order: int | None
    at_least: int | None
    num_draws: int
    seed: int
    convention: Mapping[str, str] = field(default_factory=dict)
    provenance: Provenance | None = None


def interaction_spectrum(
    operator: Operator,
    x: Tensor,
    *,
    max_order: int,
    num_tuples: int = 16,
    explicit: bool = True,
    seed: int = 0,
    batch_size: int = 16,
) -> InteractionSpectrum:
    """Interaction effects of an operator at the operating points `x`, and its orders.

    One chain i, j_1, …, j_K gives D_0..D_K at once. i is uniform over the map; the j_t are distinct and uniform over
    the other cells that the output at i depends on (its receptive field Ω_i, read off the first derivative), then, if
    those run out, over the rest of the map, where every derivative is zero. |D_k|² is estimated without bias by
    (u·D_k)², u a random sign per output channel.

    Args:
        operator: maps (B, C, H, W) to (B, C', H, W), sample by sample; a module is lent in eval mode with frozen
            parameters. One in half precision must be widened by the caller.
        x: operating points (B, C, H, W), float32 or float64; B images.
        max_order: K, the highest order measured.
        num_tuples: chains drawn per image.
        explicit: replace every non-linearity by its tangent at x (`explicit_operators`), so that what remains is what
            the architecture introduces by itself. Otherwise the operator as it is ("functional").
        seed: of every draw.
        batch_size: chains that are differentiated together; bounds the memory.

    Returns:
        The spectrum. In explicit mode zeros beyond the order are exact, so no threshold is involved.

    Raises:
        ValueError: wrong shapes, a map with fewer than K + 1 cells, half precision, or options below their least value.

    Example:
        >>> from horinsight.models.gnconv import GnConv
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(2, 8, 7, 7, dtype=torch.float64)
        >>> spectrum = interaction_spectrum(GnConv(8, order=2).double(), x, max_order=4, num_tuples=4)
        >>> spectrum.location_order, spectrum.degree_order, spectrum.exact_zero.tolist()
        (2, 2, [False, False, False, True, True])
    """
    _check_options(max_order, num_tuples, batch_size)
    _check_points(x, max_order)
    generator = torch.Generator().manual_seed(seed)
    B, _, H, W = x.shape
    x = x.detach()
    sigma = x.transpose(0, 1).flatten(1).std(dim=1, correction=0)

    with ExitStack() as stack:
        if isinstance(operator, nn.Module):
            stack.enter_context(evaluation(operator))
        with torch.no_grad():
            output = operator(x)
        _check_output(output, x)
        spread = float(output.double().std(correction=0)) or 1.0
        stack.enter_context(torch.enable_grad())
        stack.enter_context(explicit_operators() if explicit else nullcontext())

        image_of_draw = torch.arange(B).repeat_interleave(num_tuples)
        cells = torch.randint(H * W, (len(image_of_draw),), generator=generator)
        draws = []
        for images, centres in zip(image_of_draw.split(batch_size), cells.split(batch_size), strict=True):
            draws.append(_chain(operator, x[images], centres, max_order, sigma, spread, generator, dense=False))
        chains = torch.cat(draws).numpy()

        degree_images = torch.arange(B).repeat_interleave(min(NUM_DEGREE_DRAWS, num_tuples))
        degree_cells = torch.randint(H * W, (len(degree_images),), generator=generator)
        dense = []
        for images, centres in zip(degree_images.split(batch_size), degree_cells.split(batch_size), strict=True):
            dense.append(_chain(operator, x[images], centres, max_order, sigma, spread, generator, dense=True))

    zeros = exact_zeros(chains)
    order = highest_order(zeros)
    low, high = effect_intervals(chains, image_of_draw.numpy(), seed=seed)
    return InteractionSpectrum(
        effects=effect_sizes(chains),
        ci_low=low,
        ci_high=high,
        exact_zero=zeros,
        max_share=max_shares(chains),
        location_order=order,
        degree_order=highest_order(exact_zeros(torch.cat(dense).numpy())),
        at_least=max_order if order is None else None,
        num_draws=len(chains),
        seed=seed,
        convention={
            "effect": "sqrt(E[|D_k|^2 / C']) / std(F), k neighbours jointly with the position itself",
            "non_linearities": "tangent at the operating point" if explicit else "as they are",
            "kind": "explicit" if explicit else "functional",
            "positions": "uniform over the map",
            "neighbours": "distinct, uniform over the receptive field of the position",
            "directions": "normal, standard deviation of each input channel over images and positions",
            "std": "over images, channels and positions of the output",
            "estimator": "nested reverse mode, random signs over output channels",
            "dtype": str(x.dtype).removeprefix("torch."),
            "interval": f"95 % bootstrap by {resampling_unit(image_of_draw.numpy())}",
        },
    )


def _check_options(max_order: int, num_tuples: int, batch_size: int) -> None:
    for name, value, least in (("max_order", max_order, 0), ("num_tuples", num_tuples, 1), ("batch_size", batch_size, 1)):
        if value < least:
            raise ValueError(f"{name} expects a whole number of at least {least}, got {value}.")


def _check_points(x: Tensor, max_order: int) -> None:
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(f"interaction_spectrum expects x of shape (B, C, H, W), got {tuple(x.shape)}.")
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"interaction_spectrum expects float32 or float64, got {x.dtype}: high derivatives vanish in half precision, "
            "convert the operator and x with .float()."
        )
    H, W = x.shape[-2:]
    if H * W < max_order + 1:
        raise ValueError(
            f"A chain of order {max_order} needs {max_order + 1} distinct positions, got a map of {H}x{W}: "
            "use a larger image or a lower max_order."
        )


def _check_output(output: Tensor, x: Tensor) -> None:
    if output.ndim != 4 or output.shape[0] != x.shape[0] or output.shape[2:] != x.shape[2:]:
        raise ValueError(
            f"interaction_spectrum expects an operator that keeps (B, H, W), got {tuple(x.shape)} -> {tuple(output.shape)}."
        )


def _chain(
    operator: Operator,
    x: Tensor,
    centres: Tensor,
    max_order: int,
    sigma: Tensor,
    spread: float,
    generator: torch.Generator,
    *,
    dense: bool,
) -> Tensor:
    """u·D_k / (sqrt(C') std(F)) for k = 0..K, one row per sample: (N, K + 1), float64.

    With `dense` each direction moves all positions and channels at once, so that the k-th column belongs to the
    (k + 1)-th derivative along dense directions.
    """
    N, C, H, W = x.shape
    rows = torch.arange(N)
    draws = torch.zeros(N, max_order + 1, dtype=torch.float64)
    x = x.clone().requires_grad_()
    F_i = operator(x).flatten(2)[rows, :, centres]  # (N, C')
    u = torch.randint(0, 2, F_i.shape, generator=generator).to(x) * 2 - 1
    s = (F_i * u).sum(1) / (spread * F_i.shape[1] ** 0.5)
    places = centres[:, None]
    for k in range(max_order + 1):
        if not s.requires_grad:
            break  # s does not depend on x any more: this and all further derivatives are structural zeros
        (gradient,) = torch.autograd.grad(s.sum(), x, create_graph=True, allow_unused=True)
        if gradient is None:
            break
        if k == 0 and not dense:
            places = _places(gradient.detach(), centres, max_order, generator)
        if dense:
            v = torch.randn(N, C, H, W, generator=generator, dtype=x.dtype) * sigma[:, None, None]
            s = (gradient * v).flatten(1).sum(1)
        else:
            v = torch.randn(N, C, generator=generator, dtype=x.dtype) * sigma
            s = (gradient.flatten(2)[rows, :, places[:, k]] * v).sum(1)
        draws[:, k] = s.detach().double()
    return draws


def _places(gradient: Tensor, centres: Tensor, max_order: int, generator: torch.Generator) -> Tensor:
    """i, then K distinct other cells: those of the receptive field first, in random order. (N, K + 1)."""
    reached = gradient.abs().sum(1).flatten(1) > 0
    key = torch.rand(reached.shape, generator=generator) + reached
    key[torch.arange(len(centres)), centres] = 3.0  # above every other key: i comes first
    return key.argsort(dim=1, descending=True)[:, : max_order + 1]
