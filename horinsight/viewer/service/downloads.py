"""Files that a page offers, in one menu."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import streamlit as st


@dataclass(frozen=True)
class Download:
    """A file that a page offers.

    Attributes:
        kind: its suffix, without the dot.
        mime: its type.
        icon: of the button.
        content: makes it, when the button is pressed.
    """

    kind: str
    mime: str
    icon: str
    content: Callable[[], bytes | str]


def downloads(stem: str, files: Sequence[Download]) -> None:
    """A menu with a button per file."""
    with st.popover("Download"):
        for file in files:
            st.download_button(
                file.kind.upper(),
                file.content,
                f"{stem}.{file.kind}",
                file.mime,
                on_click="ignore",
                icon=f":material/{file.icon}:",
                key=f"download_{file.kind}",
                width="stretch",
            )


def png(content: Callable[[], bytes]) -> Download:
    """A PNG."""
    return Download("png", "image/png", "image", content)


def pdf(content: Callable[[], bytes]) -> Download:
    """A PDF."""
    return Download("pdf", "application/pdf", "picture_as_pdf", content)


def csv(content: Callable[[], str]) -> Download:
    """A table."""
    return Download("csv", "text/csv", "table", content)


def npz(content: Callable[[], bytes]) -> Download:
    """Arrays, for `horinsight.load_result`."""
    return Download("npz", "application/octet-stream", "data_object", content)


def json(content: Callable[[], bytes]) -> Download:
    """Everything, for a program."""
    return Download("json", "application/json", "data_object", content)
