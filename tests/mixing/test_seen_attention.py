"""Attention of any class: its weights against dense Jacobians with the softmax held, entry by entry.

With one head and linear maps around it, y_i = W_o Σ_j A_ij W_v x_j + b: with A held, the Jacobian's block (i, j) is
A_ij times one matrix, the same for all pairs.
"""

import pytest
import torch
import torch.nn.functional as F
from oracles import large_weights
from timm.layers.halo_attn import HaloAttn
from timm.models.beit import Attention as BeitAttention
from timm.models.cait import TalkingHeadAttn
from timm.models.davit import WindowAttention as DaVitAttention
from timm.models.efficientformer import Attention as EfficientFormerAttention
from timm.models.eva import EvaAttention
from timm.models.gcvit import WindowAttentionGlobal
from timm.models.hiera import MaskUnitAttention
from timm.models.maxxvit import Attention2d, AttentionCl
from timm.models.nest import Attention as NestAttention
from timm.models.pvt_v2 import Attention as PvtAttention
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import WindowAttention as SwinV2Attention
from timm.models.twins import GlobalSubSampleAttn, LocallyGroupedAttn
from timm.models.visformer import Attention as VisformerAttention
from timm.models.vision_transformer import Attention, VisionTransformer
from timm.models.volo import Attention as VoloAttention
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from horinsight import model_adaptivity, model_mixing_weights, named_blocks, query_maps
from horinsight.capture import evaluation
from horinsight.mixing.pair_weights import PairWeights
from horinsight.operators.block_operators import measured_calls, operating_points
from horinsight.operators.open_attention import OpenAttention

C = 4


class On(nn.Module):
    """A mixer behind a stem: on maps, channels-last maps, tokens, or windows of 2x2."""

    def __init__(self, mixer: nn.Module, lies: str) -> None:
        super().__init__()
        self.stem, self.mixer, self.lies = nn.Conv2d(3, C, 2, 2), mixer, lies
        self.pretrained_cfg = {"input_size": (3, 8, 8)}  # or it would be looked at with 224 pixels, 12 544 tokens

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.lies == "map":
            return self.mixer(x)
        if self.lies == "last":
            return self.mixer(x.permute(0, 2, 3, 1))
        if self.lies == "sized":  # tokens, and the size of their map
            return self.mixer(x.flatten(2).transpose(1, 2), x.shape[2:])
        if self.lies in ("tokens", "class token"):
            tokens = x.flatten(2).transpose(1, 2)
            extra = tokens.new_ones(len(x), 1, C) if self.lies == "class token" else tokens[:, :0]
            return self.mixer(torch.cat([extra, tokens], 1))
        B, _, H, W = x.shape
        parts = x.reshape(B, C, H // 2, 2, W // 2, 2).permute(0, 2, 4, 3, 5, 1)
        if self.lies == "blocks":  # (B, windows, places, C)
            return self.mixer(parts.reshape(B, -1, 4, C))
        return self.mixer(parts.reshape(-1, 4, C) if self.lies == "windows" else parts.reshape(-1, 2, 2, C))


class Written(nn.Module):
    """Attention that somebody wrote by hand, in one of several ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.q, self.k, self.v, self.out = (nn.Linear(C, C) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        if self.way == "einsum":
            weights = torch.einsum("bnc,bmc->bnm", q, k).softmax(-1)
            return self.out(torch.einsum("bnm,bmc->bnc", weights, v))
        if self.way == "values first":
            weights = (k @ q.mT).softmax(1)  # (B, keys, queries)
            return self.out((v.mT @ weights).mT)
        if self.way == "fused":
            return self.out(F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0])
        if self.way == "sigmoid":  # rows that do not sum to 1
            return self.out((q @ k.mT).sigmoid() @ v)
        if self.way == "pooled keys":
            k, v = k.unflatten(1, (-1, 2)).mean(2), v.unflatten(1, (-1, 2)).mean(2)
            return self.out((q @ k.mT).softmax(-1) @ v)
        assert self.way == "cosine"
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT
        return self.out((5 * scores).softmax(-1) @ v)


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(C, 1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(x, x, x, need_weights=False)[0]


MIXERS = {
    "beit": (lambda: BeitAttention(C, 1, window_size=(4, 4)), "class token"),
    "cait": (lambda: TalkingHeadAttn(C, 1), "tokens"),
    "davit windows": (lambda: DaVitAttention(C, (2, 2), 1), "windows"),
    "efficientformer": (lambda: EfficientFormerAttention(C, C, 1, attn_ratio=1, resolution=4), "tokens"),
    "eva": (lambda: EvaAttention(C, 1, scale_norm=False), "class token"),
    "hiera": (lambda: MaskUnitAttention(C, C, 1, window_size=4, use_mask_unit_attn=True), "tokens"),
    "coatnet": (lambda: Attention2d(C, C, dim_head=C), "map"),
    "maxvit": (lambda: AttentionCl(C, C, dim_head=C), "2x2"),
    "nest": (lambda: NestAttention(C, 1), "blocks"),
    "pvt": (lambda: PvtAttention(C, 1, sr_ratio=1, linear_attn=False), "sized"),
    "swin v2": (lambda: SwinV2Attention(C, (2, 2), 1), "windows"),
    "twins, local": (lambda: LocallyGroupedAttn(C, 1, ws=2), "sized"),
    "twins, global": (lambda: GlobalSubSampleAttn(C, 1, sr_ratio=1), "sized"),
    "vit": (lambda: Attention(C, 1), "class token"),
    "visformer": (lambda: VisformerAttention(C, 1), "map"),
    "volo": (lambda: VoloAttention(C, 1), "last"),
    "gcvit": (lambda: WindowAttentionGlobal(C, 1, (2, 2), use_global=False), "windows"),
    "halo": (lambda: HaloAttn(C, num_heads=1, dim_head=C, block_size=2, halo_size=1, qk_ratio=1.0), "map"),
    "torch": (SelfAttention, "tokens"),
    **{f"written, {way}": ((lambda way=way: Written(way)), "tokens") for way in
       ("einsum", "values first", "fused", "sigmoid", "cosine", "pooled keys")},
}  # fmt: skip


class HeldSoftmax(TorchFunctionMode):
    """Scores are constants: what softmax and sigmoid give has no derivative."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        return found.detach() if name in ("softmax", "sigmoid") else found


def held_jacobian(model: nn.Module, image: Tensor) -> Tensor:
    """(N, C', M, C) of the block's mixer with its softmax held, positions in the order of their maps."""
    (block,) = named_blocks(model, image_size=tuple(image.shape[2:]))
    point = operating_points(model, image, measured_calls([block], "mixer"))[block.name]

    def tokens(x: Tensor, layout: str, grid: tuple[int, int] | None) -> Tensor:
        if layout == "tokens":
            return x[0, x.shape[1] - grid[0] * grid[1] :]
        return x[0].flatten(0, 1) if layout == "channels_last" else x[0].flatten(1).T

    with evaluation(model), HeldSoftmax(), OpenAttention():
        J = torch.autograd.functional.jacobian(
            lambda x: tokens(point.operator(x), point.reading.output_layout, point.reading.output_grid), point.x
        )
    N, D = J.shape[:2]
    rows = [tokens(row, point.reading.layout, point.reading.grid) for row in J.flatten(0, 1)]
    return torch.stack(rows).unflatten(0, (N, D))


@pytest.mark.parametrize("name", MIXERS)
def test_weights_are_the_jacobian_with_the_softmax_held(name):
    make, lies = MIXERS[name]
    torch.manual_seed(0)
    model = large_weights(On(make(), lies).double(), 0.4).eval()
    image = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    (weights,) = model_mixing_weights(model, image).values()
    A = weights.dense()[0, 0]
    if not isinstance(weights, PairWeights):  # the rows and columns of class tokens
        A = A[A.shape[0] - 16 :, A.shape[1] - 16 :]
    J = held_jacobian(model, image)
    assert weights.reconstruction_error < 1e-12
    if name == "written, pooled keys":  # a key is the mean of two positions
        A = A.repeat_interleave(2, 1) / 2
    i, j = divmod(int(A.abs().argmax()), A.shape[1])
    K = J[i, :, j] / A[i, j]
    torch.testing.assert_close(J, A[:, None, :, None] * K[None, :, None, :], rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(weights.channel_mean(), weights.dense().mean(1))
    assert weights.at(1, 2).shape[2:] == weights.looked_at


@pytest.mark.parametrize("name", ["swin v2", "written, fused", "hiera", "halo", "beit"])
def test_a_batch_is_its_images_one_by_one(name):
    make, lies = MIXERS[name]
    model = large_weights(On(make(), lies)).eval()
    images = torch.randn(3, 3, 8, 8)
    (together,) = model_mixing_weights(model, images).values()
    for image in range(3):
        (alone,) = model_mixing_weights(model, images[image : image + 1]).values()
        torch.testing.assert_close(together.channel_mean()[image], alone.channel_mean()[0])
        torch.testing.assert_close(together.at(2, 1)[image], alone.at(2, 1)[0])
    assert together.reconstruction_error < 1e-5, "in float32"
    torch.testing.assert_close(together.apply(), together.mixed)
    found, expected = together.at_middle()
    torch.testing.assert_close(found, expected)


def test_known_ways_and_the_general_one_agree():
    """timm's ViT and Swin are read while the network runs; here by what they compute."""
    from horinsight.mixing.weights_by_rerun import weights_of_call

    vit = VisionTransformer(img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2, reg_tokens=1)
    swin = SwinTransformer(36, 4, depths=(2,), embed_dim=8, num_heads=(2,), window_size=4)
    for model, size in ((vit, 32), (swin, 36)):
        large_weights(model.eval().double())
        images = torch.randn(2, 3, size, size, dtype=torch.float64)
        known = model_mixing_weights(model, images)
        for block in named_blocks(model, image_size=(size, size)):
            from horinsight.capture import capture

            with evaluation(model), torch.no_grad():
                with capture({"": block.module}) as calls:
                    model(images)
                general = weights_of_call(block, calls[""][block.call - 1], 2)
            expected = known[block.name]
            prefix = expected.num_positions - expected.height * expected.width
            torch.testing.assert_close(general.dense(), expected.dense()[:, :, prefix:, prefix:])
            assert general.reconstruction_error < 1e-12


def test_everything_that_shows_weights_takes_pooled_keys():
    model = large_weights(On(Written("pooled keys"), "tokens")).eval()
    images = torch.randn(2, 3, 8, 8)
    (weights,) = model_mixing_weights(model, images).values()
    assert (weights.height, weights.width, weights.looked_at) == (4, 4, (4, 2))
    maps = query_maps(model, images, [[(3, 3)], [(0, 1)]])
    assert maps.maps["mixer"].shape == (2, 4, 2)
    assert maps.to_frame().shape[0] == 16
    (found,) = model_adaptivity(model, images).values()
    assert 0 < found.input_adaptivity.value < 1
