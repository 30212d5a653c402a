"""Where chosen positions of pictures look, block by block: the maps of Figure 4, as arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

import numpy as np
from torch import Tensor, nn

from horinsight.capture import image_size_of
from horinsight.data.preprocess import model_view
from horinsight.mixers.blocks import MixingBlock, chosen_blocks
from horinsight.mixing.extraction import OnRefusal, model_mixing_weights
from horinsight.mixing.mixing_results import QueryMaps
from horinsight.mixing.query_places import same_place
from horinsight.mixing.weights import MixingWeights
from horinsight.models.provenance import model_provenance
from horinsight.results import Provenance


class Said(TypedDict, total=False):
    """What a caller may say for the provenance of maps.

    Attributes:
        seed: with which the queries were drawn; 0.
        model_name: the name under which timm built the model when None.
        image_names: those that `image_batch` wrote down when None.
    """

    seed: int
    model_name: str | None
    image_names: Sequence[str] | None


def query_maps(
    model: nn.Module,
    images: Tensor,
    queries: Sequence[Sequence[tuple[int, int]]],
    *,
    blocks: Sequence[int] | None = None,
    step: int | None = None,
    channel: int | None = None,
    provenance: Provenance | None = None,
    on_refusal: OnRefusal | None = None,
    **said: Unpack[Said],
) -> QueryMaps:
    """Mixing weights of given queries, in one forward pass.

    Args:
        model: see `model_mixing_weights`.
        images: (B, 3, H, W), prepared.
        queries: for each image its queries (row, col), on the map of the first of the blocks. On another block's map
            the query is the cell at the same place of the picture.
        blocks: indices from 1; all when None.
        step: recursion step of gnConvs; the last when None.
        channel: one channel (or head) c, from 0; the mean over all when None.
        provenance: of the maps; made of the model, its pictures and what is `said` of them when None.
        on_refusal: see `model_mixing_weights`.
        **said: for the provenance, see `Said`.

    Raises:
        ValueError: a query outside the map, no such channel, or not one list of queries or one name per image.
        TypeError: `images` is not one tensor, or both `provenance` and what it is made of.
    """
    size = image_size_of(images)
    entries = _entries(queries, len(images))
    origin = _origin(model, images, provenance, said)
    chosen = chosen_blocks(model, blocks, image_size=size)
    words: dict[str, list[str]] = {"value": [], "held": []}
    first_size: list[tuple[int, int]] = []

    def keep(weights: MixingWeights) -> _BlockMaps:
        for key, word in weights.declared().items():
            words[key] += [word] * (word not in words[key])
        first_size[:] = first_size or [(weights.height, weights.width)]
        return _block_maps(weights, entries, first_size[0], channel)

    indices = [block.index for block in chosen]
    found = model_mixing_weights(model, images, blocks=indices, step=step, keep=keep, on_refusal=on_refusal)
    if not found:
        raise ValueError("None of the blocks has mixing weights: take influence instead (--influence).")
    chosen = [block for block in chosen if block.name in found]
    declared = {key: "; ".join(said_of) for key, said_of in words.items()}
    return _together(
        found,
        entries,
        indices=[block.index for block in chosen],
        pictures=model_view(model, images),
        names=origin.images,
        convention=map_convention(chosen, step=step, channel=channel) | declared,
        provenance=origin,
    )


def _origin(model: nn.Module, images: Tensor, provenance: Provenance | None, said: Said) -> Provenance:
    unknown = [name for name in said if name not in Said.__annotations__]
    if unknown:
        raise TypeError(f"query_maps got an unexpected keyword argument {unknown[0]!r}.")
    if provenance is None:
        numbered = tuple(f"image {i + 1}" for i in range(len(images)))
        names = said.get("image_names")
        return model_provenance(
            model,
            model_name=said.get("model_name"),
            image_names=getattr(images, "image_names", numbered) if names is None else names,
            seed=said.get("seed", 0),
        )
    if said:
        raise TypeError(f"query_maps expects either provenance or what it is made of, got both: {', '.join(said)}.")
    if len(provenance.images) != len(images):
        raise ValueError(
            f"provenance expects a name for each of {len(images)} images, got {len(provenance.images)}: make it with "
            "model_provenance(model, image_names=...)."
        )
    return provenance


def maps_of_weights(
    weights: Mapping[str, MixingWeights],
    queries: Sequence[Sequence[tuple[int, int]]],
    *,
    block_indices: Sequence[int],
    pictures: np.ndarray,
    image_names: Sequence[str],
    channel: int | None = None,
    convention: Mapping[str, str] | None = None,
    provenance: Provenance | None = None,
) -> QueryMaps:
    """`query_maps` of a forward pass that was made before: some milliseconds a query.

    Args:
        weights: of `model_mixing_weights`.
        queries: for each image its queries (row, col), on the map of the first of the blocks.
        block_indices: of the blocks, in the order of `weights`.
        pictures: (images, height, width, 3) uint8, as the model sees them.
        image_names: of the pictures.
        channel: one channel (or head) c, from 0; the mean over all when None.
        convention: see `map_convention`.
        provenance: of the weights.

    Raises:
        ValueError: a query outside the map, no such channel, or not one list of queries per image.

    Example:
        >>> import timm, torch
        >>> model, images = timm.create_model("hornet_test_iso"), torch.randn(1, 3, 96, 96)
        >>> weights = model_mixing_weights(model, images, blocks=[1, 2])
        >>> pictures = model_view(model, images)
        >>> maps = maps_of_weights(weights, [[(2, 3)]], block_indices=[1, 2], pictures=pictures, image_names=["noise"])
        >>> {name: values.shape for name, values in maps.maps.items()}
        {'blocks.0.gnconv': (1, 6, 6), 'blocks.1.gnconv': (1, 6, 6)}
    """
    first = next(iter(weights.values()))
    entries = _entries(queries, len(first.offset))
    size = (first.height, first.width)
    return _together(
        {name: _block_maps(found, entries, size, channel) for name, found in weights.items()},
        entries,
        indices=block_indices,
        pictures=pictures,
        names=tuple(image_names),
        convention=convention or {},
        provenance=provenance,
    )


def map_convention(
    blocks: Sequence[MixingBlock], *, step: int | None = None, channel: int | None = None
) -> dict[str, str]:
    """What maps of these blocks show, in words."""
    attends = all("attention" in block.mixer for block in blocks)
    return {
        "weights": "attention, Eq. 3.7" if attends else "mixing weights h_ij, Eq. 3.8",
        "mean_over": "heads" if attends else "channels",
        "excluded": "output projection, layer scale",
        "step": "last" if step is None else str(step),
        "channel": "mean" if channel is None else str(channel),
    }


@dataclass(frozen=True)
class _BlockMaps:
    """What `QueryMaps` has of one block."""

    maps: np.ndarray
    queries: np.ndarray
    reconstruction_error: float


def _entries(queries: Sequence[Sequence[tuple[int, int]]], num_images: int) -> list[tuple[int, tuple[int, int]]]:
    """(image, query) of each map."""
    if len(queries) != num_images:
        raise ValueError(f"query_maps expects a list of queries for each of {num_images} images, got {len(queries)}.")
    pairs = [query for wanted in queries for query in wanted]
    if not pairs or not all(isinstance(query, Sequence) and len(query) == 2 for query in pairs):
        raise ValueError(f"query_maps expects [[(row, col), ...], ...], one list per image, got {queries}.")
    return [(image, query) for image, wanted in enumerate(queries) for query in wanted]


def _block_maps(
    weights: MixingWeights, entries: Sequence[tuple[int, tuple[int, int]]], first: tuple[int, int], channel: int | None
) -> _BlockMaps:
    if channel is not None and not 0 <= channel < weights.num_channels:
        raise ValueError(f"channel expects a number from 0 to {weights.num_channels - 1}, got {channel}.")
    size = (weights.height, weights.width)
    if size == first:
        for _, query in entries:
            weights.query(*query)
    cells = [same_place(query, first, size) for _, query in entries]
    found = [weights.at(*cell)[image] for (image, _), cell in zip(entries, cells, strict=True)]
    maps = [h.mean(0) if channel is None else h[channel] for h in found]
    return _BlockMaps(np.stack([m.cpu().numpy() for m in maps]), np.array(cells), weights.reconstruction_error)


def _together(
    found: Mapping[str, _BlockMaps],
    entries: Sequence[tuple[int, tuple[int, int]]],
    *,
    indices: Sequence[int],
    pictures: np.ndarray,
    names: tuple[str, ...],
    convention: Mapping[str, str],
    provenance: Provenance | None,
) -> QueryMaps:
    return QueryMaps(
        maps={name: block.maps for name, block in found.items()},
        queries={name: block.queries for name, block in found.items()},
        pictures=pictures,
        picture_of_entry=np.array([image for image, _ in entries]),
        block_indices=tuple(indices),
        image_names=names,
        reconstruction_errors=tuple(block.reconstruction_error for block in found.values()),
        convention=convention,
        provenance=provenance,
    )
