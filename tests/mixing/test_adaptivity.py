import dataclasses

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import timm
import torch
from oracles import large_weights
from statsmodels.formula.api import ols
from timm.models.swin_transformer import SwinTransformerBlock
from torch import nn

from horinsight import GnConv, adaptivity, mixing_weights, model_adaptivity, model_mixing_weights
from horinsight.mixing.matrix_weights import AttentionWeights
from horinsight.mixing.weights import MixingWeights


def by_cell(weights: MixingWeights) -> dict[tuple, pd.DataFrame]:
    """(channel, offset) → table of image, location, weight; from the dense weights, over pairs on the map."""
    dense = weights.dense().numpy()
    B, C, N, _ = dense.shape
    W = weights.width
    circular = {c for part, where in zip(getattr(weights, "parts", ()), getattr(weights, "channels", ()), strict=True)
                if type(part).__name__ == "CircularWeights" for c in where.tolist()}  # fmt: skip
    radius = max((s // 2 for s in getattr(weights, "kernel_size", (3, 3))), default=1)
    rows: dict[tuple, list] = {}
    for c in range(C):
        for i in range(N):
            for j in range(N):
                d = (j // W - i // W, j % W - i % W)
                if c in circular:
                    d = ((i // W - j // W) % weights.height, (i % W - j % W) % W)
                elif max(map(abs, d)) > radius:
                    continue
                rows.setdefault((c, d), []).extend((b, i, dense[b, c, i, j]) for b in range(B))
    return {cell: pd.DataFrame(values, columns=["image", "location", "h"]) for cell, values in rows.items()}


@pytest.mark.parametrize("kind", [{"kernel_size": 3}, {"depthwise": "pool", "kernel_size": 3}, {"depthwise": "gf"}])
def test_shares_agree_with_a_two_way_analysis_of_variance(kind):
    layer = large_weights(GnConv(2, 1, **kind).double())
    weights = mixing_weights(layer, torch.randn(3, 2, 3, 4, dtype=torch.float64))
    tables = by_cell(weights)
    image = location = both = 0.0
    for table in tables.values():
        # without replication the residual of the additive model is the interaction
        anova = sm.stats.anova_lm(ols("h ~ C(image) + C(location)", data=table).fit())
        image += anova.loc["C(image)", "sum_sq"]
        location += anova.loc["C(location)", "sum_sq"]
        both += anova.loc["Residual", "sum_sq"]
    everything = pd.concat(tables.values()).h
    total = float(((everything - everything.mean()) ** 2).sum())
    found = adaptivity(weights)
    assert found.input_adaptivity.value == pytest.approx((image + both) / total, rel=1e-9)
    assert found.location_adaptivity.value == pytest.approx((location + both) / total, rel=1e-9)
    count = len(everything)
    assert found.input_deviation.value == pytest.approx(((image + both) / count) ** 0.5, rel=1e-9)
    assert found.location_deviation.value == pytest.approx(((location + both) / count) ** 0.5, rel=1e-9)
    assert found.static_share.value == pytest.approx(1 - (image + location + both) / total, rel=1e-9)
    assert 0 < found.input_adaptivity.value < 1


def test_a_convolution_does_not_adapt_at_all():
    conv = large_weights(nn.Conv2d(4, 4, 5, padding=2, groups=4))
    found = adaptivity(mixing_weights(conv, torch.randn(4, 4, 6, 7)))
    assert found.input_adaptivity.value == 0.0
    assert found.location_adaptivity.value == 0.0
    assert found.static_share.value == 1.0
    assert found.input_deviation.value == found.location_deviation.value == 0.0
    assert found.input_adaptivity.standard_error == 0.0
    for numbers in model_adaptivity(timm.create_model("convnext_atto"), torch.randn(2, 3, 64, 64)).values():
        assert numbers.input_adaptivity.value == numbers.location_adaptivity.value == 0.0


@pytest.mark.parametrize("name", ["hornet_test", "hornet_test_gf", "test_vit"])
def test_gnconv_and_attention_adapt(name):
    model = timm.create_model(name)
    size = model.pretrained_cfg["input_size"][-1]
    for numbers in model_adaptivity(model, torch.randn(3, 3, size, size)).values():
        assert numbers.input_adaptivity.value > 0.01
        assert numbers.location_adaptivity.value > 0.01
        shares = numbers.static_share.value + numbers.input_adaptivity.value
        assert shares <= 1 + 1e-9


def test_scaling_the_weights_changes_nothing():
    layer = large_weights(GnConv(4, 2).double())
    x = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    plain = adaptivity(mixing_weights(layer, x))
    layer.scale *= 1e-3  # both steps
    with torch.no_grad():
        layer.dwconv.weight *= -7
        layer.dwconv.bias *= -7
        layer.pws[0].bias *= -7e-3
    scaled = adaptivity(mixing_weights(layer, x))
    for name in ("input_adaptivity", "location_adaptivity", "mean_distance", "effective_positions"):
        assert getattr(scaled, name).value == pytest.approx(getattr(plain, name).value, rel=1e-9)
    assert scaled.input_deviation.value == pytest.approx(7e-3**2 * plain.input_deviation.value, rel=1e-9)


def brute_force(weights: MixingWeights, stride: tuple[float, float]) -> dict[str, np.ndarray]:
    h = weights.dense().numpy()
    prefix = getattr(weights, "num_prefix_tokens", 0)
    h = h[:, :, prefix:, prefix:]
    N, W = h.shape[-1], weights.width
    row, col = np.arange(N) // W, np.arange(N) % W
    distance = np.hypot((row[:, None] - row) * stride[0], (col[:, None] - col) * stride[1])
    size = np.abs(h)
    return {
        "distance": (size * distance).sum((1, 2, 3)) / size.sum((1, 2, 3)),
        "positions": (size.sum(-1) ** 2 / (h**2).sum(-1)).mean((1, 2)),
        "negative": -h.clip(max=0).sum((1, 2, 3)) / size.sum((1, 2, 3)),
    }


@pytest.mark.parametrize("kind", ["3x3", "pool", "gf", "vit", "swin"])
def test_reach_by_brute_force(kind):
    if kind == "swin":
        mixer = SwinTransformerBlock(8, (8, 8), num_heads=2, head_dim=4, window_size=4, shift_size=2).double().eval()
        x = torch.randn(4, 8, 8, 8, dtype=torch.float64)
    elif kind == "vit":
        from timm.models.vision_transformer import Attention

        mixer, x = Attention(8, num_heads=2).double(), torch.randn(4, 16, 8, dtype=torch.float64)
    else:
        options = {"3x3": {"kernel_size": 3}, "pool": {"depthwise": "pool"}, "gf": {"depthwise": "gf"}}[kind]
        mixer, x = large_weights(GnConv(4, 1, **options).double()), torch.randn(4, 4, 4, 5, dtype=torch.float64)
    weights = mixing_weights(mixer, x)
    found = adaptivity(weights, image_size=(weights.height * 16, weights.width * 8))
    cells, pixels = brute_force(weights, (1, 1)), brute_force(weights, (16, 8))
    for estimate, values in [
        (found.mean_distance, cells["distance"]),
        (found.mean_distance_pixels, pixels["distance"]),
        (found.effective_positions, cells["positions"]),
        (found.negative_share, cells["negative"]),
    ]:
        assert estimate.value == pytest.approx(values.mean(), rel=1e-9, abs=1e-12)
        assert estimate.standard_error == pytest.approx(values.std(ddof=1) / 2, rel=1e-6, abs=1e-12)


def test_uniform_pooling_uses_nine_positions():
    pool = GnConv(4, 1, depthwise="pool", kernel_size=3)
    found = adaptivity(mixing_weights(pool, torch.randn(1, 4, 30, 30)))
    inner, edge, corner = 28 * 28 * 9, 4 * 28 * 6, 4 * 4
    assert found.effective_positions.value == pytest.approx((inner + edge + corner) / 900)
    assert np.isnan(found.input_adaptivity.value), "one image cannot tell"
    assert np.isnan(found.mean_distance_pixels.value)


def test_standard_errors_of_shares_are_jackknifed():
    layer = large_weights(GnConv(2, 1).double())
    x = torch.randn(5, 2, 4, 4, dtype=torch.float64)
    found = adaptivity(mixing_weights(layer, x))
    left_out = [adaptivity(mixing_weights(layer, x[[b for b in range(5) if b != out]])) for out in range(5)]
    values = np.array([a.input_adaptivity.value for a in left_out])
    expected = np.sqrt(4 / 5 * ((values - values.mean()) ** 2).sum())
    assert found.input_adaptivity.standard_error == pytest.approx(expected, rel=1e-9)
    assert found.num_images == 5


def assert_numbers_are_those_of_attended_pairs(weights: MixingWeights) -> None:
    """Sums of squares over cells (channel, offset), each a table of images and queries, from the dense weights."""
    h, W = weights.dense().numpy(), weights.width
    cells: dict[tuple, list] = {}
    for c, i, j in np.argwhere(np.abs(h).max(0) > 1e-30):
        cells.setdefault((c, j // W - i // W, j % W - i % W), []).append(h[:, c, i, j])
    tables = [np.array(cell).T for cell in cells.values()]
    everything = np.concatenate([table.ravel() for table in tables])
    total = ((everything - everything.mean()) ** 2).sum()
    by_image = sum(((table - table.mean(0)) ** 2).sum() for table in tables)
    by_location = sum(((table - table.mean(1, keepdims=True)) ** 2).sum() for table in tables)
    found, reach = adaptivity(weights), brute_force(weights, (1, 1))
    for estimate, expected in [
        (found.input_adaptivity, by_image / total),
        (found.location_adaptivity, by_location / total),
        (found.input_deviation, (by_image / everything.size) ** 0.5),
        (found.location_deviation, (by_location / everything.size) ** 0.5),
        (found.mean_distance, reach["distance"].mean()),
        (found.effective_positions, reach["positions"].mean()),
        (found.negative_share, reach["negative"].mean()),
    ]:
        assert estimate.value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(("size", "shift"), [((8, 8), 2), ((8, 12), 0), ((10, 9), 2), ((4, 8), 2), ((7, 9), 1)])
def test_only_pairs_that_swin_attends_to_count(size, shift, dynamic):
    """A shift brings pairs from opposite borders into one window. Where the map fills its windows the mask keeps all of
    them apart; on a padded map it lets some through, which are far, and parts others that are near.

    By definition, from the dense weights: a masked pair has a share below exp(-100 + the range of the logits).
    """
    block = SwinTransformerBlock(
        8, size, num_heads=2, head_dim=4, window_size=4, shift_size=shift, dynamic_mask=dynamic, always_partition=True
    )
    torch.nn.init.normal_(block.attn.relative_position_bias_table)
    weights = mixing_weights(block.double().eval(), torch.randn(3, *size, 8, dtype=torch.float64))
    assert_numbers_are_those_of_attended_pairs(weights)


def test_weights_of_zero_adapt_to_nothing():
    silent = nn.Conv2d(2, 2, 3, padding=1, groups=2, bias=False)
    nn.init.zeros_(silent.weight)
    for weights in (mixing_weights(silent, torch.randn(3, 2, 4, 4)), zero_attention()):
        found = adaptivity(weights, image_size=(8, 8))
        shares = found.static_share, found.input_adaptivity, found.location_adaptivity
        assert [share.value for share in shares] == [1.0, 0.0, 0.0]
        for rest in (found.input_deviation, found.location_deviation, found.mean_distance, found.mean_distance_pixels):
            assert rest.value == 0.0
        assert found.negative_share.value == found.effective_positions.value == 0.0


def zero_attention() -> AttentionWeights:
    tokens, whole = torch.zeros(3, 4, 2), torch.zeros(3, 1, 4, 4)
    return AttentionWeights(height=2, width=2, values=tokens, offset=tokens, mixed=tokens, attention=whole)


def test_standard_errors_need_three_images_and_input_adaptivity_two():
    layer, x = large_weights(GnConv(2, 1).double()), torch.randn(3, 2, 4, 4, dtype=torch.float64)
    one, two, three = (adaptivity(mixing_weights(layer, x[:B])) for B in (1, 2, 3))
    for found, known in ((one, False), (two, True), (three, True)):
        assert np.isfinite(found.input_adaptivity.value) == np.isfinite(found.input_deviation.value) == known
        assert np.isfinite(found.location_adaptivity.value)
        assert np.isfinite(found.mean_distance.standard_error) == known
    for found, known in ((one, False), (two, False), (three, True)):
        for share in ("input_adaptivity", "location_adaptivity", "static_share", "input_deviation"):
            assert np.isfinite(getattr(found, share).standard_error) == known


def test_prefix_tokens_are_not_on_the_map():
    """Attention of 2 prefix and 3x4 patch tokens adapts as its part between patches does."""
    attention = torch.rand(3, 2, 14, 14, dtype=torch.float64)
    tokens = torch.zeros(3, 14, 4)
    shared = {"height": 3, "width": 4, "values": tokens, "mixed": tokens, "offset": tokens}
    whole = AttentionWeights(**shared, attention=attention, num_prefix_tokens=2)
    part = AttentionWeights(**shared, attention=attention[:, :, 2:, 2:])
    assert adaptivity(whole, image_size=(24, 24)) == adaptivity(part, image_size=(24, 24))


@pytest.mark.parametrize("size", [(2, 3), (5, 4)])
def test_kernels_that_reach_beyond_the_map(size):
    """Cells of the kernel without any pair of positions count for nothing: only what `dense` holds does."""
    layer = nn.Conv2d(3, 3, (7, 5), padding=(3, 4), dilation=(1, 2), groups=3).double()
    weights = mixing_weights(large_weights(layer), torch.randn(2, 3, *size, dtype=torch.float64))
    gate = torch.randn(2, 3, *size, dtype=torch.float64)
    weights = dataclasses.replace(weights, gate=gate)
    assert_numbers_are_those_of_attended_pairs(weights)


def test_adaptivity_of_blocks_is_that_of_their_weights():
    model, images = timm.create_model("hornet_test").eval(), torch.randn(3, 3, 96, 64)
    found = model_adaptivity(model, images, blocks=[2], step=0)
    (weights,) = model_mixing_weights(model, images, blocks=[2], step=0).values()
    (one,) = found.values()
    alone = adaptivity(weights, image_size=(96, 64))
    assert one == dataclasses.replace(alone, convention=one.convention, provenance=one.provenance)
    assert one.convention == {**alone.convention, "step": "0", **weights.declared()}


def test_weights_of_an_unknown_kind():
    class Mine:
        height = width = 2
        offset = torch.zeros(1)

    with pytest.raises(ValueError, match="not defined for Mine"):
        adaptivity(Mine())
