"""Softmax over branches, computed from the mean over all positions: selective kernels, split attention."""

from horinsight.mixers.mixer_registry import MixerFamily, is_named, register_mixer

_CLASSES = frozenset({"timm.layers.selective_kernel.SelectiveKernel", "timm.layers.split_attn.SplitAttn"})

register_mixer(
    MixerFamily(
        kind="branch_attention",
        value="the branches, whose sum is weighted",
        held="the weight of each branch, from the pooled map",
        recognises=lambda module: is_named(module, _CLASSES),
        order=lambda module: 1,
    )
)
