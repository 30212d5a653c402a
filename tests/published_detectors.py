"""The published layout of detectors' checkpoints (mmdet, version 2), written down from the configurations alone."""

from collections.abc import Mapping

Shape = tuple[int, ...]
LEVELS = 4
ANCHORS = 3


def _layer(name: str, *weight: int, bias: bool = True) -> dict[str, Shape]:
    return {f"{name}.weight": weight, **({f"{name}.bias": weight[:1]} if bias else {})}


def _gnconv(name: str, c: int, filter_size: tuple[int, int] | None) -> dict[str, Shape]:
    """Order 2 of `c` channels: steps of c/2 and c."""
    half, both = c // 2, 3 * c // 2
    shapes = _layer(f"{name}.proj_in", 2 * c, c, 1, 1) | _layer(f"{name}.proj_out", c, c, 1, 1)
    shapes |= _layer(f"{name}.pws.0", c, half, 1, 1)
    if filter_size is None:
        return shapes | _layer(f"{name}.dwconv", both, 1, 7, 7)
    f = f"{name}.dwconv"
    shapes[f"{f}.complex_weight"] = (both // 2, *filter_size, 2)
    shapes |= _layer(f"{f}.dw", both // 2, 1, 3, 3, bias=False)
    return shapes | _layer(f"{f}.pre_norm", both) | _layer(f"{f}.post_norm", both)


def _box_head(name: str, c: int, width: int, classes: int, *, cascade: bool) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for i in range(4 if cascade else 0):
        conv = f"{name}.shared_convs.{i}"
        shapes |= _layer(f"{conv}.conv", c, c, 3, 3, bias=False) | _layer(f"{conv}.bn", c)
        shapes |= {
            f"{conv}.bn.running_mean": (c,),
            f"{conv}.bn.running_var": (c,),
            f"{conv}.bn.num_batches_tracked": (),
        }
    shapes |= _layer(f"{name}.shared_fcs.0", width, 49 * c)
    if not cascade:
        shapes |= _layer(f"{name}.shared_fcs.1", width, width)
    return shapes | _layer(f"{name}.fc_cls", classes + 1, width) | _layer(f"{name}.fc_reg", 4 * classes, width)


def _mask_head(name: str, c: int, classes: int) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for i in range(4):
        shapes |= _layer(f"{name}.convs.{i}.conv", c, c, 3, 3)
    shapes |= _layer(f"{name}.upsample", c, c, 2, 2) | _layer(f"{name}.conv_logits", classes, c, 1, 1)
    return shapes


def published_shapes(
    backbone: Mapping[str, Shape],
    widths: tuple[int, ...],
    *,
    cascade: bool = False,
    fpn: str = "fpn",
    level_norms: bool = True,
    channels: int = 256,
    box_width: int = 1024,
    classes: int = 80,
) -> dict[str, Shape]:
    """Name → shape of every tensor of a published Mask R-CNN or Cascade Mask R-CNN.

    Args:
        backbone: name → shape of the classifier's, without its head and the norm before it.
        widths: channels of its four levels.
        cascade: three stages of heads.
        fpn: "fpn", "horfpn_7x7", "horfpn_gf".
        level_norms: whether norms follow the levels.
        channels: of pyramid and heads.
        box_width: of fully connected layers.
        classes: without the background.
    """
    c = channels
    shapes = {f"backbone.{name}": tuple(shape) for name, shape in backbone.items()}
    for i, width in enumerate(widths):
        if level_norms:
            shapes |= _layer(f"backbone.norm{i}", width)
        shapes |= _layer(f"neck.lateral_convs.{i}.conv", c, width, 1, 1)
        if fpn == "fpn":
            shapes |= _layer(f"neck.fpn_convs.{i}.conv", c, c, 3, 3)
        else:
            shapes |= _gnconv(f"neck.fpn_convs.{i}", c, (32, 17) if fpn == "horfpn_gf" else None)
    shapes |= _layer("rpn_head.rpn_conv", c, c, 3, 3)
    shapes |= _layer("rpn_head.rpn_cls", ANCHORS, c, 1, 1) | _layer("rpn_head.rpn_reg", 4 * ANCHORS, c, 1, 1)
    for stage in [".0", ".1", ".2"] if cascade else [""]:
        shapes |= _box_head(f"roi_head.bbox_head{stage}", c, box_width, classes, cascade=cascade)
        shapes |= _mask_head(f"roi_head.mask_head{stage}", c, classes)
    return shapes
