r"""Interaction effects of any operator on maps: nested reverse-mode derivatives, or in closed form for gnConv.

For an operator F: (B, C, H, W) → (B, C', H, W), an output location i, distinct locations i = j_0, j_1, …, j_K and
channel directions v_t ~ N(0, diag σ_c²),

    D_k = ∂^{k+1} F(x + Σ_t ε_t e_{j_t}⊗v_t)_i / ∂ε_0 … ∂ε_k at ε = 0,    IE_k = E[|D_k|² / C'].

k counts the neighbours that act jointly with the feature at i, as the paper counts: gConv is 1-order.

Sources: HorNet §3.1 "Spatial interactions in vision models"; Ai and Norton 2003; Lerman et al. 2021 (arXiv 2006.08601).
"""

from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from horinsight.capture import evaluation
from horinsight.interaction.gnconv_effect import GnConvClosedForm, closed_form_of
from horinsight.interaction.nested_derivative import (
    Operator,
    dense_derivatives,
    mixed_derivatives,
    receptive_field,
)
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

Method = Literal["auto", "nested", "closed_form"]

UNDERFLOW_MARGIN = 1e6  # nearer than this to the smallest normal number, zeros may be underflow
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
    num_tuples: int = 32,
    explicit: bool = True,
    seed: int = 0,
    batch_size: int = 16,
    method: Method = "auto",
) -> InteractionSpectrum:
    """Interaction effects of an operator at the operating points `x`, and its orders.

    One chain i, j_1, …, j_K gives D_0..D_K at once. i is uniform over the map; the j_t are distinct and uniform over
    the other cells that the output at i depends on (its receptive field Ω_i, read off the first derivative), then, if
    those run out, over the rest of the map, where every derivative is zero. For gnConv D_k is a vector in closed form;
    for other operators |D_k|² is estimated without bias by (u·D_k)², u a random sign per output channel.

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
        method: "nested" (reverse mode, any operator), "closed_form" (gnConv only, some hundred times as fast), or
            "auto": the closed form where there is one.

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
    B, C, H, W = x.shape

    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        x = x.detach().clone()
        sigma = x.transpose(0, 1).flatten(1).std(dim=1, correction=0)
        _check_variation(x, sigma)
        if isinstance(operator, nn.Module):
            stack.enter_context(evaluation(operator))
        with torch.no_grad():
            output = operator(x)
        _check_output(output, x)
        spread = float(output.double().std(correction=0)) or 1.0
        form = None if method == "nested" else closed_form_of(operator, x, explicit=explicit)
        if form is None and method == "closed_form":
            raise ValueError(
                f"{type(operator).__name__} has no closed form here: it needs a gnConv whose f is a depthwise "
                "convolution, a mean pooling or (explicit) GF; use method='nested'."
            )
        stack.enter_context(torch.enable_grad())
        stack.enter_context(explicit_operators() if explicit else nullcontext())
        if form is None:
            _check_gradients(operator, x, output)

        def derivatives(num_draws: int, generator: torch.Generator, *, dense: bool) -> tuple[np.ndarray, np.ndarray]:
            """Draws and what they give: the image that each belongs to, and D_k / (sqrt(C') std(F)), (N, K + 1)."""
            image = torch.arange(B).repeat_interleave(num_draws)
            centres = torch.randint(H * W, image.shape, generator=generator)
            signs = torch.randint(0, 2, (len(image), output.shape[1]), generator=generator) * 2 - 1
            cotangents = signs.to(x) / (spread * output.shape[1] ** 0.5)
            shape = (C, H, W) if dense else (C,)
            scale = sigma[:, None, None] if dense else sigma
            found = []
            for part in torch.arange(len(image)).split(batch_size):
                # draw after draw, so that the draws do not depend on the batch size
                size = (max_order + 1, *shape)
                drawn = [
                    (torch.randn(size, generator=generator, dtype=x.dtype), torch.rand(H * W, generator=generator))
                    for _ in part
                ]
                directions = torch.stack([v for v, _ in drawn]) * scale
                keys = torch.stack([key for _, key in drawn])
                found.append(
                    _by_closed_form(form, x, image[part], centres[part], keys, directions, spread, dense=dense)
                    if form is not None
                    else _by_nesting(operator, x[image[part]], centres[part], keys, directions, cotangents[part], dense)
                )
            return image.numpy(), torch.cat(found).numpy()

        def measured() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            """Image of each chain, its derivatives, and those along dense directions."""
            generator = torch.Generator().manual_seed(seed)
            image_of_chain, chains = derivatives(num_tuples, generator, dense=False)
            return image_of_chain, chains, derivatives(min(NUM_DEGREE_DRAWS, num_tuples), generator, dense=True)[1]

        images, chains, dense_chains = measured()
        if form is not None and _underflow(chains, form.dtype):
            form = closed_form_of(operator, x, explicit=explicit, dtype=torch.float64)
            images, chains, dense_chains = measured()

    precision = x.dtype if form is None else form.dtype
    if _underflow(chains, precision):
        raise ValueError(
            f"Derivatives come down to {np.abs(chains[chains != 0]).min():.0e}, where {precision} underflows and zeros "
            "prove nothing: give the operator and x in float64, or scale x."
        )
    zeros = exact_zeros(chains)
    order = highest_order(zeros)
    low, high = effect_intervals(chains, images, seed=seed)
    return InteractionSpectrum(
        effects=effect_sizes(chains),
        ci_low=low,
        ci_high=high,
        exact_zero=zeros,
        max_share=max_shares(chains),
        location_order=order,
        degree_order=highest_order(exact_zeros(dense_chains)),
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
            "estimator": "closed form" if form else "nested reverse mode, random signs over output channels",
            "dtype": str(precision).removeprefix("torch."),
            "interval": f"95 % bootstrap by {resampling_unit(images)}",
        },
    )


def _by_closed_form(
    form: GnConvClosedForm,
    x: Tensor,
    image: Tensor,
    centres: Tensor,
    keys: Tensor,
    directions: Tensor,
    spread: float,
    *,
    dense: bool,
) -> Tensor:
    """|D_k| / (sqrt(C') std(F)), (N, K + 1), float64."""
    if dense:
        D = form.dense(x, centres, directions, image=image)
    else:
        field = form.field(centres, (x.shape[2], x.shape[3]))
        D = form.mixed(x, _neighbours(field, centres, directions.shape[1] - 1, keys), directions, image=image)
    return D.double().norm(dim=-1) / (spread * D.shape[-1] ** 0.5)


def _by_nesting(
    operator: Operator,
    points: Tensor,
    centres: Tensor,
    keys: Tensor,
    directions: Tensor,
    cotangents: Tensor,
    dense: bool,
) -> Tensor:
    """u·D_k / (sqrt(C') std(F)), (N, K + 1), float64; the cotangents hold the factor."""
    if dense:
        return dense_derivatives(operator, points, centres, directions, cotangents)
    field = receptive_field(operator, points, centres, cotangents)
    cells = _neighbours(field, centres, directions.shape[1] - 1, keys)
    return mixed_derivatives(operator, points, cells, directions, cotangents)


def _check_options(max_order: int, num_tuples: int, batch_size: int) -> None:
    for name, value, least in (
        ("max_order", max_order, 0),
        ("num_tuples", num_tuples, 1),
        ("batch_size", batch_size, 1),
    ):
        if value < least:
            raise ValueError(f"{name} expects a whole number of at least {least}, got {value}.")


def _check_points(x: Tensor, max_order: int) -> None:
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(f"interaction_spectrum expects x of shape (B, C, H, W), got {tuple(x.shape)}.")
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"interaction_spectrum expects float32 or float64, got {x.dtype}: high derivatives vanish in half "
            "precision, convert the operator and x with .float()."
        )
    H, W = x.shape[-2:]
    num_cells = H * W
    if num_cells <= max_order:
        raise ValueError(
            f"A chain of order {max_order} needs {max_order + 1} distinct positions, got a map of {H}x{W}: "
            "use a larger image or a lower max_order."
        )


def _check_variation(x: Tensor, sigma: Tensor) -> None:
    if not x.isfinite().all():
        raise ValueError("interaction_spectrum expects finite values, got NaN or infinity in x: are the weights whole?")
    if not (sigma > 0).any():
        raise ValueError(
            "interaction_spectrum expects x to vary over images or positions, because directions are as large as each "
            "channel's standard deviation; got a constant x: use a picture with something on it."
        )


def _check_gradients(operator: Operator, x: Tensor, output: Tensor) -> None:
    """An operator that cuts the graph (`torch.no_grad` inside) would look like a constant: of order 0."""
    if operator(x.clone().requires_grad_()).requires_grad:
        return
    with torch.no_grad():
        moved = operator(1.25 * x + 0.5)
    if not torch.equal(moved, output):
        raise ValueError(
            "The operator's output changes with x but carries no gradient: is there a torch.no_grad or a detach in it?"
        )


def _underflow(draws: np.ndarray, dtype: torch.dtype) -> bool:
    """Whether values come so near to the smallest numbers of the dtype that a 0.0 among them would prove nothing."""
    alive = np.abs(draws[draws != 0])
    return bool(alive.size) and bool(alive.min() < UNDERFLOW_MARGIN * torch.finfo(dtype).tiny)


def _check_output(output: Tensor, x: Tensor) -> None:
    if output.ndim != 4 or output.shape[0] != x.shape[0] or output.shape[2:] != x.shape[2:]:
        raise ValueError(
            f"interaction_spectrum expects an operator that keeps (B, H, W), got {tuple(x.shape)} -> "
            f"{tuple(output.shape)}."
        )


def _neighbours(field: Tensor, centres: Tensor, max_order: int, keys: Tensor) -> Tensor:
    """i, then K distinct other cells: those of the receptive field first, in the order of random keys. (N, K + 1)."""
    key = keys + field
    key[torch.arange(len(centres)), centres] = 3.0  # above every other key: i comes first
    return key.argsort(dim=1, descending=True)[:, : max_order + 1]
