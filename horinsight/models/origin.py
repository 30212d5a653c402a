"""Where the weights of a model come from, and whether they still are those: kept with a fingerprint of their values.

The fingerprint has a checksum of each tensor of the state dict, as it is and as it would be in float16 and in bfloat16.
So it follows the values wherever the model goes (copies, pickles, devices), tells a conversion, which leaves nothing
but rounding, from a change, and names what was changed.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from horinsight.description import stating_parts, unwrapped, weighted_part

ROUNDED = (torch.float16, torch.bfloat16)
NAMED_CHANGES = 3


@dataclass(frozen=True)
class WeightsOrigin:
    """Where the weights of a model come from: in words, and whether they are trained (None when nobody said).

    Attributes:
        source: in words.
        trained: True, False, or None.
        fingerprint: of the values that this is said of; None where it was never tied to a model.
    """

    source: str
    trained: bool | None
    fingerprint: "Mapping[str, _Checksums] | None" = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class _Checksums:
    """Of one entry of a state dict: as it is, and rounded to each dtype of `ROUNDED` where that may be asked."""

    dtype: str
    exact: int
    rounded: tuple[int, ...] = ()


def set_weights_origin(model: nn.Module, origin: WeightsOrigin) -> None:
    """Write down where the weights that a model has now come from, for every result that is computed with it."""
    network = weighted_part(model)
    kept = replace(origin, fingerprint={name: _checksums(value) for name, value in network.state_dict().items()})
    network.weights_origin = kept  # type: ignore[assignment]


def weights_origin(model: nn.Module) -> WeightsOrigin:
    """Where the weights that a model has now come from, as its builder or `load_checkpoint` wrote it.

    Args:
        model: in a wrapper it is the model inside that is asked, and the answer is about its weights.

    Returns:
        "unknown" where nobody wrote it. Where values were changed since (loaded, trained, edited, the head replaced),
        the source names them, and whether they are trained is not known. Another dtype is named as a conversion.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> set_weights_origin(model, WeightsOrigin("drawn by hand", trained=False))
        >>> weights_origin(model.double()).source
        'drawn by hand, converted to float64'
        >>> _ = nn.init.zeros_(model.bias)
        >>> weights_origin(model).source
        'drawn by hand, changed since: bias'
    """
    parts = stating_parts(model, "weights_origin")
    unknown = WeightsOrigin("unknown", trained=None)
    if len(parts) != 1 or not isinstance(parts[0].weights_origin, WeightsOrigin):
        return unknown
    origin = _now(parts[0].weights_origin, parts[0].state_dict())
    inside = {id(weight) for weight in parts[0].parameters()}
    others = [name for name, weight in unwrapped(model).named_parameters() if id(weight) not in inside]
    return replace(_with(origin, "of unknown origin", others), fingerprint=None)


def _now(origin: WeightsOrigin, state: Mapping[str, Any]) -> WeightsOrigin:
    then = origin.fingerprint
    if then is None:
        return origin
    changed = [*(name for name in then if name not in state), *(name for name in state if name not in then)]
    converted = set()
    for name, kept in then.items():
        dtype = _kept_in(kept, state[name]) if name in state else None
        if dtype is not None and dtype != kept.dtype:
            converted.add(dtype)
        elif dtype is None and name in state:
            changed.append(name)
    if converted and not changed:
        return replace(origin, source=f"{origin.source}, converted to {' and '.join(sorted(converted))}")
    return _with(origin, "changed since", changed)


def _with(origin: WeightsOrigin, what: str, names: list[str]) -> WeightsOrigin:
    if not names:
        return origin
    few = ", ".join(names[:NAMED_CHANGES])
    rest = f" and {len(names) - NAMED_CHANGES} more" if len(names) > NAMED_CHANGES else ""
    return replace(origin, source=f"{origin.source}, {what}: {few}{rest}", trained=None)


def _kept_in(kept: _Checksums, value: Any) -> str | None:
    """The dtype that the values which were kept are in now: their own, or that of a conversion; None for others.

    float32 → float16 → float32 is named by its narrowest: "float16".
    """
    now = _checksums(value, rounded=False)
    if now.exact == kept.exact:
        return now.dtype
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return None
    for dtype, checksum in zip(ROUNDED, kept.rounded, strict=False):
        narrow = value.to(dtype)
        if torch.equal(narrow.to(value.dtype), value) and _checksum(narrow) == checksum:
            return _name(dtype)
    return None


def _checksums(value: Any, *, rounded: bool = True) -> _Checksums:
    if not isinstance(value, Tensor):  # packed parameters of quantised layers
        return _Checksums(type(value).__name__, _checksum(value))
    if value.is_meta:
        return _Checksums(_name(value.dtype), 0)
    floating = value.is_floating_point() and not value.is_quantized
    exact = _checksum(_widest(value) if floating else value)
    narrow = tuple(_checksum(value.to(dtype)) for dtype in ROUNDED) if rounded and floating else ()
    return _Checksums(_name(value.dtype), exact, narrow)


def _widest(value: Tensor) -> Tensor:
    """Values that fit into float32 in float32, so that a conversion to float64 and back is none."""
    if value.dtype in ROUNDED:
        return value.float()
    if value.dtype == torch.float64 and torch.equal(value.float().double(), value):
        return value.float()
    return value


def _checksum(value: Any) -> int:
    checksum = zlib.crc32(repr(tuple(value.shape)).encode()) if isinstance(value, Tensor) else 0
    for piece in state_bytes(value):
        checksum = zlib.crc32(piece, checksum)
    return checksum


def state_bytes(value: Any) -> list[Any]:
    """What an entry of a state dict is made of, as bytes: a tensor's numbers, also quantised ones; else its parts."""
    if isinstance(value, tuple | list):
        return [piece for part in value for piece in state_bytes(part)]
    if not isinstance(value, Tensor):
        return [repr(value).encode()]
    value = value.detach()
    if value.is_quantized:
        scales = (
            (value.q_scale(), value.q_zero_point())
            if value.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric)
            else (value.q_per_channel_scales(), value.q_per_channel_zero_points())
        )
        return [*state_bytes(value.int_repr()), *state_bytes(scales)]
    numbers = value.cpu().contiguous().flatten().view(torch.uint8).numpy()
    return [np.ascontiguousarray(numbers).data]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
