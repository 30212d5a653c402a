"""The last resort: what nobody foresaw is one plain line for the visitor, and a traceback in the log."""

import logging

from horinsight.viewer.service.plain_text import told

UNFORESEEN = "Something went wrong that this viewer did not foresee. Whoever runs it finds what it was in its log."
LOG = logging.getLogger("horinsight.viewer")


def unforeseen(error: Exception) -> bool:
    """Log an exception and say that there was one; True as an answer to Streamlit: it is dealt with."""
    LOG.error("The viewer did not foresee this.", exc_info=error)
    told("error", UNFORESEEN)
    return True
