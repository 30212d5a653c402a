"""The module that layer methods tell of, which must give maps."""

import torch
from torch import Tensor, nn

from horinsight.capture import capture, evaluation
from horinsight.mixers.blocks import named_blocks
from horinsight.operators.map_operator import plain_layout


def explained_layer(
    model: nn.Module, forward: nn.Module, x: Tensor, held: Tensor | None, *, layer: str | None, method: str,
    image_size: tuple[int, int],
) -> nn.Module:  # fmt: skip
    """A module of a network that runs in what is explained, once, and gives maps (B, C, H, W).

    Args:
        model: the network.
        forward: what is explained.
        x: its inputs, of which the first is run.
        held: its further argument.
        layer: name or number of a block, for the residual block around it; or the path of a module.
        method: for the error.
        image_size: (H, W) in pixels.

    Raises:
        ValueError: none where one is needed, none such, or one that does not run or gives no maps.
    """
    blocks = named_blocks(model, image_size=image_size)
    names = [block.name for block in blocks]
    if layer is None:
        said = f"such as {names[-1]!r}" if names else "by the path of a module"
        raise ValueError(f"{method} tells of a layer and got none: give layer, {said}.")
    modules: dict[str, nn.Module] = dict(model.named_modules())
    path = str(layer)
    chosen = next((block for block in blocks if path in (block.name, str(block.index), block.block_name)), None)
    if chosen is not None:
        path = chosen.block_name or chosen.path
    if path not in modules or not path:
        raise ValueError(
            f"layer expects a block (1 to {len(blocks)}, or its name) or the path of a module, got {layer!r}."
        )
    further = () if held is None else (held[:1],)
    with evaluation(forward), torch.no_grad(), capture({"": modules[path]}) as calls:
        forward(x[:1], *further)
    made = calls[""]
    if len(made) != 1:
        times = "does not run" if not made else f"runs {len(made)} times"
        raise ValueError(f"layer {path} {times} in what is explained: expected a module that runs once.")
    output = made[0].output
    around = None if chosen is None or chosen.found is None else chosen.found.block
    lies = None if around is None or around.output is None else plain_layout(around.output)
    if not isinstance(output, Tensor) or output.ndim != 4 or lies not in (None, "channels_first"):
        got = f"{tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"layer {path} is expected to give maps (B, C, H, W), got {got}: choose another module.")
    return modules[path]
