"""Weights of segmenters under mmsegmentation's names, from a layout that is written down here once more."""

import re
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from horinsight import CheckpointError, UperNet, load_checkpoint, mmseg_state_dict, upernet

DIMS, FILTERS = (8, 16, 32, 64), (None, None, (24, 13), (12, 7))  # hornet_test_gf as a backbone for segmentation
CHANNELS, AUXILIARY, CLASSES = 16, 12, 5
TINY = {"num_classes": CLASSES, "channels": CHANNELS, "auxiliary_channels": AUXILIARY}
Shapes = dict[str, tuple[int, ...]]


def affine(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def with_bias(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def batch_norm(name: str, width: int) -> Shapes:
    kept = {f"{name}.{part}": (width,) for part in ("running_mean", "running_var")}
    return affine(name, width) | kept | {f"{name}.num_batches_tracked": ()}


def conv_module(name: str, wide_in: int, wide_out: int, kernel: int) -> Shapes:
    return {f"{name}.conv.weight": (wide_out, wide_in, kernel, kernel)} | batch_norm(f"{name}.bn", wide_out)


def spatial_half(name: str, width: int, gf: tuple[int, int] | None) -> Shapes:
    if gf is None:
        return with_bias(name, width, 1, 7, 7)
    norms = affine(f"{name}.pre_norm", width) | affine(f"{name}.post_norm", width)
    return norms | {f"{name}.dw.weight": (width // 2, 1, 3, 3), f"{name}.complex_weight": (width // 2, *gf, 2)}


def gnconv(name: str, wide_in: int, dims: list[int], gf: tuple[int, int] | None) -> Shapes:
    C = dims[-1]
    pws = [with_bias(f"{name}.pws.{k}", b, a, 1, 1) for k, (a, b) in enumerate(pairwise(dims))]
    shapes = with_bias(f"{name}.proj_in", 2 * C, wide_in, 1, 1) | with_bias(f"{name}.proj_out", C, C, 1, 1)
    for part in (spatial_half(f"{name}.dwconv", sum(dims), gf), *pws):
        shapes |= part
    return shapes


def backbone_layout() -> Shapes:
    shapes = with_bias("backbone.downsample_layers.0.0", 8, 3, 4, 4) | affine("backbone.downsample_layers.0.1", 8)
    for stage, C in enumerate(DIMS):
        if stage:
            name = f"backbone.downsample_layers.{stage}"
            shapes |= affine(f"{name}.0", C // 2) | with_bias(f"{name}.1", C, C // 2, 2, 2)
        name, order = f"backbone.stages.{stage}.0", stage + 2
        dims = [C // 2 ** (order - 1 - k) for k in range(order)]
        shapes |= affine(f"{name}.norm1", C) | affine(f"{name}.norm2", C) | affine(f"backbone.norm{stage}", C)
        shapes |= {f"{name}.gamma1": (C,), f"{name}.gamma2": (C,)}
        shapes |= with_bias(f"{name}.pwconv1", 4 * C, C) | with_bias(f"{name}.pwconv2", C, 4 * C)
        shapes |= gnconv(f"{name}.gnconv", C, dims, FILTERS[stage])
    return shapes


def published_layout(horfpn: str | None) -> Shapes:
    shapes = backbone_layout()
    for number in range(4):  # pool scales 1, 2, 3, 6
        shapes |= conv_module(f"decode_head.psp_modules.{number}.1", 64, CHANNELS, 1)
    shapes |= conv_module("decode_head.bottleneck", 64 + 4 * CHANNELS, CHANNELS, 3)
    for level in range(3):
        shapes |= conv_module(f"decode_head.lateral_convs.{level}", DIMS[level], CHANNELS, 1)
        shapes |= conv_module(f"decode_head.fpn_convs.{level}", CHANNELS, CHANNELS, 3)
    name = "decode_head.fpn_bottleneck"
    if horfpn is None:
        shapes |= conv_module(name, 4 * CHANNELS, CHANNELS, 3)
    else:
        gf = (32, 17) if horfpn == "gf" else None
        shapes |= gnconv(name, 4 * CHANNELS, [CHANNELS // 2, CHANNELS], gf) | batch_norm(f"{name}.bn", CHANNELS)
    shapes |= with_bias("decode_head.conv_seg", CLASSES, CHANNELS, 1, 1)
    shapes |= conv_module("auxiliary_head.convs.0", 32, AUXILIARY, 3)
    return shapes | with_bias("auxiliary_head.conv_seg", CLASSES, AUXILIARY, 1, 1)


def drawn(shapes: Shapes) -> dict[str, Tensor]:
    return {name: torch.tensor(7) if name.endswith("tracked") else torch.rand(shape) for name, shape in shapes.items()}


def segmenter(horfpn: str | None = None) -> UperNet:
    return upernet("hornet_test_gf", horfpn=horfpn, **TINY)


@pytest.mark.parametrize("horfpn", [None, "conv", "gf"])
def test_the_published_layout_loads_strictly_and_comes_back(horfpn, tmp_path):
    published, model = drawn(published_layout(horfpn)), segmenter(horfpn)
    file = tmp_path / "mmseg.pth"
    torch.save({"meta": {"CLASSES": ["wall"], "epoch": 1}, "state_dict": published, "optimizer": {}}, file)
    report = load_checkpoint(model, file)
    assert report.source == "state_dict"
    assert len(report.loaded) == len(published) == len(model.state_dict())
    assert not report.missing + report.unexpected + report.misshapen
    returned = mmseg_state_dict(model)
    assert returned.keys() == published.keys()
    assert all(torch.equal(returned[name], published[name]) for name in published)
    assert torch.equal(model.backbone.norm2.weight, published["backbone.norm2.weight"])
    assert torch.equal(
        model.decode_head.psp_modules[3][1].conv.weight, published["decode_head.psp_modules.3.1.conv.weight"]
    )
    stage = model.backbone.body.model.stages[2][0]
    assert torch.equal(stage.gnconv.pws[1].bias, published["backbone.stages.2.0.gnconv.pws.1.bias"])


def test_what_we_write_another_segmenter_reads(tmp_path):
    first, second = segmenter("conv"), segmenter("conv")
    for parameter in first.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    torch.save(mmseg_state_dict(first), tmp_path / "ours.pth")
    load_checkpoint(second, tmp_path / "ours.pth")
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(first(x), second(x))
    torch.save({f"module.{name}": value for name, value in first.state_dict().items()}, tmp_path / "as_it_is.pth")
    assert len(load_checkpoint(segmenter("conv"), tmp_path / "as_it_is.pth").loaded) == len(first.state_dict())


@pytest.mark.parametrize(
    ("horfpn", "change", "message"),
    [
        (None, lambda w: w.pop("backbone.norm1.bias"), "1 missing: backbone.norm1.bias"),
        ("conv", lambda w: w.update({"decode_head.more": torch.zeros(1)}), "1 unexpected: decode_head.more"),
        (None, lambda w: w.update(drawn(with_bias("decode_head.conv_seg", 9, 16, 1, 1))), "num_classes=9"),
        (None, lambda w: w.update(drawn({CIRCULAR: (30, 14, 8, 2)})), "resize_filters=True"),
    ],
)
def test_what_does_not_fit_is_named_and_changes_nothing(horfpn, change, message, tmp_path):
    published, model = drawn(published_layout(horfpn)), segmenter(horfpn)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    change(published)
    torch.save(published, tmp_path / "wrong.pth")
    with pytest.raises(CheckpointError, match=re.escape(message)) as error:
        load_checkpoint(model, tmp_path / "wrong.pth")
    assert "\n" not in str(error.value)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


CIRCULAR = "backbone.stages.2.0.gnconv.dwconv.complex_weight"


def test_filters_of_classification_are_resized(tmp_path):
    published, model = drawn(published_layout(None)), segmenter()
    published[CIRCULAR] = torch.rand(30, 14, 8, 2)
    torch.save(published, tmp_path / "classification.pth")
    report = load_checkpoint(model, tmp_path / "classification.pth", resize_filters=True)
    assert len(report.resized) == 1
    assert model.backbone.body.model.stages[2][0].gnconv.dwconv.complex_weight.shape == (30, 24, 13, 2)


@pytest.mark.parametrize(
    ("file", "model", "advice"), [("conv", None, 'with horfpn="conv" for 7x7, or "gf"'), (None, "gf", "without horfpn")]
)
def test_a_file_with_the_other_bottleneck_says_how_to_build_the_model(file, model, advice, tmp_path):
    torch.save(drawn(published_layout(file)), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=re.escape(advice)):
        load_checkpoint(segmenter(model), tmp_path / "other.pth")
