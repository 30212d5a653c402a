"""Mixers that are called several times, by keyword, or whose input is written into: each call is its own block."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from horinsight import (
    GnConv,
    mixing_rollout,
    mixing_weights,
    model_adaptivity,
    model_mixing_weights,
    query_maps,
)
from horinsight.models.hornet import HorNetBlock


class Unrolled(nn.Module):
    """One block, run three times; the map is halved before the last."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = nn.Conv2d(3, 8, 1), HorNetBlock(8, 2)
        nn.init.ones_(self.block.gamma1)

    def stages(self, x):
        """The input of each call."""
        first = self.stem(x)
        second = self.block(first)
        return first, second, nn.functional.avg_pool2d(self.block(second), 2)

    def forward(self, x):
        return self.block(self.stages(x)[-1])


NAMES = ["block.gnconv", "block.gnconv#2", "block.gnconv#3"]


@pytest.fixture
def unrolled() -> tuple[nn.Module, torch.Tensor, list[torch.Tensor]]:
    model, image = Unrolled().double().eval(), torch.randn(1, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        return model, image, [model.block.norm1(x) for x in model.stages(image)]


def test_each_call_has_its_own_weights(unrolled):
    model, image, inputs = unrolled
    found = model_mixing_weights(model, image)
    assert list(found) == NAMES
    for weights, x in zip(found.values(), inputs, strict=True):
        torch.testing.assert_close(weights.channel_mean(), mixing_weights(model.block.gnconv, x).channel_mean())
    assert [(weights.height, weights.width) for weights in found.values()] == [(8, 8), (8, 8), (4, 4)]
    second = model_mixing_weights(model, image, blocks=[2])
    assert list(second) == ["block.gnconv#2"]
    assert torch.equal(second["block.gnconv#2"].channel_mean(), found["block.gnconv#2"].channel_mean())


def test_what_is_made_of_the_weights_goes_by_calls(unrolled):
    model, image, inputs = unrolled
    assert list(model_adaptivity(model, image)) == NAMES
    maps = query_maps(model, image, [[(5, 2)]])
    assert list(maps.maps) == NAMES
    assert maps.block_indices == (1, 2, 3)
    for name, x, cell in zip(NAMES, inputs, [(5, 2), (5, 2), (2, 1)], strict=True):
        expected = mixing_weights(model.block.gnconv, x).at(*cell)[0].mean(0)
        np.testing.assert_allclose(maps.maps[name][0], expected, rtol=1e-12)


def test_rollout_over_calls_is_that_of_separate_blocks(unrolled):
    model, image, _ = unrolled

    class Separate(Unrolled):
        def __init__(self) -> None:
            super().__init__()
            self.second, self.third = HorNetBlock(8, 2), HorNetBlock(8, 2)

        def forward(self, x):
            return self.third(nn.functional.avg_pool2d(self.second(self.block(self.stem(x))), 2))

    separate = Separate().double().eval()
    for part in (separate.block, separate.second, separate.third):
        part.load_state_dict(model.block.state_dict())
    separate.stem.load_state_dict(model.stem.state_dict())
    found, expected = mixing_rollout(model, image), mixing_rollout(separate, image)
    np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-12)
    assert list(found.branch_shares) == NAMES
    np.testing.assert_allclose(list(found.branch_shares.values()), list(expected.branch_shares.values()), rtol=1e-12)


class ByKeyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mixer = nn.Conv2d(3, 4, 1), nn.ModuleDict({"gnconv": GnConv(4, 2)})

    def forward(self, x):
        return self.mixer["gnconv"](x=self.stem(x))


def test_calls_by_keyword():
    model, image = ByKeyword(), torch.randn(1, 3, 6, 6)
    (weights,) = model_mixing_weights(model, image).values()
    with torch.no_grad():
        expected = mixing_weights(model.mixer["gnconv"], model.stem(image))
    torch.testing.assert_close(weights.channel_mean(), expected.channel_mean())


def test_what_the_network_writes_later_does_not_reach_the_weights():
    """An activation in place on the output, a residual in place on the input."""
    from horinsight.models.ablations import DepthwiseBlock

    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.block = nn.Conv2d(3, 4, 1), DepthwiseBlock(4)
            self.block.forward = self.mixed

        def mixed(self, x):
            y = self.block.dwconv(x)
            kept = y.clone()
            y.relu_()
            x.add_(kept)
            return x

        def forward(self, x):
            return self.block(self.stem(x))

    model, image = InPlace().double().eval(), torch.randn(1, 3, 6, 6, dtype=torch.float64)
    (weights,) = model_mixing_weights(model, image).values()
    with torch.no_grad():
        torch.testing.assert_close(weights.values, model.stem(image))
        torch.testing.assert_close(weights.mixed, model.block.dwconv(model.stem(image)))
    assert weights.reconstruction_error < 1e-14


class Normalising(nn.Module):
    """Prepares its images in place, as some wrappers do."""

    def forward(self, x):
        return x.sub_(0.5).div_(0.25)


class NormalisingGnConv(GnConv):
    """Changes its input before it mixes it."""

    def forward(self, x):
        return super().forward(x.mul_(2))


@pytest.mark.parametrize(
    ("measured", "module", "shape"),
    [
        (partial(model_mixing_weights, blocks=[2]), nn.Sequential(Normalising(), Unrolled()), (1, 3, 6, 6)),
        (mixing_weights, NormalisingGnConv(8, 2), (1, 8, 6, 6)),
    ],
)
def test_what_was_given_is_left_as_it_was(measured, module, shape):
    given = torch.rand(shape)
    before = given.clone()
    measured(module, given)
    assert torch.equal(given, before)
