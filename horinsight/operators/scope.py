"""What of a block is taken as the operator."""

from typing import Literal

Scope = Literal["mixer", "block"]
