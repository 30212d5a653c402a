"""Finds the spatial-mixing blocks of a network: HorNet's, anybody's gnConv, and those of timm's vision backbones."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from timm.layers.squeeze_excite import EffectiveSEModule, SEModule
from timm.models.convnext import ConvNeXtBlock
from timm.models.focalnet import FocalNetBlock
from timm.models.metaformer import MetaFormerBlock, Pooling, SepConv
from timm.models.mlp_mixer import MixerBlock, ResBlock, SpatialGatingBlock
from timm.models.senet import SEModule as LegacySEModule
from timm.models.swin_transformer import SwinTransformerBlock, WindowAttention
from timm.models.vision_transformer import Attention
from torch import nn

from horinsight.capture import Call, call_name, called_through, capture
from horinsight.description import image_channels
from horinsight.dry_run import dry_run
from horinsight.models.ablations import DepthwiseBlock
from horinsight.models.gnconv_parts import GnConvParts
from horinsight.models.module_calls import module_calls
from horinsight.models.timm_private import SqueezeExcite
from horinsight.models.token_maps import token_layout as token_layout  # asked for here by those who measure blocks

Mixer = Literal[
    "gnconv",
    "attention",
    "window_attention",
    "depthwise_conv",
    "pooling",
    "token_mlp",
    "squeeze_excitation",
    "focal_modulation",
    "spatial_gate",
]

# How many neighbours the design lets act jointly with a position, as the paper counts (§3.1); gⁿConv's is its n.
_ORDERS: dict[Mixer, int] = {
    "attention": 2,
    "window_attention": 2,
    "depthwise_conv": 0,
    "pooling": 0,
    "token_mlp": 0,
    "squeeze_excitation": 1,
    "focal_modulation": 1,
    "spatial_gate": 1,
}

# timm's modules that are a mixer themselves.
_MIXERS: dict[type[nn.Module], Mixer] = {
    Attention: "attention",
    WindowAttention: "window_attention",
    SEModule: "squeeze_excitation",
    EffectiveSEModule: "squeeze_excitation",
    SqueezeExcite: "squeeze_excitation",
    LegacySEModule: "squeeze_excitation",
}

# timm's blocks that hold a mixer: where below them it is, and which classes it may have.
_HOLDERS: dict[type[nn.Module], tuple[tuple[str, type[nn.Module], str, Mixer], ...]] = {
    DepthwiseBlock: (("dwconv", nn.Conv2d, "", "depthwise_conv"),),
    ConvNeXtBlock: (("conv_dw", nn.Conv2d, "", "depthwise_conv"),),
    FocalNetBlock: (("modulation", nn.Module, "", "focal_modulation"),),
    MetaFormerBlock: (
        ("token_mixer", Pooling, "", "pooling"),
        ("token_mixer", SepConv, "dwconv", "depthwise_conv"),
    ),
    MixerBlock: (("mlp_tokens", nn.Module, "", "token_mlp"),),
    ResBlock: (("linear_tokens", nn.Module, "", "token_mlp"),),
    SpatialGatingBlock: (("mlp_channels", nn.Module, "gate", "spatial_gate"),),
}


@dataclass(frozen=True, eq=False)
class MixingBlock:
    """One place of a network where positions are mixed: a call of a mixer in the forward pass.

    Attributes:
        index: from 1, in the order of the network; the paper's "layer" (Figure 4).
        name: path of the mixer; of its further calls `path#2`, `path#3`, ...
        mixer: its kind.
        module: the mixer itself, without the norm before it and the layer scale after it.
        order: how many neighbours the design lets act jointly with a position, as the paper counts (§3.1): n for
            gⁿConv, 2 for self-attention, 1 for squeeze-and-excitation, 0 for a convolution.
        block_name: path of the residual block around the mixer, with its norm and what else it computes.
        call: which call of the mixer in one forward pass this is, from 1.
        num_calls: how many there are.
    """

    index: int
    name: str
    mixer: Mixer
    module: nn.Module
    order: int
    block_name: str = ""
    call: int = 1
    num_calls: int = 1

    @property
    def path(self) -> str:
        """Where the mixer is: `model.get_submodule(path)` is `module`."""
        return self.name.removesuffix(f"#{self.call}") if self.call > 1 else self.name

    def __str__(self) -> str:
        return f"block {self.index} ({self.name}, {self.mixer})"


def _mixer_of(module: nn.Module) -> tuple[Mixer, str | None, int] | None:
    """Kind, path below `module` (None if it is the mixer itself) and order, if `module` is or holds a mixer."""
    if called_through(module) is not None:
        return None  # a compiled module has the attributes of what it wraps, which comes next
    gnconv = GnConvParts.of(module)
    if gnconv is not None:
        return "gnconv", None, gnconv.order
    mixer = next((mixer for kind, mixer in _MIXERS.items() if isinstance(module, kind)), None)
    if mixer is not None:
        return mixer, None, _ORDERS[mixer]
    holders = [entry for kind, entries in _HOLDERS.items() if isinstance(module, kind) for entry in entries]
    for attribute, kind, below, mixer in holders:
        if isinstance(getattr(module, attribute, None), kind):
            return mixer, f"{attribute}.{below}".rstrip("."), _ORDERS[mixer]
    return None


def named_blocks(model: nn.Module, *, image_size: tuple[int, int] | None = None) -> list[MixingBlock]:
    """The spatial-mixing blocks of a network, in its order.

    How often the forward pass calls each mixer is seen by running the network on shapes alone.

    Args:
        model: any module; HorNets, networks that contain a gnConv look-alike, and timm's ViT/DeiT, Swin, ConvNeXt,
            SE-ResNet and others with squeeze-and-excitation, FocalNet, MLP-Mixer, ResMLP, gMLP and PoolFormer have
            blocks, other networks may have none.
        image_size: (H, W) in pixels that the network is run at; its own where it says one, else 224x224, when None.

    Returns:
        One entry for each call of a mixer, and one for a mixer that is never called, numbered from 1: in the order in
        which the network registers the mixers; where it calls one several times, in the order of all the calls. Where
        it cannot be run on shapes alone, each mixer counts as called once.

    Example:
        >>> import timm
        >>> [(block.index, block.name, block.order) for block in named_blocks(timm.create_model("hornet_test_iso"))]
        [(1, 'blocks.0.gnconv', 3), (2, 'blocks.1.gnconv', 3), (3, 'blocks.2.gnconv', 3)]
    """
    mixers = _mixers(model)
    if not mixers:
        return []
    sequence = module_calls(model, {mixer.name: mixer.module for mixer in mixers}, image_size)
    total = Counter(sequence)
    if not sequence or max(total.values()) == 1:
        return mixers
    by_name, made = {mixer.name: mixer for mixer in mixers}, Counter[str]()
    blocks: list[MixingBlock] = []
    for path in (*sequence, *(name for name in by_name if name not in total)):
        made[path] += 1
        call, num_calls = made[path], max(1, total[path])
        name = call_name(path, call)
        blocks.append(replace(by_name[path], index=len(blocks) + 1, name=name, call=call, num_calls=num_calls))
    return blocks


def _mixers(model: nn.Module) -> list[MixingBlock]:
    """Each mixer once, in the order in which the network registers them."""
    blocks: list[MixingBlock] = []
    inside: tuple[str, ...] = ()  # what lies below a mixer belongs to it
    for path, module in model.named_modules():
        found = None if path.startswith(inside) else _mixer_of(module)
        if found is None:
            continue
        mixer, below, order = found
        name = path if below is None else f"{path}.{below}".lstrip(".")
        outer = path.rpartition(".")[0] if below is None else path
        blocks.append(MixingBlock(len(blocks) + 1, name, mixer, model.get_submodule(name), order, outer))
        inside = (*inside, f"{path}." if path else "")
    return blocks


def chosen_blocks(
    model: nn.Module, indices: Sequence[int] | None = None, *, image_size: tuple[int, int] | None = None
) -> list[MixingBlock]:
    """The blocks with the given indices (from 1), in the network's order; all of them when None.

    Args:
        model: see `named_blocks`.
        indices: from 1.
        image_size: see `named_blocks`.

    Raises:
        ValueError: the network has no such block, or none at all.
    """
    blocks = named_blocks(model, image_size=image_size)
    if not blocks:
        raise ValueError(
            f"{type(model).__name__} has no spatial-mixing block that horinsight knows: it finds gnConvs "
            "(proj_in, dwconv, pws or projs, proj_out) and timm's attention, window attention, ConvNeXt, SE, FocalNet, "
            "MLP-Mixer, gMLP and PoolFormer blocks."
        )
    if indices is None:
        return blocks
    unknown = sorted({index for index in indices if not 1 <= index <= len(blocks)})
    if unknown or not indices:
        raise ValueError(
            f"{type(model).__name__} has blocks 1 to {len(blocks)}, got {', '.join(map(str, unknown)) or 'none'}."
        )
    return [block for block in blocks if block.index in set(indices)]


def check_calls(blocks: Sequence[MixingBlock], made: Sequence[int]) -> None:
    """Whether a forward pass called each block as often as `named_blocks` said, so that calls and names agree.

    Args:
        blocks: some blocks of a network.
        made: for each how often it was called.

    Raises:
        ValueError: it was not.
    """
    idle = [str(block) for block, calls in zip(blocks, made, strict=True) if not calls]
    if idle:
        raise ValueError(f"The forward pass does not call {', '.join(idle)}, so there is nothing to measure.")
    for block, calls in zip(blocks, made, strict=True):
        if calls != block.num_calls:
            raise ValueError(
                f"{block}: expected {block.num_calls} call(s) of {block.path or 'the model'} in a forward pass, as on "
                f"shapes alone, got {calls}: which call is which cannot be told; leave this block out (blocks, "
                "--blocks)."
            )


def enclosing_block(model: nn.Module, block: MixingBlock) -> nn.Module:
    """The module that holds a mixer, with its norm and its residual path; the network itself for a bare mixer."""
    return model.get_submodule(block.block_name)


def block_map_sizes(model: nn.Module, image_size: tuple[int, int]) -> dict[str, tuple[int, int] | None]:
    """Height and width of the map that each block mixes, for one image size.

    Runs the network once without weights and without arithmetic, so it costs next to nothing.

    Args:
        model: a network with blocks.
        image_size: (H, W) in pixels.

    Returns:
        By block name: (rows, columns), or None where the tokens do not form a grid that can be told. For window
        attention it is the whole map, not a window.

    Raises:
        ValueError: the network does not take images of this size.

    Example:
        >>> import timm
        >>> block_map_sizes(timm.create_model("hornet_test_iso"), (96, 64))
        {'blocks.0.gnconv': (6, 4), 'blocks.1.gnconv': (6, 4), 'blocks.2.gnconv': (6, 4)}
    """

    def size(module: nn.Module, call: Call) -> tuple[int, int] | None:
        if isinstance(module, SwinTransformerBlock):
            return int(call.output.shape[1]), int(call.output.shape[2])  # channels last
        if call.output.ndim == 4:
            return int(call.output.shape[2]), int(call.output.shape[3])
        tokens = call.output.shape[2 if module in transposed else 1]
        layout = token_layout(model, tokens, image_size)
        return layout[1] if layout else None

    blocks = named_blocks(model, image_size=image_size)
    transposed = {block.module for block in blocks if block.mixer == "token_mlp"}  # (B, C, N)
    watched = {
        block.path: enclosing_block(model, block) if block.mixer == "window_attention" else block.module
        for block in blocks
    }
    in_chans = image_channels(model, image_size)
    with capture(watched, keep=size) as sizes:
        dry_run(model, image_size, in_chans=in_chans)
    return {block.name: sizes[block.path][block.call - 1] if sizes[block.path] else None for block in blocks}
