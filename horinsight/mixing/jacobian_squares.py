"""Mean squares of the blocks of a Jacobian, by backward passes on many copies of a point at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from horinsight.cancellation import pause
from horinsight.operators.positions import Operator, Positions


@dataclass(frozen=True, eq=False)
class Squares:
    """I_ij² of some images.

    Attributes:
        mean: over the cotangents, (b, queries, P) float64.
        error: its standard error, of the same shape: 0 where it is exact, NaN for one probe.
        has_graph: whether the output depends on x by way of a graph.
        output: of the first image, (1, C', P').
    """

    mean: Tensor
    error: Tensor
    has_graph: bool
    output: Tensor


@dataclass(frozen=True, eq=False)
class JacobianSquares:
    """What is differentiated, and how; `squares` does it.

    Attributes:
        operator: as it was given.
        positions: of its input.
        outputs: of its output.
        places: of the queries among all positions of the output.
        num_channels: C', of the output.
        batch_size: images times cotangents at once.
    """

    operator: Operator
    positions: Positions
    outputs: Positions
    places: Sequence[int]
    num_channels: int
    batch_size: int

    def squares(self, x: Tensor, signs: Tensor | None) -> Squares:
        """I_ij² at some images: one forward pass on copies of them, then a backward pass for each so many cotangents.

        Each copy stands for another query and cotangent u in each pass, so that passes are full.

        Args:
            x: b images.
            signs: (b, queries, probes, C') ±1; None for every output channel by itself.
        """
        b, num_queries = len(x), len(self.places)
        num_cotangents = self.num_channels if signs is None else signs.shape[2]
        cotangents = self._cotangents(b, signs)
        pairs = [(query, which) for which in range(num_cotangents) for query in range(num_queries)]
        copies = max(1, min(self.batch_size // b, len(pairs)))
        leaf = x.repeat(copies, *[1] * (x.ndim - 1)).requires_grad_()
        output = self.outputs.flat(self.operator(leaf.clone())).unflatten(0, (copies, b))  # (copies, b, C', P')
        mean = torch.zeros(num_queries, b, self.positions.num_total, dtype=torch.float64, device="cpu")
        spread = torch.zeros_like(mean)  # sum of squared deviations from the mean
        if output.requires_grad:
            for start in range(0, len(pairs), copies):
                pause(start / len(pairs))
                together = pairs[start : start + copies]
                u = torch.stack([cotangents(query, which) for query, which in together]).to(output)
                picked = [output[copy, :, :, self.places[query]] for copy, (query, _) in enumerate(together)]
                (gradient,) = torch.autograd.grad(
                    torch.stack(picked), leaf, u, retain_graph=True, allow_unused=True, materialize_grads=True
                )
                rows = self.positions.flat(gradient).unflatten(0, (copies, b))  # (copies, b, C, P)
                scale = rows.shape[2] * (1 if signs is None else self.num_channels)
                for row, (query, which) in zip(rows, together, strict=False):
                    square = row.double().square().sum(1).cpu() / scale
                    change = square - mean[query]
                    mean[query] += change / (which + 1)  # Welford 1962: equal probes have no spread, to the bit
                    spread[query] += change * (square - mean[query])
        if signs is None:
            error = torch.zeros_like(spread)
        elif num_cotangents == 1:
            error = torch.full_like(spread, float("nan"))
        else:
            error = (spread / (num_cotangents - 1) / num_cotangents).sqrt()
        return Squares(mean.transpose(0, 1), error.transpose(0, 1), output.requires_grad, output[0, :1].detach())

    def _cotangents(self, b: int, signs: Tensor | None) -> Callable[[int, int], Tensor]:
        """(query, which) → u, (b, C'): signs, or one channel."""
        if signs is not None:
            return lambda query, which: signs[:, query, which]
        channels = torch.eye(self.num_channels, device="cpu")
        return lambda query, which: channels[which].expand(b, -1)
