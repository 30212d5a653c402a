"""Mixing weights of mixers whose gates are held: rows of the affine map that is left, by backward passes."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from horinsight.cancellation import pause
from horinsight.capture import Call
from horinsight.mixers.mixer_registry import MixerFamily, family_of
from horinsight.mixers.operators import tensors_in
from horinsight.mixers.seen_calls import SeenCall
from horinsight.mixing.held_operator import HeldOperator, recorded
from horinsight.mixing.weights import MixingWeights
from horinsight.operators.call_arguments import arguments_by_image, filled, images_along, with_places
from horinsight.operators.position_order import PositionOrder

MAX_PASSES = 65536  # backward passes for one result
TOGETHER = 2**24  # numbers in the gradients of one batch of passes


@dataclass(frozen=True, eq=False)
class _Affine:
    """One image: leaf (1, M, C) tokens and what the held module makes of them, (1, N, C') tokens, with its graph."""

    leaf: Tensor
    output: Tensor
    constant: Tensor

    def backward_error(self) -> Tensor:
        """By how much Σ_ij u_i J_ij v_j, by a backward pass, is not u · (output - constant), for a random u.

        Relative to the product of the lengths of u and of the output.
        """
        if not self.output.requires_grad:
            return torch.zeros(())
        generator = torch.Generator("cpu").manual_seed(0)
        u = torch.randn(self.output.shape, generator=generator, device="cpu").to(self.output)
        (g,) = torch.autograd.grad(
            self.output, self.leaf, u, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        found, expected = (g * self.leaf.detach()).sum(), (u * (self.output.detach() - self.constant)).sum()
        error: Tensor = (found - expected).abs() / (u.norm() * self.output.detach().norm()).clamp(min=1e-30)
        return error

    def keeps_channels_apart(self) -> bool:
        """Whether output channel c answers to input channel c alone."""
        N, D = self.output.shape[1:]
        if self.leaf.shape[2] != D:
            return False
        if not self.output.requires_grad:
            return True
        generator = torch.Generator("cpu").manual_seed(1)
        weights = torch.randn(N, generator=generator, device="cpu").to(self.output)
        together = max(1, TOGETHER // (N * D + self.leaf.numel()))
        for start in range(0, D, together):
            pause()
            channels = list(range(start, min(start + together, D)))
            u = self.output.new_zeros(len(channels), 1, N, D)
            for row, channel in enumerate(channels):
                u[row, 0, :, channel] = weights
            g = self._gradients(u)
            answered = g[:, 0].abs().sum(1)  # (channels, C)
            answered[torch.arange(len(channels)), channels] = 0
            if bool(answered.any()):
                return False
        return True

    def _gradients(self, u: Tensor) -> Tensor:
        """(P, 1, M, C): backward passes of cotangents (P, 1, N, C'), together where every function knows how."""

        def gradient(cotangents: Tensor, *, batched: bool) -> Tensor:
            (found,) = torch.autograd.grad(
                self.output, self.leaf, cotangents, retain_graph=True, is_grads_batched=batched, allow_unused=True,
                materialize_grads=True,
            )  # fmt: skip
            return found

        try:
            return gradient(u, batched=True)
        except RuntimeError:  # a custom function's backward, which no batching rule is known for
            return torch.stack([gradient(one, batched=False) for one in u])

    def rows(self, queries: Sequence[int], *, channels: bool) -> Tensor:
        """(queries, C' or 1, C, M): derivatives of each output channel at each query, or of their sum."""
        N, D = self.output.shape[1:]
        M, C = self.leaf.shape[1:]
        cotangents = torch.eye(D).to(self.output) if channels else self.output.new_ones(1, D)
        found = self.output.new_zeros(len(queries), len(cotangents), C, M)
        if not self.output.requires_grad:
            return found
        pairs = [(q, c) for q in range(len(queries)) for c in range(len(cotangents))]
        together = max(1, TOGETHER // (N * D + M * C))
        for start in range(0, len(pairs), together):
            pause()
            part = pairs[start : start + together]
            u = self.output.new_zeros(len(part), 1, N, D)
            for row, (q, c) in enumerate(part):
                u[row, 0, queries[q]] = cotangents[c]
            g = self._gradients(u)
            for row, (q, c) in enumerate(part):
                found[q, c] = g[row, 0].T
        return found


@dataclass(frozen=True, eq=False, kw_only=True)
class HeldWeights(MixingWeights):
    """h_ij^c of a mixer with its gates held fixed.

    `values` are (B, C, H, W) of the map that is looked at; `offset` and `mixed` (B, C', rows, columns) of the output.
    Where each output channel answers to one input channel alone (`apart`), h_ij^c is that derivative, with its sign.
    Elsewhere c is the output channel, and h_ij^c the root of the sum of squares over the input channels.

    Attributes:
        value_size: (rows, columns) of the map that is looked at.
        apart: whether channels are kept apart.
        affine_error: by how much the held module's output is not the module's own, or not affine in its input, relative
            to the largest output.
        images: the held module, image by image.
        family: the kind of mixer that it is, where that is known.
        held: of the output's and the input's tokens, how many are before the map.
    """

    value_size: tuple[int, int]
    apart: bool
    affine_error: float
    images: tuple[_Affine, ...] = field(repr=False)
    family: MixerFamily | None = None
    held: tuple[int, int] = (0, 0)

    @cached_property
    def reconstruction_error(self) -> float:
        """`affine_error`: the identity, on the module's own output, with b what the held module makes of 0."""
        return self.affine_error

    @property
    def looked_at(self) -> tuple[int, int]:
        return self.value_size

    def declared(self) -> dict[str, str]:
        value = self.family.value if self.family is not None and self.family.value else "the mixer's input"
        mixed = "" if self.apart else "; of channels that are mixed the root of the sum of squares over input channels"
        held = "gates, weights by softmax or sigmoid, factors of activations, statistics of norms"
        return {"value": value + mixed, "held": (self.family.held if self.family is not None else "") or held}

    @property
    def num_channels(self) -> int:
        return self.mixed.shape[1]

    def _queries(self, queries: Sequence[int]) -> Iterator[Tensor]:
        """For each image (queries, C', M)."""
        passes = len(queries) * len(self.images) * (1 if self.apart else self.num_channels)
        if passes > MAX_PASSES:
            raise ValueError(
                f"Mixing weights of {len(queries)} queries take {passes} backward passes here, more than {MAX_PASSES}: "
                "ask for single queries (--query), a smaller image, or influence (--influence)."
            )
        for image in self.images:
            rows = image.rows([self.held[0] + query for query in queries], channels=not self.apart)
            rows = rows[..., self.held[1] :].detach()
            yield rows[:, 0] if self.apart else rows.square().sum(2).sqrt()

    def at(self, row: int, col: int) -> Tensor:
        found = torch.cat(list(self._queries([self.query(row, col)])))
        on_map: Tensor = found.unflatten(2, self.value_size)
        return on_map

    def channel_mean(self) -> Tensor:
        return torch.stack([rows.mean(1) for rows in self._queries(range(self.num_positions))])

    def absolute(self) -> Tensor:
        """Σ_c |h_ij^c|, (B, N, M)."""
        return torch.stack([rows.abs().sum(1) for rows in self._queries(range(self.num_positions))])

    def _dense(self) -> Tensor:
        return torch.stack([rows.movedim(0, 1) for rows in self._queries(range(self.num_positions))])

    def at_middle(self) -> tuple[Tensor, Tensor]:
        row, col = self.height // 2, self.width // 2
        query = self.query(row, col)
        sums = []
        for image in self.images:
            J = image.rows([self.held[0] + query], channels=True)[0]  # (C', C, M)
            sums.append((J * image.leaf[0].T).sum((1, 2)).detach() + image.constant[0, self.held[0] + query])
        return torch.stack(sums), self.mixed[:, :, row, col]

    def apply(self) -> Tensor:
        tokens = torch.cat([image.output.detach() - image.constant for image in self.images])[:, self.held[0] :]
        maps: Tensor = tokens.transpose(1, 2).unflatten(2, (self.height, self.width))
        return maps + self.offset


def held_weights_of_call(module: nn.Module, call: Call, seen: SeenCall, batch: int) -> HeldWeights:
    """Mixing weights of a mixer with its gates held, of any class.

    Args:
        module: the mixer, of a network that is lent in eval mode.
        call: its captured call, on a batch of images.
        seen: what was seen of that call on one image.
        batch: how many images there are.

    Raises:
        ValueError: its positions form no map, its gates cannot be told, or with them held it is not affine.
    """
    if seen.input is None or seen.output is None:
        raise ValueError(f"{type(module).__name__} does not lead from a map of positions to one.")
    entered = tensors_in((call.inputs, tuple(call.kwargs.values())))[seen.input_index]
    batch_axis = images_along(entered, seen.input_index, seen, batch) or 0
    source = PositionOrder.of(seen.input, batch_axis=batch_axis)
    target = PositionOrder.of(seen.output, batch_axis=batch_axis)
    expected = target.tokens(tensors_in(call.output)[seen.output_index].detach())
    images, errors = [], []
    for image, own in enumerate(arguments_by_image(call, seen, batch)):
        affine, error = _affine(module, call, seen, own, (source, target), expected[image : image + 1])
        images.append(affine)
        errors.append(error)
    first, constant = (torch.cat([getattr(one, name).detach() for one in images]) for name in ("leaf", "constant"))

    def on_map(tokens: Tensor, order: PositionOrder) -> Tensor:
        maps: Tensor = tokens[:, order.num_held :].transpose(1, 2).unflatten(2, order.size)
        return maps

    weights = HeldWeights(
        height=target.size[0],
        width=target.size[1],
        values=on_map(first, source),
        offset=on_map(constant, target),
        mixed=on_map(expected.to(constant), target),
        value_size=source.size,
        apart=False,
        affine_error=max(errors),
        images=tuple(images),
        family=family_of(module),
        held=(target.num_held, source.num_held),
    )
    return replace(weights, apart=_keeps_channels_apart(images))


def _affine(
    module: nn.Module,
    call: Call,
    seen: SeenCall,
    own: Sequence[Tensor],
    orders: tuple[PositionOrder, PositionOrder],
    expected: Tensor,
) -> tuple[_Affine, float]:
    """The held module on one image, and by how much it is none."""
    counted = iter(range(len(own)))
    places = with_places(call.inputs, counted), with_places(dict(call.kwargs), counted)
    wide = torch.promote_types(own[seen.input_index].dtype, torch.float32)

    def arguments(x: Tensor) -> tuple[Any, Any]:
        fresh = [x if tensor is own[seen.input_index] else tensor.clone() for tensor in own]
        return filled(places[0], fresh), filled(places[1], fresh)

    x = own[seen.input_index].detach().clone()
    given = arguments(x)
    known = list(zip(tensors_in(given), seen.labels, strict=False))
    family = family_of(module)
    gates = () if family is None else family.gates(module)
    script = recorded(module, given, known, deepcopy(seen.grids), gates=gates)
    with torch.inference_mode(False), torch.enable_grad():
        held = HeldOperator(module, arguments, x, script, seen.output_index)
        leaf = orders[0].tokens(own[seen.input_index].detach().clone()).requires_grad_()

        def tokens(z: Tensor) -> Tensor:
            return orders[1].tokens(held(orders[0].native(z).clone()))

        output = tokens(leaf)
        with torch.no_grad():
            constant, thrice = tokens(torch.zeros_like(leaf)), tokens(3 * leaf)  # twice would be exact bit for bit
    y = output.detach().to(wide)
    size, reach = expected.abs().amax(), torch.stack([thrice.abs().amax(), 2 * constant.abs().amax()]).amax()
    reproduced = (y - expected).abs().amax() / size.clamp(min=torch.finfo(wide).tiny)
    bent = (thrice - 3 * y + 2 * constant).abs().amax() / reach.clamp(min=torch.finfo(wide).tiny)
    affine = _Affine(leaf, output, constant.detach())
    return affine, float(torch.stack([reproduced, bent, affine.backward_error().to(y)]).amax())


def _keeps_channels_apart(images: Sequence[_Affine]) -> bool:
    """Whether each output channel answers to the input channel of its number alone, at every position of every image.

    Looked at with a random weight for each position, so that nothing cancels and no position is left out.
    """
    return all(image.keeps_channels_apart() for image in images)
