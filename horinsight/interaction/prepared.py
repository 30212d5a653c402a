"""An operator made ready to be differentiated: lent, run once, checked, its non-linearities replaced by tangents."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TypeGuard

import torch
from torch import Tensor, nn

from horinsight.cancellation import pause
from horinsight.capture import evaluation, misfits_explained
from horinsight.interaction.chains import Chains
from horinsight.interaction.derivative_graph import OperatorsMet, operators_met
from horinsight.interaction.expected_squares import expected_squares, is_cheap
from horinsight.interaction.gnconv_effect import GnConvClosedForm, closed_form_of
from horinsight.interaction.graph_cuts import check_cuts
from horinsight.interaction.homes import home_cells
from horinsight.interaction.locations import location_shares
from horinsight.interaction.point_scales import PointScales, output_at
from horinsight.interaction.preconditions import (
    check_points,
    check_precision,
    check_variation,
    missing_derivatives_explained,
)
from horinsight.interaction.spectrum_options import SpectrumOptions
from horinsight.memory_budget import budget_bytes
from horinsight.operators.differentiable import check_differentiable, check_gradients, check_samples
from horinsight.operators.module_copies import copied
from horinsight.operators.open_attention import OpenAttention
from horinsight.operators.positions import Operator, Positions, positions_of
from horinsight.operators.tangent import explicit_operators


@dataclass(frozen=True, eq=False)
class PreparedOperator:
    """What is differentiated, as long as the context of `prepared` is open.

    Attributes:
        chains: the operator on positions, its points, and how large its directions are.
        form: its closed form, where that is taken.
        met: the operators between x and an output, where derivatives are nested.
        one_each: names of the classes that count as one non-linearity; norms written by hand come as they are called.
    """

    chains: Chains
    form: GnConvClosedForm | None
    met: OperatorsMet
    one_each: set[str]


@contextmanager
def prepared(
    operator: Operator,
    x: Tensor,
    positions: Positions,
    options: SpectrumOptions,
    output_grid: tuple[int, int] | None = None,
    scales: PointScales | None = None,
) -> Iterator[PreparedOperator]:
    """Lend an operator, ready to be differentiated at its operating points.

    Args:
        operator: in the layout of `positions`.
        x: operating points.
        positions: how they lie.
        options: with a highest order.
        output_grid: of the output's tokens, where that is not the input's.
        scales: σ and std(F), where they are of more points than these; of these alone when None.

    Raises:
        ValueError: see `interaction_spectrum`.
    """
    assert options.max_order is not None
    check_points(x, positions, options.max_order)
    check_differentiable(operator)
    check_precision(operator)
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.autocast(x.device.type, enabled=False))  # derivatives in the dtype of x, as reported
        stack.enter_context(x.device)
        x = x.detach().clone()
        points = positions.flat(x)
        first = positions.num_prefix
        if scales is None:
            sigma = points[..., first:].transpose(0, 1).flatten(1).std(dim=1, correction=0)
        else:
            sigma = scales.sigma.to(x)
        check_variation(x, sigma)
        if isinstance(operator, nn.Module):
            stack.enter_context(evaluation(operator))
            stack.enter_context(misfits_explained(operator, x))
        output = output_at(operator, x)
        pause()
        with missing_derivatives_explained():
            outputs = positions_of(output, positions.layout, output_grid) if output_grid else None
            homes, flat_output = home_cells(operator, x, output, positions, outputs), positions.flat(output)
        flat = positions.flat_operator(operator)
        form = _closed_form(operator, x, positions, options)
        pause()
        if form is None:
            check_cuts(flat, points[:1])
        stack.enter_context(torch.enable_grad())
        if form is None:
            stack.enter_context(OpenAttention())  # the fused kernels have no second derivative
        tangents = explicit_operators(operator, nonlinear=options.nonlinear) if options.explicit else None
        one_each = set() if tangents is None else stack.enter_context(tangents)
        stack.enter_context(missing_derivatives_explained())
        met = OperatorsMet()
        if form is None:
            check_samples(flat, points, flat_output)
            pause()
            check_gradients(flat, points, flat_output)
            met = operators_met(flat(points[:1].clone().requires_grad_()))
        held = positions.num_prefix if outputs is None else outputs.num_prefix
        std = float(flat_output[..., held:].double().std(correction=0)) if scales is None else scales.spread
        spread = std or 1.0
        K = options.max_order
        expected = expected_squares(form, x, sigma, K) if form is not None and is_cheap(x) else None
        shares = location_shares(flat_output[..., held:], expected)
        size, budget = options.batch_size, _budget(x, options)
        chains = Chains(flat, x, positions, homes, sigma, spread, flat_output, held, K, size, shares, budget)
        yield PreparedOperator(chains, form, met, one_each)


def _budget(x: Tensor, options: SpectrumOptions) -> float:
    """Bytes that graphs may take, of the memory in which they are."""
    free = torch.cuda.mem_get_info(x.device)[0] if x.is_cuda else None
    return budget_bytes(options.memory, free=free)


def _closed_form(
    operator: Operator, x: Tensor, positions: Positions, options: SpectrumOptions
) -> GnConvClosedForm | None:
    """The closed form where there is one and it is not ruled out.

    Raises:
        ValueError: it is asked for, and there is none.
    """
    on_a_map = positions.layout == "channels_first" and len(positions.shape) == 2
    form = None
    if on_a_map and options.method != "nested" and not options.nonlinear:
        form = closed_form_of(operator, x, explicit=options.explicit)
    if form is None and options.method == "closed_form":
        raise ValueError(
            f"{type(operator).__name__} has no closed form here: it needs a gnConv whose f is a depthwise convolution, "
            "a mean pooling or (explicit) GF; use method='nested'."
        )
    return form


def can_be_widened(operator: Operator, x: Tensor) -> TypeGuard[nn.Module]:
    """Whether there is a copy of the operator in float64 to be had."""
    return x.dtype == torch.float32 and isinstance(operator, nn.Module)


def widened(operator: nn.Module, x: Tensor, options: SpectrumOptions) -> tuple[nn.Module, Tensor, SpectrumOptions]:
    """A copy of the operator in float64, with its points and with what is declared of it."""
    both = operator, list(options.nonlinear)  # together: a declared module stays a part
    wider, declared = copied(both, operator.modules())
    return wider.double(), x.double(), replace(options, nonlinear=tuple(declared))
