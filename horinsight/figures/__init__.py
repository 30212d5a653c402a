"""Figures of results.

Where the home folder cannot be written, matplotlib keeps its cache in a temporary folder and says so in the middle of a
command's output; it may keep that to itself. This concerns the first import alone.
"""

import logging

_logger = logging.getLogger("matplotlib")
_level = _logger.level
_logger.setLevel(logging.ERROR)
try:
    import matplotlib.font_manager  # noqa: F401 - looks for both of its folders
finally:
    _logger.setLevel(_level)
