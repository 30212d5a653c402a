"""What must hold before a derivative proves anything, and the sentences that say so when it does not."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from horinsight.interaction.derivative_graph import OperatorsMet
from horinsight.operators.positions import Operator, Positions

UNDERFLOW_MARGIN = 1e6  # nearer than this to the smallest normal number, zeros may be underflow


def check_points(x: Tensor, positions: Positions, max_order: int) -> None:
    """Wide enough numbers, enough positions for a chain."""
    if x.dtype in (torch.int64, torch.int32, torch.uint8, torch.bool):
        raise ValueError(f"interaction_spectrum expects float32 or float64, got {x.dtype}: convert x with .float().")
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"interaction_spectrum expects float32 or float64, got {x.dtype}: high derivatives vanish in half "
            "precision, convert the operator and x with .float()."
        )
    if positions.num_locations <= max_order:
        raise ValueError(
            f"A chain of order {max_order} needs {max_order + 1} distinct positions, got {positions.in_words}: "
            "use a larger image or a lower max_order."
        )


def check_precision(operator: Operator) -> None:
    """Parameters in which high derivatives do not vanish."""
    parameters = operator.parameters() if isinstance(operator, nn.Module) else iter(())
    narrow = {parameter.dtype for parameter in parameters} & {torch.float16, torch.bfloat16}
    if narrow:
        raise ValueError(
            f"interaction_spectrum expects an operator in float32 or float64, got parameters in {narrow.pop()}: high "
            "derivatives vanish in half precision, convert the operator and x with .float()."
        )


def check_finite_points(x: Tensor) -> None:
    """Values are numbers."""
    if not x.isfinite().all():
        raise ValueError("interaction_spectrum expects finite values, got NaN or infinity in x: are the weights whole?")


def check_variation(x: Tensor, sigma: Tensor) -> None:
    """Finite values that vary: directions are as large as each channel's spread."""
    check_finite_points(x)
    if not (sigma > 0).any():
        raise ValueError(
            "interaction_spectrum expects x to vary over images or positions, because directions are as large as each "
            "channel's standard deviation; got a constant x: use a picture with something on it."
        )


def check_polynomial(operator: Operator, x: Tensor, degree_order: int, *, seed: int) -> None:
    """Functional derivatives that end promise a polynomial: it must be one along a line, too.

    Comparisons, masks, roundings and `detach` leave no trace in a graph; here they do.
    """
    degree = degree_order + 1
    generator = torch.Generator("cpu").manual_seed(seed)
    v = torch.randn(x[:1].shape, generator=generator, dtype=x.dtype, device="cpu").to(x) * x.std()
    t = torch.linspace(-1.5, 1.5, degree + 5, dtype=torch.float64, device="cpu")
    with torch.no_grad():
        y = torch.stack([operator(x[:1] + float(step) * v).flatten().double().cpu() for step in t])
    powers = t[:, None] ** torch.arange(degree + 1, device="cpu")
    residual = y - powers @ torch.linalg.lstsq(powers, y).solution
    if float(residual.abs().max()) > 1e-3 * float(y.abs().max()):
        raise ValueError(
            f"The derivatives end, as of a polynomial of degree {degree}, but the operator is none along a line: is "
            "there a comparison, a mask, a rounding or a detach in it, whose interactions no derivative sees?"
        )


def check_certificate(met: OperatorsMet, *, explicit: bool) -> None:
    """Derivatives that end are a certificate only where every operator's derivatives are what they seem.

    Raises:
        ValueError: interactions may lie on kinks, or in a custom function's second derivative.
    """
    if met.custom:
        raise ValueError(
            f"The derivatives end, but pass through custom autograd functions ({', '.join(met.custom)}) whose second "
            "derivatives nobody guarantees: declare the modules that call them as non-linearities (nonlinear=..., "
            "--nonlinear), or replace them by functions of torch."
        )
    if met.kinks and not explicit:
        raise ValueError(
            f"The derivatives end, but the operator has kinks ({', '.join(met.kinks)}) on which its functional "
            "interactions lie, where no derivative sees them: measure explicit effects, or replace the kinks by a "
            "smooth function such as GELU or softplus."
        )


# of torch's errors: a function without a derivative; one whose backward pass has none, or writes into what it saved
_NOT_AGAIN = ("derivative for", "once_differentiable", "double backward", "modified by an inplace operation")


@contextmanager
def missing_derivatives_explained() -> Iterator[None]:
    """Turn torch's error for an operator that cannot be differentiated (again) into one that says what to do."""
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        text = str(error)
        if not any(part in text for part in _NOT_AGAIN):
            raise
        raise ValueError(
            f"The operator cannot be differentiated as often as its order asks ({text.splitlines()[0]}): declare the "
            "module that calls it as a non-linearity (nonlinear=..., --nonlinear), or replace it."
        ) from error


def check_finite(draws: np.ndarray) -> None:
    """Derivatives are numbers."""
    if not np.isfinite(draws).all():
        raise ValueError("Derivatives are NaN or infinite at x: does the operator have one there (a root at 0, say)?")


def underflows(draws: np.ndarray, dtype: torch.dtype) -> bool:
    """Whether values come so near to the smallest numbers of the dtype that a 0.0 among them would prove nothing."""
    alive = np.abs(draws[draws != 0])
    return bool(alive.size) and bool(alive.min() < UNDERFLOW_MARGIN * torch.finfo(dtype).tiny)
