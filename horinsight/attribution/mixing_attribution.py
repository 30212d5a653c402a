"""Mixing weights as one of captum's attributions."""

from typing import Any, Literal

import torch
from captum.attr import LayerAttribution
from captum.log import log_usage
from torch import Tensor, nn

from horinsight.attribution.explained_block import BlockName, explained_block
from horinsight.attribution.held_inputs import explained_inputs
from horinsight.attribution.position_targets import PositionTarget, Target, position_targets
from horinsight.mixing.extraction import mixing_weights, model_mixing_weights
from horinsight.mixing.weights import MixingWeights

Channels = Literal["each", "mean", "absolute_mean"]


class MixingWeightsAttribution(LayerAttribution):
    """Where a query position of one block looks: h_ij^c (HorNet Eq. 3.8) over the positions j of its map.

    A layer attribution: what comes lies on the map of the block, (B, C, rows, columns), whatever the size of the
    inputs; `LayerAttribution.interpolate` takes it to theirs. It is of the features that the block mixes and tells how
    they are weighted, not what of the output they are, so that it is not multiplied by inputs, and nothing adds up.

    Args:
        forward_func: a network of images, or a mixer by itself.
        block: index from 1 or name of one of `named_blocks`; None for a mixer by itself, whose input is explained.
        channels: "each" as it is (attention: each head), their "mean", or the mean of their absolute values.
        step: recursion step of a gⁿConv, from 0; the last, the paper's, when None.

    Raises:
        ValueError: channels of no such kind.

    Example:
        >>> from horinsight.models.gnconv import GnConv
        >>> looks = MixingWeightsAttribution(GnConv(8, 3), channels="mean")
        >>> looks.attribute(torch.randn(2, 8, 6, 6), target=(2, 3)).shape
        torch.Size([2, 1, 6, 6])
    """

    def __init__(
        self,
        forward_func: nn.Module,
        block: BlockName | None = None,
        *,
        channels: Channels = "each",
        step: int | None = None,
    ) -> None:
        if channels not in ("each", "mean", "absolute_mean"):
            raise ValueError(f"channels expects each, mean or absolute_mean, got {channels!r}.")
        LayerAttribution.__init__(self, forward_func, forward_func)
        self.block, self.channels, self.step = block, channels, step

    @log_usage()
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: Target = None,
        additional_forward_args: Any = None,
    ) -> Tensor | tuple[Tensor, ...]:
        """The weights with which a query takes each position.

        Args:
            inputs: images (B, 3, H, W), or the mixer's input; of several the first is the images, the others are held.
            target: the query i on the map that the block puts out: its number row * columns + column, (row, column),
                or (channel, row, column) for that channel alone; a list of these, or a tensor (B,), one an example.
            additional_forward_args: further arguments of the model, held.

        Returns:
            (B, C, rows, columns); C is 1 where channels are reduced or one is named. A tuple of one for a tuple.

        Raises:
            ValueError: a target that is not on the map, or a block without mixing weights.
        """
        num_examples = len(inputs[0] if isinstance(inputs, tuple) else inputs)

        def explain(model: nn.Module, x: Tensor, first: int) -> Tensor:
            def looked_at(weights: MixingWeights) -> Tensor:
                size = (weights.height, weights.width)
                queries = position_targets(target, num_examples, size, weights.num_channels)
                return self._weights_at(weights, queries[first : first + len(x)])

            if self.block is None:
                return looked_at(mixing_weights(model, x, step=self.step))
            block = explained_block(model, self.block, image_size=(x.shape[-2], x.shape[-1]))
            found = model_mixing_weights(model, x, blocks=[block.index], step=self.step, keep=looked_at)
            return found[block.name]

        return explained_inputs(self.forward_func, inputs, additional_forward_args, explain, every=False)

    def _weights_at(self, weights: MixingWeights, queries: list[PositionTarget]) -> Tensor:
        found: list[Tensor | None] = [None] * len(queries)
        for cell in dict.fromkeys((query.row, query.col) for query in queries):
            h = weights.at(*cell)
            for example, query in enumerate(queries):
                if (query.row, query.col) == cell:
                    found[example] = self._reduced(h[example], query.channel)
        if len({h.shape for h in found if h is not None}) > 1:
            raise ValueError("target expects a channel for all examples or for none, got both.")
        return torch.stack([h for h in found if h is not None])

    def _reduced(self, h: Tensor, channel: int | None) -> Tensor:
        if channel is not None:
            h = h[channel : channel + 1]
        if self.channels == "each":
            return h
        return (h.abs() if self.channels == "absolute_mean" else h).mean(0, keepdim=True)
