"""Random chains of positions and directions, and the derivatives along them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from horinsight.cancellation import pause
from horinsight.interaction.gnconv_effect import GnConvClosedForm
from horinsight.interaction.locations import drawn_locations, location_shares
from horinsight.interaction.neighbour_groups import shared_directions
from horinsight.interaction.nested_draws import nested_draws
from horinsight.interaction.order import Draws
from horinsight.operators.positions import Operator, Positions

CLOSED_FORM_BATCH = 256  # chains at once, which need vectors only
VECTORS = 3  # channel directions a group in closed form


@dataclass(frozen=True, eq=False)
class Chains:
    """Where chains are drawn, and how large their directions are.

    Attributes:
        operator: from (N, C, P) to (N, C', P').
        x: operating points in their own layout; B images.
        positions: how they lie.
        homes: (P',) the input position that each output position lies on.
        sigma: (C,) standard deviation of each input channel.
        spread: std(F), which derivatives are divided by.
        output: the operator's values at x, (B, C', P').
        num_held: of its positions the first, which are no locations.
        max_order: K.
        batch_size: chains that are differentiated together, at most; fewer where their graphs would be too large
            (`nested_draws`); a number of its own in closed form.
        shares: (B, P' without the prefix) how often each location is drawn; by the output's variation when None.
        budget: bytes that graphs may take; unbounded when None.
    """

    operator: Operator
    x: Tensor
    positions: Positions
    homes: Tensor
    sigma: Tensor
    spread: float
    output: Tensor
    num_held: int
    max_order: int
    batch_size: int
    shares: Tensor | None = None
    budget: float | None = None

    @property
    def num_channels(self) -> int:
        """C', of the output."""
        return self.output.shape[1]

    def location_shares(self) -> Tensor:
        """(B, P' without the prefix) how often each location is drawn."""
        if self.shares is not None:
            return self.shares
        return location_shares(self.output[..., self.num_held :])

    def derivatives(
        self, form: GnConvClosedForm | None, num_draws: int, generator: torch.Generator, *, dense: bool
    ) -> Draws:
        """Draw chains and differentiate along them.

        Args:
            form: the operator's closed form; nested reverse mode when None.
            num_draws: chains per image.
            generator: of the draws.
            dense: move all positions at once instead of one by one.

        Returns:
            D_k / (sqrt(C') std(F)), times the root of what a draw counts for unless dense: |D_k| in closed form,
            otherwise |u·D_k| with random signs u, the mean over the last neighbour and direction taken.
        """
        drawn = drawn_locations(self.location_shares(), num_draws, generator)
        outputs = (self.num_held + drawn.index.flatten()).to(self.x.device)
        image = torch.arange(len(self.x), device=self.x.device).repeat_interleave(num_draws)
        if form is None:
            D, num_alive, cost = nested_draws(self, image, outputs, generator, dense=dense)
        else:
            D, num_alive, cost = self._by_closed_form(form, image, outputs, generator, dense=dense), form.num_alive, 0
        structural = np.arange(self.max_order + 1) >= num_alive
        values = D.cpu().numpy() if dense else D.cpu().numpy() * drawn.weight.sqrt().reshape(-1, 1).numpy()
        return Draws(image.cpu().numpy(), values, structural, cost)

    def _by_closed_form(
        self, form: GnConvClosedForm, image: Tensor, i: Tensor, generator: torch.Generator, *, dense: bool
    ) -> Tensor:
        """(N, K + 1): |D_k| / (sqrt(C') std(F))."""
        differentiated = self._dense_part if dense else self._grouped_part
        # drawn by numbers of chains that have nothing to do with the batch size, so that the draws do not depend on it
        num_together = self.batch_size if dense else CLOSED_FORM_BATCH
        parts = torch.arange(len(image), device=image.device).split(num_together)
        found: list[Tensor] = []
        for part in parts:
            pause(len(found) / len(parts))
            found.append(differentiated(form, image[part], i[part], generator))
        D = torch.cat(found)
        relative: Tensor = D.double().norm(dim=-1) / (self.spread * D.shape[-1] ** 0.5)
        return relative

    def _dense_part(self, form: GnConvClosedForm, image: Tensor, i: Tensor, generator: torch.Generator) -> Tensor:
        size = (self.max_order + 1, *self.x.shape[1:])
        directions = torch.stack([self.normal(size, generator) for _ in i]) * self.sigma[:, None, None]
        return form.dense(self.x, i, directions, image=image)

    def _grouped_part(self, form: GnConvClosedForm, image: Tensor, i: Tensor, generator: torch.Generator) -> Tensor:
        around = form.around(i, (self.x.shape[2], self.x.shape[3]))
        num_groups = max(1, min(self.max_order, form.num_alive - 1))
        vectors = self.normal((len(i), 1 + num_groups * VECTORS, self.sigma.numel()), generator) * self.sigma
        uniform = torch.rand(len(i), 2, around.shape[1], generator=generator, device="cpu").to(i.device)
        moves = vectors[:, 1:].unflatten(1, (num_groups, VECTORS))
        groups = shared_directions(around, uniform, moves)
        images = slice(int(image[0]), int(image[-1]) + 1)  # these alone
        num_wanted = self.max_order + 1
        return form.along_groups(
            self.x[images], i, vectors[:, 0], groups, image=image - image[0], num_wanted=num_wanted
        )

    def normal(self, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Normal random numbers like x."""
        return torch.randn(size, generator=generator, dtype=self.x.dtype, device="cpu").to(self.x)
