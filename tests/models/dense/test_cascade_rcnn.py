"""The cascade against its rules written out: boxes moved by their class's deltas, logits averaged, masks averaged."""

import math

import pytest
import torch
from torchvision.ops import batched_nms

from horinsight import cascade_mask_rcnn
from horinsight.models.dense.cascade_rcnn import STAGES, likeliest_class

CLASSES = 2
SIZE = (64, 96)


@pytest.fixture(scope="module")
def detector():
    """In float64, its predictions far from zero, so that boxes move and classes differ."""
    found = cascade_mask_rcnn("hornet_test", channels=8, box_width=16, num_classes=CLASSES, min_size=64).double()
    with torch.no_grad():
        for head in found.box_heads:
            head.fc_cls.weight.mul_(200)
            head.fc_reg.weight.mul_(1000)
    return found


@pytest.fixture(scope="module")
def scene(detector):
    """Maps of a picture, proposals in it."""
    generator = torch.Generator().manual_seed(0)
    maps = detector.backbone(torch.randn(1, 3, *SIZE, generator=generator, dtype=torch.float64))
    corner = torch.rand(30, 2, generator=generator, dtype=torch.float64) * 40
    sides = 8 + torch.rand(30, 2, generator=generator, dtype=torch.float64) * 16
    return {name: level.detach() for name, level in maps.items()}, torch.cat([corner, corner + sides], 1)


def moved_box(box, delta, weights):
    """Centre and sides moved by d / weight, the sides by its exponential; then cut at the picture's edges."""
    x1, y1, x2, y2 = box.tolist()
    dx, dy, dw, dh = (d / w for d, w in zip(delta.tolist(), weights, strict=True))
    w, h = x2 - x1, y2 - y1
    x, y = x1 + w / 2 + dx * w, y1 + h / 2 + dy * h
    w, h = w * math.exp(min(dw, math.log(1000 / 16))), h * math.exp(min(dh, math.log(1000 / 16)))
    corners = [(x - w / 2, SIZE[1]), (y - h / 2, SIZE[0]), (x + w / 2, SIZE[1]), (y + h / 2, SIZE[0])]
    return torch.tensor([min(max(value, 0), most) for value, most in corners], dtype=torch.float64)


def test_inference_written_out(detector, scene):
    maps, proposals = scene
    heads, pool = detector.roi_heads, detector.roi_heads.stages[0].box_roi_pool
    boxes, logits = proposals, []
    for head, (_, weights, _) in zip(detector.box_heads, STAGES, strict=True):
        scores, deltas = head(pool(maps, [boxes], [SIZE]))
        logits.append(scores)
        deltas = deltas.reshape(len(boxes), CLASSES + 1, 4)
        best = [int(torch.argmax(row[1:])) + 1 for row in scores]
        before = boxes
        boxes = torch.stack([moved_box(box, d[c], weights) for box, d, c in zip(boxes, deltas, best, strict=True)])
    assert not torch.allclose(before, proposals)
    probabilities = torch.softmax(sum(logits) / 3, 1)
    each = [
        (moved_box(before[i], deltas[i, c], STAGES[2][1]), probabilities[i, c], c)
        for i in range(len(before))
        for c in range(1, CLASSES + 1)
        if probabilities[i, c] > 0.05
    ]
    each = [entry for entry in each if bool((entry[0][2:] - entry[0][:2] >= 0.01).all())]
    box, score = torch.stack([entry[0] for entry in each]), torch.stack([entry[1] for entry in each])
    label = torch.tensor([entry[2] for entry in each])
    keep = batched_nms(box, score, label, 0.5)[:100]
    with torch.no_grad():
        found, losses = heads.eval()(maps, [proposals], [SIZE])
    assert not losses
    torch.testing.assert_close(found[0]["boxes"], box[keep])
    torch.testing.assert_close(found[0]["scores"], score[keep])
    assert torch.equal(found[0]["labels"], label[keep])
    assert set(label[keep].tolist()) == {1, 2}

    pooled = heads.stages[2].mask_roi_pool(maps, [found[0]["boxes"]], [SIZE])
    masks = sum(head(pooled).sigmoid() for head in detector.mask_heads) / 3
    expected = torch.stack([mask[c] for mask, c in zip(masks, label[keep], strict=True)])
    torch.testing.assert_close(found[0]["masks"][:, 0], expected)


def test_training_hands_moved_boxes_on(detector, scene, monkeypatch):
    """Each stage asks for more overlap; of what it moves, the objects' own boxes are not handed on."""
    maps, proposals = scene
    target = {
        "boxes": proposals[:1] + 1,
        "labels": torch.tensor([2]),
        "masks": torch.ones(1, *SIZE, dtype=torch.uint8),
    }
    entering, sampled = [], []
    for stage in detector.roi_heads.stages:
        select = stage.select_training_samples

        def recorded(given, targets, select=select):
            entering.append(given[0])
            sampled.append(select(given, targets))
            return sampled[-1]

        monkeypatch.setattr(stage, "select_training_samples", recorded)
    with torch.no_grad():
        _, losses = detector.roi_heads.train()(maps, [proposals], [SIZE], [target])
    detector.eval()
    assert [stage.proposal_matcher.high_threshold for stage in detector.roi_heads.stages] == [0.5, 0.6, 0.7]
    assert sorted(losses) == [f"loss_{what}_{k}" for what in ("box_reg", "classifier", "mask") for k in (1, 2, 3)]
    torch.testing.assert_close(entering[0], proposals)
    (boxes,), _, (labels,), _ = sampled[0]
    own = (boxes == target["boxes"]).all(1)
    assert own.sum() == 1
    assert labels[own].tolist() == [2]
    pool, head = detector.roi_heads.stages[0].box_roi_pool, detector.box_heads[0].train()
    logits, deltas = head(pool(maps, [boxes], [SIZE]))
    detector.eval()
    classes = [int(label) or int(torch.argmax(row[1:])) + 1 for label, row in zip(labels, logits, strict=True)]
    deltas = deltas.reshape(len(boxes), CLASSES + 1, 4)
    moved = [moved_box(box, d[c], STAGES[0][1]) for box, d, c in zip(boxes, deltas, classes, strict=True)]
    torch.testing.assert_close(entering[1], torch.stack(moved)[~own])


def test_the_likeliest_class_is_never_the_background():
    assert likeliest_class(torch.tensor([[9.0, 1, 2], [9, 3, 2]])).tolist() == [2, 1]
