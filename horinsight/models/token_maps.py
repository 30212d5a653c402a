"""How the tokens of a vision transformer lie on the map."""

from torch import nn


def token_layout(model: nn.Module, tokens: int, image_size: tuple[int, int]) -> tuple[int, tuple[int, int]] | None:
    """How the tokens of a vision transformer lie: prefix tokens, and the (rows, columns) of the patches after them.

    Read off the model's own patch embedding where it has one, wherever in the network it is; else told by the stride
    that leads from the image to so many tokens.

    Args:
        model: the network, or a wrapper around it.
        tokens: how many tokens its attention sees.
        image_size: (H, W) in pixels.

    Returns:
        None where the tokens form no grid that can be told.
    """
    parts = list(model.modules())
    counts = [getattr(part, "num_prefix_tokens", None) for part in parts]
    prefix = next((count for count in counts if isinstance(count, int)), 0)
    for part in parts:
        grid_of = getattr(part, "dynamic_feat_size", None)
        for grid in (grid_of(image_size) if callable(grid_of) else None, getattr(part, "grid_size", None)):
            if isinstance(grid, tuple) and len(grid) == 2 and grid[0] * grid[1] + prefix == tokens:
                return prefix, (int(grid[0]), int(grid[1]))
    guess = token_map_size(tokens - prefix, image_size)
    return None if guess is None else (prefix, guess)


def token_map_size(tokens: int, image_size: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of a grid of patch tokens: those that a stride, the same along both sides, makes of the image.

    Args:
        tokens: without prefix tokens.
        image_size: (H, W) in pixels.

    Returns:
        (rows, columns), with what a stride leaves over at the border cut off or padded; None where no stride gives so
        many tokens, or where two give grids of different shape.

    Example:
        >>> token_map_size(196, (224, 224)), token_map_size(12 * 16, (192, 256)), token_map_size(197, (224, 224))
        ((14, 14), (12, 16), None)
    """
    H, W = image_size
    grids = {(H // stride, W // stride) for stride in range(1, min(H, W) + 1)}
    grids |= {(-(-H // stride), -(-W // stride)) for stride in range(1, max(H, W) + 1)}
    fitting = [grid for grid in grids if grid[0] * grid[1] == tokens]
    return fitting[0] if len(fitting) == 1 else None
