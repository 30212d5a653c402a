"""The families of spatial mixers whose kind is known: one file each, and a door for a user's own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn


def _no_parts(module: nn.Module) -> Sequence[nn.Module]:
    return ()


@dataclass(frozen=True)
class MixerFamily:
    """One kind of spatial mixer.

    Attributes:
        kind: its name in lists and tables, such as "window_attention".
        recognises: whether a module is one. It is asked of every module that is called, so it looks at the class or at
            attributes and computes nothing.
        order: how many neighbours the design lets act jointly with a position, as the paper counts (§3.1): n for
            gⁿConv, 2 for self-attention, 1 for squeeze-and-excitation, 0 for a convolution; None where that is open.
        gates: parts of a module whose outputs mixing weights hold fixed, beside what is held in any mixer (softmaxes,
            norms, factors of activations): for products of two features of which neither looks like a gate.
        value: what is mixed, in words, for the results; by how the weights were found where it is empty.
        held: likewise what is held fixed.
    """

    kind: str
    recognises: Callable[[nn.Module], bool]
    order: Callable[[nn.Module], int | None]
    gates: Callable[[nn.Module], Sequence[nn.Module]] = _no_parts
    value: str = ""
    held: str = ""


def is_named(module: nn.Module, names: frozenset[str]) -> bool:
    """Whether a module's class, or one that it derives from, has one of these full names; none of them is imported.

    Example:
        >>> is_named(nn.Linear(1, 1), frozenset({"torch.nn.modules.linear.Linear"}))
        True
    """
    return any(f"{kind.__module__}.{kind.__qualname__}" in names for kind in type(module).__mro__)


_FAMILIES: list[MixerFamily] = []
_changes = itertools.count(1)
_version = 0


def registry_version() -> int:
    """A number that changes with every family that is entered or taken out."""
    return _version


def _changed() -> None:
    global _version
    _version = next(_changes)


def register_mixer(family: MixerFamily) -> MixerFamily:
    """Enter a family of mixers: modules that it recognises are found as one mixer of its kind, with all they contain.

    The family that was entered last is asked first, so that a user's own comes before ours.

    Args:
        family: how the kind is recognised, and its design order.

    Returns:
        The family itself.

    Raises:
        ValueError: there is a family of this kind.

    Example:
        >>> class Shuffle(nn.Module):
        ...     pass
        >>> family = register_mixer(MixerFamily("shuffle", lambda m: isinstance(m, Shuffle), lambda m: 0))
        >>> family_of(Shuffle()).kind
        'shuffle'
        >>> unregister_mixer("shuffle")
    """
    if any(known.kind == family.kind for known in _FAMILIES):
        raise ValueError(
            f"register_mixer has a family {family.kind!r} already: choose another kind, or take that one out with "
            f"unregister_mixer({family.kind!r})."
        )
    _FAMILIES.insert(0, family)
    _changed()
    return family


def unregister_mixer(kind: str) -> None:
    """Take a family out again.

    Raises:
        ValueError: there is no family of this kind.
    """
    for family in _FAMILIES:
        if family.kind == kind:
            _FAMILIES.remove(family)
            _changed()
            return
    raise ValueError(f"unregister_mixer knows no family {kind!r}: there are {', '.join(sorted(mixer_kinds()))}.")


def mixer_kinds() -> list[str]:
    """The kinds that are known, the one that is asked first in front."""
    return [family.kind for family in _FAMILIES]


def family_of(module: nn.Module) -> MixerFamily | None:
    """The family that a module belongs to, None where no family recognises it."""
    return next((family for family in _FAMILIES if family.recognises(module)), None)
