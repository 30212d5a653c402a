"""Calling a method that makes maps: what it may count on, and what it leaves as it was."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from horinsight.attribution.map_cells import checked_maps

Method = Callable[[Tensor, Tensor], Tensor]  # images (B, C, H, W), targets (B,) → maps (B, h, w)


def called(method: Method, images: Tensor, targets: Tensor, *, name: str, seeds: Sequence[int]) -> Tensor:
    """Maps of a method, checked and detached.

    It gets copies of the images and targets, gradients are recorded, and torch's random numbers follow from the seeds
    and the method's name; afterwards they go on as if it had drawn none.

    Args:
        method: what makes maps.
        images: (B, C, H, W).
        targets: (B,).
        name: of the method.
        seeds: what its random numbers follow from.

    Raises:
        TypeError: it gives no tensor of floating point.
        ValueError: it gives no maps (B, h, w), or values that are not finite.

    Example:
        >>> called(lambda x, t: x.sum(1), torch.ones(1, 3, 1, 2), torch.zeros(1), name="sum", seeds=[0]).tolist()
        [[[3.0, 3.0]]]
    """
    with _drawing_from([*seeds, crc32(name.encode())], images.device), torch.enable_grad():
        maps = method(images.detach().clone(), targets.clone())
    return checked_maps(maps, images, name)


@contextmanager
def _drawing_from(numbers: Sequence[int], device: torch.device) -> Iterator[None]:
    """torch's random numbers from these, and as they were afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(np.random.default_rng(numbers).integers(2**63)))
        yield
