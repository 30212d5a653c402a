"""Detectors as they are used: pictures in, objects out in the pictures' coordinates; what does not fit is one line."""

import pytest
import timm
import torch
from bright_shapes import bright_shapes
from PIL import Image
from torchvision.ops import box_iou

from horinsight import DetectorOptions, cascade_mask_rcnn, image_batch, mask_rcnn
from horinsight.models.origin import weights_origin

TINY = {"channels": 16, "box_width": 64, "num_classes": 2, "min_size": 64, "max_size": 128}
STEPS = 40
SIZES = [(64, 64), (96, 80)]


def trained_detector() -> tuple[torch.nn.Module, list[float]]:
    detector = mask_rcnn("hornet_test", **TINY).train()
    optimizer = torch.optim.AdamW(detector.parameters(), lr=3e-3)
    losses = []
    for step in range(STEPS):
        loss = sum(detector(*bright_shapes(1, SIZES[0], seed=step)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return detector.eval(), losses


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    return trained_detector()


def best_overlaps(detector: torch.nn.Module) -> torch.Tensor:
    """IoU of the box of the highest score with the shape, in pictures that were not trained on."""
    found = []
    for size in SIZES:
        pictures, targets = bright_shapes(4, size, seed=10**6)
        with torch.no_grad():
            for detection, target in zip(detector(pictures), targets, strict=True):
                overlaps = box_iou(detection["boxes"][:1], target["boxes"])
                found.append(float(overlaps) if len(overlaps) else 0.0)
    return torch.tensor(found)


def test_a_small_detector_learns_to_find_shapes(trained):
    detector, losses = trained
    assert sum(losses[-10:]) / 10 < losses[0] / 2
    untrained, learned = best_overlaps(mask_rcnn("hornet_test", **TINY)), best_overlaps(detector)
    assert (learned > 0).float().mean() > 0.8
    assert learned.mean() > 2 * untrained.mean()


def test_boxes_and_masks_are_in_the_pictures_coordinates(trained):
    """Two pictures of two sizes in one batch, each brought to another size before the network sees it."""
    detector, _ = trained
    pictures = [bright_shapes(1, size, seed=3)[0][0] for size in [(64, 64), (200, 120)]]
    with torch.no_grad():
        detections = detector(pictures)
    for picture, found in zip(pictures, detections, strict=True):
        height, width = picture.shape[1:]
        boxes, count = found["boxes"], len(found["boxes"])
        assert count
        assert bool((boxes >= 0).all())
        assert bool((boxes[:, [0, 2]] <= width).all())
        assert bool((boxes[:, [1, 3]] <= height).all())
        assert found["masks"].shape == (count, 1, height, width)
        assert 0 <= float(found["masks"].min()) <= float(found["masks"].max()) <= 1
        assert found["scores"].shape == found["labels"].shape == (count,)
        assert set(found["labels"].tolist()) <= {1, 2}
        assert bool((found["scores"][1:] <= found["scores"][:-1]).all())
        rows, columns = (found["masks"][0, 0] > 0.5).nonzero().T
        x1, y1, x2, y2 = boxes[0].tolist()  # of a mask lies nothing outside its box, but for half a pixel
        assert x1 - 1 <= columns.min()
        assert columns.max() <= x2 + 1
        assert y1 - 1 <= rows.min()
        assert rows.max() <= y2 + 1


def test_a_batch_is_a_list_of_its_pictures(trained):
    detector, _ = trained
    pictures = torch.stack(bright_shapes(2, (64, 96), seed=5)[0])
    with torch.no_grad():
        for a, b in zip(detector(pictures), detector(list(pictures)), strict=True):
            assert all(torch.equal(a[key], b[key]) for key in ("boxes", "labels", "scores", "masks"))


def test_pictures_are_prepared_by_the_detector_itself():
    """`image_batch` leaves colours as they are, so that they are normalised once; for the backbone it does it."""
    detector = mask_rcnn("hornet_test", **TINY)
    picture = Image.fromarray((torch.rand(96, 96, 3) * 255).byte().numpy())
    colours = image_batch(detector, [picture])
    prepared = image_batch(detector.backbone, [picture])
    images, _ = detector.transform(list(colours))
    assert -1e-6 < float(colours.min()) < float(colours.max()) < 1 + 1e-6
    torch.testing.assert_close(detector.transform.normalize(colours[0]), prepared[0])
    assert images.tensors.shape == (1, 3, 64, 64)


def test_weights_come_from_the_seed_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    a, b = (cascade_mask_rcnn("hornet_test", seed=1, **TINY).state_dict() for _ in range(2))
    c = cascade_mask_rcnn("hornet_test", seed=2, **TINY)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, b[name]) for name, tensor in a.items())
    assert not torch.equal(a["roi_heads.stages.2.box_head.fc_cls.weight"], c.box_heads[2].fc_cls.weight)
    assert weights_origin(c).source == weights_origin(c.backbone).source == "random, seed 2"
    assert not c.training


BACKBONES = {  # name → options of its constructor, whether norms follow its levels
    "resnet18": ({}, False),
    "test_efficientnet": ({}, False),
    "test_convnext": ({}, True),
    "swin_tiny_patch4_window7_224": ({"embed_dim": 8, "num_heads": (1, 1, 2, 2), "depths": (1, 1, 1, 1)}, True),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_any_hierarchical_backbone_of_timm(name):
    options, normed = BACKBONES[name]
    detector = mask_rcnn(name, backbone_options=options, **TINY)
    norms = [getattr(detector.backbone.levels, f"norm{level}") for level in range(4)]
    assert [isinstance(norm, torch.nn.LayerNorm) for norm in norms] == [normed] * 4
    with torch.no_grad():
        maps = detector.backbone(torch.randn(1, 3, 64, 96))
        (found,) = detector([torch.rand(3, 64, 96)])
    sizes = [tuple(level.shape[1:]) for level in maps.values()]
    assert sizes == [(16, 16, 24), (16, 8, 12), (16, 4, 6), (16, 2, 3), (16, 1, 2)]
    assert found["masks"].shape[2:] == (64, 96)


def refused(call) -> str:
    with pytest.raises(ValueError, match=r".") as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_backbones_without_four_levels_are_refused():
    assert "four levels of strides 4, 8, 16, 32, got strides 16, 16" in refused(lambda: mask_rcnn("test_vit"))
    assert "four levels" in refused(lambda: mask_rcnn(timm.create_model("resnet18", features_only=True)))
    assert "features_only=True, got ResNet" in refused(lambda: mask_rcnn(timm.create_model("resnet18")))
    assert "Unknown model 'hornet_tini_7x7'" in refused(lambda: mask_rcnn("hornet_tini_7x7"))
    three = timm.create_model("resnet18", features_only=True, out_indices=(1, 2, 3))
    assert "got strides 4, 8, 16 from FeatureListNet" in refused(lambda: mask_rcnn(three))


def test_a_backbone_that_is_built_is_taken():
    body = timm.create_model("hornet_test", features_only=True)
    assert mask_rcnn(body, **TINY).backbone.levels.body is body
    assert "backbone_options" in refused(lambda: mask_rcnn(body, backbone_options={"drop_path_rate": 0.1}))


def test_options_are_refused_in_one_line():
    assert "fpn expects one of fpn, horfpn_7x7, horfpn_gf, got 'bifpn'" in refused(lambda: DetectorOptions(fpn="bifpn"))
    assert "num_classes expects" in refused(lambda: mask_rcnn("hornet_test", num_classes=0))
    assert "max_size expects" in refused(lambda: mask_rcnn("hornet_test", max_size=100))
    with pytest.raises(TypeError, match="unexpected keyword argument 'classes'"):
        mask_rcnn("hornet_test", classes=3)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ([torch.rand(3, 31, 64)], "at least 32 pixels a side, its backbone's largest stride, got 31x64"),
        ([torch.rand(64, 64)], r"got shape (64, 64)"),
        ([], "at least one picture, got none"),
        (["cat.png"], "got str"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(images, said):
    detector = mask_rcnn("hornet_test", **TINY)
    assert said in refused(lambda: detector(images))
    assert "at least 32 pixels" in refused(lambda: detector.backbone(torch.zeros(1, 3, 16, 64)))


def target(**changed) -> dict:
    good = {
        "boxes": torch.tensor([[4.0, 4, 40, 30]]),
        "labels": torch.tensor([2]),
        "masks": torch.zeros(1, 64, 64, dtype=torch.uint8),
    }
    return {key: value for key, value in {**good, **changed}.items() if value is not None}


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (None, "expects targets, got none"),
        ([], "one dictionary per picture, 1 here, got 0"),
        ([target(masks=None)], "targets[0] expects boxes, labels and masks, got boxes, labels: masks are missing"),
        ([target(boxes=[[0, 0, 1, 1]])], "targets[0]['boxes'] expects a tensor, got list"),
        ([target(boxes=torch.zeros(4))], "['boxes'] expects shape (N, 4), got (4,)"),
        ([target(labels=torch.tensor([1, 2]))], "['labels'] expects shape (1,), one a box, got (2,)"),
        ([target(masks=torch.zeros(1, 32, 32))], "['masks'] expects shape (1, 64, 64), one a box, got (1, 32, 32)"),
        ([target(boxes=torch.tensor([[4.0, 4, 4, 30]]))], "['boxes'][0] expects x1 < x2 and y1 < y2"),
        ([target(boxes=torch.tensor([[4.0, 4, float("nan"), 30]]))], "expects x1 < x2 and y1 < y2"),
        ([target(boxes=torch.tensor([[4.0, 4, 65, 30]]))], "inside its picture of 64x64 pixels"),
        ([target(boxes=torch.tensor([[4, 4, 40, 30]]))], "floating-point numbers, got torch.int64"),
        ([target(labels=torch.tensor([3]))], "expects 1 to 2 (0 is the background), got 3"),
        ([target(labels=torch.tensor([0]))], "expects 1 to 2 (0 is the background), got 0"),
        ([target(labels=torch.tensor([1.0]))], "expects int64, got torch.float32"),
    ],
)
def test_targets_that_do_not_fit_are_refused(targets, said):
    detector = mask_rcnn("hornet_test", **TINY).train()
    assert said in refused(lambda: detector([torch.rand(3, 64, 64)], targets))


def test_a_picture_without_objects_is_background():
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "masks": torch.zeros(0, 64, 64)}
    for build in (mask_rcnn, cascade_mask_rcnn):
        losses = build("hornet_test", **TINY).train()([torch.rand(3, 64, 64)], [nothing])
        assert all(bool(loss.isfinite()) for loss in losses.values())
        sum(losses.values()).backward()
