"""Branches that start at zero are opened where weights are random, and only there."""

import pytest
import timm
import torch
from torch import nn

from horinsight import create_model, model_interaction_spectra, named_blocks
from horinsight.models.origin import weights_origin
from horinsight.models.zero_branches import opened_branches, shut_by


class Rezero(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.alpha, self.bias = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(3))
        self.pos_embed = nn.Parameter(torch.zeros(1, 3, 1, 1))
        self.last = nn.Conv2d(3, 3, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)


def test_what_multiplies_is_drawn_and_what_adds_is_left():
    model = Rezero()
    words = opened_branches(model, seed=3)
    assert words == ", 2 parameters of 0 drawn that hold branches shut"
    assert model.alpha.any()
    assert model.last.weight.std() > 0
    assert not model.bias.any()
    assert not model.pos_embed.any()
    assert not model.last.bias.any()
    again = Rezero()
    opened_branches(again, seed=3)
    assert torch.equal(model.last.weight, again.last.weight), "by seed"
    assert opened_branches(model) == "", "nothing is zero any more"


@pytest.mark.parametrize(
    ("name", "kind", "orders"),
    [("convnextv2_atto", "response_norm", (2, 2)), ("gcresnet33ts", "global_context", (1, 1))],
)
def test_designs_that_were_hidden(name, kind, orders):
    """A response norm with a weight of 0, a global context whose last layer is 0: order 0 as they are built.

    This global context adds a softmax's mean of features, a product of two; where it multiplies, it has order 2.
    """
    images = torch.randn(1, 3, 96, 96)
    found = []
    for model in (timm.create_model(name).eval(), create_model(name)):
        index = next(block.index for block in named_blocks(model, image_size=(96, 96)) if block.mixer == kind)
        (spectrum,) = model_interaction_spectra(model, images, blocks=[index], max_order=4, num_tuples=2).values()
        found.append((spectrum.location_order, spectrum.degree_order))
    assert found[0] == (0, 0)
    assert found[1] == orders
    assert "drawn that hold branches shut" in weights_origin(model).source


def test_trained_weights_are_left_as_they_are():
    model = create_model("hornet_digits_iso")
    assert "drawn" not in weights_origin(model).source


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        ("test_resnet", "layer1.0.bn2.weight"),  # norm scales
        ("test_nfnet", "stages.0.0.conv3.gain"),  # gains of weight-standardised convolutions
        ("csatv2", "stages.0.0.grn.weight"),  # response norms
        ("swinv2_cr_tiny_224", "stages.0.blocks.0.norm1.weight"),  # norms after the branch
        ("gcresnet33ts", "stages.0.0.attn.mlp_add.fc2.weight"),  # last layers
        ("sequencer2d_s", "head.fc.weight"),  # heads
    ],
)
def test_what_timm_shuts_is_opened(name, parameter):
    torch.manual_seed(0)
    as_built = timm.create_model(name)
    assert parameter in shut_by(as_built)
    model = create_model(name, seed=5)
    assert shut_by(model) == []
    assert model.get_parameter(parameter).any()
    again, other = create_model(name, seed=5), create_model(name, seed=6)
    assert torch.equal(model.get_parameter(parameter), again.get_parameter(parameter))
    if "norm" not in parameter and "bn" not in parameter:  # norm scales are 1
        assert not torch.equal(model.get_parameter(parameter), other.get_parameter(parameter))


class Gated(nn.Module):
    """Layer scales, a gate, a gain and a table in names of their own, two of them under one."""

    def __init__(self) -> None:
        super().__init__()
        self.ls1, self.layer_scale = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(1, 4, 1, 1))
        self.gate, self.skipinit_gain = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
        self.relative_position_bias_table = nn.Parameter(torch.zeros(9, 2))
        self.norm, self.conv = nn.LayerNorm(4), nn.Conv2d(4, 4, 3, padding=1, groups=4)
        nn.init.zeros_(self.norm.weight)
        nn.init.zeros_(self.conv.weight)
        self.shared = self.conv


def test_names_of_gates():
    model = Gated()
    shut = ["ls1", "layer_scale", "gate", "skipinit_gain", "norm.weight", "conv.weight"]
    assert shut_by(model) == shut
    assert opened_branches(model) == ", norm scales of 0 set to 1, 5 parameters of 0 drawn that hold branches shut"
    assert shut_by(model) == []
    assert all(model.get_parameter(name).any() for name in shut)
    assert not model.relative_position_bias_table.any()


def test_trained_zeros_are_given_as_the_reason(tmp_path):
    """A checkpoint whose last norm of a block is 0: the block's order is 0, and it is said why."""
    path, images = tmp_path / "zero.pth", torch.randn(1, 3, 96, 96)
    state = create_model("seresnet18").state_dict()
    state["layer1.0.se.fc2.weight"] = torch.zeros_like(state["layer1.0.se.fc2.weight"])
    torch.save(state, path)
    model = create_model("seresnet18", checkpoint=path)
    gates = [block for block in named_blocks(model, image_size=(96, 96)) if block.mixer == "squeeze_excitation"]
    spectra = model_interaction_spectra(
        model, images, blocks=[gates[0].index, gates[1].index], max_order=2, num_tuples=2
    )
    first, second = spectra.values()
    assert (first.location_order, first.convention["zero_weights"]) == (0, "layer1.0.se.fc2.weight")
    assert second.location_order == 1
    assert "zero_weights" not in second.convention
