"""Influence as one of captum's attributions."""

from typing import Any, Unpack

import torch
from captum.attr import Attribution
from captum.log import log_usage
from torch import Tensor, nn

from horinsight.attribution.explained_block import BlockName, Of, asked_point
from horinsight.attribution.held_inputs import explained_inputs
from horinsight.attribution.position_targets import PositionTarget, Target, position_targets
from horinsight.capture import evaluation
from horinsight.mixing.influence import influence
from horinsight.mixing.influence_options import InfluenceKeywords, InfluenceOptions
from horinsight.mixing.output_positions import output_positions
from horinsight.operators.map_operator import MapReading
from horinsight.operators.positions import positions_of
from horinsight.options import made

PROBES = 16


class InfluenceAttribution(Attribution):
    """How strongly the output at a query answers to each position: I_ij of `horinsight.influence`.

    The root mean square over pairs of channels of derivatives, never negative; nothing adds up, and it is not
    multiplied by inputs.

    Args:
        forward_func: a network of images, or any operator from maps to maps.
        block: index from 1 or name of one of `named_blocks`; None for the operator's own output.
        of: what a block's output is a function of: the "image", its "block_input", or the "mixer_input".
        options: how; `PROBES` random sign vectors for each image when None.
        **given: fields of `InfluenceOptions` in place of those of `options`; `probes=None` is exact.

    Example:
        >>> blur = InfluenceAttribution(nn.AvgPool2d(3, 1, 1), probes=None)
        >>> (9 * blur.attribute(torch.zeros(1, 1, 5, 5), target=(0, 0))[0, 0, 0]).round().tolist()
        [1.0, 1.0, 0.0, 0.0, 0.0]
    """

    def __init__(
        self,
        forward_func: Any,
        block: BlockName | None = None,
        *,
        of: Of = "image",
        options: InfluenceOptions | None = None,
        **given: Unpack[InfluenceKeywords],
    ) -> None:
        Attribution.__init__(self, forward_func)
        usual = InfluenceOptions(probes=PROBES) if options is None else options
        self.options = made(InfluenceOptions, usual, given, caller="InfluenceAttribution")
        self.block, self.of = block, of

    @log_usage()
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: Target = None,
        additional_forward_args: Any = None,
    ) -> Tensor | tuple[Tensor, ...]:
        """I_ij of a query over the positions of each input, or of what enters the block.

        Args:
            inputs: (B, C, H, W), or several; with a block images, of which the first is explained.
            target: the query i on the output's map: its number row * columns + column, or (row, column); a list of
                these, or a tensor (B,), one an example.
            additional_forward_args: further arguments of the model, held.

        Returns:
            (B, 1, rows, columns); a tuple for a tuple.

        Raises:
            ValueError: a target that is not on the map, and what `influence` refuses.
        """
        num_examples = len(inputs[0] if isinstance(inputs, tuple) else inputs)

        def explain(model: Any, x: Tensor, first: int) -> Tensor:
            point = asked_point(model, x, self.block, self.of)
            size = output_map_size(point.operator, point.x, point.reading)
            queries = position_targets(target, num_examples, size)[first : first + len(x)]
            return self._influences(point.operator, point.x, point.reading, queries).to(x)

        every = self.block is None or self.of == "image"
        return explained_inputs(self.forward_func, inputs, additional_forward_args, explain, every=every)

    def _influences(self, operator: Any, x: Tensor, reading: MapReading, queries: list[PositionTarget]) -> Tensor:
        found: list[Tensor] = [x] * len(queries)
        alone = self.options.probes is not None  # with the same signs, so that no example depends on the others
        for key in dict.fromkeys((query, example if alone else 0) for example, query in enumerate(queries)):
            query = key[0]
            asking = [example for example, one in enumerate(queries) if key == (one, example if alone else 0)]
            maps = influence(
                operator,
                x[asking],
                queries=[(query.row, query.col)],
                options=self.options,
                layout=reading.layout,
                grid=reading.grid,
                output_layout=reading.output_layout if self.block is not None else None,
                output_grid=reading.output_grid,
            ).maps
            for example, one in zip(asking, torch.from_numpy(maps), strict=True):
                found[example] = one
        return torch.stack(found)


def output_map_size(operator: Any, x: Tensor, reading: MapReading) -> tuple[int, int]:
    """Rows and columns of the map that an operator puts out, by running it on one sample.

    Raises:
        ValueError: its output has no map.
    """
    if reading.output_grid is not None:
        return reading.output_grid
    with torch.no_grad():
        if isinstance(operator, nn.Module):
            with evaluation(operator):
                output = operator(x[:1].clone())
        else:
            output = operator(x[:1].clone())
    if not isinstance(output, Tensor) or output.ndim != 4:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"A query needs an output with a map, (B, C, H, W) or (B, H, W, C), got {got}.")
    layout = None if output.ndim != x.ndim else reading.output_layout
    _, shape = output_positions(output, positions_of(x, reading.layout, reading.grid), x.ndim, None, layout, None)
    rows, columns = shape
    return rows, columns
