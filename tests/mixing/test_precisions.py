"""Mixing weights of models in any precision, and under autocast, against the same model in float64."""

import numpy as np
import pytest
import timm
import torch
from oracles import large_weights
from torch import nn

from horinsight import (
    create_model,
    mixing_rollout,
    mixing_weights,
    model_adaptivity,
    model_mixing_weights,
    query_maps,
)

NAMES = ["hornet_test", "hornet_test_gf", "convnext_atto", "test_vit"]


def built(name: str) -> tuple[nn.Module, torch.Tensor]:
    model = (create_model if "hornet" in name else timm.create_model)(name).eval()
    if "hornet" in name:
        large_weights(model, 0.3)  # the initial ones leave nothing of the features in float16
    side = 64 if "vit" not in name else 160
    return model, torch.randn(1, 3, side, side)


def last(model: nn.Module, images: torch.Tensor) -> np.ndarray:
    """Channel means of the last block's weights, after all the rounding on the way there."""
    found = model_mixing_weights(model, images, keep=lambda weights: weights.channel_mean().double().numpy())
    return list(found.values())[-1]


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_weights_of_any_precision(name, dtype):
    model, images = built(name)
    expected = last(model.double(), images.double())
    found = last(model.to(dtype), images.to(dtype))
    # each of some thirty operators on the way rounds by eps; their errors add up as squares or better
    assert relative_error(found, expected) < 30 * torch.finfo(dtype).eps
    weights = model_mixing_weights(model, images.to(dtype))
    wide = torch.promote_types(dtype, torch.float32)
    assert {part.channel_mean().dtype for part in weights.values()} == {wide}
    assert all(part.reconstruction_error < 30 * torch.finfo(dtype).eps for part in weights.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_surrounding_autocast_rounds_the_features_and_not_what_is_made_of_them(name):
    model, images = built(name)
    eps = torch.finfo(torch.bfloat16).eps
    plain = {
        "weights": last(model, images),
        "adaptivity": [part.mean_distance.value for part in model_adaptivity(model, images).values()],
        "rollout": mixing_rollout(model, images).weights,
    }
    maps = query_maps(model, images, [[(1, 2)]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = last(model, images)
        distances = [part.mean_distance.value for part in model_adaptivity(model, images).values()]
        rollout = mixing_rollout(model, images).weights
        rounded_maps = query_maps(model, images, [[(1, 2)]])
        kept = model_mixing_weights(model, images)
        means = {block: weights.channel_mean() for block, weights in kept.items()}
        errors = [weights.reconstruction_error for weights in kept.values()]
    assert relative_error(rounded, plain["weights"]) < 30 * eps
    np.testing.assert_allclose(distances, plain["adaptivity"], rtol=30 * eps)
    assert relative_error(rollout, plain["rollout"]) < 30 * eps
    np.testing.assert_allclose(rollout.sum(-1), 1, rtol=1e-5), "products of transitions are not rounded"
    for block, values in maps.maps.items():
        assert relative_error(rounded_maps.maps[block], values) < 30 * eps
    assert all(error < 30 * eps for error in rounded_maps.reconstruction_errors)
    for block, weights in kept.items():
        assert torch.equal(means[block], weights.channel_mean()), "read inside or outside"
        assert means[block].dtype == torch.float32
    assert errors == list(rounded_maps.reconstruction_errors)


def test_features_that_underflow():
    """With the initial weights p_n is 0 in float16 and 1e-9 in float32: nothing to compare, and no other mixer."""
    model = create_model("hornet_test").half()
    weights = model_mixing_weights(model, torch.randn(1, 3, 96, 96).half())
    assert not any(part.mixed.any() for part in list(weights.values())[-1:])


def test_rows_of_a_rollout_sum_to_one_in_half_precision():
    model, images = built("hornet_test")
    rollout = mixing_rollout(model.bfloat16(), images.bfloat16())
    np.testing.assert_allclose(rollout.weights.sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_convolution_in_half_precision(dtype):
    """Its weights are its kernel, to the last bit."""
    conv = nn.Conv2d(4, 4, 3, padding=1, groups=4).to(dtype)
    weights = mixing_weights(conv, torch.randn(1, 4, 5, 6).to(dtype))
    expected = nn.functional.pad(conv.weight.float()[None, :, 0], (2, 1, 1, 1))  # around (2, 3)
    torch.testing.assert_close(weights.at(2, 3), expected, rtol=0, atol=0)
