import math
from types import SimpleNamespace

import pytest
import timm
import torch
from foreign_networks import FOREIGN, Axial, Branches, Coordinate, Network, PooledKeys, Twice, UNet, Windows
from further_networks import FURTHER, DynamicKernel
from perturbation_oracle import missed_and_wrong
from rare_forms import FORMS
from rare_mixers import RARE
from timm.layers import GatedMlp
from timm.models.convnext import ConvNeXt
from timm.models.focalnet import FocalNet
from timm.models.metaformer import MetaFormer
from timm.models.mlp_mixer import MlpMixer, ResBlock, SpatialGatingBlock
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import horinsight  # noqa: F401 - enters our models in timm
from horinsight.mixers.blocks import named_blocks
from horinsight.mixers.found import default_image_size, found_mixers

NETWORKS = FOREIGN | FURTHER | RARE | FORMS
# where the experiment cannot tell: no position comes out, or others than go in
UNTOLD = {
    "unet": {"body.down"},
    "cropped": {"body.conv"},
    "capsules": {"primary", "capsules"},
    "high resolution": {"1.thin", "1.down"},
    "feature pyramid": {"1.second"},
    "functions only": {""},
    "hidden": {""},
    "latents": {"body.body.gather", "body.body.spread"},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_finds_what_nobody_listed(name):
    model, expected = NETWORKS[name]
    mixers = found_mixers(model, image_size=(24, 24))
    assert sorted((mixer.name, mixer.kind) for mixer in mixers) == sorted(expected)


# the oracle: change one position of what a module is given, see what changes


@pytest.mark.parametrize("name", NETWORKS)
def test_agrees_with_perturbation_on_networks_nobody_listed(name):
    model, expected = NETWORKS[name]
    missed, wrong, confirmed = missed_and_wrong(model, torch.randn(1, 3, 24, 24))
    assert not missed
    assert wrong == (["body.body.spread"] if name == "latents" else [])  # what it mixes is its second input
    assert confirmed == len({path.partition("#")[0] for path, _ in expected} - UNTOLD.get(name, set()))


@pytest.mark.parametrize(
    ("name", "side", "least"),
    [
        ("test_vit", 80, 6),
        ("test_convnext", 96, 9),
        ("test_mambaout", 96, 6),
        ("test_efficientnet", 96, 3),
        ("test_nfnet", 96, 8),
        ("test_coatnet", 160, 4),
        ("test_byobnet", 96, 5),
        ("hornet_test", 96, 4),
    ],
)
def test_agrees_with_perturbation_on_timm(name, side, least):
    options = {"img_size": side} if name == "test_vit" else {}
    missed, wrong, confirmed = missed_and_wrong(
        timm.create_model(name, **options).eval(), torch.randn(1, 3, side, side)
    )
    assert not missed
    assert not wrong
    assert confirmed >= least


# what the list of classes has found so far


@pytest.mark.parametrize("name", ["hornet_test", "hornet_test_iso", "hornet_digits_iso", "dwconv_digits_iso"])
def test_our_models_keep_their_list(name):
    model = timm.create_model(name)
    side = 32 if "digits" not in name else default_image_size(model)[0]
    mixers = found_mixers(model, image_size=(side, side))
    assert [(mixer.path, mixer.order, mixer.kind, mixer.block_path) for mixer in mixers] == [
        (block.name, block.order, block.mixer, block.block_name) for block in named_blocks(model)
    ]


SMALL = {
    "vit": lambda: VisionTransformer(img_size=64, depth=2, embed_dim=48, num_heads=3),
    "swin": lambda: SwinTransformer(img_size=64, depths=(2, 2), embed_dim=24, num_heads=(1, 2), window_size=4),
    "convnext": lambda: ConvNeXt(depths=(1, 1, 2, 1), dims=(8, 16, 32, 64)),
    "seresnet": lambda: timm.create_model("seresnet18"),
    "efficientnet": lambda: timm.create_model("test_efficientnet"),
    "focalnet": lambda: FocalNet(depths=(1, 1, 1, 1), embed_dim=24),
    "poolformer": lambda: MetaFormer(depths=(1, 1, 1, 1), dims=(8, 16, 32, 64)),
    "mixer": lambda: MlpMixer(img_size=64, num_blocks=1, embed_dim=48),
    "resmlp": lambda: MlpMixer(img_size=64, num_blocks=1, embed_dim=32, mlp_ratio=4, block_layer=ResBlock),
    "gmlp": lambda: MlpMixer(
        img_size=64, num_blocks=1, embed_dim=32, mlp_ratio=4, block_layer=SpatialGatingBlock, mlp_layer=GatedMlp
    ),
}


@pytest.mark.parametrize(
    ("name", "more"),
    [
        *((name, set()) for name in ("vit", "swin", "convnext", "focalnet", "mixer", "resmlp", "gmlp")),
        ("poolformer", {"convolution"}),
        ("seresnet", {"convolution", "pooling"}),
        ("efficientnet", {"convolution", "depthwise_conv"}),
    ],
)
def test_timms_families_keep_their_list(name, more):
    """Indices grow where a network has convolutions besides; nothing that was listed is lost, renamed or reordered."""
    model = SMALL[name]()
    mixers = found_mixers(model, image_size=(64, 64))
    blocks = named_blocks(model)
    assert blocks
    names = {block.name for block in blocks}
    assert [(m.path, m.order, m.kind, m.block_path) for m in mixers if m.path in names] == [
        (block.name, block.order, block.mixer, block.block_name) for block in blocks
    ]
    assert {mixer.kind for mixer in mixers if mixer.path not in names} == more


# what is said about each


def only(body: nn.Module, path: str, size: tuple[int, int] = (24, 24)):
    return next(mixer for mixer in found_mixers(Network(body), image_size=size) if mixer.path == path)


def test_maps_layouts_and_cells():
    mixer = only(Twice(), "body.conv", (32, 24))
    assert (mixer.input.layout, mixer.input.size, mixer.output.size, mixer.stride) == ("map", (8, 6), (8, 6), 1)
    assert torch.equal(mixer.input.cells, torch.arange(48).view(8, 6))
    rows = only(Axial(), "body.rows", (32, 24))
    assert (rows.input.layout, rows.input.axes, rows.num_inputs) == ("windows", (0, 1), 3)
    assert torch.equal(rows.input.cells, torch.arange(48).view(8, 6))
    columns = only(Axial(), "body.columns", (32, 24))
    assert torch.equal(columns.input.cells, torch.arange(48).view(8, 6).T)


def test_cells_of_shifted_windows():
    """The oracle numbers the cells and moves them as the network does."""
    cells = torch.arange(36.0).view(1, 1, 6, 6).roll((-1, -1), (2, 3))
    expected = nn.functional.unfold(cells, 3, stride=3)[0].T
    mixer = only(Windows(1), "body.attention")
    assert mixer.input.layout == "windows"
    assert torch.equal(mixer.input.cells, expected.long())


def test_prefix_tokens_and_class_attention():
    deit = timm.create_model("deit_tiny_distilled_patch16_224", depth=1, img_size=64)
    (mixer,) = found_mixers(deit, image_size=(64, 64))
    assert (mixer.input.layout, mixer.input.prefix_tokens, mixer.input.size) == ("tokens", 2, (4, 4))
    assert mixer.input.cells.tolist() == [-1, -1, *range(16)]
    cait = timm.create_model("cait_xxs24_224", depth=1, img_size=64)
    assert [(m.path, m.place) for m in found_mixers(cait, image_size=(64, 64))] == [
        ("blocks.0.attn", "block"),
        ("blocks_token_only.0.attn", "head"),
        ("blocks_token_only.1.attn", "head"),
    ]


def test_thinned_tokens_know_their_cells():
    levit = timm.create_model("levit_128s")
    mixer = next(m for m in found_mixers(levit) if m.class_name == "AttentionDownsample")
    assert (mixer.input.size, mixer.output.size, mixer.stride, mixer.place) == ((14, 14), (7, 7), 2, "block")
    assert torch.equal(mixer.output.cells, torch.arange(49))
    hiera = timm.create_model("hiera_tiny_224")
    attention = [m for m in found_mixers(hiera) if m.kind == "attention" and m.stride == 2]
    assert [mixer.input.size[0] for mixer in attention] == [56, 28, 14]
    for mixer in attention:
        assert sorted(mixer.output.cells.flatten().tolist()) == list(range(math.prod(mixer.output.size)))


def test_places_and_strides():
    resnet = timm.create_model("resnet10t")
    places = {m.path: (m.place, m.stride, m.block_path) for m in found_mixers(resnet, image_size=(64, 64))}
    assert places["conv1.0"] == ("stem", 2, "conv1")
    assert places["conv1.6"] == ("stem", 1, "conv1")
    assert places["maxpool"] == ("downsampling", 2, "")
    assert places["layer2.0.conv1"] == ("downsampling", 2, "layer2.0")
    assert places["layer2.0.conv2"] == ("block", 1, "layer2.0")
    unet = {m.path: (m.place, m.stride) for m in found_mixers(Network(UNet()), image_size=(24, 24))}
    assert unet == {"body.down": ("downsampling", 2), "body.deep": ("block", 1)}


def test_orders_by_sight():
    assert only(PooledKeys(), "body").order == 2
    assert only(Coordinate(), "body").order is None
    assert only(Twice(), "body.conv").order == 0


def test_all_ways_in_which_positions_met_are_told():
    assert only(DynamicKernel(), "body").seen == ("convolution", "gate")
    branches = only(Branches(), "body")
    assert (branches.seen, branches.holds_others) == (("pooling",), True)


def test_the_size_of_images_is_the_networks_own():
    assert default_image_size(timm.create_model("test_vit")) == (160, 160)
    assert default_image_size(nn.Linear(1, 1)) == (224, 224)
    configured = nn.Linear(1, 1)
    configured.config = SimpleNamespace(image_size=[96, 64])
    assert default_image_size(configured) == (96, 64)


def test_a_pool_to_a_larger_map_resizes():
    (mixer,) = found_mixers(Network(nn.Sequential(nn.AdaptiveAvgPool2d(9), Twice())), image_size=(24, 24))[:1]
    assert (mixer.path, mixer.input.size) == ("body.1.conv", (9, 9))
    (mixer,) = found_mixers(Network(nn.AdaptiveAvgPool2d(3)), image_size=(24, 24))
    assert (mixer.path, mixer.kind, mixer.place, mixer.stride) == ("body", "pooling", "downsampling", 2)


class InstanceNormByHand(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - x.mean((2, 3), keepdim=True)) / x.var((2, 3), keepdim=True).sqrt()


class GroupedNorm(nn.Module):
    """Over the columns of each row."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / x.norm(dim=3, keepdim=True)


class Standardised(InstanceNormByHand):
    """The same, of a name that says nothing."""


def test_norms_over_positions_are_no_mixers():
    norms = nn.Sequential(nn.GroupNorm(2, 8), nn.InstanceNorm2d(8), InstanceNormByHand(), GroupedNorm())
    assert found_mixers(Network(norms), image_size=(24, 24)) == []
    (mixer,) = found_mixers(Network(Standardised()), image_size=(24, 24))
    assert (mixer.path, mixer.kind) == ("body", "gate")
