"""Mixers of all sorts as functions of their map, against the networks that call them."""

import pytest
import torch
from oracles import large_weights
from timm.models.gcvit import WindowAttentionGlobal
from timm.models.hiera import Hiera
from timm.models.levit import Levit
from timm.models.mvitv2 import MultiScaleVit, MultiScaleVitCfg
from timm.models.nest import Nest
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import Attention, VisionTransformer
from torch import Tensor, nn

from horinsight import model_influence, model_interaction_spectra, named_blocks
from horinsight.capture import capture
from horinsight.mixers.operators import tensors_in
from horinsight.operators.block_operators import measured_calls, operating_points
from horinsight.operators.position_order import PositionOrder


class SequenceFirst(nn.Module):
    """torch's attention on (N, B, C), which is not to look across images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.attn = nn.Conv2d(3, 8, 4, 4), nn.MultiheadAttention(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.stem(x).flatten(2).permute(2, 0, 1)
        return self.attn(tokens, tokens, tokens)[0].mean(0)


class Windowed(nn.Module):
    """GCViT's attention in windows, whose queries come from all of the picture: an argument for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.attn = WindowAttentionGlobal(8, 2, window_size=(3, 3), use_global=True)

    def forward(self, x: Tensor) -> Tensor:
        features = self.stem(x)
        B, C, H, W = features.shape
        query = nn.functional.adaptive_avg_pool2d(features, 3).permute(0, 2, 3, 1)
        parts = features.reshape(B, C, H // 3, 3, W // 3, 3).permute(0, 2, 4, 3, 5, 1).reshape(-1, 9, C)
        return self.attn(parts, query)


class Pair(nn.Module):
    """Takes a number, a table and features by keyword, and gives a list whose second entry is the map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix = nn.Conv2d(3, 8, 4, 4), Mix()

    def forward(self, x: Tensor) -> Tensor:
        features = self.stem(x)
        return self.mix(2, table=torch.ones(8), features={"map": features.permute(0, 2, 3, 1)})[1]


class Mix(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, times: int, *, table: Tensor, features: dict[str, Tensor]) -> list[Tensor]:
        mixed = nn.functional.conv2d(features["map"].permute(0, 3, 1, 2), self.conv.weight, padding=1)
        return [table, times * mixed.permute(0, 2, 3, 1) * features["map"]]


def mvit(**options: object) -> nn.Module:
    config = MultiScaleVitCfg(embed_dim=16, num_heads=1, depths=(1, 2), expand_attn=True, **options)
    return MultiScaleVit(config, img_size=32)


NETWORKS = {
    "vit": (lambda: VisionTransformer(img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2, reg_tokens=2), 32),
    "swin, padded": (lambda: SwinTransformer(36, 4, depths=(2,), embed_dim=8, num_heads=(2,), window_size=4), 36),
    "swin v2": (lambda: SwinTransformerV2(32, 4, depths=(2,), embed_dim=8, num_heads=(2,), window_size=4), 32),
    "hiera": (
        lambda: Hiera(
            (32, 32), embed_dim=8, num_heads=1, stages=(1, 2), q_pool=1, mask_unit_size=(4, 4), mask_unit_attn=(1, 1)
        ),
        32,
    ),
    "levit": (lambda: Levit(64, embed_dim=(16, 32), key_dim=8, depth=(1, 1), num_heads=(2, 2)), 64),
    "mvit": (mvit, 32),
    "mvit with a class token": (lambda: mvit(use_cls_token=True), 32),
    "nest": (lambda: Nest(32, patch_size=4, num_levels=2, embed_dims=(8, 16), num_heads=(1, 2), depths=(1, 1)), 32),
    "sequence first": (SequenceFirst, 24),
    "windows with a query": (Windowed, 24),
    "keywords, dictionaries, lists": (Pair, 24),
}


@pytest.mark.parametrize("scope", ["mixer", "block"])
@pytest.mark.parametrize("name", NETWORKS)
def test_operators_do_what_the_network_does(name, scope):
    """For a batch: the operator's output at its points is what the network computed, image by image, in any order."""
    make, size = NETWORKS[name]
    model = large_weights(make().eval().double())
    images = torch.randn(3, 3, size, size, dtype=torch.float64)
    blocks = named_blocks(model, image_size=(size, size))
    if scope == "block":
        blocks = [block for block in blocks if block.found.block is not None and block.found.block.path]
    measured = {block: measured_calls([block], scope)[block] for block in blocks}
    points = operating_points(model, images, measured)
    assert len(points) == len(blocks) > (0 if scope == "mixer" else -1)
    for block, seen in measured.items():
        with capture({"": model.get_submodule(seen.path)}) as calls, torch.no_grad():
            model(images)
        whole = tensors_in(calls[""][seen.number - 1].output)[seen.output_index]
        point = points[block.name]
        batch_axis = 1 if name == "sequence first" else 0
        order = PositionOrder.of(seen.output, batch_axis=batch_axis)
        with torch.no_grad():
            found = point.operator(point.x)
            turned = point.operator(point.x[[2, 0, 1, 1]])
        torch.testing.assert_close(turned, found[[2, 0, 1, 1]], rtol=1e-10, atol=1e-12)
        if point.reading.output_layout == "tokens":
            as_tokens = found
        elif point.reading.output_layout == "channels_last":
            as_tokens = found.flatten(1, 2)
        else:
            as_tokens = found.flatten(2).transpose(1, 2)
        torch.testing.assert_close(as_tokens, order.tokens(whole), rtol=1e-10, atol=1e-12)


def test_pooled_queries_are_at_home_where_their_window_is():
    """Hiera's and MViT's queries: 4x4 on 8x8. The effects of a query lie around its own cell of the fine map."""
    for name in ("hiera", "mvit", "mvit with a class token"):
        make, size = NETWORKS[name]
        model = make().eval().double()
        blocks = named_blocks(model, image_size=(size, size))
        block = next(block for block in blocks if block.found.stride == 2)
        image = torch.randn(1, 3, size, size, dtype=torch.float64)
        (spectrum,) = model_interaction_spectra(model, image, blocks=[block.index], max_order=3, num_tuples=8).values()
        assert (spectrum.location_order, spectrum.degree_order) == (2, 2), name
        (reach,) = model_influence(model, image, blocks=[block.index], queries=[(1, 2)], probes=None).values()
        rows, columns = block.found.output.size
        assert reach.influence.output_shape == (rows, columns)
        assert reach.influence.maps.shape[2:] == block.found.input.size


class Masked(nn.Module):
    """Attention with a mask of its own for each image: it looks at that many positions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.attn = nn.Conv2d(3, 4, 1), Attention(4, num_heads=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        seen = 3 + 2 * torch.arange(len(x))
        return self.attn(attn_mask=torch.arange(9) < seen[:, None, None, None], x=x)


def test_further_arguments_are_held_image_by_image():
    model = large_weights(Masked().double())
    images = torch.randn(2, 3, 3, 3, dtype=torch.float64)
    points = operating_points(model, images, measured_calls(named_blocks(model, image_size=(3, 3)), "mixer"))
    x = model.stem(images).flatten(2).transpose(1, 2)
    masks = [torch.arange(9) < 3, torch.arange(9) < 5]
    for image in range(2):
        alone = model.attn(x[image : image + 1], masks[image].expand(1, 1, 9, 9))
        point = points["attn"]
        torch.testing.assert_close(point.operator(point.x[[image, image]])[:1], alone)
    (found,) = model_interaction_spectra(model, images, max_order=3, num_tuples=8).values()
    assert (found.location_order, found.degree_order) == (2, 2)
