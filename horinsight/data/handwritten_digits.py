"""The handwritten digits of scikit-learn as pictures, and the fixed split into training and held-out ones."""

from functools import cache

import numpy as np
from PIL import Image

SPLIT_SEED = 0
HELD_OUT = 5  # one picture in so many is never trained on


@cache
def digit_arrays() -> tuple[np.ndarray, np.ndarray]:
    """All 1 797 pictures, (N, 8, 8) uint8, and their labels, (N,)."""
    from sklearn.datasets import load_digits  # takes a second: only who asks for digits waits

    found = load_digits()
    return (found.images * 255 / 16).round().astype(np.uint8), found.target


def digit_split() -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on, and the held-out fifth: a permutation by a fixed seed."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(digit_arrays()[1]))
    count = len(order) // HELD_OUT
    return order[count:], order[:count]


def digit_picture(row: int) -> Image.Image:
    """One picture, 8x8, RGB."""
    return Image.fromarray(digit_arrays()[0][row]).convert("RGB")


def sample_digit(digit: int) -> Image.Image:
    """The first held-out picture of a digit.

    Example:
        >>> sample_digit(3).size
        (8, 8)
    """
    held_out = digit_split()[1]
    return digit_picture(int(held_out[digit_arrays()[1][held_out] == digit][0]))
