import pytest
import timm
import torch
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.vision_transformer import Attention

from horinsight import mixing_weights, model_mixing_weights
from horinsight.capture import capture
from horinsight.mixing.attention_weights import unfused_attention


def test_attention_by_its_definition():
    layer = Attention(8, num_heads=2, qkv_bias=True).double().eval()
    x = torch.randn(3, 9, 8, dtype=torch.float64)
    weights = mixing_weights(layer, x)
    q, k, _ = layer.qkv(x).reshape(3, 9, 3, 2, 4).permute(2, 0, 3, 1, 4)
    expected = torch.softmax(torch.einsum("bhid,bhjd->bhij", q, k) / 2, dim=-1)
    torch.testing.assert_close(weights.dense(), expected)
    torch.testing.assert_close(weights.dense().sum(-1), torch.ones(3, 2, 9, dtype=torch.float64))
    torch.testing.assert_close(weights.channel_mean(), expected.mean(1))
    torch.testing.assert_close(weights.at(1, 2), expected[:, :, 5].reshape(3, 2, 3, 3))
    torch.testing.assert_close(layer.proj(weights.apply()), layer(x))
    assert weights.reconstruction_error < 1e-14


def test_vit_with_class_token():
    model = timm.create_model("test_vit").eval()
    found = model_mixing_weights(model, torch.randn(2, 3, 160, 160))
    for weights in found.values():
        assert weights.num_prefix_tokens == 1
        assert weights.channel_mean().shape == (2, 101, 101)
        assert weights.at(9, 9).shape == (2, 2, 10, 10)
        torch.testing.assert_close(weights.at(9, 9).flatten(2), weights.dense()[:, :, 100, 1:])
        torch.testing.assert_close(weights.dense().sum(-1), torch.ones(2, 2, 101))


def test_the_grid_is_read_off_the_patch_embedding_not_guessed():
    model = timm.create_model("test_vit", dynamic_img_size=True, dynamic_img_pad=True).eval()
    found = model_mixing_weights(model, torch.randn(1, 3, 161, 160))
    assert {(w.height, w.width) for w in found.values()} == {(11, 10)}


def test_prefix_tokens_inside_wrappers():
    model = timm.create_model("test_vit", features_only=True)
    for weights in model_mixing_weights(model, torch.randn(1, 3, 160, 160)).values():
        assert (weights.num_prefix_tokens, weights.height, weights.width) == (1, 10, 10)


def test_non_square_vit():
    model = timm.create_model("test_vit", img_size=(96, 160)).eval()
    found = model_mixing_weights(model, torch.randn(1, 3, 96, 160))
    assert {(w.height, w.width) for w in found.values()} == {(6, 10)}


@pytest.mark.parametrize("size", [(8, 8), (8, 12), (4, 12), (10, 9)])  # one row of windows; the last is padded to 12x12
@pytest.mark.parametrize("shift", [0, 2])
def test_swin_windows_shift_mask_and_padding(size, shift):
    block = SwinTransformerBlock(8, size, num_heads=2, head_dim=4, window_size=4, shift_size=shift).double().eval()
    torch.nn.init.normal_(block.attn.relative_position_bias_table)
    x = torch.randn(2, *size, 8, dtype=torch.float64)
    weights = mixing_weights(block, x)
    H, W = size
    # the module's own output, without the residual path: apply() → output projection
    out = block.attn.proj(weights.apply()).reshape(2, H, W, 8)
    torch.testing.assert_close(out, block._attn(block.norm1(x)))
    assert weights.reconstruction_error < 1e-14
    dense = weights.dense()
    assert dense.shape == (2, 2, H * W, H * W)
    rows = dense.sum(-1)
    if size == (10, 9):
        assert float(rows.max()) <= 1 + 1e-12, "padded windows give part of their weight away"
    else:
        torch.testing.assert_close(rows, torch.ones_like(rows))
    torch.testing.assert_close(weights.channel_mean(), dense.mean(1))
    for row, col in [(0, 0), (3, 5), (H - 1, W - 1)]:
        torch.testing.assert_close(weights.at(row, col), dense[:, :, row * W + col].reshape(2, 2, H, W))
    for i in range(H * W):  # each query sees its own window only; written out from the definition of the shift
        window = [(((i // W - shift) % H) // 4, ((i % W - shift) % W) // 4)]
        seen = dense[0, 0, i].nonzero().flatten().tolist()
        assert all((((j // W - shift) % H) // 4, ((j % W - shift) % W) // 4) in window for j in seen)


def test_swin_model_in_one_pass():
    model = timm.create_model("swin_tiny_patch4_window7_224").eval()
    found = model_mixing_weights(model, torch.randn(1, 3, 224, 224), blocks=[1, 2, 5, 12])
    for weights in found.values():
        torch.testing.assert_close(weights.channel_mean().sum(-1), torch.ones(1, weights.num_positions))
        assert weights.reconstruction_error < 1e-6


def test_attention_is_opened_inside_and_the_modules_keep_their_flags():
    model = timm.create_model("test_vit").eval()
    attention, x = model.blocks[0].attn, torch.randn(1, 5, 64)
    assert attention.fused_attn
    expected = attention(x)
    for error in (None, KeyboardInterrupt):
        try:
            with unfused_attention(model), capture({"matrix": attention.attn_drop}) as calls:
                torch.testing.assert_close(attention(x), expected)
                assert attention.fused_attn, "which other threads go by"
                if error:
                    raise error
        except KeyboardInterrupt:
            pass
        assert [call.input.shape for call in calls["matrix"]] == [(1, attention.num_heads, 5, 5)]
        assert "forward" not in attention.__dict__
        assert attention.fused_attn
        assert torch.equal(attention(x), expected)


def test_attention_with_more_than_the_equation_is_refused():
    layer = Attention(8, num_heads=2, scale_norm=True, norm_layer=torch.nn.LayerNorm)
    with pytest.raises(ValueError, match="without a norm or a gate"):
        mixing_weights(layer, torch.randn(1, 9, 8))
    with pytest.raises(ValueError, match="10 tokens do"):
        mixing_weights(Attention(8, num_heads=2), torch.randn(1, 10, 8))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_are_wide_enough_to_be_reported(dtype):
    """Half precision is widened; what is wider already stays."""
    layer = Attention(8, num_heads=2).to(dtype)
    weights = mixing_weights(layer, torch.randn(1, 9, 8).to(dtype))
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    assert {weights.attention.dtype, weights.values.dtype, weights.mixed.dtype, weights.apply().dtype} == {expected}
