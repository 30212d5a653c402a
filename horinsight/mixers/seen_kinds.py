"""What a mixer is by what was seen in it, where its class says nothing."""

from __future__ import annotations

from horinsight.mixers.call_tree import UNMIXED, ModuleCall

# what was seen inside → kind; the first that fits names the mixer
_KINDS: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"window_attention"}), "window_attention"),
    (frozenset({"attention"}), "attention"),
    (frozenset({"linear_attention"}), "linear_attention"),
    (frozenset({"recurrence"}), "recurrence"),
    (frozenset({"sampling"}), "sampling"),
    (frozenset({"gate", "gated", "product", "softmax", "window_softmax", "all product"}), "gate"),
    (frozenset({"fft", "all fft"}), "fft"),
    (frozenset({"linear", "all linear"}), "token_mlp"),
    (frozenset({"shift", "merge"}), "shift"),
    (frozenset({"bias"}), "context"),
    (frozenset({"convolution"}), "convolution"),
    (frozenset({"pooling", "all pooling"}), "pooling"),
)


def events_inside(call: ModuleCall) -> tuple[str, ...]:
    """Everything that made positions meet in a call and in all calls inside it, each way once, in its order."""
    whats = (event.what for inner in call.walk() for event in inner.events if event.what not in UNMIXED)
    return tuple(dict.fromkeys(whats))


def seen_kind(events: tuple[str, ...], *, pools: bool = False) -> str:
    """The kind that fits what was seen; "other" for operators that no rule knows.

    A softmax over the positions of each window whose weights are multiplied with something is attention, and so is one
    over all positions out of which no position comes: the query is none.

    Args:
        events: what happened in a module's own forward.
        pools: whether no position comes out.

    Example:
        >>> seen_kind(("convolution", "gated")), seen_kind(("unknown mylib::mix",))
        ('gate', 'other')
    """
    if any(event.startswith("unknown") for event in events):
        return "other"
    if "window_softmax" in events and {"gate", "gated", "product"} & set(events):
        return "window_attention"
    if "softmax" in events and pools:
        return "attention"
    return next((kind for ways, kind in _KINDS if ways & set(events)), "other")


def seen_order(kind: str, events: tuple[str, ...], softmax: bool) -> int | None:
    """The design order that what was seen implies; None where it is open.

    Linear maps have order 0. Weights by softmax of scores of pairs have order 2. Gates and the rest are open: what is
    multiplied can be anything.
    """
    linear = {
        "convolution",
        "pooling",
        "linear",
        "all linear",
        "all pooling",
        "fft",
        "all fft",
        "shift",
        "merge",
        "bias",
    }
    if kind != "other" and set(events) <= linear:
        return 0
    return 2 if softmax and set(events) <= {"attention", "window_attention", "convolution", "pooling"} else None
