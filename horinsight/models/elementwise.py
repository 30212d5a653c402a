"""Products, scalings and residual sums as modules without parameters, so that what hooks modules can see them.

Rules of relevance (zennit, captum) attach to modules: a product that is only an operator in a forward pass is passed
over silently. Each instance is called once in a forward pass; nothing of this is in a state dict.
"""

import torch
from torch import Tensor, nn


class Product(nn.Module):
    """a ⊙ b, of two features (B, C, ...).

    Example:
        >>> Product()(torch.full((1, 2), 3.0), torch.full((1, 2), 4.0)).tolist()
        [[12.0, 12.0]]
    """

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        # the layout of what gnConv multiplies, said as a shape: from slices of channels-last memory torch.export would
        # otherwise guess it by guards on H and W that it cannot prove
        return (a.movedim(1, -1) * b.movedim(1, -1)).movedim(-1, 1)


class Scaled(nn.Module):
    """factor · x; the factor is an argument (by keyword, which hooks do not take for a feature).

    Example:
        >>> Scaled()(torch.full((1, 2), 3.0), factor=0.5).tolist()
        [[1.5, 1.5]]
    """

    def forward(self, x: Tensor, factor: float) -> Tensor:
        return x * factor


class ScaledSum(nn.Module):
    """x + γ ⊙ y, or x + y without a γ (by keyword), which is of the width of the last dimension.

    Example:
        >>> ScaledSum()(torch.ones(1, 2), torch.ones(1, 2), gamma=torch.tensor([2.0, 3.0])).tolist()
        [[3.0, 4.0]]
    """

    def forward(self, x: Tensor, y: Tensor, gamma: Tensor | None = None) -> Tensor:
        return x + y if gamma is None else torch.addcmul(x, gamma, y)
