r"""How strongly each position of an operator's output answers to each position of its input, whatever it computes.

    I_ij = sqrt( Σ_{c',c} (∂F_c'(x)_i / ∂x_cj)² / (C' C) )

the root mean square over pairs of channels of the Jacobian's block (i, j). Exactly, it takes one backward pass for each
query i and output channel c'. With random signs s_c' = ±1 instead of single channels

    E Σ_c (Σ_c' s_c' ∂F_c'(x)_i / ∂x_cj)² = Σ_{c',c} (∂F_c'(x)_i / ∂x_cj)²,

because E s_a s_b is 1 for a = b and 0 otherwise: each probe is one backward pass a query, whose mean is I² without
bias, with the standard error that the probes' spread tells (Hutchinson 1990). I itself, its root, is a little too small
on average. Where no path leads from j to i, each probe is 0.0 bit for bit.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Unpack

import numpy as np
import torch
from torch import Tensor, nn

from horinsight.capture import evaluation, misfits_explained
from horinsight.description import unwrapped
from horinsight.mixing.influence_options import InfluenceKeywords, InfluenceOptions
from horinsight.mixing.jacobian_squares import JacobianSquares
from horinsight.mixing.output_positions import NOT_FINITE, Queries, check_output, output_positions, query_cells
from horinsight.mixing.reach_results import Influence
from horinsight.operators.differentiable import check_apart, check_differentiable, check_gradients, output_of_two
from horinsight.operators.positions import Layout, Operator, Positions, positions_of
from horinsight.operators.tangent import explicit_operators
from horinsight.options import made


def influence(
    operator: Operator,
    x: Tensor,
    *,
    queries: Queries | None = None,
    options: InfluenceOptions | None = None,
    layout: Layout | None = None,
    grid: tuple[int, int] | None = None,
    output_layout: Layout | None = None,
    output_grid: tuple[int, int] | None = None,
    **given: Unpack[InfluenceKeywords],
) -> Influence:
    """I_ij of an operator at the operating points `x`: how strongly the output at i answers to the input at j.

    Args:
        operator: from maps (B, C, H, W), channels-last maps (B, H, W, C) or tokens (B, N, C) to any of them, sample by
            sample; the output's map may be smaller or larger. A module is lent in eval mode with frozen parameters. One
            in half precision must be widened by the caller.
        x: operating points, float32 or float64; B images.
        queries: positions i of the output: (row, column) on a map, numbers for tokens without a grid; all when None.
        options: explicit or not, exact or by random signs, seed; the defaults when None.
        layout: of x: "channels_first", "channels_last" or "tokens"; by the number of dimensions (4, 3) when None.
        grid: for tokens, (rows, columns) of the map that the last of them form; the tokens before are held fixed.
        output_layout: of the output; that of x, or by the number of dimensions where it differs, when None.
        output_grid: likewise for the output's tokens; `grid` where there are as many tokens as in x, when None.
        **given: fields of `InfluenceOptions` as keyword arguments, in place of those of `options`.

    Returns:
        I_ij² with standard errors, and I_ij.

    Raises:
        ValueError: wrong shapes or options, a query off the map, half precision, an operator that gives something else
            than one tensor with positions, that mixes samples, or through which nothing can be differentiated.
        TypeError: x is no tensor, or an argument that is no option.

    Example:
        >>> conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
        >>> found = influence(conv, torch.zeros(1, 1, 5, 5), queries=[(2, 0)])
        >>> np.allclose(found.maps[0, 0, 1:4, :2], conv.weight[0, 0, :, 1:].detach().abs())
        True
        >>> found.maps[0, 0, 0].tolist()
        [0.0, 0.0, 0.0, 0.0, 0.0]
    """
    options = made(InfluenceOptions, options, given, caller="influence")
    asked = (queries, output_grid)
    return influence_as_asked(
        operator, x, lambda _: asked, options=options, layout=layout, grid=grid, output_layout=output_layout
    )


def influence_as_asked(
    operator: Operator,
    x: Tensor,
    asked: Callable[[Tensor], tuple[Queries | None, tuple[int, int] | None]],
    *,
    options: InfluenceOptions,
    layout: Layout | None,
    grid: tuple[int, int] | None,
    output_layout: Layout | None,
    generator: torch.Generator | None = None,
) -> Influence:
    """`influence`, where what is asked depends on the output.

    Args:
        operator: see `influence`, as are all but the next.
        x: operating points.
        asked: from the output at the first of them to the queries and the grid of the output's tokens.
        options: how.
        layout: of x.
        grid: of x's tokens.
        output_layout: of the output.
        generator: of the signs, where they go on from those of images before; begun by the seed when None.
    """
    operator = unwrapped(operator) if isinstance(operator, nn.Module) else operator
    positions = positions_of(x, layout, grid)
    _check_precision(operator, x)
    check_differentiable(operator)
    with ExitStack() as stack:
        for context in (torch.inference_mode(False), torch.autocast(x.device.type, enabled=False), x.device):
            stack.enter_context(context)
        x = x.detach().clone()
        if isinstance(operator, nn.Module):
            stack.enter_context(evaluation(operator))
            stack.enter_context(misfits_explained(operator, x))
        with torch.no_grad():
            beside = output_of_two(operator, x)
        check_output(beside)
        queries, output_grid = asked(beside[:1])
        outputs, output_shape = output_positions(beside, positions, x.ndim, grid, output_layout, output_grid)
        cells = query_cells(queries, output_shape)
        stack.enter_context(torch.enable_grad())
        if options.explicit:
            stack.enter_context(explicit_operators(operator))
        places = [outputs.num_prefix + int(np.ravel_multi_index(tuple(cell), output_shape)) for cell in cells]
        num_channels, together = outputs.flat(beside).shape[1], options.batch_size
        job = JacobianSquares(operator, positions, outputs, places, num_channels, together)
        signs = None
        if options.probes:
            drawn = signs_generator(options.seed) if generator is None else generator
            signs = _signs((len(x), len(cells), options.probes, num_channels), drawn)
        parts = [
            job.squares(x[i : i + together], None if signs is None else signs[i : i + together])
            for i in range(0, len(x), together)
        ]
        check_apart(outputs.flat(beside), parts[0].output)
        if not all(part.has_graph for part in parts):
            check_gradients(operator, x[:1], beside[:1])
    map_shape = grid or positions.shape
    shape = (len(x), len(cells), *map_shape)
    squares, errors = (
        np.concatenate([getattr(part, name)[..., positions.num_prefix :].numpy() for part in parts]).reshape(shape)
        for name in ("mean", "error")
    )
    if not np.isfinite(squares).all():
        raise ValueError(f"Derivatives at x are {NOT_FINITE}")
    return Influence(
        squares=squares,
        standard_errors=errors,
        queries=cells,
        output_shape=output_shape,
        num_probes=options.probes,
        seed=options.seed,
        convention=_convention(options, positions, outputs, x.dtype),
    )


def _convention(
    options: InfluenceOptions, positions: Positions, outputs: Positions, dtype: torch.dtype
) -> dict[str, str]:
    """What was computed, in words."""
    exact = options.probes is None
    return {
        "influence": "I_ij = sqrt(sum over c', c of (dF_c'(x)_i / dx_cj)^2 / (C' C))",
        "kind": "explicit" if options.explicit else "functional",
        "non_linearities": "tangent at the operating point" if options.explicit else "as they are",
        "input": f"{positions.layout}, {positions.in_words}",
        "output": f"{outputs.layout}, {outputs.in_words}",
        "estimator": (
            "exact, a backward pass for each output channel"
            if exact
            else f"random signs over output channels, {options.probes} for each image and query"
        ),
        "standard_error": "none: exact" if exact else "of I_ij^2, over the random signs",
        "dtype": str(dtype).removeprefix("torch."),
    }


def signs_generator(seed: int) -> torch.Generator:
    """What signs are drawn by, image by image: those of many are those of batches of them, one after the other."""
    return torch.Generator("cpu").manual_seed(seed)


def _signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """±1, int8."""
    return torch.randint(0, 2, shape, generator=generator, device="cpu", dtype=torch.int8) * 2 - 1


def _check_precision(operator: Operator, x: Tensor) -> None:
    parameters = operator.parameters() if isinstance(operator, nn.Module) else iter(())
    narrow = ({x.dtype} | {weight.dtype for weight in parameters}) - {torch.float32, torch.float64}
    if narrow:
        raise ValueError(
            f"influence expects an operator and x in float32 or float64, got {narrow.pop()}: convert both with "
            ".float()."
        )
