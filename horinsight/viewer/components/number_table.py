"""A data frame as a table, whose names and numbers may come from files."""

import pandas as pd
import streamlit as st

from horinsight.viewer.service.plain_text import as_text, small

MOST_ROWS = 2000
MOST_LETTERS = 200  # of a cell


def show_table(frame: pd.DataFrame) -> None:
    """A table, with what is no number as short texts."""
    shown = frame.head(MOST_ROWS).copy()
    for place, kind in enumerate(shown.dtypes):
        if str(kind) in ("object", "str", "string", "category"):
            texts = [as_text(value, longest=MOST_LETTERS) for value in shown.iloc[:, place]]
            shown.isetitem(place, pd.Series(texts, index=shown.index, dtype="str"))
    numbers = {name: st.column_config.NumberColumn(format="%.4g") for name in shown.select_dtypes("floating")}
    st.dataframe(shown, hide_index=True, height=min(400, 40 + 36 * max(1, len(shown))), column_config=numbers)
    if len(frame) > MOST_ROWS:
        small(f"The first {MOST_ROWS} of {len(frame)} rows.")
