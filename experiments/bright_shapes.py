"""Pictures of bright rectangles and discs on dim noise, with what a detector learns from."""

import torch
from torch import Tensor

RECTANGLE, DISC = 1, 2


def bright_shapes(count: int, size: tuple[int, int], *, seed: int) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Pictures (3, H, W) with one shape each, a third to two thirds as high and wide as they are, and their targets."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(*(torch.arange(side) + 0.5 for side in size), indexing="ij")
    pictures, targets = [], []
    for _ in range(count):
        label = int(torch.randint(RECTANGLE, DISC + 1, (), generator=generator))
        height, width = (side * (1 + float(torch.rand((), generator=generator))) / 3 for side in size)
        if label == DISC:
            height = width = min(height, width)
        top, left = (
            float(torch.rand((), generator=generator)) * (side - extent)
            for side, extent in zip(size, (height, width), strict=True)
        )
        y, x = (rows - top) / height - 0.5, (columns - left) / width - 0.5
        mask = (y**2 + x**2 < 0.25) if label == DISC else (y.abs() < 0.5) & (x.abs() < 0.5)
        picture = 0.3 * torch.rand(3, *size, generator=generator)
        picture[:, mask] = torch.rand(3, 1, generator=generator) * 0.3 + 0.7
        pictures.append(picture)
        inside = mask.nonzero()
        (y1, x1), (y2, x2) = inside.amin(0).tolist(), (inside.amax(0) + 1).tolist()
        targets.append(
            {
                "boxes": torch.tensor([[x1, y1, x2, y2]], dtype=torch.float32),
                "labels": torch.tensor([label]),
                "masks": mask[None].to(torch.uint8),
            }
        )
    return pictures, targets
