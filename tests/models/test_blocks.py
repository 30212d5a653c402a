import gc
import weakref

import pytest
import timm
import torch
from torch import nn

from horinsight import GnConv, model_interaction_spectra, model_mixing_weights, named_blocks
from horinsight.mixers.blocks import block_map_sizes, chosen_blocks
from horinsight.models.token_maps import token_map_size


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

    def forward(self, x):
        half = self.proj_out.in_channels // 2
        gate, rest = self.proj_in(x).split([half, 3 * half], 1)
        first, second = self.dwconv(rest).split([half, 2 * half], 1)
        return self.proj_out(self.projs[0](gate * first) * second)


class Around(nn.Module):
    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, x):
        return self.mixer(x)


class C3HB(nn.Module):
    """A detector's block with a gnConv inside."""

    def __init__(self) -> None:
        super().__init__()
        self.cv1 = nn.Conv2d(3, 8, 1)
        self.m = nn.Sequential(Around(SomebodysGnConv(8)), Around(GnConv(8, 3)))

    def forward(self, x):
        return self.m(self.cv1(x))


def test_finds_gnconvs_in_anybodys_network():
    blocks = named_blocks(C3HB())
    assert [(b.name, b.mixer, b.order) for b in blocks] == [("m.0.mixer", "gnconv", 2), ("m.1.mixer", "gnconv", 3)]


def test_a_bare_gnconv_is_a_block_of_its_own():
    layer = GnConv(8, 1)
    (block,) = named_blocks(layer)
    assert block.module is layer
    assert (block.name, block.order) == ("", 1)


def test_a_network_without_mixers():
    pointwise = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 2))
    assert named_blocks(pointwise, image_size=(8, 8)) == []
    with pytest.raises(ValueError, match="Sequential has no block in which positions of an image are mixed"):
        chosen_blocks(pointwise, image_size=(8, 8))


def test_a_network_that_takes_no_images():
    with pytest.raises(ValueError, match="Linear does not take images of 224x224 pixels, one by one and alone"):
        named_blocks(nn.Linear(3, 3))


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


class Shared(nn.Module):
    """A block that is run three times, between two others; a head of two mixers that is called on two levels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 4, stride=4)
        self.unused = GnConv(4, 1)
        self.head = nn.Sequential(GnConv(4, 1), GnConv(4, 3))
        self.first, self.again = GnConv(4, 2), GnConv(4, 2)

    def forward(self, x):
        x = self.first(self.stem(x))
        for _ in range(3):
            x = x + self.again(x)
        coarse = nn.functional.avg_pool2d(x, 2)
        return self.head(x), self.head(coarse)


SHARED = ["first", "again", "again#2", "again#3", "head.0", "head.1", "head.0#2", "head.1#2"]


def test_each_call_of_a_module_is_a_block():
    model = Shared()
    blocks = named_blocks(model, image_size=(32, 48))
    assert [block.name for block in blocks] == SHARED, "in the order of the calls"
    assert [block.index for block in blocks] == list(range(1, 9))
    assert [block.call for block in blocks] == [1, 1, 2, 3, 1, 1, 2, 2]
    assert [block.num_calls for block in blocks] == [1, 3, 3, 3, 2, 2, 2, 2]
    assert all(model.get_submodule(block.path) is block.module for block in blocks)
    assert [block.order for block in blocks] == [2, 2, 2, 2, 1, 3, 1, 3]
    sizes = block_map_sizes(model, (32, 48))
    assert sizes == dict.fromkeys(SHARED[:6], (8, 12)) | dict.fromkeys(SHARED[6:8], (4, 6))


def test_bare_mixers_and_those_of_two_names():
    layer = GnConv(8, 2)
    network = nn.Sequential(nn.Conv2d(3, 8, 1), layer, nn.ReLU(), layer)
    assert [block.name for block in named_blocks(network)] == ["1", "1#2"]
    assert [block.name for block in named_blocks(layer)] == [""]


def test_what_was_seen_is_kept_while_the_modules_stay_the_same():
    model = Shared()
    model.in_chans = 3  # said, so that none are tried
    runs = []
    model.register_forward_pre_hook(lambda *_: runs.append(1))
    assert named_blocks(model, image_size=(32, 32)) != []
    assert [block.name for block in named_blocks(model, image_size=(32, 32))] == SHARED
    assert len(runs) == 2, "at the size that it is made for, and at that of the images"
    model.again = nn.Identity()
    assert "again" not in [block.name for block in named_blocks(model, image_size=(32, 32))]
    assert len(runs) == 4
    named_blocks(model, image_size=(64, 64))
    assert len(runs) == 5
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None, "what is known of a model does not keep it"


class AsksForNumbers(Shared):
    def forward(self, x):
        return super().forward(x) if x.mean().item() < 1e9 else None


def test_networks_that_cannot_be_run_on_shapes_are_watched_on_noise():
    assert [block.name for block in named_blocks(AsksForNumbers(), image_size=(32, 32))] == SHARED


class Undecided(Shared):
    """How often it calls a block depends on the numbers of the image."""

    def forward(self, x):
        features = self.first(self.stem(x))
        for _ in range(3 if float(x.std()) > 0.5 else 2):
            features = features + self.again(features)
        return features


def test_calls_that_depend_on_numbers_cannot_be_told_apart():
    model = Undecided()
    assert [block.name for block in named_blocks(model)] == SHARED[:4]
    flat = torch.full((1, 3, 32, 32), 0.1)
    with pytest.raises(ValueError, match=r"block 2 \(again, gnconv\): expected 3 call.* got 2: .*leave this block out"):
        model_mixing_weights(model, flat, blocks=[1, 2])
    with pytest.raises(ValueError, match=r"block 2 \(again, gnconv\): expected 3 call.* got 2: .*leave this block out"):
        model_interaction_spectra(model, flat, blocks=[1, 2], num_tuples=1)


class DependsOnTheImage(nn.Module):
    """Calls its mixer twice on the small images of a dry run at 32 pixels, once on others."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mixer = nn.Conv2d(3, 4, 1), GnConv(4, 2)

    def forward(self, x):
        y = self.mixer(self.stem(x))
        return self.mixer(y) if x.shape[-1] == 32 else y


def test_the_size_of_the_images_decides_how_often_a_module_is_called():
    model = DependsOnTheImage()
    assert [block.name for block in named_blocks(model)] == ["mixer"]
    assert [block.name for block in named_blocks(model, image_size=(32, 32))] == ["mixer", "mixer#2"]
    assert list(model_mixing_weights(model, torch.randn(1, 3, 32, 32))) == ["mixer", "mixer#2"]
    assert list(model_mixing_weights(model, torch.randn(1, 3, 16, 16))) == ["mixer"]


@pytest.mark.parametrize(
    "name", ["hornet_test", "seresnet18", "efficientnet_b0", "poolformer_s12", "focalnet_tiny_srf"]
)
def test_networks_that_call_each_mixer_once_keep_their_indices(name):
    model = meta_model(name)
    paths = [path for path, module in model.named_modules()]
    blocks = named_blocks(model)
    assert [block.index for block in blocks] == list(range(1, len(blocks) + 1))
    assert [block.path for block in blocks] == sorted((block.path for block in blocks), key=paths.index)
    assert all((block.call, block.num_calls, block.name) == (1, 1, block.path) for block in blocks)
