"""How much an operator's input and output vary over images: σ of each channel and std(F), as sums that are updated."""

from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from horinsight.capture import evaluation, misfits_explained
from horinsight.interaction.preconditions import check_finite_points
from horinsight.operators.differentiable import check_finite
from horinsight.operators.positions import Operator, Positions, positions_of


@dataclass(frozen=True, eq=False)
class PointScales:
    """Of all images together.

    Attributes:
        sigma: (C,) standard deviation of each input channel over images and positions, float64.
        spread: std(F) over images, channels and positions of the output.
    """

    sigma: Tensor
    spread: float


class RunningScales:
    """`PointScales` of images that come in batches."""

    def __init__(self) -> None:
        self._input = _Moments()
        self._output = _Moments()

    def update(
        self, operator: Operator, x: Tensor, positions: Positions, output_grid: tuple[int, int] | None = None
    ) -> None:
        """Add the images of a batch.

        Args:
            operator: run once; a module is lent in eval mode.
            x: operating points.
            positions: how they lie; prefix tokens do not count.
            output_grid: of the output's tokens, where that is not the input's.

        Raises:
            ValueError: values that are not finite, or an output that is not one tensor.
        """
        check_finite_points(x)
        with ExitStack() as stack:
            stack.enter_context(torch.autocast(x.device.type, enabled=False))
            if isinstance(operator, nn.Module):
                stack.enter_context(evaluation(operator))
                stack.enter_context(misfits_explained(operator, x))
            output = output_at(operator, x)
        held = positions.num_prefix
        points, flat = positions.flat(x)[..., held:], positions.flat(output)
        if output_grid is not None:
            held = positions_of(output, positions.layout, output_grid).num_prefix
        self._input.update(points.detach().transpose(0, 1).flatten(1))
        self._output.update(flat[..., held:].detach().reshape(1, -1))

    def compute(self) -> PointScales:
        """Of all images so far."""
        return PointScales(self._input.deviation(), float(self._output.deviation()))


class _Moments:
    """Mean and squared deviations of rows of numbers (Chan, Golub and LeVeque 1979)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(1, dtype=torch.float64, device="cpu")
        self.squares = torch.zeros(1, dtype=torch.float64, device="cpu")

    def update(self, rows: Tensor) -> None:
        """Add numbers, (rows, number of them)."""
        values = rows.double().cpu()
        num, mean = values.shape[1], values.mean(1)
        total = self.count + num
        shift = mean - self.mean
        self.squares = (
            self.squares + (values - mean[:, None]).square().sum(1) + shift.square() * self.count * num / total
        )
        self.mean = self.mean + shift * num / total
        self.count = total

    def deviation(self) -> Tensor:
        """(rows,)."""
        return (self.squares / self.count).sqrt()


def output_at(operator: Operator, x: Tensor) -> Tensor:
    """F at its operating points.

    Raises:
        ValueError: it gives something else than one tensor, or numbers that are not finite.
    """
    with torch.no_grad():
        output: object = operator(x.clone())
    if not isinstance(output, Tensor):
        raise ValueError(
            f"interaction_spectrum expects an operator that gives one tensor, got {type(output).__name__}."
        )
    check_finite(output)
    return output
