"""The viewer: `streamlit run apps/viewer.py`, or with weights of your own `... -- --checkpoints FOLDER`."""

import atexit
import gc
import sys
from pathlib import Path

import streamlit as st
from service import page
from service.settings import settings

HERE = Path(__file__).parent
SWITCH_SECONDS = 5e-4  # instead of 5e-3


@st.cache_resource(show_spinner=False)
def started() -> bool:
    """Once per process: what is imported by now leaves the garbage collector's sight, and threads take turns faster.

    Streamlit collects after every run, and with torch imported that would be half of its time. And with fifty sessions
    at work the thread that answers the health address waits for as many turns.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # so that nothing seems to leak at the end
    return True


st.set_page_config(page_title="horinsight", page_icon=str(HERE / "icon.png"), layout="wide", initial_sidebar_state=270)
pages = st.navigation(
    [
        st.Page("views/mixing.py", title="Mixing weights", icon=":material/ads_click:", default=True),
        st.Page("views/spectra.py", title="Interaction spectra", icon=":material/bar_chart:"),
        st.Page("views/cost.py", title="Cost", icon=":material/speed:"),
        st.Page("views/compare.py", title="Compare", icon=":material/compare:"),
    ],
    position="top",
)
started()
page.style()
try:
    settings()
except ValueError as error:
    st.error(str(error))
    st.stop()
page.link_problems()
st.session_state["chosen"] = page.sidebar()
pages.run()
