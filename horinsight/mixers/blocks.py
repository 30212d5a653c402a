"""The spatial-mixing blocks of a network, numbered: what is asked for by an index, and how often each is called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from horinsight.mixers.found import FoundMixer
from horinsight.mixers.kept_mixers import network_mixers


@dataclass(frozen=True, eq=False)
class MixingBlock:
    """One place of a network where positions are mixed: a call of a mixer in the forward pass.

    Attributes:
        index: from 1, in the order of the network; the paper's "layer" (Figure 4).
        name: path of the mixer; of its further calls `path#2`, `path#3`, ...
        mixer: its kind, see `FoundMixer.kind`.
        module: the mixer itself, without the norm before it and the layer scale after it.
        order: how many neighbours the design lets act jointly with a position, as the paper counts (§3.1): n for
            gⁿConv, 2 for self-attention, 1 for squeeze-and-excitation, 0 for a convolution; None where that is open.
        block_name: path of the residual block around the mixer, with its norm and what else it computes.
        call: which call of the mixer in one forward pass this is, from 1.
        num_calls: how many there are.
        found: all that was seen of the call: its class, place, stride, and how its positions lie.
    """

    index: int
    name: str
    mixer: str
    module: nn.Module
    order: int | None
    block_name: str = ""
    call: int = 1
    num_calls: int = 1
    found: FoundMixer | None = None

    @property
    def path(self) -> str:
        """Where the mixer is: `model.get_submodule(path)` is `module`."""
        return self.name.removesuffix(f"#{self.call}") if self.call > 1 else self.name

    def __str__(self) -> str:
        return f"block {self.index} ({self.name}, {self.mixer})"


def named_blocks(
    model: nn.Module, *, image_size: tuple[int, int] | None = None, everywhere: bool = False
) -> list[MixingBlock]:
    """The spatial-mixing blocks of a network, in its order, found by what it computes.

    The network is run once, see `found_mixers`, at the size of images that it says it is made for, and once more where
    another size is asked for; what was seen is kept as long as the network is made of the same modules.

    Args:
        model: any network that takes images; wrappers around it are looked through.
        image_size: (H, W) in pixels of the images that it is to be measured on; its own where it says one, else
            224x224, when None.
        everywhere: list the mixers of the stem, of downsampling and of the head as well, not those alone that keep the
            number of positions (and attention, which may thin it). A network that has no others has these listed.

    Returns:
        One entry for each call of a mixer, numbered from 1: in the order in which the network registers the mixers;
        where it calls one several times, in the order of all the calls. None for a network without positions.

    Raises:
        ValueError: the network cannot be run on one image alone.

    Example:
        >>> import timm
        >>> [(block.index, block.name, block.order) for block in named_blocks(timm.create_model("hornet_test_iso"))]
        [(1, 'blocks.0.gnconv', 3), (2, 'blocks.1.gnconv', 3), (3, 'blocks.2.gnconv', 3)]
    """
    mixers = network_mixers(model, image_size)
    if not everywhere:
        mixers = [mixer for mixer in mixers if mixer.place == "block"] or mixers
    total = Counter(mixer.path for mixer in mixers)
    return [
        MixingBlock(
            index=index,
            name=mixer.name,
            mixer=mixer.kind,
            module=model.get_submodule(mixer.path),
            order=mixer.order,
            block_name=mixer.block_path,
            call=mixer.call,
            num_calls=total[mixer.path],
            found=mixer,
        )
        for index, mixer in enumerate(mixers, start=1)
    ]


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
            f"{type(model).__name__} has no block in which positions of an image are mixed: expected a network with "
            "convolutions, attention, pooling or the like over a map."
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
                f"noise, got {calls}: which call is which cannot be told; leave this block out (blocks, --blocks)."
            )


def enclosing_block(model: nn.Module, block: MixingBlock) -> nn.Module:
    """The module that holds a mixer, with its norm and its residual path; the network itself for a bare mixer."""
    return model.get_submodule(block.block_name)


def block_map_sizes(model: nn.Module, image_size: tuple[int, int]) -> dict[str, tuple[int, int] | None]:
    """Height and width of the map that each block puts out, for one image size.

    Args:
        model: a network with blocks.
        image_size: (H, W) in pixels.

    Returns:
        By block name: (rows, columns), or None where the positions form no map that can be told. For window attention
        it is the whole map, not a window.

    Raises:
        ValueError: the network does not take images of this size.

    Example:
        >>> import timm
        >>> block_map_sizes(timm.create_model("hornet_test_iso"), (96, 64))
        {'blocks.0.gnconv': (6, 4), 'blocks.1.gnconv': (6, 4), 'blocks.2.gnconv': (6, 4)}
    """
    return {block.name: map_size_of(block) for block in named_blocks(model, image_size=image_size)}


def map_size_of(block: MixingBlock) -> tuple[int, int] | None:
    """Rows and columns of the map that a block puts out, of the one that it is given where it puts out none."""
    found = block.found
    lies = None if found is None else found.output or found.input
    return None if lies is None else lies.size
