"""Mixing weights, influence, interactions and rollouts in the place of captum's methods."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from horinsight.attribution.attribution_methods import AttributionMethod
from horinsight.attribution.attribution_options import AttributionOptions
from horinsight.attribution.attribution_results import PositionAttributions
from horinsight.attribution.explained_block import BlockName, Of, explained_block, explained_point
from horinsight.attribution.interaction_places import interaction_places
from horinsight.attribution.rollout_attribution import RolloutAttribution
from horinsight.capture import image_size_of
from horinsight.mixers.blocks import MixingBlock
from horinsight.mixing.extraction import model_mixing_weights
from horinsight.mixing.influence import influence
from horinsight.mixing.output_positions import Queries, query_cells
from horinsight.mixing.weights import MixingWeights
from horinsight.models.provenance import model_provenance, picture_names
from horinsight.operators.block_operators import widened

Found = tuple[np.ndarray, np.ndarray, tuple[int, int], dict[str, str]]  # maps, queries, output_size, convention
Asked = tuple[nn.Module, Tensor, MixingBlock, Queries | None, Of, AttributionOptions, int]


def our_position_attributions(
    model: nn.Module,
    images: Tensor,
    method: AttributionMethod,
    *,
    block: BlockName,
    queries: Queries | None,
    of: Of,
    options: AttributionOptions,
) -> PositionAttributions:
    """`position_attribution` by one of our methods.

    Args:
        model: a network; left as it was.
        images: (B, 3, H, W).
        method: of the family "mixing".
        block: index or name.
        queries: on its map; all when None.
        of: what is explained in: of mixing weights the block's or mixer's input, of rollouts the image.
        options: how.

    Raises:
        ValueError: another `of`, or a channel where there is none to choose.
    """
    chosen = explained_block(model, block, image_size=image_size_of(images))
    rolled = method.name.endswith("rollout")
    expected = {"mixing_weights": ["mixer_input"], "interaction": ["mixer_input", "block_input"]}.get(method.name)
    expected = ["image"] if rolled else expected
    if expected is not None and of not in expected:
        raise ValueError(f"{method.name} expects of {' or '.join(expected)}, got {of!r}.")
    if options.channel is not None and method.name != "mixing_weights":
        raise ValueError(f"{method.name} is of all channels together: leave channel out.")
    samples = options.samples or method.samples or 1
    asked = (model, images, chosen, queries, of, options, samples)
    if rolled:
        maps, cells, size, said = _rolled(asked, method.name)
    else:
        call = {"mixing_weights": _weights, "influence": _influence, "interaction": _interaction}[method.name]
        maps, cells, size, said = call(asked)
    return PositionAttributions(
        attributions=maps,
        queries=cells,
        output_size=size,
        method=method.name,
        block=chosen.name,
        of=of,
        over_channels="mean",
        seed=options.seed,
        convention={"method": method.constructor.replace(":", "."), "explained_in": of, **said},
        provenance=model_provenance(model, image_names=picture_names(images), seed=options.seed),
    )


def _weights(asked: Asked) -> Found:
    model, images, block, queries, _, options, _ = asked
    channel = options.channel

    def keep(weights: MixingWeights) -> Found:
        if channel is not None and channel >= weights.num_channels:
            raise ValueError(f"channel expects a number from 0 to {weights.num_channels - 1}, got {channel}.")
        size = (weights.height, weights.width)
        cells = query_cells(queries, size)
        chosen = slice(None) if channel is None else slice(channel, channel + 1)
        maps = [weights.at(int(row), int(col))[:, chosen].movedim(1, -1).cpu().numpy() for row, col in cells]
        said = {"mixing": "h_ij of Eq. 3.8 (attention Eq. 3.7), before the output projection", **weights.declared()}
        return np.stack(maps, 1), cells, size, said

    return model_mixing_weights(model, images, blocks=[block.index], keep=keep)[block.name]


def _influence(asked: Asked) -> Found:
    model, images, block, queries, of, options, samples = asked
    point = explained_point(model, images, block, of)
    operator, x = widened(point.operator, point.x)
    reading = point.reading
    found = influence(
        operator, x, queries=queries, probes=samples, seed=options.seed, layout=reading.layout, grid=reading.grid,
        output_layout=reading.output_layout, output_grid=reading.output_grid,
    )  # fmt: skip
    rows, columns = found.output_shape
    return found.maps[..., None], found.queries, (rows, columns), dict(found.convention)


def _interaction(asked: Asked) -> Found:
    model, images, block, queries, of, options, samples = asked
    point = explained_point(model, images, block, of)
    operator, x = widened(point.operator, point.x)
    if point.reading.output_grid != point.reading.grid:
        raise ValueError(f"{block} has another map in its output: interactions by place need one and the same.")
    cells = query_cells(queries, point.map_size)
    found = [
        interaction_places(
            operator, x, (int(row), int(col)), order=options.order, num_orderings=samples, seed=options.seed,
            layout=point.reading.layout, grid=point.reading.grid,
        )
        for row, col in cells
    ]  # fmt: skip
    return np.stack([places.maps for places in found], 1)[..., None], cells, point.map_size, dict(found[0].convention)


def _rolled(asked: Asked, name: str) -> Found:
    model, images, block, queries, _, options, samples = asked
    blocks: Sequence[int] = range(1, block.index + 1)
    rolled = RolloutAttribution(
        model, blocks, rolled="mixing" if name == "mixing_rollout" else "influence", probes=samples, seed=options.seed
    )
    rows, size = rolled.rows(model, images)
    cells = query_cells(queries, size)
    chosen = rows[:, torch.from_numpy(np.ravel_multi_index(tuple(cells.T), size))]
    return chosen.cpu().numpy()[..., None], cells, size, {"rolled": f"blocks 1 to {block.index}, rows add up to 1"}
