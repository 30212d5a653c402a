"""Weights redrawn from the head down, and brought back bit for bit."""

import numpy as np
import pytest
import scipy.stats
import timm
import torch
from torch import Tensor, nn

from horinsight import create_model
from horinsight.attribution.redrawn_weights import head_down_stages, redraw, redrawable, restored_parameters
from horinsight.attribution.weight_randomization import randomized_maps


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: value.contiguous().numpy().tobytes() for name, value in model.state_dict().items()}


class Net(nn.Module):
    """Stem, two blocks with layer scale, norm, head; weights as if trained."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 4, 3)
        self.blocks = nn.Sequential(*[Block() for _ in range(2)])
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)
        for parameter in self.parameters():
            nn.init.normal_(parameter, mean=0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.stem(x))).mean((2, 3)))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(4, 1, 1))
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * torch.tanh(self.conv(x))


def gradient(model: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    x.requires_grad_()
    score = model(x).gather(1, t[:, None]).sum()
    return torch.autograd.grad(score, x)[0].sum(1)


@pytest.fixture
def model() -> Net:
    return Net()


IMAGES, TARGETS = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(3)), torch.tensor([0, 1, 2])
STAGES = ("head", "blocks.1", "blocks.0", "stem")


def test_stages_go_from_the_head_down(model):
    assert head_down_stages(model) == STAGES
    isotropic = head_down_stages(create_model("hornet_test_iso"))
    assert isotropic == ("head", "blocks.2", "blocks.1", "blocks.0", "stem")
    assert head_down_stages(timm.create_model("test_vit"))[0] == "head"


def test_a_cascade_keeps_norms_and_scales(model):
    model.train()
    before, seen = bits(model), []

    def watching(x: Tensor, t: Tensor) -> Tensor:
        seen.append(bits(model))
        assert not model.training
        return gradient(model, x, t)

    found = randomized_maps(model, IMAGES, TARGETS, {"gradient": watching}, seed=4)
    assert found.stages == STAGES
    assert seen[0] == before
    redrawn_parameters = {
        "head": {"head.weight", "head.bias"},
        "blocks.1": {"blocks.1.conv.weight", "blocks.1.conv.bias"},
        "blocks.0": {"blocks.0.conv.weight", "blocks.0.conv.bias"},
        "stem": {"stem.weight", "stem.bias"},
    }
    expected: set[str] = set()
    for stage, state in zip(STAGES, seen[1:], strict=True):
        expected |= redrawn_parameters[stage]
        assert {name for name in state if state[name] != before[name]} == expected
    assert bits(model) == before
    assert model.training
    assert found.kept["blocks.1"] == ("gamma",)
    assert found.redrawn["head"] == 15
    again = randomized_maps(model, IMAGES, TARGETS, {"gradient": lambda x, t: gradient(model, x, t)}, seed=4)
    np.testing.assert_array_equal(again.correlations, found.correlations)
    other = randomized_maps(model, IMAGES, TARGETS, {"gradient": lambda x, t: gradient(model, x, t)}, seed=5)
    assert not np.array_equal(other.correlations, found.correlations)


def test_correlations_are_those_of_the_maps_that_were_made(model):
    made: list[np.ndarray] = []

    def kept(x: Tensor, t: Tensor) -> Tensor:
        made.append(gradient(model, x, t).detach().round(decimals=1).numpy())  # with ties
        return torch.from_numpy(made[-1])

    found = randomized_maps(model, IMAGES, TARGETS, {"gradient": kept, "picture": lambda x, t: x.sum(1),
                                                     "flat": lambda x, t: torch.ones(3, 2, 2)})  # fmt: skip
    for stage, maps in enumerate(made[1:]):
        for picture in range(3):
            a, b = made[0][picture].ravel(), maps[picture].ravel()
            rounding = {"rel": 0, "abs": 1e-12}
            assert found.correlations[0, stage, picture] == pytest.approx(scipy.stats.spearmanr(a, b)[0], **rounding)
            expected = scipy.stats.spearmanr(abs(a), abs(b))[0]
            assert found.magnitudes[0, stage, picture] == pytest.approx(expected, **rounding)
    assert (found.correlations[1] == 1).all(), "the picture has learnt nothing"
    assert np.isnan(found.correlations[2]).all()
    frame = found.to_frame().set_index(["map", "stage"])
    assert frame.loc[("flat", "stem"), "constant"] == 3
    assert frame.loc[("picture", "stem"), "correlation"] == 1


@pytest.mark.parametrize("how", ["matching", "init"])
def test_weights_come_back_also_after_an_error(model, how):
    with torch.no_grad():
        model.head.bias[0] = float("nan")
        model.head.bias[1] = -0.0
    before, calls = bits(model), []

    def breaks(x: Tensor, t: Tensor) -> Tensor:
        calls.append(bits(model) == before)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return x.sum(1)

    state = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        randomized_maps(model, IMAGES, TARGETS, {"breaks": breaks}, how=how)
    assert calls == [True, False, False]
    assert bits(model) == before
    assert torch.equal(torch.get_rng_state(), state)


def test_redrawn_numbers_are_as_large_as_trained_ones_or_as_initialised():
    layer = nn.Linear(100, 100)
    nn.init.normal_(layer.weight, mean=3.0, std=4.0)  # root mean square 5
    with restored_parameters(layer):
        redraw(layer, "matching", 0)
        spread = float(layer.weight.detach().square().mean().sqrt())
        assert spread == pytest.approx(5, rel=4 / (2 * 10_000) ** 0.5)  # four standard errors
        assert abs(float(layer.weight.detach().mean())) < 4 * 5 / 100
        redraw(layer, "init", 0)
        assert 0.09 < float(layer.weight.detach().abs().max()) <= 0.1  # uniform within 1 / sqrt(100)
    redrawn, kept = redrawable(nn.Sequential(nn.Linear(4, 1), nn.LayerNorm(4), nn.Conv2d(1, 1, 1)))
    assert set(redrawn) == {"0.weight", "0.bias", "2.weight", "2.bias"}  # one output is no layer scale
    assert set(kept) == {"1.weight", "1.bias"}


def test_an_init_that_resets_more_than_weights_keeps_the_rest():
    class Scaled(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 4)
            self.scale = nn.Parameter(torch.full((4,), 0.7))

        def reset_parameters(self) -> None:
            super().reset_parameters()
            if hasattr(self, "scale"):
                nn.init.zeros_(self.scale)

    layer = Scaled()
    before = layer.weight.detach().clone()
    redraw(layer, "init", 5)
    assert not torch.equal(layer.weight, before)
    assert (layer.scale == 0.7).all()


def test_what_does_not_fit(model):
    for stages, message in ((["hed"], "got 'hed'"), (["norm"], "'norm' has no weights"), ([], "at least one stage")):
        with pytest.raises(ValueError, match=message):
            randomized_maps(model, IMAGES, TARGETS, {}, stages=stages)
    with pytest.raises(ValueError, match="'matching' or 'init'"):
        randomized_maps(model, IMAGES, TARGETS, {}, how="zero")
