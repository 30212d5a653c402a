"""The viewer: its pages and what all of them share. A script for `streamlit run`, as `apps/viewer.py` is."""

import atexit
import gc
import sys
from pathlib import Path

import streamlit as st

from horinsight.viewer.service import page
from horinsight.viewer.service.address import Address
from horinsight.viewer.service.guard import explained, guarded
from horinsight.viewer.service.settings import settings
from horinsight.viewer.service.tour import turns_to
from horinsight.viewer.views.attribution import attribution_page
from horinsight.viewer.views.classes import classes_page
from horinsight.viewer.views.compare import compare_page
from horinsight.viewer.views.cost import cost_page
from horinsight.viewer.views.filters import filters_page
from horinsight.viewer.views.glance import glance_page
from horinsight.viewer.views.lead import lead, page_links
from horinsight.viewer.views.mixing import mixing_page
from horinsight.viewer.views.paper import paper_page
from horinsight.viewer.views.saved import results_page
from horinsight.viewer.views.spectra import spectra_page

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


def run() -> None:
    """One run of the script, as Streamlit makes it for every change of a session."""
    st.set_page_config(  # before the navigation: the icon of a page would be fetched from elsewhere
        page_title="horinsight", page_icon=str(HERE / "icon.png"), layout="wide", initial_sidebar_state=270
    )
    listed = {
        "": [
            st.Page(mixing_page, title="Mixing weights", icon=":material/ads_click:", default=True),
            st.Page(glance_page, url_path="blocks", title="All blocks", icon=":material/stacks:"),
            st.Page(spectra_page, url_path="spectra", title="Interaction spectra", icon=":material/bar_chart:"),
            st.Page(attribution_page, url_path="attribution", title="Attribution", icon=":material/colorize:"),
            st.Page(cost_page, url_path="cost", title="Cost", icon=":material/speed:"),
            st.Page(compare_page, url_path="compare", title="Compare", icon=":material/compare:"),
        ],
        "More": [
            st.Page(filters_page, url_path="filters", title="Filters", icon=":material/grid_on:"),
            st.Page(classes_page, url_path="classes", title="Classes", icon=":material/category:"),
            st.Page(results_page, url_path="results", title="Results", icon=":material/folder_open:"),
            st.Page(paper_page, url_path="paper", title="The paper", icon=":material/article:"),
        ],
    }
    pages = st.navigation(listed, position="top")
    every = {one.url_path: one for group in listed.values() for one in group}
    turned = turns_to()
    if turned is not None and turned != pages.url_path:
        st.switch_page(every[turned])
    st.set_page_config(page_title=f"{pages.title} · horinsight")
    page.style()
    with guarded():
        started()
        with explained():
            settings()
        Address.of_session().started(pages.url_path)
        st.session_state["notice"] = st.container(key="notice").empty()
        with guarded():
            st.session_state["chosen"] = page.sidebar()
            page_links(list(every.values()), pages.url_path)
            lead(pages.url_path, pages.title, in_bar=pages in listed[""])
            pages.run()
        page.settled()


if __name__ == "__main__":
    run()
