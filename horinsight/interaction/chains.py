"""Random chains of positions and directions, and the derivatives along them."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from horinsight.interaction.gnconv_effect import GnConvClosedForm
from horinsight.interaction.locations import drawn_locations, location_shares
from horinsight.interaction.neighbour_groups import GroupChains, shared_directions
from horinsight.interaction.nested_derivative import along_everything, nested_derivatives
from horinsight.interaction.order import Draws
from horinsight.operators.positions import Operator, Positions

CLOSED_FORM_BATCH = 256  # chains at once, which need vectors only
VECTORS = 3  # channel directions a group in closed form
GRAPH_BYTES = 500_000_000  # that the graphs of one batch may hold


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
        batch_size: chains that are differentiated together, at most; fewer where their graphs would exceed
            `GRAPH_BYTES`; a number of its own in closed form.
        shares: (B, P' without the prefix) how often each location is drawn; by the output's variation when None.
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
            D, num_alive = self._by_nesting(image, outputs, generator, dense=dense)
        else:
            D, num_alive = self._by_closed_form(form, image, outputs, generator, dense=dense), form.num_alive
        structural = np.arange(self.max_order + 1) >= num_alive
        values = D.cpu().numpy() if dense else D.cpu().numpy() * drawn.weight.sqrt().reshape(-1, 1).numpy()
        return Draws(image.cpu().numpy(), values, structural)

    def _by_closed_form(
        self, form: GnConvClosedForm, image: Tensor, i: Tensor, generator: torch.Generator, *, dense: bool
    ) -> Tensor:
        """(N, K + 1): |D_k| / (sqrt(C') std(F))."""
        differentiated = self._dense_part if dense else self._grouped_part
        # drawn by numbers of chains that have nothing to do with the batch size, so that the draws do not depend on it
        num_together = self.batch_size if dense else CLOSED_FORM_BATCH
        parts = torch.arange(len(image), device=image.device).split(num_together)
        D = torch.cat([differentiated(form, image[part], i[part], generator) for part in parts])
        relative: Tensor = D.double().norm(dim=-1) / (self.spread * D.shape[-1] ** 0.5)
        return relative

    def _dense_part(self, form: GnConvClosedForm, image: Tensor, i: Tensor, generator: torch.Generator) -> Tensor:
        size = (self.max_order + 1, *self.x.shape[1:])
        directions = torch.stack([self._normal(size, generator) for _ in i]) * self.sigma[:, None, None]
        return form.dense(self.x, i, directions, image=image)

    def _grouped_part(self, form: GnConvClosedForm, image: Tensor, i: Tensor, generator: torch.Generator) -> Tensor:
        around = form.around(i, (self.x.shape[2], self.x.shape[3]))
        num_groups = max(1, min(self.max_order, form.num_alive - 1))
        vectors = self._normal((len(i), 1 + num_groups * VECTORS, self.sigma.numel()), generator) * self.sigma
        uniform = torch.rand(len(i), 2, around.shape[1], generator=generator, device="cpu").to(i.device)
        moves = vectors[:, 1:].unflatten(1, (num_groups, VECTORS))
        groups = shared_directions(around, uniform, moves)
        images = slice(int(image[0]), int(image[-1]) + 1)  # these alone
        num_wanted = self.max_order + 1
        return form.along_groups(
            self.x[images], i, vectors[:, 0], groups, image=image - image[0], num_wanted=num_wanted
        )

    def _by_nesting(
        self, image: Tensor, outputs: Tensor, generator: torch.Generator, *, dense: bool
    ) -> tuple[Tensor, int]:
        """(N, K + 1), and how many derivatives are no structural zeros: u·D_k / (sqrt(C') std(F)).

        u are random signs; normal numbers where a degree is asked for, so that equal channels do not cancel.
        """
        C, P = self.sigma.numel(), self.positions.num_total
        size = (len(image), self.num_channels)
        if dense:
            u = self._normal(size, generator)
        else:
            u = (torch.randint(0, 2, size, generator=generator, device="cpu") * 2 - 1).to(self.x)
        cotangents = u / (self.spread * self.num_channels**0.5)
        shape = (self.max_order + 1, C, P) if dense else (C, P)
        found: list[Tensor] = []
        num_alive, start, num_together = 0, 0, 1
        while start < len(image):
            part = torch.arange(start, min(start + num_together, len(image)), device=self.x.device)
            # draw after draw, so that the draws do not depend on the batch size
            drawn = [(self._normal(shape, generator), torch.rand(P, generator=generator, device="cpu")) for _ in part]
            directions = torch.stack([v for v, _ in drawn]) * self.sigma[:, None]
            directions[..., : self.positions.num_prefix] = 0  # what is held does not move, not even with all positions
            points, at, u = self.positions.flat(self.x[image[part]]), outputs[part], cotangents[part]
            operator, at = (self._summed, torch.zeros_like(at)) if dense else (self.operator, at)
            watched: AbstractContextManager[dict[int, int]] = nullcontext({}) if start else _saved_storages()
            along, exactly = along_everything(directions), None
            if not dense:
                keys = torch.stack([key for _, key in drawn]).to(self.x.device)
                chains = GroupChains(
                    self.homes[at],
                    keys,
                    directions,
                    self.sigma,
                    num_groups=self.max_order,
                    num_prefix=self.positions.num_prefix,
                )
                along, exactly = chains.along, chains.exactly
            with watched as storages:
                nested = nested_derivatives(operator, points, at, u, along, self.max_order + 1, exactly=exactly)
            found.append(nested.values)
            num_alive = max(num_alive, nested.num_connected)
            if start == 0:  # the first chain alone, to see how many can be afforded
                num_together = min(self.batch_size, max(1, GRAPH_BYTES // max(1, sum(storages.values()))))
            start += len(part)
        return torch.cat(found), num_alive

    def _summed(self, x: Tensor) -> Tensor:
        """(N, C', 1): the operator's outputs at all positions that are locations, added up with random normal weights.

        A degree is that of all positions: what multiplies at one place alone is not missed. What is the same at all of
        them does not cancel, as it may with signs.
        """
        output = self.operator(x)
        generator = torch.Generator("cpu").manual_seed(0)
        weights = torch.randn(output.shape[2:], generator=generator, dtype=torch.float64, device="cpu")
        weights[: self.num_held] = 0
        return (output * weights.to(output)).sum(2, keepdim=True)

    def _normal(self, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randn(size, generator=generator, dtype=self.x.dtype, device="cpu").to(self.x)


@contextmanager
def _saved_storages() -> Iterator[dict[int, int]]:
    """Address → bytes of every tensor that graphs keep for their derivatives, while the context is open."""
    sizes: dict[int, int] = {}

    def counted(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(counted, lambda tensor: tensor):
        yield sizes
