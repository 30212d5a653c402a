"""UperNet on any backbone of timm, plain or with HorFPN's gⁿConv (HorNet §4.2, Tables 2 and 3)."""

from typing import Any

import torch
from torch import Tensor, nn

from horinsight.models.dense.pyramid_backbone import PyramidBackbone, pyramid_backbone
from horinsight.models.dense.segmentation_targets import checked_targets, segmentation_loss
from horinsight.models.dense.uper_head import (
    AUXILIARY_CHANNELS,
    AUXILIARY_LEVEL,
    CHANNELS,
    FcnHead,
    UperHead,
    resized_map,
)
from horinsight.models.gnconv import Depthwise
from horinsight.models.origin import WeightsOrigin, set_weights_origin
from horinsight.models.zero_branches import opened_branches

AUXILIARY_WEIGHT = 0.4
NUM_CLASSES = 150  # of ADE20K


class UperNet(nn.Module):
    """A segmenter: a backbone of four levels, `decode_head` over all of them, `auxiliary_head` on the third.

    Called with images alone, it gives logits for every pixel; with targets as well, the losses to add up.

    Args:
        backbone: of four levels.
        decode_head: levels → logits on the finest map.
        auxiliary_head: third level → logits on its map, for training alone; None for none.

    Example:
        >>> model = upernet("hornet_test", num_classes=5, channels=16, auxiliary_channels=8)
        >>> model(torch.zeros(1, 3, 70, 50)).shape
        torch.Size([1, 5, 70, 50])
        >>> losses = model.train()(torch.randn(2, 3, 64, 64), torch.zeros(2, 64, 64, dtype=torch.long))
        >>> sorted(losses)
        ['auxiliary', 'decode']
    """

    def __init__(self, backbone: PyramidBackbone, decode_head: UperHead, auxiliary_head: FcnHead | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.decode_head = decode_head
        self.auxiliary_head = auxiliary_head
        self.num_classes = decode_head.conv_seg.out_channels

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Any:
        """Logits of images, or their losses.

        Args:
            x: images (B, 3, H, W) of at least the largest stride (32) a side.
            targets: (B, H, W), a class for each pixel, 255 where it does not count; None for logits.

        Returns:
            Logits (B, classes, H, W); with targets a dict of losses, "decode" and "auxiliary" (times 0.4).

        Raises:
            ValueError: images or targets that do not fit, or one image alone while BatchNorm takes its statistics.
        """
        if targets is not None:
            return self.losses(x, targets)
        logits: Tensor = self.decode_head(self._levels(x))
        return resized_map(logits, (x.shape[2], x.shape[3]))

    def losses(self, x: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """What training adds up, see `forward`."""
        levels = self._levels(x)
        targets = checked_targets(targets, x, self.num_classes)
        losses = {"decode": segmentation_loss(self.decode_head(levels), targets)}
        if self.auxiliary_head is not None:
            loss = segmentation_loss(self.auxiliary_head(levels[AUXILIARY_LEVEL]), targets)
            losses["auxiliary"] = AUXILIARY_WEIGHT * loss
        return losses

    def masks(self, x: Tensor, *, size: tuple[int, int] | None = None) -> Tensor:
        """The class of each pixel, (B, H, W).

        Args:
            x: images (B, 3, H, W).
            size: (rows, columns) of the pictures that the images were resized from; that of the images when None.

        Example:
            >>> model = upernet("hornet_test", num_classes=5, channels=16, auxiliary_channels=8)
            >>> model.masks(torch.zeros(1, 3, 64, 64), size=(100, 120)).shape
            torch.Size([1, 100, 120])
        """
        logits = self.decode_head(self._levels(x))
        size = (x.shape[2], x.shape[3]) if size is None else size
        return resized_map(logits, size).argmax(1)

    def _levels(self, x: Tensor) -> list[Tensor]:
        levels: list[Tensor] = self.backbone(x)
        pools = [part for pool in self.decode_head.psp_modules for part in pool.modules()]
        if any(isinstance(part, nn.BatchNorm2d) and part.training for part in pools) and x.shape[0] == 1:
            raise ValueError(
                "UperNet in training mode expects at least 2 images, because BatchNorm has one value a channel on the "
                "map of 1x1, got 1: pass more, or put its norms in eval mode."
            )
        return levels


def upernet(
    backbone: str | nn.Module,
    *,
    horfpn: Depthwise | None = None,
    num_classes: int = NUM_CLASSES,
    channels: int = CHANNELS,
    auxiliary_channels: int = AUXILIARY_CHANNELS,
    order: int = 2,
    seed: int = 0,
    **options: Any,
) -> UperNet:
    """UperNet with random weights, in eval mode, as HorNet was published with it; nothing is downloaded.

    Args:
        backbone: name of a model of this package or of timm, or a timm model built with `features_only=True`, or a
            `PyramidBackbone`; with four levels.
        horfpn: f of HorFPN's gⁿConv in place of the convolution of `fpn_bottleneck`: "conv" for 7x7, "gf" for GF, or
            another `depthwise_operator`; None for the plain UperNet.
        num_classes: of each pixel.
        channels: of the head.
        auxiliary_channels: of the auxiliary head; 0 for none.
        order: n of HorFPN's gⁿConv.
        seed: of the random weights; the global random state stays as it was.
        **options: for the constructor of a backbone given by name, see `pyramid_backbone`.

    Raises:
        ValueError: an unknown name, a backbone without four levels, no class, or channels that the order does not
            divide.
        TypeError: options for a backbone that is built already.

    Example:
        >>> model = upernet("hornet_test_gf", horfpn="gf", num_classes=5, channels=16)
        >>> model.decode_head.fpn_bottleneck.gnconv.dims
        [8, 16]

    Source: Xiao et al. 2018 (arXiv 1807.10221); Rao et al. 2022 (arXiv 2207.14284), §4.2.
    """
    if num_classes < 1 or channels < 1 or auxiliary_channels < 0:
        raise ValueError(
            "upernet expects num_classes and channels of at least 1 and auxiliary_channels of at least 0, got "
            f"{num_classes}, {channels} and {auxiliary_channels}."
        )
    if not isinstance(backbone, str) and options:
        raise TypeError(f"{', '.join(options)}: options apply to a backbone given by name, got a module.")
    given = not isinstance(backbone, str)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(backbone, str):
            pyramid = pyramid_backbone(backbone, **options)
        else:
            pyramid = backbone if isinstance(backbone, PyramidBackbone) else PyramidBackbone(backbone)
        head = UperHead(pyramid.channels, num_classes, channels=channels, horfpn=horfpn, order=order)
        auxiliary = (
            FcnHead(pyramid.channels[AUXILIARY_LEVEL], num_classes, channels=auxiliary_channels)
            if auxiliary_channels
            else None
        )
    model = UperNet(pyramid, head, auxiliary)
    if not given:
        opened = opened_branches(pyramid, seed=seed)
        if not any(parameter.is_meta for parameter in model.parameters()):
            set_weights_origin(model, WeightsOrigin(f"random, seed {seed}{opened}", trained=False))
    return model.eval()
