"""What captum keeps to itself and we use all the same: here alone, so that a new release is checked in one place.

`tests/test_private_names.py` says what we expect of each name, and on which release it was checked.
"""

from captum.attr._core import deep_lift
from captum.attr._core.layer import layer_deep_lift
from captum.attr._core.lrp import SUPPORTED_LAYERS_WITH_RULES, SUPPORTED_NON_LINEAR_LAYERS
from captum.attr._utils.lrp_rules import PropagationRule

DEEP_LIFTS = frozenset({deep_lift.__name__, layer_deep_lift.__name__})  # files of what calls `Module.apply`

__all__ = ["DEEP_LIFTS", "SUPPORTED_LAYERS_WITH_RULES", "SUPPORTED_NON_LINEAR_LAYERS", "PropagationRule"]
