"""How far the positions of each block of a network reach: within the mixer, the residual block, or back to the image.

Influence (`influence`) is measured block by block at what real images make of their inputs. From the output of a block
back to the image its map is the effective receptive field (Luo et al. 2016, arXiv 1701.04128). The radius of a share is
the least distance from the query within which lies that share of Σ_j I_ij²: squares add up, and random signs estimate
them without bias.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Unpack

import numpy as np
from torch import Tensor, nn

from horinsight.capture import image_size_of
from horinsight.data.picture_batches import tensor_stream
from horinsight.data.picture_stream import PictureStream
from horinsight.mixers.blocks import MixingBlock, chosen_blocks
from horinsight.mixing.block_influence import Cell, ReachScope, block_influences
from horinsight.mixing.influence import signs_generator
from horinsight.mixing.influence_options import InfluenceOptions, ModelInfluenceKeywords
from horinsight.mixing.mixing_results import QueryMaps
from horinsight.mixing.query_places import random_queries, same_place
from horinsight.mixing.reach_results import SHARES, Influence, Reach
from horinsight.mixing.running_reach import RunningReach
from horinsight.models.provenance import model_provenance, picture_names
from horinsight.options import made
from horinsight.results import Provenance, ResultSet

PROBES = 16  # by default: each is a backward pass a query
ROUNDING = 1e-12  # of the whole, by which a sum of squares in float64 may miss its share


def model_influence(
    model: nn.Module,
    images: Tensor | PictureStream,
    *,
    blocks: Sequence[int] | None = None,
    queries: int | Sequence[Cell] | None = None,
    scope: ReachScope = "mixer",
    options: InfluenceOptions | None = None,
    provenance: Provenance | None = None,
    on_block: Callable[[MixingBlock, Reach], None] | None = None,
    **given: Unpack[ModelInfluenceKeywords],
) -> ResultSet[Reach]:
    """Influence on positions of each block's output, with the radii that hold 50, 90 and 99 % of it.

    Args:
        model: a network with blocks (`named_blocks`); left as it was. One in half precision is analysed in float32.
        images: (B, 3, H, W), prepared as the model expects them, or a stream of pictures (`picture_stream`). They are
            measured batch by batch; random signs are the same whatever the batches.
        blocks: indices of the blocks (from 1); all when None.
        queries: (row, column) on the map that the first of the blocks puts out; on another block's map the cell at the
            same place of the picture. A number draws so many cells by seed. The middle of the map when None.
        scope: from where influence is taken to the block's output: from what enters the "mixer" alone, or the residual
            "block" with its norms and feed-forward part, or from the "image", the effective receptive field.
        options: how; `PROBES` random sign vectors for each image and query when None.
        provenance: of the result; made of the model and the images when None.
        on_block: called with each block that is finished, for progress.
        **given: fields of `InfluenceOptions` as keyword arguments, in place of those of `options`; `model_name` and
            `image_names` for a provenance that is made here; `shown`, numbers of the pictures whose maps are kept, all
            when None: of many, maps are what fills the memory.

    Returns:
        Block name → reach, in the order of the network.

    Raises:
        ValueError: no such block, a query off the map, a block whose output has no map (see `influence`), or images
            that do not fit.

    Example:
        >>> import torch
        >>> from horinsight.models.registry import create_model
        >>> model, images = create_model("hornet_test_iso"), torch.randn(2, 3, 96, 96)
        >>> found = model_influence(model, images, blocks=[1, 3], scope="image", probes=2)
        >>> {name: reach.influence.squares.shape for name, reach in found.items()}
        {'blocks.0.gnconv': (2, 1, 96, 96), 'blocks.2.gnconv': (2, 1, 96, 96)}
    """
    model_name, image_names = given.pop("model_name", None), given.pop("image_names", None)
    shown = given.pop("shown", None)
    usual = InfluenceOptions(probes=PROBES) if options is None else options
    asked = made(InfluenceOptions, usual, given, caller="model_influence")
    size = images.image_size if isinstance(images, PictureStream) else image_size_of(images)
    chosen = chosen_blocks(model, blocks, image_size=size)
    if provenance is None:
        names = picture_names(images) if isinstance(images, Tensor) else images.names
        provenance = model_provenance(
            model, model_name=model_name, image_names=names if image_names is None else image_names, seed=asked.seed
        )
    first: list[tuple[Sequence[Cell], Cell]] = []
    running = {block.name: RunningReach(shown) for block in chosen}
    generators = {block.name: signs_generator(asked.seed) for block in chosen}
    count = len(images)

    def cells(out_size: Cell) -> list[Cell]:
        if not first:
            first.append((first_cells(queries, out_size, asked.seed), out_size))
        wanted, wanted_on = first[0]
        return [same_place(cell, wanted_on, out_size) for cell in wanted]

    def keep(block: MixingBlock, influences: Influence) -> None:
        sums = running[block.name]
        sums.update(reach_of(influences, image_size=size, scope=scope, provenance=provenance))
        if on_block is not None and sums.count == count:
            on_block(block, sums.compute())

    for batch in images if isinstance(images, PictureStream) else tensor_stream(images, ("",) * count):
        block_influences(
            model, batch.images, chosen, scope=scope, cells=cells, keep=keep, options=asked, generators=generators
        )
        del batch  # before the next one is made
    return ResultSet({name: sums.compute() for name, sums in running.items()})


def reach_of(
    influences: Influence, *, image_size: tuple[int, int], scope: str = "operator", provenance: Provenance | None = None
) -> Reach:
    """Radii and totals of influence between two maps.

    Args:
        influences: on maps, not on tokens that form none.
        image_size: (H, W) in pixels that the input's map covers.
        scope: for the convention.
        provenance: model, weights and images, where known.

    Example:
        >>> import torch
        >>> from horinsight.mixing.influence import influence
        >>> blur = nn.AvgPool2d(3, 1, 1)
        >>> found = reach_of(influence(blur, torch.zeros(1, 1, 7, 7), queries=[(3, 3)]), image_size=(14, 14))
        >>> found.radii[0, 0].round(3).tolist(), found.radii_pixels[0, 0].round(3).tolist()
        ([1.0, 1.414, 1.414], [2.0, 2.828, 2.828])
    """
    squares, cells, out_size = influences.squares, influences.queries, influences.output_shape
    radii = np.empty((*squares.shape[:2], len(SHARES)))
    pixels = np.empty_like(radii)
    for place, cell in enumerate(cells):
        away = _displacements(cell, out_size, squares.shape[2:])  # (2, rows, columns), in shares of the map
        for kept, unit in ((radii, out_size), (pixels, image_size)):
            distance = np.hypot(away[0] * unit[0], away[1] * unit[1])
            kept[:, place] = [_radii(square, distance) for square in squares[:, place]]
    return Reach(
        influence=influences,
        radii=radii,
        radii_pixels=pixels,
        totals=np.sqrt(squares.sum((2, 3))),
        convention={
            **influences.convention,
            "scope": scope,
            "radius": "least distance within which lies the share of the sum over j of I_ij^2",
            "distance": "from the middle of the query's cell, in cells of the output's map and in pixels",
            "total": "sqrt(sum over j of I_ij^2)",
            "standard_error_of_radii": "over pictures, of the mean over queries; radii come in steps, so that few "
            "pictures that agree tell no spread",
        },
        provenance=provenance,
    )


def influence_maps(
    reaches: Mapping[str, Reach], *, pictures: np.ndarray, image_names: Sequence[str], block_indices: Sequence[int]
) -> QueryMaps:
    """I_ij of some blocks in the form of mixing weights, for figures and files; of the pictures that are shown.

    Args:
        reaches: of `model_influence`, by block name.
        pictures: (images, height, width, 3) uint8, as the model sees them.
        image_names: of these pictures.
        block_indices: of the blocks, in their order.
    """
    first = next(iter(reaches.values()))
    num_images, num_queries = first.influence.squares.shape[:2]
    return QueryMaps(
        maps={name: np.concatenate(list(reach.influence.maps)) for name, reach in reaches.items()},
        queries={name: np.tile(reach.influence.queries, (num_images, 1)) for name, reach in reaches.items()},
        pictures=pictures,
        picture_of_entry=np.repeat(np.arange(num_images), num_queries),
        block_indices=tuple(block_indices),
        image_names=tuple(image_names),
        reconstruction_errors=(),
        convention={
            **first.convention,
            "weights": "influence I_ij",
            "mean_over": "channel pairs (root mean square)",
            "channel": "mean",
            "step": "last",
        },
        provenance=first.provenance,
    )


def _displacements(cell: np.ndarray, out_size: tuple[int, ...], in_size: tuple[int, ...]) -> np.ndarray:
    """From the middle of an output cell to those of all input cells, along both sides, in shares of the map."""
    sides = [
        (np.arange(many) + 0.5) / many - (at + 0.5) / few for at, few, many in zip(cell, out_size, in_size, strict=True)
    ]
    return np.stack(np.meshgrid(*sides, indexing="ij"))


def _radii(square: np.ndarray, distance: np.ndarray) -> list[float]:
    """The least distances within which lie the shares."""
    order = np.argsort(distance, axis=None, kind="stable")
    within, away = np.cumsum(square.ravel()[order]), distance.ravel()[order]
    if not within[-1]:
        return [float("nan")] * len(SHARES)
    return [float(away[np.argmax(within >= (share - ROUNDING) * within[-1])]) for share in SHARES]


def first_cells(queries: int | Sequence[Cell] | None, size: Cell, seed: int) -> Sequence[Cell]:
    """The queries on the first block's map."""
    if queries is None:
        return [(size[0] // 2, size[1] // 2)]
    if isinstance(queries, int):
        if queries < 1:
            raise ValueError(f"queries expects at least 1, got {queries}.")
        drawn: list[Cell] = random_queries(1, queries, size, seed=seed)[0]
        return drawn
    for cell in queries:
        if len(cell) != 2 or not (0 <= cell[0] < size[0] and 0 <= cell[1] < size[1]):
            raise ValueError(f"A query expects a row and a column on this {size[0]}x{size[1]} map, got {cell}.")
    return queries
