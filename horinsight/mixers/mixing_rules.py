"""Operators in which values meet: pointwise functions, reductions, products, norms, Fourier transforms, recurrences."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from horinsight.mixers.labels import POOLED, Labels
from horinsight.mixers.meetings import gathered, met, product
from horinsight.mixers.operators import Operation, Outcome, Rule, words

PRODUCTS = frozenset({"mul", "addcmul", "div", "true_divide", "addcdiv", "multiply", "divide", "pow"})


def _axes(labels: Labels, axes: Sequence[int] | int | None) -> tuple[int, ...]:
    ndim = len(labels.shape)
    if axes is None or (not isinstance(axes, int) and not len(axes)):
        return tuple(range(ndim))
    return tuple(axis % ndim for axis in ([axes] if isinstance(axes, int) else axes)) if ndim else ()


def pointwise(operation: Operation) -> Outcome:
    """Elements at the same place meet."""
    several = [labels for tensor in operation.tensors() if (labels := operation.labels_of(tensor)) is not None]
    output = operation.output[0] if isinstance(operation.output, tuple | list) else operation.output
    labels, how = met(several, output.shape, operation.grids)
    if not how:
        return Outcome(labels)
    factors = operation.arguments[1:3] if operation.name.startswith("addc") else operation.arguments
    if operation.name in PRODUCTS and sum(operation.labels_of(factor) is not None for factor in factors) > 1:
        return Outcome(labels, "gate")
    return Outcome(labels, "shift" if how == "cells" else "bias")


def _squeezed(labels: Labels, axes: Sequence[int], shape: Sequence[int]) -> Labels | None:
    """The labels without axes of length 1, if the output has lost them."""
    planes = labels.planes
    if len(shape) < len(labels.shape):
        planes = tuple(plane.squeeze(tuple(axes)) for plane in planes)
    return Labels.from_planes(planes, shape)


def reduced(operation: Operation) -> Outcome:
    """Sums, means, maxima, variances, norms over axes."""
    labels = operation.labels_of(operation.arguments[0])
    assert labels is not None
    place, name = (2, "dim") if operation.name in ("linalg_vector_norm", "norm") else (1, "dim")
    given = operation.argument(place, name)
    if given is not None and not isinstance(given, list | tuple | int):
        given = None  # sum(x, dtype) and the like
    axes = _axes(labels, given)
    left, how = gathered(labels, axes)
    output = operation.output[0] if isinstance(operation.output, tuple | list) else operation.output
    coarse = operation.grids.thinned(left.cells) if how == "part" else None
    left = left if coarse is None else Labels(left.shape, coarse)
    result = _squeezed(left, axes, output.shape)
    event = {"part": "pooling", "partners": "attention", "pooled": "bias"}.get(how, "")
    return Outcome(result, event, "pooling" if how == "all" else "")


def selected(operation: Operation) -> Outcome:
    """sort and topk along an axis: what comes out can be from anywhere along it."""
    labels = operation.labels_of(operation.arguments[0])
    assert labels is not None
    axis = operation.argument(2 if operation.name == "topk" else 1, "dim", -1)
    left, how = gathered(labels, _axes(labels, int(axis)))
    result = Labels.of(left.cells, shape=operation.output[0].shape)
    return Outcome(result, "sampling" if how in ("part", "partners") else "", "pooling" if how == "all" else "")


def normalised(operation: Operation) -> Outcome:
    """softmax along an axis: scores of pairs are weights then; bare positions depend on one another."""
    labels = operation.labels_of(operation.arguments[0])
    assert labels is not None
    _, how = gathered(labels, _axes(labels, operation.argument(1, "dim", -1)))
    return Outcome(labels, {"all": "softmax", "part": "window_softmax", "partners": "weights"}.get(how, ""))


def scanned(operation: Operation) -> Outcome:
    """Running sums along an axis."""
    labels = operation.labels_of(operation.arguments[0])
    assert labels is not None
    _, how = gathered(labels, _axes(labels, int(operation.argument(1, "dim"))))
    return Outcome(labels, "recurrence" if how in ("all", "part") else "")


def normed(operation: Operation) -> Outcome:
    """Layer, group, batch and root-mean-square norms: an event that makes no mixer."""
    labels = operation.labels_of(operation.arguments[0])
    outputs = operation.output if isinstance(operation.output, tuple | list) else (operation.output,)
    if labels is None:
        return Outcome(None)
    shape = labels.shape
    if operation.name == "native_group_norm":
        axes: tuple[int, ...] = tuple(range(1, len(shape)))
    elif operation.name.startswith(("native_layer_norm", "_fused_rms_norm", "rms_norm")):
        axes = tuple(range(len(shape) - len(operation.argument(1, "normalized_shape")), len(shape)))
    else:
        axes = ()  # batch norm in eval mode
    _, how = gathered(labels, axes)
    return Outcome([labels] + [None] * (len(outputs) - 1), "norm" if how in ("all", "part") else "")


def multiplied(operation: Operation) -> Outcome:
    """mm, bmm, addmm, ...: products of matrices."""
    factors = [value for value in operation.arguments if isinstance(value, Tensor)]
    added = factors.pop(0) if len(factors) == 3 else None
    a, b = (operation.labels_of(factor) for factor in factors)
    if factors[1].ndim == 1 and b is not None:  # a vector is a column
        b = Labels((*b.shape, 1), *(plane.unsqueeze(-1) for plane in b.planes))
    if factors[0].ndim == 1 and a is not None:
        a = Labels((1, *a.shape), *(plane.unsqueeze(0) for plane in a.planes))
    rows = () if factors[0].ndim == 1 else factors[0].shape[:-1]
    columns = () if factors[1].ndim == 1 else factors[1].shape[-1:]
    shape = (*rows, *(columns or (1,))) if rows else (1, *(columns or (1,)))
    labels, event, waits = product(a, b, shape, operation.grids) if a or b else (None, "", "")
    if labels is not None and tuple(operation.output.shape) != tuple(shape):
        labels = labels.moved(lambda plane: plane.reshape(operation.output.shape))
    if event in ("merge", "linear", "patchify") and labels is not None:
        coarse = operation.grids.thinned(labels.cells)
        labels = labels if coarse is None else Labels(labels.shape, coarse)
    bias = None if added is None else operation.labels_of(added)
    if bias is not None and labels is not None:
        labels, how = met([labels, bias], operation.output.shape, operation.grids)
        event = event or {"": "", "cells": "shift", "pooled": "bias"}[how]
    return Outcome(labels if labels is not None else bias, event, waits)


def attended(operation: Operation) -> Outcome:
    """Fused attention: what its two products do."""
    q, k, v = (operation.labels_of(tensor) for tensor in operation.arguments[:3])
    query, key, value = operation.arguments[:3]
    across = None if k is None else k.moved(lambda plane: plane.transpose(-1, -2))
    scores = (*query.shape[:-1], key.shape[-2])
    pairs = product(q, across, scores, operation.grids)[0] if q or across else None
    output = operation.output[0] if isinstance(operation.output, tuple | list) else operation.output
    shape = (*query.shape[:-1], value.shape[-1])
    labels, event, waits = product(pairs, v, shape, operation.grids) if pairs or v else (None, "", "")
    if pairs is not None and waits:  # a query that is no position (a class token) asks all of them
        event = "softmax"
    outputs = len(operation.output) if isinstance(operation.output, tuple | list) else 1
    if labels is not None and tuple(output.shape) != labels.shape:
        labels = labels.moved(lambda plane: plane.reshape(output.shape))
    return Outcome([labels] + [None] * (outputs - 1), event, waits, before="weights" if pairs is not None else "")


def distances(operation: Operation) -> Outcome:
    """cdist: a number for each pair."""
    a, b = (operation.labels_of(tensor) for tensor in operation.arguments[:2])
    across = None if b is None else b.moved(lambda plane: plane.transpose(-1, -2))
    labels, event, waits = product(a, across, operation.output.shape, operation.grids)
    return Outcome(labels, event, waits)


def transformed(operation: Operation) -> Outcome:
    """Fourier transforms along axes."""
    labels = operation.labels_of(operation.arguments[0])
    assert labels is not None
    axes = _axes(labels, operation.argument(1, "dim"))
    left, how = gathered(labels, axes)
    result = Labels.from_planes(left.planes, operation.output.shape)
    return Outcome(result, "fft" if how in ("part", "partners") else "", "fft" if how == "all" else "")


def recurred(operation: Operation) -> Outcome:
    """A fused recurrent layer over a sequence (steps, batch, channels)."""
    labels = operation.labels_of(operation.arguments[0])
    outputs = operation.output
    if labels is None:
        return Outcome(None)
    first = Labels.of(labels.cells.amax(-1, keepdim=True), shape=outputs[0].shape)
    whole = gathered(labels, tuple(range(len(labels.shape))))[1]
    last = Labels.of(labels.cells.new_full((1,) * outputs[1].ndim, POOLED), shape=outputs[1].shape) if whole else None
    return Outcome([first] + [last] * (len(outputs) - 1), "recurrence" if whole else "")


def glu(operation: Operation) -> Outcome:
    """Half of an axis gates the other half."""
    labels = operation.labels_of(operation.arguments[0])
    assert labels is not None
    axis = int(operation.argument(1, "dim", -1))
    halves = [labels.moved(lambda plane: plane.chunk(2, axis)[0]), labels.moved(lambda plane: plane.chunk(2, axis)[1])]
    result, how = met([half for half in halves if half is not None], operation.output.shape, operation.grids)
    return Outcome(result, "gate" if how else "")


MIXING_RULES: dict[str, Rule] = {
    "glu": glu,
    **dict.fromkeys(("_euclidean_dist", "_cdist_forward", "cdist"), distances),
    **dict.fromkeys(
        words(
            "hardswish hardsigmoid hardtanh relu6 native_dropout dropout where masked_fill addcmul addcdiv lerp clamp "
            "leaky_relu gelu silu glu_ prelu _prelu_kernel rrelu rrelu_with_noise threshold softplus maximum "
            "minimum complex polar"
        ),
        pointwise,
    ),
    **dict.fromkeys(
        words(
            "sum mean amax amin var std var_mean std_mean prod logsumexp linalg_vector_norm norm max min aminmax "
            "argmax argmin any all median nanmedian mode nansum count_nonzero"
        ),
        reduced,
    ),
    **dict.fromkeys(("topk", "sort", "argsort", "kthvalue"), selected),
    **dict.fromkeys(("_softmax", "_safe_softmax", "_log_softmax"), normalised),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp"), scanned),
    **dict.fromkeys(
        words(
            "native_layer_norm native_group_norm native_batch_norm _native_batch_norm_legit _fused_rms_norm rms_norm "
            "_native_batch_norm_legit_no_training cudnn_batch_norm miopen_batch_norm _batch_norm_with_update "
            "batch_norm _batch_norm_no_update"
        ),
        normed,
    ),
    **dict.fromkeys(words("mm bmm addmm baddbmm addbmm mv dot vdot addmv _addmm_activation matmul"), multiplied),
    **dict.fromkeys(
        words(
            "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
            "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention scaled_dot_product_attention "
            "_scaled_dot_product_fused_attention_overrideable _scaled_dot_product_attention_math"
        ),
        attended,
    ),
    **dict.fromkeys(("_fft_r2c", "_fft_c2r", "_fft_c2c"), transformed),
    **dict.fromkeys(("mkldnn_rnn_layer", "_cudnn_rnn", "lstm", "gru", "rnn_tanh", "rnn_relu"), recurred),
}
