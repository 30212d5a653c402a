"""Words from outside as plain text: addresses, file names, errors, names in checkpoints.

Streamlit reads what a page says as Markdown, and whatever escapes that was tried, something comes after them: links are
made of the finished text, and so are emoji, icons and arrows. So what is not our own words never goes there: it is HTML
that shows exactly these characters, and `plain` is the one function that makes it.
"""

import html

import streamlit as st

LONGEST = 600  # characters of one text
ROLES = {"error": "alert", "warning": "alert", "info": "status"}


def plain(text: object, *, longest: int = LONGEST) -> str:
    """A text as HTML that shows its characters and does nothing.

    What cannot be seen, or turns the direction of what follows, is spelled: `\\u202e`. The rest is cut off where it is
    longer than anybody reads.

    Example:
        >>> plain("<b>a&b</b>"), plain("a\\u202eb"), plain("abcdef", longest=3)
        ('&lt;b&gt;a&amp;b&lt;/b&gt;', 'a\\\\u202eb', 'abc …')
    """
    return html.escape(as_text(text, longest=longest))


def as_text(text: object, *, longest: int = LONGEST) -> str:
    """The same for what shows characters as they are, such as the cells of a table: no HTML."""
    words = " ".join(str(text).split(" "))
    cut = words if len(words) <= longest else words[:longest] + " …"
    return "".join(_visible(character) for character in cut)


def _visible(character: str) -> str:
    if character in "\n\t\r":
        return " "
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def told(kind: str, text: object) -> None:
    """A message: an error, a warning or an info.

    Args:
        kind: one of `ROLES`.
        text: what it says, as plain text.
    """
    st.html(f'<div class="told {kind}" role="{ROLES[kind]}">{plain(text)}</div>')


def heading(text: object, *, after: str = "") -> None:
    """A heading of a part of a page.

    Args:
        text: in bold, as plain text.
        after: HTML of ours behind it.
    """
    st.html(f'<div class="heading"><b>{plain(text)}</b>{after}</div>')


def small(text: object) -> None:
    """A remark, as `st.caption` would look, as plain text."""
    st.html(f'<div class="small">{plain(text, longest=4000)}</div>')
