"""What looks at one region: heads that classify it, move its box, and draw its mask; names as published."""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

BOX_SIDE, MASK_SIDE = 7, 14  # of the regions that heads are called with
NUM_MASK_CONVS = 4


def _convolution(in_channels: int, channels: int, *, norm: bool) -> nn.Sequential:
    """3x3, then BatchNorm where asked for (and no bias), then ReLU."""
    parts: list[tuple[str, nn.Module]] = [("conv", nn.Conv2d(in_channels, channels, 3, padding=1, bias=not norm))]
    if norm:
        parts.append(("bn", nn.BatchNorm2d(channels)))
    return nn.Sequential(OrderedDict([*parts, ("relu", nn.ReLU())]))


class BoxHead(nn.Module):
    """Regions (N, C, 7, 7) → class logits (N, 1 + classes) and box deltas (N, 4 · (1 + classes)).

    The background comes first, as torchvision has it (mmdet has it last). Boxes are class-specific; the background has
    no weights for one, and its deltas are 0.

    Args:
        num_classes: without the background.
        channels: C, of the regions and of the convolutions.
        width: of the fully connected layers.
        num_convs: 3x3 convolutions before them, without bias and with BatchNorm.
        num_fcs: how many fully connected layers.

    Example:
        >>> import torch
        >>> head = BoxHead(80, channels=16, width=32)
        >>> [tuple(out.shape) for out in head(torch.zeros(5, 16, 7, 7))]
        [(5, 81), (5, 324)]
    """

    def __init__(
        self, num_classes: int, *, channels: int = 256, width: int = 1024, num_convs: int = 0, num_fcs: int = 2
    ) -> None:
        super().__init__()
        self.shared_convs = nn.Sequential(*[_convolution(channels, channels, norm=True) for _ in range(num_convs)])
        widths = [channels * BOX_SIDE**2, *[width] * num_fcs]
        self.shared_fcs = nn.ModuleList(nn.Linear(widths[i], widths[i + 1]) for i in range(num_fcs))
        self.acts = nn.ModuleList(nn.ReLU() for _ in range(num_fcs))
        self.fc_cls = nn.Linear(width, 1 + num_classes)
        self.fc_reg = nn.Linear(width, 4 * num_classes)
        nn.init.normal_(self.fc_cls.weight, std=0.01)
        nn.init.normal_(self.fc_reg.weight, std=0.001)
        nn.init.zeros_(self.fc_cls.bias)
        nn.init.zeros_(self.fc_reg.bias)

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        x = self.shared_convs(regions).flatten(1)
        for fc, act in zip(self.shared_fcs, self.acts, strict=True):
            x = act(fc(x))
        return self.fc_cls(x), F.pad(self.fc_reg(x), (4, 0))


class MaskHead(nn.Module):
    """Regions (N, C, 14, 14) → logits of a mask for each class, (N, 1 + classes, 28, 28); the background's are 0.

    Args:
        num_classes: without the background.
        channels: C, of the regions and of the convolutions.

    Example:
        >>> import torch
        >>> MaskHead(80, channels=16)(torch.zeros(5, 16, 14, 14)).shape
        torch.Size([5, 81, 28, 28])
    """

    def __init__(self, num_classes: int, *, channels: int = 256) -> None:
        super().__init__()
        self.convs = nn.Sequential(*[_convolution(channels, channels, norm=False) for _ in range(NUM_MASK_CONVS)])
        self.upsample = nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)
        self.relu = nn.ReLU()
        self.conv_logits = nn.Conv2d(channels, num_classes, kernel_size=1)
        for layer in (*self.convs.modules(), self.upsample, self.conv_logits):
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, regions: Tensor) -> Tensor:
        logits = self.conv_logits(self.relu(self.upsample(self.convs(regions))))
        return F.pad(logits, (0, 0, 0, 0, 1, 0))
