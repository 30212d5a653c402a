"""What HorNet and its isotropic sibling share: the check of the input, mean pool → LN → head, timm's interface."""

from abc import ABC, abstractmethod

import torch
from timm.layers import SelectAdaptivePool2d, trunc_normal_
from torch import Tensor, nn

from horinsight.models.timm_private import feature_take_indices

MIN_IMAGE_SIDE = 32  # pixels: the total stride of the hierarchical models
POOLS = ("avg", "max", "avgmax", "catavgmax", "")


def initialise_weights(module: nn.Module) -> None:
    """Truncated normal weights (σ = 0.02) and zero biases for every convolution and linear layer, in place."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@torch.fx.wrap  # symbolic tracing keeps it as one call, so that a traced model refuses what the model itself refuses
def checked_images(x: Tensor, in_chans: int, model: str, least: int = MIN_IMAGE_SIDE) -> Tensor:
    """`x` itself, if `model` takes images of its shape.

    Raises:
        ValueError: other than (B, `in_chans`, H, W), or fewer than `least` pixels a side.
    """
    if x.ndim != 4 or x.shape[1] != in_chans:
        shape = ", ".join([str(size) for size in x.shape])
        hint = ": add a batch dimension" if x.ndim == 3 else ""
        raise ValueError(f"{model} expects images of shape (B, {in_chans}, H, W), got ({shape}){hint}.")
    if min(x.shape[2], x.shape[3]) < least:
        raise ValueError(
            f"{model} expects images of at least {least} pixels a side, "
            f"got {int(x.shape[2])}x{int(x.shape[3])}: enlarge or pad them."
        )
    return x


class ImageClassifier(nn.Module, ABC):
    """A backbone with the head of the published HorNet: mean pool, LayerNorm, linear (attributes `norm`, `head`).

    A subclass builds its layers, lists in `feature_info` what its sections put out, then calls `_build_head`. A section
    is the unit that `forward_intermediates` taps: a stage of a hierarchical model, a block of an isotropic one.

    Args:
        in_chans: image channels.
        num_classes: outputs of the head; 0 for none.
        global_pool: "avg" (the paper's), "max", "avgmax", "catavgmax", or "" for none (then `num_classes` is 0).
        drop_rate: dropout before the head.
    """

    def __init__(self, *, in_chans: int, num_classes: int, global_pool: str, drop_rate: float) -> None:
        super().__init__()
        self.in_chans = in_chans
        self.num_classes = num_classes
        self.drop_rate = drop_rate
        self._class_name = type(self).__name__
        self.grad_checkpointing = False
        self.feature_info: list[dict[str, int | str]] = []
        self.num_features = 0
        self.head_hidden_size = 0
        self._check_head(num_classes, global_pool)
        self.global_pool = SelectAdaptivePool2d(pool_type=global_pool, flatten=bool(global_pool))

    @abstractmethod
    def num_sections(self) -> int:
        """How many sections the model has: one per entry of `feature_info`, or fewer once it is pruned."""

    @abstractmethod
    def run_sections(self, x: Tensor, count: int, taken: list[int]) -> tuple[Tensor, list[Tensor]]:
        """Output of the first `count` sections, and of each one whose index is in `taken`.

        Written as a plain loop over modules, which `torch.jit.script` and `torch.fx` can read.
        """

    @abstractmethod
    def _keep_sections(self, count: int) -> None:
        """Drop what comes after the first `count` sections."""

    @staticmethod
    def _check_head(num_classes: int, global_pool: str) -> None:
        if global_pool not in POOLS:
            raise ValueError(f"global_pool expects one of {', '.join(map(repr, POOLS))}, got {global_pool!r}.")
        if num_classes < 0:
            raise ValueError(f"num_classes expects a number >= 0, got {num_classes}.")
        if not global_pool and num_classes:
            raise ValueError(
                f"A head of {num_classes} classes needs pooled features, got global_pool='': "
                "pass num_classes=0, or another global_pool."
            )

    def _build_head(self, num_features: int) -> None:
        self.num_features = num_features
        self.head_hidden_size = num_features * self.global_pool.feat_mult()
        self.norm: nn.Module = nn.LayerNorm(self.head_hidden_size, eps=1e-6)
        self.head_drop = nn.Dropout(self.drop_rate)
        self.head = nn.Linear(self.head_hidden_size, self.num_classes) if self.num_classes else nn.Identity()
        self.apply(initialise_weights)

    def _recomputes(self) -> bool:
        return self.grad_checkpointing and torch.is_grad_enabled()

    def forward_features(self, x: Tensor) -> Tensor:
        """Unpooled features (B, `num_features`, H / stride, W / stride) of images (B, `in_chans`, H, W)."""
        x = checked_images(x, self.in_chans, self._class_name)
        return self.run_sections(x, self.num_sections(), [])[0]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (B, `num_classes`) of features, or what enters the last linear layer with `pre_logits`."""
        x = self.global_pool(x)
        x = self.norm(x.movedim(1, -1)).movedim(-1, 1)  # (B, C), or (B, C, H, W) where nothing is pooled
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Outputs of chosen sections (stages, or blocks of an isotropic model), as timm's models give them.

        Args:
            x: images (B, `in_chans`, H, W).
            indices: which sections: a list, or the last so many; all when None.
            norm: not available: the LayerNorm of HorNet comes after the pooling.
            stop_early: do not run what comes after the last section asked for.
            output_fmt: "NCHW" or "NHWC".
            intermediates_only: leave the final features out.

        Returns:
            `(features, intermediates)`, or the intermediates alone.

        Raises:
            ValueError: `norm` is asked for, or an unknown format.
        """
        if norm:
            raise ValueError(f"norm=True is not available: the LayerNorm of {self._class_name} follows the pooling.")
        if output_fmt not in ("NCHW", "NHWC"):
            raise ValueError(f"output_fmt expects 'NCHW' or 'NHWC', got '{output_fmt}'.")
        x = checked_images(x, self.in_chans, self._class_name)
        taken, last = feature_take_indices(self.num_sections(), indices)
        x, intermediates = self.run_sections(x, last + 1 if stop_early else self.num_sections(), taken)
        if output_fmt == "NHWC":
            intermediates = [y.permute(0, 2, 3, 1) for y in intermediates]
        if intermediates_only:
            return intermediates
        return x, intermediates

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop every layer that the chosen sections do not need; returns their indices."""
        taken: list[int]
        taken, last = feature_take_indices(len(self.feature_info), indices)
        shortened = last + 1 < len(self.feature_info)
        if shortened:
            self._keep_sections(last + 1)
            self.num_features = int(self.feature_info[last]["num_chs"])
        if prune_head or shortened:
            self.reset_classifier(0, "")
        if prune_norm or shortened:
            self.norm = nn.Identity()
        return taken

    def get_classifier(self) -> nn.Module:
        """The last linear layer (`nn.Identity` when `num_classes` is 0)."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by a new one of `num_classes` outputs, and the pooling when given; new layers are random."""
        pool = self.global_pool.pool_type if global_pool is None else global_pool
        self._check_head(num_classes, pool)
        self.num_classes = num_classes
        self.global_pool = SelectAdaptivePool2d(pool_type=pool, flatten=bool(pool))
        like = next(self.parameters())
        width = self.num_features * self.global_pool.feat_mult()
        if width != self.head_hidden_size:
            self.norm = nn.LayerNorm(width, eps=1e-6).to(like)
            self.head_hidden_size = width
        self.head = nn.Linear(width, num_classes).to(like) if num_classes else nn.Identity()
        initialise_weights(self.head)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the blocks in the backward pass instead of keeping their activations."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that take no weight decay beyond biases and norms: the layer scales."""
        return {name for name, _ in self.named_parameters() if name.rsplit(".", 1)[-1] in ("gamma1", "gamma2")}
