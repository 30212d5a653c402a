"""Small detectors learn to find bright shapes, on a CPU: `python experiments/detector_training.py --help`."""

import argparse
import time

import torch
from bright_shapes import bright_shapes
from torch import Tensor
from torchvision.ops import box_iou

import horinsight

SIZES = [(64, 64), (96, 80)]  # of the pictures that are tested on; those trained on have the first
BUILDERS = {"mask_rcnn": horinsight.mask_rcnn, "cascade_mask_rcnn": horinsight.cascade_mask_rcnn}
LAST = 10  # steps over which the loss is averaged


def trained(detector: horinsight.Detector, steps: int, batch: int, learning_rate: float) -> list[float]:
    """The loss of each step; the detector is in eval mode afterwards."""
    detector.train()
    optimizer = torch.optim.AdamW(detector.parameters(), lr=learning_rate)
    losses = []
    for step in range(steps):
        loss = sum(detector(*bright_shapes(batch, SIZES[0], seed=step)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    detector.eval()
    return losses


def agreement(detector: horinsight.Detector, size: tuple[int, int], count: int) -> Tensor:
    """(box IoU, mask IoU, whether the label is right) of the best detection, the mean over new pictures."""
    pictures, targets = bright_shapes(count, size, seed=10**6)
    rows = []
    with torch.no_grad():
        for found, target in zip(detector(pictures), targets, strict=True):
            if not len(found["boxes"]):
                rows.append([0.0, 0.0, 0.0])
                continue
            mask, wanted = found["masks"][0, 0] > 0.5, target["masks"][0] > 0
            overlap = float((mask & wanted).sum() / (mask | wanted).sum())
            right = float(found["labels"][0] == target["labels"][0])
            rows.append([float(box_iou(found["boxes"][:1], target["boxes"])), overlap, right])
    return torch.tensor(rows).mean(0)


def main() -> None:
    """One line a detector."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="hornet_test")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--pictures", type=int, default=20, help="tested on, of each size")
    arguments = parser.parse_args()
    print("| detector | first loss | last losses | IoU of boxes, 64x64 / 96x80 | of masks | labels | time |")
    print("|---|---|---|---|---|---|---|")
    layout = {"channels": 16, "box_width": 64, "num_classes": 2, "min_size": 64, "max_size": 128}
    for name, build in BUILDERS.items():
        for fpn in ("fpn", "horfpn_7x7", "horfpn_gf"):
            torch.manual_seed(0)
            detector = build(arguments.backbone, fpn=fpn, **layout)
            start = time.perf_counter()
            losses = trained(detector, arguments.steps, arguments.batch, arguments.learning_rate)
            seconds = time.perf_counter() - start
            scores = torch.stack([agreement(detector, size, arguments.pictures) for size in SIZES]).T
            cells = " | ".join(" / ".join(f"{value:.2f}" for value in row) for row in scores)
            print(
                f"| {name}, {fpn} | {losses[0]:.2f} | {sum(losses[-LAST:]) / LAST:.2f} | {cells} | {seconds:.0f} s |",
                flush=True,
            )


if __name__ == "__main__":
    main()
