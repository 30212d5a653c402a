"""Where chosen positions of pictures look, block by block: the maps of Figure 4, as arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, nn

from horinsight.data.preprocess import model_view
from horinsight.mixing.extraction import model_mixing_weights
from horinsight.mixing.weights import MixingWeights
from horinsight.models.blocks import chosen_blocks
from horinsight.models.registry import model_provenance
from horinsight.results import Provenance

FIGURE_4_BLOCKS = (1, 3, 5, 7, 8, 12)


@dataclass(frozen=True)
class QueryMaps:
    """Mixing weights of some queries, averaged over channels (or heads): (1/C) Σ_c h_ij^c over j.

    One entry is one query on one picture.

    Attributes:
        maps: block name → (entries, H, W).
        queries: block name → (entries, 2), row and column of the query on that block's map.
        pictures: (images, height, width, 3) uint8, as the model sees them.
        picture_of_entry: (entries,) index into `pictures`.
        block_indices: the blocks, from 1, in the order of `maps`.
        image_names: of the pictures.
        reconstruction_errors: of each block, relative to its largest |p_n|.
        convention: what is shown, in words.
        provenance: model, weights and images.
    """

    maps: Mapping[str, np.ndarray]
    queries: Mapping[str, np.ndarray]
    pictures: np.ndarray
    picture_of_entry: np.ndarray
    block_indices: tuple[int, ...]
    image_names: tuple[str, ...]
    reconstruction_errors: tuple[float, ...]
    convention: Mapping[str, str] = field(default_factory=dict)
    provenance: Provenance | None = None


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


def query_maps(
    model: nn.Module,
    images: Tensor,
    queries: Sequence[Sequence[tuple[int, int]]],
    *,
    blocks: Sequence[int] | None = None,
    step: int | None = None,
    seed: int = 0,
    model_name: str | None = None,
    image_names: Sequence[str] | None = None,
) -> QueryMaps:
    """Channel-mean mixing weights of given queries, in one forward pass.

    Args:
        model: see `model_mixing_weights`.
        images: (B, 3, H, W), prepared.
        queries: for each image its queries (row, col), on the map of the first of the blocks. On another block's map
            the query is the cell at the same place of the picture.
        blocks: indices from 1; all when None.
        step: recursion step of gnConvs; the last when None.
        seed: with which the queries were drawn, for the provenance.
        model_name: for the provenance; the class when None.
        image_names: for the provenance.

    Raises:
        ValueError: a query outside the map, or not one list of queries per image.
    """
    if len(queries) != len(images):
        raise ValueError(f"query_maps expects a list of queries for each of {len(images)} images, got {len(queries)}.")
    pairs = [query for wanted in queries for query in wanted]
    if not pairs or not all(isinstance(query, Sequence) and len(query) == 2 for query in pairs):
        raise ValueError(f"query_maps expects [[(row, col), ...], ...], one list per image, got {queries}.")
    chosen = chosen_blocks(model, blocks)
    entries = [(image, query) for image, wanted in enumerate(queries) for query in wanted]
    first_size: list[tuple[int, int]] = []

    def keep(weights: MixingWeights) -> tuple[np.ndarray, np.ndarray, float]:
        if not first_size:
            first_size.append((weights.height, weights.width))
            for _, query in entries:
                weights.query(*query)
        cells = [_same_place(query, first_size[0], (weights.height, weights.width)) for _, query in entries]
        maps = [weights.at(*cell)[image].mean(0) for (image, _), cell in zip(entries, cells, strict=True)]
        return np.stack([m.cpu().numpy() for m in maps]), np.array(cells), weights.reconstruction_error

    found = model_mixing_weights(model, images, blocks=[block.index for block in chosen], step=step, keep=keep)
    attends = all("attention" in block.mixer for block in chosen)
    names = tuple(image_names) if image_names is not None else tuple(f"image {i + 1}" for i in range(len(images)))
    return QueryMaps(
        maps={name: maps for name, (maps, _, _) in found.items()},
        queries={name: cells for name, (_, cells, _) in found.items()},
        pictures=model_view(model, images),
        picture_of_entry=np.array([image for image, _ in entries]),
        block_indices=tuple(block.index for block in chosen),
        image_names=names,
        reconstruction_errors=tuple(error for _, _, error in found.values()),
        convention={
            "weights": "attention, Eq. 3.7" if attends else "mixing weights h_ij, Eq. 3.8",
            "mean_over": "heads" if attends else "channels",
            "excluded": "output projection, layer scale",
            "step": "last" if step is None else str(step),
        },
        provenance=model_provenance(model, model_name=model_name, image_names=names, seed=seed),
    )


def _same_place(query: tuple[int, int], size: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    """The cell of another map that holds the centre of a cell."""
    row, col = ((2 * q + 1) * o // (2 * s) for q, s, o in zip(query, size, other, strict=True))
    return row, col
