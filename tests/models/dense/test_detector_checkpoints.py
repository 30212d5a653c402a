"""Published weights in a detector: every tensor arrives, and each head computes what mmdet computes with it."""

import pytest
import torch
import torch.nn.functional as F
from published_detectors import published_shapes

from horinsight import CheckpointError, cascade_mask_rcnn, create_model, load_checkpoint, mask_rcnn, mmdet_state_dict
from horinsight.models.origin import weights_origin

SMALL = {"channels": 16, "box_width": 32, "num_classes": 3, "min_size": 64}
WIDTHS = (8, 16, 32, 64)
BUILT = [(mask_rcnn, "horfpn_gf"), (cascade_mask_rcnn, "fpn")]


def drawn(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    return torch.rand(shape, generator=generator) if shape else torch.tensor(7)


def published(build, fpn: str) -> dict[str, torch.Tensor]:
    """A checkpoint of the published layout, no two tensors alike; all numbers are positive, as variances must be."""
    classifier = {name: tuple(x.shape) for name, x in create_model("hornet_test_gf").state_dict().items()}
    backbone = {name: shape for name, shape in classifier.items() if not name.startswith(("head.", "norm."))}
    shapes = published_shapes(
        backbone, WIDTHS, cascade=build is cascade_mask_rcnn, fpn=fpn, channels=16, box_width=32, classes=3
    )
    generator = torch.Generator().manual_seed(0)
    return {name: drawn(shape, generator) for name, shape in shapes.items()}


@pytest.fixture(scope="module", params=BUILT, ids=["mask", "cascade"])
def loaded(request, tmp_path_factory):
    """(the published weights, the detector that holds them, what was reported)."""
    build, fpn = request.param
    weights = published(build, fpn)
    path = tmp_path_factory.mktemp("weights") / "published.pth"
    torch.save({"state_dict": weights, "meta": {"epoch": 36}}, path)
    detector = build("hornet_test_gf", fpn=fpn, **SMALL)
    return weights, detector, load_checkpoint(detector, path)


def test_every_tensor_arrives_and_goes_back(loaded):
    weights, detector, report = loaded
    assert set(report.loaded) == set(detector.state_dict())
    assert not report.missing
    assert not report.unexpected
    written = mmdet_state_dict(detector)
    assert set(written) == set(weights)
    for name, tensor in weights.items():
        assert torch.equal(written[name], tensor), name
    assert weights_origin(detector).source == "checkpoint published.pth, state_dict"
    assert weights_origin(detector.backbone).source == "checkpoint published.pth, state_dict"


def test_our_own_names_and_mmpretrains_are_read_as_well(loaded, tmp_path):
    weights, detector, _ = loaded
    build = cascade_mask_rcnn if len(detector.box_heads) == 3 else mask_rcnn
    spelled = {
        name.replace(".gnconv.pws.", ".gnconv.projs.") + ".weight" * name.endswith((".gamma1", ".gamma2")): tensor
        for name, tensor in weights.items()
    }
    files = {"own": detector.state_dict(), "mmpretrain": spelled, "ddp": {f"module.{k}": v for k, v in weights.items()}}
    for file, content in files.items():
        torch.save(content, tmp_path / f"{file}.pth")
        other = build("hornet_test_gf", fpn=detector.options.fpn, seed=1, **SMALL)
        load_checkpoint(other, tmp_path / f"{file}.pth")
        for name, tensor in detector.state_dict().items():
            assert torch.equal(other.state_dict()[name], tensor), (file, name)


def convolved(x, weights, name, **options):
    return F.conv2d(x, weights[f"{name}.weight"].double(), weights[f"{name}.bias"].double(), **options)


def test_box_heads_compute_what_mmdet_computes(loaded):
    """In mmdet the background is the last class, and box deltas have no entry for it."""
    weights, detector, _ = loaded
    cascade = len(detector.box_heads) == 3
    regions = torch.randn(5, 16, 7, 7, dtype=torch.float64)
    for stage, head in enumerate(detector.box_heads):
        name = f"roi_head.bbox_head.{stage}" if cascade else "roi_head.bbox_head"
        w = {key.removeprefix(f"{name}."): value.double() for key, value in weights.items() if key.startswith(name)}
        x = regions
        for i in range(4 if cascade else 0):
            conv = f"shared_convs.{i}"
            x = F.conv2d(x, w[f"{conv}.conv.weight"], padding=1)
            norm = (w[f"{conv}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
            x = F.batch_norm(x, *norm).relu()
        x = x.flatten(1)
        for i in range(1 if cascade else 2):
            x = F.linear(x, w[f"shared_fcs.{i}.weight"], w[f"shared_fcs.{i}.bias"]).relu()
        logits = F.linear(x, w["fc_cls.weight"], w["fc_cls.bias"])
        deltas = F.linear(x, w["fc_reg.weight"], w["fc_reg.bias"])
        found_logits, found_deltas = head.double()(regions)
        head.float()
        torch.testing.assert_close(found_logits[:, 1:], logits[:, :3])  # label c of ours is mmdet's class c - 1
        torch.testing.assert_close(found_logits[:, 0], logits[:, 3])
        torch.testing.assert_close(found_deltas[:, 4:], deltas)
        assert not found_deltas[:, :4].any()


def test_mask_heads_compute_what_mmdet_computes(loaded):
    weights, detector, _ = loaded
    cascade = len(detector.mask_heads) == 3
    regions = torch.randn(2, 16, 14, 14, dtype=torch.float64)
    for stage, head in enumerate(detector.mask_heads):
        name = f"roi_head.mask_head.{stage}" if cascade else "roi_head.mask_head"
        x = regions
        for i in range(4):
            x = convolved(x, weights, f"{name}.convs.{i}.conv", padding=1).relu()
        w, b = (weights[f"{name}.upsample.{part}"].double() for part in ("weight", "bias"))
        x = convolved(F.conv_transpose2d(x, w, b, stride=2).relu(), weights, f"{name}.conv_logits")
        found = head.double()(regions)
        head.float()
        torch.testing.assert_close(found[:, 1:], x)


def test_pyramid_and_proposals_compute_what_mmdet_computes(loaded):
    """Laterals, top-down sums, output convolutions; then one score and four deltas an anchor, place by place."""
    weights, detector, _ = loaded
    detector.double()
    images = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    levels = []
    for i, level in enumerate(detector.backbone.levels.body(images)):
        norm = [weights[f"backbone.norm{i}.{part}"].double() for part in ("weight", "bias")]
        levels.append(F.layer_norm(level.movedim(1, -1), level.shape[1:2], *norm, 1e-6))
    x = [convolved(level.movedim(-1, 1), weights, f"neck.lateral_convs.{i}.conv") for i, level in enumerate(levels)]
    for i in (3, 2, 1):
        x[i - 1] = x[i - 1] + F.interpolate(x[i], size=x[i - 1].shape[2:], mode="nearest")
    maps = detector.backbone(images)
    if detector.options.fpn == "fpn":
        x = [convolved(level, weights, f"neck.fpn_convs.{i}.conv", padding=1) for i, level in enumerate(x)]
        for level, found in zip(x, maps.values(), strict=False):
            torch.testing.assert_close(found, level)
    torch.testing.assert_close(maps["pool"], maps["3"][:, :, ::2, ::2])
    scores, deltas = detector.rpn.head(list(maps.values()))
    detector.float()
    for level, score, delta in zip(maps.values(), scores, deltas, strict=True):
        hidden = convolved(level, weights, "rpn_head.rpn_conv", padding=1).relu()
        torch.testing.assert_close(score, convolved(hidden, weights, "rpn_head.rpn_cls"))
        torch.testing.assert_close(delta, convolved(hidden, weights, "rpn_head.rpn_reg"))


def test_weights_that_do_not_fit_are_refused(tmp_path):
    weights = published(mask_rcnn, "fpn")
    torch.save(weights, tmp_path / "fpn.pth")
    other = mask_rcnn("hornet_test_gf", fpn="horfpn_7x7", **SMALL)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(
        CheckpointError, match=r"fpn\.pth .* does not fit this Detector: \d+ missing: .*proj_in"
    ) as error:
        load_checkpoint(other, tmp_path / "fpn.pth")
    assert "\n" not in str(error.value)
    assert "neck.fpn_convs.0.conv.weight" in error.value.unexpected
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())
    with pytest.raises(CheckpointError, match="num_classes=3"):
        load_checkpoint(mask_rcnn("hornet_test_gf", **{**SMALL, "num_classes": 5}), tmp_path / "fpn.pth")
