"""What a visitor is told when something goes wrong: one message on the page itself, wherever it went wrong."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec

import streamlit as st

from horinsight.models.misfits import CheckpointError
from horinsight.viewer.service.address import Address
from horinsight.viewer.service.gate import BusyError
from horinsight.viewer.service.plain_text import told
from horinsight.viewer.service.unforeseen import unforeseen

P = ParamSpec("P")


class PageError(Exception):
    """Ends a page, or the part of it that a click runs, with a message.

    It is raised where something goes wrong and said where the page ends: a closed menu would hide it.

    Args:
        kind: as `told` has it.
        message: what it says.
        details: a longer text, on demand.
        again: whether it may help to try again.
    """

    def __init__(self, kind: str, message: str, *, details: str = "", again: bool = False) -> None:
        super().__init__(message)
        self.kind, self.message, self.details, self.again = kind, message, details, again

    def say(self) -> None:
        """Say it here."""
        told(self.kind, self.message)
        if self.details:
            with st.expander("Which"):
                st.text(self.details)
        if self.again:
            st.button("Try again", key="try_again")


@contextmanager
def explained() -> Iterator[None]:
    """Turns what can be foreseen into one message.

    Raises:
        PageError: instead.
    """
    try:
        yield
    except BusyError as busy:
        raise PageError("warning", str(busy), again=True) from busy
    except CheckpointError as error:
        parts = {"missing": error.missing, "too many": error.unexpected, "of another shape": error.misshapen}
        counts = ", ".join(f"{len(keys)} parameters {what}" for what, keys in parts.items() if keys)
        if not counts:
            raise PageError("error", str(error)) from error
        message = f"These weights are another model's: {counts}. Choose other weights, or the model they belong to."
        raise PageError("error", message, details=str(error)) from error
    except (ValueError, OSError) as error:
        raise PageError("error", str(error)) from error


@contextmanager
def guarded() -> Iterator[None]:
    """Says what ends a page; for what nobody foresaw one plain line, and the traceback goes to the log."""
    try:
        yield
    except PageError as error:
        error.say()
    except Exception as error:
        unforeseen(error)


def panel(part: Callable[P, None]) -> Callable[P, None]:
    """A part of a page that a click runs alone, with its errors, and its choices in the address."""

    @wraps(part)
    def guarded_part(*args: P.args, **kwargs: P.kwargs) -> None:
        with guarded():
            part(*args, **kwargs)
        Address.of_session().part_finished()

    found: Callable[P, None] = st.fragment(guarded_part)
    return found
