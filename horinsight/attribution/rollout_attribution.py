"""Rollouts as one of captum's attributions."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from captum.attr import Attribution
from captum.log import log_usage
from torch import Tensor, nn

from horinsight.attribution.held_inputs import explained_inputs
from horinsight.attribution.position_targets import Target, position_targets
from horinsight.mixing.influence_rollout import influence_rollout
from horinsight.mixing.mixing_results import Rollout
from horinsight.mixing.rollout import mixing_rollout

RolloutOf = Literal["mixing", "influence"]


class RolloutAttribution(Attribution):
    """Where an output position, or the pooled output, looks on the first block's map through all blocks.

    The row of `mixing_rollout` or of `influence_rollout` that belongs to the query, or the mean of all rows: what a
    network that pools its last map by a mean takes of each place. Rows are not negative and add up to 1 (less what
    tokens before the map get); not multiplied by inputs. It explains mixing, not the decision: the head has no part.

    Args:
        forward_func: a network of images.
        blocks: indices from 1; all when None. It goes from the last of them back to the map of the first.
        rolled: "mixing" weights, where the residual path is known, or "influence", which any network has.
        probes: random sign vectors of influence for each position; exact when None.
        seed: of the signs.

    Raises:
        ValueError: nothing such is rolled out.

    Example:
        >>> import timm
        >>> looks = RolloutAttribution(timm.create_model("hornet_test"))
        >>> maps = looks.attribute(torch.randn(2, 3, 96, 96))
        >>> maps.shape, bool(torch.allclose(maps.sum((1, 2, 3)), torch.ones(2)))
        (torch.Size([2, 1, 24, 24]), True)
    """

    def __init__(
        self,
        forward_func: nn.Module,
        blocks: Sequence[int] | None = None,
        *,
        rolled: RolloutOf = "mixing",
        probes: int | None = 4,
        seed: int = 0,
    ) -> None:
        if rolled not in ("mixing", "influence"):
            raise ValueError(f"rolled expects mixing or influence, got {rolled!r}.")
        Attribution.__init__(self, forward_func)
        self.blocks, self.rolled, self.probes, self.seed = blocks, rolled, probes, seed

    @log_usage()
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: Target = None,
        additional_forward_args: Any = None,
    ) -> Tensor | tuple[Tensor, ...]:
        """What a query, or the pooled output, takes of each place.

        Args:
            inputs: images (B, 3, H, W); of several the first is the images, the others are held.
            target: the query on the last block's map: its number row * columns + column, or (row, column); a list of
                these, or a tensor (B,), one an example. The mean over all of them when None.
            additional_forward_args: further arguments of the model, held.

        Returns:
            (B, 1, rows, columns) on the first block's map; a tuple of one for a tuple.

        Raises:
            ValueError: a target that is not on the map, and what the rollouts refuse.
        """
        num_examples = len(inputs[0] if isinstance(inputs, tuple) else inputs)

        def explain(model: nn.Module, x: Tensor, first: int) -> Tensor:
            rows, size = self.rows(model, x)
            if target is None:
                return rows.mean(1)[:, None]
            asked = position_targets(target, num_examples, size)[first : first + len(x)]
            places = [query.row * size[1] + query.col for query in asked]
            return rows[torch.arange(len(x), device="cpu"), places][:, None]

        return explained_inputs(self.forward_func, inputs, additional_forward_args, explain, every=False)

    def rows(self, model: nn.Module, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """The rows of all queries, (B, queries, rows, columns), and the size of the map that the queries lie on."""
        if self.rolled == "influence" and self.probes is not None and len(images) > 1:
            # each by itself with the same signs, so that no example depends on the others
            parts = [self.rows(model, image[None]) for image in images]
            return torch.cat([rows for rows, _ in parts]), parts[0][1]
        rollout = self._rollout(model, images)
        height, width = rollout.out_size
        _, num_out, num_in = rollout.weights.shape
        first, looked_at = num_out - height * width, num_in - rollout.in_size[0] * rollout.in_size[1]
        weights = torch.from_numpy(rollout.weights)[:, first:, looked_at:].to(images)
        return weights.unflatten(2, rollout.in_size), rollout.out_size

    def _rollout(self, model: nn.Module, images: Tensor) -> Rollout:
        names = [f"image {index + 1}" for index in range(len(images))]
        if self.rolled == "mixing":
            return mixing_rollout(model, images, blocks=self.blocks, image_names=names)
        return influence_rollout(
            model, images, blocks=self.blocks, probes=self.probes, seed=self.seed, image_names=names
        )
