"""Weights that do not fit a model, in one line: what is missing, what is too much, and what to do."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

LISTED_KEYS = 20  # beyond this many a list of keys is written with ranges of numbers
FIRST_KEYS = 3  # of a list that is long even so
LONGEST_LIST = 120  # characters
LONGEST_NAME = 48

Shape = tuple[int, ...]


class CheckpointError(ValueError):
    """A file that holds no weights, or weights that do not fit. One line; the keys concerned are attributes as well.

    Attributes:
        missing: keys of the model that the file lacks.
        unexpected: keys of the file that the model lacks.
        misshapen: key → (shape in the file, shape in the model).
    """

    def __init__(
        self,
        message: str,
        *,
        missing: tuple[str, ...] = (),
        unexpected: tuple[str, ...] = (),
        misshapen: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] | None = None,
    ) -> None:
        super().__init__(message)
        self.missing = missing
        self.unexpected = unexpected
        self.misshapen = dict(misshapen or {})


def in_order(
    file: Mapping[str, Shape], model: Mapping[str, Shape], *, sorted_by_name: bool = False
) -> dict[str, str] | str:
    """The partners of tensors that only their order can match; the reason where it cannot.

    Args:
        file: name → shape of the file's, in its order.
        model: name → shape of the model's, in its order.
        sorted_by_name: whether the file keeps its tensors by name, so that their order says nothing.

    Returns:
        Name in the file → name in the model, or in words what speaks against it.

    Example:
        >>> in_order({"a.weight": (2, 3), "a.bias": (2,)}, {"fc.weight": (2, 3), "fc.bias": (2,)})
        {'a.weight': 'fc.weight', 'a.bias': 'fc.bias'}
        >>> in_order({"a.bias": (2,)}, {"fc.weight": (2,)})
        'tensor 1 of those left is a.bias (2), where the model has fc.weight (2)'
    """
    if sorted_by_name:
        return "a .safetensors file keeps its tensors sorted, so that their order says nothing"
    if len(file) != len(model):
        return f"{len(file)} of its tensors and {len(model)} of the model's match by no name"
    pairs = list(zip(file.items(), model.items(), strict=True))
    for place, ((key, shape), (target, wanted)) in enumerate(pairs, 1):
        if tuple(shape) != tuple(wanted) or key.rpartition(".")[2] != target.rpartition(".")[2]:
            return (
                f"tensor {place} of those left is {cut(key)} ({_size(shape)}), where the model has {cut(target)} "
                f"({_size(wanted)})"
            )
    return {key: target for (key, _), (target, _) in pairs}


def misfit(
    file: str,
    model: str,
    num_tensors: int,
    missing: tuple[str, ...],
    unexpected: tuple[str, ...],
    misshapen: Mapping[str, tuple[Shape, Shape]],
    *,
    agrees_in_order: bool,
) -> str:
    """What does not fit, in a line of at most some 600 characters.

    Args:
        file: its name.
        model: class of the model.
        num_tensors: in the file.
        missing: keys of the model that the file lacks.
        unexpected: keys of the file that the model lacks.
        misshapen: key → (shape in the file, shape in the model).
        agrees_in_order: whether the missing and the unexpected ones are partners by their order, see `in_order`.
    """
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing: {_some(missing)}")
    if unexpected:
        parts.append(f"{len(unexpected)} unexpected: {_some(unexpected)}")
    if misshapen:
        shapes = [f"{cut(key)} (file {_size(a)}, model {_size(b)})" for key, (a, b) in misshapen.items()]
        parts.append(f"{len(shapes)} of another shape: {_first(shapes)}")
    advice = ""
    classes = _classes_of_file(misshapen)
    if classes is not None:
        advice = f" Build the model with num_classes={classes} (--num-classes {classes})."
    elif any(key.startswith("decode_head.fpn_bottleneck.proj_in") for key in unexpected):
        advice = ' The file has a HorFPN: build the model with horfpn="conv" for 7x7, or "gf" for GF.'
    elif "decode_head.fpn_bottleneck.conv.weight" in unexpected:
        advice = " The file has no HorFPN: build the model without horfpn."
    elif any(key.endswith("complex_weight") for key in misshapen):
        advice = " Filters of another resolution are resized with resize_filters=True (--resize-filters)."
    elif unexpected and agrees_in_order:
        advice = (
            " The shapes of the missing and the unexpected agree in order: if they are the same network under other "
            "names, load them with rename_in_order=True (--rename-in-order)."
        )
    if not advice and num_tensors > len(unexpected):
        advice = " What fits is loaded with strict=False (--partial)."
    return f"{cut(file)} ({num_tensors} tensors) does not fit this {cut(model)}: {'; '.join(parts)}.{advice}"


def _classes_of_file(misshapen: Mapping[str, tuple[Shape, Shape]]) -> int | None:
    """How many classes the file's classifier has, where it differs from the model's in nothing else."""
    for key, (file, model) in misshapen.items():
        if key in ("head.weight", "decode_head.conv_seg.weight") or key.endswith(".fc_cls.weight"):
            background = int(key.endswith(".fc_cls.weight"))  # which is a class of a detector's
            return file[0] - background if file[1:] == model[1:] else None
    return None


def cut(name: str) -> str:
    """A name, shortened in the middle where it is long.

    Example:
        >>> len(cut("x" * 1000))
        48
    """
    half = (LONGEST_NAME - 1) // 2
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1 - half]}…{name[-half:]}"


def _size(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _some(keys: Iterable[str]) -> str:
    """All keys where they are short, written with ranges; else the first three and how many more."""
    text = listed(keys)
    return text if len(text) <= LONGEST_LIST else _first([cut(key) for key in keys])


def _first(words: list[str]) -> str:
    more = f" and {len(words) - FIRST_KEYS} more" if len(words) > FIRST_KEYS else ""
    return ", ".join(words[:FIRST_KEYS]) + more


def listed(keys: Iterable[str]) -> str:
    """Keys in one line; a long list is shortened, without loss, by writing ranges of numbers.

    Example:
        >>> listed(["head.bias", "head.weight"])
        'head.bias, head.weight'
        >>> listed([f"stages.2.{block}.gamma{which}" for block in range(18) for which in (1, 2)])
        'stages.2.[0-17].gamma1, stages.2.[0-17].gamma2'
    """
    keys = list(keys)
    if len(keys) <= LISTED_KEYS:
        return ", ".join(keys)
    rows: list[list[Any]] = [re.split(r"(?<=\.)(\d+)(?=\.)", key) for key in keys]
    for column in range(1, max(map(len, rows)), 2):
        merged: dict[tuple[Any, ...], list[int]] = {}
        for row in rows:
            if column < len(row):
                merged.setdefault((*row[:column], None, *row[column + 1 :]), []).append(int(row[column]))
            else:
                merged[tuple(row)] = []
        rows = [[_ranges(found) if part is None else part for part in row] for row, found in merged.items()]
    return ", ".join("".join(row) for row in rows)


def _ranges(numbers: list[int]) -> str:
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    text = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
    return text if text.isdigit() else f"[{text}]"
