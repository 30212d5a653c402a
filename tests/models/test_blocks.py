import pytest
import timm
import torch
from torch import nn

from horinsight import GnConv, named_blocks
from horinsight.models.blocks import block_map_sizes, chosen_blocks, token_map_size


def meta_model(name: str, **options) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, **options)


@pytest.mark.parametrize(
    ("name", "count", "first", "mixer", "orders"),
    [
        ("hornet_tiny_7x7", 25, "stages.0.0.gnconv", "gnconv", [2] * 2 + [3] * 3 + [4] * 18 + [5] * 2),
        ("hornet_tiny_gf", 25, "stages.0.0.gnconv", "gnconv", [2] * 2 + [3] * 3 + [4] * 18 + [5] * 2),
        ("hornet_s_iso", 13, "blocks.0.gnconv", "gnconv", [5] * 13),
        ("vit_tiny_patch16_224", 12, "blocks.0.attn", "attention", [2] * 12),
        ("deit_small_patch16_224", 12, "blocks.0.attn", "attention", [2] * 12),
        ("swin_tiny_patch4_window7_224", 12, "layers.0.blocks.0.attn", "window_attention", [2] * 12),
        ("convnext_tiny", 18, "stages.0.blocks.0.conv_dw", "depthwise_conv", [0] * 18),
    ],
)
def test_finds_the_mixers(name, count, first, mixer, orders):
    model = meta_model(name)
    blocks = named_blocks(model)
    assert len(blocks) == count
    assert blocks[0].name == first
    assert {block.mixer for block in blocks} == {mixer}
    assert [block.order for block in blocks] == orders
    assert [block.index for block in blocks] == list(range(1, count + 1))
    assert all(model.get_submodule(block.name) is block.module for block in blocks)


class SomebodysGnConv(nn.Module):
    """mmpretrain's spelling, 1x1 convolutions, no `scale`, no `order`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj_in = nn.Conv2d(dim, 2 * dim, 1)
        self.dwconv = nn.Conv2d(dim // 2 + dim, dim // 2 + dim, 3, padding=1, groups=dim // 2 + dim)
        self.projs = nn.ModuleList([nn.Conv2d(dim // 2, dim, 1)])
        self.proj_out = nn.Conv2d(dim, dim, 1)


class C3HB(nn.Module):
    """A detector's block with a gnConv inside."""

    def __init__(self) -> None:
        super().__init__()
        self.cv1 = nn.Conv2d(3, 8, 1)
        self.m = nn.Sequential(nn.ModuleDict({"mixer": SomebodysGnConv(8)}), nn.ModuleDict({"mixer": GnConv(8, 3)}))


def test_finds_gnconvs_in_anybodys_network():
    blocks = named_blocks(C3HB())
    assert [(b.name, b.mixer, b.order) for b in blocks] == [("m.0.mixer", "gnconv", 2), ("m.1.mixer", "gnconv", 3)]


def test_a_bare_gnconv_is_a_block_of_its_own():
    layer = GnConv(8, 1)
    (block,) = named_blocks(layer)
    assert block.module is layer
    assert (block.name, block.order) == ("", 1)


def test_a_network_without_mixers():
    assert named_blocks(nn.Linear(3, 3)) == []
    with pytest.raises(ValueError, match="no spatial-mixing block"):
        chosen_blocks(nn.Linear(3, 3))


def test_chosen_blocks_keep_the_networks_order():
    model = meta_model("hornet_test")
    assert [block.index for block in chosen_blocks(model, [4, 1, 4])] == [1, 4]
    with pytest.raises(ValueError, match="blocks 1 to 4, got 0, 99"):
        chosen_blocks(model, [99, 0, 2])


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("hornet_tiny_gf", (224, 160), [(56, 40)] * 2 + [(28, 20)] * 3 + [(14, 10)] * 18 + [(7, 5)] * 2),
        ("hornet_s_iso", (224, 224), [(14, 14)] * 13),
        ("deit_small_patch16_224", (224, 224), [(14, 14)] * 12),
        ("swin_tiny_patch4_window7_224", (224, 224), [(56, 56)] * 2 + [(28, 28)] * 2 + [(14, 14)] * 6 + [(7, 7)] * 2),
        ("convnext_atto", (64, 64), [(16, 16)] * 2 + [(8, 8)] * 2 + [(4, 4)] * 6 + [(2, 2)] * 2),
    ],
)
def test_map_sizes(name, size, expected):
    assert list(block_map_sizes(meta_model(name), size).values()) == expected


def test_map_sizes_leave_the_model_as_it_was():
    model = timm.create_model("hornet_test").train()
    block_map_sizes(model, (64, 64))
    assert model.training
    assert all(p.requires_grad and p.device.type == "cpu" for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_an_image_size_that_the_model_cannot_take():
    with pytest.raises(ValueError, match="does not take images of 16x16"):
        block_map_sizes(meta_model("hornet_test"), (16, 16))


@pytest.mark.parametrize("stride", [4, 7, 8, 14, 16, 32])
def test_token_grids_of_any_image_and_stride(stride):
    """What a stride leaves over is cut off or padded; a wrong grid is never given."""
    for height in range(stride, 420, 11):
        for width in range(stride, 420, 13):
            cut, padded = (height // stride, width // stride), (-(-height // stride), -(-width // stride))
            for rows, columns in (cut, padded):
                assert token_map_size(rows * columns, (height, width)) == (rows, columns)


def test_tokens_that_no_stride_gives_form_no_grid():
    assert token_map_size(197, (224, 224)) is None
    assert token_map_size(0, (224, 224)) is None
