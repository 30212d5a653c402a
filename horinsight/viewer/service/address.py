"""The page's address says what is chosen, so that it can be shared and so that Back undoes a choice.

A widget that Streamlit binds to the address replaces it and leaves no entry in the browser's history. So each choice is
kept here: read from the address when a visitor comes, or goes back or forward; written to it once for each choice.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from horinsight.viewer.components.address_line import replace_address

MOST_TOLD = 6  # bad values that are named
LONGEST = 80  # characters of a value that is named


@dataclass(frozen=True)
class Kind:
    """What a choice may be, and how an address spells it.

    Attributes:
        read: makes the value of its spellings; ValueError where it cannot be one.
        holds: whether it can be that value now.
        spelled: the value's spellings.
    """

    read: Callable[[list[str]], Any]
    holds: Callable[[Any], bool]
    spelled: Callable[[Any], list[str]]


class Address:
    """What the address of one session says.

    Attributes:
        problems: parameter and value of each bad one that a link asked for.
        whole: whether a run of the whole page is on its way, and not all of its choices shown.
    """

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}
        self._asked: dict[str, list[str]] = {}  # by the address, and not yet by a widget
        self._again: set[str] = set()  # choices that must be read once more
        self._shown: dict[str, tuple[Kind, Any]] = {}
        self._known: set[str] = set()  # of all pages
        self._said: dict[str, list[str]] = {}
        self._page: str | None = None
        self._replaced: dict[str, list[str]] = {}  # what it says without an entry of its own
        self._turned = ""  # a name for the turn to this page, until something is chosen on it
        self.whole = False
        self._follows = False  # whether this run follows the address, instead of making it

    @staticmethod
    def of_session() -> "Address":
        """That of the visitor."""
        found: Address = st.session_state.setdefault("address", Address())
        return found

    def started(self, page: str) -> None:
        """A run of the whole page begins.

        Args:
            page: its path.
        """
        came, other = self._page is None, self._page not in (None, page)
        asked = {name: st.query_params.get_all(name) for name in st.query_params}
        if came or _goes_back_or_forward():
            self._asked = asked
            self._again, self.problems, self._turned, self._follows = set(self._known), {}, "", True
        elif other:
            self._asked = {name: values for name, values in asked.items() if name not in self._known}
            self._turned, self._follows = secrets.token_hex(4), True
        self._page, self._shown, self.whole = page, {}, True

    def reads(self, name: str) -> bool:
        """Whether a choice is still to be read from the address, or to begin with its default."""
        return name in self._again or name not in st.session_state

    def chosen(self, name: str, kind: Kind, default: Any) -> None:
        """Gives `st.session_state[name]` a value that it may have, before the widget of that key is made.

        Args:
            name: of the parameter, and of the widget.
            kind: what it may be.
            default: what it is where the address says nothing; the address then says nothing of it.
        """
        if self.reads(name) or not kind.holds(st.session_state[name]):
            st.session_state[name] = self._asked_for(name, kind, default)
        elif self._follows:  # a value from another page would not outlive a run that ends before the browser answers
            st.session_state[name] = st.session_state[name]
        self._again.discard(name)
        self._known.add(name)
        self._shown[name] = (kind, default)

    def _asked_for(self, name: str, kind: Kind, default: Any) -> Any:
        asked = self._asked.pop(name, None)
        if not asked:
            return default
        try:
            return kind.read(asked)
        except ValueError:
            self.problems[name] = ", ".join(asked)
            return default

    def forgotten(self, *names: str) -> None:
        """These choices have nothing to go by any more, as another model has other blocks."""
        for name in names:
            st.session_state.pop(name, None)
            self._asked.pop(name, None)
            self._again.discard(name)

    def decided(self) -> None:
        """A button made choices: the address says them, even where the run that followed the address was cut short."""
        self._follows = False

    def finished(self) -> None:
        """All choices of the page are shown: the address says them, with an entry in the history if one is new."""
        said = self._spelled()
        if self._follows:
            self._replaced = said
        elif said != self._said:
            st.query_params.from_dict(said)
            self._turned = ""
        if self._turned and self.whole:
            replace_address(self._replaced, self._turned)
        self._said, self._follows, self.whole = said, False, False

    def part_finished(self) -> None:
        """The same of a part of the page, which a click runs alone; the whole page speaks for itself."""
        if not self.whole:
            self.finished()

    def _spelled(self) -> dict[str, list[str]]:
        state = st.session_state
        return {
            name: kind.spelled(state[name])
            for name, (kind, default) in self._shown.items()
            if name in state and state[name] != default
        }

    def bad_values(self) -> str:
        """What the link asked for that could not be, in words; "" where all could."""
        named = [
            f"{name.removesuffix('_b')} '{value if len(value) <= LONGEST else value[:LONGEST] + '…'}'"
            for name, value in list(self.problems.items())[:MOST_TOLD]
        ]
        more = len(self.problems) - len(named)
        return ", ".join(named) + f" and {more} more" * (more > 0)


def _goes_back_or_forward() -> bool:
    """Whether this run is for a step in the browser's history."""
    return bool(getattr(get_script_run_ctx(suppress_warning=True), "is_history_navigation", False))
