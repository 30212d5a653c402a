"""Random chains of positions and directions, and the derivatives along them."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from horinsight.interaction.gnconv_effect import GnConvClosedForm
from horinsight.interaction.nested_derivative import (
    NestedDerivatives,
    along_cells,
    along_everything,
    nested_derivatives,
    receptive_field,
)
from horinsight.interaction.order import Draws
from horinsight.operators.positions import Operator, Positions

CLOSED_FORM_BATCH = 256  # chains at once, which need vectors only
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
        num_channels: C'.
        max_order: K.
        batch_size: chains that are differentiated together, at most; fewer where their graphs would exceed
            `GRAPH_BYTES`, more in closed form.
    """

    operator: Operator
    x: Tensor
    positions: Positions
    homes: Tensor
    sigma: Tensor
    spread: float
    num_channels: int
    max_order: int
    batch_size: int

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
            D_k / (sqrt(C') std(F)): |D_k| in closed form, u·D_k with random signs u otherwise.
        """
        x, first = self.x, self.positions.num_prefix
        C, P = self.sigma.numel(), self.positions.num_total
        image = torch.arange(len(x), device=x.device).repeat_interleave(num_draws)
        outputs = first + torch.randint(len(self.homes) - first, image.shape, generator=generator, device="cpu")
        size = len(image), self.num_channels
        signs = torch.randint(0, 2, size, generator=generator, device="cpu") * 2 - 1
        outputs, cotangents = outputs.to(x.device), signs.to(x) / (self.spread * self.num_channels**0.5)
        scale = self.sigma[:, None] if dense else self.sigma
        shape = (self.max_order + 1, C, P) if dense else (self.max_order + 1, C)
        found: list[Tensor] = []
        num_alive = 0 if form is None else form.num_alive
        start, num_together = 0, 1
        if form is not None:
            num_together = self.batch_size if dense else max(self.batch_size, CLOSED_FORM_BATCH)
        while start < len(image):
            part = torch.arange(start, min(start + num_together, len(image)), device=x.device)
            # draw after draw, so that the draws do not depend on the batch size
            drawn = [
                (
                    torch.randn(shape, generator=generator, dtype=x.dtype, device="cpu"),
                    torch.rand(P, generator=generator, device="cpu"),
                )
                for _ in part
            ]
            directions = torch.stack([v for v, _ in drawn]).to(x) * scale
            keys = torch.stack([key for _, key in drawn]).to(x.device)
            if form is not None:
                found.append(self._by_closed_form(form, image[part], outputs[part], keys, directions, dense=dense))
                start += len(part)
                continue
            watched: AbstractContextManager[dict[int, int]] = nullcontext({}) if start else _saved_storages()
            with watched as storages:
                nested = self._by_nesting(image[part], outputs[part], keys, directions, cotangents[part], dense=dense)
            found.append(nested.values)
            num_alive = max(num_alive, nested.num_connected)
            if start == 0:  # the first chain alone, to see how many can be afforded
                num_together = min(self.batch_size, max(1, GRAPH_BYTES // max(1, sum(storages.values()))))
            start += len(part)
        structural = np.arange(self.max_order + 1) >= num_alive
        return Draws(image.cpu().numpy(), torch.cat(found).cpu().numpy(), structural)

    def _by_closed_form(
        self, form: GnConvClosedForm, image: Tensor, i: Tensor, keys: Tensor, directions: Tensor, *, dense: bool
    ) -> Tensor:
        map_size = (self.x.shape[2], self.x.shape[3])
        if dense:
            D = form.dense(self.x, i, directions.unflatten(-1, map_size), image=image)
        else:
            cells = self._neighbours(form.field(i, map_size), i, keys)
            D = form.mixed(self.x, cells, directions, image=image)
        relative: Tensor = D.double().norm(dim=-1) / (self.spread * D.shape[-1] ** 0.5)
        return relative

    def _by_nesting(
        self, image: Tensor, outputs: Tensor, keys: Tensor, directions: Tensor, cotangents: Tensor, *, dense: bool
    ) -> NestedDerivatives:
        points, num = self.positions.flat(self.x[image]), self.max_order + 1
        if dense:
            along = along_everything(directions)
            return nested_derivatives(self.operator, points, outputs, cotangents, along, num)
        field = receptive_field(self.operator, points, outputs, cotangents)
        cells = self._neighbours(field, self.homes[outputs], keys)
        return nested_derivatives(self.operator, points, outputs, cotangents, along_cells(cells, directions), num)

    def _neighbours(self, field: Tensor, centres: Tensor, keys: Tensor) -> Tensor:
        """i, then K distinct others: those of the receptive field first, in the order of random keys. (N, K + 1)."""
        key = keys + field
        key[:, : self.positions.num_prefix] = -1.0  # below every other: never drawn
        key[torch.arange(len(centres)), centres] = 3.0  # above every other: i comes first
        return key.argsort(dim=1, descending=True)[:, : self.max_order + 1]


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
