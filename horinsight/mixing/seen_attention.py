"""Attention of any class: the products in which scores of pairs multiply values, found by what they are made of.

A captured call of a mixer is run once more, image by image, while every element of every tensor knows which position it
stands for (`listened`). Where a matrix whose elements belong to pairs, query and key, multiplies something that lies
along the keys, that is p = A v, and A, v and p are there to be read. The identity is then checked on the module's own
output: it is run a last time with Σ_j h v + b, put together from the weights as they are reported, in place of p.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from horinsight.capture import Call
from horinsight.mixers.labels import Grids, Labels
from horinsight.mixers.operators import tensors_in
from horinsight.mixers.seen_calls import SeenCall
from horinsight.mixers.watch import SeenOperator, listened
from horinsight.mixing.pair_weights import PairWeights
from horinsight.operators.call_arguments import arguments_by_image, filled, of_image, with_places
from horinsight.operators.open_attention import OpenAttention
from horinsight.torch_private import DispatchMode

_PAIRED = ("attention", "window_attention")


@dataclass(frozen=True, eq=False)
class _Product:
    """One product of pairs and values of one image, in groups of positions.

    Attributes:
        name, number: of the operator, and which of its calls in the run it is.
        attention: (G, heads, N, M).
        values: (G, heads, M, d).
        mixed: (G, heads, N, d).
        queries, keys: (G, N) and (G, M), labels.
        order: (b,) where each matrix of the batch that was multiplied went, group by group.
        transposed: whether values came first, (d, M) @ (M, N).
        shape: of the operator's output.
    """

    name: str
    number: int
    attention: Tensor
    values: Tensor
    mixed: Tensor
    queries: Tensor
    keys: Tensor
    order: Tensor
    transposed: bool
    shape: torch.Size

    def output(self, mixed: Tensor) -> Tensor:
        """The operator's output of (G, heads, N, d)."""
        flat = mixed.flatten(0, 1)
        back = torch.empty_like(flat)
        back[self.order] = flat
        return (back.transpose(1, 2) if self.transposed else back).reshape(self.shape)


def attention_of_call(module: nn.Module, call: Call, seen: SeenCall, batch: int) -> PairWeights:
    """Mixing weights of a mixer in which scores of pairs multiply values.

    Args:
        module: the mixer, of a network that is lent in eval mode.
        call: its captured call, on a batch of images.
        seen: what was seen of that call on one image.
        batch: how many images there are.

    Raises:
        ValueError: no such product, or several on different maps.
    """
    output = tensors_in(call.output)[seen.output_index]
    found = [
        _of_image(module, call, seen, own, partial(_like, output, image=image, batch=batch))
        for image, own in enumerate(arguments_by_image(call, seen, batch))
    ]
    first = found[0]
    stacked: dict[str, Tensor] = {
        name: torch.cat([getattr(weights, name) for weights in found])
        for name in ("attention", "values", "offset", "mixed")
    }
    return PairWeights(
        height=first.height,
        width=first.width,
        query_cells=first.query_cells,
        key_cells=first.key_cells,
        value_size=first.value_size,
        output_error=max(weights.output_error for weights in found),
        **stacked,
    )


def _like(output: Tensor, like: Tensor, *, image: int, batch: int) -> Tensor:
    """What an output of a batch has of one image, whose own output would be shaped like this."""
    axes = [axis for axis, (n, one) in enumerate(zip(output.shape, like.shape, strict=True)) if n != one]
    return of_image(output, axes[0] if axes else None, image, batch)


def _of_image(
    module: nn.Module, call: Call, seen: SeenCall, tensors: Sequence[Tensor], expected: Callable[[Tensor], Tensor]
) -> PairWeights:
    counted = iter(range(len(tensors)))
    places = with_places(call.inputs, counted), with_places(dict(call.kwargs), counted)

    def arguments() -> tuple[list[Tensor], tuple[tuple[Any, ...], Mapping[str, Any]]]:
        fresh = [tensor.clone() for tensor in tensors]  # which the module may change in place
        for index, tensor in enumerate(tensors):
            fresh[index] = next(fresh[i] for i in range(index + 1) if tensors[i] is tensor or i == index)
        return fresh, (filled(places[0], fresh), filled(places[1], fresh))

    products: list[_Product] = []

    def listener(operator: SeenOperator) -> None:
        if operator.event in _PAIRED:
            product = _product(operator)
            if product is not None:
                products.append(product)

    grids = deepcopy(seen.grids)
    fresh, given = arguments()
    with OpenAttention():
        listened(module, given, list(zip(fresh, seen.labels, strict=False)), grids, listener)
    if not products:
        raise ValueError(
            f"{type(module).__name__} multiplies no scores of pairs of positions with values, so it has no weights of "
            "an attention matrix."
        )
    weights = _together(products, grids)
    numbered = [(product.name, product.number) for product in products]
    replaced = dict(zip(numbered, _outputs(products, weights), strict=True))
    _, given = arguments()
    with torch.inference_mode(False), torch.no_grad(), OpenAttention(), _Replaced(replaced):
        again = module.forward(*given[0], **given[1])
    rebuilt = tensors_in(again)[seen.output_index]
    return replace(weights, output_error=_difference(expected(rebuilt), rebuilt))


def _difference(whole: Tensor, again: Tensor) -> float:
    """By how much two outputs differ, relative to the largest value of the first."""
    largest, difference = float(whole.abs().amax()), float((whole.double() - again.double()).abs().amax())
    return difference / largest if largest else difference


def _product(operator: SeenOperator) -> _Product | None:
    """The product as a batch of matrices times values; None for another way to sum over keys."""
    factors = [value for value in operator.arguments if isinstance(value, Tensor)][-2:]
    if len(factors) < 2 or operator.name not in ("bmm", "mm", "matmul"):
        return None
    a, b = (factor if factor.ndim == 3 else factor[None] for factor in factors)
    output = operator.output if operator.output.ndim == 3 else operator.output[None]
    labels = [operator.labels.get(id(factor)) for factor in factors]
    transposed = labels[0] is None or labels[0].partners is None
    pairs = labels[1] if transposed else labels[0]
    if pairs is None or pairs.partners is None:
        return None
    if transposed:
        a, b, output = b.transpose(1, 2), a.transpose(1, 2), output.transpose(1, 2)
    queries, keys = _sides(pairs, a.shape, transposed=transposed)
    _, group = torch.cat([queries, keys], 1).unique(dim=0, return_inverse=True)
    order = group.argsort(stable=True)
    counts = torch.bincount(group)
    if len(counts.unique()) > 1:
        return None
    heads = int(counts[0])

    def grouped(x: Tensor) -> Tensor:
        parts: Tensor = x[order].unflatten(0, (-1, heads))
        return parts

    return _Product(
        name=operator.name,
        number=operator.number,
        attention=grouped(a),
        values=grouped(b),
        mixed=grouped(output),
        queries=queries[order][::heads],
        keys=keys[order][::heads],
        order=order,
        transposed=transposed,
        shape=operator.output.shape,
    )


def _sides(pairs: Labels, shape: torch.Size, *, transposed: bool) -> tuple[Tensor, Tensor]:
    """The labels of queries, (b, N), and of keys, (b, M): keys are what the product sums over."""
    assert pairs.partners is not None
    planes = []
    for plane in (pairs.cells, pairs.partners):
        whole = plane if plane.ndim == 3 else plane.reshape((1,) * (3 - plane.ndim) + tuple(plane.shape))
        planes.append(whole.transpose(1, 2) if transposed else whole)
    key, query = planes if planes[0].shape[2] > 1 else planes[::-1]
    b, N, M = shape
    return query[..., 0].expand(b, N), key[:, 0].expand(b, M)


def _together(products: Sequence[_Product], grids: Grids) -> PairWeights:
    """One result of all products of a module: heads one after the other.

    Raises:
        ValueError: they are on different maps.
    """
    first = products[0]
    for other in products[1:]:
        same = torch.equal(first.queries, other.queries) and torch.equal(first.keys, other.keys)
        if not same or first.values.shape[-1] != other.values.shape[-1]:
            raise ValueError(
                f"{len(products)} products of scores and values on different maps, or of different widths, have no "
                "mixing weights in common: take influence instead (--influence)."
            )
    value_size, key_cells = _cells(first.keys, grids)
    query_size, query_cells = _cells(first.queries, grids)
    asked = query_cells[query_cells >= 0]
    if len(asked.unique()) < len(asked):  # queries from outside, the same for each window
        if first.queries.shape != first.keys.shape:
            raise ValueError(
                "Several groups of positions share the queries of this attention, which do not say whose they are: "
                "take influence instead (--influence)."
            )
        query_size, query_cells = value_size, key_cells
    attention, values, mixed = (
        torch.cat([getattr(product, name) for product in products], 1)[None]
        for name in ("attention", "values", "mixed")
    )
    wide = torch.promote_types(attention.dtype, torch.float32)
    attention, values, mixed = (x.detach().to(wide) for x in (attention, values, mixed))
    beside = attention.masked_fill((key_cells >= 0)[None, :, None, None], 0)
    return PairWeights(
        height=query_size[0],
        width=query_size[1],
        values=values,
        offset=beside @ values,
        mixed=mixed,
        attention=attention,
        query_cells=query_cells,
        key_cells=key_cells,
        value_size=value_size,
        output_error=0.0,
    )


def _cells(labels: Tensor, grids: Grids) -> tuple[tuple[int, int], Tensor]:
    coarse = grids.thinned(labels)
    labels = labels if coarse is None else coarse
    size = grids.size_of(labels)
    if size is None:
        raise ValueError(
            "The queries or the keys of this attention are positions of no one map: take influence instead "
            "(--influence)."
        )
    rows, columns = grids.rows_and_columns(labels, size)
    return size, torch.where(rows < 0, -1, rows * size[1] + columns)


def _outputs(products: Sequence[_Product], weights: PairWeights) -> list[Tensor]:
    """What each product would put out, put together from the weights on the map and the values by cell."""
    by_cell = weights.values.new_zeros(1, weights.num_channels, weights.num_values, weights.values.shape[-1])
    inside = weights.key_cells >= 0
    for group, keys in enumerate(weights.key_cells):
        by_cell[:, :, keys[inside[group]]] = weights.values[:, group][:, :, inside[group]]
    gathered = by_cell[:, :, weights.key_cells.clamp(min=0)].permute(0, 2, 1, 3, 4)  # a cell has one value everywhere
    on_map = weights.attention.masked_fill(~inside[None, :, None, None], 0)
    rebuilt = (on_map @ gathered + weights.offset)[0]
    parts = rebuilt.split([product.attention.shape[1] for product in products], 1)
    return [product.output(part.to(product.mixed.dtype)) for product, part in zip(products, parts, strict=True)]


class _Replaced(DispatchMode):
    """Gives other results in place of those of some operators, by their name and the number of the call."""

    def __init__(self, replaced: Mapping[tuple[str, int], Tensor]) -> None:
        super().__init__()
        self._replaced = replaced
        self._num_called: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func._schema.name.split("::")[-1]
        self._num_called[name] += 1
        other = self._replaced.get((name, self._num_called[name]))
        return func(*args, **(kwargs or {})) if other is None else other
