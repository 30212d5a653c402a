"""Cost of a model, from one pass on shapes."""

import streamlit as st

from horinsight.complexity.bound import count_and_bounds
from horinsight.complexity.cost_results import GnConvBound, MacCount
from horinsight.models.registry import model_without_weights
from horinsight.viewer.service.gate import GATE


@st.cache_data(max_entries=64, show_spinner="Counting …")
def counted(name: str, image_size: int) -> tuple[MacCount, list[GnConvBound]]:
    """What a model costs on square images, and Eq. 3.6 for each of its gⁿConvs.

    Raises:
        ValueError: the model does not take images of this size.
        BusyError: the gate was taken for too long.
    """
    with GATE.slot():
        return count_and_bounds(model_without_weights(name), image_size)
