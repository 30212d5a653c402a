"""What timm keeps to itself and we use all the same: here alone, so that a new release of timm is checked in one place.

`tests/test_private_names.py` says what we expect of each name, and on which releases it was checked.
"""

from timm.models._efficientnet_blocks import SqueezeExcite
from timm.models._features import feature_take_indices

__all__ = ["SqueezeExcite", "feature_take_indices"]
