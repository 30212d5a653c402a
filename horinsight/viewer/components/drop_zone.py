"""Places to drop files, as groups with a name: Streamlit names them and marks them as without meaning."""

from pathlib import Path

import streamlit as st

_mount = st.components.v2.component(
    "horinsight_drop_zone",
    html="<span hidden></span>",
    js=(Path(__file__).parent / "drop_zone.js").read_text(encoding="utf-8"),
)


def named_drop_zones() -> None:
    """Let screen readers find the uploaders of this page."""
    _mount(key="drop_zone")
