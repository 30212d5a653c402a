"""Tables of all queries against single queries, for every kind of weights."""

import numpy as np
import pytest
import torch
from torch import nn

import horinsight
from horinsight.mixing.query_table import query_table, table_positions
from horinsight.mixing.weights import MixingWeights

MODELS = {
    "hornet_test": {"image": (48, 64)},
    "hornet_test_gf": {"image": (64, 64)},
    "test_vit": {"image": (160, 160)},
    "swin_tiny_patch4_window7_224": {"image": (224, 224), "blocks": [3, 12]},
    "pvt_v2_b0": {"image": (96, 96), "blocks": [1, 3]},
    "poolformer_s12": {"image": (96, 96), "blocks": [1, 7]},
}


def weights_of(name: str) -> dict[str, MixingWeights]:
    asked = dict(MODELS[name])
    torch.manual_seed(0)
    model = horinsight.create_model(name)
    images = torch.randn(2, 3, *asked["image"])
    return horinsight.model_mixing_weights(model, images, blocks=asked.get("blocks"))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("channel", [None, 1])
def test_each_row_is_the_map_of_its_query(name, channel):
    generator = np.random.default_rng(0)
    for block, weights in weights_of(name).items():
        if channel is not None and weights.num_channels < 2:
            continue
        table = query_table(weights, image=1, channel=channel)
        assert table.values.shape[0] == weights.height * weights.width
        for _ in range(5):
            row, col = int(generator.integers(weights.height)), int(generator.integers(weights.width))
            h = weights.at(row, col)[1].double()
            expected = (h.mean(0) if channel is None else h[channel]).numpy()
            # the mean over C numbers of float32, in whatever order they are added
            most = weights.num_channels * np.finfo(np.float32).eps * float(h.abs().max())
            np.testing.assert_allclose(table.at(row, col), expected, rtol=1e-6, atol=most, err_msg=block)


def test_a_table_is_small():
    found = weights_of("hornet_test")
    tables = [query_table(weights) for weights in found.values()]
    full = sum((weights.height * weights.width) ** 2 for weights in found.values())
    assert tables[0].cells is not None
    assert table_positions(tables[:1]) == 2 * tables[0].values.size
    assert tables[0].values.shape[1] == 49
    assert table_positions(tables[:1]) < full


def test_what_does_not_fit_is_told():
    conv = horinsight.mixing_weights(nn.Conv2d(4, 4, 3, padding=1, groups=4), torch.randn(1, 4, 6, 6))
    with pytest.raises(ValueError, match="image expects a number from 0 to 0, got 1"):
        query_table(conv, image=1)
    with pytest.raises(ValueError, match="channel expects a number from 0 to 3, got 4"):
        query_table(conv, channel=4)
    vit = next(iter(weights_of("test_vit").values()))
    with pytest.raises(ValueError, match=r"1.0e\+04 pairs of positions, more than 1.0e\+03"):
        query_table(vit, max_pairs=1000)
