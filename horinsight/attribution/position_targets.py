"""Which position an attribution is asked about: every form of `target` that captum takes, as queries on a map."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Target = int | tuple[int, ...] | Tensor | Sequence[int] | Sequence[tuple[int, ...]] | None


@dataclass(frozen=True)
class PositionTarget:
    """A query of one example.

    Attributes:
        row: on the map of the output.
        col: on it.
        channel: of the output, where one was named.
    """

    row: int
    col: int
    channel: int | None = None


def position_targets(
    target: Any, num_examples: int, size: tuple[int, int], num_channels: int | None = None
) -> list[PositionTarget]:
    """The query of each example.

    One for all examples: an int or a tensor of one (row * columns + column), a tuple (row, column), or a tuple
    (channel, row, column) as captum indexes an output (B, C, H, W). One for each: a list of ints or of tuples, or a
    tensor (B,).

    Args:
        target: as a caller of captum gives it.
        num_examples: B.
        size: (rows, columns) of the output's map.
        num_channels: C; None where channels cannot be named.

    Raises:
        ValueError: no target, another form, a list of another length, or a position or channel that is not there.

    Example:
        >>> position_targets([5, 0], 2, (2, 3))
        [PositionTarget(row=1, col=2, channel=None), PositionTarget(row=0, col=0, channel=None)]
        >>> position_targets((7, 1, 2), 1, (2, 3), num_channels=8)
        [PositionTarget(row=1, col=2, channel=7)]
    """
    if isinstance(target, Tensor) and target.dtype in (torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8):
        target = int(target.item()) if target.numel() == 1 else target.tolist() if target.ndim == 1 else target
    if isinstance(target, list):
        if len(target) != num_examples:
            raise ValueError(
                f"target expects a query for each of {num_examples} examples, got a list of {len(target)}."
            )
        return [_query(one, size, num_channels) for one in target]
    return [_query(target, size, num_channels)] * num_examples


def _query(target: Any, size: tuple[int, int], num_channels: int | None) -> PositionTarget:
    rows, columns = size
    whole = all(type(at) is int for at in target) if isinstance(target, tuple) else type(target) is int
    allowed = (2,) if num_channels is None else (2, 3)
    if not whole or (isinstance(target, tuple) and len(target) not in allowed):
        named = "" if num_channels is None else ", (channel, row, column)"
        got = f"a tensor {tuple(target.shape)}" if isinstance(target, Tensor) else repr(target)
        raise ValueError(
            f"target expects the query on the {rows}x{columns} map of the output: its number, (row, column){named}, or "
            f"a list of these, one an example; got {got}."
        )
    if isinstance(target, int):
        if not 0 <= target < rows * columns:
            raise ValueError(
                f"target expects a position from 0 to {rows * columns - 1} of the {rows}x{columns} map, got {target}."
            )
        return PositionTarget(*divmod(target, columns))
    *channel, row, col = target
    if not (0 <= row < rows and 0 <= col < columns):
        raise ValueError(
            f"target expects a row from 0 to {rows - 1} and a column from 0 to {columns - 1}, got {row}, {col}."
        )
    if channel and num_channels is not None and not 0 <= channel[0] < num_channels:
        raise ValueError(f"target expects a channel from 0 to {num_channels - 1}, got {channel[0]}.")
    return PositionTarget(row, col, channel[0] if channel else None)


def class_targets(target: Any, num_examples: int, num_classes: int) -> Tensor:
    """The class of each example, (B,), from an int, a list of ints or a tensor.

    captum indexes with a negative class silently, and gathers with one that is not there by an error of torch.

    Raises:
        ValueError: another form, a list of another length, or a class that is not there.

    Example:
        >>> class_targets(3, 2, 10).tolist()
        [3, 3]
    """
    given = target.tolist() if isinstance(target, Tensor) else target
    found = [given] * num_examples if isinstance(given, int) else list(given) if isinstance(given, list) else []
    found = found * num_examples if len(found) == 1 else found
    if len(found) != num_examples or not all(type(one) is int for one in found):
        raise ValueError(f"target expects a class, or one for each of {num_examples} images, got {target!r}.")
    wrong = [one for one in found if not 0 <= one < num_classes]
    if wrong:
        raise ValueError(f"target expects a class from 0 to {num_classes - 1}, got {wrong[0]}.")
    return torch.tensor(found, device="cpu")
