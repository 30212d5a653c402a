"""Interaction effects by place as one of captum's attributions."""

from typing import Any

import torch
from captum.attr import Attribution
from captum.log import log_usage
from torch import Tensor

from horinsight.attribution.explained_block import BlockName, Of, asked_point
from horinsight.attribution.held_inputs import explained_inputs
from horinsight.attribution.interaction_places import interaction_places
from horinsight.attribution.position_targets import Target, position_targets


class InteractionAttribution(Attribution):
    """Which neighbours take part in the k-th order at a query: the root of M_k(j) of `interaction_places`.

    Never negative, 0 at the query itself and outside its receptive field; nothing adds up, and it is not multiplied by
    inputs. Directions have the spread of each example's own channels over its positions.

    Args:
        forward_func: a network of images, or any operator that keeps its map.
        block: index from 1 or name of one of `named_blocks`; None for the operator itself.
        of: what a block's output is a function of: the "mixer_input" or the "block_input".
        order: k, how many neighbours act jointly with the query.
        num_orderings: random orderings of the neighbours.
        explicit: non-linearities as their tangents.
        seed: of all that is drawn; the same for every example.

    Raises:
        ValueError: from the image, whose positions are none of the output's.

    Example:
        >>> from horinsight.models.gnconv import GnConv
        >>> together = InteractionAttribution(GnConv(8, 3, kernel_size=3), order=2, num_orderings=1)
        >>> together.attribute(torch.randn(2, 8, 5, 5), target=(2, 2)).shape
        torch.Size([2, 1, 5, 5])
    """

    def __init__(
        self,
        forward_func: Any,
        block: BlockName | None = None,
        *,
        of: Of = "mixer_input",
        order: int = 1,
        num_orderings: int = 16,
        explicit: bool = True,
        seed: int = 0,
    ) -> None:
        if of == "image":
            raise ValueError("of expects mixer_input or block_input for interactions by place, got 'image'.")
        Attribution.__init__(self, forward_func)
        self.block, self.of, self.order, self.seed = block, of, order, seed
        self.num_orderings, self.explicit = num_orderings, explicit

    @log_usage()
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: Target = None,
        additional_forward_args: Any = None,
    ) -> Tensor | tuple[Tensor, ...]:
        """The root of M_k(j) over the positions j of the map of each input, or of what enters the block.

        Args:
            inputs: (B, C, H, W), or several; with a block images, of which the first is explained.
            target: the query i: its number row * columns + column, or (row, column); a list of these, or a tensor (B,),
                one an example.
            additional_forward_args: further arguments of the model, held.

        Returns:
            (B, 1, rows, columns); a tuple for a tuple.

        Raises:
            ValueError: a target that is not on the map, and what `interaction_places` refuses.
        """
        num_examples = len(inputs[0] if isinstance(inputs, tuple) else inputs)

        def explain(model: Any, x: Tensor, first: int) -> Tensor:
            point = asked_point(model, x, self.block, self.of)
            reading = point.reading
            if point.x.ndim != 4 and (reading.grid is None or reading.grid != reading.output_grid):
                raise ValueError("Interactions by place need one map, in and out: (B, C, H, W), or tokens with a grid.")
            queries = position_targets(target, num_examples, point.map_size)[first : first + len(x)]
            found = [
                interaction_places(
                    point.operator,
                    one[None],
                    (query.row, query.col),
                    order=self.order,
                    num_orderings=self.num_orderings,
                    explicit=self.explicit,
                    layout=reading.layout,
                    grid=reading.grid,
                    seed=self.seed,
                ).maps
                for one, query in zip(point.x, queries, strict=True)
            ]
            return torch.stack([torch.from_numpy(maps) for maps in found]).to(x)

        return explained_inputs(self.forward_func, inputs, additional_forward_args, explain, every=self.block is None)
