"""Which blocks and positions are shown: Figure 4's or drawn ones, and one place of a picture on maps of any size."""

from collections.abc import Mapping

import numpy as np

from horinsight.mixing.downsampling import stride_windows

FIGURE_4_BLOCKS = (1, 3, 5, 7, 8, 12)


def figure_blocks(map_sizes: Mapping[str, tuple[int, int] | None], *, count: int = 6) -> tuple[int, ...]:
    """Which blocks to show when nobody says: those of Figure 4, or `count` spread over the most frequent map size.

    Args:
        map_sizes: of all blocks, see `block_map_sizes`.
        count: how many at most.

    Returns:
        Indices, from 1.

    Example:
        >>> figure_blocks({f"blocks.{i}": (14, 14) for i in range(13)})
        (1, 3, 5, 7, 8, 12)
        >>> figure_blocks({"a": (8, 8), "b": (4, 4), "c": (4, 4), "d": (2, 2)}, count=2)
        (2, 3)
    """
    sizes = list(map_sizes.values())
    known = [size for size in sizes if size is not None and size[0] * size[1] > 1]
    if not known:
        return tuple(range(1, min(count, len(sizes)) + 1))
    if len(set(sizes)) == 1 and len(sizes) >= max(FIGURE_4_BLOCKS) and count == len(FIGURE_4_BLOCKS):
        return FIGURE_4_BLOCKS
    frequent = max(set(known), key=lambda size: (known.count(size), size))
    places = [index for index, size in enumerate(sizes, 1) if size == frequent]
    spread = np.linspace(0, len(places) - 1, min(count, len(places))).round().astype(int)
    return tuple(places[place] for place in spread)


def random_queries(
    num_images: int, per_image: int, map_size: tuple[int, int], *, seed: int
) -> list[list[tuple[int, int]]]:
    """Distinct cells for each image, drawn by seed: image → [(row, col), …].

    Example:
        >>> random_queries(1, 2, (14, 14), seed=0)
        [[(11, 9), (5, 1)]]
    """
    generator = np.random.default_rng(seed)
    H, W = map_size
    cells = [generator.permutation(H * W)[:per_image] for _ in range(num_images)]
    return [[(int(cell) // W, int(cell) % W) for cell in chosen] for chosen in cells]


def same_place(query: tuple[int, int], size: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    """The cell of another map, of size `other`, at the place of a cell of a map of size `size`.

    Where a whole stride leads from the finer map to the coarser one (25 to 13 is stride 2, padded), the coarse cell
    whose window holds the fine one, or the fine cell in the middle of that window; else the cell that holds the centre.

    Example:
        >>> same_place((23, 11), (24, 24), (3, 3))
        (2, 1)
        >>> same_place((13, 24), (25, 25), (13, 13)), same_place((6, 12), (13, 13), (25, 25))
        ((6, 12), (13, 24))
    """
    row, col = (_same_index(q, s, o) for q, s, o in zip(query, size, other, strict=True))
    return row, col


def _same_index(q: int, size: int, other: int) -> int:
    windows = stride_windows(max(size, other), min(size, other))
    if windows is None:
        return (2 * q + 1) * other // (2 * size)
    if size < other:
        return windows[q][len(windows[q]) // 2]
    return next((o for o, window in enumerate(windows) if q in window), other - 1)
