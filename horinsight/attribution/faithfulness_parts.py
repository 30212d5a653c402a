"""Results of some pictures each, put together: an interrupted run, or many processes, are one code path."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from horinsight.attribution.faithfulness_results import Faithfulness
from horinsight.result_fields import fields_of, same

BY_PICTURE = ("insertion", "deletion", "pictures", "targets", "provenance")


def merged_faithfulness(parts: Sequence[Faithfulness]) -> Faithfulness:
    """One result of several, over other pictures each, in the order of the pictures' numbers.

    Args:
        parts: as `faithfulness_by_picture` gives them, or read from files; at least one.

    Raises:
        ValueError: nothing to merge, parts that were measured otherwise, or a picture that is in two of them.
    """
    if not parts:
        raise ValueError("merged_faithfulness expects at least one result, got none.")
    first = fields_of(parts[0])
    for part in parts[1:]:
        other = [
            name for name, value in fields_of(part).items() if name not in BY_PICTURE and not same(value, first[name])
        ]
        if _model_of(part) != _model_of(parts[0]):
            other.append("provenance")
        if other:
            raise ValueError(
                f"merged_faithfulness expects parts that were measured alike, got other {', '.join(other)}."
            )
    pictures = np.concatenate([part.pictures for part in parts])
    order = np.argsort(pictures, kind="stable")
    if len(np.unique(pictures)) < len(pictures):
        raise ValueError("merged_faithfulness expects each picture in one part only, got one in two: leave one out.")
    origin = parts[0].provenance
    if origin is not None:
        names = [name for part in parts if part.provenance for name in part.provenance.images]
        in_order = tuple(names[place] for place in order) if len(names) == len(order) else tuple(names)
        origin = replace(origin, images=in_order)
    return replace(
        parts[0],
        insertion=np.concatenate([part.insertion for part in parts], axis=2)[:, :, order],
        deletion=np.concatenate([part.deletion for part in parts], axis=2)[:, :, order],
        pictures=pictures[order],
        targets=np.concatenate([part.targets for part in parts])[order],
        provenance=origin,
    )


def _model_of(part: Faithfulness) -> tuple[str, str] | None:
    return None if part.provenance is None else (part.provenance.model, part.provenance.weights_sha256)
