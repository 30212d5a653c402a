"""Filters of channels: adaptivity by explicit loops over offsets, GF's kernels beside those of its parameters."""

import numpy as np
import pytest
import torch
from timm.layers import Attention
from torch import nn

from horinsight import GnConv, channel_filters, create_model, filter_kernels, mixing_weights, model_mixing_weights


def by_loops(dense: np.ndarray, height: int, width: int, *, circular: bool) -> tuple[float, float]:
    """Location adaptivity and deviation of one channel's weights (N, N), by offset, pair by pair."""
    cells: dict[tuple[int, int], list[float]] = {}
    for i in range(height * width):
        for j in range(height * width):
            offset = (j // width - i // width, j % width - i % width)
            if circular:
                offset = (offset[0] % height, offset[1] % width)
            cells.setdefault(offset, []).append(dense[i, j])
    kept = {offset: np.array(values) for offset, values in cells.items() if np.abs(values).max() > 0}
    pairs = sum(map(len, kept.values()))
    grand = sum(values.sum() for values in kept.values()) / pairs
    location = sum(((values - values.mean()) ** 2).sum() for values in kept.values())
    static = sum(len(values) * (values.mean() - grand) ** 2 for values in kept.values())
    return location / (location + static), float(np.sqrt(location / pairs))


@pytest.mark.parametrize("kind", ["7x7", "gf"])
def test_adaptivity_of_each_channel_is_that_of_explicit_loops(kind):
    options = {"depthwise": "gf", "gf_size": (6, 4)} if kind == "gf" else {"kernel_size": 3}
    weights = mixing_weights(GnConv(8, 2, **options).double().eval(), torch.randn(2, 8, 6, 6, dtype=torch.float64))
    found = channel_filters(weights, image=1)
    dense = weights.dense()[1].numpy()
    for channel in range(8):
        circular = found.kernel(channel)[0].endswith("circular")
        share, deviation = by_loops(dense[channel], 6, 6, circular=circular)
        assert found.location_adaptivity[channel] == pytest.approx(share, rel=1e-9)
        assert found.location_deviation[channel] == pytest.approx(deviation, rel=1e-9)


def test_kernels_are_the_layers_own_and_responses_their_transforms():
    conv = nn.Conv2d(3, 3, 5, padding=2, groups=3).double()
    found = channel_filters(mixing_weights(conv, torch.randn(1, 3, 9, 9, dtype=torch.float64)))
    np.testing.assert_array_equal(found.kernels["5x5"], conv.weight[:, 0].detach().numpy())
    assert not found.adapts
    assert found.location_adaptivity.tolist() == [0.0] * 3
    assert found.norms == pytest.approx(conv.weight.detach().flatten(1).norm(dim=1).numpy())
    response = found.response(1)
    assert response.shape == (28, 28)
    assert response[14, 14] == pytest.approx(abs(conv.weight[1].sum().item()))
    assert (response**2).mean() == pytest.approx(found.norms[1] ** 2), "Parseval"


def test_global_filters_are_those_of_the_parameters_up_to_the_norm_s_factor():
    gnconv = GnConv(8, 1, depthwise="gf", gf_size=(6, 4)).double().eval()
    found = channel_filters(mixing_weights(gnconv, torch.randn(1, 8, 6, 6, dtype=torch.float64)))
    known = filter_kernels(gnconv.dwconv, (6, 6))
    assert found.channels["6x6 circular"].tolist() == [1, 3, 5, 7]
    for place, channel in enumerate(found.channels["6x6 circular"]):
        kernel = found.kernel(int(channel))[1]
        turned = np.roll(known.kernel[place][::-1, ::-1], (1, 1), (0, 1))  # offset i - j there, j - i here
        factor = kernel[0, 0] / turned[0, 0]
        np.testing.assert_allclose(kernel, factor * turned, atol=1e-12)
        np.testing.assert_allclose(found.response(int(channel)), abs(factor) * known.magnitude[place], atol=1e-12)


def test_attention_has_no_filters():
    model = create_model("hornet_test_iso")
    assert channel_filters(next(iter(model_mixing_weights(model, torch.randn(1, 3, 96, 96), blocks=[1]).values())))
    attention = mixing_weights(Attention(8, num_heads=2), torch.randn(1, 9, 8))
    with pytest.raises(ValueError, match="are no kernels"):
        channel_filters(attention)
    with pytest.raises(ValueError, match="channel from 0 to 2"):
        channel_filters(mixing_weights(nn.Conv2d(3, 3, 3, padding=1, groups=3), torch.randn(1, 3, 5, 5))).kernel(9)
