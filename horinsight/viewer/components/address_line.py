"""The address line of the browser, changed without an entry in its history, which Streamlit cannot do."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlencode

import streamlit as st

_mount = st.components.v2.component(
    "horinsight_address",
    html="<span hidden></span>",
    js=(Path(__file__).parent / "address_line.js").read_text(encoding="utf-8"),
)


def replace_address(parameters: Mapping[str, Sequence[str]], turned: str) -> None:
    """Let the address of this page name parameters.

    Args:
        parameters: name → values.
        turned: another word for each time that it is to be done.
    """
    _mount(key="address_line", data={"query": urlencode(parameters, doseq=True), "turned": turned})
